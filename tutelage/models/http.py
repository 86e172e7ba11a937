"""The transport under every dialect: aiohttp, statuses sorted into what may be asked again, what not, and what never.

Statuses: RFC 9110 §15; 429: RFC 6585 §4; 529 is Anthropic's "overloaded".
"""

import json
import os
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import orjson
from yarl import URL

from tutelage.errors import TeacherError
from tutelage.hosts import outgoing_proxy
from tutelage.models.base import AskAgain, Dialect, Endpoint, Refused, Reply
from tutelage.models.limits import retry_after_s
from tutelage.models.openai import switches
from tutelage.records import Request
from tutelage.redact import Secrets
from tutelage.wire.values import WireError

MAX_BODY_BYTES = 32 << 20
_RETRY_STATUS = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
_MAYBE_ANSWERED = {408, 502, 504, 520, 522, 524}  # from a gateway: the model behind it may have answered, and charged
_FINISHED = ("stop", "length", "tool_calls", "content_filter", "function_call")
_TOO_LONG = re.compile(
    r"context.{0,20}length|too (long|large|many tokens)|maximum.{0,20}(context|tokens)|moderat", re.I
)
_MODERATED = re.compile(r"moderat|flagged|policy|policies|safety|blocked|disallowed|content", re.IGNORECASE)
_REQUEST_IDS = ("x-request-id", "request-id", "apim-request-id", "cf-ray")


class Looked(NamedTuple):
    """A response that is no answer of the model."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpModel:
    """A model behind an HTTP API; use as an async context manager."""

    def __init__(self, endpoint: Endpoint, dialect: Dialect, connections: int) -> None:
        self.endpoint = endpoint
        self.dialect = dialect
        self.secrets = Secrets.of_environment([endpoint.key_env] if endpoint.key_env else [])
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self._has_answered = False

    async def __aenter__(self) -> Self:
        """Raises `TeacherError` when the variable with the key is not set, or the key is no header value."""
        endpoint, key = self.endpoint, None
        if endpoint.key_env is not None:
            key = os.environ.get(endpoint.key_env, "").strip()
            if not key or not key.isascii() or not key.isprintable():
                state = "not set" if not key else "no key: it holds characters that no header may carry"
                raise TeacherError(
                    f"the environment variable {endpoint.key_env} is {state}",
                    fix=f"export {endpoint.key_env}=… with the key for {endpoint.route}",
                )
        headers = {"User-Agent": "tutelage", "Content-Type": "application/json", **self.dialect.headers(endpoint, key)}
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s, sock_connect=min(15, endpoint.timeout_s)),
            connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=outgoing_proxy(endpoint.base_url),  # and not `trust_env`, which would send what a .netrc file says
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def complete(self, request: Request) -> Reply:
        """Raises `AskAgain` (safe to repeat), `Refused` (this question) or `TeacherError` (key refused, unknown model)."""
        assert self._session is not None
        data = orjson.dumps(self.dialect.body(self.endpoint, request))
        url = self.dialect.url(self.endpoint, request)
        target = self._urls.get(url) or self._urls.setdefault(url, URL(url, encoded=True))
        body = bytearray()
        try:
            async with self._session.post(target, data=data, allow_redirects=False) as response:
                status, headers = response.status, response.headers
                await _read_limited(response, body)
        except TimeoutError as error:
            reason = f"no answer within {self.endpoint.timeout_s:g} s"
            raise AskAgain(reason, may_be_billed=True, body=self._clean(body)) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            text = self._said(getattr(error, "os_error", None) or error)
            raise AskAgain(f"cannot connect to {self.endpoint.base_url}: {text}") from error
        except (aiohttp.ClientError, ValueError) as error:  # aiohttp's parser lets a ValueError through
            text = f"the connection broke: {type(error).__name__}: {self._said(error)}"
            raise AskAgain(text, may_be_billed=True, body=self._clean(body)) from error
        received = self._clean(body)
        if status != 200:
            raise self._problem(status, received, dict(headers))
        self._has_answered = True
        try:
            answer = self.dialect.parse(received, request)
        except WireError as error:
            if _none_allows(self.endpoint, status, received):
                raise self._nobody_allows(status, received) from error
            usage = self.dialect.usage(received)
            raise AskAgain(
                f"unusable answer: {error.message}", usage=usage, may_be_billed=usage is None, body=received
            ) from error
        if not answer.text and not answer.tool_calls and answer.finish_reason not in _FINISHED:
            reason, usage = f"an empty answer that ended with {answer.finish_reason[:40]!r}", answer.usage
            raise AskAgain(reason, usage=usage, may_be_billed=not answer.usage_reported, body=received)
        request_id = next((headers[name] for name in _REQUEST_IDS if name in headers), "")
        return Reply(answer, received, request_id, headers)

    async def look(self, url: str, value: dict[str, Any] | None = None) -> "Looked":
        """What a server tells beside its answers, with any status: GET, or POST of a JSON object. Raises `AskAgain` when
        nothing came."""
        assert self._session is not None
        body = bytearray()
        method, data = ("GET", None) if value is None else ("POST", orjson.dumps(value))
        try:
            async with self._session.request(
                method, URL(url, encoded=True), data=data, allow_redirects=False
            ) as response:
                await _read_limited(response, body)
                return Looked(response.status, response.headers, self._clean(body))
        except Refused as error:
            raise AskAgain(error.reason) from error
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise AskAgain(f"{type(error).__name__}: {self._said(error)}") from error

    def _clean(self, body: bytes | bytearray) -> bytes:
        """What was received, without any secret of ours that it echoes."""
        return self.secrets.scrub(bytes(body))

    def _said(self, error: object) -> str:
        """An error of the network in one printable line: a server's bytes may be in it."""
        return printable(self.secrets.scrub_text(str(error)), 300)

    def _problem(self, status: int, body: bytes, headers: dict[str, str]) -> Exception:
        text = error_text(body)
        if self.dialect.is_out_of_money(status, body[:2000].decode("utf-8", "replace")):
            return TeacherError(
                f"{self.endpoint.base_url} answered HTTP {status}: {text}",
                fix="the account has no credit left: top it up and run again; answered questions are not asked again",
            )
        if _none_allows(self.endpoint, status, body):
            return self._nobody_allows(status, body)
        if status in _RETRY_STATUS:
            throttled = status in (429, 529)
            wait_s = retry_after_s(headers, body=body)
            billed = status in _MAYBE_ANSWERED
            return AskAgain(
                f"HTTP {status}: {text}", wait_s, throttled=throttled, may_be_billed=billed, body=body, headers=headers
            )
        if status in (400, 413, 414, 422):
            if _is_about_the_key(text):  # Gemini says so with 400
                return self._final(401, text)
            return Refused(f"HTTP {status}: {text}", body, is_about_it=status == 413 or bool(_TOO_LONG.search(text)))
        if status == 403 and (self._has_answered or _MODERATED.search(text)):
            return Refused(f"HTTP {status}: {text}", body)  # not the key: others were answered, or it says so
        return self._final(status, text)

    def _nobody_allows(self, status: int, body: bytes) -> TeacherError:
        return TeacherError(
            f"{self.endpoint.base_url} answered HTTP {status}: {error_text(body)}: no provider of "
            f"{self.endpoint.model!r} allows training on its text",
            fix="choose a model whose maker allows it (OpenRouter marks them distillable), or check teacher.model",
        )

    def _final(self, status: int, text: str) -> TeacherError:
        endpoint = self.endpoint
        fixes = {
            401: f"check the key in {endpoint.key_env}: wrong, expired or revoked"
            if endpoint.key_env
            else "no key was sent: name the variable that holds it in teacher.api_key_env (--api-key-env)",
            403: "check that this key may use this model",
            404: f"check teacher.url and teacher.model (asked for {endpoint.model!r}); list models with GET /v1/models",
        }
        redirect = "teacher.url points elsewhere: write the address it redirects to" if 300 <= status < 400 else ""
        fix = redirect or fixes.get(status, "the endpoint refuses this request; see its message")
        return TeacherError(f"{endpoint.base_url} answered HTTP {status}: {text}", fix=fix)


