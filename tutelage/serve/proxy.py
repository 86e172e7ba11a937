"""A recording reverse proxy: production traffic passes through unchanged, and a copy becomes records.

Source: RFC 9110 §7.6.1 (fields that are for one hop), §10.1.1 (Expect), §15.6.3 (502). The proxy adds no field of its own:
callers and the provider cannot tell it from a direct connection.
"""

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from urllib.parse import SplitResult, parse_qsl, urlsplit

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from tutelage.errors import ConfigError
from tutelage.hosts import outgoing_proxy
from tutelage.models.exchange import now_utc
from tutelage.serve.recording import MAX_COPY_BYTES, Call, Recorder
from tutelage.serve.unpacking import readable
from tutelage.wire.captured import Kind, kind_of

HEALTH = "/-/capture/health"
_ONE_HOP = {"connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
_KEY_HEADERS = ("authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie")
_KEY_FIELDS = ("key", "api_key", "access_token")
_REQUEST_IDS = ("x-request-id", "request-id", "apim-request-id", "cf-ray")
_ENDS = (b"[DONE]", b'"message_stop"')
_CONNECT_S = 30
_IDLE_S = 4  # shorter than servers keep a connection open: one that they are about to close is not used again
_WATCH_S = 2.0
MAX_LINE = 1 << 16


def checked_upstream(upstream: str) -> SplitResult:
    """Raises `ConfigError` unless it is an http(s) URL of a host, without credentials, query or fragment."""
    parts = urlsplit(upstream)
    try:
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.username is not None or parts.query or parts.fragment:
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
        raise ConfigError(
            f"--upstream {shown!r} is not the plain address of a server",
            fix="give scheme and host, as in https://api.openai.com; callers send their own keys",
        )
    return parts


class Proxy:
    """Passes calls on and offers copies of them to the recorder; `app` is the server's application.

    With `ask_readable`, calls that are to be recorded ask the provider only for encodings that can be read here.
    """

    def __init__(
        self, upstream: str, sample: float, opt_out_header: str, recorder: Recorder, ask_readable: bool = False
    ) -> None:
        self._base = checked_upstream(upstream)
        self._prefix = self._base.geturl().rstrip("/")
        self._proxy = outgoing_proxy(self._base.geturl())
        self._sample = sample
        self._opt_out = opt_out_header
        self._ask_readable = ask_readable
        self._not_passed_on = {"host", "expect", opt_out_header.lower()}  # the proxy answers `Expect` itself
        self._recorder = recorder
        self._session: aiohttp.ClientSession | None = None
        self.app = web.Application()
        self.app.router.add_get(HEALTH, self._health)
        self.app.router.add_route("*", "/{path:.*}", self._pass)
        self.app.on_response_prepare.append(_take_additions)
        self.app.cleanup_ctx.append(self._connected)

    async def _connected(self, app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, keepalive_timeout=_IDLE_S),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_S
            ),  # how long an answer may take, callers know
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        ) as self._session:
            yield

    async def _health(self, request: web.Request) -> web.Response:
        health = self._recorder.health()
        return web.json_response(health, status=200 if health["status"] == "ok" else 503)

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        if "upgrade" in _one_hop(request.headers) and request.headers.get("Upgrade", "").casefold() == "websocket":
            return _problem(501, "upgrade_not_supported", "websockets are not passed on by tutelage capture")
        self._recorder.counts["passed"] += 1
        copy = self._copy_of(request)
        response = _Passed()
        try:
            await self._exchange(request, response, copy)
        except asyncio.CancelledError:  # the caller hung up
            self._offer(copy)
            raise
        except (
            aiohttp.ClientError,
            OSError,
            TimeoutError,
            ValueError,
        ) as error:  # its parser lets a ValueError through
            if request.transport is None or request.transport.is_closing():
                self._offer(copy)
                return response
            self._recorder.counts["failed"] += 1
            if response.prepared:
                request.transport.close()  # the caller sees a broken body, as from the provider itself
                return response
            what = f"tutelage capture got no answer from {self._base.hostname}: {type(error).__name__}"
            return _problem(502, "upstream_failed", what)
        self._offer(copy)
        return response

    def _offer(self, copy: "_Copy | None") -> None:
        if copy is not None and copy.has_ended:
            self._recorder.offer(copy.call())
        elif copy is not None and copy.is_too_large:
            self._recorder.refuse("too_large", "their size")

    async def _exchange(self, request: web.Request, response: "_Passed", copy: "_Copy | None") -> None:
        assert self._session is not None
        fields = _fields(request.raw_headers, _one_hop(request.headers) | self._not_passed_on)
        if self._ask_readable and copy is not None:
            fields = [(name, readable(value) if name.lower() == "accept-encoding" else value) for name, value in fields]
        async with self._session.request(
            request.method,
            URL(self._prefix + _target(request), encoded=True),
            headers=_sendable(fields),
            data=_sent(request, copy) if request.can_read_body else None,
            allow_redirects=False,
            proxy=self._proxy,
        ) as answer:
            response.set_status(answer.status, answer.reason)
            response.pass_on(_fields(answer.raw_headers, _one_hop(answer.headers)))
            if copy is not None and not copy.begins(answer):
                copy = None
            await response.prepare(request)
            while chunk := await _next_chunk(answer):
                if copy is not None:
                    copy.add(copy.response, chunk)
                await response.write(chunk)
            if copy is not None:
                copy.ends()
            await response.write_eof()

    def _copy_of(self, request: web.Request) -> "_Copy | None":
        """Where a call that is to be recorded is copied to; None for all others."""
        kind = kind_of(request.raw_path.partition("?")[0]) if request.method == "POST" else None
        if kind is None:
            return None
        if self._opt_out and self._opt_out in request.headers:
            self._recorder.counts["opted_out"] += 1
            return None
        if not _drawn(request.headers.get("x-request-id") or secrets.token_hex(16), self._sample):
            self._recorder.counts["not_sampled"] += 1
            return None
        return _Copy(kind, request)


