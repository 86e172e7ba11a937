"""OpenAI's batch API, and those of the same form: a file of questions goes up, a file of answers comes down.

Source: OpenAI API reference, `files` and `batches`, and its guide to batches (50,000 questions and 200 MB a file). The base
URL's path is continued, and its query kept, as for single calls (Azure).
"""

import secrets
from collections.abc import AsyncIterator, Container, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from tutelage.models.base import AskAgain
from tutelage.models.batches.base import BatchLine, BatchModel, BatchState, BatchStatus
from tutelage.models.batches.parts import (
    Listed,
    identifier,
    line_value,
    listing,
    message,
    number,
    objects,
    raw_member,
    table,
)
from tutelage.models.openai import OpenAIDialect
from tutelage.records import Request
from tutelage.wire.values import WireError

MARK = "tutelage"  # the key of our mark among a job's metadata
_ENDED = ("completed", "expired", "cancelled")
_FULL = "token_limit_exceeded"  # too many tokens of this account are waiting


class OpenAIBatches(BatchModel):
    """`/files` and `/batches`."""

    @staticmethod
    def new_dialect() -> OpenAIDialect:
        return OpenAIDialect()

    def line(self, custom_id: str, request: Request) -> bytes:
        body = self.dialect.body(self.endpoint, request)
        return orjson.dumps({"custom_id": custom_id, "method": "POST", "url": _path(request), "body": body})

    async def submit(self, lines: Sequence[bytes], sample: Request, token: str) -> str:
        boundary = secrets.token_hex(16)
        form = _form(boundary, {"purpose": "batch"}, f"{token}.jsonl", b"".join(line + b"\n" for line in lines))
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        file = identifier(await self._json("POST", self._at("files"), form, kind), "id")
        job = {
            "input_file_id": file,
            "endpoint": _path(sample),
            "completion_window": "24h",
            "metadata": {MARK: token},
        }
        return identifier(await self._json("POST", self._at("batches"), orjson.dumps(job)), "id")

    async def find(self, token: str, since: str, count: int, taken: Container[str]) -> str | None:
        async for listed in listing(self._pages(), since):
            if listed.token == token:
                return listed.batch_id
        return None

    async def poll(self, batch_id: str) -> BatchState:
        job = await self._job(batch_id)
        counts = table(job, "request_counts")
        answered, total = number(counts.get("completed")), number(counts.get("total"))
        if job.get("status") == "failed":
            errors = objects(table(job, "errors").get("data"))
            full = bool(errors) and all(error.get("code") == _FULL for error in errors)
            reason = "; ".join(message(error) for error in errors[:3]) or "no reason given"
            return BatchState(BatchStatus.FAILED, answered, total, reason, full)
        status = BatchStatus.ENDED if job.get("status") in _ENDED else BatchStatus.RUNNING
        return BatchState(status, answered, total)

    async def results(self, batch_id: str) -> AsyncIterator[BatchLine]:
        job = await self._job(batch_id)
        if number(table(job, "request_counts").get("completed")) and not job.get("output_file_id"):
            raise AskAgain(f"{batch_id} has answers, but does not show them yet")
        for key in ("output_file_id", "error_file_id"):
            if isinstance(file := job.get(key), str) and file:
                async for line in self._lines(self._at(f"files/{quote(file, safe='')}/content")):
                    if (found := _line(line)) is not None:
                        yield found

    async def _job(self, batch_id: str) -> dict[str, Any]:
        return await self._json("GET", self._at(f"batches/{quote(batch_id, safe='')}"))

    async def _pages(self) -> AsyncIterator[list[Listed]]:
        query = {"limit": "100"}
        while True:
            page = await self._json("GET", self._at("batches", query))
            jobs = objects(page.get("data"))
            yield [_listed(job) for job in jobs]
            if page.get("has_more") is not True or not jobs:
                return
            query["after"] = identifier(jobs[-1], "id")

    def _at(self, path: str, query: dict[str, str] | None = None) -> str:
        base = urlsplit(self.endpoint.base_url).path.rstrip("/")
        return self._url(f"{base}/{path}", query)


def _path(request: Request) -> str:
    """What lines and jobs call the API, whatever the base URL's path is."""
    return "/v1/completions" if request.is_completion else "/v1/chat/completions"


def _form(boundary: str, fields: dict[str, str], name: str, content: bytes) -> bytes:
    """A form with a file in it (RFC 7578 §4)."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    head += "Content-Type: application/jsonl\r\n\r\n"
    return b"".join([*(part.encode() for part in parts), head.encode(), content, f"\r\n--{boundary}--\r\n".encode()])


def _listed(job: dict[str, Any]) -> Listed:
    counts = table(job, "request_counts")
    token = table(job, "metadata").get(MARK)
    return Listed(
        identifier(job, "id"), number(job.get("created_at")), token if isinstance(token, str) else "",
        number(counts.get("total")),
    )  # fmt: skip


def _line(line: bytes) -> BatchLine | None:
    """A line of answers or of errors; a question that was never put has an `error` and no `response`."""
    value = line_value(line)
    custom_id = value.get("custom_id") if value else None
    if value is None or not isinstance(custom_id, str):
        return None
    response, error = value.get("response"), value.get("error")
    if isinstance(response, dict):
        try:
            body = raw_member(line, "response", "body")
        except WireError:
            return None
        request_id = response.get("request_id")
        status = number(response.get("status_code"))
        return BatchLine(custom_id, status, body, "", request_id if isinstance(request_id, str) else "")
    return BatchLine(custom_id, 0, b"", message(error) if isinstance(error, dict) else "no answer and no error")
