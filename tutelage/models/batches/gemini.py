"""Gemini's batch API: a file of questions goes up, `batchGenerateContent` starts, a file of answers comes down.

Source: Gemini API reference, `batch-api` and `files` (resumable uploads), and its guide to the batch API (2 GB a file); codes
of errors: `google.rpc.Code`. Inline questions are not used: their answers come in one body, whatever its size.
"""

import re
from collections.abc import AsyncIterator, Container, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from tutelage.errors import TeacherError
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
    seconds,
    table,
)
from tutelage.models.gemini import VERSION, GeminiDialect
from tutelage.records import Request
from tutelage.wire.values import WireError

# google.rpc.Code as HTTP statuses, as its own comments give them.
HTTP_OF = {1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503,
           16: 401}  # fmt: skip
_ENDED = ("SUCCEEDED", "CANCELLED", "EXPIRED")


class GeminiBatches(BatchModel):
    """`{model}:batchGenerateContent` and `batches`."""

    @staticmethod
    def new_dialect() -> GeminiDialect:
        return GeminiDialect()

    def line(self, custom_id: str, request: Request) -> bytes:
        return orjson.dumps({"key": custom_id, "request": self.dialect.body(self.endpoint, request)})

    async def submit(self, lines: Sequence[bytes], sample: Request, token: str) -> str:
        file = await self._upload(b"".join(line + b"\n" for line in lines), token)
        job = {"batch": {"displayName": token, "inputConfig": {"fileName": file}}}
        url = self.dialect.url(self.endpoint, sample).replace(":generateContent", ":batchGenerateContent")
        return identifier(await self._json("POST", url, orjson.dumps(job)), "name")

    async def find(self, token: str, since: str, count: int, taken: Container[str]) -> str | None:
        async for listed in listing(self._pages()):  # in no order that is written down
            if listed.token == token:
                return listed.batch_id
        return None

    async def poll(self, batch_id: str) -> BatchState:
        job = await self._job(batch_id)
        about = table(job, "metadata")
        stats = table(about, "batchStats")
        answered, total = number(stats.get("successfulRequestCount")), number(stats.get("requestCount"))
        state = str(about.get("state")).rpartition("_")[2]
        if state == "FAILED" or (job.get("done") is True and isinstance(job.get("error"), dict)):
            return BatchState(BatchStatus.FAILED, answered, total, message(table(job, "error")))
        return BatchState(BatchStatus.ENDED if state in _ENDED else BatchStatus.RUNNING, answered, total)

    async def results(self, batch_id: str) -> AsyncIterator[BatchLine]:
        job = await self._job(batch_id)
        file = _file(job.get("response")) or _file(table(job, "metadata").get("output"))
        if file is None and number(table(table(job, "metadata"), "batchStats").get("successfulRequestCount")):
            raise AskAgain(f"{batch_id} has answers, but does not show them yet")
        if file is None:  # cancelled or expired before anything was answered
            return
        async for line in self._lines(self._at(f"/download/{self._version}/{file}:download", {"alt": "media"})):
            if (found := _line(line)) is not None:
                yield found

    async def _job(self, batch_id: str) -> dict[str, Any]:
        return await self._json("GET", self._at(f"/{self._version}/{_checked(batch_id, 'batches')}"))

    async def _upload(self, content: bytes, token: str) -> str:
        start = {
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": str(len(content)),
            "X-Goog-Upload-Header-Content-Type": "application/jsonl",
        }
        about = orjson.dumps({"file": {"displayName": token, "mimeType": "application/jsonl"}})
        begun = await self._send("POST", self._at(f"/upload/{self._version}/files"), about, start)
        told = next((value for name, value in begun.headers.items() if name.lower() == "x-goog-upload-url"), "")
        # The key goes with the request: only what lies behind the host is the server's to say.
        there, base = urlsplit(told), urlsplit(self.endpoint.base_url)
        url = there._replace(scheme=base.scheme, netloc=base.netloc).geturl()
        send = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0",
                "Content-Type": "application/jsonl"}  # fmt: skip
        value = await self._json("POST", url, content, send)
        return _checked(identifier(table(value, "file") or value, "name"), "files")

    async def _pages(self) -> AsyncIterator[list[Listed]]:
        query = {"pageSize": "100"}
        while True:
            page = await self._json("GET", self._at(f"/{self._version}/batches", query))
            yield [_listed(job) for job in objects(page.get("operations"))]
            if not isinstance(after := page.get("nextPageToken"), str) or not after:
                return
            query["pageToken"] = after

    @property
    def _version(self) -> str:
        found = re.search(r"/(v\d+(?:alpha|beta)?\d*)(?:/|$)", urlsplit(self.endpoint.base_url).path)
        return found.group(1) if found else VERSION

    def _at(self, path: str, query: dict[str, str] | None = None) -> str:
        base = re.sub(r"/v\d+(alpha|beta)?\d*(/.*)?$", "", urlsplit(self.endpoint.base_url).path.rstrip("/"))
        return self._url(f"{base}{path}", query)


def _checked(name: str, folder: str) -> str:
    """A resource's name, which becomes part of a path. Raises `TeacherError` when it is no such name."""
    if not re.fullmatch(rf"{folder}/[A-Za-z0-9_.-]{{1,200}}", name) or ".." in name:
        raise TeacherError(f"{name!r:.100} is no name of a resource under {folder}/", fix="check teacher.url")
    return name


def _file(output: Any) -> str | None:
    name = output.get("responsesFile") if isinstance(output, dict) else None
    return _checked(name, "files") if isinstance(name, str) and name else None


def _listed(job: dict[str, Any]) -> Listed:
    about = table(job, "metadata")
    try:
        created_s = seconds(str(about.get("createTime")))
    except ValueError:
        created_s = float("inf")
    stats = table(about, "batchStats")
    return Listed(
        identifier(job, "name"), created_s, str(about.get("displayName", "")), number(stats.get("requestCount"))
    )


def _line(line: bytes) -> BatchLine | None:
    value = line_value(line)
    key = value.get("key") if value else None
    if value is None or not isinstance(key, str):
        return None
    try:
        if isinstance(value.get("response"), dict):
            return BatchLine(key, 200, raw_member(line, "response"))
        if isinstance(error := value.get("error"), dict):
            return BatchLine(key, _status(error), raw_member(line, "error"))
    except WireError:
        return None
    return BatchLine(key, 0, b"", "no answer and no error")


def _status(error: dict[str, Any]) -> int:
    code = number(error.get("code"))
    return code if 400 <= code < 600 else HTTP_OF.get(code, 500)
