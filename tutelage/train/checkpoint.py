"""Checkpoints: weights, optimizer state and random state in safetensors (never pickle), the rest in canonical JSON.

A checkpoint folder is written beside and renamed, so one that exists is whole.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from tutelage.canon import canonical, digest_file
from tutelage.errors import StorageError
from tutelage.jsonl import writing


class Progress(NamedTuple):
    """Where training stands; everything a resumed run needs besides tensors."""

    step: int
    averaged: int  # how many steps the weight average holds
    best: dict[str, Any]  # metrics of the best validated weights so far; {} when none


def trainable(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save(
    folder: Path, model: Any, optimizer: torch.optim.Optimizer, average: dict[str, torch.Tensor], progress: Progress
) -> None:
    """Raises `StorageError` when the disk is full; an earlier checkpoint stays."""
    parameters = trainable(model)
    tensors = {f"weights/{name}": parameter.detach() for name, parameter in parameters.items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    tensors["rng"] = torch.get_rng_state()
    scratch = folder.with_name(folder.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    with writing(folder):
        scratch.mkdir(parents=True)
        save_file({name: value.contiguous() for name, value in tensors.items()}, scratch / "state.safetensors")
        record = {**progress._asdict(), "state": digest_file(scratch / "state.safetensors")}
        (scratch / "progress.json").write_bytes(canonical(record))
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """Restores weights, optimizer and random state in place; returns progress and the weight average.

    `None` when there is no checkpoint. Raises `StorageError` when its digest does not match.
    """
    if not folder.exists() and folder.with_name(folder.name + ".old").exists():
        folder.with_name(folder.name + ".old").rename(folder)  # killed between the two renames
    if not folder.exists():
        return None
    record = json.loads((folder / "progress.json").read_bytes())
    if digest_file(folder / "state.safetensors") != record.pop("state"):
        raise StorageError(f"{folder} is damaged", fix=f"delete {folder}; training starts again from its beginning")
    tensors = load_file(folder / "state.safetensors")
    torch.set_rng_state(tensors["rng"])
    average = {}
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(tensors[f"weights/{name}"])
            if f"average/{name}" in tensors:
                average[name] = tensors[f"average/{name}"]
            prefix = {
                key: key.removeprefix("optimizer/").split("/", 1) for key in tensors if key.startswith("optimizer/")
            }
            state = {kind: tensors[key] for key, (kind, owner) in prefix.items() if owner == name}
            if state:
                optimizer.state[parameter] = state
    return Progress(**record), average


def save_weights(path: Path, model: Any) -> None:
    """The trainable weights alone. Raises `StorageError` when the disk is full."""
    scratch = path.with_name(path.name + ".new")
    with writing(path):
        save_file({name: parameter.detach().contiguous() for name, parameter in trainable(model).items()}, scratch)
        scratch.replace(path)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
