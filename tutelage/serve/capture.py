"""Capturing: the proxy and its recorder, from start to stop, and what the folder says of it."""

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tutelage.collect.draws import alone
from tutelage.errors import ConfigError, DataError
from tutelage.hosts import is_loopback
from tutelage.jsonl import write_pretty
from tutelage.models.exchange import now_utc
from tutelage.redact import Patterns, Secrets
from tutelage.serve.proxy import HEALTH, MAX_LINE, Proxy, checked_upstream
from tutelage.serve.recording import COUNTS, Reader, Recorder

_DRAIN_S = 30
_SWITCH_S = 0.0005  # the recorder's thread gives way to the proxy after this


@dataclass(frozen=True, slots=True)
class Capture:
    """What to capture, and how. `folder` None is a dry run; `sample` is a share from 0 to 1; port 0 takes any free one,
    and `on_listening` gets the real one."""

    upstream: str
    folder: Path | None
    host: str = "127.0.0.1"
    port: int = 8080
    sample: float = 1.0
    patterns: Patterns = field(default_factory=Patterns)
    secrets: Secrets = field(default_factory=Secrets.of_environment)
    opt_out_header: str = "x-tutelage-opt-out"
    record_encodings: bool = False  # ask the provider only for encodings that can be read here
    purpose: str = "capture"
    on_listening: Callable[[int], None] = lambda port: None


def capture(options: Capture) -> Recorder:
    """Passes calls on and records them until SIGINT or SIGTERM; returns the recorder with its counts.

    Raises `ConfigError` for an upstream that is none, a sample outside 0 to 1 or a taken port, and `StorageError` for a
    folder that cannot be written or that another process works in.
    """
    if not 0 <= options.sample <= 1:
        raise ConfigError(f"--sample {options.sample} is not a share", fix="give a number from 0 to 1")
    host = checked_upstream(options.upstream).hostname or ""
    recorder = Recorder(Reader(host, options.purpose, options.secrets, options.patterns), options.folder)
    proxy = Proxy(options.upstream, options.sample, options.opt_out_header, recorder, options.record_encodings)
    with alone(options.folder) if options.folder is not None else nullcontext():
        _run(options, host, proxy, recorder)
    return recorder


def _run(options: Capture, host: str, proxy: Proxy, recorder: Recorder) -> None:
    note = _note(options, host)
    _write_note(options.folder, note)
    if not is_loopback(options.host):
        print(
            f"tutelage capture: whoever reaches {options.host}:{options.port} can use {host} through it, with a key of "
            "their own, and is recorded",
            file=sys.stderr,
        )
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    recorder.start()
    try:
        asyncio.run(_until_stopped(options, proxy))
    finally:
        recorder.close()
        sys.setswitchinterval(before)
    _write_note(options.folder, note | {"ended": now_utc(), "counts": recorder.health()})


async def _until_stopped(options: Capture, proxy: Proxy) -> None:
    async with listening(proxy, options.host, options.port) as port:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        options.on_listening(port)
        await stop.wait()


@asynccontextmanager
async def listening(proxy: Proxy, host: str, port: int) -> AsyncIterator[int]:
    """Within: the proxy serves on that port, or for 0 on a free one, which is given. Calls under way are then finished.

    Raises `ConfigError` when it cannot listen there.
    """
    silent = logging.getLogger("tutelage.capture")  # what the server library would log may hold what a caller sent
    silent.addHandler(logging.NullHandler())
    silent.propagate = False
    runner = web.AppRunner(
        proxy.app,
        access_log=None,
        logger=silent,
        handler_cancellation=True,  # a caller that hangs up ends the call at the provider
        auto_decompress=False,
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        shutdown_timeout=_DRAIN_S,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}", fix="choose another --port"
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _note(options: Capture, host: str) -> dict[str, Any]:
    """What the folder says of a capture. Own patterns are told by name only: an expression may hold what it looks for."""
    return {
        "upstream": host,
        "started": now_utc(),
        "sample": str(options.sample),
        "redacted": list(options.patterns.names),
        "opt_out_header": options.opt_out_header,
        "purpose": options.purpose,
    }


def _write_note(folder: Path | None, note: dict[str, Any]) -> None:
    """One entry for every capture into the folder, the last one at the end."""
    if folder is None:
        return
    path, entries = folder / "capture.json", []
    if path.exists():
        try:
            entries = json.loads(path.read_bytes())["captures"]
            same = bool(entries) and entries[-1]["started"] == note["started"] and "ended" in note
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{path} is damaged", fix="move it away; the store beside it is whole") from None
        entries = entries[:-1] if same else entries
    write_pretty(path, {"captures": [*entries, note]})


def summary(recorder: Recorder) -> list[str]:
    """What passed, what was kept and what was taken out, in lines for people; examples are masked."""
    counts, health = recorder.counts, recorder.health()
    shown = [name for name in COUNTS if counts[name] or name in ("passed", "recorded")]
    lines = [", ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in shown)]
    lines += [f"  redacted {one.name}: {one.count}, such as {one.example}" for one in recorder.found.found()]
    lines += [f"  not recorded: {count} × {reason}" for reason, count in recorder.unusable.most_common(10)]
    if health["recording"] != "ok":
        lines.append(f"  NOT RECORDED: {health['recording']}")
    if health["storage"] != "ok":
        lines.append(f"  storage fails: {health['storage']}; see GET {HEALTH}")
    return lines
