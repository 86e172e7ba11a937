"""What tests of batch APIs share: questions, prices, and asking them against a loopback desk."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.loopback_batches import (
    Desk,
)  # fmt: skip
from tutelage.models.ask import Asking
from tutelage.models.base import Endpoint
from tutelage.models.batch import Pace, ask_in_batches
from tutelage.models.batches.opening import open_batches
from tutelage.models.budget import Budget
from tutelage.models.exchange import Terms
from tutelage.models.prices import PriceList
from tutelage.models.teachers import open_model
from tutelage.models.throttle import RateLimits, Throttle
from tutelage.progress import Quiet, Stop
from tutelage.records import Message, Request, Role
from tutelage.store.store import Store

APIS = ("openai", "anthropic", "gemini")
PATHS = {"openai": "/v1", "anthropic": "", "gemini": "/v1beta"}
PRICES = PriceList(10**9, 2 * 10**9, "test", "2026-01-01", tier="batch")  # 1,000 and 2,000 nano-USD a token
KEY = "sk-a-key-that-nobody-may-see"
ANSWER_NUSD, ANSWER_TOKENS = 7 * 1000 + 2 * 2000, 9
PARAMS: dict[str, Any] = {"max_tokens": 8, "temperature": "0"}
QUICK = Pace(0.01, 0.02, 0.05)


class Told(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def endpoint_of(desk: Desk, api: str, timeout_s: float = 5) -> Endpoint:
    key = {"key_env": "BATCH_TEST_KEY"}
    return Endpoint(desk.base_url + PATHS[api], "loopback", "test", "m", "MIT", timeout_s=timeout_s, api=api, **key)


@pytest.fixture(autouse=True)
def batch_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_TEST_KEY", KEY)


def make(desk: Desk, store: Store, api: str, **changes: Any) -> Asking:
    spent = store.spent()
    both = spent.settled_nusd + spent.unresolved_nusd, spent.settled_tokens + spent.unresolved_tokens
    fixed: dict[str, Any] = {
        "model": open_model(endpoint_of(desk, api), 1), "store": store, "terms": Terms("sha256:0", Role.TEXT_TARGET),
        "budget": Budget(10**12, 10**9, *both), "prices": PRICES, "progress": Told(), "stop": Stop(), "attempts": 3,
        "throttle": Throttle(RateLimits(None, None, 1)),
    }  # fmt: skip
    return Asking(**{**fixed, **changes})


def questions(count: int, purpose: str = "train", **more: Any) -> list[Request]:
    made = [Message("user", f"question {number}") for number in range(count)]
    return [Request((message,), PARAMS, "m", "loopback", purpose, 0, **more) for message in made]


def run(asking: Asking, requests: Sequence[Request], pace: Pace = QUICK, **changes: Any) -> None:
    async def within() -> None:
        async with open_batches(asking.model.endpoint) as batches:
            for name, value in changes.items():
                setattr(batches, name, value)
            await ask_in_batches(asking, batches, requests, "asking", pace=pace)

    asyncio.run(within())


def told(asking: Asking) -> str:
    assert isinstance(asking.progress, Told)
    return "\n".join(asking.progress.lines)


def check_money(store: Store, desk: Desk) -> None:
    """What the server counts lies between what is known to be spent and what may be."""
    spent, server = store.spent(), sum(desk.paid.values()) * ANSWER_NUSD
    assert spent.settled_nusd <= server <= spent.settled_nusd + spent.unresolved_nusd


def body_for(api: str, text: str) -> dict[str, Any]:
    if api == "gemini":
        return {"contents": [{"parts": [{"text": text}]}]}
    return {"messages": [{"role": "user", "content": text}]}
