"""A decoder in llama.cpp's terms: what its file calls the architectures `llama`, `qwen2` and `qwen3`, their tensors and sizes.

Works on PyTorch's and NumPy's arrays alike, and imports neither.
"""

from collections.abc import Mapping
from typing import Any

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}  # by Hugging Face's `model_type`
_IN_A_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


_SIZES = (
    "num_hidden_layers", "max_position_embeddings", "hidden_size", "intermediate_size", "num_attention_heads",
    "rms_norm_eps", "vocab_size",
)  # fmt: skip


def lacking_sizes(config: Mapping[str, Any]) -> list[str]:
    """What `add_sizes` and the vocabulary need and a `config.json` does not say."""
    rope = config.get("rope_parameters") or config
    return [name for name in _SIZES if config.get(name) is None] + ([] if "rope_theta" in rope else ["rope_theta"])


def tensor_name(name: str) -> str:
    """llama.cpp's name of a tensor, from Hugging Face's. Raises `KeyError` for one it has no place for."""
    stem, _, last = name.rpartition(".")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{last}"
    _, _, layer, inner = (*stem.split(".", 3), "", "", "")[:4]
    return f"blk.{layer}.{_IN_A_LAYER[inner]}.{last}"


def in_pairs(name: str, values: Any, architecture: str, heads: int, key_heads: int) -> Any:
    """The tensor as llama.cpp turns it: for the architecture `llama` the rows of each query and key head go from (first half,
    second half) to pairs. `name` is llama.cpp's; anything else is given back as it is."""
    heads_of = {"attn_q": heads, "attn_k": key_heads}
    inner = name.split(".")[2] if name.startswith("blk.") else ""
    if architecture != "llama" or inner not in heads_of:
        return values
    count = heads_of[inner]
    rows = values.shape[0] // count
    return values.reshape(count, 2, rows // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def add_sizes(writer: Any, config: Mapping[str, Any]) -> None:
    """A model's sizes into a `gguf.GGUFWriter`, from the values of its `config.json` (see `lacking_sizes`)."""
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or config
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
