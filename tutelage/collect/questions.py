"""Questions for a teacher out of a file of prompts, in the forms that people keep them in. docs/exchanges.md has the forms.

The file is read twice, a row at a time: once to name everything that is wrong with it, before anything is asked, and once
to ask.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tutelage.canon import digest_file, digest_of
from tutelage.collect.rows import FileFormat, Row, format_of, listed, rows_of
from tutelage.collect.sources import BadRow
from tutelage.config import PromptsTable
from tutelage.errors import DataError
from tutelage.records import Message, Question
from tutelage.schema import TOOL_NAME, compile_schema, one_line, tools_problem

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
COLUMNS = ("prompt", "messages", "question", "instruction", "text", "turns")  # the first that is there is asked


class UnusableRow(ValueError):
    """What is wrong with a row, in words that follow its line number."""


@dataclass(slots=True)
class Questions:
    """The questions of a checked file: iterating streams them, each once, in the order of the file.

    `count` questions come from `rows` rows; `repeated` rows said again what an earlier one says; `bad` ones are left out.
    """

    path: Path
    table: PromptsTable
    form: FileFormat
    digest: str
    count: int = 0
    rows: int = 0
    repeated: int = 0
    bad: list[BadRow] = field(default_factory=list)

    def __iter__(self) -> Iterator[Question]:
        """Raises `DataError` when the file is not what it was when it was checked."""
        again = Questions(self.path, self.table, self.form, self.digest)
        yield from _walk(again)
        if (again.count, again.rows, len(again.bad)) != (self.count, self.rows, len(self.bad)):
            raise DataError(f"{self.path} changed while it was read", fix="leave the file alone and run again")


def read_questions(path: Path, table: PromptsTable) -> Questions:
    """Checks the whole file, or as much of it as `limit` asks for.

    Raises `DataError`: no such file, no usable row, or bad rows when `bad_rows` is "stop".
    """
    form = format_of(path, table.format)
    try:
        digest = digest_file(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", fix="check prompts.path in the run file") from None
    found = Questions(path, table, form, digest)
    for _ in _walk(found):
        pass
    if found.bad and table.bad_rows == "stop":
        fix = 'mend those lines, or go on without them: bad_rows = "skip" under [prompts]'
        raise listed(path, found.bad, found.rows, fix)
    if not found.count:
        columns = f"a column {table.text!r}" if table.text else f"a column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}"
        raise DataError(f"{path} has no usable row", fix=f"it needs {columns}; see docs/exchanges.md")
    return found


def _walk(found: Questions) -> Iterator[Question]:
    """Every question once; `found` counts. 16 bytes of each digest are kept to know it again."""
    seen: set[bytes] = set()
    for row in rows_of(found.path, found.form):
        found.rows += 1
        try:
            question = question_of(row, found.table, found.path.name, found.digest)
        except UnusableRow as error:
            found.bad.append(BadRow(row.line, str(error)))
            continue
        key = bytes.fromhex(question.prompt_id[7:39])
        if key in seen:
            found.repeated += 1
            continue
        seen.add(key)
        found.count += 1
        yield question
        if found.count == found.table.limit:
            return


def question_of(row: Row, table: PromptsTable, source: str, source_digest: str) -> Question:
    """One row as a question. Raises `UnusableRow`."""
    if row.problem:
        raise UnusableRow(row.problem)
    messages = with_system(conversation_of(row.fields, table.text), row.fields.get("system"), table.system)
    last = messages[-1].role
    if last == "assistant":
        raise UnusableRow("the last turn is the assistant's: drop it, or import the row as an answer (tutelage import)")
    if not any(message.role in ("user", "tool") and message.content.strip() for message in messages):
        raise UnusableRow("the prompt is empty" if last != "system" else "no turn of a user: nothing to answer")
    tools, schema = tools_of(row.fields), schema_of(row.fields)
    named = {"messages": [message.to_json() for message in messages], "tools": tools, "schema": schema}
    return Question(digest_of(named), messages, source, source_digest, table.licence, tools, schema, _group(row.fields))


def conversation_of(fields: dict[str, Any], column: str | None) -> tuple[Message, ...]:
    """The turns that a row holds, in the column named or in the first of the usual ones. Raises `UnusableRow`."""
    if column is None:
        column = next((name for name in COLUMNS if fields.get(name) is not None), None)
        if column is None:
            raise UnusableRow(f"no column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}; it has {_names(fields)}")
    elif fields.get(column) is None:
        raise UnusableRow(f"no column {column!r}; it has {_names(fields)}")
    value = fields[column]
    if column == "turns":  # MT-bench: only the first turn can be asked before there is an answer to it
        if not isinstance(value, list) or not value or not isinstance(value[0], str):
            raise UnusableRow(f"turns are {_shown(value)}, not a list of texts")
        value = value[0]
    elif column == "messages" and isinstance(value, str):
        value = parsed(value, "messages")
    if isinstance(value, list):
        return messages_of(value, column)
    if not isinstance(value, str):
        raise UnusableRow(f"{column} is {_shown(value)}, not text or a list of messages")
    if column == "instruction" and fields.get("input"):
        value = f"{value}\n\n{_text(fields['input'], 'input')}"
    if not value.strip():
        raise UnusableRow(f"the prompt is empty ({column})")
    return (Message("user", _text(value, column)),)


def messages_of(value: list[Any], where: str) -> tuple[Message, ...]:
    """Checked turns of the OpenAI form. Raises `UnusableRow`."""
    if not value:
        raise UnusableRow(f"{where} is empty")
    messages: list[Message] = []
    unanswered: set[str] = set()
    for at, item in enumerate(value):
        place = f"{where}[{at}]"
        message = _message(item, place)
        if message.role == "tool":
            if message.tool_call_id not in unanswered:
                raise UnusableRow(f"{place} answers {_shown(message.tool_call_id)}, which is no open call")
            unanswered.remove(message.tool_call_id)
        elif unanswered:
            raise UnusableRow(f"{place} comes before an answer to the call {_shown(min(unanswered))}")
        unanswered |= {call["id"] for call in message.tool_calls}
        messages.append(message)
    if unanswered and messages[-1].role == "tool":
        raise UnusableRow(f"{where} has no answer to the call {_shown(min(unanswered))}")
    return tuple(messages)


def with_system(messages: tuple[Message, ...], own: Any, usual: str) -> tuple[Message, ...]:
    """The turns with the row's own system message in front, else the usual one. Raises `UnusableRow`."""
    has_one = messages[0].role == "system"
    if own:
        if has_one:
            raise UnusableRow("two system messages: in the column system, and in the first turn")
        return (Message("system", _text(own, "system")), *messages)
    return messages if has_one or not usual else (Message("system", usual), *messages)


