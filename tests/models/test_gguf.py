"""The copy that is served says the same as the weights it was made from."""

import os
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

from tutelage.models.gguf import fast_copy

FLOATS = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)


def write(path: Path, kind: Kind) -> Path:
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_token_list(["a", "b", "\u00e9"])
    writer.add_tensor("norm", FLOATS[0])
    writer.add_tensor("weights", quantize(FLOATS, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_q4_1_becomes_q8_0_within_a_rounding_and_the_rest_stays(tmp_path: Path) -> None:
    source = write(tmp_path / "m.gguf", Kind.Q4_1)
    before = GGUFReader(source)
    copy = fast_copy(source)
    after = GGUFReader(copy)
    old, new = ({tensor.name: tensor for tensor in reader.tensors} for reader in (before, after))
    assert new["weights"].tensor_type == Kind.Q8_0
    assert (new["norm"].data == FLOATS[0]).all()
    was = dequantize(old["weights"].data, Kind.Q4_1)
    now = dequantize(new["weights"].data, Kind.Q8_0)
    largest = np.abs(was.reshape(-1, 32)).max(axis=1, keepdims=True)  # blocks of 32 share a scale
    assert (np.abs(was - now).reshape(-1, 32) <= largest / 127 * 0.51).all()
    assert {name for name in after.fields if not name.startswith("GGUF.")} == {
        name for name in before.fields if not name.startswith("GGUF.")
    }
    tokens = "tokenizer.ggml.tokens"
    assert after.fields[tokens].contents() == before.fields[tokens].contents() == ["a", "b", "\u00e9"]
    assert fast_copy(source) == copy, "made once a process"


def test_a_changed_file_gets_a_new_copy(tmp_path: Path) -> None:
    source = write(tmp_path / "m.gguf", Kind.Q4_1)
    first = fast_copy(source)
    os.utime(source, ns=(1, 1))
    second = fast_copy(source)
    assert second != first
    assert second.read_bytes() == first.read_bytes(), "the same weights give the same bytes"


def test_other_weights_are_served_as_they_are(tmp_path: Path) -> None:
    source = write(tmp_path / "m.gguf", Kind.Q8_0)
    assert fast_copy(source) == source
