"""The one verb that asks a model: concurrency, pace, retry, budget and resuming, once, for every purpose.

What the store already has is not asked again; what is answered is in the store before the next question starts. What a
call may cost is in the store before it is made, so that a killed process leaves no spending that nobody counts.
"""

import asyncio
import itertools
import math
import random
import time
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import NamedTuple

from tutelage.canon import digest_bytes
from tutelage.errors import BudgetError, Interrupted, PartialError, SignalError, TeacherError, TutelageError
from tutelage.models.again import Again
from tutelage.models.base import AskAgain, Model, Refused, Reply
from tutelage.models.budget import Budget
from tutelage.models.exchange import NOTHING_BEYOND, Beyond, Bound, Terms, bound_of, exchange_of, now_utc, problem_of
from tutelage.models.limits import LONGEST_WAIT_S, backoff_s
from tutelage.models.own import OwnModel
from tutelage.models.prices import PriceList
from tutelage.models.throttle import Outcome, OutcomeKind, Throttle
from tutelage.progress import Progress, Stop
from tutelage.records import NUSD_PER_USD, Attempt, Failure, Request, Reservation, Role, Usage
from tutelage.store.store import Store

REFUSED_SHARE = 0.02  # a few questions that an endpoint will not take are left out; more is no accident
CONNECT_ATTEMPTS = 3  # for the very first question: an unreachable endpoint is told in seconds, not in minutes
ROW_OF_FAILURES = 8  # so many questions in a row without an answer, each after every attempt, end the asking
THROTTLED_AT_MOST_S = 900.0  # after so long without anything but "slow down", a question is given up
FORM_ATTEMPTS = 2  # for an answer that must have a form: a second draw may have it, a tenth is money burnt
_LOOKED_UP = 500  # addresses looked up at once
_LEAST_BYTES_A_TOKEN = 8  # text longer than this times the model's limit is over it by any tokenizer's measure


@dataclass(slots=True)
class Asking:
    """One call of `ask`: its fixed parts and its counters. `window_tokens` is the model's limit where it is known."""

    model: Model
    store: Store
    terms: Terms
    budget: Budget
    prices: PriceList
    progress: Progress
    stop: Stop
    attempts: int
    throttle: Throttle
    seed: int = 0
    window_tokens: int | None = None
    answered: int = 0
    reused: int = 0
    failures: list[Failure] = field(default_factory=list)
    refusals: list[Failure] = field(default_factory=list)
    fatal: TutelageError | None = None
    row_of_failures: int = 0
    without_form: int = 0
    unsent: int = 0  # refused for what they are, by us or the endpoint: that tells nothing of other questions
    beyond: Beyond = NOTHING_BEYOND
    silence_told: bool = False
    again: Again = field(default_factory=Again)

    @property
    def is_free(self) -> bool:
        """Our own student: its answers cost no money and no budget."""
        return self.model.endpoint.provider == "tutelage"

    @property
    def wants_form(self) -> bool:
        """Whether an answer without the form it was asked in is asked for again. In a proof the first answer counts: to draw
        until it fits would help whoever fails most."""
        return self.terms.role is not Role.EVALUATION

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be asked: a person stopped it, or an error that holds for all questions did."""
        return bool(self.stop) or self.fatal is not None


class _Over(Stop):
    """An asking as the flag that those look at who wait for a place or for money."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def __bool__(self) -> bool:
        return self._asking.is_over


class Todo(NamedTuple):
    address: str
    request: Request


