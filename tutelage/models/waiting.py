"""A line of waiters: first come, first served, and nobody polls.

Whoever waits is a future. The line moves when its owner says so; one ticker, alive only while somebody waits, looks again
when time alone may open the door, and hears the stop flag, which a signal handler sets without waking anybody.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tutelage.progress import Stop

TICK_S = 0.2
_SHORTEST_S = 0.001

Need = TypeVar("Need")
Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(eq=False, slots=True)
class _Waiter(Generic[Need]):
    need: Need
    stop: Stop
    answer: "asyncio.Future[int]"


class Line(Generic[Need]):
    """Waiters for what `admit` gives: 0 says "not yet", any other number goes to the head of the line, which leaves it.

    `undo` takes back a number above 0 whose waiter was cancelled before it could run. `again_s` says, after `admit` said
    "not yet", in how many seconds to ask it again at the latest.
    """

    def __init__(
        self,
        admit: Callable[[Need], int],
        undo: Callable[[int, Need], None],
        again_s: Callable[[], float] = lambda: TICK_S,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._admit, self._undo, self._again_s = admit, undo, again_s
        self._clock, self._sleep = clock, sleep
        self._waiting: deque[_Waiter[Need]] = deque()
        self._ticker: asyncio.Task[None] | None = None
        self._due = self._hear_at = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    async def join(self, need: Need, stop: Stop) -> int:
        """The number that `admit` gave, or 0 when `stop` was set before. A cancelled waiter leaves nothing behind."""
        waiter = _Waiter(need, stop, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self.move()
        try:
            return await waiter.answer
        except asyncio.CancelledError:
            if not waiter.answer.cancelled() and waiter.answer.result() > 0:
                self._undo(waiter.answer.result(), need)
            self.move()
            raise

    def move(self) -> None:
        """Lets in whoever may go. To be called whenever something was given back."""
        self._let_in()
        if not self._waiting:
            return
        wait_s = self._until_next()
        if self._ticker is not None and not self._ticker.done():
            if self._clock() + wait_s > self._due - _SHORTEST_S:
                return
            self._ticker.cancel()
        self._ticker = asyncio.create_task(self._tick(wait_s))
        self._due = self._clock() + wait_s

    def _let_in(self) -> None:
        while self._waiting:
            head = self._waiting[0]
            if not head.answer.done():  # else its task was cancelled, and has not run yet
                if not (number := self._admit(head.need)):
                    return
                head.answer.set_result(number)
            self._waiting.popleft()

    def _until_next(self) -> float:
        return min(TICK_S, max(_SHORTEST_S, self._again_s()))

    async def _tick(self, wait_s: float) -> None:
        while self._waiting:
            self._due = self._clock() + wait_s
            await self._sleep(wait_s)
            if self._clock() >= self._hear_at:
                self._hear_at = self._clock() + TICK_S / 2
                self._hear_stops()
            self._let_in()
            wait_s = self._until_next()

    def _hear_stops(self) -> None:
        if not any(waiter.stop for waiter in self._waiting):
            return
        staying: deque[_Waiter[Need]] = deque()
        for waiter in self._waiting:
            if not waiter.stop:
                staying.append(waiter)
            elif not waiter.answer.done():
                waiter.answer.set_result(0)
        self._waiting = staying
