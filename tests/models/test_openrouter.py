"""OpenRouter's switch: every request carries it, the record shows it, and its refusal is honoured."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from tests.loopback import Teacher, problem, serving
from tutelage.errors import TeacherError
from tutelage.models.ask import Asking
from tutelage.models.base import Endpoint
from tutelage.models.budget import Budget
from tutelage.models.exchange import Terms
from tutelage.models.openai import DISTILLABLE_ONLY, switches
from tutelage.models.prices import PriceList
from tutelage.models.questions import ask_all, label_request
from tutelage.models.teachers import open_model
from tutelage.models.throttle import RateLimits, Throttle
from tutelage.progress import Quiet, Stop
from tutelage.records import Message, Request, Role
from tutelage.store.store import Store

PARAMS = {"max_tokens": 1, "temperature": "0", "logprobs": True, "top_logprobs": 20}


def endpoint_of(teacher: Teacher, provider: str = "openrouter") -> Endpoint:
    return Endpoint(teacher.base_url, provider, provider, "maker/model", "MIT", timeout_s=5)


def asking(teacher: Teacher, store: Store, provider: str = "openrouter") -> Asking:
    return Asking(
        model=open_model(endpoint_of(teacher, provider), 8), store=store, terms=Terms("sha256:0", Role.SOFT_TARGET),
        budget=Budget(0, 10**9), prices=PriceList(0, 0, "free", "2026-01-01"), progress=Quiet(), stop=Stop(), attempts=4,
        throttle=Throttle(RateLimits(None, None, 8, 8)),
    )  # fmt: skip


def questions(teacher: Teacher, provider: str = "openrouter") -> list[Request]:
    texts = [f"the team and the goal {number}" for number in range(5)]
    return [label_request(endpoint_of(teacher, provider), (Message("user", t),), PARAMS, "train") for t in texts]


@pytest.mark.parametrize(
    ("url", "provider", "sent"),
    [
        ("https://openrouter.ai/api/v1", "openrouter.ai", True),
        ("https://OpenRouter.ai./api/v1", "x", True),
        ("https://eu.openrouter.ai/api/v1", "x", True),
        ("http://127.0.0.1:8080/v1", "OpenRouter", True),
        ("http://127.0.0.1:8080/v1", "openrouter.ai", True),
        ("https://notopenrouter.ai/v1", "x", False),
        ("https://openrouter.ai.example/v1", "x", False),
        ("http://127.0.0.1:8080/v1", "loopback", False),
    ],
)
def test_who_is_sent_the_switch(url: str, provider: str, sent: bool) -> None:
    assert bool(switches(Endpoint(url, "route", provider, "m", "MIT"))) is sent


def test_every_request_carries_the_switch_and_the_record_shows_it(tmp_path: Path) -> None:
    with serving(Teacher()) as teacher, Store(tmp_path) as store:
        asked = questions(teacher)
        ask_all(asking(teacher, store), asked, 4, "asking")
        assert len(teacher.bodies) == 5
        assert all(body["provider"] == {"enforce_distillable_text": True} for body in teacher.bodies)
        kept = [line.value for _, line in store.lines() if line.kind == "request"]
        assert len(kept) == 5
        assert all(one["params"]["provider"] == DISTILLABLE_ONLY["provider"] for one in kept)
        ask_all(asking(teacher, store, "test"), questions(teacher, "test"), 4, "asking")
        assert "provider" not in teacher.bodies[-1]


def refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: problem(404),
        lambda: refusal(404, "No endpoints found that match your data policy"),
        lambda: refusal(503, "No allowed providers are available for the selected model"),
        lambda: refusal(400, "no endpoints found"),
        lambda: web.json_response({"error": {"message": "No endpoints found for maker/model", "code": 404}}),
    ],
    ids=["404", "404 with words", "503 with words", "400 with words", "200 with an error"],
)
def test_a_refusal_is_final_and_never_asked_again_without(tmp_path: Path, answer: object) -> None:
    teacher = Teacher()
    seen: list[dict] = []

    async def refuse(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return answer()  # type: ignore[operator]

    teacher.fault = lambda number, request: refuse(request)
    with serving(teacher), Store(tmp_path) as store:
        with pytest.raises(TeacherError, match="allows training on its text") as caught:
            ask_all(asking(teacher, store), questions(teacher), 4, "asking")
        assert "maker/model" in caught.value.message and "distillable" in caught.value.fix
        assert teacher.asked == len(seen) == 1
        assert seen[0]["provider"] == {"enforce_distillable_text": True}


def test_other_faults_are_still_asked_again_with_the_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.models.ask.backoff_s", lambda *arguments: 0.0)
    teacher = Teacher()
    teacher.fault = lambda number, request: problem(503) if number == 1 else None
    with serving(teacher), Store(tmp_path) as store:
        ask_all(asking(teacher, store), questions(teacher), 1, "asking")
        assert teacher.asked == 6
        assert all("provider" in body for body in teacher.bodies)


def test_a_request_without_the_switch_is_never_sent() -> None:
    async def send(teacher: Teacher) -> None:
        async with open_model(endpoint_of(teacher), 1) as model:
            await model.complete(Request((Message("user", "x"),), dict(PARAMS), "m", "openrouter", "train", 0))

    with serving(Teacher()) as teacher:
        with pytest.raises(TeacherError, match="does not carry"):
            asyncio.run(send(teacher))
        assert teacher.asked == 0
