"""The one verb that asks a model: concurrency, pace, retry, budget and resuming, once, for every purpose.

What the store already has is not asked again; what is answered is in the store before the next question starts.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tutelage.canon import digest_bytes
from tutelage.errors import BudgetError, Interrupted, PartialError, SignalError, TeacherError, TutelageError
from tutelage.models.base import AskAgain, Model, Refused, Reply
from tutelage.models.limits import Budget, Pace, backoff_s
from tutelage.models.prices import PriceList
from tutelage.progress import Progress, Stop
from tutelage.records import NUSD_PER_USD, Exchange, Failure, ModelId, Origin, Request, Role
from tutelage.store.store import Store

REFUSED_SHARE = 0.02  # a few questions that an endpoint will not take are left out; more is no accident
CONNECT_ATTEMPTS = 3  # for the very first question: an unreachable endpoint is told in seconds, not in minutes
_TEMPLATE_TOKENS = 16  # a bound on what a chat template adds to one message


@dataclass(frozen=True, slots=True)
class Terms:
    """Under what an answer is asked for: the digest of the verdict that permits it, and the role it will play."""

    verdict_digest: str
    role: Role


@dataclass(slots=True)
class Asking:
    """One call of `ask`: its fixed parts and its counters."""

    model: Model
    store: Store
    terms: Terms
    budget: Budget
    prices: PriceList
    progress: Progress
    stop: Stop
    attempts: int
    pace: Pace
    seed: int = 0
    answered: int = 0
    reused: int = 0
    failures: list[Failure] = field(default_factory=list)
    refusals: list[Failure] = field(default_factory=list)
    fatal: TutelageError | None = None
    row_of_failures: int = 0


def now_utc() -> str:
    """The time as RFC 3339 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def ask(asking: Asking, requests: Sequence[Request], concurrency: int, what: str) -> None:
    """Asks every request the store has no answer for. On return all are answered, but for up to `REFUSED_SHARE` that the
    endpoint will not take: those are in `asking.refusals`.

    Raises `TeacherError` (endpoint unreachable or refusing), `BudgetError`, `PartialError` (some unanswered after
    every retry; their names are in the store as failures) or `Interrupted`. In each case what was answered is stored.
    """
    distinct = {request.digest: request for request in requests}  # the same question twice is one question
    todo = [request for address, request in distinct.items() if not asking.store.has(address)]
    asking.reused = len(distinct) - len(todo)
    asking.progress.begin(what, len(distinct), asking.reused)
    if todo:
        queue = iter(todo)
        # The first question goes alone: it shows whether the endpoint is there, and fills a prompt cache. Refused, it may
        # be one of the few; three of them say that the endpoint takes no such questions.
        for request in itertools.islice(queue, CONNECT_ATTEMPTS):
            await _worker(asking, iter([request]), CONNECT_ATTEMPTS)
            if asking.answered or asking.failures or asking.fatal is not None or asking.stop:
                break
        if not asking.answered and (asking.failures or asking.refusals) and asking.fatal is None:
            asking.fatal = _unreachable(asking)
        await asyncio.gather(*(_worker(asking, queue, asking.attempts) for _ in range(min(concurrency, len(todo)))))
    asking.store.sync()
    asking.progress.end()
    _raise_outcome(asking, len(distinct))


async def _worker(asking: Asking, queue: Iterator[Request], attempts: int) -> None:
    for request in queue:
        if asking.stop or asking.fatal is not None:
            return
        try:
            await _ask_one(asking, request, attempts)
        except TutelageError as error:  # final for the whole call: the other workers drain
            asking.fatal = asking.fatal or error


