"""The file of decisions that people made: one line that says what was drawn and asked, then one line a decision, in
order.

JSON Lines in UTF-8. Nothing in it is ever changed: a decision that is taken back is followed by a line that says so.
"""

import fcntl
import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self

from tutelage.canon import canonical, digest_of
from tutelage.errors import ConfigError, DataError, StorageError
from tutelage.records import Record

FORMAT = "tutelage gold 1"
PERSON = "person"
TIE = "tie"
DRAWN = "simple random sample without replacement, in random order"
_LONGEST_NAME = 64
_LONGEST_REASON = 500


class Mode(StrEnum):
    """What people decide: the label of a text, which of two answers is better, how good an answer is."""

    LABELS = "labels"
    PAIRS = "pairs"
    SCORE = "score"


class Kind(StrEnum):
    """What a line says: a decision, an item that the person would not decide, or that their last such line does not
    count."""

    DECISION = "decision"
    SKIP = "skip"
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class Header(Record):
    """The first line. `sampled` of the `items` (whose identifiers have the digest `frame`) were drawn by `seed`.

    `choices` are the decisions that can be made: labels, names of systems and `TIE`, or whole numbers as text.
    `systems` are those whose answers are shown; none where texts are labelled.
    """

    format: str
    author_kind: str
    mode: Mode
    asked: str
    choices: tuple[str, ...]
    systems: tuple[str, ...]
    items: int
    sampled: int
    seed: int
    drawn: str
    frame: str
    made_at: str


@dataclass(frozen=True, slots=True)
class Row(Record):
    """Another line. `order`: systems in the order shown, where two answers were; `shown`: digest of all that was on
    the page."""

    item: str
    system: str  # whose answer got the score; empty in other modes
    kind: Kind
    decision: str
    reason: str  # of a skip
    author: str  # "person:NAME"
    mode: Mode
    order: tuple[str, ...]
    shown: str
    at: str
    took_ms: int  # since the page was first sent
    adjudicates: bool = False  # shown only because others disagreed on it

    @property
    def unit(self) -> "Unit":
        return Unit(self.item, self.system)

    @property
    def who(self) -> str:
        return self.author.removeprefix(f"{PERSON}:")


class Unit(NamedTuple):
    """What is decided at once: an item, or one system's answer to it."""

    item: str
    system: str = ""


def frame_of(items: Iterable[str]) -> str:
    """The digest of the set of items that a sample is drawn from."""
    return digest_of(sorted(items))


