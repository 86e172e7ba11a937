"""Calls in Anthropic's and Gemini's words, read as OpenAI's.

Source: Anthropic API reference, Messages; Gemini API reference, `models.generateContent`. Only `WireError` leaves.
"""

from typing import Any

from tutelage.records import Message
from tutelage.wire.calls import FIX, Asked, as_text, asked, chosen, decimal, stops, tool_call, whole
from tutelage.wire.values import bad, content, optional, shown, text, typed

_GENERATION = {
    "temperature": "temperature",
    "topP": "top_p",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "seed": "seed",
    "logprobs": "top_logprobs",
}
_MODES = {"AUTO": "auto", "ANY": "required", "NONE": "none"}


def parse_messages(value: dict[str, Any]) -> Asked:
    """A call of Anthropic's Messages. Thinking in earlier turns is left out: it is no part of what was said."""
    messages: list[Message] = []
    if "system" in value:
        blocks = value["system"] if isinstance(value["system"], list) else [value["system"]]
        texts = (content([block] if isinstance(block, dict) else block, "system", FIX) for block in blocks)
        messages += [Message("system", said) for said in texts]
    for at, item in enumerate(typed(value, "messages", list, "the call")):
        messages += _anthropic_turns(item, f"messages[{at}]")
    params: dict[str, Any] = {key: decimal(value, key) for key in ("temperature", "top_p") if key in value}
    if found := stops(value.get("stop_sequences", [])):
        params["stop"] = found
    taken = {"max_tokens", "system", "stop_sequences"}
    params |= _anthropic_choice(optional(value, "tool_choice", dict, {}))
    output = optional(value, "output_config", dict, {})
    form = optional(output, "format", dict, {})
    schema = as_text(typed(form, "schema", dict, "format")) if form.get("type") == "json_schema" else ""
    if schema:
        value = {**value, "output_config": {key: item for key, item in output.items() if key != "format"} or None}
    tools = [_anthropic_tool(tool) for tool in optional(value, "tools", list, [])]
    value = {key: item for key, item in {**value, "tools": tools}.items() if item is not None}
    return asked(tuple(messages), params, value, value.get("max_tokens"), taken, schema)


def _anthropic_choice(choice: dict[str, Any]) -> dict[str, Any]:
    words = {"auto": "auto", "any": "required", "none": "none"}
    kind, params = choice.get("type"), {}
    if isinstance(kind, str) and (kind in words or kind == "tool"):
        params["tool_choice"] = words.get(kind) or chosen(choice.get("name"))
    if choice.get("disable_parallel_tool_use") is True:
        params["parallel_tool_calls"] = False
    return params


def _anthropic_turns(item: Any, where: str) -> list[Message]:
    """One turn, and one more for every result of a tool in it, before its text."""
    role = item.get("role") if isinstance(item, dict) else None
    if role not in ("user", "assistant", "system"):
        raise bad(f"{where} has role {shown(role)}", where, FIX)
    blocks = item.get("content")
    if not isinstance(blocks, list):
        return [Message(role, content(blocks, where, FIX))]
    texts, calls, results = [], [], []
    for block in blocks:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(typed(block, "text", str, where))
        elif kind == "tool_use":
            calls.append(tool_call(block.get("name"), as_text(block.get("input", {})), block.get("id")))
        elif kind == "tool_result":
            said = content(block.get("content"), where, FIX)
            results.append(Message("tool", said, (), text(typed(block, "tool_use_id", str, where), where, FIX)))
        elif kind not in ("thinking", "redacted_thinking"):
            raise bad(f"{where} holds {shown(kind)}, which is no text", where, FIX)
    said = text("".join(texts), where, FIX)
    return [*results, Message(role, said, tuple(calls))] if said or calls or not results else results


def _anthropic_tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type", "custom") != "custom" or not isinstance(tool.get("name"), str):
        raise bad(f"the tool {shown(tool)} is not the caller's own", "tools", FIX)
    return _function(tool["name"], tool.get("description"), tool.get("input_schema"))


def _function(name: str, description: Any, parameters: Any) -> dict[str, Any]:
    parts = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": {key: part for key, part in parts.items() if part is not None}}


