"""Asking through batch APIs, against loopback servers that speak the three protocols: faults, kills, budgets, resuming."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loopback_batches import (
    EMPTY,
    ERROR,
    EXPIRED,
    GARBAGE,
    INVALID,
    MISSING,
    OK,
    SKIPPED,
    TWICE,
    UNTOLD,
    Desk,
    answer_to,
    serving_batches,
)  # fmt: skip
from tutelage.errors import BudgetError, ConfigError, Interrupted, PartialError, SignalError, TeacherError
from tutelage.models import batch as batch_module
from tutelage.models.ask import Asking
from tutelage.models.base import AskAgain, Endpoint, Refused
from tutelage.models.batch import Pace, ask_in_batches
from tutelage.models.batches import anthropic, gemini, openai
from tutelage.models.batches.opening import open_batches
from tutelage.models.batches.parts import raw_member
from tutelage.models.budget import Budget
from tutelage.models.exchange import Terms, bound_of
from tutelage.models.prices import PriceList
from tutelage.models.teachers import open_model
from tutelage.models.throttle import RateLimits, Throttle
from tutelage.progress import Quiet, Stop
from tutelage.records import RAW, Message, Request, Role
from tutelage.store.store import Store
from tutelage.wire.values import WireError

APIS = ("openai", "anthropic", "gemini")
PATHS = {"openai": "/v1", "anthropic": "", "gemini": "/v1beta"}
PRICES = PriceList(10**9, 2 * 10**9, "test", "2026-01-01", tier="batch")  # 1,000 and 2,000 nano-USD a token
ANSWER_NUSD, ANSWER_TOKENS = 7 * 1000 + 2 * 2000, 9
QUICK = Pace(0.01, 0.02, 0.05)
PARAMS: dict[str, Any] = {"max_tokens": 8, "temperature": "0"}


class Told(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def endpoint_of(desk: Desk, api: str, timeout_s: float = 5) -> Endpoint:
    key = {"key_env": "BATCH_TEST_KEY"}
    return Endpoint(desk.base_url + PATHS[api], "loopback", "test", "m", "MIT", timeout_s=timeout_s, api=api, **key)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BATCH_TEST_KEY", "sk-a-key-that-nobody-may-see")
    return "sk-a-key-that-nobody-may-see"


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


@pytest.mark.parametrize("api", APIS)
def test_every_fault_and_every_question_is_answered_in_the_end(tmp_path: Path, api: str) -> None:
    faults = {"question 1": ERROR, "question 2": EXPIRED, "question 3": MISSING, "question 4": TWICE,
              "question 5": GARBAGE, "question 6": EMPTY}  # fmt: skip
    desk = Desk(lambda text, nth: faults.get(text, OK) if nth == 1 else OK, unknown=2)
    with serving_batches(desk), Store(tmp_path) as store:
        asking, asked = make(desk, store, api), questions(12)
        run(asking, asked)
        assert (asking.answered, asking.reused, asking.failures, asking.refusals) == (12, 0, [], [])
        assert [len(job.questions) for job in desk.jobs.values()] == [12, 5]
        for request in asked:
            exchange = store.get(request.digest)
            text = request.messages[0].content
            assert exchange.answer == answer_to(text)
            assert exchange.attempts == (2 if text in faults and text != "question 4" else 1)
            assert (exchange.price.cost_nusd, exchange.price.tier) == (ANSWER_NUSD, "batch")
        bodies = [line.value["text"] for line in store.records("body")]
        assert sum("caf\\u00e9" in body and body.startswith("{") for body in bodies) == 12  # as it was received
        # The unusable answer says its usage; the missing one and the empty one may have been charged at most.
        spent, bound = store.spent(), bound_of(asked[3], PRICES)
        assert spent.settled_nusd == 13 * ANSWER_NUSD
        assert (spent.unresolved_nusd, spent.unresolved_tokens) == (2 * bound.nusd, 2 * bound.tokens)
        assert asking.budget.spent_nusd == spent.settled_nusd + spent.unresolved_nusd
        assert asking.budget.reserved_nusd == asking.budget.reserved_tokens == 0
        check_money(store, desk)
        assert "2 results of unknown questions and 1 repeated" in told(asking)
        again = make(desk, store, api)
        run(again, asked)
        assert (again.answered, again.reused, len(desk.jobs)) == (0, 12, 2)


@pytest.mark.parametrize("api", APIS)
def test_what_the_provider_never_answered_is_not_held_against_the_budget(tmp_path: Path, api: str) -> None:
    desk = Desk(lambda text, nth: SKIPPED if text == "question 1" and nth == 1 else OK)
    with serving_batches(desk), Store(tmp_path) as store:
        run(make(desk, store, api), questions(3))
        assert [len(job.questions) for job in desk.jobs.values()] == [3, 1]
        assert store.spent() == (3 * ANSWER_NUSD, 3 * ANSWER_TOKENS, 0, 0)


@pytest.mark.parametrize("api", APIS)
def test_an_answer_that_does_not_say_its_usage_may_have_cost_its_bound(tmp_path: Path, api: str) -> None:
    desk = Desk(lambda text, nth: UNTOLD if text == "question 1" else OK)
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, api)
        run(asking, questions(3))
        bound = bound_of(questions(2)[1], PRICES)
        assert store.spent() == (2 * ANSWER_NUSD, 2 * ANSWER_TOKENS, bound.nusd, bound.tokens)
        assert asking.budget.spent_nusd == 2 * ANSWER_NUSD + bound.nusd
        assert asking.budget.spent_tokens == 2 * ANSWER_TOKENS + bound.tokens


@pytest.mark.parametrize("api", APIS)
def test_refused_questions_are_not_asked_again(tmp_path: Path, api: str) -> None:
    desk = Desk(lambda text, nth: INVALID if text == "question 2" else OK)
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, api)
        with pytest.raises(PartialError):
            run(asking, questions(5))
        assert [failure.refused for failure in asking.refusals] == [True]
        assert len(desk.jobs) == 1
        assert store.spent() == (4 * ANSWER_NUSD, 4 * ANSWER_TOKENS, 0, 0)
        few = make(desk, store, api)
        run(few, questions(60))  # one in sixty is no accident
        assert (few.reused, few.answered, len(few.refusals)) == (4, 55, 1)


def test_a_question_that_fails_in_every_batch_is_given_up(tmp_path: Path) -> None:
    desk = Desk(lambda text, nth: ERROR if text == "question 0" else OK)
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, "openai")
        with pytest.raises(PartialError):
            run(asking, questions(2))
        assert [failure.attempts for failure in asking.failures] == [3]
        assert [len(job.questions) for job in desk.jobs.values()] == [2, 1, 1]
        assert store.spent().unresolved_nusd == 0


def test_an_answer_without_its_form_is_asked_for_twice_and_not_three_times(tmp_path: Path) -> None:
    schema = json.dumps({"type": "object", "required": ["a"]})
    with serving_batches(Desk()) as desk, Store(tmp_path) as store:
        with pytest.raises(PartialError):
            run(make(desk, store, "openai"), questions(2, schema=schema))
        assert [len(job.questions) for job in desk.jobs.values()] == [2, 2]
        with pytest.raises(SignalError):
            run(make(desk, store, "openai"), questions(9, "other", schema=schema))
        assert len(desk.jobs) == 3  # the first batch said enough
        check_money(store, desk)


def test_missing_log_probabilities_are_told_and_the_money_is_counted(tmp_path: Path) -> None:
    requests = [
        Request(one.messages, {**PARAMS, "logprobs": True, "top_logprobs": 2}, "m", "loopback", "train", 0)
        for one in questions(3)
    ]
    with serving_batches(Desk()) as desk, Store(tmp_path) as store:
        with pytest.raises(SignalError):
            run(make(desk, store, "openai"), requests)
        assert store.spent() == (3 * ANSWER_NUSD, 3 * ANSWER_TOKENS, 0, 0)


def test_jobs_are_cut_by_number_bytes_and_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_batches(Desk()) as desk, Store(tmp_path) as store:
        run(make(desk, store, "openai"), questions(10), most_requests=4)
        assert sorted(len(job.questions) for job in desk.jobs.values()) == [2, 4, 4]
        desk.jobs.clear()
        with monkeypatch.context() as patch:
            patch.setattr(batch_module, "MOST_BYTES", 600)  # a line is about 250 bytes
            run(make(desk, store, "openai"), questions(6, "bytes"))
        assert [len(job.questions) for job in desk.jobs.values()] == [2, 2, 2]
        desk.jobs.clear()
        raw = Request((Message(RAW, "go on"),), PARAMS, "m", "loopback", "kind", 0)
        mixed = [*questions(2, "kind"), raw]
        run(make(desk, store, "openai"), mixed)
        assert [len(job.questions) for job in desk.jobs.values()] == [2, 1]
        assert store.get(raw.digest).answer == answer_to("go on")


def test_the_budget_cuts_jobs_and_is_never_passed(tmp_path: Path) -> None:
    requests = questions(40)
    bound = bound_of(requests[-1], PRICES)
    cap = 12 * bound.nusd
    desk = Desk()

    def within(event: str) -> None:
        assert sum(desk.paid.values()) * ANSWER_NUSD <= cap

    desk.hook = within
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, "openai", budget=Budget(cap, 10**9))
        run(asking, requests)  # an answer costs a tenth of its bound: all fit, if not at once
        assert asking.answered == 40
        assert len(next(iter(desk.jobs.values())).questions) == 12
        assert all(len(job.questions) <= 12 for job in desk.jobs.values())
        short = make(desk, store, "openai", budget=Budget(3 * bound.nusd, 10**9))
        with pytest.raises(BudgetError):
            run(short, questions(400, "short"))
        assert short.answered * ANSWER_NUSD > 3 * bound.nusd - bound.nusd - ANSWER_NUSD  # not one more could fit
        assert short.budget.spent_nusd <= short.budget.max_nusd
        tokens = make(desk, store, "openai", budget=Budget(10**12, bound.tokens - 1))
        with pytest.raises(BudgetError):
            run(tokens, [Request((Message("user", "question 39"),), PARAMS, "m", "loopback", "tokens", 0)])


def test_a_batch_that_is_no_good_is_told_with_the_providers_words(tmp_path: Path) -> None:
    desk = Desk(failures=[{"code": "invalid_json_line", "message": "line 1 is bad"}])
    with serving_batches(desk), Store(tmp_path) as store:
        with pytest.raises(TeacherError, match="line 1 is bad"):
            run(make(desk, store, "openai"), questions(3))
        assert store.spent() == (0, 0, 0, 0)
        run(make(desk, store, "openai"), questions(3))
        assert set(desk.paid.values()) == {1}
        desk.failures = [{"code": "3", "message": "no such model"}]
        with pytest.raises(TeacherError, match="no such model"):
            run(make(desk, store, "gemini"), questions(3, "gemini"))


def test_a_full_queue_makes_batches_smaller(tmp_path: Path) -> None:
    full = {"code": "token_limit_exceeded", "message": "too many enqueued tokens"}
    desk = Desk(failures=[full, full])
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, "openai")
        run(asking, questions(8))
        assert [len(job.questions) for job in desk.jobs.values() if job.failure] == [8, 4]
        assert max(len(job.questions) for job in desk.jobs.values() if not job.failure) <= 4
        assert set(desk.paid.values()) == {1}
        assert store.spent().unresolved_nusd == 0


@pytest.mark.parametrize("status", [400, 404])
def test_a_refused_submission_costs_nothing(tmp_path: Path, status: int) -> None:
    desk = Desk(hook=lambda event: web.json_response({"error": {"message": "no batches here"}}, status=status))
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, "openai")
        with pytest.raises(TeacherError, match=r"does not take a batch: .*no batches here"):
            run(asking, questions(3))
        assert store.spent() == (0, 0, 0, 0)
        assert asking.budget.reserved_nusd == 0


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("skew_s", [0.0, -300.0])
def test_a_submission_whose_answer_was_lost_is_found_again(tmp_path: Path, api: str, skew_s: float) -> None:
    lost = [web.json_response({"error": {"message": "gateway"}}, status=504)]
    desk = Desk(hook=lambda event: lost.pop() if event == "created" and lost else None, skew_s=skew_s)
    with serving_batches(desk), Store(tmp_path) as store:
        for number in range(4):  # others of the same account, of other sizes
            desk.add(api, f"other {number}", [("0" * 64, body_for(api, "other"))])
        asking, kept = make(desk, store, api), lost[:]
        lost.clear()
        run(asking, questions(3, "earlier"))  # one of our own, of the same size, whose id is known
        asking, lost[:], desk.lags = make(desk, store, api), kept, 1
        run(asking, questions(3), Pace(0.01, 0.02, 30.0))
        assert (asking.answered, len(desk.jobs)) == (3, 6)
        assert told(asking).count("found again") == 1
        assert store.spent() == (6 * ANSWER_NUSD, 6 * ANSWER_TOKENS, 0, 0)


def body_for(api: str, text: str) -> dict[str, Any]:
    if api == "gemini":
        return {"contents": [{"parts": [{"text": text}]}]}
    return {"messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize("stops", [False, True])
def test_somebody_elses_batch_is_not_taken_for_ours(tmp_path: Path, stops: bool) -> None:
    """Anthropic keeps no marks: a batch of the same size and time is read, and left alone."""
    lost = [web.json_response({"error": {"message": "gateway"}}, status=504)]
    desk = Desk(lags=1)  # ours is not listed at first

    def hook(event: str) -> web.Response | None:
        if event == "poll" and stops:
            asking.stop.set()
        if event == "create" and lost:
            desk.add("anthropic", "", [(f"{n:064x}", body_for("anthropic", f"other {n}")) for n in range(3)])
        return lost.pop() if event == "created" and lost else None

    desk.hook = hook
    with serving_batches(desk), Store(tmp_path) as store:
        asking, patient = make(desk, store, "anthropic"), Pace(0.01, 0.02, 30.0)
        if stops:  # with the wrong one in the store
            with pytest.raises(Interrupted):
                run(asking, questions(3), patient)
            desk.hook = lambda event: None
            again = make(desk, store, "anthropic")
            run(again, questions(3), patient)
            assert told(asking).count("found again") == told(again).count("found again") == 1
        else:
            run(asking, questions(3), patient)
            assert told(asking).count("found again") == 2
        assert len(desk.jobs) == 2
        assert desk.paid["question 0"] == 1
        assert store.spent() == (3 * ANSWER_NUSD, 3 * ANSWER_TOKENS, 0, 0)


def test_a_listing_that_lags_does_not_make_us_pay_twice(tmp_path: Path) -> None:
    lost = [web.json_response({"error": {"message": "gateway"}}, status=504)]
    desk = Desk(hook=lambda event: lost.pop() if event == "created" and lost else None, lags=2)
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, "openai")
        run(asking, questions(3), Pace(0.01, 0.02, 30.0))
        assert (asking.answered, len(desk.jobs), desk.lags) == (3, 1, -1)


@pytest.mark.parametrize("api", APIS)
def test_a_submission_that_never_arrived_is_sent_again(tmp_path: Path, api: str) -> None:
    answers = [
        web.json_response({"error": {"message": "gateway"}}, status=502),
        web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"}),
    ]
    desk = Desk(hook=lambda event: answers.pop(0) if event == "create" and answers else None)
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, api)
        run(asking, questions(3))
        assert (asking.answered, len(desk.jobs)) == (3, 1)
        assert store.spent() == (3 * ANSWER_NUSD, 3 * ANSWER_TOKENS, 0, 0)


def test_results_that_break_off_are_read_again_and_counted_once(tmp_path: Path) -> None:
    desk = Desk(lambda text, nth: GARBAGE if nth == 1 and int(text[-1]) % 2 else OK)
    breaks = [1]

    def hook(event: str) -> None:
        if event == "results-half" and breaks:
            breaks.pop()
            raise ConnectionResetError

    desk.hook = hook
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, "openai")
        run(asking, questions(10))
        assert not breaks
        assert (asking.answered, len(desk.jobs)) == (10, 2)
        assert store.spent() == (15 * ANSWER_NUSD, 15 * ANSWER_TOKENS, 0, 0)
        assert len(list(store.records("attempt"))) == 5


@pytest.mark.parametrize("api", ["openai", "gemini"])
def test_answers_that_are_not_shown_yet_are_waited_for(tmp_path: Path, api: str) -> None:
    with serving_batches(Desk(late=5)) as desk, Store(tmp_path) as store:
        asking = make(desk, store, api)
        run(asking, questions(3))
        assert (asking.answered, len(desk.jobs), desk.late < 0) == (3, 1, True)


@pytest.mark.parametrize("api", APIS)
def test_ctrl_c_leaves_the_batch_where_it_is(tmp_path: Path, api: str) -> None:
    with serving_batches(Desk(polls_needed=3)) as desk, Store(tmp_path) as store:
        asking = make(desk, store, api)

        def hook(event: str) -> None:
            if event == "poll":
                asking.stop.set()

        desk.hook = hook
        with pytest.raises(Interrupted):
            run(asking, questions(4))
        assert f"still at the provider: {next(iter(desk.jobs))}" in told(asking)
        assert store.spent().unresolved_nusd == sum(bound_of(one, PRICES).nusd for one in questions(4))
        desk.hook = lambda event: None
        again = make(desk, store, api)
        assert again.budget.spent_nusd > 0
        run(again, questions(4))
        assert (again.answered, len(desk.jobs)) == (4, 1)
        assert (again.budget.spent_nusd, again.budget.reserved_nusd) == (4 * ANSWER_NUSD, 0)
        assert store.spent() == (4 * ANSWER_NUSD, 4 * ANSWER_TOKENS, 0, 0)


def test_ctrl_c_while_answers_are_read(tmp_path: Path) -> None:
    with serving_batches(Desk()) as desk, Store(tmp_path) as store:
        asking = make(desk, store, "openai")
        desk.hook = lambda event: asking.stop.set() if event == "results-half" else None
        with pytest.raises(Interrupted):
            run(asking, questions(20))
        assert asking.answered <= 10
        desk.hook = lambda event: None
        run(make(desk, store, "openai"), questions(20))
        assert store.spent() == (20 * ANSWER_NUSD, 20 * ANSWER_TOKENS, 0, 0)


def test_questions_of_others_in_an_open_batch_are_left_to_them(tmp_path: Path) -> None:
    with serving_batches(Desk(polls_needed=3)) as desk, Store(tmp_path) as store:
        asking = make(desk, store, "openai")
        desk.hook = lambda event: asking.stop.set() if event == "poll" else None
        with pytest.raises(Interrupted):
            run(asking, questions(6))
        desk.hook = lambda event: None
        run(make(desk, store, "openai"), questions(3))  # half of them only, and then something else
        run(make(desk, store, "openai"), questions(2, "another purpose"))
        assert [len(job.questions) for job in desk.jobs.values()] == [6, 2]
        run(make(desk, store, "openai"), questions(6))
        assert [len(job.questions) for job in desk.jobs.values()] == [6, 2]
        assert set(desk.paid.values()) == {1, 2} and sum(desk.paid.values()) == 8
        assert store.spent() == (8 * ANSWER_NUSD, 8 * ANSWER_TOKENS, 0, 0)


def test_what_an_open_batch_has_nothing_to_do_with(tmp_path: Path) -> None:
    """Attempts of earlier batches, and the batches of another API, even where the questions are the same."""
    desk = Desk(lambda text, nth: ERROR if nth == 1 else OK)
    with serving_batches(desk), Store(tmp_path) as store:
        with pytest.raises(PartialError):
            run(make(desk, store, "openai", attempts=1), questions(3))
        asking = make(desk, store, "openai", attempts=1)
        desk.hook = lambda event: asking.stop.set() if event == "poll" else None
        with pytest.raises(Interrupted):
            run(asking, questions(3))
        desk.hook = lambda event: None
        other = make(desk, store, "gemini", attempts=1)
        run(other, questions(1))
        assert len(desk.jobs) == 3
        assert "earlier start" not in told(other)
        again = make(desk, store, "openai", attempts=1)
        run(again, questions(3))
        assert (again.reused, again.answered, len(desk.jobs)) == (1, 2, 3)
        check_money(store, desk)


def test_a_server_that_is_gone_is_told_of_in_seconds_and_a_key_that_is_wrong_at_once(tmp_path: Path) -> None:
    with serving_batches(Desk()) as desk, Store(tmp_path) as store:
        desk.hook = lambda event: web.json_response({"error": {"message": "bad key"}}, status=401)
        with pytest.raises(TeacherError, match="bad key"):
            run(make(desk, store, "openai"), questions(3))
    with Store(tmp_path) as store, pytest.raises(TeacherError, match="does not answer"):
        run(make(desk, store, "openai"), questions(3))
    with Store(tmp_path) as store, serving_batches(desk):  # another port: the route is what counts
        desk.hook = lambda event: None
        run(make(desk, store, "openai"), questions(3))
        assert [len(job.questions) for job in desk.jobs.values()] == [3]
        assert store.spent() == (3 * ANSWER_NUSD, 3 * ANSWER_TOKENS, 0, 0)


def test_how_often_a_server_may_be_silent(tmp_path: Path) -> None:
    calls = {"file": 0, "poll": 0}

    def failing(event: str) -> web.Response:
        calls[event] += 1
        return web.json_response({"error": {"message": "down"}}, status=503)

    with serving_batches(Desk(hook=failing)) as desk, Store(tmp_path) as store:
        with pytest.raises(TeacherError, match="does not answer: HTTP 503: down"):
            run(make(desk, store, "openai"), questions(3))
        assert 1 <= calls["file"] <= 3  # and as many listings in between as make three
        desk.hook = lambda event: failing(event) if event == "poll" else None
        with pytest.raises(TeacherError, match="does not answer"):
            run(make(desk, store, "openai"), questions(3))
        assert calls["poll"] == 10
        desk.hook = lambda event: None
        run(make(desk, store, "openai"), questions(3))
        assert store.spent() == (3 * ANSWER_NUSD, 3 * ANSWER_TOKENS, 0, 0)


def test_a_batch_that_the_provider_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_batches(Desk()) as desk, Store(tmp_path) as store:
        asking = make(desk, store, "openai")
        desk.hook = lambda event: asking.stop.set() if event == "poll" else None
        with pytest.raises(Interrupted):
            run(asking, questions(2))
        desk.jobs.clear()
        with pytest.raises(TeacherError, match="404"):  # perhaps another account's key: nothing is bought anew
            run(make(desk, store, "openai"), questions(2))
        monkeypatch.setattr(batch_module, "RESULTS_KEPT_S", -1)
        run(make(desk, store, "openai"), questions(2))
        assert store.spent().unresolved_nusd == sum(bound_of(one, PRICES).nusd for one in questions(2))
        check_money(store, desk)


@pytest.mark.parametrize("api", APIS)
def test_cancelling_and_what_was_answered_before(tmp_path: Path, api: str) -> None:
    async def within() -> None:
        async with open_batches(endpoint_of(desk, api)) as batches:
            lines = [batches.line(f"{number:064x}", one) for number, one in enumerate(questions(2))]
            batch_id = await batches.submit(lines, questions(1)[0], "a-token")
            assert (await batches.poll(batch_id)).status == "running"
            await batches.cancel(batch_id)
            assert await batches.poll(batch_id) == ("ended", 2, 2, "", False)
            assert {line.custom_id async for line in batches.results(batch_id)} == {f"{n:064x}" for n in range(2)}

    with serving_batches(Desk(polls_needed=9)) as desk:
        asyncio.run(within())


@pytest.mark.parametrize("api", APIS)
def test_the_key_is_sent_to_the_base_url_alone_and_written_nowhere(tmp_path: Path, api: str, key: str) -> None:
    desk = Desk(upload_host="http://elsewhere.invalid", echo=f"you said {key}")
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, api)
        run(asking, questions(3))
        assert store.get(questions(1)[0].digest).answer.endswith("you said [redacted:BATCH_TEST_KEY]")
        desk.hook = lambda event: web.json_response({"error": {"message": f"bad {key}"}}, status=400)
        with pytest.raises(TeacherError, match=r"bad \[redacted") as refused:
            run(asking, questions(3, "another"))
        assert key not in str(refused.value)
        names = {"openai": "authorization", "anthropic": "x-api-key", "gemini": "x-goog-api-key"}
        assert all(key in headers[names[api]] for headers in desk.headers)
        assert key not in told(asking)
        assert not any(key.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_plug_ins_have_no_batch_api() -> None:
    with pytest.raises(ConfigError):
        open_batches(Endpoint("http://127.0.0.1:1", "loopback", "test", "m", "MIT", api="own"))


# Killed ---------------------------------------------------------------------------------------------------------------


def child(desk: Desk, folder: Path, api: str, count: int, prepare: Callable[[Store], None]) -> Iterator[int]:
    """Asks in a process of its own, whose id is given while it runs, then how it ended. It is begun before there is any
    server thread."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            desk.base_url = os.read(reading, 100).decode()
            with Store(folder) as store:
                prepare(store)
                run(make(desk, store, api), questions(count))
            os._exit(0)
        finally:
            os._exit(1)
    yield process
    with serving_batches(desk):
        os.write(writing, desk.base_url.encode())
        _, status = os.waitpid(process, 0)
    for end in (reading, writing):
        os.close(end)
    desk.hook = lambda event: None
    yield status


