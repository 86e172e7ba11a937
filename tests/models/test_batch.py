"""Asking through batch APIs: faults of single questions, budgets, sizes, refusals, silence."""

import json
from pathlib import Path

import pytest
from aiohttp import web

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
from tests.models.batches import (
    ANSWER_NUSD,
    ANSWER_TOKENS,
    APIS,
    PARAMS,
    PRICES,
    batch_key,  # noqa: F401  # for every test here
    check_money,
    make,
    questions,
    run,
    told,
)
from tutelage.errors import BudgetError, Interrupted, PartialError, SignalError, TeacherError
from tutelage.models import batch as batch_module
from tutelage.models.budget import Budget
from tutelage.models.exchange import bound_of
from tutelage.records import RAW, Message, Request
from tutelage.store.store import Store


@pytest.mark.parametrize("api", APIS)
def test_trap_e2_every_fault_and_every_question_is_answered_in_the_end(tmp_path: Path, api: str) -> None:
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
