"""Forward KL on an unbiased sparse estimate of the teacher's distribution.

Shape legend: N positions, K kept ids, V vocabulary.
"""

import torch

from tutelage.losses.base import at_least_float32
from tutelage.losses.inplace import log_softmax_
from tutelage.signals import Sparse


def sparse_forward_kl(logits_NV: torch.Tensor, signal: Sparse) -> torch.Tensor:
    """logsumexp(z) − Σᵢ tᵢ zᵢ in nats, [N], with z the student's logits and t the estimate (Anshumann et al. 2025, arXiv
    2503.16870, where t is a count of draws; any t with E[t] = p serves).

    Its derivative is q − t, linear in t, and E[q − t] = q − p is the derivative of the full KL(p ‖ q). The tempting
    −Σ tᵢ log qᵢ has derivative (Σ tᵢ) q − t: as unbiased, but the random total then shakes the whole of q and not only the ids
    that were drawn. The two are the same where Σ tᵢ = 1.

    What the value means: its expectation is the cross-entropy KL(p ‖ q) + H(p), so that it does not go to 0; the entropy of
    the teacher is not known from a sparse estimate. Where Σ tᵢ ≠ 1, adding c to all logits adds c (1 − Σ tᵢ) to the value
    of that position: noise of mean 0 that no derivative sees as a change of q.
    """
    logits_NV = at_least_float32(logits_NV)
    weights_NK = signal.weights_NK.to(logits_NV.dtype)
    return logits_NV.logsumexp(-1) - _weighted(weights_NK, logits_NV.gather(-1, signal.ids_NK))


def sparse_forward_kl_kernel(logits_NV: torch.Tensor, signal: Sparse, _: list[torch.Tensor]) -> torch.Tensor:
    """`sparse_forward_kl`, its gradient q − t. No buffers."""
    weights_NK = signal.weights_NK.to(logits_NV.dtype)
    weighted_N = _weighted(weights_NK, logits_NV.gather(-1, signal.ids_NK))
    top_N = logits_NV.amax(-1)
    log_softmax_(logits_NV)
    norm_N = top_N - logits_NV.amax(-1)  # the largest log-probability is the largest logit less the logsumexp
    logits_NV.exp_().scatter_add_(-1, signal.ids_NK, -weights_NK)
    return norm_N - weighted_N


def _weighted(weights_NK: torch.Tensor, values_NK: torch.Tensor) -> torch.Tensor:
    """Σᵢ tᵢ zᵢ; a padded slot counts for nothing whatever stands at the id it repeats."""
    return (weights_NK * torch.where(weights_NK > 0, values_NK, 0.0)).sum(-1)
