"""Verdicts of judges that may be believed: their errors, counted; sessions; gold; several judges."""

import json

import numpy as np
import pytest

from tests.prove.judges.made import NO_GOLD, bad, good, made_items, noisy
from tutelage.errors import ConfigError, DataError
from tutelage.prove.judges.calls import Call, Items, JudgeCalls, majority
from tutelage.prove.judges.evidence import claim_of, judge_evidence, panel_evidence
from tutelage.prove.judges.family import Kin, families_of, self_preference
from tutelage.prove.judges.panel import outcomes, tally
from tutelage.stats.exact import paired_difference
from tutelage.stats.paired import PairedTable

MARGIN, LEVEL = 0.1, 0.95


def most_wrong(trials: int, rate: float = 0.025) -> float:
    """The rate and three standard errors of it: what so many trials may show of a test that keeps its level."""
    return rate + 3 * (rate * (1 - rate) / trials) ** 0.5


def decisions(trials: int, n: int, win_rate: float, right: float, seed: int = 0, **made: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for trial in range(trials):
        rng = np.random.default_rng([seed, trial])
        items, better = made_items(rng, n, win_rate=win_rate, **made)
        words = judge_evidence(items, good(rng, better, right), MARGIN, LEVEL)["verdict"]
        found[words] = found.get(words, 0) + 1 / trials
    return found


@pytest.mark.parametrize("right", [0.9, 0.98])
def test_a_good_judge_at_the_border_errs_no_more_than_it_may(right: float) -> None:
    """The student truly wins 40 %: at a margin of ten points NON-INFERIOR is wrong."""
    found = decisions(300, 400, 0.4, right)
    assert found.get("NON-INFERIOR", 0) + found.get("EQUIVALENT", 0) <= most_wrong(300)


def test_a_good_judge_at_the_other_border_does_not_call_a_fair_student_inferior() -> None:
    assert decisions(200, 400, 0.4, 0.9, seed=1).get("INFERIOR", 0) <= most_wrong(200)


def test_a_good_judge_gives_verdicts() -> None:
    as_good, worse = decisions(100, 400, 0.5, 0.9), decisions(100, 400, 0.28, 0.95)
    assert as_good.get("NON-INFERIOR", 0) + as_good.get("EQUIVALENT", 0) > 0.5
    assert as_good.get("INFERIOR", 0) == 0
    assert worse["INFERIOR"] > 0.9


def test_without_allowing_for_the_judges_noise_the_error_would_be_large() -> None:
    """Why the limits are divided: the plain interval calls a student that is worse by the margin as good, far too often."""
    wrong, still_wrong, trials = 0, 0, 200
    for trial in range(trials):
        rng = np.random.default_rng([2, trial])
        items, better = made_items(rng, 2_000, win_rate=0.4)
        judge = good(rng, better, 0.85)
        counts = tally(items, judge)
        plain = paired_difference(PairedTable(counts.inconsistent, counts.student, counts.teacher, 0), LEVEL)
        wrong += plain.low / 2 > -MARGIN
        found = judge_evidence(items, judge, MARGIN, LEVEL)
        assert found["ci_low"] is not None
        still_wrong += found["verdict"] in ("NON-INFERIOR", "EQUIVALENT")
    assert wrong / trials > 0.5
    assert still_wrong / trials <= most_wrong(trials)


@pytest.mark.parametrize("gold", [100, 300])
def test_gold_on_some_items_keeps_the_level_though_the_judge_leans_to_the_student(gold: int) -> None:
    """Half of the judge's errors are shared by both orders and favour the student: only gold can mend that."""
    trials, wrong, believed = 150, 0, 0
    for trial in range(trials):
        rng = np.random.default_rng([3, trial])
        items, better = made_items(rng, 1_000, win_rate=0.4, gold=gold)
        leaning = np.where(rng.random(1_000) < 0.12, 1, better).astype(np.int8)
        found = judge_evidence(items, good(rng, leaning, 0.95), MARGIN, LEVEL)
        believed += found["ci_low"] is not None
        wrong += found["verdict"] in ("NON-INFERIOR", "EQUIVALENT")
        assert found["estimand"].startswith("which answer the gold")
    assert believed / trials > 0.9
    assert wrong / trials <= most_wrong(trials) + 0.01, "PPI++'s own t interval is approximate"


def test_sessions_widen_the_interval_and_keep_the_level() -> None:
    """Twenty items a session, all of one session won by the same model: the items are worth the sessions."""
    trials, wrong = 200, 0
    for trial in range(trials):
        rng = np.random.default_rng([4, trial])
        items, _ = made_items(rng, 1_200, per_session=20)
        better = np.repeat(np.where(rng.random(60) < 0.4, 1, -1), 20).astype(np.int8)
        found = judge_evidence(items, good(rng, better, 0.97), MARGIN, LEVEL)
        wrong += found["verdict"] in ("NON-INFERIOR", "EQUIVALENT")
        if found["ci_low"] is not None:
            assert found["ci_high"] - found["ci_low"] > 0.2
            assert "60 sessions" in found["method"]
    assert wrong / trials <= most_wrong(trials) + 0.01


def test_gold_in_sessions_is_taken_alone_and_too_few_sessions_are_said() -> None:
    rng = np.random.default_rng(5)
    items, better = made_items(rng, 600, gold=200, per_session=10)
    found = judge_evidence(items, good(rng, better), MARGIN, LEVEL)
    assert "PPI" not in found["method"]
    assert "20 sessions" in found["method"]
    one = Items(items.longer_N, items.identical_N, items.gold_N, np.arange(600) // 300)
    found = judge_evidence(one, good(rng, better), MARGIN, LEVEL)
    assert found["verdict"] == "INCONCLUSIVE"
    assert "no interval" in found["reasons"][0]


def test_gold_on_all_items_needs_no_judge_calls_beside_it() -> None:
    rng = np.random.default_rng(6)
    items, better = made_items(rng, 400, gold=400)
    found = judge_evidence(items, good(rng, better), MARGIN, LEVEL)
    won = int((better == 1).sum())
    plain = paired_difference(PairedTable(0, won, 400 - won, 0), LEVEL)
    assert (found["ci_low"], found["ci_high"]) == (plain.low / 2, plain.high / 2)


def test_unreadable_items_count_against_either_side() -> None:
    """A judge that falls silent where the student loses gains nothing by it."""
    rng = np.random.default_rng(7)
    items, better = made_items(rng, 1_000, win_rate=0.4)
    whole = good(rng, better, 0.97)
    is_silent = (better == -1) & (rng.random(1_000) < 0.3)
    silent = JudgeCalls(
        "silent",
        np.where(is_silent, NO_GOLD, whole.student_first_N).astype(np.int8),
        np.where(is_silent, NO_GOLD, whole.teacher_first_N).astype(np.int8),
    )
    found = judge_evidence(items, silent, MARGIN, LEVEL)
    assert found["win_rate"] > 0.45, "as read it looks as good"
    assert found["verdict"] == "INCONCLUSIVE"
    assert found["ci_low"] < -MARGIN
    assert f"{int(is_silent.sum())} unreadable" in found["method"]
    assert outcomes(items, silent, 0.0).mean() < found["win_rate"] < outcomes(items, silent, 1.0).mean()


def test_the_win_rate_is_the_students() -> None:
    rng = np.random.default_rng(8)
    items, better = made_items(rng, 1_000, win_rate=0.7)
    found = judge_evidence(items, good(rng, better, 1.0), MARGIN, LEVEL)
    assert found["win_rate"] == pytest.approx((better == 1).mean())
    assert 0 < found["ci_low"] < found["win_rate"] - 0.5 < found["ci_high"]
    assert found["verdict"] == "NON-INFERIOR"


def test_a_panel_alone_its_majority_and_holm() -> None:
    rng = np.random.default_rng(9)
    items, better = made_items(rng, 1_000)
    judges = [
        JudgeCalls(name, noisy(rng, better, 0.9), noisy(rng, better, 0.9))
        for name in ("gpt-5-mini", "claude-sonnet-5", "qwen3-32b")
    ]
    models = {"teacher": "openai/gpt-5", "student": "my-student"}
    kin = {one.name: Kin(families_of(one.name), self_preference(one.name, models)) for one in judges}
    found = panel_evidence(items, judges, MARGIN, LEVEL, kin)
    assert found["majority"]["swap_consistency"]["share"] > 0.9, "three heads waver less than one"
    assert [one["families"] for one in found["judges"]] == [["OpenAI"], ["Claude"], ["Qwen"]]
    assert "one family (OpenAI)" in found["judges"][0]["self_preference"][0]
    assert "one family (OpenAI)" in " ".join(found["majority"]["self_preference"])
    for one in (*found["judges"], found["majority"]):
        assert one["holm"]["claims"] == 4
        assert one["together"] in ("NON-INFERIOR", "INCONCLUSIVE")
    json.dumps(found, allow_nan=False)


def test_holm_takes_back_what_one_of_many_shows_by_luck() -> None:
    """A p between α/4 and α stands alone and falls among four claims, three of which show nothing."""
    rng = np.random.default_rng(0)
    items, better = made_items(rng, 1_000, win_rate=0.5)
    judges = [good(rng, better, 0.95), *(bad(kind, rng, items) for kind in ("random", "garbage", "always A"))]
    one = claim_of(items, judges[0], MARGIN, LEVEL)
    assert one.interval_at is not None
    margin = -one.interval_at(1 - 2 * 0.015).low  # p is 0.015 at this margin, against 0.025
    found = panel_evidence(items, judges, margin + 1e-9, LEVEL)
    first = found["judges"][0]
    assert first["verdict"] in ("NON-INFERIOR", "EQUIVALENT")
    assert first["holm"]["p_no_worse"] == pytest.approx(5 * 0.015, rel=1e-3)
    assert first["together"] == "INCONCLUSIVE"
    assert {one["verdict"] for one in found["judges"][1:]} == {"INCONCLUSIVE"}


def test_the_majority_of_orders() -> None:
    student, teacher, tie, none = (int(call) for call in (Call.STUDENT, Call.TEACHER, Call.TIE, Call.UNREADABLE))
    columns = [
        [student, student, student, tie, none, none],
        [student, teacher, none, tie, none, teacher],
        [teacher, tie, none, student, none, none],
    ]
    judges = [JudgeCalls(str(at), np.array(one, np.int8), np.array(one, np.int8)) for at, one in enumerate(columns)]
    assert majority(judges).student_first_N.tolist() == [student, tie, student, student, none, teacher]
    with pytest.raises(DataError, match="1 judges"):
        majority(judges[:1])


def test_a_panel_of_bad_judges_is_no_better() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        items, _ = made_items(rng, 2_000)
        judges = [bad(kind, rng, items) for kind in ("random", "random, leans to A", "garbage")]
        found = panel_evidence(items, judges, MARGIN, LEVEL)
        assert found["majority"]["verdict"] == found["majority"]["together"] == "INCONCLUSIVE"


@pytest.mark.parametrize(("margin", "level"), [(0.0, 0.95), (-0.1, 0.95), (0.1, 95.0)])
def test_wrong_margins_and_levels(margin: float, level: float) -> None:
    items, better = made_items(np.random.default_rng(0), 100)
    with pytest.raises(ConfigError):
        judge_evidence(items, good(np.random.default_rng(0), better), margin, level)


def test_what_does_not_fit_is_refused() -> None:
    items, better = made_items(np.random.default_rng(0), 100)
    judge = good(np.random.default_rng(0), better)
    with pytest.raises(DataError, match="no judge"):
        panel_evidence(items, [], MARGIN, LEVEL)
    with pytest.raises(ConfigError, match="'good', 'good'"):
        panel_evidence(items, [judge, judge], MARGIN, LEVEL)
    with pytest.raises(DataError, match="calls on 99 items of 100"):
        judge_evidence(items, JudgeCalls("short", judge.student_first_N[:99], judge.teacher_first_N[:99]), 0.1, 0.95)
    with pytest.raises(DataError, match="shapes"):
        JudgeCalls("odd", np.array([3], np.int8), np.array([0], np.int8))