async def ask(
    asking: Asking, requests: Iterable[Request], concurrency: int, what: str, total: int | None = None
) -> None:
    """Asks every request the store has no answer for. On return all are answered, but for up to `REFUSED_SHARE` that the
    endpoint will not take: those are in `asking.refusals`.

    `requests` may be a stream (then say the `total`): it is read as far as it is asked. Raises `TeacherError` (endpoint
    unreachable or refusing), `BudgetError`, `SignalError`, `PartialError` (some unanswered after every retry; their
    names are in the store as failures) or `Interrupted`. In each case what was answered is stored.
    """
    total = len(requests) if isinstance(requests, Sized) else total or 0
    asking.progress.begin(what, total)
    queue = unanswered(asking, requests)
    try:
        # The first question goes alone: it shows whether the endpoint is there, and fills a prompt cache. Refused, it may
        # be one of the few; three of them say that the endpoint takes no such questions.
        for todo in queue:
            if isinstance(asking.model, OwnModel) and not asking.is_over:
                await asking.model.wake(asking.progress)
            await _worker(asking, iter([todo]), CONNECT_ATTEMPTS)
            refused = len(asking.refusals) - asking.unsent
            if asking.answered or asking.failures or asking.is_over or refused >= CONNECT_ATTEMPTS:
                break
        # What it refuses again tells nothing new where it has answered others before.
        is_silent = not asking.answered and not asking.without_form and bool(asking.failures or not asking.reused)
        if is_silent and (asking.failures or len(asking.refusals) > asking.unsent) and asking.fatal is None:
            asking.fatal = _unreachable(asking)
        if not asking.is_over:
            workers = min(concurrency, total or concurrency)
            await asyncio.gather(*(_worker(asking, queue, asking.attempts) for _ in range(workers)))
    finally:
        asking.store.sync()
        asking.progress.end()
    raise_outcome(asking, total)


def unanswered(asking: Asking, requests: Iterable[Request]) -> Iterator[Todo]:
    """What the store does not have, each once: the same question twice is one question."""
    seen: set[bytes] = set()  # half of each digest: enough to tell millions apart
    stream = iter(requests)
    while chunk := [Todo(request.digest, request) for request in itertools.islice(stream, _LOOKED_UP)]:
        known = asking.store.known([todo.address for todo in chunk])
        for todo in chunk:
            mark = bytes.fromhex(todo.address[7:39])
            if mark in seen:
                continue
            seen.add(mark)
            if todo.address in known:
                asking.reused += 1
                asking.progress.kept()
            else:
                yield todo


async def _worker(asking: Asking, queue: Iterator[Todo], attempts: int) -> None:
    for todo in queue:
        if asking.is_over:
            return
        try:
            await _ask_one(asking, todo, attempts)
        except TutelageError as error:  # final for the whole call: the other workers drain
            asking.fatal = asking.fatal or error


async def _ask_one(asking: Asking, todo: Todo, tries: int) -> None:
    over = _Over(asking)
    if (reason := too_long(asking, todo.request)) is not None:
        asking.unsent += 1
        _name(asking, Failure(todo.address, reason, 0, now_utc(), refused=True))
        return
    failed = attempt = 0
    throttled_from = math.inf
    while True:
        attempt += 1
        bound = bound_of(todo.request, asking.prices, asking.beyond)
        if not (ticket := await asking.throttle.enter(bound.tokens, over)):
            if asking.throttle.gave_up is not None:
                raise _unreachable(asking, asking.throttle.gave_up)
            return
        outcome = Outcome(OutcomeKind.REFUSED, 0, None, {})
        try:
            if over or not await asking.budget.reserve_or_wait(bound.nusd, bound.tokens, over):
                return
            reply = await _call(asking, todo, bound, attempt)
            outcome = Outcome(OutcomeKind.ANSWERED, tokens_of(reply.answer.usage), None, reply.headers)
            return
        except Refused as refused:
            _give_up(asking, todo, refused, attempt)
            return
        except AskAgain as again:
            kind = OutcomeKind.THROTTLED if again.throttled else OutcomeKind.FAILED
            if again.usage is not None:  # it answered, if nothing of use: the endpoint is there
                kind = OutcomeKind.ANSWERED
            outcome = Outcome(kind, tokens_of(again.usage or Usage(0, 0, 0)), again.wait_s, again.headers)
            now = time.monotonic()
            if again.throttled:  # to be asked to wait is no failure, however often, for a time
                throttled_from = min(throttled_from, now)
            else:
                failed += 1
            is_enough = failed >= tries or (isinstance(again, WithoutForm) and failed >= FORM_ATTEMPTS)
            if is_enough or now - throttled_from > THROTTLED_AT_MOST_S:
                _give_up(asking, todo, again, attempt)
                return
            asking.again.failed(todo.address, again.reason)
            _tell_how_far(asking)
            _tell_of_silence(asking, again.reason)
            jitter = random.Random(f"{asking.seed}:{todo.address}:{attempt}")
            wait_s = max(again.wait_s or 0.0, backoff_s(attempt, None, jitter))
        finally:
            asking.throttle.leave(ticket, bound.tokens, outcome)
        await pause(asking, min(wait_s, LONGEST_WAIT_S))