def parse_generate(value: dict[str, Any], model: str) -> Asked:
    """A call of Gemini's generateContent; `model` comes from the path. Fields may be written in snake case."""
    value = {_camel(key): item for key, item in value.items()}
    config = {_camel(key): item for key, item in optional(value, "generationConfig", dict, {}).items()}
    config = {key: item for key, item in config.items() if item is not None}
    messages: list[Message] = []
    if "systemInstruction" in value:
        messages += _gemini_system(value["systemInstruction"])
    for at, turn in enumerate(typed(value, "contents", list, "the call")):
        messages += _gemini_turns(turn, f"contents[{at}]")
    params: dict[str, Any] = {}
    for theirs, ours in _GENERATION.items():
        if theirs in config:
            params[ours] = (whole if ours in ("seed", "top_logprobs") else decimal)(config, theirs)
    if found := stops(config.get("stopSequences", [])):
        params["stop"] = found
    if config.get("responseLogprobs") is True:
        params["logprobs"] = True
    params |= _gemini_choice(optional(optional(value, "toolConfig", dict, {}), "functionCallingConfig", dict, {}))
    schema = config.get("responseJsonSchema", config.get("responseSchema"))
    used = {*_GENERATION, "stopSequences", "responseLogprobs", "maxOutputTokens", "candidateCount"}
    used |= {"responseJsonSchema", "responseSchema", "responseMimeType"} if schema is not None else set()
    rest = {key: item for key, item in config.items() if key not in used}
    taken = {
        "contents",
        "systemInstruction",
        "generationConfig",
        "tools",
        *(("toolConfig",) if "tool_choice" in params else ()),
    }
    tools = [tool for group in optional(value, "tools", list, []) for tool in _gemini_tools(group)]
    whole_value = {**value, "model": model, "tools": tools}
    if rest:
        taken -= {"generationConfig"}
        whole_value["generationConfig"] = rest
    limit, form = config.get("maxOutputTokens"), as_text(schema) if schema is not None else ""
    return asked(tuple(messages), params, whole_value, limit, taken, form)


def _gemini_choice(choice: dict[str, Any]) -> dict[str, Any]:
    mode, only = choice.get("mode"), choice.get("allowedFunctionNames")
    if mode == "ANY" and isinstance(only, list) and len(only) == 1:
        return {"tool_choice": chosen(only[0])}
    return {"tool_choice": _MODES[mode]} if not only and isinstance(mode, str) and mode in _MODES else {}


def _camel(key: str) -> str:
    head, *tail = key.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)


def _gemini_parts(turn: Any, where: str) -> list[dict[str, Any]]:
    parts = turn.get("parts") if isinstance(turn, dict) else None
    parts = [parts] if isinstance(parts, dict) else parts
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise bad(f"{where} has no parts", where, FIX)
    return [{_camel(key): item for key, item in part.items()} for part in parts]


def _gemini_system(turn: Any) -> list[Message]:
    texts = [typed(part, "text", str, "systemInstruction") for part in _gemini_parts(turn, "systemInstruction")]
    return [Message("system", text(said, "systemInstruction", FIX)) for said in texts]


def _gemini_turns(turn: Any, where: str) -> list[Message]:
    parts = _gemini_parts(turn, where)
    role = turn.get("role", "user")
    if role not in ("user", "model", "function"):
        raise bad(f"{where} has role {shown(role)}", where, FIX)
    texts, calls, results = [], [], []
    for part in parts:
        if part.get("thought") is True:
            continue
        if isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(call := part.get("functionCall"), dict):
            arguments = as_text(call.get("args") or {})
            calls.append(tool_call(call.get("name"), arguments, call.get("id"), part.get("thoughtSignature")))
        elif isinstance(result := part.get("functionResponse"), dict):
            name = text(typed(result, "name", str, where), where, FIX)
            call_id = text(optional(result, "id", str, ""), where, FIX)
            results.append(Message("tool", _result(result.get("response")), (), call_id, name))
        else:
            raise bad(f"{where} holds {shown(sorted(part))}, which is no text", where, FIX)
    said = text("".join(texts), where, FIX)
    own = [Message("assistant" if role == "model" else "user", said, tuple(calls))]
    return [*results, *own] if said or calls or not results else results


def _result(response: Any) -> str:
    """What a tool gave: "output" alone is a plain text."""
    if isinstance(response, dict) and set(response) == {"output"} and isinstance(response["output"], str):
        return text(response["output"], "response", FIX)
    return as_text(response)


def _gemini_tools(group: Any) -> list[dict[str, Any]]:
    named = {_camel(key): item for key, item in group.items()} if isinstance(group, dict) else {}
    if set(named) - {"functionDeclarations"}:
        raise bad(f"the tool {shown(group)} is not the caller's own", "tools", FIX)
    tools = []
    for function in optional(named, "functionDeclarations", list, []):
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise bad(f"the tool {shown(function)} has no name", "tools", FIX)
        parameters = function.get("parametersJsonSchema", function.get("parameters"))
        tools.append(_function(function["name"], function.get("description"), parameters))
    return tools
