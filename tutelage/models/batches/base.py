"""What every batch API is to us: jobs that are submitted, found again, polled and read, over the transport of single calls."""

import io
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp
from yarl import URL

from tutelage.errors import TeacherError
from tutelage.models.base import AskAgain, Endpoint, Refused, Reply
from tutelage.models.http import MAX_BODY_BYTES, HttpModel
from tutelage.records import Request
from tutelage.wire.values import WireError, load

MOST_BYTES = 64 << 20  # of one job; vendors take 200 MB and more, but a job is held in memory while it is sent
MOST_LINE_BYTES = MAX_BODY_BYTES
_CONNECTIONS = 8


class BatchStatus(StrEnum):
    """Where a job is. One that ended may still hold questions without an answer; one that failed holds no answers."""

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"


class BatchState(NamedTuple):
    """A job as its provider tells: how many questions have an answer that is paid for, of how many.

    `reason` says why it failed; `is_queue_full` that it did only because too much is waiting already.
    """

    status: BatchStatus
    answered: int
    total: int
    reason: str = ""
    is_queue_full: bool = False


class BatchLine(NamedTuple):
    """What came of one question: the HTTP status that a single call would have had and its body as received, or status 0
    and the `reason` why the question was never put."""

    custom_id: str
    status: int
    body: bytes = b""
    reason: str = ""
    request_id: str = ""


class Gone(TeacherError):
    """There is nothing at the address of something (HTTP 404 and 410)."""


class BatchModel(HttpModel, ABC):
    """A provider's batch API; use as an async context manager.

    Every method raises `AskAgain` when nothing came or the server asks to wait, `Refused` when it takes no such job, and
    `TeacherError` when nothing of the kind will ever work (key refused, unknown model, no credit left).
    """

    most_requests = 50_000
    keeps_marks = True  # whether a job can be told from another one by our token

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint, self.new_dialect(), _CONNECTIONS)

    @staticmethod
    @abstractmethod
    def new_dialect() -> Any:
        """The dialect of the questions in it."""

    @abstractmethod
    def line(self, custom_id: str, request: Request) -> bytes:
        """The question as one line of a job. Raises what `Dialect.body` raises."""

    def kind(self, request: Request) -> str:
        """Questions of different kinds cannot be in one job."""
        return f"{self.dialect.url(self.endpoint, request)} {request.model_asked}"

    @abstractmethod
    async def submit(self, lines: Sequence[bytes], sample: Request, token: str) -> str:
        """Starts a job with lines of the kind of `sample`, marked with `token` where that can be; returns its id."""

    @abstractmethod
    async def find(self, token: str, since: str, count: int, taken: Container[str]) -> str | None:
        """The id of a job that was submitted after `since` and whose id was lost. A provider that keeps no marks is asked
        for a job of `count` questions whose id is not `taken`: whoever calls must look at its answers."""

    @abstractmethod
    async def poll(self, batch_id: str) -> BatchState:
        """How far the job is."""

    @abstractmethod
    def results(self, batch_id: str) -> AsyncIterator[BatchLine]:
        """What came of a job that ended, in any order. Lines that nobody can read are passed over: they count as missing."""

    def reply(self, line: BatchLine, request: Request) -> Reply:
        """The answer in a line. Raises `AskAgain`, `Refused` or `TeacherError`, as `complete` does."""
        if line.status == 0:
            raise AskAgain(line.reason or "the batch ended before this question")
        if line.status != 200:
            problem = self._problem(line.status, line.body, {})
            if isinstance(problem, AskAgain):  # said by the batch API itself, which charges for answers alone
                problem.may_be_billed = False
            raise problem
        try:
            answer = self.dialect.parse(line.body, request)
        except WireError as error:
            usage = self.dialect.usage(line.body)
            raise AskAgain(
                f"unusable answer: {error.message}", usage=usage, may_be_billed=usage is None, body=line.body
            ) from error
        return Reply(answer, line.body, line.request_id)

    def _url(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """An address of this API; what the base URL's query says (Azure's `api-version`) stays in it."""
        parts = urlsplit(self.endpoint.base_url)
        both = "&".join(filter(None, [parts.query, urlencode(query or {})]))
        return urlunsplit(parts._replace(path=path, query=both))

    async def _json(
        self, method: str, url: str, data: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The JSON object in a successful answer."""
        sent = await self._send(method, url, data, headers)
        try:
            return load(sent.body, "")
        except WireError as error:
            raise AskAgain(f"{url}: {error.message}", may_be_billed=True) from error

    async def _send(
        self, method: str, url: str, data: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> "_Sent":
        """An answer of status 200. The time limit is for silence, not for the whole: a job may be large."""
        assert self._session is not None
        body = bytearray()
        try:
            async with self._session.request(
                method, URL(url, encoded=True), data=io.BytesIO(data) if data else None, headers=headers,
                allow_redirects=False, timeout=self._silence(),
            ) as response:  # fmt: skip
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise TeacherError(f"{url} answered more than {MAX_BODY_BYTES} bytes", fix="check teacher.url")
                status, told = response.status, dict(response.headers)
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise self._nothing_came(url, error) from error
        received = self._clean(body)
        if status != 200:
            problem = self._problem(status, received, told)
            if status in (404, 410) and isinstance(problem, TeacherError):
                raise Gone(problem.message, fix=problem.fix) if method == "GET" else Refused(problem.message, received)
            raise problem
        return _Sent(received, told)

    async def _lines(self, url: str) -> AsyncIterator[bytes]:
        """The lines of a file, one at a time: files may be larger than memory."""
        assert self._session is not None
        left = bytearray()
        try:
            async with self._session.get(
                URL(url, encoded=True), allow_redirects=False, timeout=self._silence()
            ) as response:
                if response.status != 200:
                    received = self._clean(await response.content.read(MOST_LINE_BYTES))
                    raise self._problem(response.status, received, dict(response.headers))
                async for chunk in response.content.iter_any():
                    *whole, rest = chunk.split(b"\n")
                    for part in whole:
                        left += part
                        if left.strip():
                            yield self._clean(left)
                        left.clear()
                    left += rest
                    if len(left) > MOST_LINE_BYTES:
                        raise TeacherError(
                            f"{url}: a line of more than {MOST_LINE_BYTES} bytes", fix="ask for fewer tokens"
                        )
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise self._nothing_came(url, error) from error
        if left.strip():
            yield self._clean(left)

    def _silence(self) -> aiohttp.ClientTimeout:
        wait_s = self.endpoint.timeout_s
        return aiohttp.ClientTimeout(total=None, sock_read=wait_s, sock_connect=min(15, wait_s))

    def _nothing_came(self, url: str, error: BaseException) -> AskAgain:
        text = f"{url}: {type(error).__name__}: {error}"[:300]
        return AskAgain(self.secrets.scrub_text(text), may_be_billed=True)


class _Sent(NamedTuple):
    body: bytes
    headers: Mapping[str, str]
