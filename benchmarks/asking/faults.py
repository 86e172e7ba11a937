"""What goes wrong at a real endpoint, in shares of all calls, drawn from a seed; and the bill and the deliveries for certain."""

import asyncio
import base64
import hashlib
import json
import random
import socket
import struct
import time
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import quote

from benchmarks.asking.server import Teacher, whole

# In tenths of a percent of all calls. Waits that are asked for are a second at most.
SHARES = {
    "429 seconds": 3, "429 date": 3, "429 ms": 5, "429 bare": 5, "500": 7, "503": 5, "529": 5, "hang billed": 3, "hang": 3,
    "reset": 5, "truncated": 5, "no choices": 5, "length too long": 5, "length too short": 5, "same id": 10, "dribbled": 5,
    "key echoed": 5,
}  # fmt: skip
DRIBBLE_BYTES, DRIBBLE_S = 4, 0.004


class Call(NamedTuple):
    """One call under way: where the answer goes, what was asked, and the key that came with it."""

    transport: asyncio.Transport
    prompt: str
    authorization: str
    number: int


class FaultyTeacher(Teacher):
    """Each prompt has one right answer, told by its digest (`marker`). A fault that spoils an answer after it was made is
    billed all the same; one of a status is not."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._draw = random.Random(seed)
        self._kept: set[asyncio.Task[None]] = set()

    def work(self, transport: asyncio.Transport, head: bytes, body: bytes, number: int) -> None:
        prompt = json.loads(body)["messages"][-1]["content"]
        lines = head.decode("latin-1").split("\r\n")
        sent = next((line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("authorization:")), "")
        kind = self._kind() if number != self.settings.deny_at else "401"
        if kind:
            self.counts.faults[kind] = self.counts.faults.get(kind, 0) + 1
        task = self.loop.create_task(self._later(kind, Call(transport, prompt, sent, number)))
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    def _kind(self) -> str:
        if not self.settings.faulty:
            return ""
        at = self._draw.random() * 1000
        for kind, share in SHARES.items():
            at -= share
            if at < 0:
                return kind
        return ""

    async def _later(self, kind: str, call: Call) -> None:
        await asyncio.sleep(self.settings.latency_ms / 1000)
        if kind[:1].isdigit():
            self.send(call.transport, _problem(kind, call))
            return
        if kind == "hang":
            self.ended()
            return
        self._bill_for(call.prompt)
        if kind == "hang billed":
            self.ended()
        elif kind == "dribbled":
            await self._dribble(call)
        elif kind in ("reset", "truncated", "no choices", "length too long", "length too short"):
            self._spoil(kind, call)
        elif self.send(call.transport, whole(_answer(kind, call), call.number)):
            self._count(call)

    def _bill_for(self, prompt: str) -> None:
        self.prompts.setdefault(prompt, [0, 0])[1] += self.bill(*tokens_of(prompt))

    def _count(self, call: Call) -> None:
        self.prompts[call.prompt][0] += 1

    async def _dribble(self, call: Call) -> None:
        """A few bytes at a time: slow, and right."""
        data = whole(_answer("", call), call.number)
        for at in range(0, len(data), DRIBBLE_BYTES):
            if call.transport.is_closing():
                break
            call.transport.write(data[at : at + DRIBBLE_BYTES])
            await asyncio.sleep(DRIBBLE_S)
        if self.send(call.transport, b""):
            self._count(call)

    def _spoil(self, kind: str, call: Call) -> None:
        """An answer that was made and does not arrive whole."""
        body = _answer("", call)
        data = whole(body, call.number)
        if kind == "truncated":
            data = whole(body[: len(body) // 2], call.number)
        elif kind == "no choices":
            answer = json.loads(body)
            data = whole(json.dumps({**answer, "choices": []}).encode(), call.number)
        elif kind == "length too short":
            data = data.replace(b"Content-Length: %d\r\n" % len(body), b"Content-Length: %d\r\n" % (len(body) - 40))
        elif kind == "length too long":
            data = data.replace(b"Content-Length: %d\r\n" % len(body), b"Content-Length: %d\r\n" % (len(body) + 40))
        else:
            data = data[: len(data) - len(body) // 2]
        if not self.send(call.transport, data):
            return
        if kind == "length too long":
            call.transport.close()
        elif kind == "reset":
            held = call.transport.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.loop.call_later(0.01, call.transport.abort)


def marker(prompt: str) -> str:
    """What the answer to this prompt begins with, and to no other."""
    return "answer-" + hashlib.sha256(prompt.encode()).hexdigest()[:24]


def tokens_of(prompt: str) -> tuple[int, int]:
    """Prompt and completion tokens of any call with this prompt."""
    return len(prompt.encode()) // 4 + 10, 40 + int(marker(prompt)[-4:], 16) % 24


def _answer(kind: str, call: Call) -> bytes:
    text = f"{marker(call.prompt)}: as it stands, nine and three make twelve."
    if kind == "key echoed":
        text += " You sent: " + "; ".join(spellings(call.authorization.removeprefix("Bearer ")))
    prompt, completion = tokens_of(call.prompt)
    answer = {
        "id": "chatcmpl-same" if kind == "same id" else f"chatcmpl-{call.number}", "object": "chat.completion",
        "created": 1764000000, "model": "loop",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }  # fmt: skip
    return json.dumps(answer).encode()


def _problem(kind: str, call: Call) -> bytes:
    """An error that repeats what it was sent, as some gateways do."""
    status, _, form = kind.partition(" ")
    headers = {
        "seconds": b"Retry-After: 1\r\n",
        "date": b"Retry-After: %s\r\n" % formatdate(int(time.time()) + 1, usegmt=True).encode(),
        "ms": b"retry-after-ms: 120\r\n",
    }.get(form, b"")
    message = f"status {status}; your request had Authorization: {call.authorization}"
    body = json.dumps({"error": {"message": message, "type": "x", "param": None, "code": None}}).encode()
    return whole(body, call.number, b"%s Problem" % status.encode(), headers)


def spellings(key: str) -> list[str]:
    """How a key may be written: as it is, percent-encoded, in base64 with what surrounds it."""
    percent = "".join(f"%{byte:02X}" for byte in key.encode())
    mixed = quote(key, safe="")
    return [key, mixed, percent, *(base64.b64encode(b"x" * lead + key.encode() + b"yy").decode() for lead in range(3))]