def killed(desk: Desk, folder: Path, api: str, event: str) -> None:
    """Asks in another process, which is killed when the event happens."""
    running = child(desk, folder, api, 20, lambda store: dying_at(9, "reserve", store) if event == "reserve" else None)
    process = next(running)

    def hook(happened: str) -> web.Response | None:
        if happened != event:
            return None
        if event == "results-half":  # some of what was sent is stored
            until = time.monotonic() + 10
            while not stored(folder) and time.monotonic() < until:
                time.sleep(0.01)
        os.kill(process, signal.SIGKILL)
        return web.Response(status=503)  # nobody reads it

    desk.hook = hook
    assert os.WTERMSIG(next(running)) == signal.SIGKILL


def dying_at(number: int, method: str, store: Store) -> None:
    """The process is killed when that method of the store is called for that time, before anything is written."""
    call, left = getattr(store, method), iter(range(number - 1))

    def call_or_die(*arguments: Any) -> Any:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)

    setattr(store, method, call_or_die)


def stored(folder: Path) -> int:
    return sum(path.read_bytes().count(b" exchange {") for path in folder.glob("*.seg"))


EVENTS = ("reserve", "file", "create", "created", "poll", "results-half")
POINTS = [(api, event) for api in APIS for event in EVENTS if (api, event) != ("anthropic", "file")]