async def _ask_one(asking: Asking, request: Request, attempts: int) -> None:
    bound_tokens = _token_bound(request)
    bound_nusd = asking.prices.bound_nusd(bound_tokens)
    jitter = random.Random(f"{asking.seed}:{request.digest}")
    reason, is_refused = "", False
    for attempt in range(1, attempts + 1):
        await asking.pace.wait(asking.stop)
        if asking.stop or asking.fatal is not None:
            return
        await _reserve(asking, bound_nusd, bound_tokens)
        spent_nusd = spent_tokens = 0
        asked_at, began = now_utc(), time.monotonic()
        try:
            reply = await asking.model.complete(request)
            exchange = _exchange(asking, request, reply, attempt, asked_at, round(1000 * (time.monotonic() - began)))
            spent_nusd = exchange.price.cost_nusd
            spent_tokens = exchange.usage.prompt_tokens + exchange.usage.completion_tokens
            if not reply.answer.usage_reported:  # nobody told what it cost: count what it can have cost
                spent_nusd, spent_tokens = bound_nusd, bound_tokens
            _require_logprobs(request, exchange)
            asking.store.put(request, exchange, reply.body)
        except Refused as refused:
            reason, attempts, is_refused = refused.reason, attempt, True
            break
        except AskAgain as again:
            reason = again.reason
            if again.billed:
                spent_nusd, spent_tokens = bound_nusd, bound_tokens
            wait_s = backoff_s(attempt, again.wait_s, jitter)
            if again.throttled:
                asking.pace.pause(wait_s)
        else:
            asking.answered += 1
            asking.row_of_failures = 0
            done = asking.reused + asking.answered
            asking.progress.advance(done, tokens=spent_tokens, usd=spent_nusd / NUSD_PER_USD)
            return
        finally:
            asking.budget.settle(bound_nusd, bound_tokens, spent_nusd, spent_tokens)
        if attempt < attempts:
            await _sleep(asking, wait_s)
    failure = Failure(request.digest, reason, attempts, now_utc(), is_refused)
    asking.store.put_failure(failure)
    (asking.refusals if is_refused else asking.failures).append(failure)
    asking.row_of_failures += 1
    if asking.row_of_failures >= 8:
        raise _unreachable(asking)


async def _reserve(asking: Asking, nusd: int, tokens: int) -> None:
    """Waits while only reservations of questions under way stand between us and the limit: they settle for less."""
    while True:
        try:
            asking.budget.reserve(nusd, tokens)
        except BudgetError:
            if asking.budget.reserved_tokens == 0:
                raise
            await asyncio.sleep(0.005)
        else:
            return


def _require_logprobs(request: Request, exchange: Exchange) -> None:
    """An endpoint that ignores `logprobs` is told of after one question, not after ten thousand."""
    finished = exchange.finish_reason in ("stop", "length")
    if request.params.get("logprobs") and finished and not exchange.logprobs:
        raise SignalError(
            f"{request.model_asked} at {request.route} answered without the log-probabilities that were asked for",
            fix='set teacher.signal = "text" to learn from the answered words alone',
        )


async def _sleep(asking: Asking, seconds: float) -> None:
    """Sleeps in short steps, so that Ctrl-C is heard."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not asking.stop:
        await asyncio.sleep(min(0.2, left))


def _exchange(asking: Asking, request: Request, reply: Reply, attempt: int, asked_at: str, took_ms: int) -> Exchange:
    endpoint, answer = asking.model.endpoint, reply.answer
    return Exchange(
        request_digest=request.digest,
        model=ModelId(
            provider=endpoint.provider,
            route=endpoint.route,
            model_asked=request.model_asked,
            model_reported=answer.model,
            weights_digest=endpoint.weights_digest,
            fingerprint=answer.fingerprint,
            tokenizer_digest=endpoint.tokenizer_digest,
            template_digest=endpoint.template_digest,
            probe_digest="",
            licence=endpoint.licence,
        ),
        answer=answer.text,
        reasoning=answer.reasoning,
        tool_calls=answer.tool_calls,
        finish_reason=answer.finish_reason,
        logprobs=answer.positions,
        usage=answer.usage,
        price=asking.prices.of(answer.usage),
        latency_ms=took_ms,
        attempts=attempt,
        request_id_hash=digest_bytes(reply.request_id.encode()) if reply.request_id else "",
        raw_body_digest=digest_bytes(reply.body),
        terms_digest=asking.terms.verdict_digest,
        twin=None,
        origin=Origin.ASKED,
        role=asking.terms.role,
        asked_at=asked_at,
    )


def _token_bound(request: Request) -> int:
    """Never less than the tokens of the call: no tokenizer makes more tokens than bytes."""
    prompt = sum(len(message.content.encode()) + _TEMPLATE_TOKENS for message in request.messages)
    return prompt + int(request.params.get("max_tokens", 4096))


def _unreachable(asking: Asking) -> TeacherError:
    last = next(iter([*asking.failures[-1:], *asking.refusals[-1:]]), None)
    return TeacherError(
        f"{asking.model.endpoint.base_url} does not answer: {last.reason if last else 'no reason given'}",
        fix="check that the server runs, that teacher.url is right and that it takes such questions; answers are kept",
    )


def _raise_outcome(asking: Asking, total: int) -> None:
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
            else f"leave those rows out of the data: more than {REFUSED_SHARE:.0%} refused is no accident",
        )
