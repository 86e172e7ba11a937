"""Answers in mathematics: the formula that an answer ends in, compared by value.

Covered: numbers, fractions, roots, powers, factorials, logarithms, letters, ±, points, intervals, lists and sets, unions, `x = …`
and units (which are dropped: 5 cm is 5). Anything else – matrices, equations, inequalities, words – is compared as text without
blanks, case and sizes. Not seen: identities of trigonometry, i² = −1, sets given by a condition.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tutelage.config import Table
from tutelage.prove.tasks.base import Answer, Score, shown, unreadable
from tutelage.prove.tasks.maths_value import Formula, NoFormula, formula_of
from tutelage.prove.tasks.numbers import NumberOptions, as_text, read_number

MAX_FORMULA = 500  # characters
MAX_ITEMS = 50
_SAID = re.compile(r"(?:answer|result)\s*(?:is|=|:)[\s*:`]*([^\n]{1,500})", re.IGNORECASE)
_DISPLAYED = re.compile(
    r"\$\$([^$]{1,500})\$\$|\$([^$\n]{1,500})\$|\\\(((?:[^\n\\]|\\[^()\n]){1,500}?)\\\)"
    r"|\\\[((?:[^\\]|\\[^\[\]]){1,500}?)\\\]"
)
_SPACE = re.compile(r"(?<!\\)\\[,;:!> ]|\\q?quad(?![A-Za-z])|~")
_SIZE = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![A-Za-z])\.?")
_UNIT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mbox|rm|operatorname)\s*\{([^{}]*)\}(\s*\^\s*(?:\{\s*-?[0-9]\s*\}|-?[0-9]))?"
)
# A plain number and one word behind it that is counted or measured in: a unit, or a plural that is no number itself.
_COUNTED = re.compile(
    r"([-+]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:/[0-9]+)?|\([0-9]+\+[0-9]+/[0-9]+\))"
    r"(?:\s*(?:cm|mm|km|kg|mg|ml|ft|in|yd|mi|oz|lbs?|hrs?|mph|kph|rpm|secs?|mins?)\b"
    r"|\s+(?:inch(?:es)?|foot|feet|yard|mile|(?:kilo|centi|milli)?met(?:er|re)|(?:kilo|milli)?gram|pound|ounce|ton|second|minute"
    r"|hour|day|week|months?|year|dollar|cent|euro|degree|radian|(?:milli)?lit(?:er|re)|gallon|cup|units?|points?|people|person"
    r"|(?!\w*ths\b|(?:hal|quarter|third|half|hundred|thousand|million|billion|trillion|dozen|score|pair|plu|minu|time|square|cube"
    r"|factorial|root|percent)\w*\b)[a-z]{3,}s)\b)"
    r"(?:\s*\^\s*\{?[0-9]\}?)?(?:\s*/\s*[a-z]{1,12}(?:\s*\^\s*\{?[0-9]\}?)?)?",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\s*[A-Za-z]\w?(?:_\{?\w+\}?)?\s*(?:\(\s*[A-Za-z]\s*\))?\s*(?:=|\\in(?![A-Za-z])|∈)(?![=])")
_THOUSANDS = re.compile(r"(?<![0-9.,])([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9,])")
_REPLACED = (
    ("−", "-"), ("–", "-"), ("²", "^2"), ("³", "^3"), (r"\dfrac", r"\frac"), (r"\tfrac", r"\frac"), (r"\cfrac", r"\frac"),
    (r"\lbrace", r"\{"), (r"\rbrace", r"\}"), (r"\lvert", "|"), (r"\rvert", "|"), (r"\$", ""), ("$", ""), (r"\%", ""),
    ("%", ""), (r"^{\circ}", ""), (r"^\circ", ""), (r"\degree", ""), ("°", ""), ("±", r"\pm "), ("∪", r"\cup "),
    ("∞", r"\infty "),
)  # fmt: skip
_LAST_NUMBER = NumberOptions(marker="")


class MathsOptions(Table):
    """None so far."""


class Parsed(NamedTuple):
    """An answer in mathematics. `shape` is "" for one formula, else the brackets of what holds the items ("(]", "{}"),
    "list" or "union"; `formula` is None for what is compared as `text`."""

    shape: str
    items: tuple["Parsed", ...]
    formula: Formula | None
    text: str


@dataclass(frozen=True, slots=True)
class Maths:
    """1 when the formulas have the same value, else 0."""

    options: MathsOptions
    name: str = "maths"
    is_binary: bool = True
    metric: str = "accuracy"

    def require_reference(self, reference: str) -> None:
        found = extracted(reference)
        if not found:
            raise unreadable(
                "maths", reference, "has no formula, or one of more than 500 characters", "give every gold as a formula"
            )

    def score(self, answer: Answer, reference: str) -> Score:
        said, right = extracted(answer.text), extracted(reference)
        if not said:
            return Score(0.0, False, "")
        return Score(float(bool(right) and same(parse(said), parse(right))), True, shown(said))


def extracted(text: str) -> str:
    r"""The part of an answer that is its result: the last `\boxed{…}`; else what follows the last "####"; else the last
    "answer is …"; else the last formula between dollars; else the only line, and of several lines or a sentence the last
    number in it. Empty when there is none, or when it is longer than 500 characters."""
    found = _boxed(text)
    if found is None and "####" in text:
        found = text.rpartition("####")[2]
    if found is None and (said := _last(_SAID, text)):
        found = _from_sentence(said[1])
    if found is None and (formula := _last(_DISPLAYED, text)):
        found = next(group for group in formula.groups() if group is not None)
    if found is None:
        found = _from_sentence(text)
    found = found.strip().rstrip(".").strip()
    return found if len(found) <= MAX_FORMULA and cleaned(found) else ""


def parse(text: str) -> Parsed:
    """The structure of a result: one formula, or several in brackets, in a list, in a union."""
    return _parse(cleaned(text), 3)


def same(one: Parsed, other: Parsed) -> bool:
    """Whether two results are equal: points and intervals in order, sets, lists and unions in any."""
    if one.shape != other.shape or len(one.items) != len(other.items):
        return False
    if not one.shape:
        if one.formula is not None and other.formula is not None:
            return one.formula.equals(other.formula)
        return bool(one.text) and one.text == other.text
    if one.shape not in ("{}", "list", "union"):
        return all(same(first, second) for first, second in zip(one.items, other.items, strict=True))
    left = list(other.items)
    for item in one.items:
        at = next((at for at, twin in enumerate(left) if same(item, twin)), None)
        if at is None:
            return False
        del left[at]
    return True


def cleaned(text: str) -> str:
    """Without what does not change the value: dollars, sizes, spacing commands, units, percent and degree signs."""
    text = re.sub(r"(?<=[0-9])(?:\{,\}|\\,|\\!,|,\\!|\u202f|\u00a0|\u2009)(?=[0-9]{3}(?![0-9]))", "", text)
    text = _SIZE.sub("", _SPACE.sub(" ", text))
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = re.sub(r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}", text)
    units = [found[1].strip() for found in _UNIT.finditer(text)]
    without = _UNIT.sub(_without_unit, text).strip(" ,")
    text = without if re.search(r"[0-9A-Za-z]", without) or not units else " ".join(units)
    text = _NAMED.sub("", text, count=1).strip()
    text = text if text.startswith(("(", "[", r"\{")) else _THOUSANDS.sub(lambda found: found[1].replace(",", ""), text)
    text = re.sub(r"(?<![0-9.])([0-9]{1,9})\s+([0-9]{1,9})/([0-9]{1,9})(?![0-9])", r"(\1+\2/\3)", text).rstrip(".,; ")
    counted = _COUNTED.fullmatch(text)
    return counted[1] if counted else text


def _without_unit(found: re.Match[str]) -> str:
    """Behind a value a unit goes with its exponent: 5 cm² is 5. An exponent that is no unit's stays."""
    is_unit = found.string[: found.start()].rstrip()[-1:] in tuple("0123456789})")
    return "," if found[1].strip() in ("and", "or") else " " if is_unit else f" {found[2] or ''}"


