"""Batches whose ids, answers or askers were lost: found again, read again, and never paid for twice."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.loopback_batches import (
    ERROR,
    GARBAGE,
    OK,
    Desk,
    serving_batches,
)  # fmt: skip
from tests.models.batches import (
    ANSWER_NUSD,
    ANSWER_TOKENS,
    APIS,
    PRICES,
    batch_key,  # noqa: F401  # for every test here
    body_for,
    check_money,
    make,
    questions,
    run,
    told,
)
from tutelage.errors import Interrupted, PartialError
from tutelage.models.batch import Pace
from tutelage.models.exchange import bound_of
from tutelage.models.prices import PriceList
from tutelage.store.store import Store


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


def test_a_job_taken_up_again_at_dearer_prices_is_held_at_what_was_set_aside(tmp_path: Path) -> None:
    """What it was counted with is taken back, no more: what else was spent stays spent."""
    dearer = PriceList(9 * 10**9, 18 * 10**9, "test", "2026-02-01", tier="batch")
    with serving_batches(Desk(polls_needed=4)) as desk, Store(tmp_path) as store:
        first = make(desk, store, "openai")
        desk.hook = lambda event: first.stop.set() if event == "poll" else None
        with pytest.raises(Interrupted):
            run(first, questions(4))
        aside, elsewhere = store.spent().unresolved_nusd, 10**9
        again = make(desk, store, "openai", prices=dearer)
        again.budget.spent_nusd += elsewhere
        desk.hook = lambda event: again.stop.set() if event == "poll" else None
        with pytest.raises(Interrupted):
            run(again, questions(4))
        assert (again.budget.spent_nusd, again.budget.reserved_nusd) == (elsewhere, aside)