class _Passed(web.StreamResponse):
    """A response with the fields it came with, and no other."""

    def pass_on(self, fields: list[tuple[str, str]]) -> None:
        self.headers.extend(fields)
        self._came_with = {name.lower() for name, _ in fields}

    def take_additions(self) -> None:
        """Takes out what the server library adds to every response."""
        for name in ("Server", "Date", "Content-Type"):
            if name.lower() not in self._came_with:
                self.headers.popall(name, None)


async def _take_additions(request: web.Request, response: web.StreamResponse) -> None:
    if isinstance(response, _Passed):
        response.take_additions()


class _Copy:
    """A copy of a call in the making; given up when it grows too large."""

    def __init__(self, kind: Kind, request: web.Request) -> None:
        self._kind = kind
        self._headers = request.headers
        self._keys = _keys_of(request)
        self._began = time.monotonic()
        self._asked_at = now_utc()
        self._answer: aiohttp.ClientResponse | None = None
        self._size = self._latency_ms = 0
        self.request: list[bytes] = []
        self.response: list[bytes] = []
        self.whole = False

    def add(self, to: list[bytes], chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= MAX_COPY_BYTES:
            to.append(chunk)

    def begins(self, answer: aiohttp.ClientResponse) -> bool:
        """Whether the answer is worth copying; only status 200 is."""
        self._answer = answer if answer.status == 200 else None
        return self._answer is not None

    def ends(self) -> None:
        self._latency_ms = round(1000 * (time.monotonic() - self._began))
        self.whole = not self.is_too_large

    @property
    def has_ended(self) -> bool:
        """Whether all of it came: a caller may hang up right after a stream's last event."""
        if self._answer is not None and not self.whole and any(end in b"".join(self.response[-2:]) for end in _ENDS):
            self.ends()
        return self.whole

    @property
    def is_too_large(self) -> bool:
        return self._size > MAX_COPY_BYTES

    def call(self) -> Call:
        assert self._answer is not None
        answered = self._answer.headers
        return Call(
            self._kind,
            self.request,
            self._headers.get("Content-Encoding", ""),
            self.response,
            answered.get("Content-Encoding", ""),
            answered.get("Content-Type", ""),
            self._keys,
            next((answered[name] for name in _REQUEST_IDS if name in answered), ""),
            self._asked_at,
            self._latency_ms,
        )


async def _sent(request: web.Request, copy: _Copy | None) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_any():
        if copy is not None:
            copy.add(copy.request, chunk)
        yield chunk


async def _next_chunk(answer: aiohttp.ClientResponse) -> bytes:
    """What came next of a body; empty at its end. The client library leaves a reader waiting for ever when a malformed
    chunk made it close the connection: that is looked for now and then."""
    while True:
        try:
            async with asyncio.timeout(_WATCH_S):
                return await answer.content.readany()
        except TimeoutError:
            if answer.connection is None or answer.connection.transport is None:
                raise aiohttp.ClientPayloadError("the body is malformed") from None


def _target(request: web.Request) -> str:
    """Path and query exactly as they came; of a target in absolute form, those parts."""
    raw = request.raw_path
    return raw if raw.startswith("/") else "/" + raw.partition("://")[2].partition("/")[2]


def _one_hop(headers: CIMultiDictProxy[str]) -> set[str]:
    """Names, in small letters, of fields for this hop only (RFC 9110 §7.6.1)."""
    named = {name.strip().lower() for value in headers.getall("Connection", ()) for name in value.split(",")}
    return _ONE_HOP | named


def _fields(raw: Iterable[tuple[bytes, bytes]], left_out: set[str]) -> list[tuple[str, str]]:
    """Fields as they were spelled."""
    decoded = (
        (name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")) for name, value in raw
    )
    return [(name, value) for name, value in decoded if name.lower() not in left_out]


def _sendable(fields: list[tuple[str, str]]) -> CIMultiDict[str]:
    """Of several fields with one name, the first's spelling is used: the client library would take another one for a
    correction of it."""
    spelled: dict[str, str] = {}
    return CIMultiDict([(spelled.setdefault(name.lower(), name), value) for name, value in fields])


def _drawn(request_id: str, rate: float) -> bool:
    """Whether a call is in the sample: by the hash of its id, so that several proxies agree about it."""
    return (
        int.from_bytes(hashlib.sha256(request_id.encode("utf-8", "surrogatepass")).digest()[:8], "big") < rate * 2**64
    )


def _keys_of(request: web.Request) -> tuple[tuple[str, str], ...]:
    """What the caller proves itself with, wherever it stands."""
    found = []
    for name in _KEY_HEADERS:
        for value in request.headers.getall(name, ()):
            scheme, _, token = value.partition(" ")
            found.append(token.strip() or scheme)
            if scheme.casefold() == "basic":
                with suppress(ValueError):
                    found.append(base64.b64decode(token, validate=True).decode("utf-8", "replace").partition(":")[2])
    query = request.raw_path.partition("?")[2]
    found += [value for name, value in parse_qsl(query) if name.casefold() in _KEY_FIELDS]
    return tuple((f"CALLER_KEY_{at}", value) for at, value in enumerate(found))


def _problem(status: int, code: str, message: str) -> web.Response:
    body = {"error": {"message": message, "type": "tutelage_capture_error", "param": None, "code": code}}
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
