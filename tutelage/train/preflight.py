"""What is looked at before the first step, so that a run that cannot be right does not begin.

Legend: N loss positions, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from tutelage.errors import ConfigError, SignalError
from tutelage.losses.alm import Chunks
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import ENTRIES, make
from tutelage.losses.chunked import Part, values
from tutelage.losses.preference import Pairs
from tutelage.losses.ranked import Matched, Ranked
from tutelage.models.causal import Causal
from tutelage.signals import Dense, Scored, Signal, Sparse, Text, TopK
from tutelage.train.examples import Example
from tutelage.train.offpolicy import passage_of

TRIED = 8  # examples that are looked at
REVEALS: dict[str, type[Signal]] = {
    "dense": Dense, "hidden": Dense, "threshold": Sparse, "random": Sparse, "top-k": TopK, "sampled": Scored, "text": Text,
    "pairs": Pairs, "chunks": Chunks, "recorded": Chunks, "ranks": Ranked, "matched": Matched,
}  # fmt: skip
ACROSS = ("chunks", "ranks", "matched")  # of teachers whose tokens may be others than the student's
CAPTURED = ("hidden", "threshold", "random", "top-k")  # asked for once, before training; the others as it goes
SURPRISE_NATS = 0.1  # a rendering that costs the teacher so much more than another is not its own


def choose_signal(loss: Loss, given: str | None, student_share: float) -> str:
    """The signal a loss is trained on: the one given, or its usual one. Raises `SignalError` for one that the loss cannot use, or
    that there is none of for the text that the student writes (`student_share` of the steps)."""
    fitting = [name for name, reveals in REVEALS.items() if reveals is loss.takes]
    signal = given or fitting[0]
    if signal not in fitting:
        reveals = REVEALS[signal]
        losses = ", ".join(name for name, entry in ENTRIES.items() if entry.takes is reveals)
        raise SignalError(
            f"{loss.name} takes {loss.takes.__name__} signals, and signal = {signal!r} gives {reveals.__name__}",
            fix=f"set method.signal to {' or '.join(map(repr, fitting))}, or choose one of these losses: {losses}",
        )
    if student_share and signal in (*CAPTURED, "recorded"):
        raise SignalError(
            f"signal = {signal!r} is captured before training, and what the student will write is not known then",
            fix='choose a loss on signal = "dense", or prefix = "data"',
        )
    if student_share and signal == "pairs":
        raise SignalError(
            f"{loss.name} prefers the data's text to the student's own, and needs both in every step",
            fix='set method.prefix = "data"',
        )
    if student_share and signal == "text":
        raise SignalError(
            f"{loss.name} on the student's own text would teach it what it says already",
            fix='set method.prefix = "data"',
        )
    if signal == "sampled" and student_share != 1:
        raise SignalError(
            f"{loss.name} is an average over the student's own text, which is {student_share:.0%} of the steps",
            fix='set method.prefix = "student", or choose a loss on signal = "dense"',
        )
    return signal


class Rendering(NamedTuple):
    """A way of writing the same conversations, and what the answers cost the teacher under it, in nats a token."""

    name: str
    teacher_nats: float


def require_finite(model: torch.nn.Module, who: str) -> None:
    """Raises `SignalError` for a weight that is not a finite number, naming it."""
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise SignalError(
                f"the {who}'s weights are not finite, first in {name}: its logits would not be either",
                fix="fetch or convert the weights again; float16 overflows where bfloat16 does not",
            )


@torch.no_grad()
def nats_a_token(model: Causal, examples: Sequence[Example], who: str) -> float:
    """Mean cross-entropy of a model at the places that are learnt. Raises `SignalError` when it is not finite, naming the
    model and the example."""
    loss, total, count = make("cross-entropy"), 0.0, 0
    training = model.model.training
    model.model.eval()
    for example in examples[:TRIED]:
        passage = passage_of([example], model.device)
        hidden_TD = model.hidden(passage.ids_T, passage.lengths)
        (nats_N,) = values(hidden_TD[passage.positions_N], model.head(), (Part(loss, Text(passage.target_ids_N)),))
        if not torch.isfinite(nats_N).all():
            raise SignalError(
                f"the {who}'s logits are not finite on {example.source} ({nats_N[~torch.isfinite(nats_N)][0].item()})",
                fix="check its weights; use float32 where half precision overflows",
            )
        total, count = total + nats_N.sum().item(), count + len(nats_N)
    model.model.train(training)
    return total / count


def check_learnt(examples: Sequence[Example]) -> None:
    """Raises `ConfigError` for an example of which nothing, or everything, is learnt: its mask is wrong."""
    for example in examples:
        if not 0 < len(example.targets) < len(example.ids) or example.targets[0] < 1:
            raise ConfigError(
                f"{len(example.targets)} of {len(example.ids)} tokens of {example.source} are learnt",
                fix="an answer after a prompt is learnt, neither nothing nor the prompt",
            )


def choose_rendering(found: Sequence[Rendering], chosen: str) -> Rendering:
    """The rendering of this name. Raises `ConfigError` when another one costs the teacher much less: it was made for that one,
    and would teach its surprise about this one."""
    (own,) = (one for one in found if one.name == chosen)
    best = min(found, key=lambda one: one.teacher_nats)
    if own.teacher_nats > best.teacher_nats + SURPRISE_NATS:
        raise ConfigError(
            f"the answers cost the teacher {own.teacher_nats:.3f} nats a token as {own.name} writes them, and "
            f"{best.teacher_nats:.3f} as {best.name} does",
            fix=f"give the student {best.name}, so that both read what the teacher was trained on",
        )
    return own


def same_ends(student: Sequence[int], teacher: Sequence[int]) -> None:
    """Raises `ConfigError` when student and teacher end a turn by other tokens: the student would not stop where it did."""
    if not set(student) & set(teacher):
        raise ConfigError(
            f"the student ends a turn with token {sorted(student)}, the teacher with {sorted(teacher)}",
            fix="use a template that ends turns as the teacher's does",
        )


def require_stop(written: Sequence[int], stopped_at: Sequence[int]) -> None:
    """Raises `ConfigError` when nothing that ends a turn in the template (`written`) ends an answer where the student is served:
    by its generation_config it stops at `stopped_at`."""
    if not set(written) & set(stopped_at):
        raise ConfigError(
            f"the template ends an answer with token {sorted(written)}, and the student's generation_config stops at "
            f"{sorted(stopped_at)}: whoever serves it would not notice the end",
            fix="add the template's end token to eos_token_id in the base's generation_config.json",
        )
