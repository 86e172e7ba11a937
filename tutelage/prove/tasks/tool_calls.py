"""Calls of tools: do name and arguments agree with the calls that were wanted?

Calls come as an answer's `tool_calls`, or in its text as models write them: JSON with a name and `arguments` (or `parameters`)
anywhere, also in `<tool_call>` tags and fences, or Python calls with literal arguments, `[book(city="Oslo", seats=2)]`.
As in the AST check of the Berkeley Function-Calling Leaderboard (Patil et al., 2025) values are compared, not texts.
"""

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from tutelage.config import Table
from tutelage.errors import ConfigError
from tutelage.prove.tasks.base import Answer, Score, shown, unreadable
from tutelage.prove.tasks.exact import ExactOptions, normalised
from tutelage.prove.tasks.json_values import NoValue, first_json, read_json, values_within
from tutelage.schema import tools_problem

_EXACT = Context(prec=1000)  # a number that is read has fewer digits
MAX_PYTHON = 8000  # characters of a text that is tried as Python
_PYTHON = re.compile(r"\s*\[?\s*[A-Za-z_][\w.]*\s*\(")
_MEANT = re.compile(
    r'<(?:tool|function)_call>|"name"\s*+:\s*+"[^"\n]{1,100}"\s*+,\s*+"(?:arguments|parameters)"\s*+:'
    r"|\A(?:```(?:python)?\s*+)?\[?\s*+[A-Za-z_][\w.]{0,100}"
    r"""\((?=["'0-9\[{-]|[^()\n]{0,200}=)[^()\n]{0,2000}\)\s*+\]?\s*+(?:```)?\Z"""
)
_FIX = 'give gold as a JSON list of {"name": …, "arguments": {…}}; [] where no tool is to be called'
_TEXT = ExactOptions(ignore_case=True, ignore_punctuation=True)


class ToolCallOptions(Table):
    """`tools` is the OpenAI list of function tools, as JSON text: with it an argument left out equals its default.
    `order`: the calls must come in the order of the reference. `texts_exact`: else case, blanks and punctuation aside.
    """

    tools: str = ""
    order: bool = False
    texts_exact: bool = True


class Call(NamedTuple):
    """One call: the tool's name and the arguments by name, numbers as exact fractions."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """1 when the calls are those of the reference, none too many, else 0. `parts`: the share of names that agree
    ("names"), and of whole calls ("calls"), each as F1.

    An answer without a call says that no tool is to be called, and is read. Calls whose arguments are no JSON object are not.
    """

    options: ToolCallOptions
    defaults: Mapping[str, Mapping[str, Any]]
    name: str = "tool_calls"
    is_binary: bool = True
    metric: str = "accuracy"

    def require_reference(self, reference: str) -> None:
        try:
            calls = _reference_calls(reference)
        except NoValue as error:
            raise unreadable("tool_calls", reference, f"is no list of calls: {error}", _FIX) from None
        for call in calls:
            if self.defaults and call.name not in self.defaults:
                known = ", ".join(self.defaults)
                raise unreadable("tool_calls", reference, f"calls {shown(call.name)!r}", f"the tools are {known}")

    def reference_of(self, answer: Answer) -> str:
        """The reference that another model's answer is: JSON text of its calls, wherever they stood."""
        try:
            calls = calls_of(answer)
        except NoValue:
            return ""
        return _written([{"name": call.name, "arguments": call.arguments} for call in calls])

    def score(self, answer: Answer, reference: str) -> Score:
        try:
            said = calls_of(answer)
        except NoValue as error:
            return Score(0.0, False, shown(str(error)))
        read = shown("; ".join(call.name for call in said) or "no call")
        try:
            right = _reference_calls(reference)
        except NoValue:
            return Score(0.0, True, read)
        mine, theirs = [self._key(call) for call in said], [self._key(call) for call in right]
        is_same = mine == theirs if self.options.order else Counter(mine) == Counter(theirs)
        names = _f1([call.name for call in said], [call.name for call in right])
        return Score(float(is_same), True, read, {"names": names, "calls": _f1(mine, theirs)})

    def _key(self, call: Call) -> Any:
        filled = {**self.defaults.get(call.name, {}), **call.arguments}
        return call.name, _key(filled, self.options.texts_exact)


