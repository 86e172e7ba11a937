"""Limits: how fast we may ask, how long to wait before asking again, and a budget that cannot be overrun."""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tutelage.errors import BudgetError
from tutelage.progress import Stop
from tutelage.records import NUSD_PER_USD

LONGEST_WAIT_S = 120.0


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds the server asks us to wait: `retry-after-ms`, or `Retry-After` as seconds or as an HTTP date
    (RFC 9110 §10.2.3). `None` when it says nothing readable."""
    lowered = {key.lower(): value for key, value in headers.items()}
    try:
        if "retry-after-ms" in lowered:
            return max(0.0, float(lowered["retry-after-ms"]) / 1000)
        value = lowered.get("retry-after")
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        when = parsedate_to_datetime(value)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError):
        return None


def backoff_s(attempt: int, wished_s: float | None, jitter: random.Random) -> float:
    """Wait before attempt `attempt` + 1: the server's wish, else exponential from 0.5 s, jittered by half."""
    if wished_s is not None:
        return min(wished_s, LONGEST_WAIT_S)
    return min(LONGEST_WAIT_S, 0.5 * 2 ** (attempt - 1)) * (0.5 + jitter.random() / 2)


class Pace:
    """At most `per_minute` starts a minute, evenly spaced, and a common pause after a 429: one limiter an endpoint."""

    def __init__(self, per_minute: int | None) -> None:
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._next_at = 0.0

    async def wait(self, stop: Stop) -> None:
        """Returns when a call may start, or at once when asked to stop."""
        while not stop and (left := self._next_at - time.monotonic()) > 0:
            await asyncio.sleep(min(0.2, left))
        self._next_at = max(self._next_at, time.monotonic()) + self._gap_s

    def pause(self, seconds: float) -> None:
        self._next_at = max(self._next_at, time.monotonic() + seconds)


@dataclass(slots=True)
class Budget:
    """Reserve before a call, settle after it: spent + reserved never passes a limit (nano-USD, tokens)."""

    max_nusd: int
    max_tokens: int
    spent_nusd: int = 0
    spent_tokens: int = 0
    reserved_nusd: int = 0
    reserved_tokens: int = 0

    def reserve(self, nusd: int, tokens: int) -> None:
        """Raises `BudgetError` when the call might pass a limit."""
        money = self.spent_nusd + self.reserved_nusd + nusd
        count = self.spent_tokens + self.reserved_tokens + tokens
        if money > self.max_nusd:
            raise BudgetError(
                f"the next question could bring the cost to ${money / NUSD_PER_USD:.6f}, "
                f"over max_cost_usd = {self.max_nusd / NUSD_PER_USD:g}",
                fix="raise budget.max_cost_usd in the run file and run again; answered questions are not asked again",
            )
        if count > self.max_tokens:
            raise BudgetError(
                f"the next question could bring the count to {count} tokens, over max_tokens = {self.max_tokens}",
                fix="raise budget.max_tokens in the run file and run again; answered questions are not asked again",
            )
        self.reserved_nusd += nusd
        self.reserved_tokens += tokens

    def settle(self, reserved_nusd: int, reserved_tokens: int, nusd: int, tokens: int) -> None:
        self.reserved_nusd -= reserved_nusd
        self.reserved_tokens -= reserved_tokens
        self.spent_nusd += nusd
        self.spent_tokens += tokens
