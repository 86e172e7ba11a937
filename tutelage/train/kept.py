"""Answers that the student wrote once, before training, with somebody's scores of them: learnt from as if they were fresh.

Lightning OPD (arXiv 2604.13010): a student that was trained on its teacher's text first may write all its answers once, and
the teacher score them once; importance ratios account for how far the student has moved since. After another
teacher's text they are not the answers that the student comes to write (experiment E17).

Shape legend: N loss positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tutelage.errors import StorageError
from tutelage.losses.base import Loss
from tutelage.train.rollout import Rollout
from tutelage.train.teaching import Passage, StepScores

Key = tuple[tuple[int, ...], int]
"""The tokens of a prompt, and the seed of its answer."""


class KeptRoller:
    """Gives the answers that were written already; new weights change nothing."""

    def __init__(self, kept: Mapping[Key, Rollout]) -> None:
        self._kept = kept

    def write(
        self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, temperature: float, seeds: Sequence[int]
    ) -> list[Rollout]:
        """Raises `StorageError` for an answer that was not written."""
        try:
            return [self._kept[key] for key in zip(prompts, seeds, strict=True)]
        except KeyError as error:
            raise _missing(f"the answer by seed {error.args[0][1]}") from None

    def refresh(self, model: Any) -> None:
        """Nothing: the writer is the student as it was."""

    def close(self) -> None:
        """Nothing was started."""


class KeptScores(StepScores):
    """The scores [N] that were taken once, found by the tokens of prompt and answer."""

    def __init__(self, kept: Mapping[tuple[tuple[int, ...], tuple[int, ...]], Sequence[float]], loss: Loss) -> None:
        super().__init__(loss)
        self._kept = kept

    def scores(self, step: Passage) -> torch.Tensor:
        """Raises `StorageError` for an answer that was not scored."""
        try:
            asked = [(one.ids[: one.targets[0]], one.ids[one.targets[0] :]) for one in step.examples]
            logp = [value for key in asked for value in self._kept[key]]
        except KeyError as error:
            raise _missing(f"the score of an answer of {len(error.args[0][1])} tokens") from None
        return torch.tensor(logp, dtype=torch.float32, device=step.ids_T.device)


def _missing(what: str) -> StorageError:
    return StorageError(
        f"{what} is not among the kept rollouts", fix="delete the folder rollouts: they are written anew"
    )