def make(options: ToolCallOptions) -> ToolCalls:
    """The task, with the defaults of its tools. Raises `ConfigError` for tools that are none."""
    if not options.tools:
        return ToolCalls(options, {})
    if problem := tools_problem(options.tools):
        raise ConfigError(f"task tool_calls: {problem}", fix="give tools as the JSON text of an OpenAI list of tools")
    defaults = {}
    try:
        tools = read_json(options.tools)
    except NoValue as error:
        raise ConfigError(f"task tool_calls: tools: {error}", fix="mend the JSON of the tools") from None
    for tool in tools:
        parameters = tool["function"].get("parameters")
        properties = parameters.get("properties", {}) if isinstance(parameters, dict) else {}
        defaults[tool["function"]["name"]] = {
            name: one["default"] for name, one in properties.items() if isinstance(one, dict) and "default" in one
        }
    return ToolCalls(options, defaults)


def calls_of(answer: Answer) -> list[Call]:
    """The calls that an answer makes, in order. Raises `NoValue` for a call whose arguments are no JSON object, and for a text
    that is meant as a call and is none: saying nothing may be right, and a broken call never is."""
    if answer.tool_calls:
        try:
            return [_call(item) for item in read_json(json.dumps(answer.tool_calls))]
        except (TypeError, RecursionError) as error:
            raise NoValue(f"the calls are no JSON: {error}") from None
    found = list(_json_calls(answer.text)) or _python_calls(answer.text)
    if not found and _MEANT.search(answer.text.strip()):
        raise NoValue("a call that cannot be read")
    return found


def _reference_calls(reference: str) -> list[Call]:
    value = first_json(reference)
    return [_call(item) for item in (value if isinstance(value, list) else [value])]


def _json_calls(text: str) -> Iterable[Call]:
    for value in values_within(text):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and (isinstance(item.get("function"), dict) or _is_call(item)):
                yield _call(item)


def _is_call(item: Mapping[str, Any]) -> bool:
    return isinstance(item.get("name"), str) and ("arguments" in item or "parameters" in item)


def _call(item: Any) -> Call:
    item = item.get("function", item) if isinstance(item, Mapping) else item
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise NoValue("a call has no name")
    arguments = item.get("arguments", item.get("parameters"))
    if isinstance(arguments, str):
        arguments = read_json(arguments) if arguments.strip() else {}
    if arguments is not None and not isinstance(arguments, Mapping):
        raise NoValue(f"the arguments of {shown(item['name'])} are no object")
    return Call(item["name"], arguments or {})


def _python_calls(text: str) -> list[Call]:
    """Calls with literal keyword arguments, alone or as a list; [] for any other text. Parsed, never run."""
    text = text.strip().removeprefix("```python").removeprefix("```").removesuffix("```").strip()
    if len(text) > MAX_PYTHON or not _PYTHON.match(text):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a model's text is nobody's concern
            body = ast.parse(text, mode="eval").body
        nodes = body.elts if isinstance(body, ast.List) else [body]
        return [_python_call(node) for node in nodes]
    except (SyntaxError, ValueError, MemoryError, RecursionError, TypeError):
        return []


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or any(word.arg is None for word in node.keywords):
        raise ValueError("no call with named arguments alone")
    arguments = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
    return Call(ast.unparse(node.func), read_json(json.dumps(arguments, allow_nan=False)))


def _key(value: Any, is_exact: bool) -> Any:
    """Equal for equal values: 2 is 2.0 and not true, objects have no order, lists have one."""
    if isinstance(value, Mapping):
        return "object", frozenset((name, _key(inner, is_exact)) for name, inner in value.items())
    if isinstance(value, list | tuple):
        return "list", tuple(_key(inner, is_exact) for inner in value)
    if isinstance(value, str):
        return "text", value if is_exact else normalised(value, _TEXT) or value.strip()
    if isinstance(value, bool) or value is None:
        return "literal", value
    return "number", Fraction(value)


def _written(value: Any) -> str:
    """JSON text of a value that `read_json` gave, every number exact: they were decimals, so that the division ends."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)}: {_written(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, Fraction):
        return str(_EXACT.divide(Decimal(value.numerator), Decimal(value.denominator)))
    return json.dumps(value)


def _f1(said: list[Any], right: list[Any]) -> float:
    both = len(said) + len(right)
    return 2 * (Counter(said) & Counter(right)).total() / both if both else 1.0
