"""Embedded weights in a form that the CPU is fast with.

llama.cpp multiplies Q4_1 blocks one by one; for Q8_0 it has a blocked kernel, and a question costs about a third less.
A Q4_1 weight takes one of 16 values a block, so eight bits hold it closely: answers differ by less than they do between
two CPUs (docs/log.md has the measurement).
"""

import functools
import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def fast_copy(weights: Path) -> Path:
    """The file to serve: a Q8_0 copy if `weights` holds Q4_1 tensors; else `weights` itself.

    Made once a process (some seconds), into a folder that goes with the process; never kept for later, so that what is
    served always comes from weights whose digest was checked by this process.
    """
    return _made(weights, weights.stat().st_mtime_ns)[0]


@functools.cache
def _made(weights: Path, _changed_ns: int) -> tuple[Path, Any]:
    from gguf import GGMLQuantizationType, GGUFReader

    with no_collection():
        reader = GGUFReader(weights)
        if all(tensor.tensor_type != GGMLQuantizationType.Q4_1 for tensor in reader.tensors):
            return weights, None
        scratch = tempfile.TemporaryDirectory(prefix="tutelage-")
        copy = Path(scratch.name) / f"{weights.stem}.Q8_0.gguf"
        _write(reader, copy)
    return copy, scratch  # the folder is removed when nobody holds `scratch`


@contextmanager
def no_collection() -> Iterator[None]:
    """Holds the garbage collector: reading a vocabulary makes half a million small objects, and it would walk them all
    again and again (a fifth of the time)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _write(reader: Any, out: Path) -> None:
    from gguf import GGMLQuantizationType as Kind
    from gguf import GGUFValueType, GGUFWriter
    from gguf.quants import dequantize, quantize

    architecture = "general.architecture"
    writer = GGUFWriter(out, reader.fields[architecture].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == architecture:  # the writer's own
            continue
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        if tensor.tensor_type == Kind.Q4_1:
            values = np.asarray(dequantize(tensor.data, Kind.Q4_1), dtype=np.float32)
            writer.add_tensor(tensor.name, quantize(values, Kind.Q8_0), raw_dtype=Kind.Q8_0)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
