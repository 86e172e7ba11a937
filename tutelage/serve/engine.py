"""One worker thread that answers queued requests in batches.

Between any two steps of longer answers it serves all waiting one-token requests, so that a label question never waits
for a long generation, only for one step of it.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from tutelage.models.hf import Decoding, Generation, GenerationRequest, HFModel, TokenEvent
from tutelage.models.scoring import ScoreRequest, TextScores, score_text

_GAP_S = 0.003  # the next request of a burst follows within this time
_BURST_S = 0.010  # no request waits longer than this for others to share its batch

_log = logging.getLogger(__name__)


class QueueFull(Exception):
    """More requests are waiting than the engine takes; ask again later."""


class EngineClosed(Exception):
    """The engine is shutting down and takes no more requests."""


Update = TokenEvent | Generation | TextScores | BaseException


@dataclass(eq=False, slots=True)
class Ticket:
    """A request on its way. `deliver` is called in the worker thread: with every `TokenEvent` of a streamed request,
    then once with the `Generation` (of a `ScoreRequest` the `TextScores`) or the exception. Setting `cancelled` stops the
    work on it."""

    request: GenerationRequest | ScoreRequest
    deliver: Callable[[Update], None]
    streamed: bool
    cancelled: bool = field(default=False)


class Engine:
    """Start with `start`; `submit` from any thread; `close` finishes what is queued."""

    def __init__(self, model: HFModel, max_batch: int = 16, max_queue: int = 256) -> None:
        self._model = model
        self._max_batch, self._max_queue = max_batch, max_queue
        self._changed = threading.Condition()
        self._short: deque[Ticket] = deque()
        self._long: deque[Ticket] = deque()
        self._texts: deque[Ticket] = deque()  # to be scored
        self._running: deque[tuple[Decoding, list[Ticket]]] = deque()
        self._closing = False
        self._burst = 1  # how many short requests came together last time
        self._thread = threading.Thread(target=self._work, name="tutelage-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, ticket: Ticket) -> None:
        """Queue a request that passed `HFModel.check` (or `check_text`). Raises `QueueFull` or `EngineClosed`."""
        with self._changed:
            if self._closing:
                raise EngineClosed
            if len(self._short) + len(self._long) + len(self._texts) >= self._max_queue:
                raise QueueFull
            if isinstance(ticket.request, ScoreRequest):
                self._texts.append(ticket)
            else:
                (self._short if ticket.request.max_tokens == 1 else self._long).append(ticket)
            self._changed.notify()

    def close(self, timeout_s: float | None = None) -> None:
        """Take no more requests, finish the queued ones, stop the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        # One thread per batch: two cost 1.3 to 1.5 times the CPU-seconds on small models, and stall on busy machines.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        while self._wait_for_work():
            self._answer_short(self._take_short())
            self._score_one()
            self._begin_long()
            if self._running:
                self._step(*self._running.popleft())

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._is_busy() or self._closing)
            return self._is_busy()

    def _is_busy(self) -> bool:
        return bool(self._short or self._long or self._texts or self._running)

    def _take_short(self) -> list[Ticket]:
        """A batch of one-token requests. Waits a few milliseconds only when the last burst was larger than what is
        here: clients that were answered together ask again together."""
        with self._changed:
            deadline = time.monotonic() + _BURST_S
            expected = min(self._burst, self._max_batch)
            while 0 < len(self._short) < expected and not self._running and not self._closing:
                if not self._changed.wait(min(_GAP_S, max(0.0, deadline - time.monotonic()))):
                    break
            taken = [self._short.popleft() for _ in range(min(len(self._short), self._max_batch))]
        if taken:
            self._burst = len(taken)
        return [ticket for ticket in taken if not ticket.cancelled]

    def _answer_short(self, tickets: list[Ticket]) -> None:
        if not tickets:
            return
        try:
            generations = self._model.first_tokens(_questions(tickets))
        except Exception as error:  # the boundary: one bad batch must not end the server
            self._fail(tickets, error)
            return
        for ticket, generation in zip(tickets, generations, strict=True):
            if ticket.streamed:
                position = generation.positions[0]
                ticket.deliver(TokenEvent(0, generation.text, position, generation.finish_reason))
            ticket.deliver(generation)

    def _score_one(self) -> None:
        """One text in between: others wait for it no longer than for reading a prompt of its length."""
        with self._changed:
            ticket = self._texts.popleft() if self._texts else None
        if ticket is None or ticket.cancelled:
            return
        assert isinstance(ticket.request, ScoreRequest)
        try:
            ticket.deliver(score_text(self._model, ticket.request))
        except Exception as error:  # the boundary, as above
            self._fail([ticket], error)

    def _begin_long(self) -> None:
        with self._changed:
            room = self._max_batch - sum(len(decoding.active) for decoding, _ in self._running)
            taken = [self._long.popleft() for _ in range(min(len(self._long), room))]
        tickets = [ticket for ticket in taken if not ticket.cancelled]
        if tickets:
            self._running.append((self._model.begin(_questions(tickets)), tickets))

    def _step(self, decoding: Decoding, tickets: list[Ticket]) -> None:
        """One token for every answer of one batch; batches take turns."""
        try:
            for index in [answer.index for answer in decoding.active if tickets[answer.index].cancelled]:
                decoding.drop(index)
            events = decoding.step() if decoding.active else []
        except Exception as error:  # the boundary, as above
            self._fail([tickets[answer.index] for answer in decoding.active], error)
            return
        for event in events:
            ticket = tickets[event.index]
            if ticket.streamed:
                ticket.deliver(event)
            if event.finish_reason:
                ticket.deliver(decoding.result(event.index))
        if decoding.active:
            self._running.append((decoding, tickets))

    def _fail(self, tickets: list[Ticket], error: Exception) -> None:
        _log.error("a batch of %d requests failed", len(tickets), exc_info=error)
        for ticket in tickets:
            ticket.deliver(error)


def _questions(tickets: list[Ticket]) -> list[GenerationRequest]:
    """What is to be generated: texts to be scored stand in a queue of their own."""
    return [ticket.request for ticket in tickets if isinstance(ticket.request, GenerationRequest)]
