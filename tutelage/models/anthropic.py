"""Anthropic's Messages API.

Source: Anthropic API reference, `messages/create`, errors and versioning; its guides to tool use, structured outputs
(`output_config.format`), effort (`output_config.effort`) and adaptive thinking.
"""

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tutelage.errors import ConfigError, SignalError
from tutelage.models.base import Endpoint
from tutelage.models.chat import (
    Call,
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
from tutelage.wire.anthropic import parse_message, usage_in_message

API = "Anthropic's API"
VERSION = (
    "2023-06-01"  # of the API; 2026-10-21 refuses a temperature to every model, and adds nothing that is read here
)
DEFAULT_MAX_TOKENS = 4096  # the API wants a limit; this one holds for every model
EFFORTS = ("low", "medium", "high", "xhigh", "max")
_PARAMS = (
    "max_tokens", "temperature", "top_p", "stop", "tool_choice", "parallel_tool_calls", "reasoning_effort",
    "logprobs", "top_logprobs",
)  # fmt: skip
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
_OUT_OF_MONEY = re.compile(
    r"credit balance is too low|billing_error|spend_limit_reached|reached your .{0,30}usage limit", re.I
)


class AnthropicDialect:
    """Messages. It shows no log-probabilities and takes no seed."""

    def url(self, endpoint: Endpoint, request: Request) -> str:
        """`/v1/messages` behind the base URL, with or without its `/v1`."""
        parts = urlsplit(endpoint.base_url)
        path = parts.path.rstrip("/").removesuffix("/v1")
        return urlunsplit(parts._replace(path=f"{path}/v1/messages"))

    def headers(self, endpoint: Endpoint, key: str | None) -> dict[str, str]:
        """The key in a header of its own, and the version whose answers we read."""
        return {"anthropic-version": VERSION, **({} if key is None else {"x-api-key": key})}

    def body(self, endpoint: Endpoint, request: Request) -> dict[str, Any]:
        """Raises `SignalError` when log-probabilities are asked for and `ConfigError` for all else that it cannot say.

        A `reasoning_effort` turns adaptive thinking on, in words, and "none" turns it off; for models that take a budget
        instead, say `thinking` in `extra`.
        """
        params = params_of(request, API, _PARAMS)
        if params.get("logprobs") or params.get("top_logprobs"):
            raise SignalError(f"{API} shows no log-probabilities", fix='set teacher.signal = "text"')
        talk = conversation(request, API)
        body: dict[str, Any] = {
            "model": request.model_asked,
            "max_tokens": params.get("max_tokens", DEFAULT_MAX_TOKENS),
            "messages": [_message(turn) for turn in talk.turns],
        }
        if talk.system:
            blocks = [{"type": "text", "text": text} for text in talk.system]
            body["system"] = blocks if len(blocks) > 1 else talk.system[0]
        renamed = {"temperature": "temperature", "top_p": "top_p", "stop": "stop_sequences"}
        body |= {theirs: params[ours] for ours, theirs in renamed.items() if ours in params}
        body |= _tools(request, params)
        output: dict[str, Any] = {}
        if (effort := params.get("reasoning_effort")) == "none":
            body["thinking"] = {"type": "disabled"}
        elif effort is not None:
            body["thinking"] = {"type": "adaptive", "display": "summarized"}
            output["effort"] = one_of("reasoning_effort", effort, EFFORTS, API)
        if request.schema:
            output["format"] = {"type": "json_schema", "schema": loaded_once(request.schema, "schema")}
        if output:
            body["output_config"] = output
        return with_extra(body, request.extra)

    def parse(self, body: bytes, request: Request) -> ChatAnswer:
        """The answer. Raises `WireError`."""
        return parse_message(body)

    def usage(self, body: bytes) -> Usage | None:
        """What an unusable answer says it cost."""
        return usage_in_message(body)

    def is_out_of_money(self, status: int, error: str) -> bool:
        """No credit (HTTP 400 or 402), or a spending limit of the organisation reached (HTTP 400 or 429)."""
        return status == 402 or (status in (400, 403, 429) and bool(_OUT_OF_MONEY.search(error)))


def _message(turn: Turn) -> dict[str, Any]:
    if turn.role == "tool":
        blocks = []
        for result in turn.results:
            if not result.call_id:
                raise ConfigError(
                    f"a tool's result {result.content!r:.80} does not say which call it answers",
                    fix=f"give its tool_call_id: {API} needs it",
                )
            blocks.append({"type": "tool_result", "tool_use_id": result.call_id, "content": result.content})
        return {"role": "user", "content": blocks}
    if not turn.calls:
        return {"role": turn.role, "content": turn.text}
    text = [{"type": "text", "text": turn.text}] if turn.text else []
    first, *others = turn.calls
    blocks = [*_thinking(first), *text, _tool_use(first)]
    for call in others:
        blocks += [*_thinking(call), _tool_use(call)]
    return {"role": "assistant", "content": blocks}


def _thinking(call: Call) -> list[dict[str, Any]]:
    """The thinking that this API gave with a call, as `wire.anthropic` kept it."""
    kept = call.raw.get("thinking")
    if not kept:
        return []
    blocks = loaded(kept, "tool_calls.thinking") if isinstance(kept, str) else None
    if not isinstance(blocks, list):
        raise ConfigError(
            f"tool_calls.thinking is {kept!r:.80}, not a list of blocks", fix="leave it as it was answered"
        )
    return blocks


def _tool_use(call: Call) -> dict[str, Any]:
    if not call.call_id:
        raise ConfigError(f"a call of {call.name!r} has no id", fix=f"give every tool call an id: {API} needs it")
    return {"type": "tool_use", "id": call.call_id, "name": call.name, "input": call.arguments}


def _tools(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if tools := tools_of(request.tools):
        said["tools"] = [
            {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "input_schema": tool.parameters,
                **({"strict": True} if tool.strict else {}),
            }
            for tool in tools
        ]
    one_at_a_time = params.get("parallel_tool_calls") is False
    if "tool_choice" in params or one_at_a_time:
        choice = tool_choice_of(params.get("tool_choice", "auto"))
        kind = {"type": "tool", "name": choice.name} if choice.name else {"type": _CHOICES[choice.mode]}
        limit = {"disable_parallel_tool_use": True} if one_at_a_time and choice.mode != "none" else {}
        said["tool_choice"] = {**kind, **limit}
    return said
