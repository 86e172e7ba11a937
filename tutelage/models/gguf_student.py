"""A Hugging Face folder written as one GGUF file, weights, tokenizer and chat template, for llama.cpp to serve.

For decoders laid out as `gguf_layout` knows them, with a byte-level BPE tokenizer. Needs NumPy and `gguf`, no PyTorch. The
same folder gives the same bytes. Source of the format: ggml's GGUF specification; of the blocks of Q8_0: ggml's `block_q8_0`.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tutelage.errors import ConfigError
from tutelage.jsonl import writing
from tutelage.models.gguf_layout import ARCHITECTURES, add_sizes, in_pairs, lacking_sizes, tensor_name

Form = Literal["f32", "f16", "q8_0"]
BLOCK = 32  # values of a row that share a scale in Q8_0
_FIX = "serve the folder as it is (leave served_as out), or give a GGUF file that another tool made as path"
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {_SPLIT % "": "qwen2", _SPLIT % "{1,3}": "llama-bpe"}  # how text is cut before merging, by llama.cpp's names


class _Tensor(NamedTuple):
    """Where a tensor lies in a safetensors file: its type there, its shape, its first byte and the one after its last."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class StudentFolder:
    """A folder that can be written as a GGUF file: everything but the weights is read and looked at here.

    Raises `ConfigError`, naming what llama.cpp's form has no place for, for another architecture, scaled or windowed
    attention, another kind of tokenizer, and a folder without chat template.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = self._json("config.json")
        self._tokenizer = self._json("tokenizer.json")
        self._said = self._json("tokenizer_config.json")
        kind = self._config.get("model_type")
        if kind not in ARCHITECTURES:
            raise self._wrong(f"is of type {kind!r}; known are {', '.join(ARCHITECTURES)}")
        self._architecture = ARCHITECTURES[kind]
        if lacking := lacking_sizes(self._config):
            raise self._wrong(f"does not say {', '.join(lacking)} in config.json")
        self._require_plain_attention()
        self._pre = self._pre_tokenizer()
        self._template = self._chat_template()
        self._ends = self._end_ids()
        self._tokens = self._all_tokens()
        self._places, self._data_at = self._header()

    def write(self, out: Path, form: Form) -> None:
        """Matrices in `form`, vectors (norms, biases) in float32. Raises `StorageError` when it cannot be written."""
        from gguf import GGMLQuantizationType, GGUFWriter

        out.parent.mkdir(parents=True, exist_ok=True)
        with writing(out):
            writer = GGUFWriter(out, self._architecture)
            add_sizes(writer, self._config)
            self._add_tokenizer(writer)
            for name, values in self._tensors():
                kind = GGMLQuantizationType["F32" if values.ndim == 1 else _type_of(values, form)]
                writer.add_tensor(name, _encoded(values, kind), raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()

    def _json(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads((self._folder / name).read_bytes())
        except (OSError, ValueError) as error:
            raise self._wrong(f"has no {name} that can be read ({error})") from None
        if not isinstance(found, dict):
            raise self._wrong(f"has a {name} that is no object")
        return found

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError(f"{self._folder.name} cannot be written for llama.cpp: it {what}", fix=_FIX)

    def _require_plain_attention(self) -> None:
        config = self._config
        said, legacy = config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
        if said and legacy:
            raise self._wrong(f"has both rope_parameters and rope_scaling {legacy!r}: which one holds is not told")
        turned = said or legacy
        rope = turned.get("rope_type") or turned.get("type") or "default"
        part = turned.get("partial_rotary_factor", config.get("partial_rotary_factor"))
        kinds = set(config.get("layer_types") or ()) - {"full_attention"}
        window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        if rope != "default" or kinds or window:
            raise self._wrong(f"has scaled or windowed attention (rope {rope!r}, window {window!r})")
        if part not in (None, 1):
            raise self._wrong(f"turns a part of each head alone (partial_rotary_factor {part!r})")
        if config.get("hidden_act", "silu") != "silu":
            raise self._wrong(f"uses the activation {config['hidden_act']!r}, and not silu")

    def _pre_tokenizer(self) -> str:
        """llama.cpp's name for how the text is cut before merging."""
        model, cuts = self._tokenizer.get("model") or {}, self._tokenizer.get("pre_tokenizer") or {}
        steps = cuts.get("pretokenizers") or [cuts]
        kinds = [step.get("type") for step in steps]
        last = steps[-1]
        pre = ""
        if model.get("type") == "BPE" and kinds[-1] == "ByteLevel" and not last.get("add_prefix_space"):
            if kinds == ["ByteLevel"] and last.get("use_regex", True):
                pre = "gpt-2"
            elif kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and last.get("use_regex", True):
                pre = "smollm"
            elif kinds == ["Split", "ByteLevel"] and not last.get("use_regex", True):
                pre = _SPLITS.get((steps[0].get("pattern") or {}).get("Regex", ""), "")
        normal = (self._tokenizer.get("normalizer") or {}).get("type")
        if not pre or bool(model.get("ignore_merges")) != (pre == "llama-bpe") or normal not in (None, "NFC"):
            raise self._wrong(
                f"has a tokenizer of another kind (model {model.get('type')!r}, steps {kinds}, normalizer {normal!r}); known "
                "are byte-level BPE as of GPT-2, SmolLM, Qwen 2 and Llama 3"
            )
        return pre

    def _chat_template(self) -> str:
        file = self._folder / "chat_template.jinja"
        found = file.read_text(encoding="utf-8") if file.is_file() else self._said.get("chat_template")
        if not isinstance(found, str) or not found:
            raise self._wrong("has no chat template (chat_template.jinja)")
        return found

    def _end_ids(self) -> list[int]:
        """Tokens that end an answer, up to the three that a GGUF file has a key for."""
        file = self._folder / "generation_config.json"
        said = self._json(file.name).get("eos_token_id") if file.is_file() else None
        said = self._config.get("eos_token_id") if said is None else said
        ends = list(dict.fromkeys(said if isinstance(said, list) else [] if said is None else [said]))
        if not 1 <= len(ends) <= 3 or not all(type(end) is int for end in ends):
            raise self._wrong(f"ends an answer by {ends}: one to three token ids are known")
        return ends

    def _all_tokens(self) -> dict[int, tuple[str, Any]]:
        """Text and kind of each token by its id."""
        from gguf import TokenType

        model, size = self._tokenizer["model"], self._config["vocab_size"]
        try:
            tokens = {number: (text, TokenType.NORMAL) for text, number in model["vocab"].items()}
            for one in self._tokenizer.get("added_tokens") or ():
                tokens[one["id"]] = (one["content"], TokenType.CONTROL if one["special"] else TokenType.USER_DEFINED)
            model["merges"]
        except (KeyError, TypeError, AttributeError) as error:
            raise self._wrong(f"has a tokenizer.json that cannot be read ({error!r})") from None
        if not tokens or max(tokens) >= size:
            raise self._wrong(f"has {len(tokens)} tokens, the last {max(tokens, default=-1)}, and {size} embeddings")
        return tokens

    def _add_tokenizer(self, writer: Any) -> None:
        from gguf import TokenType

        size = self._config["vocab_size"]
        filled = [self._tokens.get(number, (f"[unused{number}]", TokenType.UNUSED)) for number in range(size)]
        merges = [one if isinstance(one, str) else " ".join(one) for one in self._tokenizer["model"]["merges"]]
        writer.add_vocab_size(size)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self._pre)
        writer.add_token_list([text for text, _ in filled])
        writer.add_token_types([kind for _, kind in filled])
        writer.add_token_merges(merges)
        named = {text: number for number, (text, _) in self._tokens.items()}
        for key, add in (("bos_token", writer.add_bos_token_id), ("pad_token", writer.add_pad_token_id)):
            said = self._said.get(key)
            text = said.get("content") if isinstance(said, dict) else said
            if text in named:
                add(named[text])
        adders = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
        for end, add in zip(self._ends, adders, strict=False):
            add(end)
        writer.add_add_bos_token(False)  # the template says what begins a prompt, here as there
        writer.add_chat_template(self._template)

    def _header(self) -> tuple[dict[str, _Tensor], int]:
        """The tensors by llama.cpp's name, in the order of the file; and where its data begin."""
        path = self._folder / "model.safetensors"
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > path.stat().st_size:
                    raise ValueError(f"a header of {length} bytes")
                said = json.loads(file.read(length))
            found = {
                name: _Tensor(one["dtype"], tuple(one["shape"]), *one["data_offsets"])
                for name, one in said.items()
                if name != "__metadata__"
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
            raise self._wrong(f"has no model.safetensors that can be read ({error})") from None
        tied = self._config.get("tie_word_embeddings", False)
        named = {}
        for name, one in found.items():
            if name.startswith("lm_head.") and tied:
                continue
            if one.dtype not in _TYPES:
                raise self._wrong(f"holds {name} as {one.dtype}; known are {', '.join(_TYPES)}")
            try:
                named[tensor_name(name)] = one
            except KeyError:
                raise self._wrong(f"has a tensor {name!r}, for which there is no place") from None
        if lacking := {"token_embd.weight", "output_norm.weight", *(() if tied else ("output.weight",))} - named.keys():
            raise self._wrong(f"lacks the tensor {min(lacking)!r} (llama.cpp's name)")
        return named, 8 + length

    def _tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """llama.cpp's names and float32 values."""
        raw = np.memmap(self._folder / "model.safetensors", np.uint8, "r", self._data_at)
        heads = self._config["num_attention_heads"]
        for name, one in self._places.items():
            values = raw[one.begin : one.end].view(_TYPES[one.dtype]).reshape(one.shape)
            if one.dtype == "BF16":  # the upper half of a float32
                values = (values.astype(np.uint32) << 16).view(np.float32)
            whole = values.astype(np.float32)
            yield (
                name,
                in_pairs(name, whole, self._architecture, heads, self._config.get("num_key_value_heads") or heads),
            )


def _type_of(values: np.ndarray, form: Form) -> str:
    """As llama.cpp does it: rows that do not fill their blocks stay in float16."""
    return "F16" if form == "q8_0" and values.shape[-1] % BLOCK else form.upper()


def _encoded(values: np.ndarray, kind: Any) -> np.ndarray:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    values = np.ascontiguousarray(values)
    return quantize(values, kind) if kind is GGMLQuantizationType.Q8_0 else values.astype(_NUMPY[kind.name])


_NUMPY: Mapping[str, type[np.floating]] = {"F32": np.float32, "F16": np.float16}
