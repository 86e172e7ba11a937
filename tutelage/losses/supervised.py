"""Cross-entropy on the teacher's text."""

import torch

from tutelage.signals import Text


def cross_entropy(logits_NV: torch.Tensor, signal: Text) -> torch.Tensor:
    """−log q(y) at each position, in nats, shape [N]: sequence-level distillation on given text (Kim & Rush 2016,
    eq. 5 with one sample). `logits_NV` student logits, computed in float32 at least."""
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    return logits_NV.logsumexp(-1) - logits_NV.gather(-1, signal.ids_N[:, None]).squeeze(-1)
