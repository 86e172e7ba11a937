"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W + (α / r) B A with W frozen, through peft."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def add_lora(model: Any, rank: int, alpha: float, targets: Sequence[str] = TARGETS) -> Any:
    """The model with adapters on its linear layers of these names; only they are trained. B begins as 0: nothing changes until
    it is. Raises `ConfigError` for a rank below 1, for no such layer, and for the head."""
    peft = _peft()
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    if rank < 1:
        raise ConfigError(f"student.lora.rank = {rank}", fix="give 1 or more, for instance 16")
    if "lm_head" in targets or not set(targets) <= names:
        wrong = [target for target in targets if target == "lm_head" or target not in names]
        raise ConfigError(
            f"{type(model).__name__} takes no adapter on {', '.join(wrong)}",
            fix=f"choose among {', '.join(target for target in TARGETS if target in names) or 'its linear layers'}",
        )
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), task_type="CAUSAL_LM", lora_dropout=0.0
    )
    return peft.get_peft_model(model, config)


def merge(model: Any) -> Any:
    """The plain model with the adapters added to its weights, as it is shipped."""
    return model.merge_and_unload(safe_merge=True)


def save_lora(model: Any, folder: Path) -> None:
    """Adapters alone, as safetensors."""
    model.save_pretrained(folder, safe_serialization=True)


def load_lora(model: Any, folder: Path) -> Any:
    """The model with adapters that `save_lora` wrote; they can be trained on."""
    return _peft().PeftModel.from_pretrained(model, folder, is_trainable=True)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError("adapters need the package peft", fix='pip install "tutelage[train]"') from error
    return peft
