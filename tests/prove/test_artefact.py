"""What is served against its checkpoint: answers that differ, agreement, and the difference in quality, counted by hand."""

from dataclasses import replace

import pytest

from tests.prove.test_measure import N, claim, proof
from tutelage.errors import DataError
from tutelage.prove.artefact import against_checkpoint
from tutelage.prove.measure import claim_rows, controls, score_all
from tutelage.prove.tasks.base import Answer
from tutelage.report.proof import artefact
from tutelage.stats.exact import clopper_pearson, paired_difference
from tutelage.stats.paired import PairedTable


def test_the_figures_are_those_of_the_items() -> None:
    made = proof(set(range(90)), set(range(100)), checkpoint=set(range(4, 96)))
    found = against_checkpoint(made, score_all(made))
    assert found is not None
    assert (found["n"], found["answers_differ"]) == (N, 10)
    assert found["differ_high"] == clopper_pearson(10, N, 0.95).high
    assert found["agreement"] == pytest.approx((N - 10) / N)
    assert found["difference"] == pytest.approx(-2 / N) and found["difference_n"] == N
    own = paired_difference(PairedTable(86, 4, 6, N - 96), 0.95)
    assert (found["difference_low"], found["difference_high"], found["method"]) == (own.low, own.high, own.method)


def test_other_words_that_the_task_reads_alike_are_other_answers() -> None:
    made = proof(set(range(90)), set(range(100)), checkpoint=set(range(90)))
    student = made.systems["student"]
    answers = tuple(Answer(f"well, {answer.text}") for answer in student.answers[:7] if answer) + student.answers[7:]
    made = replace(made, systems={**made.systems, "student": replace(student, answers=answers)})
    found = against_checkpoint(made, score_all(made))
    assert found is not None
    assert (found["answers_differ"], found["agreement"], found["difference"]) == (7, 1.0, 0.0)


def test_a_refusal_differs_and_without_gold_there_is_no_difference_in_quality() -> None:
    made = proof(set(range(90)), set(range(100)), gold=(None,) * N, checkpoint=set(range(90)))
    student = made.systems["student"]
    made = replace(made, systems={**made.systems, "student": replace(student, answers=(None, *student.answers[1:]))})
    found = against_checkpoint(made, score_all(made))
    assert found is not None
    assert (found["n"], found["answers_differ"], found["difference"], found["difference_n"]) == (N, 1, None, 0)
    none = {name: replace(one, answers=(None,) * N) for name, one in made.systems.items() if name != "teacher"}
    made = replace(made, systems=made.systems | none)
    with pytest.raises(DataError, match="no item was answered"):
        against_checkpoint(made, score_all(made))


@pytest.mark.parametrize("temperature", [0.7, None])
def test_of_drawn_answers_the_difference_alone_is_told(temperature: float | None) -> None:
    made = proof(set(range(90)), set(range(100)), checkpoint=set(range(4, 96)))
    found = against_checkpoint(made, score_all(made), temperature)
    assert found is not None and (found["n"], found["temperature"]) == (N, temperature)
    assert (found["answers_differ"], found["differ_high"], found["agreement"]) == (None, None, None)
    assert found["difference"] == pytest.approx(-2 / N)
    said = artefact({**found, "prompts_differ": 0}, 0.95)
    assert said.startswith("answers were drawn at") and "other words say nothing" in said and "points" in said


def test_without_it_the_verdict_names_it() -> None:
    made = proof(set(range(90)), set(range(100)))
    scores = score_all(made)
    assert against_checkpoint(made, scores) is None
    missing = [row["words"] for row in controls(made, scores) if not row["there"]]
    (row,) = claim_rows(made, scores, [claim()], missing)
    assert "the training checkpoint beside the served student" in row["missing_controls"]