@pytest.mark.parametrize(("api", "event"), POINTS)
def test_killed_at_any_moment_every_question_is_paid_for_once(tmp_path: Path, api: str, event: str) -> None:
    desk = Desk(lambda text, nth: GARBAGE if text in ("question 3", "question 4") and nth == 1 else OK)
    killed(desk, tmp_path, api, event)
    assert 0 < stored(tmp_path) < 20 if event == "results-half" else stored(tmp_path) == 0
    with serving_batches(desk), Store(tmp_path) as store:  # the server lives on, if behind another port
        asking = make(desk, store, api)
        run(asking, questions(20))
        assert asking.answered + asking.reused == 20
        assert [len(job.questions) for job in desk.jobs.values()] == [20, 2]
        assert set(desk.paid.values()) == {1, 2} and sum(desk.paid.values()) == 22
        # Every reservation has found its end, so the budget is known to the last nano-USD.
        assert store.spent() == (22 * ANSWER_NUSD, 22 * ANSWER_TOKENS, 0, 0)
        assert (asking.budget.spent_nusd, asking.budget.reserved_nusd) == (22 * ANSWER_NUSD, 0)


def test_killed_twice_nothing_is_noted_twice(tmp_path: Path) -> None:
    desk = Desk(lambda text, nth: ERROR if nth == 1 else OK)
    with serving_batches(desk), Store(tmp_path) as store, pytest.raises(PartialError):
        run(make(desk, store, "openai", attempts=1), questions(20))  # these reservations and attempts are not meant
    killed(desk, tmp_path, "openai", "reserve")
    running = child(desk, tmp_path, "openai", 20, lambda store: dying_at(3, "put_attempt", store))
    next(running)
    assert os.WIFSIGNALED(next(running))
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, "openai")
        run(asking, questions(20))
        assert "found again" not in told(asking) and "looked for" not in told(asking)
        assert len(list(store.records("attempt"))) == 20 + 8  # as many as were reserved for before the first kill
        assert store.spent() == (20 * ANSWER_NUSD, 20 * ANSWER_TOKENS, 0, 0)


