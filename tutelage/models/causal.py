"""A Hugging Face causal language model as a body and a head, over packed rows.

Student and teacher are both read this way: the body runs over every token, the head only where there is a loss. Legend:
T tokens of a packed row, D width of the last hidden state, V vocabulary.
"""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tutelage.errors import ConfigError, ResourceError
from tutelage.models import packed
from tutelage.models.quiet import without_bars
from tutelage.signals import Head

_PROBE_LENGTHS = (5, 9)


class Causal:
    """Wraps a model that is there already. Raises `ConfigError` when head and body cannot be told apart.

    Whether rows can be packed is tried, not assumed: a model whose packed documents answer otherwise than alone (it keeps a
    state from token to token, or its attention is unknown to us) is run on padded rows instead, with the same results.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        inner = model.get_base_model() if hasattr(model, "peft_config") else model
        self.body: Any = inner.get_decoder() if hasattr(inner, "get_decoder") else inner.base_model
        self._output = inner.get_output_embeddings()
        self._inner = inner
        if self.body is None or self.body is inner or not isinstance(self._output, torch.nn.Linear):
            raise ConfigError(
                f"{type(inner).__name__} has no body and linear head that can be told apart",
                fix="use a decoder-only model with an output embedding, and no adapter on its head",
            )
        self._spare: torch.Tensor | None = None
        self._own_attention = inner.config._attn_implementation
        self.packs = self._probe()

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> "Causal":
        """Reads safetensors and runs no code of the folder's; without dropout. Raises `ResourceError`, and as the constructor."""
        try:
            with without_bars():
                model = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
                )
        except (OSError, ValueError, KeyError) as error:
            raise ResourceError(
                f"{folder} cannot be loaded: {error}", fix="give a Hugging Face model folder"
            ) from error
        return cls(without_dropout(model))

    @property
    def device(self) -> torch.device:
        return self._output.weight.device

    @property
    def limit(self) -> int:
        """Tokens a document may have."""
        return int(getattr(self._text_config, "max_position_embeddings", 1 << 20))

    @property
    def _text_config(self) -> Any:
        return self._inner.config.get_text_config(decoder=True)

    def head(self, columns: int | None = None) -> Head:
        """The head, with the live weights; only its first `columns` tokens when given."""
        config = self._text_config
        scale = getattr(config, "logit_scale", None) or 1.0
        if divisor := getattr(config, "logits_scaling", None):
            scale /= divisor
        softcap = getattr(config, "final_logit_softcapping", None) or 0.0
        head = Head(self._output.weight, self._output.bias, float(scale), float(softcap))
        return head.narrow(columns) if columns is not None else head

    def embeddings(self) -> tuple[torch.Tensor, ...]:
        """The weights whose rows are tokens: of the input, and of the head where it has its own."""
        return (self._inner.get_input_embeddings().weight, self._output.weight)

    def gradient_buffer(self, weight: torch.Tensor, *, zeros: bool = False) -> tuple[torch.Tensor | None, bool]:
        """Where the gradient of a part of the head is added to, made if there is none yet, and whether it holds nothing of worth;
        None for a part that is not trained."""
        if not weight.requires_grad:
            return None, False
        if weight.grad is not None:
            return weight.grad, False
        spare, self._spare = (None if zeros else self._spare), (self._spare if zeros else None)
        usable = spare is not None and spare.shape == weight.shape and spare.dtype == weight.dtype
        weight.grad = spare if usable else torch.zeros_like(weight)
        return weight.grad, usable

    def keep_buffer(self) -> None:
        """Sets the head's gradient aside, to be written over."""
        if self._output.weight.grad is not None:
            self._spare = self._output.weight.grad

    def hidden(self, ids_T: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Last hidden states [T, D] of documents that stand one after another in `ids_T`, each as if it were alone."""
        assert sum(lengths) == len(ids_T)
        return self._packed(ids_T, tuple(lengths)) if self.packs else self._padded(ids_T, lengths)

    def _packed(self, ids_T: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
        places_T = torch.cat([torch.arange(length, device=ids_T.device) for length in lengths])
        with packed.packing():
            return self.body(
                input_ids=ids_T[None], position_ids=places_T[None], use_cache=False, document_lengths=lengths
            ).last_hidden_state[0]

    def _padded(self, ids_T: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        mask_BT = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
        mask_BT = mask_BT.to(ids_T.device)
        ids_BT = torch.zeros(mask_BT.shape, dtype=torch.long, device=ids_T.device)
        ids_BT[mask_BT] = ids_T
        hidden_BTD = self.body(input_ids=ids_BT, attention_mask=mask_BT.long(), use_cache=False).last_hidden_state
        return hidden_BTD[mask_BT]

    @torch.no_grad()
    def _probe(self) -> bool:
        """Whether packed documents answer as they do alone; raises when the head does not give the model's logits."""
        training = self.model.training
        self.model.eval()
        try:
            ids_T = torch.arange(sum(_PROBE_LENGTHS), device=self.device) % min(97, self._output.weight.shape[0]) + 1
            ids_T %= self._output.weight.shape[0]
            alone = [
                self._inner(input_ids=part[None], use_cache=False).logits[0] for part in ids_T.split(_PROBE_LENGTHS)
            ]
            expected_TV = torch.cat(alone).float()
            self.packs = False
            if not _near(self.head().logits(self.hidden(ids_T, _PROBE_LENGTHS)), expected_TV):
                raise ConfigError(
                    f"{type(self._inner).__name__} computes its logits in a way that is not known here",
                    fix="use a model whose logits are its output embedding times the last hidden state",
                )
            return self._try_packing(ids_T, expected_TV)
        finally:
            self.model.train(training)

    def _try_packing(self, ids_T: torch.Tensor, expected_TV: torch.Tensor) -> bool:
        try:
            self._inner.set_attn_implementation(packed.register())
            found_TV = self.head().logits(self._packed(ids_T, _PROBE_LENGTHS))
        except (NotImplementedError, TypeError, ValueError, KeyError, AttributeError):
            found_TV = None
        if found_TV is not None and _near(found_TV, expected_TV):
            return True
        self._inner.set_attn_implementation(self._own_attention)
        return False


def without_dropout(model: Any) -> Any:
    """The model, with every dropout set to 0, in its configuration too: what it learns must be its own distribution, which it
    writes and is judged with, and not depend on the passes that a step is taken in."""
    for part in (*model.modules(), model.config, model.config.get_text_config(decoder=True)):
        if isinstance(part, torch.nn.modules.dropout._DropoutNd):
            part.p = 0.0
        for name, value in vars(part).items():
            if isinstance(value, float) and "drop" in name:
                setattr(part, name, 0.0)
    return model


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """The cache under the name that this model's `forward` knows it by: transformers renamed it, architecture by architecture."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model  # adapters hide the arguments' names
    return {"cache" if "cache" in signature(inner.forward).parameters else "past_key_values": cache}


def _near(found_TV: torch.Tensor, expected_TV: torch.Tensor) -> bool:
    """As near as rounding leaves two orders of the same sums: looser for weights in half precision."""
    loose = found_TV.dtype in (torch.bfloat16, torch.float16)
    return torch.allclose(
        found_TV.float(), expected_TV, rtol=0.0, atol=(0.15 if loose else 1e-3) * _spread(expected_TV)
    )


def _spread(logits_TV: torch.Tensor) -> float:
    return max(1.0, float(logits_TV.std()))
