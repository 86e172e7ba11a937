"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W + (α / r) B A with W frozen, through peft."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tutelage.errors import ConfigError, ResourceError
from tutelage.jsonl import writing

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_WEIGHTS = "adapter_model.safetensors"


def add_lora(model: Any, rank: int, alpha: float, targets: Sequence[str] = TARGETS) -> Any:
    """The model with adapters on its linear layers of these names; only they are trained. B begins as 0: nothing changes until
    it is. Raises `ConfigError` for a rank below 1, an α not above 0, for no such layer, and for the head (which may be tied to
    the embedding: merging would change both)."""
    peft = _peft()
    names = _linear_names(model)
    if rank < 1:
        raise ConfigError(f"student.lora.rank = {rank}", fix="give 1 or more, for instance 16")
    if not alpha > 0:
        raise ConfigError(f"student.lora.alpha = {alpha}", fix="give more than 0, for instance twice the rank")
    wrong = [target for target in targets if target not in names]
    if wrong or not targets:
        raise ConfigError(
            f"{type(model).__name__} takes no adapter on {', '.join(wrong) or 'nothing'}",
            fix=f"choose among {', '.join(sorted(names)) or 'the linear layers of another model'}",
        )
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), task_type="CAUSAL_LM", lora_dropout=0.0
    )
    return _adapted(model, config)


def _adapted(model: Any, config: Any) -> Any:
    with warnings.catch_warnings():  # peft asks transformers for a name that is going away
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return _peft().get_peft_model(model, config)


def _linear_names(model: Any) -> set[str]:
    """Last names of the linear layers, GPT-2's kind among them, but for the head."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def merge(model: Any) -> Any:
    """The plain model with the adapters added to its weights, as it is shipped."""
    return model.merge_and_unload(safe_merge=True)


def save_lora(model: Any, folder: Path) -> None:
    """Adapters alone, as safetensors with peft's configuration, which others read too; it does not say where the base lay."""
    config = copy.copy(model.peft_config["default"])
    config.base_model_name_or_path, config.inference_mode = None, True
    config.target_modules = sorted(config.target_modules)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_adapters(model), folder / _WEIGHTS, metadata={"format": "pt"})
        config.save_pretrained(folder)


def load_lora(model: Any, folder: Path) -> Any:
    """The model with adapters that `save_lora` wrote; they can be trained on. Nothing but safetensors is read, and nothing from
    elsewhere. Raises `ResourceError` when they are not there or are another model's."""
    peft = _peft()
    if not all((folder / name).is_file() for name in (_WEIGHTS, "adapter_config.json")):
        raise ResourceError(
            f"{folder} has no {_WEIGHTS} and adapter_config.json", fix="give a folder of adapters in safetensors"
        )
    wrong = f"{folder} holds no adapters for this {type(model).__name__}"
    fix = "give the base that the adapters were trained on, and the files as they were saved"
    try:
        saved, config = load_file(folder / _WEIGHTS), peft.LoraConfig.from_pretrained(str(folder))
        config.inference_mode = False
        adapted = _adapted(model, config)
    except (ValueError, TypeError, SafetensorError) as error:
        raise ResourceError(f"{wrong}: {error}", fix=fix) from error
    own = _adapters(adapted)
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in saved.items()}:
        adapted.unload()
        raise ResourceError(wrong, fix=fix)
    peft.set_peft_model_state_dict(adapted, saved)
    return adapted


def _adapters(model: Any) -> dict[str, Any]:
    found = _peft().get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: value.contiguous() for name, value in found.items()}


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError("adapters need the package peft", fix='pip install "tutelage[train]"') from error
    return peft