def test_killed_before_any_line_that_is_written(tmp_path: Path) -> None:
    for number in range(1, 99):
        desk = Desk(lambda text, nth: GARBAGE if text == "question 1" and nth == 1 else OK, polls_needed=1)
        folder = tmp_path / str(number)
        running = child(desk, folder, "openai", 3, lambda store, number=number: dying_at(number, "_append", store))
        next(running)
        was_killed = os.WIFSIGNALED(next(running))
        with serving_batches(desk), Store(folder) as store:
            asking = make(desk, store, "openai")
            run(asking, questions(3))
            assert asking.answered + asking.reused == 3
            assert sorted(desk.paid.values()) == [1, 1, 2], number
            # Reservations made before the job's own line would stay open: there is none.
            assert store.spent() == (4 * ANSWER_NUSD, 4 * ANSWER_TOKENS, 0, 0), number
            assert (asking.budget.spent_nusd, asking.budget.reserved_nusd) == (4 * ANSWER_NUSD, 0), number
        if not was_killed:
            break
    assert number == 15  # 9 lines of the first job, 5 of the second; a 15th would be too many


# The servers speak the protocols --------------------------------------------------------------------------------------


def test_the_official_openai_client_and_ours_agree() -> None:
    from openai import OpenAI

    with serving_batches(Desk(lambda text, nth: INVALID if text == "question 1" else OK)) as desk:
        client = OpenAI(base_url=f"{desk.base_url}/v1", api_key="k", max_retries=0)

        async def ours() -> list[bytes]:
            async with open_batches(endpoint_of(desk, "openai")) as batches:
                lines = [batches.line(f"{number:064x}", one) for number, one in enumerate(questions(3))]
                assert await batches.submit(lines, questions(1)[0], "a-token") == "batch_1"
                return lines

        lines = asyncio.run(ours())
        file = client.files.create(file=("x.jsonl", b"\n".join(lines)), purpose="batch")
        job = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"tutelage": "t"}
        )
        assert desk.files["file-1"].splitlines() == desk.files[file.id].splitlines()
        assert [one.id for one in client.batches.list()] == ["batch_2", "batch_1"]
        while job.status not in ("completed", "failed"):
            job = client.batches.retrieve(job.id)
        assert job.output_file_id and job.error_file_id and job.request_counts
        theirs = [json.loads(line) for line in client.files.content(job.output_file_id).text.splitlines()]

        async def read() -> dict[str, bytes]:
            async with open_batches(endpoint_of(desk, "openai")) as batches:
                assert await batches.find("t", datetime.now(UTC).isoformat(), 3, set()) == job.id
                return {line.custom_id: line.body async for line in batches.results(job.id) if line.status == 200}

        found = asyncio.run(read())
        assert {line["custom_id"]: line["response"]["body"] for line in theirs} == {
            custom_id: json.loads(body) for custom_id, body in found.items()
        }


