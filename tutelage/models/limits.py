"""What servers say of their limits: how long to wait before asking again, and how much they take a minute.

Everything here reads headers and bodies from outside: what cannot be read is passed over, never an error.
"""

import math
import random
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

LONGEST_WAIT_S = 120.0
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(h|ms|m|s|us|µs|μs|ns)", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,20}(?:\.\d{0,20})?", re.ASCII)
_RETRY_DELAY = re.compile(rb'"retryDelay"\s*:\s*"(\d{1,12}(?:\.\d{1,12})?)s"')
_BODY_READ = 64 << 10
_EPOCH_S, _EPOCH_MS = 1e9, 1e11  # a "reset" as large as this is a point in time, in seconds or in milliseconds


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None, body: bytes = b"") -> float | None:
    """Seconds the server asks us to wait; `None` when it says nothing readable.

    Read in this order: `retry-after-ms`, `x-ms-retry-after-ms` (Azure), `Retry-After` as seconds or as an HTTP date
    (RFC 9110 §10.2.3, the three forms of §5.6.7), and `retryDelay` of `google.rpc.RetryInfo` in an error body (Gemini).
    What is past is 0; the number may be far above `LONGEST_WAIT_S`.
    """
    lowered = {key.lower(): value for key, value in headers.items() if "retry-after" in key.lower()}
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if (wait_ms := _number(lowered.get(name, ""))) is not None:
            return max(0.0, wait_ms / 1000)
    value = lowered.get("retry-after", "")
    if (wait_s := _number(value)) is None:
        wait_s = _seconds_until(_http_date(value), now)
    if wait_s is None and (delay := _RETRY_DELAY.search(body[:_BODY_READ])):
        wait_s = float(delay.group(1))
    return None if wait_s is None else max(0.0, wait_s)


def backoff_s(attempt: int, wished_s: float | None, jitter: random.Random) -> float:
    """Wait before attempt `attempt` + 1: the server's wish, else exponential from 0.5 s, jittered by half."""
    if wished_s is not None:
        return min(wished_s, LONGEST_WAIT_S)
    return min(LONGEST_WAIT_S, 0.5 * 2 ** min(attempt - 1, 16)) * (0.5 + jitter.random() / 2)


class Said(NamedTuple):
    """What an answer's headers tell of limits: a minute's worth of requests and of tokens (prompt and completion
    together), and for how long nothing is left of one of them. `None` where they tell nothing."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    empty_for_s: float | None = None


def limits_said(headers: Mapping[str, str], now: datetime | None = None) -> Said | None:
    """Rate limits in the headers of an answer; `None` when there is no such header.

    Vendors' forms: OpenAI and those like it (`x-ratelimit-limit-requests`, `-remaining-`, `-reset-` as a Go duration;
    platform.openai.com, "Rate limits in headers"), Anthropic (`anthropic-ratelimit-requests-limit`, `-remaining`,
    `-reset` as an RFC 3339 time; docs.anthropic.com, "Rate limits"), and the IETF draft
    (draft-ietf-httpapi-ratelimit-headers: `RateLimit-*` of its early forms; `RateLimit` and `RateLimit-Policy`).
    """
    found = {}
    for name, value in headers.items():
        lowered = name.lower()
        if "ratelimit" in lowered:
            found[lowered] = value[:200]
    if not found:
        return None
    of = found.get
    tokens = _least(of("x-ratelimit-limit-tokens"), of("anthropic-ratelimit-tokens-limit"))
    if tokens is None and "anthropic-ratelimit-input-tokens-limit" in found:
        both = [_limit(of(f"anthropic-ratelimit-{kind}-tokens-limit", "")) for kind in ("input", "output")]
        tokens = sum(limit or 0.0 for limit in both) if all(both) else None
    requests = _least(of("x-ratelimit-limit-requests"), of("anthropic-ratelimit-requests-limit"))
    if policies := of("ratelimit-policy") or of("ratelimit-limit"):
        policy = _policy_per_minute(policies)
        requests = min((limit for limit in (policy, requests) if limit is not None), default=None)
    return Said(requests, tokens, max(_empty_for_s(found, now), default=None))


def _empty_for_s(found: Mapping[str, str], now: datetime | None) -> Iterable[float]:
    """How long each limit that has nothing left stays so."""
    for name, value in found.items():
        if "remaining" in name and value.strip() == "0":
            if wait_s := _reset_s(found.get(name.replace("remaining", "reset"), ""), now):
                yield wait_s
        elif name == "ratelimit" and re.search(r"\b(?:r|remaining)\s*=\s*0(?![\d.])", value):
            wait = re.search(r"\b(?:t|reset)\s*=\s*(\d{1,9})", value, re.ASCII)
            if wait and int(wait.group(1)):
                yield float(wait.group(1))


def _reset_s(value: str, now: datetime | None) -> float | None:
    """A Go duration, seconds, seconds or milliseconds since 1970, or an RFC 3339 time; never below 0."""
    value = value.strip()
    parts = _DURATION.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if (number := _number(value)) is not None:
        if number >= _EPOCH_S:
            stamp = number / 1000 if number >= _EPOCH_MS else number
            number = stamp - (now or datetime.now(UTC)).timestamp()
        return max(0.0, number)
    try:
        wait_s = _seconds_until(datetime.fromisoformat(value), now)
    except ValueError:
        return None
    return None if wait_s is None else max(0.0, wait_s)


def _policy_per_minute(value: str) -> float | None:
    """The tightest of the policies that count requests and name their window: `"default";q=100;w=10`, `100;w=10`."""
    rates = []
    for policy in value.split(","):
        quota = re.search(r";\s*q\s*=\s*(\d{1,12})", policy) or re.match(r"\s*(\d{1,12})\s*;", policy)
        window = re.search(r";\s*w\s*=\s*(\d{1,9})", policy)
        unit = re.search(r';\s*qu\s*=\s*"?([\w-]+)', policy)
        if quota and window and int(quota.group(1)) and int(window.group(1)) and (not unit or unit[1] == "requests"):
            rates.append(60.0 * int(quota.group(1)) / int(window.group(1)))
    return min(rates, default=None)


def _least(*values: str | None) -> float | None:
    return min((limit for value in values if value and (limit := _limit(value))), default=None)


@lru_cache(256)  # an endpoint says the same with every answer
def _limit(value: str) -> float | None:
    number = _number(value)
    return number if number is not None and number >= 1 else None


def _number(value: str) -> float | None:
    value = value.strip()
    return float(value) if _NUMBER.fullmatch(value) and math.isfinite(float(value)) else None


def _http_date(value: str) -> datetime | None:
    try:
        return parsedate_to_datetime(value[:64]) if value else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _seconds_until(when: datetime | None, now: datetime | None) -> float | None:
    if when is None:
        return None
    try:
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return (when - (now or datetime.now(UTC))).total_seconds()
    except OverflowError:
        return None
