"""What student and teacher look like to each other as training goes, at a few positions a step.

Agreement of the likeliest tokens tells whether distillation on-policy can work at all (Rethinking OPD, arXiv 2604.13016: the
shared ones carry nearly all mass where it does). Shape legend: N positions, V vocabulary, K likeliest tokens.
"""

from collections import defaultdict
from typing import Any

import torch

from tutelage.signals import Dense, Hidden, Signal, Sparse, TopK
from tutelage.train.batch import Batch

LOOKED_AT = 64  # positions a step
LIKELIEST = 16


class Watch:
    """Is shown logits by the step (`look`) and gives means since the last call (`means`)."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def look(self, logits_NV: torch.Tensor, batch: Batch, term: int, at: slice) -> None:
        """The first positions of a step; the logits are left as they are."""
        room = LOOKED_AT - self._counts["entropy_nats"]
        if room <= 0:
            return
        logq_NV = logits_NV[:room].float().log_softmax(-1)
        self._add("entropy_nats", -(logq_NV.exp() * logq_NV).sum(-1))
        signal = batch.terms[term].parts[0].signal.rows(at).rows(slice(0, len(logq_NV)))
        for name, values_N in compared(logq_NV, signal).items():
            self._add(name, values_N)

    def means(self) -> dict[str, float]:
        """Means of what was looked at; empty when nothing was."""
        found = {name: self._sums[name] / count for name, count in self._counts.items() if count}
        self._sums.clear()
        self._counts.clear()
        return found

    def _add(self, name: str, values_N: torch.Tensor) -> None:
        self._sums[name] += values_N.sum().item()
        self._counts[name] += len(values_N)


def compared(logq_NV: torch.Tensor, signal: Signal) -> dict[str, torch.Tensor]:
    """`student_mass`: the student's probability on what the teacher names; `teacher_mass`: the teacher's on it (or on the
    student's likeliest tokens, where all of it is known); `overlap`: share of the likeliest that both name."""
    if isinstance(signal, Hidden):
        signal = signal.dense()
    count = min(LIKELIEST, logq_NV.shape[1])
    if isinstance(signal, Dense):
        named_NK, own_NK = signal.logp_NV.topk(count).indices, logq_NV.topk(count).indices
        return {
            "student_mass": logq_NV.gather(1, named_NK).exp().sum(-1),
            "teacher_mass": signal.logp_NV.gather(1, own_NK).exp().sum(-1),
            "overlap": _overlap(named_NK, own_NK),
        }
    if isinstance(signal, TopK):
        present_NK = signal.logp_NK > -torch.inf
        student_N = torch.where(present_NK, logq_NV.gather(1, signal.ids_NK).exp(), 0.0).sum(-1)
        count = min(count, signal.ids_NK.shape[1])
        named_NK = signal.ids_NK.gather(1, signal.logp_NK.topk(count).indices)
        overlap_N = _overlap(named_NK, logq_NV.topk(count).indices)
        return {"student_mass": student_N, "teacher_mass": 1 - signal.tail_N.exp(), "overlap": overlap_N}
    if isinstance(signal, Sparse):
        q_NK = logq_NV.gather(1, signal.ids_NK).exp()
        return {"student_mass": torch.where(signal.weights_NK > 0, q_NK, 0.0).sum(-1)}
    return {}


def _overlap(one_NK: torch.Tensor, other_NK: torch.Tensor) -> torch.Tensor:
    return (one_NK[:, :, None] == other_NK[:, None, :]).any(-1).float().mean(-1)


def numbers(entry: dict[str, Any]) -> dict[str, float]:
    """Of a journal's line what can be drawn as a curve."""
    return {name: float(value) for name, value in entry.items() if isinstance(value, int | float) and name != "at_s"}
