"""A label task: how the teacher is asked, how the student is asked, and how an answer is read. Pure.

The teacher gets the instruction and the examples, as chat turns or as one text to continue; the student gets the
question alone: what the prompt taught is to be baked into its weights. Both answer with the same label words.
"""

import math
from dataclasses import dataclass

from tutelage.config import TaskTable
from tutelage.errors import SignalError
from tutelage.records import RAW, UNATS_PER_NAT, Exchange, Message, Position

FLOOR_NATS = -23.0  # log-probability of a label that is not among the revealed candidates, about 1e-10


@dataclass(frozen=True, slots=True)
class LabelReading:
    """An answer as a distribution over labels: `logp_L` natural log-probabilities (not normalised over labels),
    `mass` their total probability, `literal` the index of the label the text says, or −1."""

    logp_L: tuple[float, ...]
    mass: float
    literal: int


def teacher_messages(task: TaskTable, text: str) -> tuple[Message, ...]:
    """System instruction, the examples as turns, then the question; or, with `task.completion`, all of it as one text
    that ends where the label goes."""
    if task.completion is not None:
        return (Message(RAW, _completion(task, text)),)
    turns = [Message("system", task.instruction)] if task.instruction else []
    for shot in task.examples:
        turns += [Message("user", _ask(task, shot.text)), Message("assistant", shot.label)]
    return (*turns, Message("user", _ask(task, text)))


def student_messages(task: TaskTable, text: str) -> tuple[Message, ...]:
    """The question alone."""
    return (Message("user", _ask(task, text)),)


def read_label(task: TaskTable, exchange: Exchange) -> LabelReading:
    """Label log-probabilities from the first generated position.

    Each label is read from the longest candidate tokens that begin it and begin no other label (leading white space
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


def read_or_nothing(task: TaskTable, exchange: Exchange | None, signal: str) -> LabelReading:
    """`read_answer`; no label is read of a question that was refused, or answered without a token that has log-probabilities (a
    content filter)."""
    if exchange is None or (signal != "text" and not exchange.logprobs):
        return LabelReading(tuple(FLOOR_NATS for _ in task.labels), 0.0, -1)
    return read_answer(task, exchange, signal)


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
    """Natural log-probability of each label among the candidates; `FLOOR_NATS` where it is absent."""
    logp = [FLOOR_NATS] * len(labels)
    found: set[int] = set()
    for candidate, label in zip(position.top, label_of_each(labels, position), strict=True):
        if label >= 0:
            nats = candidate.logprob_unats / UNATS_PER_NAT
            logp[label] = logaddexp(logp[label], nats) if label in found else nats
            found.add(label)
    return tuple(logp)


def label_of_each(labels: tuple[str, ...], position: Position) -> tuple[int, ...]:
    """For each candidate the label it counts for, or −1: the longest candidates that begin it and no other label. With
    and without a leading space are two candidates of one length, and both count."""
    begun = [label_begun_by(labels, candidate.token_bytes) for candidate in position.top]
    lengths = [len(candidate.token_bytes.strip()) for candidate in position.top]
    longest: dict[int, int] = {}
    for label, length in zip(begun, lengths, strict=True):
        longest[label] = max(longest.get(label, 0), length)
    return tuple(label if length == longest[label] else -1 for label, length in zip(begun, lengths, strict=True))


def logaddexp(first: float, second: float) -> float:
    """Natural log of the sum of two probabilities given as natural logs."""
    high, low = max(first, second), min(first, second)
    return high + math.log1p(math.exp(low - high))


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


def _completion(task: TaskTable, text: str) -> str:
    """The examples filled into the pattern one after another, then the question up to its label."""
    assert task.completion is not None
    before, after = task.completion.split("{label}")
    shown = [before.replace("{text}", _ask(task, shot.text)) + shot.label + after for shot in task.examples]
    # Tokenizers put a space before a word, not after the colon: the label brings its own.
    question = before.replace("{text}", _ask(task, text)).rstrip(" ")
    return "".join([f"{task.instruction}\n\n" if task.instruction else "", *shown, question])