def _tell_how_far(asking: Asking, tokens: int = 0, nusd: int = 0) -> None:
    done = asking.reused + asking.answered
    asking.progress.advance(done, tokens=tokens, usd=nusd / NUSD_PER_USD, note=asking.again.words)


def _tell_of_silence(asking: Asking, reason: str) -> None:
    """Once for each silence: a person who waits must know for what."""
    if asking.throttle.is_open and not asking.silence_told:
        asking.progress.say(f"the endpoint fails ({reason}): trying now and then, for up to ten minutes; Ctrl-C stops")
    asking.silence_told = asking.throttle.is_open


class WithoutForm(AskAgain):
    """An answer that does not have the form it was asked in."""


async def _call(asking: Asking, todo: Todo, bound: Bound, attempt: int) -> Reply:
    """One call under a reservation of the budget, which it settles. Raises what `Model.complete` raises."""
    settled = Usage(0, 0, 0)
    nusd, unresolved, asked_at, began = 0, False, now_utc(), time.monotonic()
    if not asking.is_free:
        asking.store.reserve(Reservation(todo.address, attempt, bound.nusd, bound.tokens, asked_at))
    try:
        reply = await asking.model.complete(todo.request)
        settled, unresolved = reply.answer.usage, not reply.answer.usage_reported
        _learn(asking, bound, settled)
        require_logprobs(todo.request, reply, asking)
        if asking.wants_form and (problem := problem_of(todo.request, reply)):
            raise WithoutForm(problem, usage=settled, may_be_billed=unresolved, body=reply.body)
        took_ms = round(1000 * (time.monotonic() - began))
        exchange = exchange_of(
            todo.request, todo.address, asking.model.endpoint, reply, asking.terms, asking.prices, attempt, asked_at, took_ms,
        )  # fmt: skip
        nusd = exchange.price.cost_nusd
        untold = AskAgain("the answer does not say its usage", may_be_billed=True)
        note = attempt_of(asking, todo, bound, 0, untold) if unresolved and not asking.is_free else None
        asking.store.put(todo.request, exchange, reply.body, note)
    except AskAgain as again:
        settled, unresolved = again.usage or settled, again.may_be_billed
        nusd = asking.prices.of(settled).cost_nusd
        _note(asking, todo, bound, attempt, again)
        raise
    except (Refused, TeacherError, SignalError) as error:
        unresolved = unresolved or getattr(error, "may_be_billed", False)
        nusd = asking.prices.of(settled).cost_nusd
        again = AskAgain(str(error), usage=settled, may_be_billed=unresolved, body=getattr(error, "body", b""))
        _note(asking, todo, bound, attempt, again)
        raise
    finally:
        tokens = bound.tokens if unresolved else tokens_of(settled)
        asking.budget.settle(bound.nusd, bound.tokens, bound.nusd if unresolved else nusd, tokens)
    asking.answered += 1
    asking.row_of_failures = 0
    asking.again.ended(todo.address)
    _tell_how_far(asking, tokens, nusd)
    return reply


def _learn(asking: Asking, bound: Bound, usage: Usage) -> None:
    """An endpoint that counted more than it could is believed from then on, and a person is told once."""
    prompt, completion = usage.prompt_tokens - bound.prompt_tokens, usage.completion_tokens - bound.completion_tokens
    if prompt <= 0 and completion <= 0:
        return
    if asking.beyond == NOTHING_BEYOND:
        what = (
            f"{usage.prompt_tokens} tokens of a prompt of at most {bound.prompt_tokens}"
            if prompt > 0
            else (f"{usage.completion_tokens} tokens of an answer where max_tokens was {bound.completion_tokens}")
        )
        asking.progress.say(f"the endpoint counted {what}: more is set aside for each call from now on")
    seen = asking.beyond
    asking.beyond = Beyond(seen.prompt_tokens + max(0, prompt), seen.completion_tokens + max(0, completion))


def _note(asking: Asking, todo: Todo, bound: Bound, attempt: int, again: AskAgain) -> None:
    """Stores an attempt without a usable answer, and what came instead."""
    if not asking.is_free:
        asking.store.put_attempt(attempt_of(asking, todo, bound, attempt, again), again.body)


