"""Divergences between the teacher's full distribution p and the student's q, at temperature 1.

Each function takes student logits [N, V] of any float type and `Dense`, computes in float32 at least, and returns nats a
position, [N]: a sum over the vocabulary, never a mean over it. Where p or q is 0 its own term is 0. No value is clamped.
Nothing is divided by a temperature, and no squared temperature is hidden in the scale.

Shape legend: N positions, V vocabulary.
"""

import math

import torch

from tutelage.losses.base import at_least_float32
from tutelage.losses.inplace import LOG_ZERO, log_softmax_
from tutelage.signals import Dense

NO_DIVERGENCE = 1e9
"""More nats than two distributions of finite logits can be apart."""


def forward_kl(logits_NV: torch.Tensor, signal: Dense) -> torch.Tensor:
    """KL(p ‖ q) = Σᵢ pᵢ (log pᵢ − log qᵢ) (Hinton et al. 2015, arXiv 1503.02531, §2, less the constant entropy of p)."""
    logp_NV, logq_NV = _logs(logits_NV, signal)
    return _expected(logp_NV.exp(), logp_NV - logq_NV)


def reverse_kl(logits_NV: torch.Tensor, signal: Dense) -> torch.Tensor:
    """KL(q ‖ p) = Σᵢ qᵢ (log qᵢ − log pᵢ) (Gu et al. 2023, MiniLLM, arXiv 2306.08543, eq. 1, at one position).

    Infinite, with a gradient that is not finite, where the student puts mass on an id the teacher excludes (log p = −inf).
    """
    logp_NV, logq_NV = _logs(logits_NV, signal)
    return _expected(logq_NV.exp(), logq_NV - logp_NV)


def jsd(logits_NV: torch.Tensor, signal: Dense, beta: float) -> torch.Tensor:
    """Generalized Jensen–Shannon divergence β KL(p ‖ m) + (1 − β) KL(q ‖ m) with m = β p + (1 − β) q, 0 < β < 1 (Agarwal et al.
    2023, GKD, arXiv 2306.13649, eq. 1).

    β weighs the teacher: JSD/β → KL(p ‖ q) as β → 0 and JSD/(1 − β) → KL(q ‖ p) as β → 1. JSD itself goes to 0 at both
    ends, so that the ends are other losses on another scale: they are `forward_kl` and `reverse_kl`. At β = ½ it is symmetric
    and at most log 2. The mixture is taken in log space by logaddexp; its gradient reaches the student through it.
    """
    assert 0 < beta < 1
    logp_NV, logq_NV = _logs(logits_NV, signal)
    logm_NV = _log_mixture(logp_NV, logq_NV, beta)
    teacher_N = _expected(logp_NV.exp(), logp_NV - logm_NV)
    student_N = _expected(logq_NV.exp(), logq_NV - logm_NV)
    return beta * teacher_N + (1 - beta) * student_N


def skew_kl(logits_NV: torch.Tensor, signal: Dense, alpha: float) -> torch.Tensor:
    """KL(p ‖ α p + (1 − α) q), 0 < α < 1 (Ko et al. 2024, DistiLLM, arXiv 2402.03898, §3.1): at most log 1/α.

    The student inside the mixture carries gradient. α = 0 would be `forward_kl`.
    """
    assert 0 < alpha < 1
    logp_NV, logq_NV = _logs(logits_NV, signal)
    return _expected(logp_NV.exp(), logp_NV - _log_mixture(logp_NV, logq_NV, alpha))


def skew_reverse_kl(logits_NV: torch.Tensor, signal: Dense, alpha: float) -> torch.Tensor:
    """KL(q ‖ α q + (1 − α) p), 0 < α < 1 (Ko et al. 2024, DistiLLM, arXiv 2402.03898, §3.1): at most log 1/α, finite even where
    the teacher excludes an id.

    The student carries gradient in both places. The code published with DistiLLM-2 holds it fixed inside the mixture, which is
    another objective. α = 0 would be `reverse_kl`.
    """
    assert 0 < alpha < 1
    logp_NV, logq_NV = _logs(logits_NV, signal)
    return _expected(logq_NV.exp(), logq_NV - _log_mixture(logp_NV, logq_NV, 1 - alpha))


