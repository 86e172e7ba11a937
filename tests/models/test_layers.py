"""How many layers weights say they have, before they are read."""

import json
import struct
import tempfile
from pathlib import Path

import pytest
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from tutelage.models.layers import layer_count


def gguf(path: Path, layers: int | None, arch: str = "llama") -> Path:
    writer = GGUFWriter(path, arch)
    writer.add_name("tiny")
    writer.add_array("general.languages", ["en", "de"])
    writer.add_array("general.scores", [0.5, 1.5])
    writer.add_bool("general.kind", True)
    if layers is not None:
        writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("layers", [1, 30, 126])
def test_a_gguf_header_says_it(tmp_path: Path, layers: int) -> None:
    assert layer_count(gguf(tmp_path / "model.gguf", layers)) == layers


def test_a_folder_says_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 12}))
    assert layer_count(tmp_path) == 12


def test_what_does_not_say_it_is_not_guessed(tmp_path: Path) -> None:
    assert layer_count(gguf(tmp_path / "model.gguf", None)) is None
    assert layer_count(tmp_path / "nowhere") is None
    for text in ("[]", "{}", "{", '{"num_hidden_layers": "12"}', '{"num_hidden_layers": true}', "\xff", "[" * 100_000):
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
        assert layer_count(tmp_path) is None


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_a_broken_header_neither_raises_nor_hangs(tail: bytes, entries: int) -> None:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, 0, entries) + tail)
        file.flush()
        found = layer_count(Path(file.name))
    assert found is None or found > 0


def test_every_cut_of_a_real_header_is_taken(tmp_path: Path) -> None:
    data = gguf(tmp_path / "model.gguf", 30).read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        assert layer_count(cut) in (None, 30)