def attempt_of(asking: Asking, todo: Todo, bound: Bound, attempt: int, again: AskAgain) -> Attempt:
    usage, may = again.usage or Usage(0, 0, 0), again.may_be_billed
    return Attempt(
        request_digest=todo.address,
        attempt=attempt,
        reason=again.reason,
        nusd=asking.prices.of(usage).cost_nusd,
        tokens=tokens_of(usage),
        open_nusd=bound.nusd if may else 0,
        open_tokens=bound.tokens if may else 0,
        raw_body_digest=digest_bytes(again.body) if again.body else "",
        ended_at=now_utc(),
    )


def _name(asking: Asking, failure: Failure) -> None:
    asking.store.put_failure(failure)
    (asking.refusals if failure.refused else asking.failures).append(failure)


def _give_up(asking: Asking, todo: Todo, why: AskAgain | Refused, attempts: int) -> None:
    """The question goes without an answer. Raises `TeacherError` or `SignalError` when that is the rule."""
    is_refused = isinstance(why, Refused)
    asking.again.ended(todo.address)
    _name(asking, Failure(todo.address, why.reason, attempts, now_utc(), is_refused))
    if isinstance(why, Refused) and why.is_about_it:
        asking.unsent += 1
        return
    if isinstance(why, WithoutForm):
        asking.without_form += 1
        if asking.without_form >= ROW_OF_FAILURES and not asking.answered:
            raise SignalError(
                f"the first {asking.without_form} answers did not have the form they must have; the last: {why.reason}",
                fix="check the schema or the tools against what the model can do; `tutelage probe` shows what it takes",
            )
        return
    asking.row_of_failures += 1
    if asking.row_of_failures >= ROW_OF_FAILURES:
        raise _unreachable(asking)


def too_long(asking: Asking, request: Request) -> str | None:
    """Told before it is sent, where the model's limit is known and the text is over it by any tokenizer's measure."""
    if asking.window_tokens is None:
        return None
    size = sum(len(message.content.encode()) for message in request.messages)
    least = size // _LEAST_BYTES_A_TOKEN + int(request.params["max_tokens"])
    if least <= asking.window_tokens:
        return None
    return (
        f"not sent: {size:,} bytes of prompt and max_tokens = {request.params['max_tokens']:,} are at least {least:,} tokens; "
        f"the limit of {request.model_asked} is {asking.window_tokens:,}"
    )


def tokens_of(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens


def require_logprobs(request: Request, reply: Reply, asking: Asking) -> None:
    """An endpoint that ignores `logprobs` is told of after one question, not after ten thousand."""
    finished = reply.answer.finish_reason in ("stop", "length")
    if request.params.get("logprobs") and finished and not reply.answer.positions:
        raise SignalError(
            f"{request.model_asked} at {request.route} answered without the log-probabilities that were asked for",
            fix='set teacher.signal = "text" to learn from the answered words alone',
        )


async def pause(asking: Asking, seconds: float) -> None:
    """Sleeps in short steps, so that Ctrl-C is heard."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not asking.is_over:
        await asyncio.sleep(min(0.2, left))


def _unreachable(asking: Asking, reason: str = "") -> TeacherError:
    last = next(iter([*asking.failures[-1:], *asking.refusals[-1:]]), None)
    why = reason or (last.reason if last else "no reason given")
    is_nonsense = why.startswith(("unusable answer", "an empty answer"))
    says = "answers nothing that can be used" if is_nonsense else "does not answer"
    return TeacherError(
        f"{asking.model.endpoint.base_url} {says}: {why}",
        fix="check that the server runs, that teacher.url is right and that it takes such questions; answers are kept",
    )


def raise_outcome(asking: Asking, total: int) -> None:
    if asking.fatal is not None:
        if isinstance(asking.fatal, BudgetError):
            asking.progress.say(f"budget reached after {asking.reused + asking.answered} of {total} answers")
        raise asking.fatal
    if asking.stop:
        raise Interrupted
    if asking.refusals and not asking.failures and len(asking.refusals) <= REFUSED_SHARE * total:
        asking.progress.say(f"{len(asking.refusals)} of {total} questions refused: {asking.refusals[-1].reason}")
        return
    if lost := [*asking.failures, *asking.refusals]:
        raise PartialError(
            f"{len(lost)} of {total} questions got no usable answer; the last: {lost[-1].reason}",
            fix="run the same command again: only those are asked"
            if asking.failures
            else f"mend endpoint or request: more than {REFUSED_SHARE:.0%} refused is no accident. What is to be learnt from may "
            "go on without those rows; a proof may not, it would leave out what a model fails at",
        )
