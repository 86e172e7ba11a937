"""How many layers weights have, told from a folder's config.json or a GGUF file's header without reading the weights."""

import json
import struct
from pathlib import Path
from typing import IO

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value by its GGUF type
_INTEGERS = {4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_STRING, _ARRAY = 8, 9
_MOST = 100_000  # values of a list, or bytes of a key, that are walked over: what is longer stands behind the sizes


def layer_count(source: Path) -> int | None:
    """Of a GGUF file or a Hugging Face folder; None where it is not said, or not in a form known here: whoever loads the weights
    tells what is wrong with them. GGUF: specification of ggml, "File structure", little-endian versions 2 and 3."""
    try:
        if source.is_file():
            with source.open("rb") as file:
                return _block_count(file)
        config = json.loads((source / "config.json").read_bytes())
        found = config.get("num_hidden_layers")
    except (OSError, ValueError, struct.error, AttributeError, RecursionError):
        return None
    return found if type(found) is int and found > 0 else None


def _block_count(file: IO[bytes]) -> int | None:
    magic, version, _, entries = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version not in (2, 3):
        return None
    for _ in range(min(entries, _MOST)):
        key = _string(file)
        (kind,) = struct.unpack("<I", file.read(4))
        if key.endswith(b".block_count") and kind in _INTEGERS:
            (found,) = struct.unpack(_INTEGERS[kind], file.read(_SIZES[kind]))
            return found if found > 0 else None
        _skip(file, kind)
    return None


def _string(file: IO[bytes]) -> bytes:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _MOST:
        raise ValueError(f"a string of {length} bytes")
    return file.read(length)


def _skip(file: IO[bytes], kind: int) -> None:
    if kind == _STRING:
        (length,) = struct.unpack("<Q", file.read(8))
        file.seek(length, 1)
    elif kind == _ARRAY:
        inner, count = struct.unpack("<IQ", file.read(12))
        if inner in _SIZES:
            file.seek(count * _SIZES[inner], 1)
        elif inner == _STRING and count <= _MOST:
            for _ in range(count):
                _skip(file, _STRING)
        else:
            raise ValueError(f"{count} values of type {inner}")
    elif kind in _SIZES:
        file.seek(_SIZES[kind], 1)
    else:
        raise ValueError(f"a value of type {kind}")
