"""A request taken apart and checked, for dialects whose words are not OpenAI's.

What cannot be said raises `ConfigError` here rather than being left out. JSON text is loaded and held against what
orjson, which writes the body, can write.
"""

import functools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

import orjson

from tutelage.errors import ConfigError
from tutelage.records import Message, Request

_MONEY = "it could cost more than what is set aside for a call"
_SAID = "it has a place of its own in the run file"
_NOT_EXTRA = {
    **dict.fromkeys(
        ("n", "best_of", "candidateCount", "max_completion_tokens", "maxOutputTokens", "max_output_tokens", "service_tier",
         "models", "plugins", "cache_control", "cachedContent", "web_search_options", "functions", "system",
         "systemInstruction", "mcp_servers", "container"), _MONEY),
    **dict.fromkeys(("messages", "contents", "prompt", "model", "tools", "max_tokens"), _SAID),
    "stream": "answers are read whole",
}  # fmt: skip
_MARGIN = 16  # levels of nesting that bodies put around what users wrote


class Call(NamedTuple):
    """A tool call of an assistant; `raw` is the record's own form, which may keep more."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    raw: Mapping[str, Any]


class Result(NamedTuple):
    """What a tool answered; `name` is empty when no call before it and not the message says which tool."""

    call_id: str
    name: str
    content: str


class Turn(NamedTuple):
    """One turn: of a "user" (text), an "assistant" (text and calls), or a "tool" (results that came together)."""

    role: str
    text: str
    calls: tuple[Call, ...] = ()
    results: tuple[Result, ...] = ()


class Conversation(NamedTuple):
    """System messages apart, wherever they stood; both vendors want them first."""

    system: tuple[str, ...]
    turns: tuple[Turn, ...]


class Tool(NamedTuple):
    """A function tool; `parameters` is a JSON Schema."""

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool


class ToolChoice(NamedTuple):
    """`mode` is "auto", "none" or "required"; a `name` requires that one."""

    mode: str
    name: str = ""


def conversation(request: Request, api: str) -> Conversation:
    """The messages of a request. Raises `ConfigError` for a completion, an unknown role, and what `api` cannot say."""
    system: list[str] = []
    turns: list[Turn] = []
    names: dict[str, str] = {}  # of calls by their ids: the latest, where a conversation uses one twice
    if request.is_completion:
        _stop(f"{api} continues no text: it answers chats", 'give the question as messages, or with role "user"')
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        if message.name and message.role != "tool":
            _stop(f"{where} has name {message.name!r}: {api} takes no names", "put the name into the text")
        if message.role in ("system", "developer"):
            system.append(message.content)
        elif message.role == "user":
            turns.append(Turn("user", message.content))
        elif message.role == "assistant":
            calls = tuple(_call(call, f"{where}.tool_calls[{at}]") for at, call in enumerate(message.tool_calls))
            names |= {call.call_id: call.name for call in calls}
            turns.append(Turn("assistant", message.content, calls))
        elif message.role == "tool":
            earlier = turns.pop().results if turns and turns[-1].role == "tool" else ()
            turns.append(Turn("tool", "", (), (*earlier, _result(message, names))))
        else:
            _stop(f"{where} has role {message.role!r}", "roles are system, developer, user, assistant and tool")
    return Conversation(tuple(system), tuple(turns))


@functools.lru_cache(maxsize=64)
def tools_of(text: str) -> tuple[Tool, ...]:
    """The function tools in a request's JSON text. Raises `ConfigError`."""
    tools = loaded(text, "tools") if text else []
    if not isinstance(tools, list):
        _stop(f"tools is {_shown(tools)}, not a list", "give a list of OpenAI function tools")
    return tuple(_tool(tool, f"tools[{number}]") for number, tool in enumerate(tools))


def tool_choice_of(choice: Any) -> ToolChoice:
    """OpenAI's `tool_choice`: a word, or the function to be called. Raises `ConfigError`."""
    if choice in ("auto", "none", "required"):
        return ToolChoice(choice)
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        _stop(f"tool_choice is {_shown(choice)}", 'give "auto", "none", "required" or {type, function: {name}}')
    return ToolChoice("required", name)


