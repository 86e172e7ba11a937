"""One training step: forward, loss at the loss positions only, backward, clip. The only place that calls backward().

Shape legend: B sequences, T tokens, N loss positions, D hidden, V vocabulary, L labels.
"""

from typing import Any, NamedTuple

import torch

from tutelage.errors import SignalError
from tutelage.losses.supervised import cross_entropy
from tutelage.losses.topk import forward_kl_top_k
from tutelage.train.batches import Batch


class StepResult(NamedTuple):
    """Sums over loss tokens (nats), the count they are divided by, and the gradient norm before clipping."""

    soft_nats: float
    text_nats: float
    loss_tokens: int
    grad_norm: float


def logits_at(model: Any, batch: Batch, positions_N: torch.Tensor) -> torch.Tensor:
    """Student logits [N, V] at flat positions: the head is computed nowhere else."""
    hidden_BTD = model.model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT, use_cache=False).last_hidden_state
    return model.lm_head(hidden_BTD.flatten(0, 1)[positions_N])


def train_step(model: Any, batch: Batch, clip_norm: float, autocast: torch.autocast) -> StepResult:
    """Leaves gradients on the parameters; the loss is the mean over all loss tokens of the batch.

    Raises `SignalError` when the loss is not finite.
    """
    num_soft = len(batch.soft_positions_N)
    positions_N = torch.cat([batch.soft_positions_N, batch.text_positions_N])
    with autocast:
        logits_NV = logits_at(model, batch, positions_N)
    soft_N = forward_kl_top_k(logits_NV[:num_soft], batch.soft) if batch.soft is not None else logits_NV.new_zeros(0)
    text_N = cross_entropy(logits_NV[num_soft:], batch.text)
    loss = (soft_N.float().sum() + text_N.float().sum()) / len(positions_N)
    if not torch.isfinite(loss):
        raise SignalError(
            f"the loss is {loss.item()}", fix="lower train.learning_rate, or set train.precision = float32"
        )
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(
        [parameter for parameter in model.parameters() if parameter.requires_grad], clip_norm
    )
    return StepResult(soft_N.sum().item(), text_N.sum().item(), len(positions_N), norm.item())


@torch.inference_mode()
def label_logp(model: Any, batch: Batch, label_ids: tuple[int, ...], autocast: torch.autocast) -> torch.Tensor:
    """The student's label distribution [B, L] (natural logs over the labels) at the first answer position."""
    with autocast:
        logits_BV = logits_at(model, batch, batch.first_positions_B)
    return logits_BV[:, list(label_ids)].float().log_softmax(-1)