def _parse(text: str, depth: int) -> Parsed:
    text = text.strip()
    plain = re.sub(r"\s+", "", text).casefold()
    if depth:
        for shape, parts in (("union", _split(text, r"\cup")), ("list", _split(text, ","))):
            if 1 < len(parts) <= MAX_ITEMS:
                return Parsed(shape, tuple(_parse(part, depth - 1) for part in parts), None, plain)
        if held := _held(text):
            shape, inside = held
            parts = _split(inside, ",")
            if len(parts) <= MAX_ITEMS and (len(parts) > 1 or shape == "{}"):
                return Parsed(shape, tuple(_parse(part, depth - 1) for part in parts), None, plain)
        if text.count(r"\pm") == 1:
            both = tuple(_parse(text.replace(r"\pm", sign), depth - 1) for sign in "+-")
            return Parsed("list", both, None, plain)
    try:
        return Parsed("", (), formula_of(text), plain)
    except NoFormula:
        return Parsed("", (), None, plain)


def _held(text: str) -> tuple[str, str] | None:
    """The brackets around all of a text, and what they hold."""
    opened, start = (r"\{", 2) if text.startswith(r"\{") else (text[:1], 1)
    closed, end = (r"\}", 2) if text.endswith(r"\}") else (text[-1:], 1)
    kinds = {(r"\{", r"\}"): "{}", ("(", ")"): "()", ("[", "]"): "[]", ("(", "]"): "(]", ("[", ")"): "[)"}
    shape = kinds.get((opened, closed))
    return (shape, text[start:-end]) if shape and len(text) >= start + end else None


