"""A short way through a Llama-like decoder, for writing answers: the live weights, a static cache, one product a matrix.

The body of a model is read by its parts' names (rotary attention with grouped heads, gated feed-forward, root-mean-square
norms; Llama, Mistral, Qwen2 and Qwen3 are laid out so). What is not laid out so is not taken; `LocalRoller` tries on
some tokens that what is taken answers as the model itself. Legend: B answers, N tokens, D hidden, V vocabulary, H query
heads, G key heads, R query heads a key head, S key slots, E width of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention

Precision = Literal["own", "bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("own", "bfloat16", "int8")
_FEW_ROWS = 64  # for more rows than this the plain product is as good, and needs no copy
_INNER = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_OUTER = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_NORMS = ("input_layernorm", "post_attention_layernorm")
_HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")  # the others' angles depend on how long the text has become


class Product:
    """Matrices that are multiplied with the same rows, as one: y = [x W₀ᵀ, x W₁ᵀ, …] (+ bias).

    On a CPU a copy laid out for few rows is made (a step reads every weight once, and is bound by that: fp32 rows of four
    ran twice as fast); "int8" rounds each output's weights to 8 bits, "bfloat16" to 16.
    """

    def __init__(self, parts: Sequence[torch.nn.Linear | Any], precision: Precision) -> None:
        self._weights = [matrix(part) for part in parts]
        self._biases = [_inner(part).bias for part in parts]
        self._few = self._packed(precision) if self._weights[0].device.type == "cpu" else None

    def __call__(self, x_ND: torch.Tensor) -> torch.Tensor:
        if self._few is not None and len(x_ND) <= _FEW_ROWS:
            return self._few(x_ND)
        found = [linear(x_ND, weight, bias) for weight, bias in zip(self._weights, self._biases, strict=True)]
        return found[0] if len(found) == 1 else torch.cat(found, -1)

    def _packed(self, precision: Precision) -> Callable[[torch.Tensor], torch.Tensor] | None:
        weight = self._weights[0] if len(self._weights) == 1 else torch.cat(self._weights)
        bias = None if self._biases[0] is None else torch.cat(self._biases)
        if precision == "int8":
            return _int8(weight, bias)
        dtype = torch.bfloat16 if precision == "bfloat16" else weight.dtype
        if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
            return None
        bias = None if bias is None else bias.to(dtype)
        if (
            dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
        ):  # a CPU without AVX-512: nothing to lay out
            rounded = weight.to(dtype)
            return lambda x_ND: linear(x_ND.to(dtype), rounded, bias).to(x_ND.dtype)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), 4)
        multiply = torch.ops.mkldnn._linear_pointwise
        return lambda x_ND: multiply(x_ND.to(dtype), packed, bias, "none", [], "").to(x_ND.dtype)


def _int8(weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """Symmetric rounding, one scale an output."""
    scale = (weight.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
    codes, scale = (weight / scale).round_().to(torch.int8), scale[:, 0].bfloat16()

    def multiply(x_ND: torch.Tensor) -> torch.Tensor:
        y_N = torch.ops.aten._weight_int8pack_mm(x_ND.bfloat16(), codes, scale).to(x_ND.dtype)
        return y_N if bias is None else y_N + bias

    return multiply


class Layer(NamedTuple):
    """One block of the decoder."""

    first_norm: torch.Tensor
    qkv: Product
    head_norms: tuple[torch.Tensor, torch.Tensor] | None
    out: Product
    second_norm: torch.Tensor
    gate_up: Product
    down: Product


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's parts in the order they are used, over its live parameters."""

    embedding_VD: torch.Tensor
    layers: tuple[Layer, ...]
    norm_D: torch.Tensor
    head: Product
    rotary: Any
    activation: Callable[[torch.Tensor], torch.Tensor]
    epsilon: float
    scaling: float
    heads: int
    key_heads: int
    width: int

    @classmethod
    def of(cls, model: Any, precision: Precision = "own") -> "Weights":
        """Only of a model that is `laid_out`."""
        inner, body, config = _body(model)
        attention = body.layers[0].self_attn

        def layer(block: Any) -> Layer:
            own, mlp = block.self_attn, block.mlp
            norms = (own.q_norm.weight, own.k_norm.weight) if hasattr(own, "q_norm") else None
            return Layer(
                block.input_layernorm.weight,
                Product([own.q_proj, own.k_proj, own.v_proj], precision),
                norms,
                Product([own.o_proj], precision),
                block.post_attention_layernorm.weight,
                Product([mlp.gate_proj, mlp.up_proj], precision),
                Product([mlp.down_proj], precision),
            )

        return cls(
            embedding_VD=body.embed_tokens.weight,
            layers=tuple(layer(block) for block in body.layers),
            norm_D=body.norm.weight,
            head=Product([inner.get_output_embeddings()], precision),
            rotary=body.rotary_emb,
            activation=body.layers[0].mlp.act_fn,
            epsilon=float(config.rms_norm_eps),
            scaling=float(attention.scaling),
            heads=config.num_attention_heads,
            key_heads=config.num_key_value_heads,
            width=int(attention.head_dim),
        )


