"""The value of a formula in LaTeX or plain text, without sympy and without `eval`.

A formula is parsed character by character and evaluated as it is read, at a few fixed points for its letters: exactly
(`Fraction`) as long as it is rational, else with 60 digits. Two formulas are equal when they agree at every point, which a
pair that differs does with negligible chance (Schwartz, "Fast probabilistic algorithms for verification of polynomial
identities", 1980).

Letters stand for positive numbers, √(x²) is x, and `i` is a letter like the others. Functions whose values are not computed
(sine …) are arbitrary but fixed functions of their argument: sin 2x equals sin(x + x), and no identity between them is seen.
"""

import decimal
import hashlib
import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

POINTS = 3
MAX_DEPTH = 40
MAX_BITS = 20_000  # of an exact number; beyond it 60 digits do
_CONTEXT = decimal.Context(prec=60, Emax=10_000, Emin=-10_000)
_NEAR = Decimal("1e-40")
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+")
_NAME = re.compile(r"\\([A-Za-z]+)|([A-Za-z]+)|([α-ωΑ-Ω∞])")
_AT_0 = {"cos": 1, "sec": 1, "cosh": 1} | dict.fromkeys(("sin", "tan", "arcsin", "arctan", "sinh", "tanh"), 0)
_OPAQUE = {"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"}
_FUNCTIONS = _OPAQUE | {"ln", "log", "exp", "sqrt"}
_LETTERS = frozenset(re.findall(r"\w+", """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon
    phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega infty ell hbar"""))  # fmt: skip
_TIMES = re.compile(r"\\cdot(?![A-Za-z])|\\times(?![A-Za-z])|\*(?!\*)|·|×|⋅")
_OVER = re.compile(r"\\div(?![A-Za-z])|/|÷")
_POWER = re.compile(r"\^|\*\*")
_END = ")]},|+-=<>"

Value = Fraction | Decimal


class NoFormula(ValueError):
    """A text is no formula that is understood here, or has no value."""


class Formula(NamedTuple):
    """A formula's values at the fixed points."""

    values: tuple[Value, ...]

    def equals(self, other: "Formula") -> bool:
        return all(_equal(one, two) for one, two in zip(self.values, other.values, strict=True))


def formula_of(text: str) -> Formula:
    """Reads a formula whose spacing, sizes and units are gone. Raises `NoFormula`."""
    try:
        with decimal.localcontext(_CONTEXT):
            return Formula(tuple(_Reader(text, point).whole() for point in range(POINTS)))
    except (ArithmeticError, ValueError, RecursionError) as error:
        raise NoFormula(str(error)[:100]) from None


