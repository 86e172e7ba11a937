"""The throttle, under a clock of its own: buckets, concurrency, pauses, breaker, order, cancelling."""

import asyncio
import heapq
import itertools
import random
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.models.throttle import (
    BREAKER_FAILURES,
    BREAKER_LONGEST_S,
    STARTS_AT,
    Outcome,
    OutcomeKind,
    RateLimits,
    Throttle,
)  # fmt: skip
from tutelage.progress import Stop

ANSWERED = Outcome(OutcomeKind.ANSWERED, 0, None, {})
FAILED = Outcome(OutcomeKind.FAILED, 0, None, {})
REFUSED = Outcome(OutcomeKind.REFUSED, 0, None, {})
THROTTLED = Outcome(OutcomeKind.THROTTLED, 0, None, {})


class Time:
    """A clock that stands still until everybody sleeps, and then goes on to whoever wakes first."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = itertools.count()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._number), future))
        await future

    async def run(self, *coroutines: Coroutine[Any, Any, Any], until: float = 1e6) -> list[Any]:
        tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
        left = set(tasks)
        for task in tasks:
            task.add_done_callback(left.discard)
        while left:
            for _ in range(4):
                await asyncio.sleep(0)
            if not left:
                break
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            assert self._sleepers, "everybody waits, and nobody for time"
            at, _, future = heapq.heappop(self._sleepers)
            assert at < until, f"still running at {at}"
            self.now = max(self.now, at)
            future.set_result(None)
        return [task.result() for task in tasks]

    def throttle(self, rpm: int | None = None, tpm: int | None = None, ceiling: int = 1000, **more: Any) -> Throttle:
        starts_at = more.pop("starts_at", None)
        limits = RateLimits(rpm, tpm, ceiling, starts_at)
        return Throttle(limits, clock=self.clock, sleep=self.sleep, jitter=random.Random(0), **more)


async def settled() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def enter_now(throttle: Throttle, count: int, tokens: int = 0) -> list[int]:
    """Tickets of calls that start at once."""
    tickets = [await asyncio.wait_for(throttle.enter(tokens, Stop()), 1) for _ in range(count)]
    assert all(tickets)
    return tickets


@given(
    rpm=st.integers(1, 400),
    arrivals=st.lists(st.floats(0, 40) | st.sampled_from([0.0, 0.0, 59.999, 60.0, 60.001]), min_size=1, max_size=300),
    idle=st.floats(0, 200),
)
@settings(max_examples=40, deadline=None)
def test_no_minute_has_more_starts_than_allowed(rpm: int, arrivals: list[float], idle: float) -> None:
    time = Time()
    starts: list[float] = []

    async def call(throttle: Throttle, at: float) -> None:
        await time.sleep(at)
        ticket = await throttle.enter(0, Stop())
        starts.append(time.now)
        throttle.leave(ticket, 0, ANSWERED)

    async def main() -> None:
        throttle = time.throttle(rpm, starts_at=1000)
        await time.run(*(call(throttle, idle + at) for at in arrivals))

    asyncio.run(main())
    assert len(starts) == len(arrivals)
    starts.sort()
    for first, last in zip(starts, starts[rpm:], strict=False):
        assert last - first >= 60


@pytest.mark.parametrize(("rpm", "count"), [(3, 6), (60, 120), (240, 500), (6000, 1500)])
def test_a_rate_is_used_up_and_not_passed(rpm: int, count: int) -> None:
    time = Time()
    starts: list[float] = []

    async def call(throttle: Throttle) -> None:
        ticket = await throttle.enter(0, Stop())
        starts.append(time.now)
        throttle.leave(ticket, 0, ANSWERED)

    async def main() -> None:
        throttle = time.throttle(rpm)
        await time.run(*(call(throttle) for _ in range(count)))

    asyncio.run(main())
    assert starts[-1] - starts[0] < 1.02 * 60 * count / rpm
    assert all(last - first >= 60 for first, last in zip(starts, starts[rpm:], strict=False))


def test_tokens_are_charged_by_the_estimate_and_corrected() -> None:
    time = Time()
    spent: list[tuple[float, int]] = []

    async def worker(throttle: Throttle, calls: int) -> None:
        for _ in range(calls):
            ticket = await throttle.enter(4000, Stop())
            await time.sleep(2)
            spent.append((time.now, 800))
            throttle.leave(ticket, 4000, ANSWERED._replace(tokens=800))

    async def main() -> None:
        throttle = time.throttle(tpm=60_000)
        await time.run(*(worker(throttle, 20) for _ in range(10)))

    asyncio.run(main())
    for at, _ in spent:
        assert sum(tokens for when, tokens in spent if at <= when < at + 60) <= 60_000 + 10 * 800
    assert time.now - 1000 < 1.1 * 200 * 800 / 1000 + 5  # by the estimates alone it would be 800 s


def test_a_call_larger_than_a_minute_still_starts() -> None:
    time = Time()

    async def main() -> None:
        throttle = time.throttle(tpm=100)
        ticket, *_ = await time.run(throttle.enter(1000, Stop()))
        throttle.leave(ticket, 1000, ANSWERED._replace(tokens=1000))
        began = time.now
        await time.run(throttle.enter(1, Stop()))
        assert 590 < time.now - began < 620

    asyncio.run(main())


def test_slow_start_doubles_then_halves_then_grows_by_one() -> None:
    time = Time()

    async def round_trip(throttle: Throttle, count: int, outcome: Outcome = ANSWERED) -> None:
        tickets = await enter_now(throttle, count)
        assert throttle.in_flight == count
        for ticket in tickets:
            throttle.leave(ticket, 0, outcome)

    async def main() -> None:
        throttle = time.throttle(ceiling=40)
        assert throttle.concurrency == STARTS_AT == 8
        throttle.leave(*(await enter_now(throttle, 1)), 0, ANSWERED)
        assert throttle.concurrency == 8  # not used up: no sign that more would be taken

        async def full_round() -> None:
            tickets = await enter_now(throttle, throttle.concurrency)
            waiting = [asyncio.ensure_future(throttle.enter(0, Stop())) for _ in range(100)]
            await settled()
            for ticket in tickets:
                throttle.leave(ticket, 0, ANSWERED)
            await settled()
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            for task in waiting:
                if not task.cancelled():
                    throttle.leave(task.result(), 0, REFUSED)
            assert throttle.in_flight == 0

        await full_round()
        assert throttle.concurrency == 16
        await full_round()
        assert throttle.concurrency == 32
        await full_round()
        assert throttle.concurrency == 40
        await round_trip(throttle, 40, THROTTLED)
        assert throttle.concurrency == 20  # once, though forty were told
        await full_round()
        assert throttle.concurrency == 21
        for _ in range(10):
            await round_trip(throttle, 1, THROTTLED)
        assert throttle.concurrency == 1

    asyncio.run(main())


def test_calls_begun_before_a_cut_do_not_cut_again() -> None:
    async def main() -> None:
        throttle = Time().throttle(starts_at=64)
        old = await enter_now(throttle, 64)
        throttle.leave(old[0], 0, THROTTLED)
        assert throttle.concurrency == 32
        for ticket in old[1:40]:
            throttle.leave(ticket, 0, ANSWERED)
        (fresh,) = await enter_now(throttle, 1)
        throttle.leave(old[40], 0, THROTTLED)
        assert throttle.concurrency == 32
        throttle.leave(fresh, 0, THROTTLED)
        assert throttle.concurrency == 16
        throttle.leave(old[41], 0, THROTTLED)
        assert throttle.concurrency == 16

    asyncio.run(main())


@pytest.mark.parametrize(("ceiling", "starts_at", "first"), [(4, None, 4), (500, 500, 500), (500, None, 8), (3, 9, 3)])
def test_where_it_starts(ceiling: int, starts_at: int | None, first: int) -> None:
    async def main() -> None:
        throttle = Time().throttle(ceiling=ceiling, starts_at=starts_at)
        await enter_now(throttle, first)
        waiting = asyncio.ensure_future(throttle.enter(0, Stop()))
        await settled()
        assert not waiting.done()
        waiting.cancel()

    asyncio.run(main())


def test_a_wish_to_wait_holds_for_all_and_they_come_back_one_by_one() -> None:
    time = Time()
    starts: list[float] = []

    async def call(throttle: Throttle) -> None:
        await throttle.enter(0, Stop())
        starts.append(time.now)

    async def main() -> None:
        throttle = time.throttle(starts_at=1000)
        (ticket,) = await enter_now(throttle, 1)
        throttle.leave(ticket, 0, THROTTLED._replace(wait_s=4.0))
        await time.run(*(call(throttle) for _ in range(400)))

    asyncio.run(main())
    assert min(starts) >= 1004
    assert max(starts) <= 1006
    busiest = max(sum(at <= other < at + 0.01 for other in starts) for at in starts if at < 1004.9)
    assert busiest < 40


@pytest.mark.parametrize("wait_s", [float("nan"), -5.0, 0.0, None])
def test_a_wish_that_is_none(wait_s: float | None) -> None:
    async def main() -> None:
        throttle = Time().throttle()
        (ticket,) = await enter_now(throttle, 1)
        throttle.leave(ticket, 0, THROTTLED._replace(wait_s=wait_s))
        await enter_now(throttle, 1)

    asyncio.run(main())


def test_no_wish_is_longer_than_the_longest() -> None:
    time = Time()

    async def main() -> None:
        throttle = time.throttle()
        (ticket,) = await enter_now(throttle, 1)
        throttle.leave(ticket, 0, THROTTLED._replace(wait_s=1e12))
        await time.run(throttle.enter(0, Stop()))
        assert 1120 <= time.now < 1121

    asyncio.run(main())


def test_headers_lower_the_rate_and_pause() -> None:
    time = Time()

    async def called(throttle: Throttle, count: int, headers: dict[str, str]) -> float:
        began = time.now
        for _ in range(count):
            (ticket,) = await time.run(throttle.enter(10, Stop()))
            throttle.leave(ticket, 10, Outcome(OutcomeKind.ANSWERED, 10, None, headers))
        return time.now - began

    async def main() -> None:
        throttle = time.throttle(rpm=6000)
        assert await called(throttle, 50, {"x-ratelimit-limit-requests": "junk"}) < 1
        assert await called(throttle, 50, {"X-RateLimit-Limit-Requests": "60"}) > 45
        assert await called(throttle, 100, {"x-ratelimit-limit-requests": "1000000"}) < 3
        assert await called(throttle, 2, {"x-ratelimit-limit-tokens": "60"}) < 1
        assert await called(throttle, 4, {}) > 20
        own = time.throttle(rpm=60)
        assert await called(own, 10, {"x-ratelimit-limit-requests": "6000"}) > 8
        fresh = time.throttle()
        assert await called(fresh, 1, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7s"}) == 0
        assert 7 <= await called(fresh, 1, {}) < 9

    asyncio.run(main())


async def fail_until_open(throttle: Throttle) -> None:
    for ticket in await enter_now(throttle, BREAKER_FAILURES):
        throttle.leave(ticket, 0, FAILED)


def test_the_breaker_opens_probes_and_closes() -> None:
    time = Time()

    async def main() -> None:
        throttle = time.throttle(starts_at=100)
        stale = await enter_now(throttle, 3)
        await fail_until_open(throttle)
        waiting = [asyncio.ensure_future(throttle.enter(0, Stop())) for _ in range(30)]
        opened = time.now
        for number, wait_s in enumerate((1, 2, 4, 8, 16, 32, 60, 60)):
            before = time.now
            await time.run(asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED))
            assert wait_s <= time.now - before <= wait_s + 0.3
            await settled()
            done = [task for task in waiting if task.done()]
            assert len(done) == 1  # exactly one call tries
            if number == 3:  # what began before the breaker opened decides nothing
                throttle.leave(stale[0], 0, FAILED)
                throttle.leave(stale[1], 0, ANSWERED)
                throttle.leave(stale[2], 0, THROTTLED)
                await settled()
                assert sum(task.done() for task in waiting) == 1
            waiting.remove(done[0])
            throttle.leave(done[0].result(), 0, FAILED)
        assert time.now - opened < 2 * BREAKER_LONGEST_S + 66
        await time.run(asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED))
        probe = next(task for task in waiting if task.done())
        waiting.remove(probe)
        throttle.leave(probe.result(), 0, ANSWERED)
        await settled()
        assert sum(task.done() for task in waiting) == STARTS_AT or throttle.concurrency == 50
        for task in waiting:
            task.cancel()

    asyncio.run(main())


@pytest.mark.parametrize("outcome", [REFUSED, THROTTLED, None])
def test_a_probe_that_says_nothing_leaves_the_next_to_try(outcome: Outcome | None) -> None:
    time = Time()

    async def main() -> None:
        throttle = time.throttle(starts_at=100)
        await fail_until_open(throttle)
        if outcome is None:  # cancelled when it was let in, before it could run
            task = asyncio.ensure_future(throttle.enter(0, Stop()))
            await settled()
            time.now += 2
            throttle._line._let_in()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
        else:
            (probe,) = await time.run(throttle.enter(0, Stop()))
            assert probe
            throttle.leave(probe, 0, outcome)
        assert throttle.in_flight == 0
        (probe,) = await time.run(throttle.enter(0, Stop()), until=1100)
        assert probe
        throttle.leave(probe, 0, ANSWERED)
        await enter_now(throttle, 8)

    asyncio.run(main())


def test_a_few_failures_never_open_it() -> None:
    async def main() -> None:
        throttle, draw = Time().throttle(), random.Random(1)
        for _ in range(20_000):
            (ticket,) = await enter_now_fast(throttle)
            throttle.leave(ticket, 0, FAILED if draw.random() < 0.08 else ANSWERED)

    async def enter_now_fast(throttle: Throttle) -> tuple[int]:
        ticket = throttle.enter(0, Stop())
        try:
            ticket.send(None)
        except StopIteration as finished:
            return (finished.value,)
        raise AssertionError("it had to wait")

    asyncio.run(main())


def test_half_of_the_recent_calls_open_it() -> None:
    async def main() -> None:
        throttle = Time().throttle(starts_at=100)
        for turn in range(2 * BREAKER_FAILURES - 1):
            (ticket,) = await enter_now(throttle, 1)
            throttle.leave(ticket, 0, ANSWERED if turn % 2 else FAILED)
        waiting = asyncio.ensure_future(throttle.enter(0, Stop()))
        await settled()
        assert not waiting.done()
        waiting.cancel()

    asyncio.run(main())


def test_it_gives_up_at_last() -> None:
    time = Time()

    async def down(throttle: Throttle) -> float:
        while ticket := await throttle.enter(0, Stop()):
            await time.sleep(0.1)
            throttle.leave(ticket, 0, FAILED)
        return time.now

    async def main() -> None:
        throttle = time.throttle(starts_at=100)
        ended = await time.run(*(down(throttle) for _ in range(20)))
        assert all(1600 <= at < 1665 for at in ended)
        assert throttle.gave_up and "no answer for 6" in throttle.gave_up
        assert await throttle.enter(0, Stop()) == 0
        assert throttle.in_flight == 0
        lives = time.throttle(starts_at=100)
        stale = await enter_now(lives, 10)
        await fail_until_open(lives)
        for ticket in stale:  # an answer now and then, if to older calls
            time.now += 400
            lives.leave(ticket, 0, ANSWERED)
            (probe,) = await time.run(lives.enter(0, Stop()))
            lives.leave(probe, 0, FAILED)
            assert probe and lives.gave_up is None

    asyncio.run(main())


def test_after_it_closes_it_begins_as_at_first() -> None:
    time = Time()

    async def main() -> None:
        throttle = time.throttle()
        while throttle.concurrency < 50:
            for ticket in await enter_now(throttle, throttle.concurrency):
                throttle.leave(ticket, 0, ANSWERED)
        assert not throttle.is_open
        await fail_until_open(throttle)
        assert throttle.is_open
        (probe,) = await time.run(throttle.enter(0, Stop()))
        assert throttle.is_open
        throttle.leave(probe, 0, ANSWERED)
        assert not throttle.is_open
        assert throttle.concurrency == STARTS_AT
        for ticket in await enter_now(throttle, BREAKER_FAILURES - 2):
            throttle.leave(ticket, 0, FAILED)  # what was before the closing no longer counts
        await enter_now(throttle, 1)

    asyncio.run(main())


def test_a_start_is_not_put_off_to_the_next_tick() -> None:
    time = Time()

    async def main() -> None:
        throttle = time.throttle(rpm=60, ceiling=1)
        (ticket,) = await enter_now(throttle, 1)

        async def leaves_between_two_ticks() -> None:
            await time.sleep(0.42)
            throttle.leave(ticket, 0, ANSWERED)

        await time.run(throttle.enter(0, Stop()), leaves_between_two_ticks())
        assert 1000.5 < time.now < 1000.52

    asyncio.run(main())


def test_first_come_first_served() -> None:
    async def main() -> None:
        throttle = Time().throttle(ceiling=1)
        order: list[int] = []

        async def call(number: int) -> None:
            ticket = await throttle.enter(0, Stop())
            order.append(number)
            await asyncio.sleep(0)
            throttle.leave(ticket, 0, ANSWERED)

        tasks = [asyncio.ensure_future(call(number)) for number in range(20)]
        await settled()
        tasks[15].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [number for number in range(20) if number != 15]

    asyncio.run(main())


@given(
    st.lists(st.sampled_from(["enter", "cancel", "leave", "fail", "throttle", "turn"]), max_size=60), st.integers(1, 5)
)
@settings(max_examples=60, deadline=None)
def test_nothing_leaks_whatever_is_cancelled(steps: list[str], ceiling: int) -> None:
    outcomes = {"leave": ANSWERED, "fail": FAILED._replace(kind=OutcomeKind.REFUSED), "throttle": THROTTLED}

    async def main() -> None:
        throttle = Time().throttle(ceiling=ceiling)
        tasks: list[asyncio.Future[int]] = []
        inside: list[int] = []
        for step in steps:
            if step == "enter":
                tasks.append(asyncio.ensure_future(throttle.enter(1, Stop())))
            elif step == "cancel" and tasks:
                tasks.pop(len(tasks) // 2).cancel()
            elif step in outcomes and inside:
                throttle.leave(inside.pop(), 1, outcomes[step])
            elif step == "turn":
                await settled()
            inside += [task.result() for task in tasks if task.done()]
            tasks = [task for task in tasks if not task.done()]
            assert throttle.in_flight <= ceiling
        await settled()
        inside += [task.result() for task in tasks if task.done()]
        tasks = [task for task in tasks if not task.done()]
        assert throttle.in_flight == len(inside)
        assert not tasks or throttle.in_flight == throttle.concurrency or throttle.in_flight > throttle.concurrency
        for ticket in inside:
            throttle.leave(ticket, 1, ANSWERED)
        while tasks:
            await settled()
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                throttle.leave(task.result(), 1, ANSWERED)
        assert throttle.in_flight == 0

    asyncio.run(main())


def test_stop_is_heard_by_all_and_costs_one_ticker() -> None:
    time, stop = Time(), Stop()

    async def press() -> None:
        await time.sleep(10)
        stop.set()

    async def main() -> None:
        throttle = time.throttle(ceiling=1)
        await enter_now(throttle, 1)
        answers = await time.run(*(throttle.enter(0, stop) for _ in range(500)), press())
        assert answers[:500] == [0] * 500
        assert time.now - 1010 <= 0.21
        assert time.sleeps < 60  # of one ticker in ten seconds, whoever waits
        assert await throttle.enter(0, stop) == 0
        assert throttle.in_flight == 1

    asyncio.run(main())


def test_it_works_in_one_loop_after_another() -> None:
    throttle = Throttle(RateLimits(None, None, 1))

    async def left_waiting() -> int:
        ticket = await throttle.enter(0, Stop())
        waiting = asyncio.ensure_future(throttle.enter(0, Stop()))
        await settled()
        assert not waiting.done()
        return ticket

    ticket = asyncio.run(left_waiting())

    async def again() -> int:
        task = asyncio.ensure_future(throttle.enter(0, Stop()))
        await settled()
        throttle.leave(ticket, 0, ANSWERED)
        return await task

    assert asyncio.run(again()) > ticket
