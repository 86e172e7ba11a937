"""Checkpoints: weights, optimizer state and random state in safetensors (never pickle), the rest in canonical JSON.

A checkpoint folder holds `state.safetensors` and `state.json`: where training stands, and the digest of the bytes of each
tensor. The digest of `state.json` therefore names the whole state, and can be had without keeping the tensors. The folder
is written beside and renamed, so one that exists is whole.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tutelage.canon import canonical, digest_bytes
from tutelage.errors import StorageError
from tutelage.jsonl import writing

STATE, TENSORS = "state.json", "state.safetensors"


class Progress(NamedTuple):
    """Where training stands; everything a resumed run needs besides tensors."""

    step: int
    averaged: int  # how many steps the weight average holds
    best: dict[str, Any]  # metrics and digest of the best validated weights so far; {} when none
    pass_tokens: int = 0  # tokens of one forward pass at most, once memory has set a limit; 0 for none


def trainable(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save(
    folder: Path, model: Any, optimizer: torch.optim.Optimizer, average: dict[str, torch.Tensor], progress: Progress,
    *, digests_only: bool = False,
) -> None:  # fmt: skip
    """Raises `StorageError` when the disk is full; an earlier checkpoint stays."""
    parameters = trainable(model)
    tensors = {f"weights/{name}": parameter.detach() for name, parameter in parameters.items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for name, parameter in parameters.items():
        for slot, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{slot}/{name}"] = value
    tensors |= _random_states(model)
    scratch = folder.with_name(folder.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    with writing(folder):
        scratch.mkdir(parents=True)
        if not digests_only:
            save_file({name: value.contiguous() for name, value in tensors.items()}, scratch / TENSORS)
        (scratch / STATE).write_bytes(canonical({**progress._asdict(), "tensors": _digests(tensors)}))
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """Restores weights, optimizer and random state in place; returns progress and the weight average.

    `None` when there is no checkpoint. Raises `StorageError` when a digest does not match.
    """
    if not folder.exists() and folder.with_name(folder.name + ".old").exists():
        folder.with_name(folder.name + ".old").rename(folder)  # killed between the two renames
    if not folder.exists():
        return None
    try:
        record, tensors = json.loads((folder / STATE).read_bytes()), load_file(folder / TENSORS)
        if _digests(tensors) != record.pop("tensors"):
            raise ValueError("the digest of a tensor differs")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise StorageError(
            f"{folder} is damaged: {error}", fix=f"delete {folder}; training starts again from its beginning"
        ) from error
    torch.set_rng_state(tensors["rng"])
    if "rng/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng/cuda"])
    parameters, average = trainable(model), {}
    with torch.no_grad():
        for key, value in tensors.items():
            kind, _, name = key.partition("/")
            if kind == "weights":
                parameters[name].copy_(value)
            elif kind == "average":
                average[name] = value.to(parameters[name].device)
            elif kind == "optimizer":
                slot, _, name = name.partition("/")
                optimizer.state[parameters[name]][slot] = value.to(parameters[name].device)
    return Progress(**record), average


def _digests(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Of the bytes, whatever the numbers' type and wherever they are."""
    return {
        name: digest_bytes(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, value in tensors.items()
    }


def _random_states(model: Any) -> dict[str, torch.Tensor]:
    devices = {parameter.device.type for parameter in model.parameters()}
    return {"rng": torch.get_rng_state()} | ({"rng/cuda": torch.cuda.get_rng_state()} if "cuda" in devices else {})


def differences(made: Path, kept: Path) -> list[str]:
    """How one checkpoint folder differs from another in its numbers and tensors, in words; empty when it does not.

    The first tensor is named in the order weights, average, optimizer, random state, which is that of causes. How far apart
    they are is said only where both folders hold the tensors.
    """
    one, other = (json.loads((folder / STATE).read_bytes()) for folder in (made, kept))
    unlike = [key for key in Progress._fields if one.get(key) != other.get(key)]
    words = [f"{key} is {one.get(key)}, recorded is {other.get(key)}" for key in unlike]
    names = sorted(one["tensors"].keys() | other["tensors"].keys(), key=lambda name: (name[0] != "w", name))
    names = [name for name in names if one["tensors"].get(name) != other["tensors"].get(name)]
    if not names:
        return words
    words.append(f"{len(names)} of {len(other['tensors'])} tensors differ, first {names[0]}")
    if (made / TENSORS).exists() and (kept / TENSORS).exists():
        ours, theirs = load_file(made / TENSORS), load_file(kept / TENSORS)
        apart = {
            name: (ours[name].double() - theirs[name].double()).abs().max().item()
            for name in names
            if name in ours and name in theirs and not name.startswith("rng")
        }
        if apart:
            worst = max(apart, key=lambda name: apart[name])
            words.append(f"the largest difference is {apart[worst]:.3g}, in {worst}")
    return words


def save_weights(path: Path, model: Any) -> None:
    """The trainable weights alone. Raises `StorageError` when the disk is full."""
    scratch = path.with_name(path.name + ".new")
    with writing(path):
        save_file({name: parameter.detach().contiguous() for name, parameter in trainable(model).items()}, scratch)
        scratch.replace(path)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
