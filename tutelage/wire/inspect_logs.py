"""Evaluation logs of Inspect (the package `inspect_ai`, by the UK AI Security Institute) in their JSON form, read.

Format: version 2 of `EvalLog`, as `inspect_ai.log` documents it. `.eval` files are archives of the same;
`inspect log convert FILE --to json --output-dir DIR` unpacks them. Nothing in a log is believed: every field is checked.
"""

import json
import math
from typing import Any, NamedTuple

from tutelage.records import Message
from tutelage.schema import one_line
from tutelage.wire.values import bad, json_text, shown, text

FIX = "give an evaluation log of Inspect in JSON: inspect log convert LOG --to json --output-dir DIR makes one"
_ATTACHED = "attachment://"
_ROLES = ("system", "user", "assistant", "tool")
# Letters and words that Inspect's scorers write, as its `value_to_float` reads them.
_WORTH = {"c": 1.0, "p": 0.5, "i": 0.0, "n": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


class Sampled(NamedTuple):
    """One sample of a log: `asked` are all turns before the answer, those of the solver included; `scores` by scorer, None
    where a score is no number. `error` says why there is no answer, '' when nothing went wrong."""

    item: str
    epoch: int
    input: str
    asked: tuple[Message, ...]
    target: tuple[str, ...]
    answer: str
    reasoning: str
    tool_calls: tuple[dict[str, Any], ...]
    stop_reason: str
    scores: dict[str, float | None]
    error: str


class InspectLog(NamedTuple):
    """What a log says of itself, and its samples as they stand, to be read one by one with `sample_of`."""

    task: str
    model: str
    status: str
    samples: tuple[Any, ...]


def read_log(data: bytes) -> InspectLog:
    """Raises `WireError`: no JSON, no log, another version, a log without samples."""
    try:
        value = json.loads(data)  # orjson refuses NaN, which Inspect writes
    except (ValueError, RecursionError) as error:
        raise bad(f"no JSON that can be read: {one_line(str(error))}", fix=FIX) from None
    about = value.get("eval") if isinstance(value, dict) else None
    if not isinstance(about, dict) or "version" not in value:
        raise bad("not an evaluation log of Inspect: no 'version' and 'eval'", fix=FIX)
    if value["version"] != 2:
        raise bad(f"version {shown(value['version'])} of Inspect's log, expected 2", "version", FIX)
    samples = value.get("samples")
    if not isinstance(samples, list) or not samples:
        raise bad("the log has no samples: a header alone, or an evaluation that did not start", "samples", FIX)
    task, model, status = _text(about, "task"), _text(about, "model"), _text(value, "status")
    return InspectLog(task, model, status, tuple(samples))


def rows_of_log(data: bytes) -> list[Sampled]:
    """Every sample of a log. Raises `WireError` as `read_log` and `sample_of` do."""
    return [sample_of(sample) for sample in read_log(data).samples]


def sample_of(value: Any) -> Sampled:
    """One sample, checked. Raises `WireError`, with the field."""
    if not isinstance(value, dict):
        raise bad(f"a sample is {shown(value)}, expected an object", "samples", FIX)
    item, epoch = value.get("id"), value.get("epoch", 1)
    if isinstance(item, bool) or not isinstance(item, str | int):
        raise bad(f"a sample's id is {shown(item)}, expected text or an integer", "id", FIX)
    if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 1:
        raise bad(f"epoch is {shown(epoch)}, expected an integer from 1", "epoch", FIX)
    attached = value.get("attachments")
    attached = attached if isinstance(attached, dict) else {}
    asked = _input(value.get("input"), attached)
    said = _answer(value.get("output"))
    turns = _turns(value["messages"], "messages", attached) if value.get("messages") else ()
    before = turns[:-1] if said is not None and len(turns) > 1 and turns[-1].role == "assistant" else asked
    message, stop = said if said is not None else ({}, "")
    answer, reasoning = _content(message.get("content", ""), "output", attached)
    return Sampled(
        text(str(item), "id", FIX), epoch, "\n\n".join(turn.content for turn in asked), before,
        _target(value.get("target", "")), answer, reasoning, _calls(message, "output"), stop,
        _scores(value.get("scores")), _error(value.get("error")),
    )  # fmt: skip


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    if not isinstance(found, str) or not found:
        raise bad(f"{key!r} is {shown(found)}, expected text", key, FIX)
    return text(found, key, FIX)


def _input(value: Any, attached: dict[str, Any]) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("user", _resolved(value, "input", attached)),)
    return _turns(value, "input", attached)


