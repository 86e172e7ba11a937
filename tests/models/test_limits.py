"""What servers say of their limits: every form of a wish to wait, every vendor's headers, and rubbish."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.models.limits import LONGEST_WAIT_S, Said, backoff_s, limits_said, retry_after_s

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
RETRY_INFO = (
    b'[{"error": {"code": 429, "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo",\n'
    b'"retryDelay" : "3.5s"}]}}]'
)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"RETRY-AFTER": "-3"}, 0.0),
        ({"Retry-After": "99999999999"}, 99_999_999_999.0),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After-Ms": "250"}, 0.25),
        ({"x-ms-retry-after-ms": "1250", "Retry-After": "9"}, 1.25),
        ({"retry-after-ms": "soon", "Retry-After": "9"}, 9.0),
        ({"Retry-After": "Mon, 23 Nov 2026 12:00:10 GMT"}, 10.0),
        ({"Retry-After": "Monday, 23-Nov-26 12:00:10 GMT"}, 10.0),
        ({"Retry-After": "Mon Nov 23 12:00:10 2026"}, 10.0),
        ({"Retry-After": "Mon Nov  2 12:00:10 2026"}, 0.0),
        ({"Retry-After": "Mon, 23 Nov 2026 11:59:00 GMT"}, 0.0),
        ({"Retry-After": "Mon, 99 Nov 99999 12:00:10 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e400"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "٣"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


def test_a_wish_in_the_body() -> None:
    assert retry_after_s({}, NOW, RETRY_INFO) == 3.5
    assert retry_after_s({"Retry-After": "1"}, NOW, RETRY_INFO) == 1.0
    assert retry_after_s({}, NOW, RETRY_INFO.replace(b"3.5s", b"-1s")) is None
    assert retry_after_s({}, NOW, b" " * 70_000 + RETRY_INFO) is None
    assert retry_after_s({}, NOW, b"[" * 100_000) is None


@given(st.dictionaries(st.sampled_from(["Retry-After", "retry-after-ms"]), st.text()), st.binary(max_size=200))
def test_no_wish_breaks_anything(headers: dict[str, str], body: bytes) -> None:
    wait_s = retry_after_s(headers, NOW, body)
    assert wait_s is None or wait_s >= 0


def test_backoff() -> None:
    assert backoff_s(1, 7.0, random.Random(0)) == 7.0
    assert backoff_s(1, 1e9, random.Random(0)) == LONGEST_WAIT_S
    for attempt, most in ((1, 0.5), (2, 1.0), (5, 8.0), (10**6, LONGEST_WAIT_S)):
        waits = [backoff_s(attempt, None, random.Random(seed)) for seed in range(50)]
        assert most / 2 <= min(waits) < max(waits) <= most
        assert max(waits) > 0.9 * most


OPENAI = {
    "x-ratelimit-limit-requests": "60", "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "59", "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s",
}  # fmt: skip
ANTHROPIC = {
    "Anthropic-Ratelimit-Requests-Limit": "50", "Anthropic-Ratelimit-Requests-Remaining": "49",
    "Anthropic-Ratelimit-Requests-Reset": "2026-11-23T12:00:02Z",
    "Anthropic-Ratelimit-Input-Tokens-Limit": "40000", "Anthropic-Ratelimit-Input-Tokens-Remaining": "39000",
    "Anthropic-Ratelimit-Input-Tokens-Reset": "2026-11-23T12:00:07Z",
    "Anthropic-Ratelimit-Output-Tokens-Limit": "8000", "Anthropic-Ratelimit-Output-Tokens-Remaining": "8000",
    "Anthropic-Ratelimit-Output-Tokens-Reset": "2026-11-23T12:00:00Z",
}  # fmt: skip


def with_empty(headers: Mapping[str, str], name: str) -> dict[str, str]:
    assert name in headers
    return {**headers, name: "0"}


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"content-type": "application/json"}, None),
        (OPENAI, Said(60, 150_000, None)),
        (with_empty(OPENAI, "x-ratelimit-remaining-requests"), Said(60, 150_000, 1.0)),
        (with_empty(OPENAI, "x-ratelimit-remaining-tokens"), Said(60, 150_000, 360.0)),
        (ANTHROPIC, Said(50, 48_000, None)),
        ({**ANTHROPIC, "anthropic-ratelimit-tokens-limit": "45000"}, Said(50, 45_000, None)),
        (with_empty(ANTHROPIC, "Anthropic-Ratelimit-Requests-Remaining"), Said(50, 48_000, 2.0)),
        (with_empty(ANTHROPIC, "Anthropic-Ratelimit-Input-Tokens-Remaining"), Said(50, 48_000, 7.0)),
        (with_empty(ANTHROPIC, "Anthropic-Ratelimit-Output-Tokens-Remaining"), Said(50, 48_000, None)),
        ({"RateLimit-Limit": "100", "RateLimit-Remaining": "0", "RateLimit-Reset": "50"}, Said(None, None, 50.0)),
        ({"anthropic-ratelimit-input-tokens-limit": "40000"}, Said(None, None, None)),
        (with_empty(with_empty(OPENAI, "x-ratelimit-remaining-requests"), "x-ratelimit-remaining-tokens"),
         Said(60, 150_000, 360.0)),
        ({**OPENAI, "RateLimit-Policy": '"default";q=5;w=10'}, Said(30, 150_000, None)),
        ({"RateLimit-Limit": "100, 100;w=30"}, Said(200, None, None)),
        ({"RateLimit": "limit=100, remaining=0, reset=5"}, Said(None, None, 5.0)),
        ({"RateLimit": '"default";r=0;t=30', "RateLimit-Policy": '"default";q=100;w=10'}, Said(600, None, 30.0)),
        ({"RateLimit": '"default";r=03;t=30'}, Said(None, None, None)),
        ({"RateLimit-Policy": '"a";q=10;w=60, "b";q=5;w=60, "c";q=1;w=60;qu="content-bytes"'}, Said(5, None, None)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW.timestamp()) + 9)}, Said(None, None, 9.0)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{int(NOW.timestamp()) + 9}000"}, Said(None, None, 9.0)),
    ],
)  # fmt: skip
def test_limits_in_headers(headers: dict[str, str], said: Said | None) -> None:
    assert limits_said(headers, NOW) == said


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("1s", 1.0), ("6m0s", 360.0), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("1.5m", 90.0), ("250µs", 250e-6), ("7", 7.0),
     ("1s!", None), ("s", None), ("1d", None), ("-5s", None), ("", None), ("2026-11-23T12:00:01.5+00:00", 1.5),
     ("2026-11-23T12:00:02", 2.0), ("0001-01-01T00:00:00+23:59", None), ("9" * 300, None), ("1s" * 150, 100.0)],
)  # fmt: skip
def test_resets(reset: str, seconds: float | None) -> None:
    said = limits_said({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": reset}, NOW)
    assert said is not None
    assert said.empty_for_s == (None if seconds is None else pytest.approx(seconds))


NAMES = sorted({*OPENAI, *ANTHROPIC, "RateLimit", "RateLimit-Policy", "ratelimit-limit", "ratelimit-remaining"})
RUBBISH = st.text() | st.sampled_from(["0", "-1", "nan", "inf", "1e99", "٣", "9" * 5000, "0;w=0", '"d";q=1;w=1', "0s"])


@given(st.dictionaries(st.sampled_from(NAMES), RUBBISH))
def test_no_header_breaks_anything(headers: dict[str, str]) -> None:
    said = limits_said(headers)
    assert (said is None) == (not headers)
    for number in said or ():
        assert number is None or 0 < number < 1e21
