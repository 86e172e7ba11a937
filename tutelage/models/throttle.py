"""How fast one model may be asked: one throttle for each asking of an endpoint, shared by all its workers.

Four doors, in this order: a breaker that keeps us from a server that is down; a concurrency that grows while all goes
well and halves when the server asks us to slow down (additive increase, multiplicative decrease: Chiu and Jain 1989,
with the slow start of RFC 5681 §3.1); a pause that the server wished for; and buckets of requests and tokens a minute.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from tutelage.models.limits import LONGEST_WAIT_S, limits_said
from tutelage.models.waiting import Clock, Line, Sleep
from tutelage.progress import Stop

STARTS_AT = 8  # calls in flight at first, where the ceiling allows
BREAKER_FAILURES = 10  # of the last `BREAKER_RECENT` calls: the breaker opens
BREAKER_RECENT = 20
BREAKER_FIRST_S, BREAKER_LONGEST_S = 1.0, 60.0
_SPREAD_SHARE, _LONGEST_SPREAD_S = 0.25, 2.0  # after a pause, starts are spread over a part of its length
_BURST_SHARE = 1 / 120  # half a second's worth may start at once, so that a late timer loses nothing
_MARGIN = 1 - 1e-6  # of the rate, against rounding
_NEVER = float("inf")


class RateLimits(NamedTuple):
    """What a run file or a provider allows. `concurrency` is the ceiling of calls in flight; `starts_at` how many there
    may be at first (default: `STARTS_AT`)."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int
    starts_at: int | None = None


class OutcomeKind(StrEnum):
    """How a call ended, as far as limits are concerned."""

    ANSWERED = "answered"
    THROTTLED = "throttled"  # asked to slow down: 429, 529
    FAILED = "failed"  # no answer, or a server's error
    REFUSED = "refused"  # this question alone, or never sent: tells nothing of the server


class Outcome(NamedTuple):
    """`tokens` were really used (0 when nobody knows), `wait_s` is the server's wish, `headers` those of its answer."""

    kind: OutcomeKind
    tokens: int
    wait_s: float | None
    headers: Mapping[str, str]


class _Bucket:
    """A leaky bucket of `per_minute` units, refilled without pause.

    With burst b and rate r, whoever takes n single units within less than 60 s had n < b + 60 r. Here b + 60 r =
    per_minute + 1: in any such window there are at most per_minute. Of tokens, charged by an estimate and corrected later,
    a window may see on top what the calls in flight at its begin had reserved.
    """

    __slots__ = ("_at", "burst", "level", "per_minute", "rate")

    def __init__(self, per_minute: float, now: float) -> None:
        self.set(per_minute)
        self.level, self._at = self.burst, now

    def set(self, per_minute: float) -> None:
        self.per_minute = per_minute
        self.burst = 1 + per_minute * _BURST_SHARE
        self.rate = per_minute * (1 - _BURST_SHARE) / 60 * _MARGIN
        self.level = min(self.burst, getattr(self, "level", self.burst))

    def refill(self, now: float) -> None:
        if self.level < self.burst:  # it may be above, by what was given back
            self.level = min(self.burst, self.level + max(0.0, now - self._at) * self.rate)
        self._at = now

    def wait_s(self, amount: int, now: float) -> float:
        """Until `amount` may be taken. An amount above the burst needs a full bucket, and overdraws it."""
        self.refill(now)
        return max(0.0, (min(amount, self.burst) - self.level) / self.rate)


