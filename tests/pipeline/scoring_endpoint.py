"""A loopback endpoint that scores texts with a folder's own weights, in either form; its faults are set by tests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.loopback import on_loopback
from tutelage.models.hf import HFModel
from tutelage.models.scoring import ScoreRequest, score_text

Bend = Callable[[dict[str, Any]], None]


@dataclass
class Endpoint:
    """Counts what it is asked. `bend` may change an answer before it is sent, `refuse` (a status) ends every call."""

    model: HFModel
    base_url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0
    fingerprint: str = "fp-one"
    bend: Bend = lambda answer: None
    refuse: int = 0
    stop_after: int | None = None

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.refuse or (self.stop_after is not None and len(self.asked) >= self.stop_after):
            return web.json_response({"error": {"message": "no"}}, status=self.refuse or 401)
        self.asked.append(body)
        ids = tuple(body["prompt"])
        self.tokens += len(ids)
        k = body.get("prompt_logprobs", body.get("logprobs"))
        assert body["temperature"] == 1
        rows = score_text(self.model, ScoreRequest(ids, k, with_next=False)).positions
        choice = self._echo(ids, rows, k) if body.get("echo") else self._prompt(ids, rows)
        answer: dict[str, Any] = {
            "id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": [choice],
            "system_fingerprint": self.fingerprint,
            "usage": {"prompt_tokens": len(ids), "completion_tokens": 0, "total_tokens": len(ids)},
        }  # fmt: skip
        self.bend(answer)
        return web.json_response(answer)

    def _spelled(self, token: int) -> str:
        return self.model.token_bytes[token].decode("utf-8", "replace")

    def _echo(self, ids: tuple[int, ...], rows: Any, k: int) -> dict[str, Any]:
        tops = [
            {self._spelled(one.token_id): one.logprob_unats / 1e6 for one in (*row.top, row.chosen)} for row in rows
        ]
        told = {
            "tokens": [self._spelled(token) for token in ids],
            "token_logprobs": [None, *(row.chosen.logprob_unats / 1e6 for row in rows)],
            "top_logprobs": [None, *tops],
        }
        return {"index": 0, "text": "", "logprobs": told, "finish_reason": "length"}

    def _prompt(self, ids: tuple[int, ...], rows: Any) -> dict[str, Any]:
        told = [
            {
                str(one.token_id): {"logprob": one.logprob_unats / 1e6, "decoded_token": self._spelled(one.token_id)}
                for one in (*row.top, row.chosen)
            }
            for row in rows
        ]
        return {"index": 0, "text": "", "prompt_logprobs": [None, *told], "finish_reason": "length"}


@contextmanager
def scoring(folder: Path) -> Iterator[Endpoint]:
    """The endpoint of a model folder in float32, on a free loopback port."""
    endpoint = Endpoint(HFModel.load(folder, dtype="float32"))
    app = web.Application()
    app.router.add_post("/v1/completions", endpoint.handle)
    with on_loopback(app) as base:
        endpoint.base_url = f"{base}/v1"
        yield endpoint
