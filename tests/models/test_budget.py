"""A budget that is never overrun, whatever happens in which order, and that lets nobody wait for ever."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import BudgetError
from tutelage.models.budget import Budget
from tutelage.progress import Stop

amounts = st.tuples(st.integers(0, 40), st.integers(0, 40))


def test_reserve_and_settle() -> None:
    budget = Budget(100, 1000, spent_nusd=10)
    budget.reserve(60, 500)
    with pytest.raises(BudgetError, match="max_cost_usd"):
        budget.reserve(31, 0)
    with pytest.raises(BudgetError, match="max_tokens"):
        budget.reserve(0, 501)
    budget.reserve(30, 500)
    budget.settle(60, 500, 20, 100)
    assert (budget.spent_nusd, budget.spent_tokens, budget.reserved_nusd, budget.reserved_tokens) == (30, 100, 30, 500)
    budget.reserve(40, 400)
    with pytest.raises(AssertionError):
        budget.settle(71, 0, 0, 0)


async def settled() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def test_what_can_never_fit_is_told_at_once() -> None:
    async def main() -> None:
        budget = Budget(100, 1000, spent_nusd=50)
        assert await budget.reserve_or_wait(50, 1, Stop())
        for nusd, tokens, limit in ((51, 0, "max_cost_usd"), (0, 1001, "max_tokens")):
            with pytest.raises(BudgetError, match=limit):
                await asyncio.wait_for(budget.reserve_or_wait(nusd, tokens, Stop()), 1)
        assert budget.reserved_nusd == 50

    asyncio.run(main())


def test_a_waiter_is_told_when_what_was_spent_leaves_no_room() -> None:
    async def main() -> None:
        budget = Budget(100, 1000)
        assert await budget.reserve_or_wait(60, 0, Stop())
        large = asyncio.ensure_future(budget.reserve_or_wait(80, 0, Stop()))
        await settled()
        with pytest.raises(BudgetError):  # though others wait before it
            await asyncio.wait_for(budget.reserve_or_wait(101, 0, Stop()), 0.1)
        small = asyncio.ensure_future(budget.reserve_or_wait(40, 0, Stop()))
        await settled()
        assert not large.done() and not small.done()  # the large one is not passed
        budget.settle(60, 0, 30, 0)
        await settled()
        with pytest.raises(BudgetError, match=r"to \$0\.000000"):
            large.result()
        assert small.result() is True

    asyncio.run(main())


def test_a_large_call_is_not_starved() -> None:
    async def main() -> None:
        budget, stop = Budget(1000, 10**6), Stop()
        done: list[str] = []

        async def small() -> None:
            while "large" not in done:
                assert await budget.reserve_or_wait(40, 0, stop)
                await asyncio.sleep(0)
                budget.settle(40, 0, 0, 0)

        async def large() -> None:
            await asyncio.sleep(0)
            assert await budget.reserve_or_wait(1000, 0, stop)
            done.append("large")
            budget.settle(1000, 0, 0, 0)

        await asyncio.wait_for(asyncio.gather(*(small() for _ in range(50)), large()), 5)

    asyncio.run(main())


def test_stop_is_heard() -> None:
    async def main() -> None:
        budget, stop = Budget(10, 10), Stop()
        assert await budget.reserve_or_wait(10, 0, stop)
        waiting = [asyncio.ensure_future(budget.reserve_or_wait(1, 0, stop)) for _ in range(20)]
        await settled()
        stop.set()
        assert await asyncio.wait_for(asyncio.gather(*waiting), 1) == [False] * 20
        assert not await budget.reserve_or_wait(0, 0, stop)
        assert budget.reserved_nusd == 10

    asyncio.run(main())


def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    async def main() -> None:
        budget, stop = Budget(10, 10), Stop()
        assert await budget.reserve_or_wait(10, 0, stop)
        first, second = (asyncio.ensure_future(budget.reserve_or_wait(10, 0, stop)) for _ in range(2))
        await settled()
        budget.settle(10, 0, 0, 0)
        first.cancel()  # it has been let in, and has not run yet
        await settled()
        assert first.cancelled()
        assert second.done() and second.result()
        assert budget.reserved_nusd == 10
        budget.settle(5, 0, 0, 0)
        large, small = (asyncio.ensure_future(budget.reserve_or_wait(size, 0, stop)) for size in (8, 5))
        await settled()
        large.cancel()  # it was in the way of the small one
        await settled()
        assert small.done() and small.result()

    asyncio.run(main())


@given(
    st.lists(st.tuples(amounts, amounts, st.integers(0, 5), st.sampled_from([0, 0, 0, 1])), max_size=40),
    st.integers(0, 300), st.integers(0, 300), st.integers(0, 100), st.randoms(use_true_random=False),
)  # fmt: skip
@settings(max_examples=70, deadline=None)
def test_no_limit_is_passed_and_nobody_waits_for_ever(
    calls: list[tuple[tuple[int, int], tuple[int, int], int, int]], nusd: int, tokens: int, before: int, order: random.Random
) -> None:  # fmt: skip
    async def main() -> None:
        budget, stop = Budget(nusd, tokens, min(before, nusd), 0), Stop()
        refused: list[tuple[int, int]] = []

        def check() -> None:
            assert budget.spent_nusd + budget.reserved_nusd <= nusd
            assert budget.spent_tokens + budget.reserved_tokens <= tokens

        async def call(bound: tuple[int, int], used: tuple[int, int], turns: int) -> None:
            await asyncio.sleep(0) if order.random() < 0.5 else None
            try:
                assert await budget.reserve_or_wait(*bound, stop)
            except BudgetError:
                assert budget.spent_nusd + bound[0] > nusd or budget.spent_tokens + bound[1] > tokens
                refused.append(bound)
                return
            check()
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                budget.settle(*bound, min(used[0], bound[0]), min(used[1], bound[1]))
                check()

        tasks = [asyncio.ensure_future(call(bound, used, turns)) for bound, used, turns, _ in calls]
        for task, (*_, cancelled) in zip(tasks, calls, strict=True):
            await asyncio.sleep(0)
            if cancelled:
                task.cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
        assert budget.reserved_nusd == budget.reserved_tokens == 0

    asyncio.run(main())
