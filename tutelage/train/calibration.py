"""Whether a student that gives a token 80 % is right 80 % of the time, on conversations that were set aside; and the one
temperature that mends its confidence (Guo et al. 2017, arXiv 1706.04599, §4.2), fitted on one half of them and measured on the
other.

Shape legend: T tokens, N positions, D hidden, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from tutelage.losses.base import at_least_float32
from tutelage.losses.chunked import chunk_rows
from tutelage.models.causal import Causal
from tutelage.signals import Dense, Head, Hidden, Signal
from tutelage.stats.calibration import expected_calibration_error, temperature_at
from tutelage.train.examples import Example
from tutelage.train.offpolicy import passage_of
from tutelage.train.teaching import Teaching

POSITIONS = 2048  # of each half, the last conversation whole


class Calibration(NamedTuple):
    """On `positions` of the half that nothing was fitted on: how often the likeliest token is the text's, the expected
    calibration error of its probability as it is and at `temperature`, in proportions; and the mean KL(p ‖ q) of the teacher's
    distribution in nats, before and after, None where none is known. `temperature` is None where none fits: all tokens are right,
    or the student knows less than chance."""

    positions: int
    right: float
    ece: float
    temperature: float | None
    ece_after: float | None
    kl_nats: float | None
    kl_nats_after: float | None
    teacher_ece: float | None

    def facts(self) -> dict[str, int]:
        """In millionths; what is not known is left out."""
        found = {name: value for name, value in self._asdict().items() if value is not None}
        return {"positions": found.pop("positions"), **{f"{name}_ppm": round(1e6 * v) for name, v in found.items()}}


class Half(NamedTuple):
    """What the student's head reads, the text's tokens, and what the teacher says of them, a signal a conversation."""

    hidden_ND: torch.Tensor
    ids_N: torch.Tensor
    said: tuple[Signal, ...]


class Sure(NamedTuple):
    """Of each position: probability of the likeliest token, and whether the text has it; KL from the teacher where known."""

    top_N: torch.Tensor
    right_N: torch.Tensor
    kl_N: torch.Tensor | None


@torch.no_grad()
def calibrate(
    student: Causal, examples: Sequence[Example], autocast: torch.autocast, teaching: Teaching | None = None
) -> Calibration | None:
    """None for fewer than two conversations. They are dealt to the halves by turns; `teaching` says what the teacher expects,
    where it gives whole distributions."""
    if len(examples) < 2:
        return None
    student.model.eval()
    head = student.head()
    fitted, measured = (_half(student, examples[side::2], autocast, told) for side, told in ((0, None), (1, teaching)))
    temperature = _temperature(fitted, head)
    before = _sure(measured, head, 1.0)
    after = None if temperature is None else _sure(measured, head, temperature)
    return Calibration(
        len(measured.ids_N),
        before.right_N.double().mean().item(),
        _ece(before),
        temperature,
        None if after is None else _ece(after),
        None if before.kl_N is None else before.kl_N.mean().item(),
        None if after is None or after.kl_N is None else after.kl_N.mean().item(),
        _teacher_ece(measured),
    )


def _half(student: Causal, examples: Sequence[Example], autocast: torch.autocast, teaching: Teaching | None) -> Half:
    hidden, ids, said, count = list[torch.Tensor](), list[torch.Tensor](), list[Signal](), 0
    for example in examples:
        if count >= POSITIONS:
            break
        passage = passage_of([example], student.device)
        with autocast:
            hidden.append(student.hidden(passage.ids_T, passage.lengths)[passage.positions_N].float())
        ids.append(passage.target_ids_N)
        if teaching is not None:
            said.append(teaching.parts(passage)[0].signal)
        count += len(passage.target_ids_N)
    whole = all(isinstance(signal, Dense | Hidden) for signal in said)
    return Half(torch.cat(hidden), torch.cat(ids), tuple(said) if whole else ())


def _temperature(half: Half, head: Head) -> float | None:
    if _sure(half._replace(said=()), head, 1.0).right_N.all():
        return None

    def slope(inverse: float) -> tuple[float, float]:
        """First and second derivative of −Σ log softmax(inverse · logits)[id] by `inverse`."""
        first = second = 0.0
        for logits_NV, at in _logits(half.hidden_ND, head):
            weight_NV = (inverse * logits_NV).softmax(-1)
            mean_N1 = (weight_NV * logits_NV).sum(-1, keepdim=True)
            given_N1 = logits_NV.gather(-1, half.ids_N[at, None])
            first += (mean_N1 - given_N1).sum(dtype=torch.float64).item()
            second += (weight_NV * (logits_NV - mean_N1) ** 2).sum(dtype=torch.float64).item()
        return first, second

    return None if slope(0.0)[0] >= 0 else temperature_at(slope, 1e-6)


def _sure(half: Half, head: Head, temperature: float) -> Sure:
    top, right = [], []
    for logits_NV, at in _logits(half.hidden_ND, head):
        best = (logits_NV / temperature).softmax(-1).max(-1)
        top.append(best.values)
        right.append(best.indices == half.ids_N[at])
    kl, start = [], 0
    for dense in map(_dense, half.said):
        (logits_NV,) = (piece for piece, _ in _logits(half.hidden_ND[start : start + len(dense)], head, len(dense)))
        logq_NV, p_NV = (logits_NV / temperature).log_softmax(-1), dense.logp_NV.float().exp()
        kl.append((p_NV * torch.where(p_NV > 0, dense.logp_NV.float() - logq_NV, 0.0)).sum(-1))
        start += len(dense)
    return Sure(torch.cat(top), torch.cat(right), torch.cat(kl).double() if kl else None)


def _dense(signal: Signal) -> Dense:
    dense = signal.dense() if isinstance(signal, Hidden) else signal
    assert isinstance(dense, Dense)
    return dense


def _teacher_ece(half: Half) -> float | None:
    if not half.said:
        return None
    best = [_dense(signal).logp_NV.float().max(-1) for signal in half.said]
    top_N, named_N = (torch.cat([getattr(one, name) for one in best]) for name in ("values", "indices"))
    return _ece(Sure(top_N.exp(), named_N == half.ids_N, None))


def _logits(
    hidden_ND: torch.Tensor, head: Head, rows: int | None = None
) -> Iterator[tuple[torch.Tensor, slice]]:  # fmt: skip
    """Pieces of the logits with their places."""
    step = rows or chunk_rows(head.weight_VD.shape[0], hidden_ND.device.type)
    for start in range(0, len(hidden_ND), step):
        at = slice(start, start + step)
        yield at_least_float32(head.logits(hidden_ND[at])), at


def _ece(sure: Sure) -> float:
    return expected_calibration_error(sure.top_N.cpu().double().clamp(0, 1).numpy(), sure.right_N.cpu().numpy())
