"""Canonical JSON Lines files, and files that are written whole or not at all."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tutelage.canon import canonical
from tutelage.errors import StorageError


def write_whole(path: Path, data: bytes) -> None:
    """Replaces the file in one step. Raises `StorageError` when it cannot be written (a full disk)."""
    scratch = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}", fix="free disk space (or mend permissions) and run again"
        ) from error


def write_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """One canonical JSON value a line."""
    write_whole(path, b"".join(canonical(value) + b"\n" for value in values))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The values of a JSON Lines file, in order."""
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def write_pretty(path: Path, value: Any) -> None:
    """JSON for people and tools: indented, keys in the order given. Raises `ValueError` for NaN and infinities."""
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")
