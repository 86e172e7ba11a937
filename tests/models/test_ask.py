"""Asking against a loopback server that speaks the real protocol and fails in the ways real ones do."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.loopback import Teacher, problem, serving
from tutelage.errors import BudgetError, ConfigError, Interrupted, PartialError, SignalError, TeacherError
from tutelage.models import ask as asking_module
from tutelage.models.ask import Asking
from tutelage.models.base import Endpoint
from tutelage.models.budget import Budget
from tutelage.models.exchange import Terms
from tutelage.models.openai import OpenAIDialect
from tutelage.models.prices import PriceList
from tutelage.models.questions import ask_all, label_request
from tutelage.models.teachers import open_model
from tutelage.models.throttle import RateLimits, Throttle
from tutelage.progress import Lines, Quiet, Stop
from tutelage.records import RAW, Message, Request, Role
from tutelage.store.store import Store

PARAMS = {"max_tokens": 1, "temperature": "0", "logprobs": True, "top_logprobs": 20}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Back-off is recorded, not slept through."""
    waits: list[float] = []

    async def wait(asking: Asking, seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(asking_module, "pause", wait)
    monkeypatch.setattr(Throttle, "_pause", lambda self, seconds: None)
    return waits


def make(teacher: Teacher, store: Store, **changes: object) -> Asking:
    endpoint = Endpoint(teacher.base_url, "loopback", "test", "word-counter", "MIT", timeout_s=2)
    settings: dict = {
        "model": open_model(endpoint, 64), "store": store, "terms": Terms("sha256:0", Role.SOFT_TARGET),
        "budget": Budget(0, 10**9), "prices": PriceList(0, 0, "free", "2026-01-01"), "progress": Quiet(), "stop": Stop(),
        "attempts": 4, "throttle": Throttle(RateLimits(None, None, 64, 64)),
    }  # fmt: skip
    return Asking(**{**settings, **changes})


def questions(teacher: Teacher, count: int, purpose: str = "train") -> list[Request]:
    endpoint = Endpoint(teacher.base_url, "loopback", "test", "word-counter", "MIT")
    texts = [f"the team and the goal {number}" for number in range(count)]
    return [label_request(endpoint, (Message("user", text),), PARAMS, purpose) for text in texts]


def run(asking: Asking, requests: list[Request], concurrency: int = 8) -> None:
    ask_all(asking, requests, concurrency, "asking")


def test_everything_is_answered_once_and_resumed(tmp_path: Path) -> None:
    with serving(Teacher()) as teacher, Store(tmp_path) as store:
        run(make(teacher, store), questions(teacher, 30)[:10])
        again = make(teacher, store)
        run(again, questions(teacher, 30))
        assert (again.reused, again.answered) == (10, 20)
        assert teacher.asked == 30
        assert set(teacher.answered.values()) == {1}
        one = store.get(questions(teacher, 1)[0].digest)
        assert (one.answer, one.attempts, one.usage.prompt_tokens) == ("sport", 1, 7)
        assert one.logprobs[0].top[0].token_bytes == b"sport"


def test_another_purpose_asks_anew(tmp_path: Path) -> None:
    with serving(Teacher()) as teacher, Store(tmp_path) as store:
        run(make(teacher, store), questions(teacher, 3))
        run(make(teacher, store), questions(teacher, 3, "a claim"))
        assert teacher.asked == 6


def faults(kind: str) -> object:
    async def reset(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def torn(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "500"})
        await response.prepare(request)
        await response.write(b'{"choices": [')
        assert request.transport is not None
        request.transport.close()
        return response

    def fault(number: int, request: web.Request) -> object:
        if number % 3:
            return None
        return {
            "429": lambda: problem(429, {"Retry-After": "1"}),
            "429 ms": lambda: problem(429, {"retry-after-ms": "20"}),
            "500": lambda: problem(500),
            "529": lambda: problem(529),
            "reset": lambda: reset(request),
            "torn": lambda: torn(request),
            "not json": lambda: web.Response(text="<html>bad gateway</html>"),
            "no choices": lambda: web.json_response({"choices": [], "model": "x"}),
            "error in 200": lambda: web.json_response({"error": {"message": "overloaded"}}),
        }[kind]()

    return fault


@pytest.mark.parametrize(
    "kind", ["429", "429 ms", "500", "529", "reset", "torn", "not json", "no choices", "error in 200"]
)
def test_faults_are_tried_again_and_counted_as_attempts(tmp_path: Path, kind: str) -> None:
    teacher = Teacher()
    teacher.fault = faults(kind)  # type: ignore[assignment]
    with serving(teacher), Store(tmp_path) as store:
        run(make(teacher, store, attempts=8), questions(teacher, 20))
        exchanges = [store.get(request.digest) for request in questions(teacher, 20)]
        assert {exchange.answer for exchange in exchanges} == {"sport"}
        assert max(exchange.attempts for exchange in exchanges) > 1
        assert set(teacher.answered.values()) == {1}


def test_the_servers_wish_is_followed(tmp_path: Path, no_waiting: list[float]) -> None:
    teacher = Teacher()
    teacher.fault = lambda number, request: problem(429, {"Retry-After": "7"}) if number == 2 else None
    with serving(teacher), Store(tmp_path) as store:
        run(make(teacher, store), questions(teacher, 3))
    assert no_waiting == [7.0]


def test_unreachable_is_told_quickly(tmp_path: Path) -> None:
    teacher = Teacher()
    teacher.base_url = "http://127.0.0.1:9/v1"
    with Store(tmp_path) as store, pytest.raises(TeacherError, match="does not answer: cannot connect"):
        run(make(teacher, store), questions(teacher, 5))


@pytest.mark.parametrize(("status", "hint"), [(401, "key"), (404, "teacher.model"), (400, "takes such questions")])
def test_final_refusals_are_one_error_not_many(tmp_path: Path, status: int, hint: str) -> None:
    teacher = Teacher()
    teacher.fault = lambda number, request: problem(status)
    with serving(teacher), Store(tmp_path) as store, pytest.raises(TeacherError) as caught:
        run(make(teacher, store), questions(teacher, 50))
    assert hint in caught.value.fix
    assert teacher.asked == (3 if status == 400 else 1)


def test_a_server_that_dies_is_given_up(tmp_path: Path) -> None:
    teacher = Teacher()
    teacher.fault = lambda number, request: problem(500) if number > 5 else None
    throttle = Throttle(RateLimits(None, None, 8, 8), give_up_s=2.5)
    with (
        serving(teacher),
        Store(tmp_path) as store,
        pytest.raises(TeacherError, match=r"does not answer: (HTTP 500|no answer for)"),
    ):
        run(make(teacher, store, throttle=throttle), questions(teacher, 500))
    assert teacher.asked < 100


def test_unanswered_questions_are_named_and_asked_again(tmp_path: Path) -> None:
    teacher = Teacher()
    poison = "the team and the goal 3"

    async def sometimes(request: web.Request) -> web.Response | None:
        body = await request.json()
        return problem(500) if body["messages"][-1]["content"] == poison else None

    original = teacher.handle

    async def handle(request: web.Request) -> web.StreamResponse:
        return await sometimes(request) or await original(request)

    teacher.handle = handle  # type: ignore[method-assign]
    with serving(teacher), Store(tmp_path) as store:
        with pytest.raises(PartialError, match="1 of 10"):
            run(make(teacher, store), questions(teacher, 10))
        failures = [line.value for _, line in store.lines() if line.kind == "failure"]
        assert [failure["request_digest"] for failure in failures] == [questions(teacher, 4)[3].digest]
        poison = ""
        run(make(teacher, store), questions(teacher, 10))
        assert teacher.asked == 10


def test_a_question_that_is_refused_is_not_asked_again_and_stops_nobody(tmp_path: Path) -> None:
    teacher = Teacher()
    teacher.fault = lambda number, request: problem(413) if number == 4 else None
    with serving(teacher), Store(tmp_path) as store:
        with pytest.raises(PartialError, match=r"1 of 12.*HTTP 413"):
            run(make(teacher, store), questions(teacher, 12))
        assert teacher.asked == 12


def test_a_few_refused_questions_are_left_out(tmp_path: Path) -> None:
    teacher = Teacher()
    teacher.fault = lambda number, request: problem(400) if number == 1 else None
    with serving(teacher), Store(tmp_path) as store:
        asking, asked = make(teacher, store), questions(teacher, 50)
        run(asking, asked)
        assert (asking.answered, len(asking.refusals), len(asking.failures)) == (49, 1, 0)
        refusal = asking.refusals[0]
        assert refusal.refused
        assert "HTTP 400" in refusal.reason
        assert not store.has(refusal.request_digest)
        teacher.fault = lambda number, request: problem(400) if number in (53, 57) else None
        with pytest.raises(PartialError, match=r"2 of 40"):
            run(make(teacher, store), questions(teacher, 40, "more"))


def test_a_completion_goes_to_its_own_path_with_one_number_of_candidates(tmp_path: Path) -> None:
    with serving(Teacher()) as teacher, Store(tmp_path) as store:
        endpoint = Endpoint(teacher.base_url, "loopback", "test", "word-counter", "MIT")
        request = label_request(endpoint, (Message(RAW, "the team wins"),), PARAMS, "train")
        run(make(teacher, store), [request])
        sent = {"model": "word-counter", "prompt": "the team wins", "max_tokens": 1, "temperature": 0, "logprobs": 20}
        assert teacher.bodies == [sent]
        answer = store.get(request.digest)
        assert answer.answer == " sport"
        assert [candidate.token_bytes for candidate in answer.logprobs[0].top] == [b" sport", b" food", b" weather"]


def test_the_same_question_twice_is_paid_once(tmp_path: Path) -> None:
    with serving(Teacher()) as teacher, Store(tmp_path) as store:
        run(make(teacher, store), questions(teacher, 5) * 3)
        assert teacher.asked == 5


def test_what_may_have_been_billed_counts_against_the_budget(tmp_path: Path) -> None:
    """An unusable answer, and one that does not say what it cost, are counted at their bound."""
    teacher = Teacher()
    teacher.fault = lambda number, request: web.json_response({"choices": []}) if number == 2 else None
    with serving(teacher), Store(tmp_path) as store:
        budget = Budget(0, 10**6)
        run(make(teacher, store, budget=budget), questions(teacher, 3), concurrency=1)
        assert budget.spent_tokens > 3 * 8 + 30
        assert budget.reserved_tokens == 0


def test_missing_logprobs_stop_the_run_at_once(tmp_path: Path) -> None:
    with serving(Teacher(logprobs=False)) as teacher, Store(tmp_path) as store:
        with pytest.raises(SignalError, match="without the log-probabilities"):
            run(make(teacher, store), questions(teacher, 50))
        assert teacher.asked == 1
        assert not store.has(questions(teacher, 1)[0].digest), "it is no answer to what was asked"


def test_budget_is_never_passed(tmp_path: Path) -> None:
    prices = PriceList(1_000_000, 2_000_000, "test", "2026-01-01")  # 7 + 1 tokens cost 9 nano-USD
    with serving(Teacher()) as teacher, Store(tmp_path) as store:
        budget = Budget(600, 10**9)
        with pytest.raises(BudgetError, match="max_cost_usd"):
            run(make(teacher, store, budget=budget, prices=prices), questions(teacher, 500))
        assert budget.spent_nusd == 9 * teacher.asked <= 600
        assert budget.reserved_nusd == budget.reserved_tokens == 0
        assert teacher.asked > 40, "the reservation must not stop the run far below its limit"
        with pytest.raises(BudgetError, match="max_tokens"):
            run(make(teacher, store, budget=Budget(10**9, 100)), questions(teacher, 500))


def test_stop_drains_and_keeps(tmp_path: Path) -> None:
    stop = Stop()
    teacher = Teacher()

    def fault(number: int, request: web.Request) -> None:
        if number == 5:
            stop.set()

    teacher.fault = fault
    with serving(teacher), Store(tmp_path) as store:
        with pytest.raises(Interrupted):
            run(make(teacher, store, stop=stop), questions(teacher, 100))
        stored = sum(line.kind == "exchange" for _, line in store.lines())
        assert stored == teacher.asked < 30


def test_the_key_is_sent_and_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-planted-secret-0123456789"
    monkeypatch.setenv("TEST_KEY", secret)
    with serving(Teacher()) as teacher, Store(tmp_path) as store:
        endpoint = Endpoint(teacher.base_url, "loopback", "test", "m", "MIT", key_env="TEST_KEY")
        run(make(teacher, store, model=open_model(endpoint, 4)), questions(teacher, 3))
        assert teacher.headers[0]["Authorization"] == f"Bearer {secret}"
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_missing_key_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    with serving(Teacher()) as teacher, Store(tmp_path) as store, pytest.raises(TeacherError, match="TEST_KEY"):
        endpoint = Endpoint(teacher.base_url, "loopback", "test", "m", "MIT", key_env="TEST_KEY")
        run(make(teacher, store, model=open_model(endpoint, 4)), questions(teacher, 3))


def test_numbers_are_sent_as_numbers() -> None:
    request = Request((Message("user", "x"),), PARAMS, "m", "embedded", "train", 0)
    assert json.loads(json.dumps(OpenAIDialect().body(Endpoint("http://h/v1", "r", "p", "m", ""), request))) == {
        "model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "temperature": 0.0,
        "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip


def billing(teacher: Teacher, prompt_tokens: int, completion_tokens: int) -> list[int]:
    """Lets the teacher count so much for each answer, and keeps what it counted."""
    billed: list[int] = []

    def fault(number: int, request: web.Request) -> web.Response:
        billed.append(prompt_tokens + completion_tokens)
        choice = {"index": 0, "message": {"role": "assistant", "content": "sport"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        return web.json_response({"model": "m", "choices": [choice], "usage": usage})

    teacher.fault = fault
    return billed


def plain(count: int, **params: object) -> list[Request]:
    asked = {"max_tokens": 16, **params}
    return [Request((Message("user", f"q {at}"),), asked, "m", "loopback", "train", 0) for at in range(count)]


@pytest.mark.parametrize(("prompt", "completion"), [(3000, 4), (20, 900)])
def test_an_endpoint_that_counts_more_than_it_could_is_believed_after_one_call(
    tmp_path: Path, prompt: int, completion: int
) -> None:
    """A hidden prompt, a limit that is not kept: the first question goes alone and tells."""
    teacher = Teacher()
    billed = billing(teacher, prompt, completion)
    with serving(teacher), Store(tmp_path) as store:
        budget = Budget(0, 30_000)
        with pytest.raises(BudgetError):
            run(make(teacher, store, budget=budget), plain(200), concurrency=64)
        assert sum(billed) == budget.spent_tokens <= 30_000
        assert len(billed) > 5


@pytest.mark.parametrize(
    "extra", ['{"n": 4}', '{"max_completion_tokens": 9000}', '{"generationConfig": {"candidateCount": 2}}']
)
def test_what_multiplies_the_bill_is_no_extra(tmp_path: Path, extra: str) -> None:
    request = Request((Message("user", "x"),), {"max_tokens": 4}, "m", "loopback", "train", 0, extra=extra)
    with serving(Teacher()) as teacher, Store(tmp_path) as store:
        with pytest.raises(ConfigError, match="more than what is set aside"):
            run(make(teacher, store), [request])
        assert teacher.asked == 0


def test_being_asked_to_wait_is_no_failure_however_often(tmp_path: Path) -> None:
    """`Retry-After: 0` for longer than there are attempts."""
    teacher = Teacher()
    teacher.fault = lambda number, request: problem(429, {"Retry-After": "0"}) if number < 30 else None
    with serving(teacher), Store(tmp_path) as store:
        asking = make(teacher, store, attempts=2)
        run(asking, plain(3))
        assert (asking.answered, asking.failures) == (3, [])


def test_rows_that_are_too_long_say_nothing_of_the_endpoint(tmp_path: Path) -> None:
    long = [
        Request((Message("user", "x" * 9000 + str(at)),), {"max_tokens": 4}, "m", "loopback", "train", 0)
        for at in range(12)
    ]
    with serving(Teacher()) as teacher, Store(tmp_path) as store:
        asking = make(teacher, store, window_tokens=1000)
        with pytest.raises(PartialError, match="12 of 17"):
            run(asking, [*long, *plain(5)])
        assert (asking.answered, teacher.asked, len(asking.refusals)) == (5, 5, 12)


def test_one_forbidden_question_is_one_question(tmp_path: Path) -> None:
    teacher = Teacher()
    teacher.fault = lambda number, request: problem(403) if number == 5 else None
    with serving(teacher), Store(tmp_path) as store:
        asking = make(teacher, store)
        run(asking, plain(60))
        assert (asking.answered, len(asking.refusals)) == (59, 1)
    teacher = Teacher()
    teacher.fault = lambda number, request: problem(403)
    with serving(teacher), Store(tmp_path / "two") as store, pytest.raises(TeacherError, match="HTTP 403"):
        run(make(teacher, store), plain(60))
    assert teacher.asked == 1


@pytest.mark.parametrize(("status", "is_open"), [(504, True), (502, True), (500, False), (503, False), (429, False)])
def test_what_a_gateway_gave_up_on_may_have_been_charged(tmp_path: Path, status: int, is_open: bool) -> None:
    teacher = Teacher()
    teacher.fault = lambda number, request: problem(status) if number == 2 else None
    with serving(teacher), Store(tmp_path) as store:
        run(make(teacher, store), plain(4), concurrency=1)
        spent = store.spent()
    assert (spent.unresolved_tokens > 0) is is_open
    assert spent.settled_tokens == 4 * 8


def test_an_answer_that_is_too_large_may_have_been_charged_and_stops_nobody(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tutelage.models.http.MAX_BODY_BYTES", 2000)
    teacher = Teacher()
    big = {"model": "m", "choices": [{"message": {"content": "x" * 5000}, "finish_reason": "stop"}]}
    teacher.fault = lambda number, request: web.json_response(big) if number == 3 else None
    with serving(teacher), Store(tmp_path) as store:
        asking = make(teacher, store)
        run(asking, plain(60))
        assert (asking.answered, len(asking.refusals)) == (59, 1)
        assert store.spent().unresolved_tokens > 0


def test_a_choice_that_failed_behind_a_200_is_asked_again(tmp_path: Path) -> None:
    teacher = Teacher()
    failed = {"index": 0, "message": {"content": ""}, "finish_reason": "error"}
    teacher.fault = lambda number, request: (
        web.json_response({"model": "m", "choices": [failed]}) if number == 2 else None
    )
    with serving(teacher), Store(tmp_path) as store:
        run(make(teacher, store), plain(4))
        assert teacher.asked == 5
        assert {store.get(request.digest).answer for request in plain(4)} == {"sport"}


def test_no_netrc_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login bob password hunter2secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("tutelage.hosts.is_loopback", lambda host: False)
    monkeypatch.setenv("no_proxy", "*")
    with serving(Teacher()) as teacher, Store(tmp_path / "store") as store:
        run(make(teacher, store), plain(2))
        assert all("Authorization" not in headers for headers in teacher.headers)


def test_questions_that_the_endpoint_finds_too_long_say_nothing_of_the_others(tmp_path: Path) -> None:
    """Four of them first in the file, and no limit known beforehand."""
    teacher = Teacher()
    said = "This model's maximum context length is 100 tokens"
    teacher.fault = lambda number, request: problem(400, {}, said) if number <= 4 else None
    with serving(teacher), Store(tmp_path) as store:
        asking = make(teacher, store)
        with pytest.raises(PartialError, match="4 of 30"):
            run(asking, plain(30))
        assert (asking.answered, len(asking.refusals)) == (26, 4)


def test_a_server_that_answers_nonsense_is_not_said_to_be_silent(tmp_path: Path) -> None:
    teacher = Teacher()
    teacher.fault = lambda number, request: web.Response(text="<html>hello</html>")
    with (
        serving(teacher),
        Store(tmp_path) as store,
        pytest.raises(TeacherError, match="answers nothing that can be used"),
    ):
        run(make(teacher, store), plain(5))


class Noted(Quiet):
    """Keeps what the progress line shows beside the count."""

    def __init__(self) -> None:
        self.notes: list[str | None] = []

    def advance(self, done: int, *, tokens: int = 0, usd: float = 0.0, note: str | None = None) -> None:
        self.notes.append(note)


def test_what_is_tried_again_is_told_and_why(tmp_path: Path) -> None:
    teacher, progress = Teacher(), Noted()
    teacher.fault = lambda number, request: problem(500) if number in (2, 3) else None
    with serving(teacher), Store(tmp_path) as store:
        run(make(teacher, store, progress=progress), plain(3), concurrency=2)
    assert progress.notes[0] == ""
    assert {"1 tried again: HTTP 500", "2 tried again: HTTP 500"} <= set(progress.notes)
    assert progress.notes[-1] == "", "nothing is left to be tried again"


def test_a_timeout_is_told_by_its_length(tmp_path: Path) -> None:
    teacher, progress = Teacher(), Noted()

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(1.0)
        return problem(500)

    teacher.fault = lambda number, request: slow(request) if number == 2 else None
    with serving(teacher), Store(tmp_path) as store:
        endpoint = Endpoint(teacher.base_url, "loopback", "test", "word-counter", "MIT", timeout_s=0.3)
        run(make(teacher, store, progress=progress, model=open_model(endpoint, 4)), plain(2))
    assert "1 tried again: no answer within 0.3 s" in progress.notes


def test_a_note_stands_until_another_or_none(capsys: Any) -> None:
    lines = Lines(live=True)
    lines.begin("asking", 9)
    shown = []
    for note in ("2 tried again: HTTP 500", None, ""):
        lines._shown_at = 0.0
        lines.advance(1, note=note)
        shown.append("tried again" in capsys.readouterr().err)
    assert shown == [True, True, False]