def tools_of(fields: dict[str, Any]) -> str:
    """The row's tools as compact JSON text; '' when it has none. Raises `UnusableRow`."""
    tools = parsed(fields.get("tools"), "tools")
    if not tools and not isinstance(tools, dict):
        return ""
    text = _dumped(tools, "tools")
    if problem := tools_problem(text):
        raise UnusableRow(problem)
    return text


def schema_of(fields: dict[str, Any]) -> str:
    """The schema that the answer must satisfy as compact JSON text, from `schema` or `response_format`; '' when there is
    none. Raises `UnusableRow`."""
    schema = parsed(fields.get("schema"), "schema")
    form = parsed(fields.get("response_format"), "response_format")
    if form is not None:
        kind = form.get("type") if isinstance(form, dict) else None
        if kind == "json_schema":
            inner = form.get("json_schema", form)
            told = inner.get("schema") if isinstance(inner, dict) else None
            if told is None:
                raise UnusableRow(f"response_format is {_shown(form)}, without a schema")
        elif kind in ("text", "json_object"):
            told = None if kind == "text" else {"type": "object"}
        else:
            raise UnusableRow(f"response_format is {_shown(form)}; its types are text, json_object, json_schema")
        if schema is not None and told is not None and schema != told:
            raise UnusableRow("schema and response_format say different things")
        schema = told if schema is None else schema
    if schema is None:
        return ""
    text = _dumped(schema, "schema")
    try:
        compile_schema(text)
    except DataError as error:
        raise UnusableRow(error.message) from None
    return text


