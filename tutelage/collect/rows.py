"""Rows of a JSON Lines, CSV, TSV or Parquet file, one at a time, each problem with its line. Nothing is held."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, NoReturn

import orjson

from tutelage.collect.sources import BadRow
from tutelage.errors import DataError

FileFormat = Literal["jsonl", "csv", "tsv", "parquet"]
ENDINGS: dict[str, FileFormat] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"
}  # fmt: skip
MAX_ROW_BYTES = 16 << 20  # of one line of JSON: longer ones are named, not read
_PARQUET_ROWS = 256  # read at once
_SHOWN = 5


class Row(NamedTuple):
    """One row: its line in the file (of a Parquet file its number, from 1), its columns, and what is wrong with it ('' when
    it could be read). `raw` is its line as it stands; empty where the file has no lines of JSON."""

    line: int
    fields: dict[str, Any]
    raw: bytes
    problem: str


def format_of(path: Path, given: FileFormat | None) -> FileFormat:
    """The format as given, or as the file's name tells. Raises `DataError` when neither does."""
    if given is not None:
        return given
    if (told := ENDINGS.get(path.suffix.lower())) is None:
        raise DataError(
            f"the name {path.name} does not tell what the file is",
            fix=f"let it end in one of {', '.join(ENDINGS)} (JSON: one object a line)",
        )
    return told


def rows_of(path: Path, form: FileFormat) -> Iterator[Row]:
    """Every row of the file that is not blank. Raises `DataError` when the file cannot be read at all."""
    try:
        if form == "parquet":
            yield from _parquet(path)
        elif form == "jsonl":
            with path.open("rb") as file:
                yield from _json_lines(file)
        else:
            yield from _table(path, form)
    except FileNotFoundError:
        raise DataError(
            f"there is no file {path}", fix=f"check its name; it was looked for as {path.absolute()}"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}", fix="give a file that can be read") from None


def need_pyarrow(path: Path) -> Any:
    """The package `pyarrow`. Raises `DataError` when it is not installed."""
    try:
        import pyarrow.parquet  # its parent comes with it
    except ImportError:
        raise DataError(
            f"{path} is a Parquet file, and pyarrow is not installed", fix='install it: pip install "tutelage[parquet]"'
        ) from None
    return pyarrow


def listed(path: Path, bad: Sequence[BadRow], total: int, fix: str) -> DataError:
    """The error that names the first bad rows and counts all."""
    problems = {row.problem for row in bad}
    if len(problems) == 1 and len(bad) > 1:  # one mistake, told once
        return DataError(
            f"{path}: {len(bad):,} of {total:,} rows, from line {bad[0].line} on: {bad[0].problem}", fix=fix
        )
    shown = "; ".join(f"line {row.line}: {row.problem}" for row in bad[:_SHOWN])
    more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return DataError(f"{path} has {len(bad)} bad rows of {total}: {shown}{more}", fix=fix)


def _json_lines(file: BinaryIO) -> Iterator[Row]:
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            while not line.endswith(b"\n") and (line := file.readline(MAX_ROW_BYTES)):
                pass
            yield Row(number, {}, b"", f"longer than {MAX_ROW_BYTES >> 20} MiB")
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.isspace() or not line:
            continue
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield Row(number, {}, line, _json_problem(line, error))
            continue
        is_object = isinstance(fields, dict)
        yield Row(number, fields if is_object else {}, line.rstrip(b"\r\n"), "" if is_object else "not an object")


def _json_problem(line: bytes, error: orjson.JSONDecodeError) -> str:
    """The standard library takes NaN, infinities and lone surrogates, which tells them from other mistakes."""
    try:
        json.loads(line, parse_constant=_refuse)
    except RecursionError:
        return "not JSON that anybody reads: nested too deeply"
    except ValueError as other:
        if str(other).startswith("the number"):
            return str(other)
    else:
        if "surrogate" in error.msg:
            return "holds half a character (a lone surrogate)"
    return f"not JSON: {error.msg} (column {error.colno})"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"the number {constant} is not JSON")


def _table(path: Path, form: FileFormat) -> Iterator[Row]:
    separator, quoting = ("\t", csv.QUOTE_NONE) if form == "tsv" else (",", csv.QUOTE_MINIMAL)
    # Bytes that are no UTF-8 come as lone surrogates, so that their row can be named.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=separator, quoting=quoting, strict=True)
        columns: list[str] = []
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if not columns:
                    raise _no_header(path, f"is not {form.upper()}: {error}") from None
                yield Row(reader.line_num, {}, b"", f"not {form.upper()}: {error}")
                continue
            if not values:
                continue
            if not columns:
                if not all(map(_is_unicode, values)):
                    raise _no_header(path, "is not UTF-8")
                columns = values
                continue
            problem = ""
            if len(values) != len(columns):
                problem = f"{len(values)} columns instead of {len(columns)}"
            elif not all(map(_is_unicode, values)):
                problem = "not UTF-8"
            yield Row(reader.line_num, dict(zip(columns, values, strict=False)), b"", problem)


def _is_unicode(value: str) -> bool:
    return value.isascii() or not any("\udc80" <= character <= "\udcff" for character in value)


def _no_header(path: Path, problem: str) -> DataError:
    return DataError(f"the header of {path}, its names of columns, {problem}", fix="mend its first line")


def _parquet(path: Path) -> Iterator[Row]:
    pyarrow = need_pyarrow(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(number, fields, b"", "")
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is no Parquet file that can be read: {error}", fix="give a whole Parquet file"
        ) from None
