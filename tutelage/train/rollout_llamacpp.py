"""The student writes through llama.cpp: its weights go into a GGUF file, and a server of llama.cpp answers from it.

The file has no real tokenizer: each token's text is its number, since only ids are sent and read. (`models.gguf_student` writes
a whole file, with its tokenizer.)
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from tutelage.errors import ConfigError, StorageError, TeacherError
from tutelage.jsonl import writing
from tutelage.models.gguf_layout import ARCHITECTURES, add_sizes, in_pairs, tensor_name
from tutelage.models.process import ServedProcess
from tutelage.train.rollout import Rollout, check, context_tokens, end_ids, from_engine
from tutelage.train.rollout_fast import laid_out, merged_state
from tutelage.train.rollout_server import post_all

Kind = Literal["F32", "F16", "BF16", "Q8_0"]
_SLOT_MARGIN_TOKENS = 8


class _Place(NamedTuple):
    """Where a tensor's bytes lie in the file."""

    offset: int
    size: int


class WeightFile:
    """A GGUF file of a student's weights that can be written over in place: only the numbers change.

    Raises `ConfigError` for a model whose layout llama.cpp's names do not cover.
    """

    def __init__(self, path: Path, model: Any, ends: frozenset[int], kind: Kind) -> None:
        inner = model.get_base_model() if hasattr(model, "peft_config") else model
        self.path, self._kind, self._config = path, kind, inner.config
        rope = (getattr(inner.config, "rope_parameters", None) or {}).get("rope_type", "default")
        self._architecture = ARCHITECTURES.get(inner.config.model_type, "")
        if not self._architecture or not laid_out(model) or rope != "default":
            raise ConfigError(
                f"a student of type {inner.config.model_type!r} (rope {rope!r}) cannot be written for llama.cpp here",
                fix="use the local rollout engine",
            )
        with writing(path):
            self._create(model, ends)
        self._places = self._find()

    def rewrite(self, model: Any) -> None:
        """The weights of the same model as they are now. Raises `StorageError` when they cannot be written."""
        with writing(self.path), self.path.open("r+b") as file:
            for name, values in self._tensors(model):
                place = self._places[name]
                data = _encoded(values, self._kind_of(values)).tobytes()
                if len(data) != place.size:
                    raise StorageError(f"{self.path}: {name} changed its size", fix="start the rollout engine again")
                file.seek(place.offset)
                file.write(data)

    def _create(self, model: Any, ends: frozenset[int]) -> None:
        from gguf import GGMLQuantizationType, GGUFWriter

        writer = GGUFWriter(self.path, self._architecture)
        add_sizes(writer, self._config.to_dict())
        self._add_numbers_as_tokens(writer, sorted(ends))
        for name, values in self._tensors(model):
            kind = self._kind_of(values)
            writer.add_tensor(name, _encoded(values, kind), raw_dtype=GGMLQuantizationType[kind])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def _add_numbers_as_tokens(self, writer: Any, ends: list[int]) -> None:
        from gguf import TokenType

        size = self._config.vocab_size
        writer.add_vocab_size(size)
        writer.add_tokenizer_model("llama")
        writer.add_token_list([f"<{number}>" for number in range(size)])
        writer.add_token_scores([0.0] * size)
        writer.add_token_types([TokenType.CONTROL if number in ends else TokenType.NORMAL for number in range(size)])
        writer.add_add_bos_token(False)
        writer.add_bos_token_id(ends[0])
        writer.add_eos_token_id(ends[0])
        if len(ends) > 1:
            writer.add_eot_token_id(ends[1])  # any further end is found in the answer, which is cut there

    def _find(self) -> dict[str, _Place]:
        from gguf import GGUFReader

        return {
            tensor.name: _Place(int(tensor.data_offset), int(tensor.n_bytes))
            for tensor in GGUFReader(self.path).tensors
        }

    def _kind_of(self, values: torch.Tensor) -> Kind:
        """Vectors stay in float32: norms and biases, which llama.cpp adds in that type."""
        if values.ndim == 1:
            return "F32"
        return "F16" if self._kind == "Q8_0" and values.shape[-1] % 32 else self._kind

    def _tensors(self, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """llama.cpp's names and float32 values."""
        config = self._config
        for name, values in merged_state(model).items():
            if name.startswith("lm_head.") and config.tie_word_embeddings:
                continue
            theirs, values = tensor_name(name), values.detach().float().cpu()
            heads = config.num_attention_heads, config.num_key_value_heads
            yield theirs, in_pairs(theirs, values, self._architecture, *heads)


def _encoded(values: torch.Tensor, kind: Kind) -> np.ndarray:
    """The numbers as ggml stores them."""
    values = values.contiguous()
    if kind == "F32":
        return values.numpy()
    if kind == "F16":
        return values.half().numpy()
    if kind == "BF16":
        return values.bfloat16().view(torch.uint8).numpy()
    blocks = values.view(-1, 32)  # Q8_0: blocks of 32 values, one float16 scale and 32 signed bytes each
    scale = blocks.abs().amax(1, keepdim=True) / 127
    codes = torch.where(scale > 0, blocks / scale, torch.zeros_like(blocks)).round_().to(torch.int8)
    data = torch.cat([scale.half().view(torch.uint8), codes.view(torch.uint8)], 1)
    return data.view(*values.shape[:-1], -1).numpy()


class LlamaCppRoller:
    """Starts at the first `write`, with the weights of `model` or of the last `refresh`.

    Seeds are honoured, but which answers are computed together depends on when they arrive, so log-probabilities repeat only up
    to rounding: for resuming bit for bit use the local engine. Keys and values are kept in float16.

    `slots`: answers written at once; `tokens_per_slot`: prompt and answer together. Raises `ConfigError` as `WeightFile`.
    """

    def __init__(
        self,
        model: Any,
        slots: int = 4,
        tokens_per_slot: int = 1024,
        kind: Kind = "F16",
        ends: frozenset[int] | None = None,
    ) -> None:
        self._ends = ends or end_ids(model)
        self._context = min(context_tokens(model), tokens_per_slot)
        self._scratch = tempfile.TemporaryDirectory(prefix="tutelage-rollout-")
        folder = Path(self._scratch.name)
        self._file = WeightFile(folder / "student.gguf", model, self._ends, kind)
        size = -(-(tokens_per_slot + _SLOT_MARGIN_TOKENS) // 256) * 256
        arguments = [str(self._file.path), str(slots), str(size)]
        self._server = ServedProcess("tutelage.models.llamacpp", arguments, folder / "server.log")
        self._runs = False

    def write(
        self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, temperature: float, seeds: Sequence[int]
    ) -> list[Rollout]:
        """As `Roller.write`; raises `TeacherError` for a server that fails."""
        check(prompts, max_new_tokens, temperature, seeds, self._context)
        if not self._runs:
            self._server.__enter__()
            self._runs = True
        calls = [
            ("/completion", _body(prompt, max_new_tokens, temperature, seed))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        found = []
        answers = post_all(self._server.base_url.removesuffix("/v1"), calls, limit_s=3600)
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = answer["tokens"]
            said = answer["completion_probabilities"]
            if [one["id"] for one in said] != ids or answer["tokens_evaluated"] != len(prompt):
                raise TeacherError(
                    f"llama.cpp read {answer['tokens_evaluated']} tokens of a prompt of {len(prompt)}, or drew other tokens "
                    "than it reports",
                    fix="use another version of xllamacpp, or the local rollout engine",
                )
            logp = [one["logprob"] for one in said]
            found.append(from_engine(prompt, ids, logp, self._ends, max_new_tokens))
        return found

    def refresh(self, model: Any) -> None:
        """Writes the weights over the old ones and lets the server end; the next `write` starts it again with these."""
        self._stop()
        self._file.rewrite(model)

    def close(self) -> None:
        """Ends the server and removes the file."""
        self._stop()
        self._scratch.cleanup()

    def _stop(self) -> None:
        if self._runs:
            self._server.__exit__(None, None, None)
            self._runs = False


def _body(prompt: tuple[int, ...], max_new_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
    return {
        "prompt": list(prompt),
        "n_predict": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "samplers": ["temperature"],  # nothing else touches the distribution
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "n_probs": 1,
        "post_sampling_probs": False,
        "return_tokens": True,
        "cache_prompt": False,
        "stream": False,
    }