def test_the_official_anthropic_client_and_ours_agree() -> None:
    from anthropic import Anthropic

    with serving_batches(Desk(lambda text, nth: EXPIRED if text == "question 1" else OK)) as desk:
        client = Anthropic(base_url=desk.base_url, api_key="k", max_retries=0)

        async def ours() -> None:
            async with open_batches(endpoint_of(desk, "anthropic")) as batches:
                lines = [batches.line(f"{number:064x}", one) for number, one in enumerate(questions(3))]
                assert await batches.submit(lines, questions(1)[0], "a-token") == "msgbatch_1"

        asyncio.run(ours())
        asked = [{"custom_id": one.custom_id, "params": one.body} for one in desk.jobs["msgbatch_1"].questions]
        job = client.messages.batches.create(requests=asked)  # type: ignore[arg-type]
        assert [one.body for one in desk.jobs[job.id].questions] == [one["params"] for one in asked]
        assert [one.id for one in client.messages.batches.list()] == ["msgbatch_2", "msgbatch_1"]
        while job.processing_status != "ended":
            job = client.messages.batches.retrieve(job.id)
        theirs = {line.custom_id: line.result.type for line in client.messages.batches.results(job.id)}

        async def read() -> dict[str, int]:
            async with open_batches(endpoint_of(desk, "anthropic")) as batches:
                return {line.custom_id: line.status async for line in batches.results(job.id)}

        assert theirs == {
            key: "succeeded" if status == 200 else "expired" for key, status in asyncio.run(read()).items()
        }


