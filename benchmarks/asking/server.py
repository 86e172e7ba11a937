"""A loopback server that answers OpenAI chat completions: fast enough not to be what is measured, and it counts its bill.

`python -m benchmarks.asking.server [--port N] [--faults SEED]` prints its port and serves until its standard input closes.
HTTP/1.1 (RFC 9112) by hand on asyncio: keep-alive, bodies with a content length. `GET /count` gives the counts,
`GET /prompts` whole answers sent and nano-USD billed for each prompt (of a server with faults), `POST /set` changes what is
set and `POST /reset` counts anew.
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass, field

# What it bills, in nano-USD a token: 1 and 4 dollars a million.
INPUT_NUSD, OUTPUT_NUSD = 1000, 4000
TOKENS, CANDIDATES = 100, 20  # of the answer with log-probabilities
_TEXT = ("The train leaves at nine and takes three hours, so it is there at noon. " * 14)[:1000]


@dataclass(slots=True)
class Settings:
    """What can be set while it runs."""

    latency_ms: int = 50
    logprobs: bool = False
    silent: bool = False  # takes questions and answers none
    stop_after: int = 0  # falls silent after so many answers; 0: never
    faulty: bool = True  # of a server with faults: whether they happen
    deny_at: int = 0  # the number of the call that is told its key is wrong (faults alone)


@dataclass(slots=True)
class Counts:
    """What it did since the last reset. Times are of the monotonic clock, which all processes of a machine share."""

    asked: int = 0
    answered: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    cut_off: int = 0  # calls whose connection was gone when the answer was ready
    prompt_tokens: int = 0
    completion_tokens: int = 0
    billed_nusd: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)


class Connection(asyncio.Protocol):
    """One client's connection: requests in, handed over whole."""

    def __init__(self, teacher: "Teacher") -> None:
        self.teacher = teacher
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._rest + data if self._rest else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            until = end + 4 + _length(buffer[:end])
            if len(buffer) < until:
                break
            self.teacher.take(self.transport, buffer[:end], buffer[end + 4 : until])
            buffer = buffer[until:]
        self._rest = buffer


def _length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


class Teacher:
    """Answers every question alike after the latency. `faults.FaultyTeacher` is one that misbehaves."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.counts = Counts()
        self.prompts: dict[str, list[int]] = {}
        self._plain = _parts(_TEXT, None, 256)
        self._shown = _parts("".join(_words()), _logprobs(), TOKENS)
        self.loop = asyncio.get_running_loop()

    def take(self, transport: asyncio.Transport, head: bytes, body: bytes) -> None:
        if not head.startswith(b"POST /v1/"):
            self._control(transport, head.split(b" ", 2)[1].decode(), body)
            return
        counts = self.counts
        counts.asked += 1
        counts.in_flight += 1
        counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
        counts.first_at = counts.first_at or time.monotonic()
        settings = self.settings
        if settings.silent or 0 < settings.stop_after < counts.asked:
            return
        self.work(transport, head, body, counts.asked)

    def work(self, transport: asyncio.Transport, head: bytes, body: bytes, number: int) -> None:
        self.loop.call_later(self.settings.latency_ms / 1000, self._answer, transport, len(body), number)

    def _answer(self, transport: asyncio.Transport, size: int, number: int) -> None:
        before, middle, after, completion = self._shown if self.settings.logprobs else self._plain
        prompt = size // 4
        self.bill(prompt, completion)
        usage = b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
            prompt,
            completion,
            prompt + completion,
        )
        self.send(transport, whole(b"%s%012d%s%s%s" % (before, number, middle, usage, after), number))

    def bill(self, prompt: int, completion: int) -> int:
        """Returns nano-USD."""
        counts, nusd = self.counts, prompt * INPUT_NUSD + completion * OUTPUT_NUSD
        counts.prompt_tokens += prompt
        counts.completion_tokens += completion
        counts.billed_nusd += nusd
        return nusd

    def send(self, transport: asyncio.Transport, data: bytes) -> bool:
        """Whether the client was still there."""
        self.ended()
        if transport.is_closing():
            self.counts.cut_off += 1
            return False
        transport.write(data)
        self.counts.answered += 1
        return True

    def ended(self) -> None:
        self.counts.in_flight -= 1
        self.counts.last_at = time.monotonic()

    def _control(self, transport: asyncio.Transport, path: str, body: bytes) -> None:
        said: object = {}
        if path == "/count":
            spent = resource.getrusage(resource.RUSAGE_SELF)
            said = asdict(self.counts) | {"cpu_s": spent.ru_utime + spent.ru_stime}
        elif path == "/prompts":
            said = self.prompts
        elif path == "/set":
            for name, value in json.loads(body).items():
                setattr(self.settings, name, value)
        elif path == "/reset":
            self.counts, self.prompts = Counts(), {}
        transport.write(whole(json.dumps(said).encode(), 0))


def whole(body: bytes, number: int, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    """A whole response around a JSON body."""
    return (
        b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nx-request-id: req-%d\r\n%sContent-Length: %d\r\n\r\n%s"
        % (status, number, headers, len(body), body)
    )


def _words() -> list[str]:
    return [f" word{number:02d}" for number in range(TOKENS)]


def _logprobs() -> dict[str, object]:
    """As OpenAI sends them: token, its bytes, its log-probability, and the most likely candidates."""

    def entry(text: str, logprob: float) -> dict[str, object]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    content = []
    for at, word in enumerate(_words()):
        top = [entry(word, -0.1)] + [
            entry(f" maybe{at}-{other}", -2.34567 - other / 7) for other in range(1, CANDIDATES)
        ]
        content.append({**top[0], "top_logprobs": top})
    return {"content": content, "refusal": None}


def _parts(text: str, logprobs: object, completion: int) -> tuple[bytes, bytes, bytes, int]:
    """An answer's bytes before its number, between number and usage, and after; and its completion tokens."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}
    answer = {"id": "chatcmpl-@", "object": "chat.completion", "created": 1764000000, "model": "loop", "choices": [choice],
              "usage": "@", "system_fingerprint": "fp_loop"}  # fmt: skip
    before, middle, after = json.dumps(answer, separators=(",", ":")).encode().replace(b'"@"', b"@").split(b"@")
    return before, middle, after, completion


async def serve(port: int, faults: int | None) -> None:
    if faults is None:
        teacher = Teacher()
    else:
        from benchmarks.asking.faults import FaultyTeacher

        teacher = FaultyTeacher(faults)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(teacher), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # whoever started us holds the other end
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", type=int, help="seed of the faults; without it there are none")
    parser.add_argument("--core", type=int, help="the one core to run on")
    chosen = parser.parse_args()
    if chosen.core is not None:
        os.sched_setaffinity(0, {chosen.core})
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(chosen.port, chosen.faults))


if __name__ == "__main__":
    main()
