"""Asking the models of a proof, each through its endpoint, and what they decided.

Shape legend: N items, L labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.config import TaskTable
from tutelage.meter import Meter
from tutelage.models.ask import Asking
from tutelage.models.questions import ask_all, exchange_rows, label_request
from tutelage.records import Message, Prompt
from tutelage.stats.labels import balance_offsets
from tutelage.tasks import read_or_nothing


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model said to each item.

    Label log-probabilities `logp_NL` (nats, not normalised), whether any label could be read (`read_N`), the label its
    text says (`literal_N`, −1 for none), tokens a question, and which exchange answers which prompt.
    """

    logp_NL: NDArray[np.float64]
    read_N: NDArray[np.bool_]
    literal_N: NDArray[np.int64]
    tokens_per_question: float
    rows: tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True)
class Questions:
    """How to question one model: the messages for a text, the request's parameters, the signal it gives, how many at
    once, the CPU-seconds its server has used so far (None for a server that is not ours), and which time (`draw`) it is
    asked: a question asked again is another request."""

    messages: Callable[[TaskTable, str], tuple[Message, ...]]
    params: dict[str, Any]
    signal: str
    concurrency: int
    cpu_s: Callable[[], float] | None
    draw: int = 0


def observe(
    asking: Asking, task: TaskTable, prompts: Sequence[Prompt], how: Questions, purpose: str, what: str, meter: Meter
) -> Answers:
    """Asks every item in the purpose's namespace. CPU-seconds and questions are added up in `meter`, over resumed runs
    too. Raises what `ask` raises."""
    endpoint = asking.model.endpoint
    requests = [label_request(endpoint, how.messages(task, prompt.text), how.params, purpose) for prompt in prompts]
    requests = [replace(request, draw=how.draw) for request in requests]
    before_s = how.cpu_s() if how.cpu_s else 0.0
    answered_before = asking.answered
    try:
        ask_all(asking, requests, how.concurrency, what)
    finally:
        if how.cpu_s:
            meter.add(how.cpu_s() - before_s, asking.answered - answered_before)
    addresses = [request.digest for request in requests]
    exchanges = [asking.store.get(address) if asking.store.has(address) else None for address in addresses]
    readings = [read_or_nothing(task, exchange, how.signal) for exchange in exchanges]
    usages = [exchange.usage for exchange in exchanges if exchange is not None]
    tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in usages)
    return Answers(
        np.array([reading.logp_L for reading in readings]),
        np.array([reading.mass > 0 for reading in readings]),
        np.array([reading.literal for reading in readings]),
        tokens / max(1, len(usages)),
        tuple(exchange_rows(asking, prompts, requests)),
    )


def fix_offsets(task: TaskTable, logp_NL: NDArray[np.float64]) -> NDArray[np.float64]:
    """The decision rule's offsets [L] for one model, from its answers to training items alone. Zeros for a model that
    says the same to every item: nothing could divide them."""
    relative_NL = logp_NL - logp_NL[:, :1]
    if task.decision == "argmax" or (relative_NL == relative_NL[0]).all():
        return np.zeros(len(task.labels))
    return balance_offsets(logp_NL, np.array(task.declared_shares))
