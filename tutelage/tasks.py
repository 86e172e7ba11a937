"""A label task: how the teacher is asked, how the student is asked, and how an answer is read. Pure.

The teacher gets the instruction and the examples; the student gets the question alone: what the prompt taught is to
be baked into its weights. Both answer with the same label words.
"""

import math
from dataclasses import dataclass

from tutelage.config import TaskTable
from tutelage.errors import SignalError
from tutelage.records import UNATS_PER_NAT, Exchange, Message, Position

FLOOR_NATS = -23.0  # log-probability of a label that is not among the revealed candidates, about 1e-10


@dataclass(frozen=True, slots=True)
class LabelReading:
    """An answer as a distribution over labels: `logp_L` natural log-probabilities (not normalised over labels),
    `mass` their total probability, `literal` the index of the label the text says, or −1."""

    logp_L: tuple[float, ...]
    mass: float
    literal: int


def teacher_messages(task: TaskTable, text: str) -> tuple[Message, ...]:
    """System instruction, the examples as turns, then the question."""
    turns = [Message("system", task.instruction)]
    for shot in task.examples:
        turns += [Message("user", _ask(task, shot.text)), Message("assistant", shot.label)]
    return (*turns, Message("user", _ask(task, text)))


def student_messages(task: TaskTable, text: str) -> tuple[Message, ...]:
    """The question alone."""
    return (Message("user", _ask(task, text)),)


def read_label(task: TaskTable, exchange: Exchange) -> LabelReading:
    """Label log-probabilities from the first generated position.

    Each label is read from the longest candidate token that begins it and begins no other label (leading white space
    ignored); a label with no such candidate gets `FLOOR_NATS`. Raises `SignalError` when the answer has no
    log-probabilities.
    """
    literal = literal_label(task, exchange.answer)
    if not exchange.logprobs:
        raise SignalError(
            f"the answer {exchange.answer[:40]!r} of {exchange.model.model_asked} carries no log-probabilities",
            fix='set teacher.signal = "text" to learn from the answered words alone',
        )
    logp = label_logprobs(task.labels, exchange.logprobs[0])
    found = [value for value in logp if value > FLOOR_NATS]
    return LabelReading(logp, math.fsum(math.exp(value) for value in found), literal)


def read_answer(task: TaskTable, exchange: Exchange, signal: str) -> LabelReading:
    """`read_label`, or for `signal` = "text" the answered word alone, with the whole mass on it (`literal` −1 and mass
    0 when it is no label)."""
    if signal != "text":
        return read_label(task, exchange)
    said = literal_label(task, exchange.answer)
    return LabelReading(
        tuple(0.0 if at == said else FLOOR_NATS for at in range(len(task.labels))), 1.0 if said >= 0 else 0.0, said
    )


def label_logprobs(labels: tuple[str, ...], position: Position) -> tuple[float, ...]:
    """Natural log-probability of each label's first token among the candidates; `FLOOR_NATS` where it is absent."""
    best: dict[int, tuple[int, int]] = {}
    for candidate in position.top:
        label = label_begun_by(labels, candidate.token_bytes)
        if label >= 0:
            best[label] = max(best.get(label, (0, 0)), (len(candidate.token_bytes.strip()), candidate.logprob_unats))
    return tuple(best[at][1] / UNATS_PER_NAT if at in best else FLOOR_NATS for at in range(len(labels)))


def label_begun_by(labels: tuple[str, ...], token: bytes) -> int:
    """Index of the only label that the token begins, else −1."""
    begun = token.strip()
    matches = [at for at, label in enumerate(labels) if begun and label.encode().startswith(begun)]
    return matches[0] if len(matches) == 1 else -1


def literal_label(task: TaskTable, answer: str) -> int:
    """Index of the label that the answer's text is, or unambiguously begins; else −1."""
    said = answer.strip().strip(".!\"'").casefold()
    exact = [at for at, label in enumerate(task.labels) if said == label.casefold()]
    begun = [at for at, label in enumerate(task.labels) if said and label.casefold().startswith(said)]
    return exact[0] if exact else begun[0] if len(begun) == 1 else -1


def _ask(task: TaskTable, text: str) -> str:
    return task.question.replace("{text}", text)
