"""From scores to evidence, without a network: rows, ceiling, gap, controls, claims."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tutelage.errors import DataError
from tutelage.proof_config import ProofClaimTable
from tutelage.prove.answers import Answered, as_references, scored
from tutelage.prove.measure import Proof, ceiling, claim_rows, controls, disagreements, gap, score_all, system_row
from tutelage.prove.tasks.base import Answer, Score
from tutelage.prove.tasks.catalogue import task_of
from tutelage.stats.exact import paired_difference
from tutelage.stats.paired import PairedTable

N = 120
GOLD = tuple(str(at) for at in range(N))


def said(right: set[int], role: str = "x") -> Answered:
    answers = tuple(Answer(f"it is {at if at in right else at + 1000}") for at in range(N))
    return Answered(role, role, answers, 9.0, 5.0, 1000.0, 0.5, None, 1.0)


def proof(
    student: set[int], teacher: set[int], *, gold: tuple[str | None, ...] = GOLD, again: int = 0, **more: set[int]
) -> Proof:
    systems = {
        "teacher": said(teacher),
        "student": said(student),
        **{name: said(right) for name, right in more.items()},
    }
    second = {at: systems["teacher"].answers[at] for at in range(again)}
    return Proof(task_of("number", {}), gold, None, systems, second, 0.95, 0)


def claim(**keys: object) -> ProofClaimTable:
    return ProofClaimTable.model_validate({"margin": 0.1, **keys})


def test_every_system_has_its_score_difference_and_agreement() -> None:
    made = proof(set(range(90)), set(range(100)))
    scores = score_all(made)
    student, teacher = (system_row(made, scores, name) for name in ("student", "teacher"))
    assert (student["score"], teacher["score"]) == (90 / N, 100 / N)
    assert student["difference"] == pytest.approx(-10 / N)
    assert student["difference_low"] < -10 / N < student["difference_high"]
    assert student["agreement"] == (N - 10) / N and teacher["agreement"] is None
    assert student["usd_per_1000"] == pytest.approx(0.001)


def test_unread_answers_are_wrong_and_counted() -> None:
    made = proof(set(range(N)), set(range(N)))
    answers = list(made.systems["student"].answers)
    answers[0], answers[1] = Answer("no idea"), None
    made = Proof(
        made.task, made.gold_N, None, {**made.systems, "student": _with(made.systems["student"], answers)}, {}, 0.95, 0
    )
    row = system_row(made, score_all(made), "student")
    assert (row["score"], row["unread"], row["refused"]) == ((N - 2) / N, 2, 1)


def _with(one: Answered, answers: list[Answer | None]) -> Answered:
    return replace(one, answers=tuple(answers))


def test_gap_and_controls_are_there_or_named() -> None:
    made = proof(set(range(80)), set(range(100)), before=set(range(20)), again=N)
    scores = score_all(made)
    found = gap(made, scores)
    assert found is not None and found["recovered"] == pytest.approx(60 / 80)
    assert found["low"] < 0.75 < found["high"]
    there = {row["name"]: row["there"] for row in controls(made, scores)}
    assert there == {
        "before": True, "plain": False, "checkpoint": False, "again": True, "gap": True, "again-500": False, "unseen": False
    }  # fmt: skip
    assert ceiling(made, scores) == {"agreement": 1.0, "low": pytest.approx(0.9697, abs=1e-3), "high": 1.0, "n": N}
    alone = proof(set(range(80)), set(range(100)))
    assert gap(alone, score_all(alone)) is None and ceiling(alone, score_all(alone)) is None


def in_sessions(made: Proof, size: int) -> Proof:
    return replace(made, session_N=np.array([f"s{at // size}" for at in range(N)]))


def test_the_gap_of_items_in_sessions_is_resampled_by_session() -> None:
    right = {at for at in range(N) if at // 10 % 3}  # whole sessions of ten
    made = proof(right, set(range(N - 5)), before=set(range(0, N, 10)))
    alone, single, together = (gap(one, score_all(one)) for one in (made, in_sessions(made, 1), in_sessions(made, 10)))
    assert alone is not None and single is not None and together is not None
    assert alone["recovered"] == single["recovered"] == together["recovered"]
    assert single["low"] == pytest.approx(alone["low"], abs=0.01), "a session an item is no session"
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])
    assert "sessions" in together["method"] and "sessions" not in alone["method"]
    few = in_sessions(made, 15)
    assert (gap(few, score_all(few)) or {})["method"].startswith("undefined: 8 sessions are too few to resample")


def test_several_claims_are_held_together_and_fall_back() -> None:
    made = proof(set(range(103)), set(range(100)), again=N)
    scores = score_all(made)
    against_gold = claim(margin=0.085)
    (alone,) = claim_rows(made, scores, [against_gold], [])
    assert alone["verdict"] == "EQUIVALENT" and alone["p_adjusted"] is None
    first, second = claim_rows(made, scores, [against_gold, claim(comparison="teacher", margin=0.02)], [])
    assert second["verdict"] == "INCONCLUSIVE"
    assert first["verdict"] == "NON-INFERIOR" and first["p_adjusted"] < 0.05
    assert first["why"].startswith("EQUIVALENT alone, but NON-INFERIOR beside the other claims")


def test_a_gap_without_meaning_says_why() -> None:
    made = proof(set(range(80)), set(range(40)), before=set(range(40)))
    found = gap(made, score_all(made))
    assert found is not None and found["recovered"] is None and "undefined" in found["method"]


@pytest.mark.parametrize(
    ("right", "verdict"),
    [(range(120), "NON-INFERIOR"), (range(98), "EQUIVALENT"), (range(50), "INFERIOR"), (range(92), "INCONCLUSIVE")]
)  # fmt: skip
def test_the_four_verdicts(right: range, verdict: str) -> None:
    made = proof(set(right), set(range(100)))
    (row,) = claim_rows(made, score_all(made), [claim()], [])
    assert row["verdict"] == verdict


def test_the_worst_and_the_best_are_shown() -> None:
    made = proof(set(range(5, N)), set(range(N - 3)))
    rows = disagreements(made, score_all(made), [f"q{at}" for at in range(N)])
    assert [row["item"] for row in rows] == [1, 2, 3, 4, 5, 120, 119, 118]
    assert [row["student_score"] for row in rows] == [0.0] * 5 + [1.0] * 3


def test_without_gold_disagreements_are_those_with_the_teacher() -> None:
    made = proof(set(range(N)), set(range(N - 2)), gold=(None,) * N)
    assert [row["item"] for row in disagreements(made, score_all(made), [""] * N)] == [N - 1, N]


def test_a_second_answer_that_differs_lowers_the_ceiling_and_is_the_measure() -> None:
    made = proof(set(range(90)), set(range(100)), again=N)
    for at in range(12):
        made.again[at] = Answer("it is 7777")  # type: ignore[index]
    scores = score_all(made)
    assert ceiling(made, scores)["agreement"] == 0.9  # type: ignore[index]
    (row,) = claim_rows(made, scores, [claim(comparison="teacher")], [])
    assert row["teacher"] == 0.9 and row["student"] == pytest.approx(110 / 120)
    assert row["difference"] == pytest.approx(110 / 120 - 0.9)


def partly(only_student: int, only_teacher: int, n: int) -> Proof:
    """Gold on every second item; of these, so many on which just one of the two is right."""
    with_gold = range(1, n, 2)
    gold = tuple(str(at) if at % 2 else None for at in range(n))
    one, two = set(with_gold[:only_student]), set(with_gold[only_student : only_student + only_teacher])

    def all_said(role: str, wrong: set[int]) -> Answered:
        answers = tuple(Answer(f"it is {at + 1000 if at in wrong else at}") for at in range(n))
        return Answered(role, role, answers, 9.0, 5.0, 1000.0, 0.5, None, 1.0)

    systems = {"teacher": all_said("teacher", one), "student": all_said("student", two)}
    return Proof(task_of("number", {}), gold, None, systems, {}, 0.95, 0)


@pytest.mark.parametrize(("only_student", "only_teacher"), [(20, 25), (60, 19), (0, 0), (0, 30), (5, 2), (1, 199)])
def test_partial_gold_counts_only_its_items(only_student: int, only_teacher: int) -> None:
    """Agreement on the others says how often the two differ and not who is right: it is not let in, and nothing is refused."""
    made = partly(only_student, only_teacher, 400)
    scores = score_all(made)
    assert system_row(made, scores, "student")["n"] == 200
    (row,) = claim_rows(made, scores, [claim()], [])
    alone = paired_difference(PairedTable(200 - only_student - only_teacher, only_student, only_teacher, 0))
    assert (row["ci_low"], row["ci_high"], row["method"], row["n"]) == (alone.low, alone.high, alone.method, 200)
    assert row["difference"] == pytest.approx((only_student - only_teacher) / 200)


def test_bad_gold_names_its_item() -> None:
    with pytest.raises(DataError, match="gold of item 2"):
        score_all(proof({0}, {0}, gold=("1", "many", *GOLD[2:])))


def test_a_task_that_scores_nonsense_is_named() -> None:
    class Odd:
        name, metric = "odd", "oddness"

        def __init__(self, value: Any, is_binary: bool = False) -> None:
            self.value, self.is_binary = value, is_binary

        def require_reference(self, reference: str) -> None: ...

        def score(self, answer: Answer, reference: str) -> Score:
            return Score(1 / self.value if self.value == 0 else self.value, True, "")

    with pytest.raises(DataError, match="task odd: item 1 scores nan"):
        scored(Odd(float("nan")), [Answer("a")], ["b"])
    assert scored(Odd(0.5), [Answer("a")], ["b"]).scores[0].value == 0.5
    for value, words in (
        (0.5, "every score is 0 or 1"),
        ("much", "TypeError"),
        (0, "ZeroDivisionError: division by zero"),
    ):
        with pytest.raises(DataError, match=words):
            scored(Odd(value, is_binary=True), [Answer("a")], ["b"])
    with pytest.raises(DataError, match="1 answers for 2 items"):
        scored(Odd(0.5), [Answer("a")], ["b", "c"])


def test_references_of_tool_calls_are_calls() -> None:
    task = task_of("tool_calls", {})
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    (reference,) = as_references(task, [Answer("", (call,))])
    assert reference is not None
    assert task.score(Answer("", (call,)), reference).value == 1.0
    assert np.isclose(task.score(Answer("", ()), reference).value, 0.0)


def test_a_number_of_any_size_in_a_call_is_a_reference() -> None:
    task = task_of("tool_calls", {})
    text = '{"name": "f", "arguments": {"x": 1' + "0" * 320 + '.5, "y": [0.1000000000000000000001, 1e-300, -7]}}'
    (reference,) = as_references(task, [Answer(text)])
    assert reference is not None
    assert task.score(Answer(text), reference).value == 1.0
    assert task.score(Answer(text.replace("0001,", "0002,")), reference).value == 0.0


def test_a_plug_in_that_cannot_make_a_reference_is_named() -> None:
    class Odd:
        name, is_binary, metric = "odd", False, "oddness"

        def require_reference(self, reference: str) -> None:
            raise KeyError(reference)

        def score(self, answer: Answer, reference: str) -> Score:
            return Score(1.0, True, "")

    with pytest.raises(DataError, match="task odd: item 2: KeyError"):
        as_references(Odd(), [None, Answer("a")])


def test_gold_that_the_teacher_refused_altogether_gives_no_verdict() -> None:
    made = proof(set(range(90)), set(range(100)), gold=(None,) * 100 + GOLD[100:])
    answers = list(made.systems["teacher"].answers)
    answers[100:] = [None] * 20
    made = replace(made, systems={**made.systems, "teacher": _with(made.systems["teacher"], answers)})
    (row,) = claim_rows(made, score_all(made), [claim()], [])
    assert (row["verdict"], row["student"], row["teacher"], row["left_out"]) == ("INCONCLUSIVE", None, None, 20)
    assert "refused every item with gold" in row["why"]


def test_gold_within_one_session_bounds_nothing() -> None:
    gold = GOLD[:3] + (None,) * (N - 3)
    made = in_sessions(proof(set(range(90)), set(range(100)), gold=gold, again=1), 10)
    scores = score_all(made)
    row = system_row(made, scores, "student")
    assert (row["score"], row["ci_low"], row["ci_high"]) == (1.0, 0.0, 1.0)
    assert (row["difference_low"], row["difference_high"]) == (-1.0, 1.0)
    (found,) = claim_rows(made, scores, [claim(margin=0.5)], [])
    assert found["verdict"] == "INCONCLUSIVE" and "one session" in found["method"]
    limits = ceiling(made, scores)
    assert limits is not None and (limits["low"], limits["high"], limits["n"]) == (0.0, 1.0, 1)
