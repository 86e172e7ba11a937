"""A loopback server and collecting processes, started, watched and measured from outside."""

import json
import os
import platform
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tutelage.hardware import describe

ROOT = Path(__file__).parents[2]
KEY_NAME = "LOOP_KEY"
_COLUMNS = ("prompt", "question", "instruction", "text")


class Dealt(NamedTuple):
    """For one prompt: whole usable answers sent, and nano-USD billed."""

    delivered: int
    nusd: int


class Server:
    """The loopback server in a process of its own; use as a context manager."""

    def __init__(self, *flags: str, core: int | None = None) -> None:
        self._flags = [*flags, *([] if core is None else ["--core", str(core)])]
        self.port = 0

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.asking.server", *self._flags]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def count(self) -> dict[str, Any]:
        return self._call("/count")

    def prompts(self) -> dict[str, "Dealt"]:
        """What a server with faults did for each prompt."""
        return {prompt: Dealt(*dealt) for prompt, dealt in self._call("/prompts").items()}

    def set(self, **settings: Any) -> None:
        self._call("/set", json.dumps(settings).encode())

    def reset(self) -> None:
        self._call("/reset", b"{}")

    def _call(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", body, timeout=30) as answer:
            return json.loads(answer.read())


def load_prompts(data: Path | None, count: int) -> list[str]:
    """So many different prompts: those of the file, each again with a case number where it holds too few; made ones without."""
    if data is None:
        texts = [
            f"A train leaves at {hour} and takes {hour % 7 + 1} hours. " * 5 + "When is it there?" for hour in range(24)
        ]
    else:
        rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines() if line.strip()]
        texts = [next(row[name] for name in _COLUMNS if name in row) for row in rows]
        texts = list(dict.fromkeys(texts))
    made = [text if (case := at // len(texts)) == 0 else f"{text}\n\nCase {case}." for at, text in
            ((at, texts[at % len(texts)]) for at in range(count))]  # fmt: skip
    assert len(set(made)) == count
    return made


def write_run(folder: Path, port: int, prompts: Sequence[str], **changes: Any) -> Path:
    """The prompts and a run file for them; `changes` are dotted keys with `__` for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
    tables: dict[str, dict[str, Any]] = {
        "run": {"name": "benchmark", "seed": 1, "purpose": "internal"},
        "prompts": {"path": str(folder / "prompts.jsonl"), "licence": "own"},
        "teacher": {
            "url": f"http://127.0.0.1:{port}/v1", "model": "loop", "licence": "mit", "signal": "text",
            "api_key_env": KEY_NAME, "concurrency": 500, "attempts": 8, "timeout_s": 60,
        },
        "teacher.price": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0, "dated": "2026-11-01"},
        "sampling": {"max_tokens": 300, "temperature": 0.7, "samples": 1},
        "budget": {"max_cost_usd": 100_000.0, "max_tokens": 10**12},
    }  # fmt: skip
    for name, value in changes.items():
        table, key = name.rsplit("__", 1)
        tables[table.replace("__", ".")][key] = value
    lines = []
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path = folder / "run.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Ended(NamedTuple):
    """How a process ended: its exit code (negative: the signal), seconds of wall and processor, peak resident MB."""

    code: int
    wall_s: float
    cpu_s: float
    rss_mb: float


class Collector:
    """`tutelage collect` at work in a process of its own; what it says goes to files."""

    def __init__(
        self, run_file: Path, out: Path, said: Path, *flags: str, core: int | None = None, env: Mapping[str, str] = {}
    ) -> None:
        command = [sys.executable, "-m", "tutelage", "collect", str(run_file), "--out", str(out), *flags]
        if core is not None:
            command = ["taskset", "--cpu-list", str(core), *command]
        # No configuration of whoever runs this: no prices, no signing key.
        own = {"XDG_CONFIG_HOME": str(run_file.parent / "no-configuration"), KEY_NAME: "loopback-needs-no-key"}
        said.parent.mkdir(parents=True, exist_ok=True)
        with said.open("ab") as file:
            self.said_before = file.tell()
            self.began_at = time.monotonic()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=ROOT, env={**os.environ, **own, **env}
            )
        self._peak_kb = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """The kernel's own peak (`VmHWM`): that of the resource usage begins with what the parent had at the fork."""
        try:
            while True:
                status = Path(f"/proc/{self.process.pid}/status").read_text()
                found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
                if not found:
                    return
                self._peak_kb = max(self._peak_kb, int(found[0]))
                time.sleep(0.02)
        except OSError:
            return

    @property
    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> Ended:
        self.process.kill()
        return self.wait()

    def wait(self) -> Ended:
        _, status, used = os.wait4(self.process.pid, 0)
        wall_s = time.monotonic() - self.began_at
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return Ended(self.process.returncode, wall_s, used.ru_utime + used.ru_stime, self._peak_kb / 1024)


def about() -> dict[str, Any]:
    """Machine, versions and day, for a result file."""
    names = ("tutelage", "aiohttp", "openai", "httpx", "httpx2", "httpx-aiohttp", "orjson")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "hardware": describe(),
        "python": platform.python_version(),
        "versions": versions,
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "date": datetime.now(UTC).date().isoformat(),
    }


def write_result(path: Path, found: Mapping[str, Any]) -> None:
    """Adds to the result file (what another part measured stays) and prints the whole as the last line."""
    before = json.loads(path.read_bytes()) if path.exists() else {}
    after = {**before, **found}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(after, indent=1) + "\n")
    print(json.dumps(after))
