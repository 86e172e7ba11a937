"""Forward KL on what a truncated teacher revealed, its tail mass kept as one bucket."""

import torch

from tutelage.signals import TopK


def forward_kl_top_k(logits_NV: torch.Tensor, signal: TopK) -> torch.Tensor:
    """Kullback–Leibler divergence KL(p ‖ q) over the partition {each revealed id, all other ids}, in nats, shape [N].

    With p the teacher and q the student: Σᵢ pᵢ (log pᵢ − log qᵢ) + p_tail (log p_tail − log q_tail), where q_tail is
    the student's mass on every id that was not revealed. By the data-processing inequality it is at most the full
    KL, and 0 only when q agrees with everything that was revealed (Cover & Thomas, Elements of Information Theory,
    thm 2.8.1; the tail bucket as in Hinton et al. 2015 truncated: never a renormalised top-k). Student mass outside
    the revealed ids is penalised through the bucket.

    `logits_NV` student logits, any float type; computed in float32 at least.
    """
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    present_NK = signal.logp_NK > -torch.inf
    logp_NK = torch.where(present_NK, signal.logp_NK, 0.0).to(logits_NV.dtype)
    p_NK = torch.where(present_NK, logp_NK.exp(), 0.0)
    norm_N = logits_NV.logsumexp(-1)
    logq_NK = logits_NV.gather(-1, signal.ids_NK) - norm_N[:, None]
    # Padded slots repeat id 0: keep them from hiding id 0's mass when it was not revealed.
    hidden_NV = torch.zeros_like(logits_NV, dtype=torch.bool)
    hidden_NV.scatter_(-1, signal.ids_NK, present_NK)
    id_zero_N = (present_NK & (signal.ids_NK == 0)).any(-1)
    hidden_NV[:, 0] = id_zero_N
    rest_N = logits_NV.masked_fill(hidden_NV, -torch.inf).logsumexp(-1) - norm_N
    has_tail_N = signal.tail_N > -torch.inf
    tail_N = torch.where(has_tail_N, signal.tail_N, 0.0).to(logits_NV.dtype)
    p_tail_N = torch.where(has_tail_N, tail_N.exp(), 0.0)
    revealed_N = torch.where(present_NK, p_NK * (logp_NK - logq_NK), 0.0).sum(-1)
    return revealed_N + torch.where(has_tail_N, p_tail_N * (tail_N - rest_N), 0.0)
