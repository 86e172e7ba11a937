"""Extraction: the JSON that an answer holds against the JSON that it should hold, field by field.

A *field* is a path to a leaf, `address.city`; items of a sequence are numbered, `lines[0].price`.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from tutelage.config import Table
from tutelage.prove.tasks.base import Answer, Score, shown, unreadable
from tutelage.prove.tasks.exact import ExactOptions, normalised
from tutelage.prove.tasks.json_values import NoValue, first_json
from tutelage.prove.tasks.numbers import NumberOptions, is_near, read_number

How = Literal["exact", "number", "text", "set", "sequence"]
_NO_VALUE = object()
MAX_PARTS = 64  # fields that are told one by one
LONGEST_PATH = 100  # objects that may change partners so that one more finds one
MAX_PAIRS = 2_500  # of objects in lists that are compared field by field, in one answer
_TEXT = ExactOptions(ignore_case=True, ignore_punctuation=True)
_NUMBER = NumberOptions(marker="")


class JsonOptions(Table):
    """How fields compare: `fields` by path ("lines" or "lines.price"; without item numbers), everything else by its type
    in the reference: numbers as numbers, texts as `texts` says, lists as `lists` says.

    "exact": the same JSON value. "number": as numbers within the tolerances, also from a text that holds one. "text":
    case, blanks and punctuation aside. "set": items in any order. "sequence": item by item. `score`: F1 over fields, or 1
    only when all is right.
    """

    fields: dict[str, How] = Field(default_factory=dict)
    texts: Literal["exact", "text"] = "text"
    lists: Literal["set", "sequence"] = "set"
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    relative_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    score: Literal["f1", "all"] = "f1"


class Counts(NamedTuple):
    """Leaves that agree, that were answered, and that were expected."""

    matched: int
    answered: int
    expected: int

    @property
    def precision(self) -> float:
        return self.matched / self.answered if self.answered else float(not self.expected)

    @property
    def recall(self) -> float:
        return self.matched / self.expected if self.expected else float(not self.answered)

    @property
    def f1(self) -> float:
        """2·matched / (answered + expected); 1 when nothing was to be said and nothing was."""
        both = self.answered + self.expected
        return 2 * self.matched / both if both else 1.0


@dataclass(frozen=True, slots=True)
class JsonFields:
    """F1 over the leaves of one item's JSON. Null, empty lists and empty objects say nothing: they neither count nor miss.

    `parts`: precision, recall, the counts "matched", "answered", "expected" (see `micro`), and "field NAME", the F1 of
    every field of the outermost object of the reference.
    """

    options: JsonOptions
    name: str = "json"

    @property
    def is_binary(self) -> bool:
        return self.options.score == "all"

    @property
    def metric(self) -> str:
        return "exact JSON" if self.is_binary else "field F1"

    def require_reference(self, reference: str) -> None:
        try:
            right = first_json(reference)
        except NoValue as error:
            fix = "give every gold as one JSON value without NaN, repeated keys or deep nesting"
            raise unreadable("json", reference, f"is no JSON: {error}", fix) from None
        counts = compare(right, right, "", self.options, Budget())
        if counts.matched < counts.expected:
            fix = 'compare fields as "number" only where the gold is a number, or a text that holds one'
            raise unreadable("json", reference, "does not even agree with itself: a field has no number", fix)

    def score(self, answer: Answer, reference: str) -> Score:
        right: Any = _NO_VALUE
        with contextlib.suppress(NoValue):
            right = first_json(reference)
        try:
            said = first_json(answer.text, type(right) if isinstance(right, dict | list) else None)
        except NoValue as error:
            return Score(0.0, False, str(error))
        if right is _NO_VALUE:
            return Score(0.0, True, "the reference is no JSON")
        fields = _by_field(said, right, self.options)
        counts = _total(fields.values())
        value = float(counts.matched == counts.answered == counts.expected) if self.is_binary else counts.f1
        parts = {"precision": counts.precision, "recall": counts.recall, **_as_floats(counts)}
        if len(fields) <= MAX_PARTS:
            parts |= {f"field {shown(name)}": part.f1 for name, part in fields.items() if name and name in right}
        return Score(
            value, True, shown(f"{counts.matched} of {counts.expected} fields; {counts.answered} given"), parts
        )


def micro(parts: Iterable[Mapping[str, float]]) -> Counts:
    """The counts of all items together: their precision, recall and F1 are the micro-averaged ones."""
    each = [Counts(round(one["matched"]), round(one["answered"]), round(one["expected"])) for one in parts]
    return _total(each)


def _as_floats(counts: Counts) -> dict[str, float]:
    return {name: float(value) for name, value in counts._asdict().items()}


def _total(counts: Iterable[Counts]) -> Counts:
    each = list(counts)
    return Counts(*(sum(one[at] for one in each) for at in range(3)))


def _by_field(said: Any, right: Any, options: JsonOptions) -> dict[str, Counts]:
    """Counts by field of the outermost object; under "" when the reference is none."""
    budget = Budget()
    if not isinstance(right, dict):
        return {"": compare(said, right, "", options, budget)}
    said = said if isinstance(said, dict) else {"": said}
    return {name: compare(said.get(name), right.get(name), name, options, budget) for name in {**right, **said}}


class Budget:
    """How many pairs of objects in lists may still be compared field by field in one answer."""

    def __init__(self) -> None:
        self.left = MAX_PAIRS

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


def compare(said: Any, right: Any, path: str, options: JsonOptions, budget: Budget) -> Counts:
    """Counts of the leaves of two JSON values; `path` has no item numbers."""
    how = options.fields.get(path)
    if how is None:
        if isinstance(right, dict) or (right is None and isinstance(said, dict)):
            mine, theirs = (value if isinstance(value, dict) else {} for value in (said, right))
            counts = [
                compare(mine.get(key), theirs.get(key), f"{path}.{key}" if path else key, options, budget)
                for key in {**theirs, **mine}
            ]
            odd = 0 if isinstance(said, dict) else leaves(said)
            return _total([*counts, Counts(0, odd, 0)])
        how = _how(right if right is not None else said, options)
    if how in ("set", "sequence"):
        return _lists(_as_list(said), _as_list(right), how, path, options, budget)
    if isinstance(right, dict | list) or isinstance(said, dict | list):
        same = leaves(right) if _key(said) == _key(right) else 0
        return Counts(same, leaves(said), leaves(right))
    same = said is not None and right is not None and _is_same(said, right, how, options)
    return Counts(int(same), leaves(said), leaves(right))


def _how(value: Any, options: JsonOptions) -> How:
    if isinstance(value, list):
        return options.lists
    if isinstance(value, Fraction):
        return "number"
    return options.texts if isinstance(value, str) else "exact"


def _lists(said: list[Any], right: list[Any], how: How, path: str, options: JsonOptions, budget: Budget) -> Counts:
    inner = options.model_copy(update={"fields": {key: one for key, one in options.fields.items() if key != path}})
    if how == "sequence":
        size = max(len(said), len(right))
        said, right = said + [None] * (size - len(said)), right + [None] * (size - len(right))
        return _total(compare(one, other, path, inner, budget) for one, other in zip(said, right, strict=True))
    twins, rest, wanted = _twins(said, right, options)
    matched = twins + _near_numbers(_of(Fraction, rest), _of(Fraction, wanted), options)
    matched += _agreeing(_of(dict, rest), _of(dict, wanted), path, inner, budget)
    return Counts(matched, leaves(said), leaves(right))


def _of(kind: type, items: list[Any]) -> list[Any]:
    return [item for item in items if isinstance(item, kind)]


def _twins(said: list[Any], right: list[Any], options: JsonOptions) -> tuple[int, list[Any], list[Any]]:
    """Leaves of items that both lists have, and what is left of either. Numbers are left: near ones are as good."""
    keys = [[_key(item, options) for item in items] for items in (said, right)]
    ours, theirs = (
        Counter(key for key, item in zip(some, items, strict=True) if not isinstance(item, Fraction))
        for some, items in zip(keys, (said, right), strict=True)
    )
    found = ours & theirs
    rests, matched = [], 0
    for some, items in zip(keys, (said, right), strict=True):
        taken, rest = found.copy(), []
        matched = 0
        for key, item in zip(some, items, strict=True):
            if taken[key] > 0:
                taken[key] -= 1
                matched += leaves(item)
            else:
                rest.append(item)
        rests.append(rest)
    return matched, *rests


def _near_numbers(said: list[Fraction], right: list[Fraction], options: JsonOptions) -> int:
    """Numbers within the tolerance are paired in order of size, which pairs as many as can be."""
    matched, at, wanted = 0, 0, sorted(right)
    for number in sorted(said):
        while at < len(wanted) and wanted[at] < number and not _near(number, wanted[at], options):
            at += 1
        if at < len(wanted) and _near(number, wanted[at], options):
            matched, at = matched + 1, at + 1
    return matched


def _agreeing(said: list[Any], right: list[Any], path: str, options: JsonOptions, budget: Budget) -> int:
    """Leaves of objects that agree in every field, paired so that as many as can be are (Kuhn's augmenting paths)."""
    mine, theirs = ([(leaves(item), _speaking(item)) for item in items] for items in (said, right))
    agrees: dict[tuple[int, int], bool] = {}
    whose: dict[int, int] = {}  # by place in `right`, the place in `said` that it is paired with

    def is_full(at: int, other: int) -> bool:
        if mine[at] != theirs[other]:
            return False
        if (at, other) not in agrees:
            counts = compare(said[at], right[other], path, options, budget) if budget.take() else Counts(0, 0, 0)
            agrees[at, other] = counts.matched == counts.answered == counts.expected > 0
        return agrees[at, other]

    def is_placed(at: int, seen: set[int]) -> bool:
        for other in range(len(right)):
            if other not in seen and is_full(at, other):
                seen.add(other)
                if other not in whose or (len(seen) < LONGEST_PATH and is_placed(whose[other], seen)):
                    whose[other] = at
                    return True
        return False

    for at in range(len(said)):
        is_placed(at, set())
    return sum(theirs[other][0] for other in whose)


def _speaking(item: Mapping[str, Any]) -> frozenset[str]:
    """The fields that say something."""
    return frozenset(key for key, value in item.items() if leaves(value))


def leaves(value: Any) -> int:
    """How many values a JSON value says; null and what is empty say none."""
    count, level = 0, [value]
    while level:
        count += sum(item is not None and not isinstance(item, dict | list) for item in level)
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return count


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _near(said: Fraction, right: Fraction, options: JsonOptions) -> bool:
    return is_near(said, right, options.tolerance, options.relative_tolerance)


def _is_same(said: Any, right: Any, how: How, options: JsonOptions) -> bool:
    if how == "number":
        one, other = _as_number(said), _as_number(right)
        return one is not None and other is not None and _near(one, other, options)
    if how == "text" and isinstance(said, str) and isinstance(right, str):
        return _text(said) == _text(right)
    return _key(said) == _key(right)


def _as_number(value: Any) -> Fraction | None:
    if isinstance(value, str):
        return read_number(value, _NUMBER)
    return value if isinstance(value, Fraction) else None


def _text(value: str) -> str:
    """Normalised, or as it stands where only punctuation would be left out."""
    return normalised(value, _TEXT) or value.strip()


def _key(value: Any, options: JsonOptions | None = None) -> Any:
    """Equal for equal JSON values, and for none else: 1 is not true, and an object has no order. With options, texts are
    normalised as they say, and fields of objects that say nothing are left out."""
    if isinstance(value, dict):
        said = value.items() if options is None else ((key, inner) for key, inner in value.items() if leaves(inner))
        return ("object", frozenset((key, _key(inner, options)) for key, inner in said))
    if isinstance(value, list):
        return ("list", tuple(_key(inner, options) for inner in value))
    if isinstance(value, str) and options is not None and options.texts == "text":
        value = _text(value)
    return (type(value).__name__, value)
