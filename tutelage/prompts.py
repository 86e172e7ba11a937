"""The prompts of a run, by kind: the types keep held-out prompts out of training."""

from pathlib import Path
from typing import Any, NamedTuple

from tutelage.jsonl import read_lines, write_lines
from tutelage.records import HeldOutPrompt, TrainPrompt, ValidationPrompt

_KINDS = {"train": TrainPrompt, "validation": ValidationPrompt, "held-out": HeldOutPrompt}


class Prompts(NamedTuple):
    """`train` is stepped on, `validation` is tuned by, `held_out` is kept for the proof."""

    train: tuple[TrainPrompt, ...]
    validation: tuple[ValidationPrompt, ...]
    held_out: tuple[HeldOutPrompt, ...]


def write_prompts(path: Path, prompts: Prompts) -> None:
    kinds = zip(_KINDS, prompts, strict=True)
    write_lines(path, ({"kind": kind, **prompt.to_json()} for kind, members in kinds for prompt in members))


def read_prompts(path: Path) -> Prompts:
    """Raises `ValueError` when a line is not a prompt of a known kind."""
    found: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    for value in read_lines(path):
        kind = value.pop("kind")
        found[kind].append(_KINDS[kind].from_json(value))
    return Prompts(*(tuple(found[kind]) for kind in _KINDS))
