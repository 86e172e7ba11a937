"""JSON Schema: whether an answer satisfies one, whether anything can, and whether a tool call fits its tool.

Validation and the proof that nothing satisfies a schema are those of jsonschema-rs (JSON Schema drafts 4 to 2020-12). It
fetches nothing here, and what would overrun its stack is refused before it is asked.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tutelage.errors import DataError

if TYPE_CHECKING:
    from jsonschema_rs import Validator

FIX = "mend the schema: see the JSON Schema reference (draft 2020-12)"
TOOL_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
MAX_LINE = 200  # characters in a problem
MAX_DEPTH = 100  # of nesting in a schema
MAX_SPREAD = 1000  # definitions referred to, times how deep they nest: about half of what overruns the stack
# The proof recurses without end on some schemas with these, and on those that `_loops` finds.
_UNPROVABLE = {"unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor"}
_IN_PLACE = ("not", "if", "then", "else")  # keywords whose schema looks at the same value
_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")


class Schema(NamedTuple):
    """A schema ready to check answers. Made by `compile_schema`."""

    text: str
    validator: "Validator"

    def problem(self, answer: str) -> str:
        """What keeps an answer from being JSON that satisfies the schema, in one line of at most 200 characters; '' when
        nothing does. Nothing is stripped: a code fence around the JSON is a problem."""
        try:
            value = orjson.loads(answer)
        except ValueError as error:
            return one_line(f"not JSON: {error}: {answer[:60]!a}")
        return self.problem_of_value(value)

    def problem_of_value(self, value: Any) -> str:
        """The same for a value that was read already."""
        try:
            if self.validator.is_valid(value):
                return ""
            first = next(self.validator.iter_errors(value))
        except ValueError as error:  # nested deeper than any answer is
            return one_line(f"cannot be checked: {error}")
        where = "".join(f"/{part}" for part in first.instance_path)
        return one_line(f"at {where}: {first.message}" if where else first.message)


@functools.lru_cache(maxsize=256)
def compile_schema(text: str) -> Schema:
    """A schema from its JSON text. Raises `DataError` when it is not JSON, no JSON Schema, refers to anything outside
    itself, or when nothing can satisfy it."""
    import jsonschema_rs

    value = _loaded(text)
    try:
        validator = jsonschema_rs.validator_for(value, offline=True)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        message = getattr(error, "message", str(error))
        if outside := re.match(r"Resource '(.*?)'", message):
            raise _bad(
                f"the schema refers to {outside[1]!a}, outside itself", "put what it refers to under $defs"
            ) from None
        path = "".join(f"/{part}" for part in getattr(error, "instance_path", ()))
        raise _bad(f"no JSON Schema: {f'at {path}: ' if path else ''}{message}") from None
    if reason := unsatisfiable(value):
        raise _bad(f"nothing can satisfy the schema: {reason}", "mend the schema: no answer could ever be right")
    return Schema(text, validator)


def unsatisfiable(schema: dict[str, Any] | bool) -> str:
    """Why nothing satisfies a valid schema; '' when that is not proven. What is proven is certain."""
    import jsonschema_rs
    from jsonschema_rs import canonical

    if not _is_provable(schema):
        return ""
    try:
        if jsonschema_rs.canonicalize(schema, offline=True).satisfiability() != canonical.Satisfiability.NO:
            return ""
        return _reason(canonical.find_unsatisfiable(schema, offline=True))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of the extension is no `Exception`; nothing is proven then
        return ""


def tools_problem(text: str) -> str:
    """What keeps JSON text from being a list of OpenAI function tools with distinct names and parameters that something
    can satisfy; '' when nothing does. Source: OpenAI API reference, `chat/create`, `tools`."""
    try:
        _parameters(text)
    except DataError as error:
        return error.message
    return ""


def tool_arguments_problem(tools: str, tool_calls: Iterable[Mapping[str, Any]]) -> str:
    """What is wrong with the calls that an answer makes: a tool that was not offered, arguments that are no JSON object
    or do not fit the tool's parameters; '' when nothing is. `tool_calls` as in `records.Message`."""
    try:
        parameters = _parameters(tools)
    except DataError as error:
        return error.message
    for call in tool_calls:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        if name not in parameters:
            return one_line(f"calls {name[:60]!a}; the tools are {', '.join(parameters)}")
        try:
            value = orjson.loads(arguments)
        except ValueError as error:
            return one_line(f"arguments of {name} are not JSON: {error}: {arguments[:60]!a}")
        if not isinstance(value, dict):
            return one_line(f"arguments of {name} are no JSON object: {arguments[:60]!a}")
        if problem := parameters[name].problem_of_value(value):
            return one_line(f"arguments of {name}: {problem}")
    return ""


