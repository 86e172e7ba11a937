"""Tiny random students of several families, whose answers differ from prompt to prompt."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 61
END = 7
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False},
    "qwen3": {"head_dim": 24},
}


def student(family: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """In eval mode, float32; weights and norms drawn wide enough that rotation, grouping, biases and norms all matter."""
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 96,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "pad_token_id": None,
        "eos_token_id": END,
        "tie_word_embeddings": True,
    } | FAMILIES.get(family, {})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(settings | changes)))
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


@torch.no_grad()
def scored(model: Any, prompt: tuple[int, ...], ids: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities of `ids` after `prompt` by one plain forward pass, without a cache."""
    logits_TV = model(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0].float()
    logp_TV = logits_TV.log_softmax(-1)[len(prompt) - 1 : -1]
    return logp_TV.gather(1, torch.tensor(ids)[:, None])[:, 0]
