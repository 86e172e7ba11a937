"""Gemini's `generateContent`.

Source: Gemini API reference, `generate-content` and `caching` (`Content`, `Part`, `Tool`, `ToolConfig`); its guides to
function calling, structured output, thinking, thought signatures and OpenAI compatibility (budgets of thinking).
"""

import contextlib
import re
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from tutelage.errors import ConfigError
from tutelage.models.base import Endpoint
from tutelage.models.chat import (
    Result,
    Turn,
    conversation,
    loaded,
    loaded_once,
    one_of,
    params_of,
    tool_choice_of,
    tools_of,
    with_extra,
)  # fmt: skip
from tutelage.records import Request, Usage
from tutelage.wire.answers import ChatAnswer
from tutelage.wire.gemini import parse_content, usage_in_content

API = "the Gemini API"
VERSION = "v1beta"
MAX_TOP_LOGPROBS = 20
LEVELS = ("minimal", "low", "medium", "high", "xhigh")
BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
UNSIGNED = "skip_thought_signature_validator"  # what the guide gives for calls that another model made
_RENAMED = {
    "max_tokens": "maxOutputTokens", "temperature": "temperature", "top_p": "topP", "stop": "stopSequences",
    "seed": "seed", "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty",
}  # fmt: skip
_PARAMS = (*_RENAMED, "logprobs", "top_logprobs", "tool_choice", "reasoning_effort")
_CHOICES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_OUT_OF_MONEY = re.compile(
    r"credits? (are|is|have been) (depleted|exhausted)|BILLING_DISABLED|enable billing|billing to be enabled"
    r"|spend(ing)? (cap|limit)|\blimit: 0\b(?!\.)",
    re.IGNORECASE,
)


class GeminiDialect:
    """`generateContent`. Log-probabilities of up to 20 candidates, from the models that show them."""

    def url(self, endpoint: Endpoint, request: Request) -> str:
        """The model is part of the path; the version is put in where the base URL has none. The key is never there."""
        parts = urlsplit(endpoint.base_url)
        path = parts.path.rstrip("/")
        if not re.search(r"/v\d+(alpha|beta)?\d*(/|$)", path):
            path += f"/{VERSION}"
        folder, _, name = request.model_asked.rpartition("/")
        if folder not in ("models", "tunedModels"):
            folder, name = "models", request.model_asked
        return urlunsplit(parts._replace(path=f"{path}/{folder}/{quote(name, safe='')}:generateContent"))

    def headers(self, endpoint: Endpoint, key: str | None) -> dict[str, str]:
        """The key, in a header: addresses end up in logs."""
        return {} if key is None else {"x-goog-api-key": key}

    def body(self, endpoint: Endpoint, request: Request) -> dict[str, Any]:
        """Raises `ConfigError` for what it cannot say. `reasoning_effort` is a level, or a budget for Gemini 2.5; with
        either, thoughts are shown in summary."""
        params = params_of(request, API, _PARAMS)
        talk = conversation(request, API)
        signed = _takes_levels(request.model_asked)
        body: dict[str, Any] = {"contents": [_content(turn, signed) for turn in talk.turns]}
        if talk.system:
            body["systemInstruction"] = {"parts": [{"text": text} for text in talk.system]}
        body |= _tools(request, params)
        config = {theirs: params[ours] for ours, theirs in _RENAMED.items() if ours in params} | _logprobs(params)
        if request.schema:
            schema = loaded_once(request.schema, "schema")
            config |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
        if (effort := params.get("reasoning_effort")) is not None:
            config["thinkingConfig"] = _thinking(effort, request.model_asked)
        if config:
            body["generationConfig"] = config
        return with_extra(body, request.extra)

    def parse(self, body: bytes, request: Request) -> ChatAnswer:
        """The answer. Raises `WireError`."""
        return parse_content(body)

    def usage(self, body: bytes) -> Usage | None:
        """What an unusable answer says it cost."""
        return usage_in_content(body)

    def is_out_of_money(self, status: int, error: str) -> bool:
        """Prepaid credit used up, a spending cap reached, no billing, or a quota of zero. The words "check your plan and
        billing details" alone say nothing: every quota of a minute has them too."""
        return status == 402 or (status in (400, 403, 429) and bool(_OUT_OF_MONEY.search(error)))


