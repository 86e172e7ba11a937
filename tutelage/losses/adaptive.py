"""Divergences that weigh or move with what the two distributions look like. What decides is held fixed: it carries no gradient.

Shape legend: N positions, V vocabulary.
"""

import torch

from tutelage.losses.base import at_least_float32
from tutelage.losses.divergence import forward_kl, reverse_kl
from tutelage.losses.inplace import LOG_ZERO
from tutelage.signals import Dense


def adaptive_kl(logits_NV: torch.Tensor, signal: Dense, head: float) -> torch.Tensor:
    """w KL(p ‖ q) + (1 − w) KL(q ‖ p), in nats, [N]: w is the share of Σ|p − q| that lies on the teacher's head, the fewest ids
    that have `head` of its mass (Wu et al. 2024, AKL, arXiv 2404.02657, §4). ½ where p and q are equal."""
    q_NV = at_least_float32(logits_NV).detach().softmax(-1)
    p_NV = signal.logp_NV.to(q_NV.dtype).exp()
    best = p_NV.sort(-1, descending=True)
    gap_NV = (p_NV - q_NV).abs().gather(-1, best.indices)  # in the order of the mask
    head_NV = best.values.cumsum(-1) - best.values < head
    total_N = gap_NV.sum(-1)
    share_N = torch.where(total_N == 0, 0.5, (gap_NV * head_NV).sum(-1) / total_N)
    return share_N * forward_kl(logits_NV, signal) + (1 - share_N) * reverse_kl(logits_NV, signal)


def entropy_aware_kl(logits_NV: torch.Tensor, signal: Dense, threshold_nats: float) -> torch.Tensor:
    """KL(q ‖ p), and KL(p ‖ q) besides where the teacher's own entropy is above the threshold, in nats, [N] (Jin et al. 2026,
    Entropy-aware on-policy distillation, arXiv 2603.07079): where several tokens would do, the student is to cover them."""
    logp_NV = at_least_float32(signal.logp_NV)
    p_NV = logp_NV.exp()
    entropy_N = -(p_NV * torch.where(p_NV > 0, logp_NV, 0.0)).sum(-1)
    reverse_N, forward_N = reverse_kl(logits_NV, signal), forward_kl(logits_NV, signal)
    return reverse_N + torch.where(entropy_N > threshold_nats, forward_N, 0.0)


def taid(logits_NV: torch.Tensor, signal: Dense, t: float) -> torch.Tensor:
    """KL(p_t ‖ q), in nats, [N], with p_t = softmax((1 − t) sg[log q] + t log p) (Shing et al. 2025, TAID, arXiv 2501.16937,
    eq. 4): its derivative by the logits is q − p_t. t = 1 is forward KL, and
    `train.teaching.MovingTeacher` moves t there."""
    logq_NV = at_least_float32(logits_NV).detach().log_softmax(-1).clamp_min(LOG_ZERO)
    logp_NV = signal.logp_NV.to(logq_NV.dtype).clamp_min(LOG_ZERO)
    return forward_kl(logits_NV, Dense(((1 - t) * logq_NV + t * logp_NV).log_softmax(-1)))