def _turns(value: Any, where: str, attached: dict[str, Any]) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise bad(f"{where} is {shown(value)}, expected text or a list of messages", where, FIX)
    turns = []
    for at, turn in enumerate(value):
        place = f"{where}[{at}]"
        role = turn.get("role") if isinstance(turn, dict) else None
        if role not in _ROLES:
            raise bad(f"{place} has role {shown(role)}, expected one of {', '.join(_ROLES)}", place, FIX)
        said, _ = _content(turn.get("content", ""), place, attached)
        calls = _calls(turn, place) if role == "assistant" else ()
        call_id = turn.get("tool_call_id") if role == "tool" else ""
        turns.append(Message(role, said, calls, text(call_id, place, FIX) if isinstance(call_id, str) else ""))
    return tuple(turns)


def _content(value: Any, where: str, attached: dict[str, Any]) -> tuple[str, str]:
    """Text and reasoning: a text, or parts of which text and reasoning are read. A picture or a sound is refused, since
    without it the question is another one."""
    if isinstance(value, str):
        return _resolved(value, where, attached), ""
    if not isinstance(value, list):
        raise bad(f"{where}: content is {shown(value)}, expected text or a list of parts", where, FIX)
    found: dict[str, list[str]] = {"text": [], "reasoning": []}
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in found or not isinstance(part.get(kind), str):
            raise bad(f"{where}: a part of type {shown(kind)}; only text and reasoning are read", where, FIX)
        found[kind].append(_resolved(part[kind], where, attached))
    return "\n".join(found["text"]), "\n".join(found["reasoning"])


def _resolved(value: str, where: str, attached: dict[str, Any]) -> str:
    """Long texts stand once, in the sample's attachments. Text that merely looks like a reference is left as it is."""
    if value.startswith(_ATTACHED):
        there = attached.get(value.removeprefix(_ATTACHED))
        value = there if isinstance(there, str) else value
    return text(value, where, FIX)


def _answer(output: Any) -> tuple[dict[str, Any], str] | None:
    """The first choice's message and why it ended; None when the model said nothing."""
    choices = output.get("choices") if isinstance(output, dict) else None
    if not isinstance(choices, list) or not choices:
        return None
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    if not isinstance(message, dict):
        raise bad(f"output's first choice is {shown(choices[0])}, expected one with a message", "output", FIX)
    stop = choices[0].get("stop_reason")
    return message, text(stop, "stop_reason", FIX) if isinstance(stop, str) else ""


UNPARSED = "not a JSON object: "  # how our own logs quote such arguments


def _calls(message: dict[str, Any], where: str) -> tuple[dict[str, Any], ...]:
    """Tool calls in the form of `records.Message`."""
    calls = message.get("tool_calls") or []
    made = []
    for call in calls if isinstance(calls, list) else [None]:
        name, named = (call.get("function"), call.get("id")) if isinstance(call, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(named, str) or not isinstance(call.get("arguments"), dict):
            raise bad(f"{where}: a tool call is {shown(call)}", where, FIX)
        arguments = json_text(call["arguments"], where)
        if isinstance(problem := call.get("parse_error"), str) and problem:  # {} stands for what the model wrote
            arguments = text(problem.removeprefix(UNPARSED), where, FIX)
        named, name = text(named, where, FIX), text(name, where, FIX)
        made.append({"id": named, "type": "function", "function": {"name": name, "arguments": arguments}})
    return tuple(made)


def _target(value: Any) -> tuple[str, ...]:
    targets = [value] if isinstance(value, str) else value
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise bad(f"target is {shown(value)}, expected text or a list of texts", "target", FIX)
    return tuple(text(target, "target", FIX) for target in targets)


def _scores(value: Any) -> dict[str, float | None]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad(f"scores are {shown(value)}, expected an object", "scores", FIX)
    return {
        text(name, "scores", FIX): worth(score.get("value") if isinstance(score, dict) else None)
        for name, score in value.items()
    }


def worth(value: Any) -> float | None:
    """A score as a number: numbers and booleans as they are, Inspect's letters (C, P, I, N) and words by what they stand
    for; None for anything else, NaN and infinities included."""
    if isinstance(value, str):
        if (known := _WORTH.get(value.strip().lower())) is not None:
            return known
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, bool | int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _error(value: Any) -> str:
    if not value:
        return ""
    message = value.get("message") if isinstance(value, dict) else value
    return one_line(message) if isinstance(message, str) and message else "an error without a message"