class Throttle:
    """See the module. `enter` before a call, `leave` after it. `gave_up` says why nothing is let in any more: the breaker
    was open for `give_up_s` without one answer."""

    def __init__(
        self, limits: RateLimits, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep,
        give_up_s: float = 600.0, jitter: random.Random | None = None,
    ) -> None:  # fmt: skip
        self.gave_up: str | None = None
        self.limits = limits
        self._ceiling = max(1, limits.concurrency)
        self._starts_at = min(self._ceiling, max(1, STARTS_AT if limits.starts_at is None else limits.starts_at))
        self._clock, self._jitter, self._give_up_s = clock, jitter or random.Random(), give_up_s
        self._line: Line[int] = Line(self._admit, self._undo, lambda: self._again_s, clock, sleep)
        self._again_s = 0.0
        self._calls = 0  # calls ever let in; a call's number is its ticket
        self._in_flight = 0
        self.concurrency = self._starts_at  # calls that may be in flight at the moment
        self._answers = 0  # of full round trips, towards the next one more
        self._slow_start = True
        self._cut_at = 0  # calls up to this number began before the last cut
        self._not_before = 0.0  # no start before
        self._spread_until = 0.0
        self._gap_s = 0.0
        now = clock()
        self._requests = _Bucket(limits.requests_per_minute, now) if limits.requests_per_minute else None
        self._tokens = _Bucket(limits.tokens_per_minute, now) if limits.tokens_per_minute else None
        self._recent: deque[bool] = deque(maxlen=BREAKER_RECENT)  # True for a failure
        self._failures = 0
        self._silent_since: float | None = None  # None: the breaker is closed
        self._open_until = 0.0
        self._open_s = BREAKER_FIRST_S
        self._probe = 0  # the ticket of the one call that tries an open breaker

    @property
    def is_open(self) -> bool:
        """Whether the breaker keeps us from the server: nothing but one try at a time is let in."""
        return self._silent_since is not None

    @property
    def in_flight(self) -> int:
        """Calls let in that have not left."""
        return self._in_flight

    async def enter(self, tokens: int, stop: Stop) -> int:
        """Waits until a call that may take so many tokens may start. Its ticket, for `leave`; 0 when `stop` was set or
        the throttle gave up. Must be followed by exactly one `leave`, unless it is 0 or raises."""
        if stop:
            return 0
        ticket = 0 if self._line else self._admit(tokens)
        return max(0, ticket or await self._line.join(tokens, stop))

    def leave(self, ticket: int, tokens_reserved: int, outcome: Outcome) -> None:
        """The call of this ticket has ended, having reserved so many tokens."""
        was_full = self._in_flight >= self.concurrency
        self._in_flight -= 1
        kind = outcome.kind
        if self._tokens is not None:
            self._tokens.refill(self._clock())
            self._tokens.level += tokens_reserved - outcome.tokens
        if outcome.headers:
            self._heed(outcome.headers)
        if kind is OutcomeKind.ANSWERED:
            if was_full and ticket > self._cut_at:
                self._grow()
            self._succeeded(ticket)
        elif kind is OutcomeKind.THROTTLED:
            self._cut(ticket, outcome.wait_s)
        elif kind is OutcomeKind.FAILED:
            self._failed(ticket)
        if ticket == self._probe:  # neither answered nor failed: the next one tries
            self._probe = 0
        if self._line:
            self._line.move()

    def _admit(self, tokens: int) -> int:
        """The ticket of a call that may start, 0 for not yet, -1 for never more. Sets when to ask again."""
        if self._silent_since is not None and self._gives_up():
            return -1
        if self._in_flight >= (self.concurrency if self._silent_since is None else self._ceiling):
            self._again_s = _NEVER
            return 0
        now = self._clock()
        self._again_s = self._wait_s(tokens, now)
        if self._again_s > 0:
            return 0
        self._calls += 1
        self._in_flight += 1
        if self._requests is not None:
            self._requests.level -= 1
        if self._tokens is not None:
            self._tokens.level -= tokens
        if self._silent_since is not None:
            self._probe = self._calls
        if now < self._spread_until:
            self._not_before = now + self._gap_s * 2 * self._jitter.random()
        return self._calls

    def _wait_s(self, tokens: int, now: float) -> float:
        """Until such a call may start, as far as time decides; `inf` when another call must end first."""
        wait_s = max(0.0, self._not_before - now)
        if self._silent_since is not None:
            if self._probe:
                return _NEVER
            wait_s = max(wait_s, self._open_until - now)
        if self._requests is not None:
            wait_s = max(wait_s, self._requests.wait_s(1, now))
        if self._tokens is not None:
            wait_s = max(wait_s, self._tokens.wait_s(tokens, now))
        return wait_s

    def _undo(self, ticket: int, tokens: int) -> None:
        self.leave(ticket, tokens, Outcome(OutcomeKind.REFUSED, 0, None, {}))

    def _grow(self) -> None:
        """One more for each answer at first, which doubles it each round trip; then one more for each round trip."""
        self._answers += 1
        if self.concurrency < self._ceiling and (self._slow_start or self._answers >= self.concurrency):
            self.concurrency, self._answers = self.concurrency + 1, 0

    def _cut(self, ticket: int, wait_s: float | None) -> None:
        if ticket > self._cut_at:  # calls begun before the last cut tell nothing of what it did
            self.concurrency = max(1, self.concurrency // 2)
            self._slow_start, self._answers = False, 0
            self._cut_at = self._calls
        if wait_s is not None and wait_s > 0:
            self._pause(wait_s)

    def _pause(self, wait_s: float) -> None:
        """Nobody starts before; then those who wait start one by one, at uneven times."""
        wait_s = min(wait_s, LONGEST_WAIT_S)
        until = self._clock() + wait_s
        if until > self._not_before:
            spread_s = min(_LONGEST_SPREAD_S, wait_s * _SPREAD_SHARE)
            self._not_before, self._spread_until = until, until + spread_s
            self._gap_s = spread_s / self.concurrency

    def _heed(self, headers: Mapping[str, str]) -> None:
        """A limit that the server names lowers ours; with nothing left we wait until there is."""
        said = limits_said(headers)
        if said is None:
            return
        self._requests = self._lowered(self._requests, self.limits.requests_per_minute, said.requests_per_minute)
        self._tokens = self._lowered(self._tokens, self.limits.tokens_per_minute, said.tokens_per_minute)
        if said.empty_for_s is not None:
            self._pause(said.empty_for_s)

    def _lowered(self, bucket: _Bucket | None, stated: int | None, said: float | None) -> _Bucket | None:
        if said is None:
            return bucket
        per_minute = min(said, stated) if stated else said
        if bucket is None:
            return _Bucket(per_minute, self._clock())
        if bucket.per_minute != per_minute:
            bucket.set(per_minute)
        return bucket

    def _succeeded(self, ticket: int) -> None:
        if self._silent_since is None:
            self._remember(failure=False)
        elif ticket == self._probe:
            self._silent_since, self._probe, self._open_s = None, 0, BREAKER_FIRST_S
            self.concurrency, self._slow_start = min(self.concurrency, self._starts_at), True
        else:
            self._silent_since = self._clock()  # an answer to an older call: it lives, but the probe decides

    def _failed(self, ticket: int) -> None:
        if self._silent_since is None:
            self._remember(failure=True)
            if self._failures >= BREAKER_FAILURES:
                self._silent_since = self._clock()
                self._open()
        elif ticket == self._probe:
            self._probe = 0
            self._open_s = min(BREAKER_LONGEST_S, 2 * self._open_s)
            self._open()

    def _open(self) -> None:
        self._open_until = self._clock() + self._open_s
        self._recent.clear()
        self._failures = 0

    def _remember(self, *, failure: bool) -> None:
        if len(self._recent) == BREAKER_RECENT:
            self._failures -= self._recent[0]
        self._recent.append(failure)
        self._failures += failure

    def _gives_up(self) -> bool:
        silent_s = self._clock() - (self._silent_since or 0.0)
        if self.gave_up is None and silent_s > self._give_up_s:
            self.gave_up = f"no answer for {silent_s:.0f} s, whatever was asked"
        return self.gave_up is not None