def test_the_official_gemini_client_and_ours_agree(tmp_path: Path) -> None:
    from google.genai import Client
    from google.genai.types import HttpOptions, UploadFileConfig

    with serving_batches(Desk(lambda text, nth: ERROR if text == "question 1" else OK)) as desk:
        client = Client(api_key="k", http_options=HttpOptions(base_url=desk.base_url, api_version="v1beta"))

        async def ours() -> list[bytes]:
            async with open_batches(endpoint_of(desk, "gemini")) as batches:
                lines = [batches.line(f"{number:064x}", one) for number, one in enumerate(questions(3))]
                assert await batches.submit(lines, questions(1)[0], "a-token") == "batches/1"
                return lines

        (tmp_path / "x.jsonl").write_bytes(b"\n".join(asyncio.run(ours())))
        file = client.files.upload(file=tmp_path / "x.jsonl", config=UploadFileConfig(mime_type="application/jsonl"))
        job = client.batches.create(model="m", src=file.name, config={"display_name": "t"})
        assert file.name and job.name
        assert desk.files["files/1"].splitlines() == desk.files[file.name].splitlines()
        assert {one.display_name for one in client.batches.list()} == {"a-token", "t"}
        while not job.done:
            job = client.batches.get(name=job.name)
        assert job.dest and job.dest.file_name
        theirs = [json.loads(line) for line in client.files.download(file=job.dest.file_name).splitlines()]

        async def read() -> dict[str, bytes]:
            async with open_batches(endpoint_of(desk, "gemini")) as batches:
                assert await batches.find("t", datetime.now(UTC).isoformat(), 3, set()) == job.name
                return {line.custom_id: line.body async for line in batches.results(str(job.name))}

        assert {line["key"]: line.get("response", line.get("error")) for line in theirs} == {
            key: json.loads(body) for key, body in asyncio.run(read()).items()
        }