def laid_out(model: Any) -> bool:
    """Whether all parts of the model, and no others, are those that are read here."""
    try:
        _, body, config = _body(model)
        rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
        windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
        kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
        if kinds or windowed or rope not in _STATIC_ROPE or not hasattr(body, "rotary_emb"):
            return False
        return all(_block_laid_out(block) for block in body.layers)
    except AttributeError:
        return False


def _block_laid_out(block: Any) -> bool:
    modules = dict(block.named_modules())
    linears = [modules[name] for name in (*_INNER, *_OUTER) if name in modules]
    if len(linears) != len(_INNER) + len(_OUTER) or not all(map(_plain, linears)):
        return False
    biased = [{_inner(part).bias is None for part in group} for group in (linears[:3], linears[4:6])]
    known = {name.replace(".base_layer", "") for name, _ in block.named_parameters() if "lora_" not in name}
    allowed = {f"{name}.weight" for name in (*_INNER, *_OUTER, *_NORMS, *_HEAD_NORMS)}
    allowed |= {f"{name}.bias" for name in (*_INNER, *_OUTER)}
    return known <= allowed and all(len(kind) == 1 for kind in biased)


def _plain(module: Any) -> bool:
    """A linear layer, or one with low-rank adapters that add to its weights and do nothing else."""
    if type(module) is torch.nn.Linear:
        return True
    adapted = hasattr(module, "get_delta_weight") and type(getattr(module, "base_layer", None)) is torch.nn.Linear
    return adapted and not module.lora_variant and not any(module.lora_bias.values())


def _inner(module: Any) -> Any:
    return getattr(module, "base_layer", module)


def matrix(module: Any) -> torch.Tensor:
    """A layer's weights [out, in]: the live ones, or a copy with its adapters' product added (LoRA, arXiv 2106.09685,
    eq. 3)."""
    weight = _inner(module).weight
    if not hasattr(module, "get_delta_weight") or module.merged or module.disable_adapters:
        return weight
    names = [name for name in module.active_adapters if name in module.lora_A]
    return sum((module.get_delta_weight(name).to(weight.dtype) for name in names), weight)


def merged_state(model: Any) -> dict[str, torch.Tensor]:
    """Weights by name as the model without adapters would have them, with what adapters add put in."""
    inner, _, _ = _body(model)
    state = {
        name.replace(".base_layer", ""): value for name, value in inner.state_dict().items() if "lora_" not in name
    }
    for name, module in inner.named_modules():
        if hasattr(module, "get_delta_weight"):
            state[f"{name}.weight"] = matrix(module).detach()
    return state


