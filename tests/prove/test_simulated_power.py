"""Power by drawn proofs: that of the formula where it holds, and less where wider intervals are taken."""

import numpy as np
import pytest

from tutelage.errors import ConfigError
from tutelage.proof_config import ProofClaimTable
from tutelage.prove.differences import Column, difference_interval
from tutelage.prove.open_claims import furthest_shown, power_of
from tutelage.prove.simulated_power import Expected, enough, formula_holds, simulated_power
from tutelage.prove.tasks.catalogue import task_of
from tutelage.stats.power import non_inferiority_power
from tutelage.stats.power_means import clustered_power

MARGIN = 0.05


@pytest.mark.parametrize("difference", [0.0, -0.02])
def test_where_the_formula_holds_it_is_the_same(difference: float) -> None:
    found = simulated_power(Expected(400, difference, 0.2, True), MARGIN, 0.95)
    assert found == pytest.approx(non_inferiority_power(400, MARGIN, difference, 0.2), abs=0.04)
    found = simulated_power(Expected(600, difference, 0.2, True, 60, 0.1), MARGIN, 0.95)
    assert found == pytest.approx(clustered_power(60, 10, difference, 0.2**0.5, 0.1, MARGIN), abs=0.06)
    spread = (0.02 - difference**2) ** 0.5  # scores between 0 and 1
    found = simulated_power(Expected(300, difference, 0.02, False), MARGIN, 0.95)
    assert found == pytest.approx(clustered_power(300, 1.0, difference, spread, 0.0, MARGIN), abs=0.04)


def naive(n: int, draw_one: "np.ndarray", is_binary: bool, sessions: int, margin: float) -> float:
    """Proofs whose items' differences are taken at random out of `draw_one`."""
    draw, shown = np.random.default_rng(7), 0
    session = np.array([str(item % sessions) for item in range(n)]) if sessions else None
    for _ in range(400):
        apart = draw.choice(draw_one, n)
        first, second = (1 + apart) / 2, (1 - apart) / 2
        if is_binary:
            first, second = (apart > 0) * 1.0, (apart < 0) * 1.0
        found = difference_interval(Column(first, is_binary, session), Column(second, is_binary, session), 0.95, 0)
        shown += found.low > -margin
    return shown / 400


RIGHT_OR_WRONG = np.array([1.0] + [-1.0] + 8 * [0.0])  # just one right on a fifth
OVERLAPS = np.array([0.1, -0.3])  # mean −0.1, mean square 0.05


@pytest.mark.parametrize(
    ("n", "values", "is_binary", "sessions", "margin"),
    [
        (60, RIGHT_OR_WRONG, True, 0, 0.2),
        (60, RIGHT_OR_WRONG, True, 15, 0.2),
        (90, OVERLAPS, False, 0, 0.25),
        (120, OVERLAPS, False, 12, 0.14),
    ],
)
def test_with_few_items_it_is_that_of_the_interval_that_is_taken(
    n: int, values: "np.ndarray", is_binary: bool, sessions: int, margin: float
) -> None:
    expected = Expected(n, float(values.mean()), float((values**2).mean()), is_binary, sessions)
    assert not formula_holds(expected)
    found = simulated_power(expected, margin, 0.95)
    assert found == pytest.approx(naive(n, values, is_binary, sessions, margin), abs=0.1)
    spread = (expected.discordance - expected.difference**2) ** 0.5
    promised = clustered_power(n, 1.0, expected.difference, spread, 0.0, margin)
    assert (found < promised - 0.1) is (is_binary or not sessions), "few sessions of scores get limits by Student's t"


def test_what_no_scores_can_do_is_refused_and_what_gets_no_interval_is_shown_by_nothing() -> None:
    for impossible in (Expected(50, -0.3, 0.2, True, 5), Expected(50, -0.5, 0.2, False)):
        with pytest.raises(ConfigError, match="expected_difference = -0"):
            simulated_power(impossible, 0.2, 0.95)
    assert simulated_power(Expected(50, 0.0, 0.2, True, 1), 0.2, 0.95) == 0.0
    assert simulated_power(Expected(1, 0.0, 0.2, False), 0.2, 0.95) == 0.0


def test_a_plan_takes_what_holds() -> None:
    claim, task = ProofClaimTable(margin=0.2), task_of("rouge_l", {})
    assert power_of(task, claim, 60) == simulated_power(Expected(60, 0.0, 0.2, False), 0.2, 0.95) < 0.2
    assert power_of(task, claim, 200) > 0.99
    further = furthest_shown(task, claim, 100)
    assert further is not None
    assert power_of(task, claim.model_copy(update={"expected_difference": further}), 100) >= 0.79
    for is_binary in (True, False):
        assert not formula_holds(Expected(199, 0.0, 0.2, is_binary)) and formula_holds(
            Expected(200, 0.0, 0.2, is_binary)
        )
    assert enough(Expected(36, 0.0, 0.1, True, 9)) == 400.0, "few that differ, however many sessions"
    assert enough(Expected(36, 0.0, 0.9, True, 9)) == 120.0
    assert not formula_holds(Expected(120, 0.0, 0.05, True, 40))
