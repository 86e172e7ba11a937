"""Canonical JSON Lines files, and files that are written whole or not at all."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutelage.canon import canonical
from tutelage.errors import StorageError, TutelageError


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """Within: an error of the disk becomes a `StorageError` that names what was written, whichever library met it."""
    try:
        yield
    except TutelageError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        raise StorageError(
            f"cannot write {what}: {error}", fix="free disk space (or mend permissions) and run again"
        ) from error


def write_whole(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replaces the file in one step, with permissions `mode` less the process's mask.

    Raises `StorageError` when it cannot be written (a full disk).
    """
    scratch = path.with_name(path.name + ".new")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.unlink(missing_ok=True)
        try:
            with open(scratch, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            scratch.unlink(missing_ok=True)
            raise
        scratch.replace(path)


def write_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """One canonical JSON value a line."""
    write_whole(path, b"".join(canonical(value) + b"\n" for value in values))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The values of a JSON Lines file, in order."""
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def pretty(value: Any) -> bytes:
    """JSON for people and tools: indented, keys in the order given. Raises `ValueError` for NaN and infinities."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def write_pretty(path: Path, value: Any) -> None:
    write_whole(path, pretty(value))
