"""What must never be written: exact secrets of the environment, and what looks like an address, a key or a number of
a person.

`Secrets` knows values and runs over bytes; `Patterns` knows shapes and runs over text that was parsed, so that JSON
stays JSON. Both put `[redacted:NAME]` in the place of what they find.
"""

import base64
import json
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from string import ascii_uppercase
from typing import Any, NamedTuple, Self
from urllib.parse import quote, quote_plus

from tutelage.errors import ConfigError

MIN_SECRET = 8  # a shorter value cannot be told from ordinary words
_MIN_GUESSED = 16
_SECRET_NAME = re.compile(r"(?:^|_)(?:(?:API|ACCESS|PG)?(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?)(?:_|$)")
_PLAIN_VALUE = re.compile(r"(?:~|\.{1,2})?/[^+=]*/[^+=]*|[A-Za-z]:\\.*|[A-Za-z][A-Za-z0-9+.-]*://.*|[+-]?[\d.,_]+")
_MARK = "[redacted:%s]"
_SHORT, _REMEMBERED = 40, 4096
_MANY = 50  # passes over one text, after which whatever is left is taken out whole


class Secrets:
    """Exact values that must never be written, by name. Values shorter than `MIN_SECRET` are left alone."""

    def __init__(self, values: Mapping[str, str]) -> None:
        forms: dict[bytes, bytes] = {}
        for name, value in values.items():
            mark = (_MARK % re.sub(r"[^A-Za-z0-9_.-]", "_", name)).encode()
            if len(value.strip()) >= MIN_SECRET:
                for form in _forms(value.strip()):
                    forms.setdefault(form, mark)
        self._forms = tuple(sorted(forms, key=len, reverse=True))  # the longest first: one may hold another
        self._marks = forms
        self._any = re.compile(b"|".join(map(re.escape, self._forms)))

    @classmethod
    def of_environment(cls, named: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> Self:
        """The named variables, and every other whose name says that it is a secret and whose value looks like one: at
        least 16 characters, and no path, URL or number."""
        environment = os.environ if environment is None else environment
        wanted = set(named)
        return cls({name: value for name, value in environment.items() if name in wanted or _looks_secret(name, value)})

    def scrub(self, data: bytes) -> bytes:
        """The data with each value, as it is or escaped for JSON, percent-encoded or in base64, replaced by
        `[redacted:NAME]`; the same object when there is none."""
        for form in self._forms:  # faster than one regular expression: each is a search for a fixed string
            if form in data:
                return self._any.sub(lambda found: self._marks[found[0]], data)
        return data

    def scrub_text(self, text: str) -> str:
        """`scrub` of a text."""
        data = text.encode("utf-8", "surrogatepass")
        clean = self.scrub(data)
        return text if clean is data else clean.decode("utf-8", "surrogatepass")


def _looks_secret(name: str, value: str) -> bool:
    value = value.strip()
    return (
        len(value) >= _MIN_GUESSED
        and _SECRET_NAME.search(name.upper()) is not None
        and not _PLAIN_VALUE.fullmatch(value)
    )


def _forms(value: str) -> set[bytes]:
    """How a value may be spelled in a body. Base64 of it inside something longer looks one of three ways, by how many
    bytes come before; only the characters that depend on nothing but the value are looked for."""
    escaped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    escaped |= {text.replace("/", "\\/") for text in escaped}
    twice = {json.dumps(text)[1:-1] for text in escaped}  # the arguments of a tool call are JSON inside JSON
    every = "".join(f"%{byte:02X}" for byte in value.encode("utf-8", "surrogatepass"))
    percent = {quote(value), quote(value, safe=""), quote_plus(value), every}
    percent |= {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), text) for text in percent}
    raw = value.encode("utf-8", "surrogatepass")
    forms = {text.encode("utf-8", "surrogatepass") for text in (value, *escaped, *twice, *percent)}
    for before, unsure in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(bytes(before) + raw)[unsure : (before + len(raw)) * 8 // 6]
        forms |= {encoded, encoded.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


class Found(NamedTuple):
    """How often a pattern was found, and one example of it, masked."""

    name: str
    count: int
    example: str


class Tally:
    """Counts what was found, by name."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}

    def add(self, name: str, found: str) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1
        self._examples.setdefault(name, masked(found))

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add_all(self, other: "Tally") -> None:
        """Adds what another one counted."""
        for name, count in other._counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
            self._examples.setdefault(name, other._examples[name])

    def found(self) -> list[Found]:
        """Everything counted, by name."""
        return [Found(name, count, self._examples[name]) for name, count in sorted(self._counts.items())]


def masked(text: str) -> str:
    """At most two characters, and never more than a fifth, of a text, and its length."""
    return f"{text[: min(2, len(text) // 5)]}… ({len(text)} characters)"


Spans = Iterator[tuple[int, int]]


class _Pattern(NamedTuple):
    """`likely`: true of every text that holds a match, and quickly false of most others. `within` narrows a match to the
    parts of it that count."""

    name: str
    regex: re.Pattern[str]
    likely: Callable[[str], object] = bool
    within: Callable[[str], Spans] | None = None

    def spans(self, text: str) -> Spans:
        for match in self.regex.finditer(text):
            if self.within is None and match[0]:
                yield match.span()
            elif self.within is not None:
                yield from ((match.start() + start, match.start() + end) for start, end in self.within(match[0]))


def _longest(text: str, first: str, sizes: range, holds: Callable[[str], bool]) -> Spans:
    """Parts of a run of words that begin and end with a word, begin with one of `first` and for whose characters without
    separators `holds` is true: without overlap, the longest at each place."""
    places = [at for at, char in enumerate(text) if char.isalnum()]
    bare = "".join([text[at] for at in places])
    breaks = [0, *(at for at in range(1, len(places)) if places[at] - places[at - 1] > 1), len(places)]
    after = 0
    for start in breaks[:-1]:
        if start < after or bare[start] not in first:
            continue
        likely = breaks[bisect_left(breaks, start + sizes[0]) : bisect_right(breaks, start + sizes[-1])]
        if (end := next((end for end in reversed(likely) if holds(bare[start:end])), 0)) > 0:
            yield places[start], places[end - 1] + 1
            after = end


def _is_card(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1 (Luhn), and lengths and first digits of the card schemes: 13 digits that begin
    with 1 are a time in milliseconds, not a card."""
    length, first = len(digits), digits[:1]
    if (
        (length == 13 and first != "4")
        or (length == 14 and first != "3")
        or (length == 15 and digits[:2] not in ("34", "37"))
    ):
        return False
    doubled = (int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits)))
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def _is_iban(text: str) -> bool:
    """The check digits of ISO 13616: the text, its first four characters moved to the end and letters read as 10 to 35,
    leaves 1 when divided by 97."""
    if not (text[:2].isalpha() and text[2:4].isdigit()):
        return False
    return int("".join([str(int(char, 36)) for char in text[4:] + text[:4]])) % 97 == 1