def _takes_levels(model: str) -> bool:
    """Gemini 3 and later: thinking in levels, and signed function calls."""
    return not re.match(r"(models/)?gemini-[12]\b", model)


def _content(turn: Turn, signed: bool) -> dict[str, Any]:
    if turn.role == "tool":
        return {"role": "user", "parts": [{"functionResponse": _response(result)} for result in turn.results]}
    if turn.role == "user":
        return {"role": "user", "parts": [{"text": turn.text}]}
    parts: list[dict[str, Any]] = [{"text": turn.text}] if turn.text or not turn.calls else []
    signatures = [signature if isinstance(signature := call.raw.get("signature"), str) else "" for call in turn.calls]
    if signatures and signed and not any(signatures):
        signatures[0] = UNSIGNED  # of calls made together the first is signed
    for call, signature in zip(turn.calls, signatures, strict=True):
        known = {"id": call.call_id} if call.call_id else {}
        part: dict[str, Any] = {"functionCall": {**known, "name": call.name, "args": call.arguments}}
        if signature:
            part["thoughtSignature"] = signature
        parts.append(part)
    return {"role": "model", "parts": parts}


def _response(result: Result) -> dict[str, Any]:
    """A result that is a JSON object is given as one, any other text as its "output"."""
    if not result.name:
        raise ConfigError(
            f"a tool's result {result.content!r:.80} does not say which function it is of",
            fix="give its tool_call_id and the call it answers, or its name",
        )
    value: Any = None
    if result.content.lstrip().startswith("{"):
        with contextlib.suppress(ConfigError):
            value = loaded(result.content, "a tool's result")
    known = {"id": result.call_id} if result.call_id else {}
    return {**known, "name": result.name, "response": value if isinstance(value, dict) else {"output": result.content}}


def _tools(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's `strict` holds for a function, Gemini's VALIDATED for all: one strict function makes all so."""
    said: dict[str, Any] = {}
    tools = tools_of(request.tools)
    if tools:
        said["tools"] = [
            {
                "functionDeclarations": [
                    {
                        "name": tool.name,
                        **({"description": tool.description} if tool.description else {}),
                        "parametersJsonSchema": tool.parameters,
                    }
                    for tool in tools
                ]
            }
        ]
    strict = any(tool.strict for tool in tools)
    if "tool_choice" in params or strict:
        choice = tool_choice_of(params.get("tool_choice", "auto"))
        mode = "VALIDATED" if strict and choice.mode == "auto" else _CHOICES[choice.mode]
        only = {"allowedFunctionNames": [choice.name]} if choice.name else {}
        said["toolConfig"] = {"functionCallingConfig": {"mode": mode, **only}}
    return said


def _logprobs(params: dict[str, Any]) -> dict[str, Any]:
    if not params.get("logprobs"):
        return {}
    top = params.get("top_logprobs") or 0
    if not isinstance(top, int) or not 0 <= top <= MAX_TOP_LOGPROBS:
        raise ConfigError(
            f"top_logprobs is {top!r}; {API} shows {MAX_TOP_LOGPROBS} at most", fix=f"give 1 to {MAX_TOP_LOGPROBS}"
        )
    return {"responseLogprobs": True, **({"logprobs": top} if top else {})}


def _thinking(effort: Any, model: str) -> dict[str, Any]:
    if _takes_levels(model):
        return {"thinkingLevel": one_of("reasoning_effort", effort, LEVELS, model).upper(), "includeThoughts": True}
    budget = BUDGETS[one_of("reasoning_effort", effort, BUDGETS, model)]
    return {"thinkingBudget": budget, "includeThoughts": budget > 0}
