"""Reverse KL from the tokens the student drew: the teacher scores one token a position.

Shape legend: N positions, V vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from tutelage.losses.base import at_least_float32
from tutelage.losses.inplace import log_softmax_
from tutelage.losses.topk import reverse_buckets
from tutelage.signals import Dense, Scored, TopK


@dataclass(frozen=True, slots=True)
class Baselined(Scored):
    """`Scored` with a baseline for each position's advantage, `baseline_N` in nats. Any number serves that does not depend on the
    token drawn at that position, nor on those that follow it."""

    baseline_N: torch.Tensor


class Estimate(NamedTuple):
    """The value of a position in nats, and the factor on ∇ log q(y) that is its gradient."""

    nats_N: torch.Tensor
    factor_N: torch.Tensor


def sampled_reverse_kl(
    logits_NV: torch.Tensor, signal: Scored, baseline: float = 0.0, ratio_low: float = 0.5, ratio_high: float = 2.0
) -> torch.Tensor:
    """An estimate of KL(q ‖ p), in nats, [N], whose gradient is −w A ∇ log q(y) with A = log p(y) − log q(y) − b held fixed: the
    policy gradient with the teacher's log ratio for a reward and discount 0 (Oh et al. 2026, vOPD, arXiv 2605.07865; Gu et al.
    2023, arXiv 2306.08543, eq. 2 at one step).

    The value of a position is w (log q(y) − log p(y)), without the baseline. It must not be differentiated as it stands: the
    teacher is constant, and ∇ log q(y) alone has mean 0. w = q(y) / q_drawn(y) corrects for the engine that drew the
    token and for weights that have moved since; a position whose ratio leaves [ratio_low, ratio_high] counts as 0, which biases
    the estimate a little and bounds it. With 0 and ∞ nothing is left out. b is `baseline`, and with a `Baselined` signal its own
    added: by E[∇ log q] = 0 it changes the variance and not the mean.

    Infinite where the teacher gives the token no probability.
    """
    logits_NV = at_least_float32(logits_NV)
    logq_N = logits_NV.gather(-1, signal.ids_N[:, None]).squeeze(-1) - logits_NV.logsumexp(-1)
    found = _estimate(logq_N.detach(), signal, baseline, ratio_low, ratio_high)
    return found.nats_N + found.factor_N * (logq_N - logq_N.detach())


def sampled_reverse_kl_kernel(
    logits_NV: torch.Tensor, signal: Scored, _: list[torch.Tensor],
    baseline: float = 0.0, ratio_low: float = 0.5, ratio_high: float = 2.0,
) -> torch.Tensor:  # fmt: skip
    """`sampled_reverse_kl`, its gradient −w A (e_y − q). No buffers."""
    logq_N = log_softmax_(logits_NV).gather(-1, signal.ids_N[:, None]).squeeze(-1)
    found = _estimate(logq_N, signal, baseline, ratio_low, ratio_high)
    factor_N1 = found.factor_N[:, None]
    logits_NV.exp_().mul_(-factor_N1).scatter_add_(-1, signal.ids_N[:, None], factor_N1)
    return found.nats_N


def closed_form_baseline(logits_NV: torch.Tensor, signal: Dense | TopK) -> torch.Tensor:
    """−KL(q ‖ p) a position, [N]: the expectation of log p(y) − log q(y) over y, and so the value function of the one-step reward
    (vOPD, arXiv 2605.07865). With `TopK` its partition's divergence stands in for it, as unbiased and a little less close.

    It lowers the variance where the student is uncertain and can raise it where the student is over-confident: the mean reward
    is below 0 there, and those of the rare tokens, whose ∇ log q is large, above. See `least_variance_baseline`.
    """
    q_NC, reward_NC = _rewards(logits_NV, signal)
    return (q_NC * reward_NC).sum(-1)


def least_variance_baseline(logits_NV: torch.Tensor, signal: Dense | TopK) -> torch.Tensor:
    """E[‖g‖² r] / E[‖g‖²] a position, [N], over y ~ q, with r = log p(y) − log q(y) and, of log q(y) by the logits, the
    gradient g = e_y − q, ‖g‖² = 1 − 2 q(y) + Σᵢ qᵢ².

    Of all constants it is the one with the least variance of the logits' gradient (Greensmith et al. 2004, Variance reduction
    techniques for gradient estimates, §4): never worse than none or than `closed_form_baseline`. With `TopK` it is that of
    the buckets, as unbiased and no longer exactly the least. 0 where the student is certain.
    """
    q_NC, reward_NC = _rewards(logits_NV, signal)
    weight_NC = q_NC * (1 - 2 * q_NC + (q_NC * q_NC).sum(-1, keepdim=True))
    total_N = weight_NC.sum(-1)
    return torch.where(total_N > 0, (weight_NC * reward_NC).sum(-1) / total_N, 0.0)


def _rewards(logits_NV: torch.Tensor, signal: Dense | TopK) -> tuple[torch.Tensor, torch.Tensor]:
    """q and log p − log q of every id, or of every bucket."""
    logits_NV = at_least_float32(logits_NV.detach())
    if isinstance(signal, TopK):
        q_NC, ratio_NC = reverse_buckets(logits_NV, signal)
        return q_NC, -ratio_NC
    logq_NV = logits_NV.log_softmax(-1)
    return logq_NV.exp(), signal.logp_NV.to(logq_NV.dtype) - logq_NV


def leave_one_out(signal: Scored, answer_N: torch.Tensor) -> torch.Tensor:
    """The mean reward log p(y) − log q_drawn(y) of all tokens of the other answers, [N]: a baseline that needs nothing but scores
    (Kool et al. 2019, Buy 4 REINFORCE samples). `answer_N` int64 says which answer each position is of, from 0.

    The whole answer is left out, not the position alone: what follows a token was drawn after it, and so depends on it. 0 where
    there is one answer only.
    """
    reward_N = (signal.logp_N - signal.drawn_logp_N).double()
    sums_A = reward_N.new_zeros(int(answer_N.max()) + 1).index_add_(0, answer_N, reward_N)
    counts_A = torch.bincount(answer_N)
    mean_A = (sums_A.sum() - sums_A) / (counts_A.sum() - counts_A).clamp(min=1)
    return mean_A[answer_N].to(signal.logp_N.dtype)


def _estimate(logq_N: torch.Tensor, signal: Scored, baseline: float, ratio_low: float, ratio_high: float) -> Estimate:
    ratio_N = torch.exp(logq_N - signal.drawn_logp_N.to(logq_N.dtype))
    # A ratio that is NaN is not outside: it must show, not count as 0.
    weight_N = torch.where((ratio_N < ratio_low) | (ratio_N > ratio_high), 0.0, ratio_N)
    surplus_N = logq_N - signal.logp_N.to(logq_N.dtype)
    base_N = baseline + (signal.baseline_N.to(logq_N.dtype) if isinstance(signal, Baselined) else 0.0)
    return Estimate(weight_N * surplus_N, weight_N * (surplus_N + base_N))
