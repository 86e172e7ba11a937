"""Any OpenAI-compatible endpoint: Chat Completions, and Completions for a text that is continued.

Source: OpenAI API reference, `chat/create` and `completions/create`; OpenRouter's provider-routing reference; Azure OpenAI
REST reference (key header and `api-version`).
"""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tutelage.errors import TeacherError
from tutelage.models.base import Endpoint
from tutelage.models.chat import loaded_once, with_extra
from tutelage.records import Message, Request, Usage
from tutelage.wire.answers import ChatAnswer, parse_chat_response, parse_completion, usage_in

# OpenRouter's own switch: only providers that allow training on their text may answer.
DISTILLABLE_ONLY = {"provider": {"enforce_distillable_text": True}}
DECIMALS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_OUT_OF_MONEY = re.compile(r"insufficient_quota|insufficient.{0,12}(balance|credit|funds)|billing_hard_limit", re.I)
_AZURE = re.compile(r"(.+\.)?(azure\.com|azure\.us|azure\.cn)\.?")


def switches(endpoint: Endpoint) -> Mapping[str, Any]:
    """Parameters that every request to this endpoint must carry, whoever asks: OpenRouter's switch, else none."""
    return DISTILLABLE_ONLY if _is_openrouter(endpoint.provider, endpoint.route, endpoint.base_url) else {}


@functools.lru_cache(maxsize=64)
def _is_openrouter(provider: str, route: str, base_url: str) -> bool:
    names = (provider, route, urlsplit(base_url).hostname or "")
    return any(re.fullmatch(r"openrouter|(.+\.)?openrouter\.ai\.?", name.strip().casefold()) for name in names)


class OpenAIDialect:
    """Chat Completions and Completions."""

    def url(self, endpoint: Endpoint, request: Request) -> str:
        """The base URL's path continued; its query (Azure's `api-version`) stays behind it."""
        parts = urlsplit(endpoint.base_url)
        path = f"{parts.path.rstrip('/')}/{'completions' if request.is_completion else 'chat/completions'}"
        return urlunsplit(parts._replace(path=path))

    def headers(self, endpoint: Endpoint, key: str | None) -> dict[str, str]:
        if key is None:
            return {}
        return {"api-key": key} if _AZURE.fullmatch(_host(endpoint)) else {"Authorization": f"Bearer {key}"}

    def body(self, endpoint: Endpoint, request: Request) -> dict[str, Any]:
        """Records hold no floats: decimal strings become numbers here. The completions API says in one number what chat
        says in `logprobs` and `top_logprobs`. Raises `ConfigError` when `extra` says again what is said already, and
        `TeacherError` when a switch of the endpoint is missing."""
        params = {key: float(value) if key in DECIMALS else value for key, value in request.params.items()}
        must = switches(endpoint)
        if any(params.get(key) != value for key, value in must.items()):
            raise TeacherError(
                f"a request to {endpoint.base_url} does not carry {json.dumps(must)}",
                fix="build it with models.questions; it is never sent without",
            )
        body: dict[str, Any] = {"model": request.model_asked}
        if request.is_completion:
            if params.pop("logprobs", False):
                params["logprobs"] = params.pop("top_logprobs", 0)
            body |= {"prompt": request.messages[0].content, **params}
        else:
            if "max_tokens" in params and _wants_completion_tokens(endpoint):
                params["max_completion_tokens"] = params.pop("max_tokens")
            body |= {"messages": [_message(message) for message in request.messages], **params}
        if request.tools:
            body["tools"] = loaded_once(request.tools, "tools")
        if request.schema:
            schema = loaded_once(request.schema, "the schema")
            form = {"name": "answer", "schema": schema, **({"strict": True} if _is_strict(schema) else {})}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return with_extra(body, request.extra)

    def parse(self, body: bytes, request: Request) -> ChatAnswer:
        return parse_completion(body) if request.is_completion else parse_chat_response(body)

    def usage(self, body: bytes) -> Usage | None:
        return usage_in(body)

    def is_out_of_money(self, status: int, error: str) -> bool:
        return status == 402 or (status in (403, 429) and bool(_OUT_OF_MONEY.search(error)))


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        kept = ("id", "type", "function")
        body["tool_calls"] = [{key: call[key] for key in kept if key in call} for call in message.tool_calls]
        body["content"] = message.content or None
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    if message.name:
        body["name"] = message.name
    return body


def _is_strict(schema: Any) -> bool:
    """Whether OpenAI's strict mode would take it: every object closed, with all its properties required."""
    if isinstance(schema, list):
        return all(_is_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if "properties" in schema or schema.get("type") == "object":
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", [])) != set(properties):
            return False
    return all(_is_strict(item) for item in schema.values())


def _wants_completion_tokens(endpoint: Endpoint) -> bool:
    """OpenAI's reasoning models refuse `max_tokens`; elsewhere the newer name is often unknown."""
    host = _host(endpoint)
    return host == "api.openai.com" or bool(_AZURE.fullmatch(host))


def _host(endpoint: Endpoint) -> str:
    return (urlsplit(endpoint.base_url).hostname or "").casefold()
