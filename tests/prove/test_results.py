"""From answers to evidence: signs, pairs, controls, and what is refused."""

import numpy as np
import pytest

from tests.test_config import GOOD
from tutelage.config import RunConfig, TaskTable
from tutelage.errors import DataError
from tutelage.prove.claims import declare, power
from tutelage.prove.controls import majority
from tutelage.prove.observe import Answers, fix_offsets
from tutelage.prove.results import describe, disagreements, judge, system
from tutelage.records import HeldOutPrompt
from tutelage.run_file import validate

ZERO = np.zeros(2)


def answers(decided: np.ndarray) -> np.ndarray:
    logp = np.log(np.full((len(decided), 2), 0.2))
    logp[np.arange(len(decided)), decided] = np.log(0.8)
    return logp


def three(n: int = 400, wrong: tuple[int, int, int] = (60, 70, 200)) -> tuple:
    gold = np.arange(n) % 2
    made = []
    for role, errors in zip(("teacher", "student", "before"), wrong, strict=True):
        decided = gold.copy()
        decided[:errors] = 1 - decided[:errors]
        said = Answers(answers(decided), np.ones(n, bool), decided, 1.0, ())
        made.append(system(role, role, said, ZERO, 0.1))
    return (*made, gold)


def test_the_difference_is_student_minus_teacher() -> None:
    teacher, student, before, gold = three()
    found = judge(teacher, student, before, gold, 0.05, 0.95, np.random.default_rng(1))
    assert found["teacher"] == pytest.approx(0.85)
    assert found["difference"] == pytest.approx(-0.025)
    assert found["ci_low"] < -0.025 < found["ci_high"] < 0
    assert found["gap_recovered"] == pytest.approx((0.825 - 0.5) / 0.35)
    assert found["gap_low"] < found["gap_recovered"] < found["gap_high"] <= 1
    assert found["verdict"] == "NON-INFERIOR"


@pytest.mark.parametrize(
    ("errors", "margin", "verdict"), [(70, 0.02, "INCONCLUSIVE"), (160, 0.05, "INFERIOR"), (60, 0.02, "NON-INFERIOR")]
)
def test_verdicts(errors: int, margin: float, verdict: str) -> None:
    teacher, student, before, gold = three(wrong=(60, errors, 200))
    assert judge(teacher, student, before, gold, margin, 0.95, np.random.default_rng(1))["verdict"] == verdict


def test_a_teacher_no_better_than_the_pruned_model_has_no_gap() -> None:
    teacher, student, before, gold = three(wrong=(200, 180, 200))
    found = judge(teacher, student, before, gold, 0.05, 0.95, np.random.default_rng(1))
    assert found["gap_recovered"] is None
    assert "undefined" in found["gap_method"]


def test_every_system_is_described_with_intervals() -> None:
    teacher, student, _, gold = three()
    row = describe(student, teacher, gold, 0.95)
    assert row["ci_low"] < row["accuracy"] < row["ci_high"]
    assert row["agreement"] == pytest.approx(1 - 10 / 400)
    assert row["kl_nats"] > 0
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert describe(teacher, teacher, gold, 0.95)["difference"] is None
    constant = majority(np.array([0, 0, 1]), 2, len(gold))
    assert describe(constant, teacher, gold, 0.95)["accuracy"] == 0.5


def test_an_answer_nobody_can_read_is_wrong_not_the_first_label() -> None:
    logp = np.array([[-23.0, -23.0], [-0.1, -3.0]])
    said = Answers(logp, np.array([False, True]), np.array([-1, 0]), 1.0, ())
    assert system("teacher", "t", said, ZERO, None).decided_N.tolist() == [-1, 0]
    assert system("before", "b", said, ZERO, None, unread_is_wrong=False).decided_N.tolist() == [0, 0]


def test_unequal_item_sets_are_refused() -> None:
    teacher, student, _, gold = three()
    with pytest.raises(DataError, match="400 of 399"):
        describe(student, teacher, gold[:-1], 0.95)
    with pytest.raises(DataError):
        describe(student, teacher, gold[:0], 0.95)


def test_disagreements_show_the_student_at_its_surest() -> None:
    teacher, student, _, gold = three()
    prompts = [HeldOutPrompt(f"p{at}", f"text {at}", "g", "s", "d", "own") for at in range(len(gold))]
    shown = disagreements(prompts, ["no", "yes"], gold, teacher, student)
    assert [row["prompt_id"] for row in shown] == [f"p{at}" for at in range(60, 70)]
    assert all(row["student"] != row["gold"] == row["teacher"] for row in shown)


def test_offsets_come_from_training_items_or_are_zero() -> None:
    balanced = TaskTable(labels=("no", "yes"), instruction="?", decision="balanced")
    logp = np.log([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    decided = np.argmax(logp + fix_offsets(balanced, logp), axis=1)
    assert decided.tolist() == [0, 0, 1, 1]
    assert fix_offsets(TaskTable(labels=("no", "yes"), instruction="?"), logp).tolist() == [0, 0]
    assert fix_offsets(balanced, np.full((5, 2), -23.0)).tolist() == [0, 0], "a model that says nothing"


def test_a_claim_is_declared_in_whole_numbers() -> None:
    config = validate(RunConfig, GOOD, "here")
    claim = declare(config, "2026-11-23")
    assert (claim.margin_ppm, claim.level_ppm, claim.planned_n) == (50_000, 950_000, 5)
    assert claim.digest == declare(config, "2026-11-23").digest
    assert 0 < power(config) < 1