def one_line(text: str) -> str:
    """Text from outside, made safe to print: at most 200 characters on one line; the middle goes first."""
    line = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text[:4000])
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2 - 3]} ... {line[2 - MAX_LINE // 2 :]}"


@functools.lru_cache(maxsize=64)
def _parameters(text: str) -> dict[str, Schema]:
    """What each tool's arguments must satisfy. Raises `DataError`."""
    try:
        tools = orjson.loads(text)
    except ValueError as error:
        raise _bad(f"tools are not JSON: {error}") from None
    if not isinstance(tools, list):
        raise _bad(f"tools are {str(tools)[:60]!a}, not a list")
    found: dict[str, Schema] = {}
    for at, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict):
            raise _bad(
                f'tools[{at}] is no function tool ({{"type": "function", "function": {{...}}}}): {str(tool)[:60]!a}'
            )
        name = function.get("name")
        if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
            raise _bad(f"tools[{at}] has the name {str(name)[:60]!a}: letters, digits, _ and - make a name")
        if name in found:
            raise _bad(f"two tools have the name {name!r}")
        if not isinstance(function.get("description"), str | None):
            raise _bad(f"tools[{at}] ({name}): its description is no text")
        parameters = function.get("parameters")
        try:
            found[name] = compile_schema("{}" if parameters is None else orjson.dumps(parameters).decode())
        except DataError as error:
            raise _bad(f"parameters of tool {name}: {error.message}") from None
    return found


def _loaded(text: str) -> dict[str, Any] | bool:
    try:
        value = orjson.loads(text)
    except ValueError as error:
        raise _bad(f"the schema is not JSON: {error}: {text[:60]!a}") from None
    if not isinstance(value, dict | bool):
        raise _bad(f"the schema is {text[:60]!a}, not an object")
    depth, targets = _extent(value)
    if depth > MAX_DEPTH or depth * targets > MAX_SPREAD:
        raise _bad(
            f"the schema is too involved: {targets} definitions, nested {depth} deep",
            "write it flatter, or with fewer definitions",
        )
    return value


def _bad(message: str, fix: str = FIX) -> DataError:
    return DataError(one_line(message), fix=fix)


def _extent(value: Any) -> tuple[int, int]:  # how deep it nests, and how many targets are referred to
    deepest, targets, level = 0, set(), [value]
    while level and deepest <= MAX_DEPTH:
        deepest += 1
        targets |= {ref for item in level if isinstance(item, dict) and isinstance(ref := item.get("$ref"), str)}
        level = [inner for item in level for inner in _children(item)]
    return deepest, len(targets)


def _children(value: Any) -> Sequence[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict | list)]


def _is_provable(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return True
    nodes, waiting = [], [schema]
    while waiting:
        node = waiting.pop()
        nodes += [node] if isinstance(node, dict) else []
        waiting += _children(node)
    is_plain = all(_UNPROVABLE.isdisjoint(node) and (node is schema or "$id" not in node) for node in nodes)
    return is_plain and not _loops(schema, nodes)


def _loops(root: dict[str, Any], nodes: list[dict[str, Any]]) -> bool:
    """Whether some schema leads back to itself with the same value (JSON Schema 2020-12, core, section 9.4.1), or to where
    this cannot tell."""
    after: dict[int, list[int]] = {}
    for node in nodes:
        targets = list(_in_place(node))
        if "$ref" in node:
            if (target := _target(root, node["$ref"])) is None:
                return True
            targets += [target] if isinstance(target, dict) else []
        after[id(node)] = [id(target) for target in targets]
    before = dict.fromkeys(after, 0)
    for target in (target for targets in after.values() for target in targets):
        before[target] += 1
    free = [node for node, count in before.items() if count == 0]
    for node in free:  # grows while it is walked: what nothing leads to any more is taken away (Kahn's algorithm)
        for target in after[node]:
            before[target] -= 1
            if before[target] == 0:
                free.append(target)
    return len(free) < len(before)


def _in_place(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    inner = [node.get(key) for key in _IN_PLACE]
    inner += [item for key in _IN_PLACE_LISTS if isinstance(node.get(key), list) for item in node[key]]
    for key in ("dependentSchemas", "dependencies"):
        inner += node[key].values() if isinstance(node.get(key), dict) else ()
    return (item for item in inner if isinstance(item, dict))


def _target(root: dict[str, Any], ref: Any) -> dict[str, Any] | bool | None:
    """The schema that a local JSON Pointer (RFC 6901, as a URI fragment) names; None when it names none."""
    if not isinstance(ref, str) or not ref.startswith("#") or "%" in ref:
        return None
    found: Any = root
    for part in ref[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict) and key in found:
            found = found[key]
        else:
            return None
    return found if isinstance(found, dict | bool) else None


def _reason(found: Mapping[str, Any]) -> str:
    """In words: what contradicts at the top, and the deepest place where nothing fits."""
    if not found:
        return "every value would have to hold another one of its kind, without end"
    words = {pointer: _words(reason, pointer) for pointer, reason in found.items()}
    deepest = max((pointer for pointer in words if pointer and words[pointer]), key=len, default="")
    below = f"; nothing fits {deepest} ({words[deepest]})" if deepest else ""
    return one_line(f"{words.get('') or 'it is false'}{below}")


def _words(reason: Any, pointer: str) -> str:
    """The keywords that contradict each other, with the way to those that stand deeper than the pointer."""
    causes = [reason.cause] if hasattr(reason, "cause") else getattr(reason, "causes", [])
    return ", ".join(
        f"{cause.pointer.removeprefix(pointer)} {key}".strip() for cause in causes for key in cause.keywords or [""]
    )
