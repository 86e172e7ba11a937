"""Cross-entropy on the teacher's text.

Shape legend: N positions, V vocabulary.
"""

import torch

from tutelage.losses.base import at_least_float32
from tutelage.losses.inplace import log_softmax_
from tutelage.signals import Text


def cross_entropy(logits_NV: torch.Tensor, signal: Text) -> torch.Tensor:
    """−log q(y) at each position, in nats, shape [N]: sequence-level distillation on given text (Kim & Rush 2016,
    eq. 5 with one sample). `logits_NV` student logits, computed in float32 at least."""
    logits_NV = at_least_float32(logits_NV)
    return logits_NV.logsumexp(-1) - logits_NV.gather(-1, signal.ids_N[:, None]).squeeze(-1)


def cross_entropy_kernel(logits_NV: torch.Tensor, signal: Text, _: list[torch.Tensor]) -> torch.Tensor:
    """`cross_entropy`, its gradient q − e_y. No buffers."""
    logq_N = log_softmax_(logits_NV).gather(-1, signal.ids_N[:, None])
    logits_NV.exp_().scatter_add_(-1, signal.ids_N[:, None], torch.full_like(logq_N, -1.0))
    return -logq_N.squeeze(-1)