def draw(items: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` of the items, drawn without replacement; the first ones of them are a random sample too.

    Items are ordered by SHA-256 of seed and identifier: neither their order in a file nor the Python version matters.
    """
    return sorted(items, key=lambda item: lot(seed, "drawn", item))[:count]


def lot(seed: int, what: str, *names: str) -> bytes:
    """A fixed number nobody chose, for a seed and a name."""
    return hashlib.sha256(canonical([seed, what, *names])).digest()


def checked_name(name: str) -> str:
    """A person's name as it is written. Raises `ConfigError` for an empty or long one and for what cannot be
    printed."""
    plain = unicodedata.normalize("NFC", name.strip())
    if not plain or len(plain) > _LONGEST_NAME or not plain.isprintable():
        raise ConfigError(f"--who {name[:80]!r} is no name", fix=f"give 1 to {_LONGEST_NAME} printable characters")
    return plain


def checked_reason(reason: str) -> str:
    """A reason on one line. Raises `DataError` for none."""
    plain = " ".join(reason.encode("utf-8", "replace").decode().split())[:_LONGEST_REASON]
    if not plain:
        raise DataError("an item was skipped without a reason", fix="say in a few words why it cannot be decided")
    return plain


def standing(rows: Iterable[Row]) -> dict[Unit, dict[str, Row]]:
    """The line that counts for every unit and person: the latest that was not taken back."""
    found: dict[Unit, dict[str, Row]] = {}
    for row in rows:
        people = found.setdefault(row.unit, {})
        if row.kind is Kind.UNDO:
            people.pop(row.who, None)
        else:
            people[row.who] = row
    return {unit: people for unit, people in found.items() if people}


def contested_units(rows: Iterable[Row]) -> set[Unit]:
    """Units on which no decision has more people behind it than every other."""
    found = set()
    for unit, people in standing(rows).items():
        said = Counter(row.decision for row in people.values() if row.kind is Kind.DECISION).most_common(2)
        if len(said) == 2 and said[0][1] == said[1][1]:
            found.add(unit)
    return found


def last_of(rows: Iterable[Row], who: str) -> Row | None:
    """What a person would take back: their latest line that counts."""
    stack: list[Row] = []
    for row in rows:
        if row.who == who:
            stack = [one for one in stack if one.unit != row.unit]
            if row.kind is not Kind.UNDO:
                stack.append(row)
    return stack[-1] if stack else None


def read_rows(path: Path) -> tuple[Header, list[Row]]:
    """The whole file, every line checked. A last line that was not finished (a kill, a full disk) does not count.

    Raises `DataError`, with the line, for what is no such file: another author than people, a decision that is no
    choice, NaN, unknown or missing fields.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no {path}", fix="make it with tutelage label") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}", fix="check the path and its permissions") from error
    return _parse(path, data)


def _parse(path: Path, data: bytes) -> tuple[Header, list[Row]]:
    lines = data.split(b"\n")[:-1]
    if not lines:
        raise DataError(f"{path} has no whole line", fix="delete it, and label again")
    header = _header(path, lines[0])
    return header, [_row(path, at, line, header) for at, line in enumerate(lines[1:], 2)]


def _header(path: Path, line: bytes) -> Header:
    fields = _json(path, 1, line)
    if fields.get("format") != FORMAT:
        raise DataError(
            f"{path}: the first line says format {fields.get('format')!r:.60}, not {FORMAT!r}",
            fix="give a file of tutelage label: its first line says what was drawn",
        )
    if fields.get("author_kind") != PERSON:
        raise DataError(
            f"{path} was written by a {fields.get('author_kind')!r:.40}, not by people",
            fix="what a model wrote is no gold: label the items by hand",
        )
    try:
        header = Header.from_json(fields)
    except ValueError as error:
        raise _wrong(path, 1, str(error)) from None
    if len(header.choices) < 2 or len(set(header.choices)) < len(header.choices):
        raise _wrong(path, 1, f"choices {list(header.choices)!r:.80}: two or more are needed, each once")
    if not 0 < header.sampled <= header.items:
        raise _wrong(path, 1, f"{header.sampled} of {header.items} items drawn")
    if header.mode is Mode.SCORE and not all(choice.isascii() and choice.isdecimal() for choice in header.choices):
        raise _wrong(path, 1, f"scores {list(header.choices)!r:.80} are no whole numbers")
    return header


def _row(path: Path, at: int, line: bytes, header: Header) -> Row:
    try:
        row = Row.from_json(_json(path, at, line))
    except DataError:
        raise
    except ValueError as error:
        raise _wrong(path, at, str(error)) from None
    if not row.author.startswith(f"{PERSON}:") or not row.who:
        raise _wrong(path, at, f"author {row.author!r:.60} is no person")
    if row.mode is not header.mode:
        raise _wrong(path, at, f"mode {row.mode} in a file of {header.mode}")
    decided = row.kind is Kind.DECISION
    if decided != bool(row.decision) or (decided and row.decision not in header.choices):
        raise _wrong(path, at, f"decision {row.decision!r:.60}; there is {', '.join(header.choices)}")
    in_pairs, is_score = header.mode is Mode.PAIRS, header.mode is Mode.SCORE
    if (is_score and row.system not in header.systems) or (not is_score and row.system):
        raise _wrong(path, at, f"system {row.system!r:.60}")
    if sorted(row.order) != (sorted(header.systems) if in_pairs else []):
        raise _wrong(path, at, f"order {list(row.order)!r:.60}")
    return row


def _json(path: Path, at: int, line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, at, str(error)) from None
    if not isinstance(fields, dict):
        raise _wrong(path, at, f"{fields!r:.60} is no object")
    return fields


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _wrong(path: Path, at: int, what: str) -> DataError:
    return DataError(
        f"{path}, line {at}: {what}", fix="restore the file: tutelage label only ever adds lines to its end"
    )


class Journal:
    """The file while somebody labels: held by this process alone, every line on the disk before `add` returns."""

    def __init__(self, path: Path, header: Header) -> None:
        """Makes the file, or goes on with it. Raises `StorageError` when another process holds it or it cannot be
        written, `ConfigError` when it was begun otherwise, and as `read_rows`."""
        self.path = path
        self.header = header
        self.rows: list[Row] = []
        self.cut = 0  # bytes of an unfinished last line that were taken off
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error}", fix="choose another --out") from error
        try:
            self._lock()
            self._begin()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def add(self, row: Row) -> None:
        """Appends a line. Raises `StorageError` when the disk does not take it; the file is then as before."""
        self._write(canonical(row.to_json()) + b"\n")
        self.rows.append(row)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(
                f"somebody is labelling into {self.path}",
                fix="one after the other: wait, or choose another --out",
            ) from None

    def _begin(self) -> None:
        data = self.path.read_bytes()
        if not data:
            self._write(canonical(self.header.to_json()) + b"\n")
            _sync_folder(self.path.parent)
            return
        begun, self.rows = _parse(self.path, data)
        _require_same(self.path, begun, self.header)
        self.header = begun
        whole = data.rfind(b"\n") + 1
        self.cut = len(data) - whole
        if self.cut:
            os.ftruncate(self._file, whole)
            os.fsync(self._file)

    def _write(self, data: bytes) -> None:
        before = os.fstat(self._file).st_size
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, before)
            raise StorageError(
                f"cannot write {self.path}: {error}", fix="free disk space, then decide again"
            ) from error


def _require_same(path: Path, begun: Header, wanted: Header) -> None:
    was, now = begun.to_json(), wanted.to_json()
    for name in ("mode", "choices", "systems", "asked", "seed", "sampled", "items", "frame"):
        if was[name] != now[name]:
            raise ConfigError(
                f"{path} was begun with {name} {was[name]!r:.80}, not {now[name]!r:.80}",
                fix="give the same items and options to go on with it, or another --out",
            )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
