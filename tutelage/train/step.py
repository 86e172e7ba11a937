"""One training step: forward, losses, backward, clip. The only place that calls backward().

Shape legend: T tokens, N loss positions, D hidden.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from tutelage.errors import SignalError
from tutelage.losses.chunked import head_gradients
from tutelage.models.causal import Causal
from tutelage.train import parallel
from tutelage.train.batch import Batch
from tutelage.train.focus import focused


class StepResult(NamedTuple):
    """What a step saw: sums of each loss in nats and over how many positions, the sum as weighted in training, the loss tokens
    it was divided by, in all and by role; tokens read; and the gradient norm before clipping."""

    nats: dict[str, float]
    positions: dict[str, int]
    objective_nats: float
    loss_tokens: int
    by_role: dict[str, int]
    tokens: int
    grad_norm: float


Look = Callable[[torch.Tensor, Batch, int, slice], Any]


def train_step(
    student: Causal, batches: Iterable[Batch], loss_tokens: int, clip_norm: float, autocast: torch.autocast,
    look: Look | None = None,
) -> StepResult:  # fmt: skip
    """Leaves the gradient of the mean loss over `loss_tokens` positions on the parameters, however they are batched.

    `loss_tokens` is the count over all batches of the step, so that splitting them changes nothing. Raises `SignalError` when
    a loss is not finite or no position has one; the parameters are as before.
    """
    if loss_tokens < 1:
        raise SignalError("no position of this step carries a loss", fix="drop examples of which nothing is learnt")
    nats: dict[str, float] = defaultdict(float)
    positions: Counter[str] = Counter()
    by_role: Counter[str] = Counter()
    objective, tokens = 0.0, 0
    for batch in batches:
        objective += _accumulate(student, batch, 1.0 / loss_tokens, autocast, look, nats, positions)
        by_role.update(batch.loss_tokens)
        tokens += len(batch.ids_T)
    trained = [parameter for parameter in student.model.parameters() if parameter.requires_grad]
    parallel.add_up(trained)
    norm = clip(trained, clip_norm)
    if norm != norm or norm == float("inf"):
        raise SignalError(
            f"the gradient's norm is {norm}", fix="lower train.learning_rate, or set train.precision = float32"
        )
    return StepResult(dict(nats), dict(positions), objective, loss_tokens, dict(by_role), tokens, norm)


def _accumulate(
    student: Causal, batch: Batch, scale: float, autocast: torch.autocast, look: Look | None,
    nats: dict[str, float], positions: Counter[str],
) -> float:  # fmt: skip
    with autocast:
        hidden_TD = student.hidden(batch.ids_T, batch.lengths)
        batch = focused(batch, hidden_TD, student.head())
    gradient_TD = torch.zeros_like(hidden_TD)
    head, objective = student.head(), 0.0
    weight, fresh = student.gradient_buffer(head.weight_VD)
    bias, _ = (None, False) if head.bias_V is None else student.gradient_buffer(head.bias_V, zeros=True)
    for number, term in enumerate(batch.terms):
        if not len(term.positions_N):
            continue
        found = head_gradients(
            hidden_TD.detach()[term.positions_N], head, term.parts, scale, weight_gradient_VD=weight,
            bias_gradient_V=bias, dtype=torch.bfloat16 if autocast._enabled else None, fresh=fresh,
            look=None if look is None else lambda logits_NV, at, number=number: look(logits_NV, batch, number, at),
        )  # fmt: skip
        fresh = False
        gradient_TD.index_add_(0, term.positions_N, found.gradient_ND)
        for part, total in zip(term.parts, found.nats, strict=True):
            if total != total or abs(total) == float("inf"):
                raise SignalError(
                    f"the loss {part.loss.name} is {total} on rows {list(batch.rows)[:8]}",
                    fix="lower train.learning_rate, or set train.precision = float32; look at those rows",
                )
            nats[part.loss.name] += total
            positions[part.loss.name] += len(term.positions_N)
            objective += part.weight * total
    if fresh and weight is not None:
        weight.zero_()  # a batch without a loss
    if hidden_TD.requires_grad:
        hidden_TD.backward(gradient_TD)
    return objective


def clip(parameters: list[torch.nn.Parameter], limit: float) -> float:
    """Scales all gradients so that their joint L2 norm is at most `limit`; returns the norm before."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True).item() if gradients else 0.0
    if norm > limit:
        torch._foreach_mul_(gradients, limit / (norm + 1e-6))
    return norm


def clear(student: Causal) -> None:
    """Forgets all gradients. The memory of the head's is kept for the next step: making it anew costs as much as using it."""
    student.keep_buffer()
    for parameter in student.model.parameters():
        parameter.grad = None