def _cards(run: str) -> Spans:
    return _longest(run, "23456", range(13, 20), _is_card)


def _ibans(run: str) -> Spans:
    return _longest(run, ascii_uppercase, range(15, 35), _is_iban)


def _phones(run: str) -> Spans:
    if 8 <= sum(char.isdigit() for char in run) <= 15:
        yield 0, len(run)


# A key has a digit somewhere; a word with hyphens seldom has. The look ahead is bounded: so is the time on hostile texts.
_TOKEN = r"(?=[\w-]{0,64}[0-9])[A-Za-z0-9_-]"
_PEM = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_SEVEN = re.compile(r"[0-9](?:[^0-9]{0,6}[0-9]){6}").search


def _has(*hints: str) -> Callable[[str], object]:
    def one_is_in(text: str) -> bool:
        for hint in hints:  # noqa: SIM110 (faster: every text is asked, and most hold none)
            if hint in text:
                return True
        return False

    return one_is_in


_LOCAL = r"(?<![\w.+-])\(?0[1-9][0-9]{1,4}\)?[ /-]{1,3}[0-9]{2,4}(?:[ -]?[0-9]{2,4}){1,3}(?![\w])"
_GROUPS: dict[str, tuple[_Pattern, ...]] = {
    "email": (
        _Pattern(
            "email",
            re.compile(r"[\w.%+'-]{1,64}(?:@|%40)(?:[\w-]{1,63}\.){1,8}[^\W\d_][\w-]{1,62}"),
            _has("@", "%40"),
        ),
    ),
    "keys": (
        _Pattern("private-key", re.compile(rf"-----BEGIN {_PEM}.*?(?:-----END {_PEM}|\Z)", re.DOTALL), _has("PRIVATE")),
        _Pattern("jwt", re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"), _has("eyJ")),
        _Pattern("anthropic-key", re.compile(rf"(?<![A-Za-z0-9])sk-ant-{_TOKEN}{{16,}}"), _has("sk-ant-")),
        _Pattern("openai-key", re.compile(rf"(?<![A-Za-z0-9])sk-{_TOKEN}{{16,}}"), _has("sk-")),
        _Pattern("google-key", re.compile(r"(?<![A-Za-z0-9])AIza[\w-]{30,}"), _has("AIza")),
        _Pattern("aws-key", re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16,}"), _has("AKIA", "ASIA")),
        _Pattern("github-key", re.compile(r"(?<![A-Za-z0-9])(?:gh[opsur]_|github_pat_)\w{20,}"), _has("gh", "github_pat_")),
        _Pattern("slack-key", re.compile(r"(?<![A-Za-z0-9])(?:xox[a-z]|xapp)-[\w-]{10,}"), _has("xox", "xapp-")),
        _Pattern("huggingface-key", re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{20,}"), _has("hf_")),
        _Pattern(
            "other-key",
            re.compile(rf"(?<![A-Za-z0-9])(?:gsk_|xai-|glpat-|npm_|pypi-|[prs]k_(?:live|test)_){_TOKEN}{{16,}}"),
            _has("gsk_", "xai-", "glpat-", "npm_", "pypi-", "k_live_", "k_test_"),
        ),
        _Pattern(
            "bearer",
            re.compile(r"\b[Bb][Ee][Aa][Rr][Ee][Rr]\s{1,4}(?=[\w.~+/-]{0,64}[0-9])[\w.~+/-]{16,}=*"),
            _has("earer", "EARER"),
        ),
    ),
    "numbers": (
        _Pattern("card", re.compile(r"(?<![A-Za-z0-9])[0-9](?:[ -]?[0-9]){12,}(?![A-Za-z0-9])"), _SEVEN, _cards),
        _Pattern("iban", re.compile(r"\b[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9](?:[ -]?[A-Z0-9]){8,}\b"), _SEVEN, _ibans),
        _Pattern("social-security", re.compile(r"(?<![\w-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![\w-])"), _SEVEN),
        _Pattern("phone", re.compile(r"(?<![\w+])(?:\+|00)[1-9](?:[ ().\/-]{0,3}[0-9]){6,14}(?![\w])"), _SEVEN, _phones),
        _Pattern("phone", re.compile(r"(?<![\w.+-])\(?[0-9]{3}\)?[ .-]{1,2}[0-9]{3}[ .-][0-9]{4}(?![\w])"), _SEVEN),
        _Pattern("phone", re.compile(_LOCAL), _SEVEN),
    ),
}  # fmt: skip
GROUPS = tuple(_GROUPS)


class Patterns:
    """Redacts by shape; `names` of all patterns. `groups` are names in `GROUPS`; `own` are regular expressions by name.

    Raises `ConfigError` for an unknown group and for an expression that does not compile, matches nothing at all or its
    own mark, or repeats a repetition (it could take for ever on a hostile text).
    """

    def __init__(self, groups: Sequence[str] = GROUPS, own: Mapping[str, str] | None = None) -> None:
        for group in groups:
            if group not in _GROUPS:
                raise ConfigError(f"there is no redaction {group!r}", fix=f"choose of {', '.join(GROUPS)}, or none")
        built = [pattern for group in dict.fromkeys(groups) for pattern in _GROUPS[group]]
        patterns = (*(_own(name, regex) for name, regex in (own or {}).items()), *built)
        self._patterns = tuple((likely, tuple(alike)) for likely, alike in groupby(patterns, lambda one: one.likely))
        self._clean: set[str] = set()  # short texts in which nothing was found: the keys of JSON come again and again
        self.names = tuple(dict.fromkeys(pattern.name for pattern in patterns))

    @classmethod
    def of_options(cls, redact: str, own: Iterable[str] = ()) -> Self:
        """From `email,keys` (or `none`) and any number of `NAME=REGEX`. Raises `ConfigError` as the constructor does."""
        given = {}
        for option in own:
            name, equals, regex = option.partition("=")
            if not equals or not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", name):
                raise ConfigError(
                    f"--redact-pattern {option!r} is not NAME=REGEX",
                    fix="write a name of letters, digits and hyphens, an equals sign, and a regular expression",
                )
            given[name] = regex
        return cls([] if redact == "none" else [part.strip() for part in redact.split(",")], given)

    def redact(self, text: str, tally: Tally | None = None) -> str:
        """The text with everything that matches replaced by `[redacted:NAME]`; nothing matches in what is returned. The
        same object when nothing does."""
        if text in self._clean:
            return text
        tally = Tally() if tally is None else tally
        for _ in range(_MANY):  # what is taken out may have kept something beside it from matching
            before = text
            for likely, patterns in self._patterns:
                if likely(text):
                    for pattern in patterns:
                        text = _replaced(text, pattern, tally)
            if text is before:
                self._remember(text)
                return text
        tally.add("unsettled", text)
        return _MARK % "unsettled"

    def _remember(self, text: str) -> None:
        if len(text) <= _SHORT:
            if len(self._clean) >= _REMEMBERED:
                self._clean.clear()
            self._clean.add(text)

    def redact_value(self, value: Any, tally: Tally | None = None) -> Any:
        """A parsed JSON value with every text in it, keys too, redacted. The same object when nothing matches. Raises
        `RecursionError` when it is nested deeper than Python can follow."""
        if isinstance(value, str):
            return self.redact(value, tally)
        if isinstance(value, list):
            items = [self.redact_value(item, tally) for item in value]
            return value if all(map(_is, items, value)) else items
        if isinstance(value, dict):
            keys = [self.redact(key, tally) for key in value]
            items = [self.redact_value(item, tally) for item in value.values()]
            same = all(map(_is, keys, value)) and all(map(_is, items, value.values()))
            return value if same else dict(zip(keys, items, strict=True))
        return value


def _is(left: object, right: object) -> bool:
    return left is right


def _replaced(text: str, pattern: _Pattern, tally: Tally) -> str:
    parts, done = [], 0
    for start, end in pattern.spans(text):
        tally.add(pattern.name, text[start:end])
        parts += (text[done:start], _MARK % pattern.name)
        done = end
    return text if not parts else "".join(parts) + text[done:]


def _own(name: str, text: str) -> _Pattern:
    try:
        regex = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"--redact-pattern {name}: {text!r} is no regular expression: {error}",
            fix="see the syntax in Python's documentation of the module re",
        ) from None
    if regex.match("") or regex.search(_MARK % name):
        what = "nothing at all" if regex.match("") else f"its own mark {_MARK % name}"
        raise ConfigError(f"--redact-pattern {name}: {text!r} matches {what}", fix="write a narrower expression")
    if _repeats_repetition(text):
        raise ConfigError(
            f"--redact-pattern {name}: {text!r} repeats a repetition, which can take for ever on a hostile text",
            fix="bound it, as in {1,20}, or make the inner one possessive, as in ++",
        )
    return _Pattern(name, regex)


def _repeats_repetition(text: str) -> bool:
    """Whether an unbounded repetition holds another repetition or a choice that can be given back: what takes
    exponential time when the rest does not match."""
    try:
        from re import _constants, _parser  # pyrefly: ignore  # the standard library's own reading of the expression
    except ImportError:  # private, and may move: then only the documentation warns
        return False

    giving_back = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)

    def holds(parsed: Any, within: bool) -> bool:
        for operator, argument in parsed:
            if within and (operator is _constants.BRANCH or (operator in giving_back and argument[0] != argument[1])):
                return True
            if operator in giving_back and holds(argument[2], within or argument[1] > 1000):
                return True
            if operator is _constants.SUBPATTERN and holds(argument[3], within):
                return True
            if operator is _constants.BRANCH and any(holds(branch, within) for branch in argument[1]):
                return True
            if operator in (_constants.ASSERT, _constants.ASSERT_NOT) and holds(argument[1], False):
                return True
        return False

    return holds(_parser.parse(text), False)
