"""A loopback server that speaks the real protocol: an OpenAI-compatible teacher that knows a few words, and its faults."""

import asyncio
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

from aiohttp import web

WORDS = {
    "sport": ("match", "goal", "team", "coach"),
    "food": ("soup", "bread", "spice", "kitchen"),
    "weather": ("rain", "storm", "sunny", "frost"),
}
Fault = Callable[[int, web.Request], Any]


class Teacher:
    """Counts what it was asked; `fault(number, request)` may return a response (or raise) instead of an answer."""

    def __init__(self, labels: dict[str, tuple[str, ...]] = WORDS, *, logprobs: bool = True) -> None:
        self.labels = labels
        self.logprobs = logprobs
        self.fault: Fault = lambda number, request: None
        self.asked = 0
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.delay_s = 0.0
        self.base_url = ""

    def add_routes(self, app: web.Application) -> None:
        """What else a kind of teacher serves."""

    def scores(self, text: str) -> dict[str, float]:
        raw = {label: 1.0 + 4.0 * sum(word in text for word in words) for label, words in self.labels.items()}
        total = math.log(sum(math.exp(value) for value in raw.values()))
        return {label: value - total - 0.05 for label, value in raw.items()}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.headers.append(dict(request.headers))
        body = await request.json()
        if (fault := self.fault(self.asked, request)) is not None:
            return await fault if asyncio.iscoroutine(fault) else fault
        await asyncio.sleep(self.delay_s)
        chat = "messages" in body
        text = body["messages"][-1]["content"] if chat else body["prompt"].rsplit("\n\n", 1)[-1]
        wanted = body.get("top_logprobs", 0) if chat else body.get("logprobs", 0)
        self.bodies.append(body)
        self.answered[text] += 1
        scores = self.scores(text)
        ranked = sorted(scores, key=lambda label: -scores[label])
        candidates = [
            {"token": label, "bytes": list(label.encode()), "logprob": scores[label]} for label in ranked[:wanted]
        ]
        said = {"message": {"role": "assistant", "content": ranked[0]}} if chat else {"text": " " + ranked[0]}
        choice: dict[str, Any] = {"index": 0, **said, "finish_reason": "stop"}
        if self.logprobs and not chat and wanted:
            choice["logprobs"] = {
                "tokens": [" " + ranked[0]],
                "token_logprobs": [scores[ranked[0]]],
                "top_logprobs": [{" " + label: scores[label] for label in ranked[:wanted]}],
                "text_offset": [0],
            }
        elif self.logprobs and wanted:
            choice["logprobs"] = {"content": [{**candidates[0], "top_logprobs": candidates}]}
        answer = {
            "id": f"chatcmpl-{self.asked}",
            "object": "chat.completion" if chat else "text_completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8},
        }
        return web.json_response(answer, headers={"x-request-id": f"req-{self.asked}"})


@contextmanager
def on_loopback(app: web.Application) -> Iterator[str]:
    """The application on a free loopback port, in a thread; gives its base URL, without a path."""
    loop = asyncio.new_event_loop()
    ready: Queue[int] = Queue()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ready.put(site._server.sockets[0].getsockname()[1])  # type: ignore[union-attr]
        return runner

    def run() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{ready.get(timeout=10)}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@contextmanager
def serving(teacher: Teacher) -> Iterator[Teacher]:
    """The teacher on a free loopback port."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", teacher.handle)
    app.router.add_post("/v1/completions", teacher.handle)
    teacher.add_routes(app)
    with on_loopback(app) as base:
        teacher.base_url = f"{base}/v1"
        yield teacher


def problem(status: int, headers: dict[str, str] | None = None, message: str = "") -> web.Response:
    body = json.dumps({"error": {"message": message or f"status {status}", "type": "x", "param": None, "code": None}})
    return web.Response(status=status, body=body.encode(), headers=headers, content_type="application/json")