async def _read_limited(response: aiohttp.ClientResponse, into: bytearray) -> None:
    async for chunk in response.content.iter_any():
        into += chunk
        if len(into) > MAX_BODY_BYTES:
            reason = f"an answer of more than {MAX_BODY_BYTES:,} bytes: ask for fewer tokens or log-probabilities"
            raise Refused(reason, may_be_billed=True)


def error_text(body: bytes) -> str:
    """The message in an error body of any vendor, else its beginning; at most 200 characters, none of control."""
    try:
        value = json.loads(body)
        value = value[0] if isinstance(value, list) else value
        error = value.get("error", value.get("message", value))
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        text = body[:400].decode("utf-8", "replace")
    return printable(text, 200)


def printable(text: str, most: int) -> str:
    """The beginning of a text, without what a terminal would act on."""
    return "".join(character if character.isprintable() else " " for character in text[:most])


def _is_about_the_key(text: str) -> bool:
    return bool(re.search(r"api.?key (not valid|expired|invalid)|invalid.?api.?key", text, re.IGNORECASE))


def _none_allows(endpoint: Endpoint, status: int, body: bytes) -> bool:
    """A refusal under OpenRouter's switch: HTTP 404, or an error that no endpoint or provider is left, whatever its
    status."""
    if not switches(endpoint):
        return False
    if status == 404:
        return True
    try:
        has_error = bool(json.loads(body).get("error"))
    except (ValueError, AttributeError, RecursionError):
        return False
    return has_error and bool(re.search(r"\bno (\w+ )?(endpoint|provider)", error_text(body), re.IGNORECASE))
