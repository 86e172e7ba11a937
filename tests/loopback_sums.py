"""A loopback model that answers small sums, right on a fixed share of them."""

import re
import zlib
from typing import Any

from aiohttp import web

from tests.loopback import Teacher


class Adder(Teacher):
    """Says "The answer is N." in chat. `share` of all sums it gets right, always the same ones: those that another `Adder` of a
    smaller share gets right are among them, unless `from_above`: then those that others get wrong come first."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.from_above = False
        self.said: dict[str, str] = {}

    def reply(self, text: str) -> str:
        first, second = map(int, re.findall(r"\d+", text)[:2])
        place = zlib.crc32(text.encode()) / 2**32
        is_right = (1.0 - place if self.from_above else place) < self.share
        return f"The answer is {first + second + (0 if is_right else 1)}."

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        body: dict[str, Any] = await request.json()
        self.bodies.append(body)
        if (fault := self.fault(self.asked, request)) is not None:
            return fault
        text = body["messages"][-1]["content"]
        said = self.reply(text)
        return answer(body, self.asked, said)


def answer(body: dict[str, Any], number: int, said: str) -> web.Response:
    """A chat completion of the OpenAI form."""
    return web.json_response(
        {
            "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
        }
    )  # fmt: skip


class Referee(Teacher):
    """A judge of two sums: `manner` is "fair" (right beats wrong), "first" (always the first), "garbage", or "random"."""

    def __init__(self, manner: str) -> None:
        super().__init__()
        self.manner = manner

    def verdict(self, text: str) -> str:
        nonce = re.search(r"begins ([0-9a-f]{20})", text)
        assert nonce
        if self.manner == "garbage":
            return "Both answers are lovely."
        first, second = map(int, re.findall(r"What is (\d+) \+ (\d+)", text)[0])
        said = [int(number) for number in re.findall(r"The answer is (\d+)\.", text)]
        right = [number == first + second for number in said]
        fair = "TIE" if right[0] == right[1] else "A" if right[0] else "B"
        chance = "AB"[zlib.crc32(text.encode()) % 2]
        says = {"fair": fair, "first": "A", "random": chance}
        return f"Because.\nVERDICT {nonce[1]}: {says[self.manner]}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        body: dict[str, Any] = await request.json()
        return answer(body, self.asked, self.verdict(body["messages"][-1]["content"]))