def _split(text: str, mark: str) -> list[str]:
    """Parts between marks that stand in no bracket."""
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        if text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            depth -= 1
        elif not depth and text.startswith(mark, at):
            parts.append(text[start:at])
            at += len(mark) - 1
            start = at + 1
        at += 1
    return [*parts, text[start:]]


def _boxed(text: str) -> str | None:
    start = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    if start < 0:
        return None
    at = text.find("{", start, start + 10)
    if at < 0:
        return text[start:].removeprefix(r"\boxed").removeprefix(r"\fbox").split("\n")[0].split("$")[0][:MAX_FORMULA]
    depth = 0
    for end in range(at, min(len(text), at + MAX_FORMULA + 2)):
        depth += (text[end] == "{") - (text[end] == "}")
        if not depth:
            return text[at + 1 : end]
    return ""  # never closed: cut off by a token limit, most often


def _from_sentence(text: str) -> str:
    """A text that is a formula or a word, as it is; else its last formula between dollars, or last number."""
    text = re.sub(r"^(?:thus|therefore|hence|then|indeed|simply|just|now|exactly|about|approximately)\b[\s,:]*", "",
                  text.strip().lstrip("*` ").rstrip(".*` "), flags=re.IGNORECASE)  # fmt: skip
    if formula := _last(_DISPLAYED, text):
        return next(group for group in formula.groups() if group is not None)
    is_sentence = "\n" in text or len(re.findall(r"(?<![\\A-Za-z{])[A-Za-z]{2,}(?![A-Za-z}])", text)) > 1
    if not is_sentence:
        return text
    number = read_number(text, _LAST_NUMBER)
    return "" if number is None and len(text) > MAX_FORMULA else text if number is None else as_text(number)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found: Sequence[re.Match[str]] = list(pattern.finditer(text[-100_000:]))[-1:]
    return found[0] if found else None