def total_variation(logits_NV: torch.Tensor, signal: Dense) -> torch.Tensor:
    """½ Σᵢ |pᵢ − qᵢ|, between 0 and 1, no unit: 1 − the acceptance rate of speculative decoding (Leviathan et al. 2023, arXiv
    2211.17192, cor. 3.6). Its gradient is that of the sign: it does not fade
    as q nears p, and is 0 only where they are equal to the bit."""
    logp_NV, logq_NV = _logs(logits_NV, signal)
    return 0.5 * (logp_NV.exp() - logq_NV.exp()).abs().sum(-1)


def forward_kl_kernel(logits_NV: torch.Tensor, signal: Dense, buffers: list[torch.Tensor]) -> torch.Tensor:
    """`forward_kl`, its gradient q − p. Two buffers."""
    p_NV, ratio_NV = buffers
    logp_NV = signal.logp_NV.to(logits_NV.dtype)
    log_softmax_(logits_NV).clamp_min_(LOG_ZERO)
    torch.exp(logp_NV, out=p_NV)
    torch.clamp_min(logp_NV, LOG_ZERO, out=ratio_NV)
    nats_N = ratio_NV.sub_(logits_NV).mul_(p_NV).sum(-1)
    logits_NV.exp_().sub_(p_NV)
    return nats_N


def reverse_kl_kernel(logits_NV: torch.Tensor, signal: Dense, buffers: list[torch.Tensor]) -> torch.Tensor:
    """`reverse_kl`, its gradient qᵢ (log qᵢ/pᵢ − KL(q ‖ p)). Two buffers."""
    q_NV, term_NV = buffers
    log_softmax_(logits_NV).clamp_min_(LOG_ZERO)
    torch.exp(logits_NV, out=q_NV)
    torch.clamp_min(signal.logp_NV.to(logits_NV.dtype), LOG_ZERO, out=term_NV)
    logits_NV.sub_(term_NV)
    nats_N = torch.mul(logits_NV, q_NV, out=term_NV).sum(-1)
    # A term that stands for log 0 says infinity, where the student has mass at all.
    nats_N.masked_fill_(nats_N > NO_DIVERGENCE, torch.inf)
    logits_NV.sub_(nats_N[:, None]).mul_(q_NV)
    return nats_N


def jsd_kernel(logits_NV: torch.Tensor, signal: Dense, buffers: list[torch.Tensor], beta: float) -> torch.Tensor:
    """`jsd`, its gradient (1 − β) qᵢ (log qᵢ/mᵢ − KL(q ‖ m)). Four buffers.

    The mixture is a sum of probabilities, each exact to a rounding, and then its logarithm: a third of the time of logaddexp.
    """
    p_NV, q_NV, logm_NV, ratio_NV = buffers
    logp_NV = signal.logp_NV.to(logits_NV.dtype)
    log_softmax_(logits_NV).clamp_min_(LOG_ZERO)
    torch.exp(logp_NV, out=p_NV)
    torch.exp(logits_NV, out=q_NV)
    torch.mul(p_NV, beta, out=logm_NV).add_(q_NV, alpha=1 - beta).log_().clamp_min_(LOG_ZERO)
    torch.clamp_min(logp_NV, LOG_ZERO, out=ratio_NV)
    teacher_N = ratio_NV.sub_(logm_NV).mul_(p_NV).sum(-1)
    student_N = torch.mul(logits_NV.sub_(logm_NV), q_NV, out=ratio_NV).sum(-1)
    logits_NV.sub_(student_N[:, None]).mul_(q_NV).mul_(1 - beta)
    return beta * teacher_N + (1 - beta) * student_N


def _logs(logits_NV: torch.Tensor, signal: Dense) -> tuple[torch.Tensor, torch.Tensor]:
    logq_NV = at_least_float32(logits_NV).log_softmax(-1)
    return signal.logp_NV.to(logq_NV.dtype), logq_NV


def _expected(weight_NV: torch.Tensor, ratio_NV: torch.Tensor) -> torch.Tensor:
    """Σᵢ wᵢ rᵢ with 0 log 0 = 0; the ratio is replaced before the product so that no derivative is ∞ · 0 either."""
    return (weight_NV * torch.where(weight_NV > 0, ratio_NV, 0.0)).sum(-1)


def _log_mixture(logp_NV: torch.Tensor, logq_NV: torch.Tensor, teacher: float) -> torch.Tensor:
    """log(w p + (1 − w) q) with w the teacher's share, in log space."""
    return torch.logaddexp(
        logp_NV.clamp_min(LOG_ZERO) + math.log(teacher), logq_NV.clamp_min(LOG_ZERO) + math.log1p(-teacher)
    )