def params_of(request: Request, api: str, known: Iterable[str]) -> dict[str, Any]:
    """The parameters, decimal strings as numbers. Raises `ConfigError` for one that `api` does not have."""
    params = dict(request.params)
    for key in params.keys() - set(known):
        _stop(f"{api} has no {key!r} (asked for {_shown(params[key])})", f"leave out {key}, or sampling.{key}")
    for key in params.keys() & {"temperature", "top_p", "presence_penalty", "frequency_penalty"}:
        try:
            number = float(params[key])
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            _stop(f"{key} is {_shown(params[key])}", "give a number")
        params[key] = number
    if isinstance(params.get("stop"), str):
        params["stop"] = [params["stop"]]
    return params


def one_of(what: str, value: Any, known: Iterable[str], api: str) -> Any:
    """The value, when it is a known one. Raises `ConfigError`."""
    if value not in (known := tuple(known)):
        _stop(f"{what} is {_shown(value)}; {api} takes none such", "one of: " + ", ".join(known))
    return value


def with_extra(body: dict[str, Any], extra: str) -> dict[str, Any]:
    """The body with what only one vendor knows; objects are joined, nothing is replaced. Raises `ConfigError`."""
    if not extra:
        return body
    fields = loaded_once(extra, "sampling.extra")
    if not isinstance(fields, dict):
        _stop(f"sampling.extra is {_shown(fields)}, not an object", "give a table of fields")
    inner = fields.get("generationConfig")
    for name in (*fields, *(inner if isinstance(inner, dict) else ())):
        if name in _NOT_EXTRA:
            _stop(f"sampling.extra says {name!r}: {_NOT_EXTRA[name]}", f"take {name} out of sampling.extra")
    return _joined(body, fields, "")


@functools.lru_cache(maxsize=64)
def loaded_once(text: str, what: str) -> Any:
    """`loaded`, for text that comes with every request; the value is not to be changed."""
    return loaded(text, what)


def loaded(text: str, what: str) -> Any:
    """JSON text as a value that can be sent. Raises `ConfigError` naming `what`."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
        nested = value
        for _ in range(_MARGIN):
            nested = [nested]
        orjson.dumps(nested)
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{what} is not JSON that can be sent: {_shown(text)} ({error})", fix="mend it") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _call(call: Mapping[str, Any], where: str) -> Call:
    function = call.get("function")
    inner: Mapping[str, Any] = function if isinstance(function, dict) else {}
    call_id, name, arguments = call.get("id", ""), inner.get("name"), inner.get("arguments")
    if not isinstance(call_id, str) or not isinstance(name, str) or not isinstance(arguments, str):
        _stop(f"{where} is {_shown(call)}", "give {id, type, function: {name, arguments}}, all of them text")
    value = loaded(arguments, f"{where}.function.arguments")
    if not isinstance(value, dict):
        _stop(f"{where}.function.arguments is {_shown(arguments)}, not a JSON object", "give the arguments by name")
    return Call(call_id, name, value, call)


def _result(message: Message, names: Mapping[str, str]) -> Result:
    return Result(message.tool_call_id, names.get(message.tool_call_id) or message.name, message.content)


def _tool(tool: Any, where: str) -> Tool:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        _stop(f"{where} is {_shown(tool)}", "give OpenAI function tools: {type: function, function: {name, …}}")
    if unknown := function.keys() - {"name", "description", "parameters", "strict"}:
        _stop(f"{where} has {min(unknown)!r}", "a function has a name, description, parameters and strict")
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return Tool(function["name"], function.get("description") or "", parameters, function.get("strict") is True)


def _joined(ours: dict[str, Any], theirs: dict[str, Any], where: str) -> dict[str, Any]:
    made = dict(ours)
    for key, value in theirs.items():
        if key not in made:
            made[key] = value
        elif isinstance(made[key], dict) and isinstance(value, dict):
            made[key] = _joined(made[key], value, f"{where}{key}.")
        else:
            _stop(f"sampling.extra says {where + key!r}, which is said already", "say it once: take it out of extra")
    return made


def _shown(value: Any) -> str:
    return ascii(value)[:200]


def _stop(message: str, fix: str) -> NoReturn:
    raise ConfigError(message, fix=fix)