def _body(model: Any) -> tuple[Any, Any, Any]:
    """The model without adapters around it, its decoder and their configuration."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    return inner, inner.get_decoder(), inner.config.get_text_config(decoder=True)


class FastDecoder:
    """Answers under way: `start` reads the prompts, `step` one token of each, `keep` lets the others go.

    Prompts end at the same column of the cache, so that a step writes one column; a shorter one begins later. They are read
    without padding, equal ones once.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def start(self, prompts: Sequence[tuple[int, ...]], new_tokens: int) -> torch.Tensor:
        """Next-token logits_BV; makes room for `new_tokens` answers' tokens each."""
        own, longest = self._weights, max(map(len, prompts))
        device, dtype = own.embedding_VD.device, own.embedding_VD.dtype
        slots = longest + new_tokens
        shape = (len(prompts), own.key_heads, slots, own.width)
        self._cache = [
            (torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
            for _ in own.layers
        ]
        self._column = longest
        lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self._skipped_B = longest - lengths_B
        self._ragged = min(map(len, prompts)) < longest
        hidden = torch.arange(slots, device=device) < self._skipped_B[:, None]
        self._mask_B11S = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))[
            :, None, None
        ]
        at_1S = torch.arange(slots, device=device)[None]
        cos_1SE, sin_1SE = own.rotary(torch.zeros((), dtype=dtype, device=device), position_ids=at_1S)
        half = own.width // 2
        self._turn = (cos_1SE[0, :, None], torch.cat([-sin_1SE[0, :, None, :half], sin_1SE[0, :, None, half:]], -1))
        return self._read(prompts)

    def _read(self, prompts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        rows: dict[tuple[int, ...], list[int]] = {}
        for at, prompt in enumerate(prompts):
            rows.setdefault(prompt, []).append(at)
        device, longest = self._skipped_B.device, self._column
        ids_N = torch.tensor([token for prompt in rows for token in prompt], device=device)
        places_N = torch.cat([torch.arange(len(prompt), device=device) for prompt in rows])

        def attend(at: int, q_NHE: torch.Tensor, k_NGE: torch.Tensor, v_NGE: torch.Tensor) -> torch.Tensor:
            keys, values = self._cache[at]
            found, begin = [], 0
            for prompt, same in rows.items():
                part = slice(begin, begin := begin + len(prompt))
                k_GSE, v_GSE = k_NGE[part].transpose(0, 1), v_NGE[part].transpose(0, 1)
                for row in same:
                    keys[row, :, longest - len(prompt) : longest] = k_GSE
                    values[row, :, longest - len(prompt) : longest] = v_GSE
                y_1HNE = scaled_dot_product_attention(
                    q_NHE[part].transpose(0, 1)[None], k_GSE[None], v_GSE[None],
                    is_causal=True, scale=self._weights.scaling, enable_gqa=True,
                )  # fmt: skip
                found.append(y_1HNE[0].transpose(0, 1))
            return torch.cat(found)

        x_ND = self._layers(ids_N, places_N, attend)
        last = torch.tensor([len(prompt) for prompt in rows], device=device).cumsum(0) - 1
        logits = self._logits(x_ND[last])
        where = {row: at for at, same in enumerate(rows.values()) for row in same}
        return logits[[where[row] for row in range(len(prompts))]]

    def step(self, ids_B: torch.Tensor) -> torch.Tensor:
        """Next-token logits_BV after one more token of each answer."""
        own, column = self._weights, self._column
        mask = self._mask_B11S[..., : column + 1] if self._ragged else None

        def attend(at: int, q_BHE: torch.Tensor, k_BGE: torch.Tensor, v_BGE: torch.Tensor) -> torch.Tensor:
            keys, values = self._cache[at]
            keys[:, :, column], values[:, :, column] = k_BGE, v_BGE
            q_BGRE = q_BHE.reshape(len(q_BHE), own.key_heads, -1, own.width)
            return scaled_dot_product_attention(
                q_BGRE, keys[:, :, : column + 1], values[:, :, : column + 1], attn_mask=mask, scale=own.scaling
            )

        x_BD = self._layers(ids_B, column - self._skipped_B, attend)
        self._column += 1
        return self._logits(x_BD)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        at = torch.tensor(rows, device=self._skipped_B.device)
        self._cache = [(keys[at], values[at]) for keys, values in self._cache]
        self._skipped_B, self._mask_B11S = self._skipped_B[at], self._mask_B11S[at]

    def _layers(self, ids_N: torch.Tensor, places_N: torch.Tensor, attend: Callable[..., torch.Tensor]) -> torch.Tensor:
        own = self._weights
        cos_N1E, sin_N1E = (table[places_N] for table in self._turn)
        turned = own.heads + own.key_heads
        x_ND = own.embedding_VD[ids_N]
        size = x_ND.shape[-1:]
        for at, layer in enumerate(own.layers):
            y_NHE = layer.qkv(rms_norm(x_ND, size, layer.first_norm, own.epsilon)).view(len(x_ND), -1, own.width)
            qk_NHE = y_NHE[:, :turned]
            if layer.head_norms is not None:
                parts = (qk_NHE[:, : own.heads], qk_NHE[:, own.heads :])
                qk_NHE = torch.cat(
                    [
                        rms_norm(part, (own.width,), norm, own.epsilon)
                        for part, norm in zip(parts, layer.head_norms, strict=True)
                    ],
                    1,
                )
            qk_NHE = torch.addcmul(qk_NHE * cos_N1E, qk_NHE.roll(own.width // 2, -1), sin_N1E)
            y_NHE = attend(at, qk_NHE[:, : own.heads], qk_NHE[:, own.heads :], y_NHE[:, turned:])
            x_ND = x_ND + layer.out(y_NHE.reshape(len(x_ND), -1))
            gate, up = layer.gate_up(rms_norm(x_ND, size, layer.second_norm, own.epsilon)).chunk(2, -1)
            x_ND = x_ND + layer.down(own.activation(gate) * up)
        return x_ND

    def _logits(self, x_BD: torch.Tensor) -> torch.Tensor:
        own = self._weights
        return own.head(rms_norm(x_BD, x_BD.shape[-1:], own.norm_D, own.epsilon))