class _Reader:
    """Recursive descent over one text; every method leaves `at` behind what it read."""

    def __init__(self, text: str, point: int) -> None:
        self.text, self.point, self.at, self.depth = text, point, 0, 0

    def whole(self) -> Value:
        value = self._sum()
        self._blanks()
        if self.at < len(self.text):
            raise NoFormula(f"{self.text[self.at : self.at + 10]!r} is not understood")
        return value

    def _blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self._blanks()
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def _takes(self, literal: str) -> bool:
        self._blanks()
        is_there = self.text.startswith(literal, self.at)
        self.at += len(literal) if is_there else 0
        return is_there

    def _sum(self) -> Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NoFormula("nested too deeply")
        value = self._product()
        while True:
            if self._takes("+"):
                value = _both(value, self._product(), lambda one, two: one + two)
            elif self._takes("-"):
                value = _both(value, self._product(), lambda one, two: one - two)
            else:
                self.depth -= 1
                return value

    def _product(self) -> Value:
        if self._takes("-"):
            return -self._product()
        if self._takes("+"):
            return self._product()
        value = self._power()
        while True:
            if self._take(_TIMES):
                value = _times(value, self._signed())
            elif self._take(_OVER):
                value = _over(value, self._signed())
            else:
                self._blanks()
                if self.at >= len(self.text) or self.text[self.at] in _END or self.text.startswith(r"\}", self.at):
                    return value
                value = _times(value, self._power())

    def _signed(self) -> Value:
        if self._takes("-"):
            return -self._power()
        return self._power()

    def _power(self) -> Value:
        value = self._atom()
        while self._takes("!"):
            value = _factorial(value)
        if self._take(_POWER):
            return _raised(value, self._exponent())
        return value

    def _exponent(self) -> Value:
        if self._takes("-"):
            return -self._exponent()
        if self._takes("{"):
            return self._until("}")
        return self._power()

    def _until(self, end: str) -> Value:
        value = self._sum()
        if not self._takes(end):
            raise NoFormula(f"{end!r} is missing")
        return value

    def _argument(self) -> Value:
        """Of a command: a group, or a single digit, letter or command."""
        if self._takes("{"):
            return self._until("}")
        self._blanks()
        if self.at < len(self.text) and self.text[self.at].isdigit():
            self.at += 1
            return Fraction(self.text[self.at - 1])
        return self._atom()

    def _atom(self) -> Value:
        self._blanks()
        if found := self._take(_NUMBER):
            return self._mixed(Fraction(found[0])) if len(found[0]) < 1000 else self._refuse("a number is too long")
        for opened, closed in (("(", ")"), ("{", "}"), ("[", "]")):
            if self._takes(opened):
                return self._until(closed)
        if self._takes("|"):
            return abs(self._until("|"))
        if self._takes("√"):
            return _root(self._argument(), Fraction(2))
        found = self._take(_NAME)
        if found is None:
            return self._refuse(f"{self.text[self.at : self.at + 10]!r} is not understood")
        return self._named(found)

    def _mixed(self, whole: Value) -> Value:
        """A number right before a fraction of numbers is a mixed number."""
        start = self.at
        if isinstance(whole, Fraction) and whole.denominator == 1 and self._takes(r"\frac"):
            if found := self._take(re.compile(r"\{\s*([0-9]{1,9})\s*\}\s*\{\s*([1-9][0-9]{0,8})\s*\}")):
                return whole + Fraction(int(found[1]), int(found[2]))
            self.at = start
        return whole

    def _named(self, found: re.Match[str]) -> Value:
        command, word, sign = found.groups()
        name = command or sign or word
        if word and word not in _FUNCTIONS and word != "pi":
            if len(word) > 2:
                return self._refuse(f"{word[:20]!r} is a word")
            self.at = found.start() + 1  # one letter at a time
            name = word[0]
        if name in ("pi", "π"):
            return _PI
        if name == "e" and not command:
            return Decimal(1).exp()
        if name == "frac":
            return _over(self._argument(), self._argument())
        if name == "binom":
            return _choose(self._argument(), self._argument())
        if name == "sqrt":
            degree = self._until("]") if self._takes("[") else Fraction(2)
            return _root(self._argument(), degree)
        if name in _FUNCTIONS:
            return self._function(name)
        if command and command not in _LETTERS:
            return self._refuse(rf"\{command[:20]} is not understood")
        mark = self._subscript()
        return _letter(f"{name}{mark}", self.point)

    def _subscript(self) -> str:
        if found := self._take(re.compile(r"_(?:\{([A-Za-z0-9]{1,10})\}|([A-Za-z0-9]))")):
            return "_" + (found[1] or found[2])
        return ""

    def _function(self, name: str) -> Value:
        base = self._argument() if name == "log" and self._takes("_") else Fraction(10)
        power = self._exponent() if self._take(_POWER) else Fraction(1)
        argument = self._power() if self._takes_group() else self._plain_argument()
        return _raised(_applied(name, argument, base), power)

    def _takes_group(self) -> bool:
        self._blanks()
        return self.text[self.at : self.at + 1] in ("(", "{", "[")

    def _plain_argument(self) -> Value:
        """Without parentheses: a number and the letters right behind it, as in sin 2x."""
        value = self._power()
        while self.at < len(self.text) and (self.text[self.at].isalpha() or self.text[self.at] == "\\"):
            value = _times(value, self._power())
        return value

    def _refuse(self, why: str) -> Value:
        raise NoFormula(why)


