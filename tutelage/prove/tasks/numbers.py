"""Numbers as people and models write them, read exactly, and the task that compares them.

Read: signs (also U+2212), thousands separated by `,` `'` `_` or thin and no-break spaces (also `{,}` and `\\,` of LaTeX),
decimals, exponents (`1e3`, `1.5 × 10^3`), powers (`10^6`), fractions (`3/4`, `1 3/4`, `½`, `2\\frac{1}{2}`), currency signs and
percent. Not read: decimal commas, blanks between thousands (refused as gold), number words, dates, more than 400 digits.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field

from tutelage.config import Table
from tutelage.prove.tasks.base import Answer, Score, unreadable

MAX_DIGITS = 400
MAX_EXPONENT = 400
_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_GROUP = r"(?:\{,\}|\\,|[,'_\u00a0\u2009\u202f])"
# Atomic groups and possessive repeats: every character is looked at a bounded number of times, whatever the text.
_WHOLE = rf"(?>[0-9]{{1,3}}(?:{_GROUP}[0-9]{{3}}(?![0-9]))++|[0-9]++)"
_DECIMAL = rf"(?>{_WHOLE}(?:\.[0-9]++)?+|\.[0-9]++)"
_NUMBER = re.compile(
    rf"""(?<![0-9])(?<![0-9][./])
    (?: (?: (?P<mixed>[0-9]++)\ ?+ )? \\[dt]?frac \{{ (?P<over>[-−]?[0-9]++) \}} \{{ (?P<under>[0-9]++) \}}
      | (?P<vulgar>[{_VULGAR}])
      | (?P<core>{_DECIMAL})
        (?: \^ (?: \{{(?P<braced>[-+−]?[0-9]++)\}} | (?P<raised>[-+−]?[0-9]++) ) (?![.,]?[0-9])(?!\ ?/\ ?[0-9])
          | [eE] (?P<e>[-+−]?[0-9]++) (?!\w) | \s?(?:×|\\times|\\cdot|\*|x)\s?10(?:\^|\*\*)\{{?(?P<power>[-+−]?[0-9]++)\}}? )?+
        (?: \ ?(?P<add>[{_VULGAR}])
          | \ (?P<upper>[0-9]++)/(?P<lower>[0-9]++)(?![/.]?[0-9]|/)
          | \ ?/\ ?(?P<below>{_DECIMAL})(?!/[0-9]) )?+
    )
    (?P<percent>\s?(?:\\?%|per\ ?cent\b))?+
    """,
    re.VERBOSE,
)
_CURRENCY = "$€£¥\\"
_BLANKS = re.compile(r"[^0-9]*[0-9]{1,3}(?: [0-9]{3})+(?![0-9])[^0-9]*")


class NumberOptions(Table):
    """Where the number stands and how near it must come.

    The first number after the last `marker` counts; without the marker the last number of the text does, unless
    `marker_required`. A difference of at most max(`tolerance`, `relative_tolerance` · |reference|) is none.
    `percent`: a percent sign is a unit and says nothing, or makes hundredths.
    """

    marker: str = "####"
    marker_required: bool = False
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    relative_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    percent: Literal["unit", "hundredths"] = "unit"


@dataclass(frozen=True, slots=True)
class Number:
    """1 when the numbers agree, else 0."""

    options: NumberOptions
    name: str = "number"
    is_binary: bool = True
    metric: str = "accuracy"

    def require_reference(self, reference: str) -> None:
        if read_number(reference, self.options) is None:
            raise unreadable("number", reference, "has no number", "give every gold as a number, such as 1234.5 or 3/4")
        if _BLANKS.fullmatch(reference.rpartition(self.options.marker)[2] if self.options.marker else reference):
            raise unreadable("number", reference, "is one number or several", "write thousands without blanks: 1000000")

    def score(self, answer: Answer, reference: str) -> Score:
        said, right = read_number(answer.text, self.options), read_number(reference, self.options)
        if said is None:
            return Score(0.0, False, "")
        near = right is not None and is_near(said, right, self.options.tolerance, self.options.relative_tolerance)
        return Score(float(near), True, as_text(said))


def read_number(text: str, options: NumberOptions) -> Fraction | None:
    """The number that counts in a text, exactly; None when there is none, or when it cannot be read: no other number
    stands in for it."""
    is_hundredths = options.percent == "hundredths"
    if options.marker and options.marker in text:
        found = _NUMBER.search(text, text.rindex(options.marker) + len(options.marker))
    elif options.marker_required:
        return None
    else:
        found = None
        for each in _NUMBER.finditer(text):
            found = each
    value = None if found is None else _value(found)
    if found is None or value is None:
        return None
    value = -value if _is_negative(text, found.start()) else value
    return value / 100 if is_hundredths and found["percent"] else value


def is_near(said: Fraction, right: Fraction, tolerance: float, relative: float) -> bool:
    """Whether two numbers differ by no more than is allowed; the limits are the decimals that were written, not the
    nearest binary fractions."""
    return said == right or abs(said - right) <= max(Fraction(repr(tolerance)), Fraction(repr(relative)) * abs(right))


def as_text(value: Fraction) -> str:
    """An integer or short decimal as such, anything else as a fraction."""
    if value.denominator == 1:
        return _digits(value.numerator)
    places = next((n for n in range(1, 13) if (value * 10**n).denominator == 1), 0)
    if not places:
        return f"{_digits(value.numerator)}/{_digits(value.denominator)}"
    whole, part = divmod(abs(value.numerator) * 10**places // value.denominator, 10**places)
    return f"{'-' if value < 0 else ''}{_digits(whole)}.{part:0{places}d}"


def _digits(value: int) -> str:
    written = str(value)
    return written if len(written) <= 40 else f"{written[:18]}…{written[-18:]}"


def _is_negative(text: str, start: int) -> bool:
    """Whether a minus stands before the number, and is no hyphen, range or difference."""
    before = text[max(0, start - 4) : start].rstrip(_CURRENCY)
    if not before.endswith(("-", "−")):
        return False
    previous = before[:-1][-1:]
    return not (previous.isalnum() or previous in tuple(")]}%"))


def _value(found: re.Match[str]) -> Fraction | None:
    """None for what is no number after all: too long, or a division by 0."""
    if len(found[0]) > MAX_DIGITS:
        return None
    if found["over"] is not None:
        part = _ratio(_whole(found["over"]), _whole(found["under"]))
        return part if part is None or found["mixed"] is None else _whole(found["mixed"]) + part
    if found["vulgar"] is not None:
        return _vulgar(found["vulgar"])
    value = _decimal(found["core"])
    exponent = _whole(found["e"] or found["power"] or "0")
    if abs(exponent) > MAX_EXPONENT:
        return None
    value *= Fraction(10) ** exponent
    if power := found["braced"] or found["raised"]:
        return _raised(value, _whole(power))
    if found["add"] is not None:
        return value + _vulgar(found["add"])
    if found["upper"] is not None:
        upper, lower = _whole(found["upper"]), _whole(found["lower"])
        part = _ratio(upper, lower)
        # "1 3/4" is a mixed number; in "5 10/2" two numbers stand side by side, and the second one counts.
        return part if part is None or upper >= lower else value + part
    return value if found["below"] is None else _ratio(value, _decimal(found["below"]))


def _raised(value: Fraction, power: int) -> Fraction | None:
    longest = max(len(str(value.numerator)), len(str(value.denominator)))
    if longest * abs(power) > 2 * MAX_DIGITS or (not value and power < 0):
        return None
    return value**power


def _decimal(written: str) -> Fraction:
    return Fraction("0" + re.sub(r"[^0-9.]", "", written))


def _whole(written: str) -> int:
    return int(written.replace("−", "-"))


def _vulgar(character: str) -> Fraction:
    return Fraction(unicodedata.numeric(character)).limit_denominator(10)


def _ratio(above: Fraction | int, below: Fraction | int) -> Fraction | None:
    return Fraction(above) / below if below else None
