"""Any OpenAI-compatible endpoint, chat or completions, over aiohttp."""

import json
import os
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from tutelage.errors import TeacherError
from tutelage.models.base import AskAgain, Endpoint, Refused, Reply
from tutelage.models.limits import retry_after_s
from tutelage.records import Request
from tutelage.wire.answers import parse_chat_response, parse_completion
from tutelage.wire.values import WireError

MAX_BODY_BYTES = 32 << 20
_RETRY_STATUS = {408, 409, 425, 429, 500, 502, 503, 504, 529}
# OpenRouter's own switch (its provider-routing reference): only providers that allow training on their text may answer.
DISTILLABLE_ONLY = {"provider": {"enforce_distillable_text": True}}
_DECIMALS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")


def switches(endpoint: Endpoint) -> Mapping[str, Any]:
    """Parameters that every request to this endpoint must carry, whoever asks: OpenRouter's switch, else none."""
    names = (endpoint.provider, endpoint.route, urlsplit(endpoint.base_url).hostname or "")
    found = [re.fullmatch(r"openrouter|(.+\.)?openrouter\.ai\.?", name.strip().casefold()) for name in names]
    return DISTILLABLE_ONLY if any(found) else {}


def request_body(request: Request) -> dict[str, Any]:
    """The JSON body that is sent. Records hold no floats: decimal strings become numbers here. The completions API says
    in one number what chat says in `logprobs` and `top_logprobs`."""
    params = {key: float(value) if key in _DECIMALS else value for key, value in request.params.items()}
    if request.is_completion:
        if params.pop("logprobs", False):
            params["logprobs"] = params.pop("top_logprobs", 0)
        return {"model": request.model_asked, "prompt": request.messages[0].content, **params}
    return {"model": request.model_asked, "messages": [message.to_json() for message in request.messages], **params}


class OpenAIModel:
    """An endpoint; use as an async context manager."""

    def __init__(self, endpoint: Endpoint, connections: int) -> None:
        self.endpoint = endpoint
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"User-Agent": "tutelage"}
        if self.endpoint.key_env is not None:
            key = os.environ.get(self.endpoint.key_env)
            if not key:
                raise TeacherError(
                    f"the environment variable {self.endpoint.key_env} is not set",
                    fix=f"export {self.endpoint.key_env}=… with the key for {self.endpoint.route}",
                )
            headers["Authorization"] = f"Bearer {key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self.endpoint.timeout_s, sock_connect=15),
            connector=aiohttp.TCPConnector(limit=self._connections),
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
        must = switches(self.endpoint)
        if any(request.params.get(key) != value for key, value in must.items()):
            raise TeacherError(
                f"a request to {self.endpoint.base_url} does not carry {json.dumps(must)}",
                fix="build it with models.questions.label_request; it is never sent without",
            )
        path, parse = (
            ("completions", parse_completion) if request.is_completion else ("chat/completions", parse_chat_response)
        )
        url = f"{self.endpoint.base_url}/{path}"
        try:
            async with self._session.post(url, json=request_body(request), allow_redirects=False) as response:
                body = await _read_limited(response)
                status, headers = response.status, response.headers
        except TimeoutError as error:
            raise AskAgain(f"no answer within {self.endpoint.timeout_s:g} s", billed=True) from error
        except aiohttp.ClientConnectorError as error:
            raise AskAgain(f"cannot connect to {self.endpoint.base_url}: {error.os_error or error}") from error
        except aiohttp.ClientError as error:
            raise AskAgain(f"the connection broke: {type(error).__name__}: {error}") from error
        if must and _none_allows(status, body):
            raise TeacherError(
                f"{self.endpoint.base_url} answered HTTP {status}: {_error_text(body)}: no provider of "
                f"{self.endpoint.model!r} allows training on its text",
                fix="choose a model whose maker allows it (OpenRouter marks them distillable), or check teacher.model",
            )
        if status in _RETRY_STATUS:
            throttled = status in (429, 529)
            raise AskAgain(f"HTTP {status}: {_error_text(body)}", retry_after_s(headers), throttled=throttled)
        if status in (400, 413, 422):
            raise Refused(f"HTTP {status}: {_error_text(body)}")
        if status != 200:
            raise _final(status, body, self.endpoint)
        try:
            answer = parse(body)
        except WireError as error:
            raise AskAgain(f"unusable answer: {error.message}", billed=True) from error
        return Reply(answer, body, headers.get("x-request-id", ""))


async def _read_limited(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise TeacherError(
                f"an answer of more than {MAX_BODY_BYTES} bytes", fix="ask for fewer tokens or log-probabilities"
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _none_allows(status: int, body: bytes) -> bool:
    """A refusal under the switch: HTTP 404, or an error that no endpoint or provider is left, whatever its status."""
    if status == 404:
        return True
    try:
        has_error = bool(json.loads(body).get("error"))
    except (ValueError, AttributeError, RecursionError):
        return False
    return has_error and bool(re.search(r"\bno (\w+ )?(endpoint|provider)", _error_text(body), re.IGNORECASE))


def _error_text(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:200]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def _final(status: int, body: bytes, endpoint: Endpoint) -> TeacherError:
    fixes = {
        401: f"check the key in {endpoint.key_env or 'teacher.api_key_env'}",
        403: "check that this key may use this model",
        404: f"check teacher.url and teacher.model (asked for {endpoint.model!r}); list models with GET /v1/models",
    }
    fix = fixes.get(status, "the endpoint refuses this request; see its message")
    return TeacherError(f"{endpoint.base_url} answered HTTP {status}: {_error_text(body)}", fix=fix)
