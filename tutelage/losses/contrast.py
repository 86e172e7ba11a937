"""DistiLLM-2: another divergence on the student's own text than on the data's, with a skew that suits each answer.

Ko et al. 2025, arXiv 2503.07067: KL(p ‖ α p + (1 − α) q) on text that the teacher wrote, β · KL(q ‖ (1 − α) p + α q) on the
student's answers to the same questions. The functions here are pure; who writes and who is asked is `train.contrast`.

Shape legend: N positions, V vocabulary, A answers.
"""

from dataclasses import dataclass

import torch

from tutelage.losses.base import at_least_float32
from tutelage.losses.divergence import skew_kl
from tutelage.losses.inplace import LOG_ZERO
from tutelage.signals import Dense, Hidden

LEAST_ALPHA = 0.01
_NEAR_0 = 1e-5  # of the published code: keeps a gap of 0 from dividing


@dataclass(frozen=True, slots=True)
class Contrast(Dense):
    """The teacher's distribution on two texts. At each position: whether the student wrote it, `own_N` bool; `share_N`, what it
    counts so that the means of both texts count a half each; of its answer the gap between teacher and student `gap_N`
    (see `adaptive_alpha`), and the mean gap of the step's answers on that side, `mean_gap_N`. `progress`: share of the
    steps that are done."""

    own_N: torch.Tensor
    share_N: torch.Tensor
    gap_N: torch.Tensor
    mean_gap_N: torch.Tensor
    progress: float


@dataclass(frozen=True, slots=True)
class HiddenContrast(Hidden):
    """`Contrast` whose distribution is in its smallest form."""

    own_N: torch.Tensor
    share_N: torch.Tensor
    gap_N: torch.Tensor
    mean_gap_N: torch.Tensor
    progress: float

    def dense(self) -> Contrast:
        logp_NV = Hidden.dense(self).logp_NV
        return Contrast(logp_NV, self.own_N, self.share_N, self.gap_N, self.mean_gap_N, self.progress)


def distillm_2(logits_NV: torch.Tensor, signal: Dense, alpha: float, beta: float) -> torch.Tensor:
    """Nats a position, [N], times its share: (2 − β) KL(p ‖ α p + (1 − α) q) on the data's text, β KL(q ‖ (1 − α) p + α sg[q]) on
    the student's own, α from `adaptive_alpha` and β from `own_weight`.

    As in the code published with the paper, the student inside the second mixture is held fixed (sg), so that the derivative is
    qᵢ (log qᵢ/mᵢ − KL(q ‖ m)) with m constant: not that of `skew_reverse_kl`, whose value is the same. As α → 0 the two are
    forward and reverse KL. A plain `Dense` signal is text without its contrast, as where a student is judged: skew KL at
    `alpha`.
    """
    if not isinstance(signal, Contrast):
        return skew_kl(logits_NV, signal, alpha)
    logq_NV = at_least_float32(logits_NV).log_softmax(-1)
    logp_NV, own_N1 = signal.logp_NV.to(logq_NV.dtype), signal.own_N[:, None]
    alpha_N1 = adaptive_alpha(signal.gap_N, signal.mean_gap_N, alpha)[:, None].to(logq_NV.dtype)
    one_NV, other_NV = torch.where(own_N1, logq_NV, logp_NV), torch.where(own_N1, logp_NV, logq_NV)
    mixture_NV = torch.logaddexp(
        torch.where(own_N1, logq_NV.detach(), logp_NV).clamp_min(LOG_ZERO) + alpha_N1.log(),
        other_NV.clamp_min(LOG_ZERO) + torch.log1p(-alpha_N1),
    )
    p_NV = one_NV.exp()
    nats_N = (p_NV * torch.where(p_NV > 0, one_NV - mixture_NV, 0.0)).sum(-1)
    own_share, share_N = own_weight(signal.progress, beta), signal.share_N.to(nats_N.dtype)
    return torch.where(signal.own_N, own_share * share_N, (2 - own_share) * share_N) * nats_N


def adaptive_alpha(gap_A: torch.Tensor, mean_gap_A: torch.Tensor, alpha: float) -> torch.Tensor:
    """The skew of each answer, [A]: 1 − (1 − α) m / gap, between 0.01 and `alpha` (arXiv 2503.07067, §3: log p/q ≈ p − q to first
    order, so that each answer weighs about what the mean one weighs at α).

    The gap is p − q on the data's text and q − p on the student's own, with p and q what each model gives the answer's average
    token (`average_token`). m is the mean over the step's answers of that side; in the published code, where α stays fixed unless
    this is switched on, it is that of the first steps logged. An answer on which the order is reversed has the largest skew.
    """
    least = min(LEAST_ALPHA, alpha)
    return (1 - (1 - alpha) * mean_gap_A / (gap_A + _NEAR_0)).clamp(least, alpha)


def own_weight(progress: float, beta: float) -> float:
    """β after a share `progress` of the steps: 1 at first, in a line to `beta` half way, and that from then on (as in the
    published code, where it is 1.5)."""
    return 1 + (beta - 1) * min(1.0, 2 * progress)


def average_token(logp_N: torch.Tensor, answer_N: torch.Tensor, answers: int) -> torch.Tensor:
    """exp of the mean log-probability of each answer's tokens, [A] float64; `answer_N` int64 says which one a position is of."""
    sums_A = logp_N.new_zeros(answers, dtype=torch.float64).index_add_(0, answer_N, logp_N.double())
    return (sums_A / torch.bincount(answer_N, minlength=answers).clamp(min=1)).exp()
