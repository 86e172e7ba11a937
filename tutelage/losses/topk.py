"""KL on what a truncated teacher revealed, its tail mass kept as one bucket.

Both directions compare two distributions over the partition {each revealed id, all other ids}. By the data-processing
inequality each is at most the full divergence, and 0 only when the student agrees with everything that was revealed (Cover &
Thomas, Elements of Information Theory, thm 2.8.1). Nothing is renormalised: student mass outside the revealed ids is seen.

Shape legend: N positions, K kept ids, C buckets, V vocabulary.
"""

import math
from typing import NamedTuple

import torch

from tutelage.losses.base import at_least_float32
from tutelage.losses.inplace import LOG_ZERO, log_softmax_
from tutelage.signals import TopK

LEAST_TAIL = 1e-6
"""The resolution of reported log-probabilities: a tail below it is not known from the list."""


class Teacher(NamedTuple):
    """Which slots hold an id, their log-probability (0 in padded slots), and that of the tail."""

    present_NK: torch.Tensor
    logp_NK: torch.Tensor
    tail_N: torch.Tensor


class Student(NamedTuple):
    """The student's log-probability of each revealed id and of all other ids together (very low where there are none)."""

    logq_NK: torch.Tensor
    rest_N: torch.Tensor


class Buckets(NamedTuple):
    """The student's mass in each of the C = K + 1 buckets, the tail last, and log q/p there; both 0 in padded slots."""

    q_NC: torch.Tensor
    ratio_NC: torch.Tensor


def forward_kl_top_k(logits_NV: torch.Tensor, signal: TopK) -> torch.Tensor:
    """Σᵢ pᵢ (log pᵢ − log qᵢ) + p_tail (log p_tail − log q_tail), in nats, shape [N], where q_tail is the student's mass on
    every id that was not revealed. A teacher without a tail (−inf) contributes the sum alone.

    `logits_NV` student logits, any float type; computed in float32 at least.
    """
    logits_NV = at_least_float32(logits_NV)
    teacher = _teacher(signal, logits_NV.dtype)
    return _forward(teacher, _student(logits_NV, signal, teacher))


def reverse_kl_top_k(logits_NV: torch.Tensor, signal: TopK, least_tail: float = LEAST_TAIL) -> torch.Tensor:
    """Σᵢ qᵢ (log qᵢ − log pᵢ) + q_tail (log q_tail − log p_tail), in nats, shape [N].

    Without the bucket a student lowers the sum by moving its mass where nothing was revealed. The student's tail is a
    logsumexp over the ids that were not revealed, exact in float32 however small it is, where 1 − Σ qᵢ is not. The teacher's
    tail is known only as well as its log-probabilities are reported: it counts as `least_tail` where it is smaller or none, or
    else a rounded list would make the loss infinite. Ids that are padding or of probability 0 belong to the tail.
    """
    q_NC, ratio_NC = reverse_buckets(logits_NV, signal, least_tail)
    return (q_NC * ratio_NC).sum(-1)


def reverse_buckets(logits_NV: torch.Tensor, signal: TopK, least_tail: float = LEAST_TAIL) -> Buckets:
    """What `reverse_kl_top_k` sums over."""
    logits_NV = at_least_float32(logits_NV)
    teacher = _teacher(signal, logits_NV.dtype)
    return _reverse(teacher, _student(logits_NV, signal, teacher), least_tail)


def forward_kl_top_k_kernel(logits_NV: torch.Tensor, signal: TopK, _: list[torch.Tensor]) -> torch.Tensor:
    """`forward_kl_top_k`, its gradient P qᵢ − pᵢ on revealed ids and qⱼ (P − p_tail / q_tail) on the others, where P, the total
    of the teacher's mass, is 1 up to rounding. A tail below the smallest float counts as that. No buffers."""
    teacher = _teacher(signal, logits_NV.dtype)
    cells, student = _split_(logits_NV, signal, teacher)
    p_NK = torch.where(teacher.present_NK, teacher.logp_NK.exp(), 0.0)
    p_tail_N = teacher.tail_N.exp()
    total_N = p_NK.sum(-1) + p_tail_N
    inside_NK = total_N[:, None] * student.logq_NK.exp() - p_NK
    _join_(logits_NV, cells, inside_NK, total_N - p_tail_N / student.rest_N.exp())
    return _forward(teacher, student)


