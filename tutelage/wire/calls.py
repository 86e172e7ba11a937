"""Calls of other programs as we would have asked them: OpenAI's chat and completions. `wire.captured` knows every kind.

Everything read here comes from outside: only `WireError` leaves, also for what is well-formed and cannot be kept (pictures,
sound, tools that run at the provider), so that nothing is kept halfway.
"""

import json
from typing import Any, NamedTuple

from tutelage.canon import MAX_INTEGER
from tutelage.records import RAW, Message
from tutelage.wire.values import bad, content, optional, shown, text, typed

FIX = "such calls are passed on and not recorded"
_DECIMALS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_INTEGERS = ("seed", "top_logprobs")
_ROLES = {"system", "user", "assistant", "tool"}
# How the answer travels, who asked, and what the provider keeps: nothing of the question.
_NOT_KEPT = {"model", "messages", "prompt", "stream", "stream_options", "n", "best_of", "user", "safety_identifier"}
_NOT_KEPT |= {"prompt_cache_key", "prompt_cache_retention", "metadata", "store", "service_tier", "tools"}


class Asked(NamedTuple):
    """A call in the words of `records.Request`, which says what each field is."""

    messages: tuple[Message, ...]
    params: dict[str, Any]
    model: str
    tools: str
    schema: str
    extra: str


def parse_chat(value: dict[str, Any]) -> Asked:
    """A call of Chat Completions."""
    for key in ("functions", "function_call", "audio"):
        if key in value:
            raise bad(f"{key!r} cannot be kept", key, FIX)
    messages = tuple(_message(item, at) for at, item in enumerate(typed(value, "messages", list, "the call")))
    form = optional(value, "response_format", dict, {})
    schema = _schema_of(form) if form.get("type") == "json_schema" else ""
    params = _params(value)
    limit = value.get("max_completion_tokens", value.get("max_tokens"))
    taken = {"max_tokens", "max_completion_tokens", *(("response_format",) if schema else ())}
    return asked(messages, params, value, limit, taken, schema)


def parse_completion(value: dict[str, Any]) -> Asked:
    """A call of Completions for one text."""
    prompt = value.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise bad(f"the prompt is {shown(prompt)}, expected one text", "prompt", FIX)
    params = _params(value)
    if count := whole(value, "logprobs"):
        params |= {"logprobs": True, "top_logprobs": count}
    taken = {"max_tokens", "logprobs"}
    return asked((Message(RAW, text(prompt, "prompt", FIX)),), params, value, value.get("max_tokens"), taken, "")


def asked(
    messages: tuple[Message, ...], params: dict[str, Any], value: dict[str, Any], limit: Any, taken: set[str], schema: str
) -> Asked:  # fmt: skip
    """Puts a call together; fields of `value` that are neither in `params`, nor `taken`, nor of no concern, are its
    `extra`. Raises `WireError` when there is no message."""
    if not messages:
        raise bad("there is no message", "messages", FIX)
    if limit is not None:
        params = {"max_tokens": whole({"max_tokens": limit}, "max_tokens"), **params}
    tools = optional(value, "tools", list, [])
    rest = {key: item for key, item in value.items() if key not in params and key not in taken and key not in _NOT_KEPT}
    model = text(typed(value, "model", str, "the call"), "model", FIX)
    return Asked(messages, params, model, as_text(tools) if tools else "", schema, as_text(rest) if rest else "")


def decimal(value: dict[str, Any], key: str) -> str:
    """A number as the decimal string that records keep. Raises `WireError` for anything else."""
    number = value[key]
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise bad(f"{key!r} is {shown(number)}, expected a number", key, FIX)
    try:
        return repr(float(number))
    except OverflowError:
        raise bad(f"{key!r} is {shown(number)}, too large a number", key, FIX) from None


def whole(value: dict[str, Any], key: str) -> int:
    """An integer that a record can hold; 0 when it is not there. Raises `WireError` for anything else."""
    number = value.get(key, 0)
    if type(number) is not int or abs(number) > MAX_INTEGER:
        raise bad(f"{key!r} is {shown(number)}, expected an integer", key, FIX)
    return number


def stops(value: Any) -> list[str]:
    """Texts to stop at, one or several. Raises `WireError` for anything else."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(stop, str) for stop in found):
        raise bad(f"'stop' is {shown(value)}, expected texts", "stop", FIX)
    return [text(stop, "stop", FIX) for stop in found]


def as_text(value: Any) -> str:
    """Compact JSON text of a parsed value. Raises `WireError` when it holds NaN, or what is no Unicode text."""
    try:
        return text(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False), "JSON", FIX)
    except ValueError as error:
        raise bad(f"no JSON: {error}", fix=FIX) from None


def tool_call(name: Any, arguments: str, call_id: Any, signature: Any = None) -> dict[str, Any]:
    """A call of a tool as `records.Message` keeps it. Raises `WireError` for names and ids that are no text."""
    said = {"name": name, "arguments": arguments, "id": call_id or ""}
    said = {key: text(typed(said, key, str, "a tool call"), key, FIX) for key in said}
    call = {"id": said["id"], "type": "function", "function": {"name": said["name"], "arguments": said["arguments"]}}
    return {**call, "signature": text(signature, "signature", FIX)} if isinstance(signature, str) else call


def chosen(name: Any) -> dict[str, Any]:
    """The choice of one tool, in OpenAI's words. Raises `WireError` for a name that is no text."""
    return {
        "type": "function",
        "function": {"name": text(typed({"name": name}, "name", str, "tool_choice"), "name", FIX)},
    }


def _params(value: dict[str, Any]) -> dict[str, Any]:
    """What chat and completions say alike."""
    params: dict[str, Any] = {key: decimal(value, key) for key in _DECIMALS if key in value}
    params |= {key: whole(value, key) for key in _INTEGERS if key in value}
    if "stop" in value and (found := stops(value["stop"])):
        params["stop"] = found
    if isinstance(value.get("logprobs"), bool):
        params["logprobs"] = value["logprobs"]
    for key in ("reasoning_effort", "tool_choice"):
        if isinstance(value.get(key), str):
            params[key] = text(value[key], key, FIX)
    choice = value.get("tool_choice")
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        params["tool_choice"] = chosen(choice["function"].get("name"))
    if isinstance(value.get("parallel_tool_calls"), bool):
        params["parallel_tool_calls"] = value["parallel_tool_calls"]
    return params


def _schema_of(form: dict[str, Any]) -> str:
    return as_text(typed(typed(form, "json_schema", dict, "response_format"), "schema", dict, "json_schema"))


def _message(item: Any, at: int) -> Message:
    where = f"messages[{at}]"
    role = item.get("role") if isinstance(item, dict) else None
    role = "system" if role == "developer" else role
    if not isinstance(role, str) or role not in _ROLES:
        raise bad(f"{where} has role {shown(role)}", where, FIX)
    said = item.get("content")
    said = item.get("refusal") if said is None else said
    calls = []
    for call in optional(item, "tool_calls", list, []):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise bad(f"{where} calls {shown(call)}, which is no function", where, FIX)
        calls.append(tool_call(function.get("name"), typed(function, "arguments", str, where), call.get("id")))
    return Message(
        role,
        content(said, f"{where}.content", FIX),
        tuple(calls),
        text(optional(item, "tool_call_id", str, ""), where, FIX),
        text(optional(item, "name", str, ""), where, FIX),
    )
