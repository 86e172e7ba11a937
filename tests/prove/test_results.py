"""From answers to evidence: signs, pairs, controls, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from tests.test_config import GOOD
from tutelage.config import RunConfig, TaskTable
from tutelage.errors import ConfigError, DataError
from tutelage.prove.claims import declare, power
from tutelage.prove.controls import majority
from tutelage.prove.observe import Answers, fix_offsets
from tutelage.prove.results import describe, disagreements, judge, recalibration, system
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
    assert found["ci_low"] < -0.025 < found["ci_high"] < 0.01
    assert found["gap_recovered"] == pytest.approx((0.825 - 0.5) / 0.35)
    assert found["gap_low"] < found["gap_recovered"] < found["gap_high"] <= 1
    assert found["verdict"] == "EQUIVALENT", "the whole interval lies within 5 points"
    assert found["method"] == "exact, simultaneous limits", "10 discordant items are too few for a score interval"
    assert found["mcnemar_p"] == pytest.approx(2 * 0.5**10)


@pytest.mark.parametrize(
    ("errors", "margin", "verdict"),
    [
        (70, 0.02, "INCONCLUSIVE"),
        (160, 0.05, "INFERIOR"),
        (60, 0.02, "EQUIVALENT"),
        (0, 0.05, "NON-INFERIOR"),  # 15 points better: no loss, and not alike
    ],
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
    unread = [replace(one, decided_N=np.where(np.arange(400) >= 380, -1, one.decided_N)) for one in (student, teacher)]
    assert describe(*unread, gold, 0.95)["agreement"] == pytest.approx(1 - 30 / 400), "no label twice is no agreement"
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


def test_the_interval_follows_the_number_of_discordant_items() -> None:
    for wrong, method in (((60, 79, 200), "exact, simultaneous limits"), ((60, 80, 200), "Tango score")):
        teacher, student, before, gold = three(wrong=wrong)
        found = judge(teacher, student, before, gold, 0.1, 0.95, np.random.default_rng(1))
        row = describe(student, teacher, gold, 0.95)
        assert found["method"] == row["difference_method"] == method
        assert (row["difference_low"], row["difference_high"]) == (found["ci_low"], found["ci_high"])
        assert row["mcnemar_p"] == found["mcnemar_p"] < 0.001


@pytest.mark.parametrize("margin", [-0.05, 0.0, 1.0, 3.0, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    teacher, student, before, gold = three()
    with pytest.raises(ConfigError, match="margin"):
        judge(teacher, student, before, gold, margin, 0.95, np.random.default_rng(1))


def test_a_claim_on_unequal_item_sets_is_refused() -> None:
    teacher, student, before, gold = three()
    shorter = replace(before, decided_N=before.decided_N[:-1])
    with pytest.raises(DataError, match="before answered 399 of 400"):
        judge(teacher, student, shorter, gold, 0.05, 0.95, np.random.default_rng(1))
    assert student.logp_NL is not None
    with pytest.raises(DataError, match="student answered"):
        describe(replace(student, logp_NL=student.logp_NL[:-1]), teacher, gold, 0.95)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers_are_refused(bad: float) -> None:
    teacher, student, _, gold = three()
    assert student.logp_NL is not None
    scores = student.logp_NL.copy()
    scores[3, 1] = bad
    with pytest.raises(DataError, match=r"label score .* at \(3, 1\)"):
        describe(replace(student, logp_NL=scores), teacher, gold, 0.95)
    said = Answers(scores, np.ones(len(gold), bool), gold, 1.0, ())
    with pytest.raises(DataError, match="label score"):
        system("student", "s", said, ZERO, None)


def overconfident(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores three times too far apart, and labels drawn from what they should have been."""
    logits = rng.normal(0.0, 1.5, n)
    label = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    return np.stack([np.zeros(n), 3.0 * logits], axis=1), label


def test_one_temperature_from_the_teachers_labels_mends_confidence() -> None:
    rng = np.random.default_rng(5)
    fitted_on, labels = overconfident(2000, rng)
    found = recalibration(fitted_on, labels)
    assert found.temperature == pytest.approx(3.0, rel=0.15)
    scores, gold = overconfident(4000, rng)
    said = Answers(scores, np.ones(len(gold), bool), gold, 1.0, ())
    one = system("student", "s", said, ZERO, None, recalibration=found)
    row = describe(one, system("teacher", "t", said, ZERO, None), gold, 0.95)
    assert row["ece"] > 0.1
    assert row["ece_recalibrated"] < 0.03
    assert row["temperature"] == found.temperature
    assert row["recalibration"] == ""


def test_where_no_temperature_can_be_fitted_the_row_says_why() -> None:
    perfect = recalibration(answers(np.array([0, 1, 0])), np.array([0, 1, 0]))
    assert perfect.temperature is None
    assert "all 3 labels" in perfect.why_not
    teacher, student, _, gold = three()
    row = describe(replace(student, recalibration=perfect), teacher, gold, 0.95)
    assert row["ece_recalibrated"] is row["temperature"] is None
    assert row["recalibration"] == perfect.why_not
    assert describe(teacher, teacher, gold, 0.95)["recalibration"] == "it was not asked the validation questions"


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