def reverse_kl_top_k_kernel(
    logits_NV: torch.Tensor, signal: TopK, _: list[torch.Tensor], least_tail: float = LEAST_TAIL
) -> torch.Tensor:
    """`reverse_kl_top_k`, its gradient qᵢ (log q/p − KL) with the ratio of the bucket that holds i. No buffers."""
    teacher = _teacher(signal, logits_NV.dtype)
    cells, student = _split_(logits_NV, signal, teacher)
    q_NC, ratio_NC = _reverse(teacher, student, least_tail)
    nats_N = (q_NC * ratio_NC).sum(-1)
    excess_NC = ratio_NC - nats_N[:, None]
    _join_(logits_NV, cells, q_NC[:, :-1] * excess_NC[:, :-1], excess_NC[:, -1])
    return nats_N


def _teacher(signal: TopK, dtype: torch.dtype) -> Teacher:
    present_NK = signal.logp_NK > -torch.inf
    return Teacher(present_NK, torch.where(present_NK, signal.logp_NK, 0.0).to(dtype), signal.tail_N.to(dtype))


def _student(logits_NV: torch.Tensor, signal: TopK, teacher: Teacher) -> Student:
    norm_N = logits_NV.logsumexp(-1)
    logq_NK = logits_NV.gather(-1, signal.ids_NK) - norm_N[:, None]
    # Padded slots repeat id 0: keep them from hiding id 0's mass when it was not revealed.
    revealed_NV = torch.zeros_like(logits_NV, dtype=torch.bool)
    revealed_NV.scatter_(-1, signal.ids_NK, teacher.present_NK)
    revealed_NV[:, 0] = (teacher.present_NK & (signal.ids_NK == 0)).any(-1)
    return Student(logq_NK, logits_NV.masked_fill(revealed_NV, LOG_ZERO).logsumexp(-1) - norm_N)


def _forward(teacher: Teacher, student: Student) -> torch.Tensor:
    revealed_NK = teacher.logp_NK.exp() * (teacher.logp_NK - student.logq_NK)
    has_tail_N = teacher.tail_N > -torch.inf
    tail_N = torch.where(has_tail_N, teacher.tail_N, 0.0)
    bucket_N = torch.where(has_tail_N, tail_N.exp() * (tail_N - student.rest_N), 0.0)
    return torch.where(teacher.present_NK, revealed_NK, 0.0).sum(-1) + bucket_N


def _reverse(teacher: Teacher, student: Student, least_tail: float) -> Buckets:
    ratio_NK = torch.where(teacher.present_NK, student.logq_NK - teacher.logp_NK, 0.0)
    q_NK = torch.where(teacher.present_NK, student.logq_NK.exp(), 0.0)
    rest_N1 = student.rest_N[:, None]
    tail_N1 = teacher.tail_N[:, None].clamp_min(math.log(least_tail))
    return Buckets(torch.cat([q_NK, rest_N1.exp()], -1), torch.cat([ratio_NK, rest_N1 - tail_N1], -1))


class Cells(NamedTuple):
    """Where the revealed ids stand in a row: padded slots repeat a revealed id, so that writing to all slots is safe. A row that
    reveals nothing has `revealed_NK` false and points at id 0, whose own value `first_N1` is written back."""

    ids_NK: torch.Tensor
    slot_NK: torch.Tensor
    revealed_NK: torch.Tensor
    first_N1: torch.Tensor


def _split_(logits_NV: torch.Tensor, signal: TopK, teacher: Teacher) -> tuple[Cells, Student]:
    """Overwrites logits with q on the ids that were not revealed and 0 on the others."""
    number_K = torch.arange(signal.ids_NK.shape[1], device=logits_NV.device)
    some_N1 = teacher.present_NK.to(torch.uint8).argmax(-1, keepdim=True)
    slot_NK = torch.where(teacher.present_NK, number_K, some_N1)
    ids_NK = signal.ids_NK.gather(-1, slot_NK)
    revealed_NK = teacher.present_NK.gather(-1, slot_NK)
    logq_NK = log_softmax_(logits_NV).gather(-1, signal.ids_NK)
    first_N1 = logits_NV.exp_().gather(-1, ids_NK[:, :1])
    logits_NV.scatter_(-1, ids_NK, torch.where(revealed_NK, 0.0, first_N1))
    rest_N = logits_NV.sum(-1).clamp_min(torch.finfo(logits_NV.dtype).tiny).log()
    return Cells(ids_NK, slot_NK, revealed_NK, first_N1), Student(logq_NK, rest_N)


def _join_(logits_NV: torch.Tensor, cells: Cells, inside_NK: torch.Tensor, outside_N: torch.Tensor) -> None:
    """The derivative: the unrevealed ids' q times their row's factor, and each revealed id's own number."""
    logits_NV.mul_(outside_N[:, None])
    nothing_N1 = cells.first_N1 * outside_N[:, None]
    logits_NV.scatter_(
        -1, cells.ids_NK, torch.where(cells.revealed_NK, inside_NK.gather(-1, cells.slot_NK), nothing_N1)
    )
