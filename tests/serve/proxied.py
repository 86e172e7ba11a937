"""A proxy between raw sockets and an upstream of raw bytes, which speaks the protocol, sometimes badly."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

from tutelage.redact import Patterns, Secrets
from tutelage.serve.capture import listening
from tutelage.serve.proxy import HEALTH, Proxy
from tutelage.serve.recording import Reader, Recorder
from tutelage.store.store import Store

KEY = "sk-planted-0123456789abcdefXYZ"
CALLER = "sk-caller-9876543210fedcbaXYZ"
ASK = [{"role": "user", "content": "what is the weather?"}]
CHAT = "/v1/chat/completions"
CLIENT = openai.OpenAI(base_url="http://127.0.0.1:1", api_key=CALLER, max_retries=0, timeout=20)
QUESTION = json.dumps({"model": "m", "messages": ASK}).encode()
Reply = Callable[[str, dict[str, str], bytes], list[Any]]


def answer(text: str = "sunny", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    whole = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m-1",
        "choices": [choice],
        "usage": usage,
    }
    return json.dumps({**whole, **more}).encode()


def plain(body: bytes, head: str = "Content-Type: application/json\r\n", status: str = "200 OK") -> list[Any]:
    return [f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body]


def chunked(parts: list[Any], head: str = "Content-Type: text/event-stream\r\n") -> list[Any]:
    """Each part as a chunk of its own; anything else is waited for."""
    out: list[Any] = [f"HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode()]
    out += [b"%x\r\n%s\r\n" % (len(part), part) if isinstance(part, bytes) else part for part in parts]
    return [*out, b"0\r\n\r\n"]


def events(*values: Any) -> list[Any]:
    return [*(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values), b"data: [DONE]\n\n"]


def delta(index: int = 0, finish: str | None = None, **said: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": said, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": [choice]}


class Upstream:
    """A server of raw bytes: `reply(target, headers, body)` says what is written, waited for (seconds, or an event)
    or done ("reset", "close"). Remembers what came."""

    def __init__(self) -> None:
        self.reply: Reply = lambda target, headers, body: plain(answer())
        self.seen: list[tuple[str, list[tuple[str, str]], bytes]] = []
        self.hung_up = threading.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
                headers = {name.lower(): value for name, value in fields}
                body = await self._body(reader, headers)
                self.seen.append((first, fields, body))
                for step in self.reply(first.split(" ")[1], headers, body):
                    if isinstance(step, bytes):
                        writer.write(step)
                        await writer.drain()
                    elif step == "reset":
                        writer.transport.abort()
                        return
                    elif step == "close":
                        return
                    elif isinstance(step, threading.Event):
                        await asyncio.to_thread(step.wait, 10)
                    else:
                        waited = asyncio.ensure_future(reader.read(1))
                        done, _ = await asyncio.wait({waited}, timeout=float(step))
                        if done:
                            self.hung_up.set()
                            return
                        waited.cancel()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        finally:
            writer.close()

    async def _body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await reader.readexactly(int(headers["content-length"]))
        body = b""
        while headers.get("transfer-encoding") == "chunked":
            size = int(await reader.readline(), 16)
            body += (await reader.readexactly(size + 2))[:-2]
            if size == 0:
                break
        return body


@contextmanager
def in_thread(main: Callable[[asyncio.Event, Callable[[int], None]], Any]) -> Iterator[int]:
    """Runs `main(stop, listening_on)` in a loop of its own; gives the port it tells."""
    ready, ports = threading.Event(), []
    held: dict[str, Any] = {}

    async def run() -> None:
        held["loop"], held["stop"] = asyncio.get_running_loop(), asyncio.Event()

        def tell(port: int) -> None:
            ports.append(port)
            ready.set()

        await main(held["stop"], tell)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield ports[0]
    finally:
        held["loop"].call_soon_threadsafe(held["stop"].set)
        thread.join(20)
        assert not thread.is_alive()


@dataclass
class Running:
    """A proxy and its recorder; after `stop` everything is stored."""

    recorder: Recorder
    folder: Path
    port: int = 0
    stop: Callable[[], None] = field(default=lambda: None)

    def settled(self, count: int, name: str = "recorded") -> None:
        until = time.monotonic() + 10
        while self.recorder.counts[name] < count and time.monotonic() < until:
            time.sleep(0.005)
        assert self.recorder.counts[name] == count, self.recorder.health() | {"why": self.recorder.unusable}

    def lines(self, kind: str) -> list[dict[str, Any]]:
        with Store(self.folder / "store") as store:
            return [line.value for _, line in store.lines() if line.kind == kind]

    def written(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file())

    def client(self, **more: Any) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key=CALLER, max_retries=0, timeout=20, **more
        )


@contextmanager
def running(
    upstream: Upstream, folder: Path, sample: float = 1.0, dry: bool = False, redact: str = "email,keys,numbers",
    ask_readable: bool = False,
) -> Iterator[Running]:  # fmt: skip
    secrets = Secrets({"PLANTED": KEY})
    recorder = Recorder(Reader("127.0.0.1", "capture", secrets, Patterns.of_options(redact)), None if dry else folder)
    proxy = Proxy(f"http://127.0.0.1:{upstream.port}", sample, "x-tutelage-opt-out", recorder, ask_readable)

    async def main(stop: asyncio.Event, tell: Callable[[int], None]) -> None:
        async with listening(proxy, "127.0.0.1", 0) as port:
            tell(port)
            await stop.wait()

    recorder.start()
    one = Running(recorder, folder)
    try:
        with in_thread(main) as one.port:
            yield one
    finally:
        recorder.close()


def exchange(port: int, request: bytes) -> bytes:
    """Everything a server sends back until it closes the connection or breaks it."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request)
        received = b""
        try:
            while block := client.recv(65536):
                received += block
        except ConnectionResetError:
            pass
        return received


def post(body: bytes, path: str = CHAT, head: str = "", method: str = "POST") -> bytes:
    fields = f"Host: x\r\nConnection: close\r\nAuthorization: Bearer {CALLER}\r\n{head}"
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\n{fields}{length}\r\n".encode() + body


def parsed(raw: bytes) -> tuple[str, list[tuple[str, str]], bytes, bool]:
    """Status line, fields but those of one hop, the body without its chunks, and whether it is whole."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    names = {name.lower(): value for name, value in fields}
    kept = [pair for pair in fields if pair[0].lower() not in ("connection", "transfer-encoding", "keep-alive")]
    if names.get("transfer-encoding") != "chunked":
        return first, kept, rest, "content-length" not in names or len(rest) == int(names["content-length"])
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if size == b"0":
            return first, kept, body, True
        body += rest[: int(size or b"0", 16)]
        rest = rest[int(size or b"0", 16) + 2 :]
    return first, kept, body, False


def health(port: int) -> tuple[int, dict[str, Any]]:
    status, _, body, _ = parsed(
        exchange(port, f"GET {HEALTH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    )
    return int(status.split(" ")[1]), json.loads(body)
