"""Reading a labelled or unlabelled data file: CSV, TSV or JSON Lines, row by row, every bad row named.

The gold column is carried as raw text; what it says is read later, for held-out rows only.
"""

import csv
import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.config import DataTable
from tutelage.errors import DataError

_SHOWN = 5


class Row(NamedTuple):
    """One usable row: its line in the file, the text, and the gold column as it stands ('' when there is none)."""

    line: int
    text: str
    gold: str


class BadRow(NamedTuple):
    line: int
    problem: str


class Rows(NamedTuple):
    good: tuple[Row, ...]
    bad: tuple[BadRow, ...]


def read_rows(path: Path, table: DataTable) -> Rows:
    """Raises `DataError`: no such file, no such column, no usable row, or bad rows when `bad_rows` is "stop"."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"no data file {path}", fix="check data.path in the run file") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", fix="give a data file that can be read") from None
    good: list[Row] = []
    bad: list[BadRow] = []
    for line, fields, problem in _records(data, table, path):
        text, gold = fields.get(table.text), fields.get(table.gold, "")
        if problem:
            bad.append(BadRow(line, problem))
        elif not isinstance(text, str) or not text.strip():
            bad.append(BadRow(line, f"column {table.text!r} is empty or no text"))
        elif any("\ud800" <= character <= "\udfff" for character in text):
            bad.append(BadRow(line, f"column {table.text!r} holds half a character (a lone surrogate)"))
        else:
            good.append(Row(line, text.strip(), "" if gold is None else str(gold)))
    if bad and table.bad_rows == "stop":
        shown = "; ".join(f"line {row.line}: {row.problem}" for row in bad[:_SHOWN])
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DataError(
            f"{path} has {len(bad)} bad rows of {len(good) + len(bad)}: {shown}{more}",
            fix='mend those lines, or go on without them: bad_rows = "skip" under [data], --bad-rows skip for init',
        )
    if not good:
        raise DataError(f"{path} has no usable row", fix=f"it needs a column {table.text!r} with text")
    return Rows(tuple(good), tuple(bad))


def _records(data: bytes, table: DataTable, path: Path) -> Iterator[tuple[int, dict[str, Any], str]]:
    if table.format == "jsonl":
        yield from _json_lines(data)
        return
    lines = _decoded(data)
    separator = "\t" if table.format == "tsv" else ","
    quoting = csv.QUOTE_NONE if table.format == "tsv" else csv.QUOTE_MINIMAL
    problems: dict[int, str] = {}
    reader = csv.reader(_clean(lines, problems), delimiter=separator, quoting=quoting, strict=True)
    columns = list(table.columns or ()) or next(reader, [])
    _require_columns(columns, table, path)
    while True:
        try:
            values = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield reader.line_num, {}, f"not {table.format.upper()}: {error}"
            continue
        if not values:
            continue
        problem = problems.get(reader.line_num, "")
        if not problem and len(values) != len(columns):
            problem = f"{len(values)} columns instead of {len(columns)}"
        yield reader.line_num, dict(zip(columns, values, strict=False)), problem


def _json_lines(data: bytes) -> Iterator[tuple[int, dict[str, Any], str]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, UnicodeDecodeError) as error:
            yield number, {}, f"not JSON: {error}"
            continue
        yield number, fields if isinstance(fields, dict) else {}, "" if isinstance(fields, dict) else "not an object"


def _decoded(data: bytes) -> list[tuple[str, str]]:
    """Each line with its problem ('' when it is UTF-8 text)."""
    found = []
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        try:
            found.append((line.decode("utf-8").rstrip("\r"), ""))
        except UnicodeDecodeError as error:
            found.append((line.decode("utf-8", "replace").rstrip("\r"), f"not UTF-8: {error.reason}"))
    return found


def _clean(lines: list[tuple[str, str]], problems: dict[int, str]) -> Iterator[str]:
    for number, (line, problem) in enumerate(lines, 1):
        if problem:
            problems[number] = problem
        if line or number < len(lines):
            yield line.replace("\0", "") + "\n"


def _require_columns(columns: list[str], table: DataTable, path: Path) -> None:
    for wanted in (table.text, table.gold):
        if wanted not in columns:
            near = difflib.get_close_matches(wanted, columns, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise DataError(
                f"{path} has no column {wanted!r}{hint}; its columns are {columns[:12]}",
                fix="set data.text and data.gold to columns of the file",
            )
