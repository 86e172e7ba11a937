"""What student and teacher look like to each other as training goes, at a few positions a step.

Agreement of the likeliest tokens tells whether distillation on-policy can work at all (Rethinking OPD, arXiv 2604.13016: the
shared ones carry nearly all mass where it does). Shape legend: N positions, V vocabulary, K likeliest tokens.
"""

from collections import defaultdict
from typing import Any

import torch

from tutelage.losses.alm import Chunks
from tutelage.signals import Dense, Hidden, Signal, Sparse, TopK
from tutelage.train.batch import Batch, Drawn

LOOKED_AT = 64  # positions a step
LIKELIEST = 16


class Watch:
    """Is told how many positions a step has (`begin`), shown its logits (`look`), and gives the means (`means`)."""

    def __init__(self, ratios: tuple[float, float] | None = None) -> None:
        """`ratios`: the least and the largest q / q_drawn that a loss does not leave out; None where it leaves nothing out."""
        self._positions, self._passed, self._ratios = 0, 0, ratios
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def begin(self, positions: int) -> None:
        """A step of so many positions."""
        self._positions, self._passed = positions, 0

    def look(self, logits_NV: torch.Tensor, batch: Batch, term: int, at: slice) -> None:
        """`LOOKED_AT` positions evenly over the step; the logits are left as they are."""
        passed_N = torch.arange(self._passed, self._passed + len(logits_NV))
        self._passed += len(logits_NV)
        self._add_masked(logits_NV, batch.terms[term].drawn, at)
        near_N = passed_N * LOOKED_AT % max(self._positions, LOOKED_AT) < LOOKED_AT
        if not near_N.any():
            return
        logq_NV = logits_NV[near_N].float().log_softmax(-1)
        self._add("entropy_nats", -(logq_NV.exp() * logq_NV).sum(-1))
        seen = batch.terms[term]
        for name, values_N in compared(logq_NV, seen.parts[0].signal.rows(at).rows(near_N)).items():
            self._add(name, values_N)
        if seen.drawn is not None:
            ids_N, logp_N = (values_N[at][near_N] for values_N in seen.drawn)
            self._add("drift_nats", (logq_NV.gather(1, ids_N[:, None])[:, 0] - logp_N).abs())

    def _add_masked(self, logits_NV: torch.Tensor, drawn: Drawn | None, at: slice) -> None:
        """Whether each position's ratio is outside: of all positions, for the share is small where all is well."""
        if self._ratios is None or drawn is None:
            return
        ids_N, logp_N = (values_N[at] for values_N in drawn)
        logq_N = logits_NV.gather(1, ids_N[:, None])[:, 0].float() - logits_NV.float().logsumexp(-1)
        ratio_N = torch.exp(logq_N - logp_N)
        self._add("masked_share", ((ratio_N < self._ratios[0]) | (ratio_N > self._ratios[1])).float())

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
    student's likeliest tokens, where all of it is known); `overlap`: share of the likeliest that both name; `compared`: share
    that is in chunks."""
    if isinstance(signal, Hidden):
        signal = signal.dense()
    count = min(LIKELIEST, logq_NV.shape[1])
    if isinstance(signal, Dense):
        named_NK, own_NK = signal.logp_NV.topk(count).indices, logq_NV.topk(count).indices
        return {
            "student_mass": logq_NV.gather(1, named_NK).exp().sum(-1),
            "teacher_mass": signal.logp_NV.gather(1, own_NK).exp().sum(-1),
            "overlap": _overlap(named_NK, own_NK, torch.ones_like(own_NK, dtype=torch.bool)),
        }
    if isinstance(signal, TopK):
        present_NK = signal.logp_NK > -torch.inf
        student_N = torch.where(present_NK, logq_NV.gather(1, signal.ids_NK).exp(), 0.0).sum(-1)
        count = min(count, signal.ids_NK.shape[1])
        best = signal.logp_NK.topk(count)
        named_NK = signal.ids_NK.gather(1, best.indices)
        overlap_N = _overlap(named_NK, logq_NV.topk(count).indices, best.values > -torch.inf)
        return {"student_mass": student_N, "teacher_mass": 1 - signal.tail_N.exp(), "overlap": overlap_N}
    if isinstance(signal, Sparse):
        q_NK = logq_NV.gather(1, signal.ids_NK).exp()
        return {"student_mass": torch.where(signal.weights_NK > 0, q_NK, 0.0).sum(-1)}
    if isinstance(signal, Chunks):
        return {"compared": (signal.unit_N >= 0).float()}
    return {}


def _overlap(one_NK: torch.Tensor, other_NK: torch.Tensor, present_NK: torch.Tensor) -> torch.Tensor:
    """Of ids in the order of their likelihood, as many of both as are present."""
    same_NKK = (one_NK[:, :, None] == other_NK[:, None, :]) & present_NK[:, :, None] & present_NK[:, None, :]
    return same_NKK.any(-1).sum(-1) / present_NK.sum(-1).clamp(min=1)


def numbers(entry: dict[str, Any]) -> dict[str, float]:
    """Of a journal's line what can be drawn as a curve."""
    return {name: float(value) for name, value in entry.items() if isinstance(value, int | float) and name != "at_s"}
