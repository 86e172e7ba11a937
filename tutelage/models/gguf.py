"""Embedded weights in a form that the CPU is fast with.

llama.cpp multiplies Q4_1 blocks one by one; for Q8_0 it has a blocked kernel, and a question costs about a third less.
A Q4_1 weight takes one of 16 values a block, so eight bits hold it closely: answers differ by less than they do between
two CPUs (docs/log.md has the measurement).
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def fast_copy(weights: Path) -> Iterator[Path]:
    """The file to serve: a Q8_0 copy in a folder of its own while the context lasts, if `weights` holds Q4_1 tensors;
    else `weights` itself. Made anew each time (two seconds), from weights whose digest has just been checked."""
    from gguf import GGMLQuantizationType, GGUFReader

    reader = GGUFReader(weights)
    if all(tensor.tensor_type != GGMLQuantizationType.Q4_1 for tensor in reader.tensors):
        yield weights
        return
    with tempfile.TemporaryDirectory(prefix="tutelage-") as scratch:
        copy = Path(scratch) / f"{weights.stem}.Q8_0.gguf"
        _write(reader, copy)
        yield copy


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
