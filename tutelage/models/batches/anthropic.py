"""Anthropic's Message Batches.

Source: Anthropic API reference, `messages/batches`, errors, and its guide to batch processing (100,000 questions or 256 MB a
batch; results for 29 days). A batch carries no mark of ours: it is found again by its time and its number of questions.
"""

from collections.abc import AsyncIterator, Container, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from tutelage.models.anthropic import AnthropicDialect
from tutelage.models.batches.base import BatchLine, BatchModel, BatchState, BatchStatus
from tutelage.models.batches.parts import (
    Listed,
    identifier,
    line_value,
    listing,
    number,
    objects,
    raw_member,
    seconds,
    table,
)
from tutelage.records import Request
from tutelage.wire.values import WireError

STATUS_OF = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504,
    "overloaded_error": 529,
}  # fmt: skip


class AnthropicBatches(BatchModel):
    """`/v1/messages/batches`."""

    keeps_marks = False

    @staticmethod
    def new_dialect() -> AnthropicDialect:
        return AnthropicDialect()

    def line(self, custom_id: str, request: Request) -> bytes:
        return orjson.dumps({"custom_id": custom_id, "params": self.dialect.body(self.endpoint, request)})

    async def submit(self, lines: Sequence[bytes], sample: Request, token: str) -> str:
        data = b'{"requests":[' + b",".join(lines) + b"]}"
        return identifier(await self._json("POST", self._at(""), data), "id")

    async def find(self, token: str, since: str, count: int, taken: Container[str]) -> str | None:
        """The one that fits and is nearest in time."""
        fits = [
            (abs(listed.created_s - seconds(since)), listed.batch_id)
            async for listed in listing(self._pages(), since)
            if listed.count == count and listed.batch_id not in taken
        ]
        return min(fits)[1] if fits else None

    async def poll(self, batch_id: str) -> BatchState:
        job = await self._json("GET", self._at(f"/{quote(batch_id, safe='')}"))
        counts = table(job, "request_counts")
        status = BatchStatus.ENDED if job.get("processing_status") == "ended" else BatchStatus.RUNNING
        return BatchState(status, number(counts.get("succeeded")), _total(counts))

    async def results(self, batch_id: str) -> AsyncIterator[BatchLine]:
        # Not from `results_url`: the key goes with the request, and goes nowhere but to the base URL.
        async for line in self._lines(self._at(f"/{quote(batch_id, safe='')}/results")):
            if (found := _line(line)) is not None:
                yield found

    async def _pages(self) -> AsyncIterator[list[Listed]]:
        query = {"limit": "100"}
        while True:
            page = await self._json("GET", self._at("", query))
            jobs = objects(page.get("data"))
            yield [_listed(job) for job in jobs]
            if page.get("has_more") is not True or not jobs:
                return
            query["after_id"] = identifier(jobs[-1], "id")

    def _at(self, path: str, query: dict[str, str] | None = None) -> str:
        base = urlsplit(self.endpoint.base_url).path.rstrip("/").removesuffix("/v1")
        return self._url(f"{base}/v1/messages/batches{path}", query)


def _listed(job: dict[str, Any]) -> Listed:
    counts = table(job, "request_counts")
    try:
        created_s = seconds(str(job.get("created_at")))
    except ValueError:
        created_s = float("inf")
    return Listed(identifier(job, "id"), created_s, "", _total(counts))


def _total(counts: dict[str, Any]) -> int:
    return sum(number(counts.get(key)) for key in ("processing", "succeeded", "errored", "canceled", "expired"))


def _line(line: bytes) -> BatchLine | None:
    value = line_value(line)
    custom_id = value.get("custom_id") if value else None
    result = value.get("result") if value else None
    if not isinstance(custom_id, str) or not isinstance(result, dict):
        return None
    try:
        if result.get("type") == "succeeded":
            return BatchLine(custom_id, 200, raw_member(line, "result", "message"))
        if result.get("type") == "errored":
            body = raw_member(line, "result", "error")
            return BatchLine(custom_id, _status(result["error"]), body)
    except (WireError, RecursionError):
        return None
    return BatchLine(custom_id, 0, b"", f"the batch ended before this question: {result.get('type')!r:.50}")


def _status(error: Any) -> int:
    """The HTTP status that goes with an error's type, which lies one object deeper in an error response."""
    error = error if isinstance(error, dict) else {}
    kind = (table(error, "error") or error).get("type")
    return STATUS_OF.get(kind, 500) if isinstance(kind, str) else 500
