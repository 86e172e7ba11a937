"""What came of questions in batches: stored, priced, settled in the budget, and asked again where that helps."""

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tutelage.errors import TutelageError
from tutelage.models.ask import FORM_ATTEMPTS, Asking, Todo, WithoutForm, attempt_of, require_logprobs, tokens_of
from tutelage.models.base import AskAgain, Refused
from tutelage.models.batches.base import BatchLine, BatchModel
from tutelage.models.batches.journal import now_exactly
from tutelage.models.batches.parts import seconds
from tutelage.models.exchange import Bound, exchange_of, now_utc, problem_of
from tutelage.models.prices import BATCH
from tutelage.records import NUSD_PER_USD, Failure, Usage


class Entry(NamedTuple):
    """One question in a job, or on its way into one."""

    todo: Todo
    bound: Bound
    attempt: int


@dataclass(slots=True)
class Answers:
    """`queue` holds what goes into the next jobs; `without_form` counts answers without the form they must have."""

    asking: Asking
    batches: BatchModel
    queue: deque[Entry] = field(default_factory=deque)
    without_form: int = 0

    def __post_init__(self) -> None:
        assert self.asking.prices.tier == BATCH

    def take(self, entry: Entry, line: BatchLine, at: str) -> AskAgain | None:
        """Stores what came of one question that was submitted `at`, and settles what was reserved for it. Returns why it
        is to be asked again; what stops everything is in `asking.fatal`: the other answers are paid for."""
        asking, (todo, bound, attempt) = self.asking, entry
        usage, untold = Usage(0, 0, 0), False
        try:
            reply = self.batches.reply(line, todo.request)
            usage, untold = reply.answer.usage, not reply.answer.usage_reported
            require_logprobs(todo.request, reply, asking)
            if asking.wants_form and (problem := problem_of(todo.request, reply)):
                raise WithoutForm(problem, usage=usage, may_be_billed=untold, body=reply.body)
        except AskAgain as again:
            self.note(entry, again)
            return again
        except Refused as refused:
            self.note(entry, AskAgain(refused.reason, body=refused.body))
            self.give_up(entry, refused)
            return None
        except TutelageError as error:
            self.note(entry, AskAgain(error.message, usage=usage, may_be_billed=untold, body=line.body))
            asking.fatal = asking.fatal or error
            return None
        took_ms = max(0, round(1000 * (time.time() - seconds(at))))
        asked_at = f"{at[:19]}Z"
        exchange = exchange_of(
            todo.request,
            todo.address,
            self.batches.endpoint,
            reply,
            asking.terms,
            asking.prices,
            attempt,
            asked_at,
            took_ms,
        )
        nothing_told = AskAgain("the answer does not say its usage", may_be_billed=True)
        note = attempt_of(asking, todo, bound, 0, nothing_told) if untold else None
        asking.store.put(todo.request, exchange, reply.body, note)
        nusd = bound.nusd if untold else exchange.price.cost_nusd
        tokens = bound.tokens if untold else tokens_of(usage)
        asking.budget.settle(bound.nusd, bound.tokens, nusd, tokens)
        asking.answered += 1
        asking.progress.advance(asking.reused + asking.answered, tokens=tokens, usd=nusd / NUSD_PER_USD)
        return None

    def note(self, entry: Entry, again: AskAgain) -> None:
        """Stores that a question got no usable answer in a job, and settles what was reserved for it."""
        todo, bound, attempt = entry
        noted = replace(attempt_of(self.asking, todo, bound, attempt, again), ended_at=now_exactly())
        self.asking.store.put_attempt(noted, again.body)
        nusd, tokens = (bound.nusd, bound.tokens) if again.may_be_billed else (noted.nusd, noted.tokens)
        self.asking.budget.settle(bound.nusd, bound.tokens, nusd, tokens)

    def again(self, entry: Entry, why: AskAgain) -> None:
        """Into the next job, unless it was in as many as it may be."""
        is_form = isinstance(why, WithoutForm)
        self.without_form += is_form
        if entry.attempt < (min(FORM_ATTEMPTS, self.asking.attempts) if is_form else self.asking.attempts):
            self.queue.append(entry._replace(attempt=entry.attempt + 1))
        else:
            self.give_up(entry, why)

    def give_up(self, entry: Entry, why: AskAgain | Refused) -> None:
        """Stores that a question goes without an answer."""
        is_refused = isinstance(why, Refused)
        failure = Failure(entry.todo.address, why.reason, entry.attempt, now_utc(), is_refused)
        self.asking.store.put_failure(failure)
        (self.asking.refusals if is_refused else self.asking.failures).append(failure)