def _letter(name: str, point: int) -> Fraction:
    """A fixed number between 1 and 3 for a letter at a point."""
    drawn = int.from_bytes(hashlib.sha256(f"{point}:{name}".encode()).digest()[:3], "big")
    return 1 + Fraction(2 * drawn + 1, 1 << 24)


def _applied(name: str, argument: Value, base: Value) -> Value:
    if name == "exp":
        return _decimal(argument).exp()
    if name == "ln":
        return _decimal(argument).ln()
    if name == "log":
        return _decimal(argument).ln() / _decimal(base).ln()
    if argument == 0 and name in _AT_0:
        return Fraction(_AT_0[name])
    rounded = f"{name}:{_decimal(argument):.30e}"
    return _letter(rounded, 0)


def _both(one: Value, two: Value, step: Callable[..., Value]) -> Value:
    if isinstance(one, Fraction) and isinstance(two, Fraction):
        exact = step(one, two)
        return _bounded(exact) if isinstance(exact, Fraction) else exact
    return step(_decimal(one), _decimal(two))


def _times(one: Value, two: Value) -> Value:
    return _both(one, two, lambda first, second: first * second)


def _over(one: Value, two: Value) -> Value:
    return _both(one, two, lambda first, second: first / second)


def _bounded(value: Fraction) -> Value:
    bits = value.numerator.bit_length() + value.denominator.bit_length()
    return value if bits <= MAX_BITS else _decimal(value)


def _decimal(value: Value) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(value.numerator) / Decimal(value.denominator)


def _raised(base: Value, power: Value) -> Value:
    if isinstance(power, Fraction) and power.denominator == 1:
        if not base and power <= 0:
            raise NoFormula("0 to the power of 0 or less")
        bits = base.numerator.bit_length() + base.denominator.bit_length() if isinstance(base, Fraction) else MAX_BITS
        if isinstance(base, Fraction) and bits * abs(power) <= MAX_BITS:
            return base ** int(power)
        return _decimal(base) ** int(power) if abs(power) < 10**9 else _refused()
    if isinstance(power, Fraction) and power.denominator < 1000:
        return _raised(_root(base, Fraction(power.denominator)), Fraction(power.numerator))
    return _decimal(base) ** _decimal(power)


def _root(value: Value, degree: Value) -> Value:
    if not isinstance(degree, Fraction) or degree.denominator != 1 or not 1 <= degree < 1000:
        return _refused()
    if value < 0:
        return -_root(-value, degree) if degree % 2 else _refused()
    if not value:
        return Fraction(0)
    found = _decimal(value).sqrt() if degree == 2 else _decimal(value) ** (1 / Decimal(int(degree)))
    if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() < 180:
        near = Fraction(found).limit_denominator(10**15)
        if near ** int(degree) == value:
            return near
    return found


def _factorial(value: Value) -> Value:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= 500:
        return _refused()
    return Fraction(math.factorial(int(value)))


def _choose(n: Value, k: Value) -> Value:
    if any(not isinstance(each, Fraction) or each.denominator != 1 or not 0 <= each <= 1000 for each in (n, k)):
        return _refused()
    return Fraction(math.comb(int(n), int(k)))


def _refused() -> Value:
    raise NoFormula("it has no value that is computed here")


def _equal(one: Value, two: Value) -> bool:
    if isinstance(one, Fraction) and isinstance(two, Fraction):
        return one == two
    with decimal.localcontext(_CONTEXT):
        first, second = _decimal(one), _decimal(two)
        return abs(first - second) <= _NEAR * max(Decimal(1), abs(first), abs(second))
