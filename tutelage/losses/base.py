"""What a loss is to the trainer: a pure function of student logits and one type of signal, one value a position.

Shape legend: N positions, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from tutelage.errors import SignalError
from tutelage.signals import Dense, Hidden, Signal


class WithGradient(NamedTuple):
    """`nats_N` and its derivative by the logits, `gradient_NV`: row n is d nats_N[n] / d logits_NV[n]."""

    nats_N: torch.Tensor
    gradient_NV: torch.Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """`value(logits_NV, signal)` gives nats a position, shape [N], in float32 at least, differentiable by autograd.

    `gradient(logits_NV, signal)`, where there is one, gives the same with the derivative in closed form, under no_grad; it may
    overwrite `logits_NV`, which is what makes it cheap. `takes` is the only type of signal either may be called with.

    A loss that ties positions together (a sum over an answer inside a logarithm, say) has `joint(logq_N, signal)` too: the same
    value of the log-probabilities of the tokens `signal.ids_N` alone. Its `value` is right only for all positions that are
    tied to each other at once; `losses.chunked` takes it apart (`settled`).
    """

    name: str
    takes: type[Signal]
    value: Callable[[torch.Tensor, Any], torch.Tensor]
    gradient: Callable[[torch.Tensor, Any], WithGradient] | None = None
    joint: Callable[[torch.Tensor, Any], torch.Tensor] | None = None

    def __call__(self, logits_NV: torch.Tensor, signal: Signal) -> torch.Tensor:
        """Raises `SignalError` for a signal of another type or width."""
        return self.value(logits_NV, self.accept(signal, logits_NV.shape[-1]))

    def accept(self, signal: Signal, columns: int) -> Signal:
        """The signal as this loss takes it of a student with so many columns: hidden states become a distribution. Raises
        `SignalError` otherwise, and for a distribution of another width."""
        if self.takes is Dense and isinstance(signal, Hidden):
            signal = signal.dense()
        if not isinstance(signal, self.takes):
            raise SignalError(
                f"{self.name} takes {self.takes.__name__} signals, not {type(signal).__name__}",
                fix=f"choose a loss that {type(signal).__name__} signals support, or capture {self.takes.__name__} signals",
            )
        if isinstance(signal, Dense) and signal.logp_NV.shape[-1] != columns:
            raise SignalError(
                f"the student's head has {columns} columns, and the teacher's distribution {signal.logp_NV.shape[-1]}",
                fix="cut both heads to the tokens there are, model.resize_token_embeddings(len(tokenizer)), before training",
            )
        return signal


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """float64 stays, everything else becomes float32: small probabilities are lost in half precision."""
    return values if values.dtype == torch.float64 else values.float()
