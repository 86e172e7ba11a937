"""From scores to evidence, without a network: rows, ceiling, gap, controls, claims."""

import numpy as np
import pytest

from tutelage.errors import DataError
from tutelage.proof_config import ProofClaimTable
from tutelage.prove.answers import Answered, as_references, scored
from tutelage.prove.measure import Proof, ceiling, claim_rows, controls, disagreements, gap, score_all, system_row
from tutelage.prove.tasks.base import Answer, Score
from tutelage.prove.tasks.catalogue import task_of

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
    from dataclasses import replace

    return replace(one, answers=tuple(answers))


def test_gap_and_controls_are_there_or_named() -> None:
    made = proof(set(range(80)), set(range(100)), before=set(range(20)), again=N)
    scores = score_all(made)
    found = gap(made, scores)
    assert found is not None and found["recovered"] == pytest.approx(60 / 80)
    assert found["low"] < 0.75 < found["high"]
    there = {row["name"]: row["there"] for row in controls(made, scores)}
    assert there == {
        "before": True, "plain": False, "checkpoint": False, "again": True, "gap": True, "again-500": False
    }  # fmt: skip
    assert ceiling(made, scores) == {"agreement": 1.0, "low": pytest.approx(0.9697, abs=1e-3), "high": 1.0, "n": N}
    alone = proof(set(range(80)), set(range(100)))
    assert gap(alone, score_all(alone)) is None and ceiling(alone, score_all(alone)) is None


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


def test_partial_gold_counts_only_its_items_and_ppi_covers_all() -> None:
    gold = tuple(str(at) if at % 2 else None for at in range(N))
    made = proof(set(range(N)) - {1, 3, 5, 7, 9}, set(range(N)) - {11, 13}, gold=gold)
    scores = score_all(made)
    assert system_row(made, scores, "student")["n"] == N // 2
    (row,) = claim_rows(made, scores, [claim()], [])
    assert row["method"].startswith("PPI++") and row["n"] == N // 2


def test_bad_gold_names_its_item_and_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="gold of item 2"):
        score_all(proof({0}, {0}, gold=("1", "many", *GOLD[2:])))
    with pytest.raises(DataError, match="one class only"):
        score_all(proof({0}, {0}, gold=("5",) * N))


def test_a_task_that_scores_nonsense_is_named() -> None:
    class Odd:
        name, is_binary, metric = "odd", False, "oddness"

        def require_reference(self, reference: str) -> None: ...

        def score(self, answer: Answer, reference: str) -> Score:
            return Score(float("nan"), True, "")

    with pytest.raises(DataError, match="task odd: item 0 scores nan"):
        scored(Odd(), [Answer("a")], ["b"])
    with pytest.raises(DataError, match="1 answers for 2 items"):
        scored(Odd(), [Answer("a")], ["b", "c"])


def test_references_of_tool_calls_are_calls() -> None:
    task = task_of("tool_calls", {})
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    (reference,) = as_references(task, [Answer("", (call,))])
    assert reference is not None
    assert task.score(Answer("", (call,)), reference).value == 1.0
    assert np.isclose(task.score(Answer("", ()), reference).value, 0.0)