def parsed(value: Any, where: str) -> Any:
    """JSON text as its value, anything else as it is; empty text is nothing. Raises `UnusableRow`."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value) if value.strip() else None
    except ValueError as error:
        raise UnusableRow(f"{where} is not JSON: {error}: {_shown(value)}") from None


def _message(item: Any, where: str) -> Message:
    role = item.get("role") if isinstance(item, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        shown = _shown(item) if role is None else f"of role {_shown(role)}"
        raise UnusableRow(f"{where} is {shown}; roles are {', '.join(ROLES)}")
    calls = _calls(item.get("tool_calls"), where)
    if calls and role != "assistant":
        raise UnusableRow(f"{where}: only an assistant calls tools, not {role}")
    content = _content(item.get("content"), where, bool(calls))
    call_id, name = item.get("tool_call_id") or "", item.get("name") or ""
    if role == "tool" and not call_id:
        raise UnusableRow(f"{where} is an answer of a tool without tool_call_id")
    call_id = _text(call_id, f"{where}.tool_call_id") if role == "tool" else ""
    return Message(ROLES[role], content, calls, call_id, _text(name, f"{where}.name"))


def _content(value: Any, where: str, may_be_absent: bool) -> str:
    if value is None:
        if may_be_absent:
            return ""
        raise UnusableRow(f"{where} has no content")
    if isinstance(value, list):
        for at, part in enumerate(value):
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, dict) else part
                raise UnusableRow(f"{where}.content[{at}] is a part of type {_shown(kind)}: only text can be asked")
        value = "".join(part["text"] for part in value)
    return _text(value, f"{where}.content")


def _calls(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """Only the protocol's own fields; arguments given as an object become JSON text."""
    if not value:
        return ()
    if not isinstance(value, list):
        raise UnusableRow(f"{where}.tool_calls is {_shown(value)}, not a list")
    calls = []
    for call in value:
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
            raise UnusableRow(f"{where} calls {_shown(call)}, which names no function")
        arguments = function.get("arguments", "{}")
        text = arguments if isinstance(arguments, str) else _dumped(arguments, f"{where}: arguments of {name}")
        call_id = call.get("id")
        if not isinstance(call_id, str) or not call_id or call_id in {other["id"] for other in calls}:
            raise UnusableRow(f"{where}: the call of {name} has the id {_shown(call_id)}, not one of its own")
        inner = {"name": name, "arguments": _text(text, f"{where}: arguments of {name}")}
        calls.append({"id": _text(call_id, where), "type": "function", "function": inner})
    return tuple(calls)


def _group(fields: dict[str, Any]) -> str:
    group = fields.get("group")
    group = fields.get("session") if group is None else group
    if group is None:
        return ""
    if isinstance(group, bool) or not isinstance(group, str | int):
        raise UnusableRow(f"group is {_shown(group)}, not text or a number")
    return _text(str(group), "group")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UnusableRow(f"{where} is {_shown(value)}, not text")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise UnusableRow(f"{where} holds half a character (a lone surrogate)") from None
    return value


def _dumped(value: Any, where: str) -> str:
    """Compact JSON text, keys in the order given: it guides a model. orjson would write NaN as null."""
    try:
        text = orjson.dumps(value).decode()
        if orjson.loads(text) == value:
            return text
        raise UnusableRow(f"{where}: {_shown(value)} is not JSON")
    except (TypeError, ValueError) as error:
        raise UnusableRow(f"{where}: {error}") from None


def _names(fields: dict[str, Any]) -> str:
    return one_line(", ".join(sorted(fields)) or "none")


def _shown(value: Any) -> str:
    return ascii(value)[:80]
