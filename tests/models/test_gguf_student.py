"""A folder written as one GGUF file says in llama.cpp what it says in PyTorch; what has no place there is refused by name."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models.tiny import save_tiny
from tutelage.errors import ConfigError
from tutelage.models.gguf_layout import in_pairs
from tutelage.models.gguf_student import StudentFolder
from tutelage.models.llamacpp import embedded_server

QUESTIONS = ("the film is good", "déjà vu, 日本 🙂", "a  slow\n\tstory", "12 and 345")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny")


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    said = json.loads((folder / name).read_text())
    change(said)
    (folder / name).write_text(json.dumps(said))


def chat(url: str, text: str) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 12}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_llama_cpp_reads_the_same_prompt_and_says_the_same(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "tiny.gguf"
    StudentFolder(folder).write(out, "f32")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    with embedded_server(out, 1, tmp_path / "log") as server:
        for text in QUESTIONS:
            messages = [{"role": "user", "content": text}]
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            with torch.no_grad():
                said = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
            found = chat(server.base_url, text)
            assert found["usage"]["prompt_tokens"] == len(ids)
            assert found["choices"][0]["message"]["content"] == tokenizer.decode(said, skip_special_tokens=True)


def test_q8_0_is_within_a_rounding_and_the_same_folder_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        StudentFolder(folder).write(tmp_path / name, "q8_0")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "one").tensors}
    weights = load_file(folder / "model.safetensors")
    assert (found["output_norm.weight"].data == weights["model.norm.weight"].numpy()).all()
    names = {"blk.1.attn_k.weight": "layers.1.self_attn.k_proj", "blk.0.ffn_up.weight": "layers.0.mlp.up_proj"}
    for theirs, ours in names.items():
        assert found[theirs].tensor_type == Kind.Q8_0
        was = in_pairs(theirs, weights[f"model.{ours}.weight"].numpy(), "llama", 4, 2).reshape(-1, 32)
        now = dequantize(found[theirs].data, Kind.Q8_0).reshape(-1, 32)
        largest = np.abs(was).max(1, keepdims=True)  # half a step, and what the scale loses in float16
        assert (np.abs(was - now) <= largest / 127 * (0.5 + 127 * 2**-11)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_read(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    StudentFolder(folder).write(tmp_path / "out", "f32")
    found = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "out").tensors}
    assert (found["blk.0.ffn_down.weight"].data == weights["model.layers.0.mlp.down_proj.weight"].float().numpy()).all()


def test_tokens_ends_and_template_are_in_the_file(folder: Path, tmp_path: Path) -> None:
    StudentFolder(folder).write(tmp_path / "out", "f16")
    fields = GGUFReader(tmp_path / "out").fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == 328 and tokens[2] == "<|im_end|>" and tokens[-1] == "[unused327]"
    ends = [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "eot")]
    assert ends == [0, 2], "as generation_config.json says"
    assert "add_generation_prompt" in fields["tokenizer.chat_template"].contents()
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"


SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([{"type": "Digits", "individual_digits": True}, BYTES], "smollm"),
        ([{"type": "Split", "pattern": {"Regex": SPLIT}}, {**BYTES, "use_regex": False}], "qwen2"),
    ],
)
def test_how_text_is_cut_is_told_by_the_tokenizer(folder: Path, tmp_path: Path, steps: list[Any], name: str) -> None:
    cuts = {"type": "Sequence", "pretokenizers": steps}
    edit(folder, "tokenizer.json", lambda said: said.update(pre_tokenizer=cuts))
    StudentFolder(folder).write(tmp_path / "out", "f16")
    assert GGUFReader(tmp_path / "out").fields["tokenizer.ggml.pre"].contents() == name


@pytest.mark.parametrize(
    ("file", "key", "value", "words"),
    [
        ("config.json", "model_type", "gemma3_text", "is of type 'gemma3_text'"),
        ("config.json", "rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, "rope 'yarn'"),
        ("config.json", "rope_parameters", {"type": "linear", "factor": 2.0, "rope_theta": 1e4}, "rope 'linear'"),
        ("config.json", "rope_scaling", {"type": "linear", "factor": 2.0}, "both rope_parameters and rope_scaling"),
        ("config.json", "partial_rotary_factor", 0.5, "partial_rotary_factor 0.5"),
        ("config.json", "sliding_window", 64, "window 64"),
        ("config.json", "intermediate_size", None, "does not say intermediate_size"),
        ("config.json", "vocab_size", 3, "and 3 embeddings"),
        ("config.json", "tie_word_embeddings", None, ""),
        ("tokenizer.json", "pre_tokenizer", {"type": "Metaspace"}, "tokenizer of another kind"),
        ("tokenizer.json", "normalizer", {"type": "Lowercase"}, "normalizer 'Lowercase'"),
        ("generation_config.json", "eos_token_id", [0, 1, 2, 3], "ends an answer by"),
    ],
)
def test_what_has_no_place_in_the_file_is_refused(folder: Path, file: str, key: str, value: Any, words: str) -> None:
    edit(folder, file, lambda said: said.update({key: value}))
    if not words:
        StudentFolder(folder)
        return
    with pytest.raises(ConfigError) as refused:
        StudentFolder(folder)
    assert words in refused.value.message and "tiny cannot be written" in refused.value.message
    assert "served_as" in refused.value.fix


def test_scaling_in_the_older_form_is_refused(folder: Path) -> None:
    legacy = {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}}
    edit(folder, "config.json", lambda said: said.update(legacy))
    with pytest.raises(ConfigError, match="rope 'linear'"):
        StudentFolder(folder)


def test_a_folder_without_template_or_with_a_strange_tensor_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").rename(folder / "elsewhere")
    with pytest.raises(ConfigError, match="no chat template"):
        StudentFolder(folder)
    (folder / "elsewhere").rename(folder / "chat_template.jinja")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"model.layers.0.extra.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"'model\.layers\.0\.extra\.weight', for which there is no place"):
        StudentFolder(folder)
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ConfigError, match=r"no model\.safetensors that can be read"):
        StudentFolder(folder)