# Hostile lines --------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=8,
)  # fmt: skip
NOWHERE = [Endpoint("http://127.0.0.1:1", "loopback", "test", "m", "MIT", api=api) for api in APIS]
READERS = [
    (module._line, open_batches(endpoint))
    for module, endpoint in zip((openai, anthropic, gemini), NOWHERE, strict=True)
]
NAMES = st.sampled_from(
    ["custom_id", "key", "response", "body", "result", "message", "error", "type", "code", "status_code"]
)
LINES = st.recursive(JSON, lambda inner: st.dictionaries(NAMES, inner, max_size=5), max_leaves=12)


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=4), st.text(max_size=6), JSON, st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_part_of_a_line_comes_as_it_was_received(
    others: dict[str, Any], name: str, value: Any, is_ascii: bool
) -> None:
    inner, key = json.dumps(value, ensure_ascii=is_ascii, indent=1), json.dumps(name, ensure_ascii=is_ascii)
    before = json.dumps({**others, name: {"an earlier": "one"}}, ensure_ascii=is_ascii)[1:-1]
    line = f'{{ "z":[] , "outer" : {{ {before}\t,{key} :{inner}\n}} , "y":"}}"}}'
    assert raw_member(line.encode(), "outer", name) == inner.encode()
    with pytest.raises(WireError):
        raw_member(line.encode(), "outer", "not there")


@given(
    st.binary(max_size=60)
    | LINES.map(lambda value: json.dumps(value).encode())
    | st.just(b'{"key":"a","custom_id":"a","response":' + b"[" * 5000)
)
@settings(max_examples=60, deadline=None)
def test_no_line_can_break_the_readers(line: bytes) -> None:
    for reader, batches in READERS:
        if (found := reader(line)) is not None:
            with pytest.raises((AskAgain, Refused, TeacherError)):
                batches.reply(found, questions(1)[0])
                raise AskAgain("it was an answer")
    with pytest.raises(WireError):
        raw_member(line, "no such member")


@pytest.mark.parametrize("api", APIS)
def test_answers_that_are_no_jobs(tmp_path: Path, api: str) -> None:
    bodies = [b"", b"[]", b"{}", b"null", b'{"id": 7, "name": ["x"]}', b"\xff", b"[" * 5000, b'{"a":' * 5000]
    seen = list(bodies)
    desk = Desk(hook=lambda event: web.Response(body=seen.pop()) if event in ("created", "poll") and seen else None)
    with serving_batches(desk), Store(tmp_path) as store:
        asking = make(desk, store, api)
        run(asking, questions(2))
        assert (asking.answered, len(desk.jobs), seen) == (2, 1, [])
