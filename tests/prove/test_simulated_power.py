"""Power by drawn proofs: that of the formula where it holds, and less where wider intervals are taken."""

import numpy as np
import pytest

from tutelage.proof_config import ProofClaimTable
from tutelage.prove.differences import Column, difference_interval
from tutelage.prove.open_claims import furthest_shown, power_of
from tutelage.prove.simulated_power import enough, formula_holds, simulated_power
from tutelage.prove.tasks.catalogue import task_of
from tutelage.stats.power import non_inferiority_power
from tutelage.stats.power_means import clustered_power


@pytest.mark.parametrize("difference", [0.0, -0.02])
def test_where_the_formula_holds_it_is_the_same(difference: float) -> None:
    expected = non_inferiority_power(400, 0.05, difference, 0.2)
    found = simulated_power(400, 0.05, difference, 0.2, 0.95, is_binary=True)
    assert found == pytest.approx(expected, abs=0.04)
    expected = clustered_power(60, 10, difference, 0.2**0.5, 0.1, 0.05)
    found = simulated_power(600, 0.05, difference, 0.2, 0.95, is_binary=True, sessions=60, correlation=0.1)
    assert found == pytest.approx(expected, abs=0.06)


def naive(n: int, is_binary: bool, sessions: int) -> float:
    """Item by item, with draws of its own."""
    draw, shown = np.random.default_rng(7), 0
    for _ in range(400):
        first, second = np.zeros(n), np.zeros(n)
        for item in range(n):
            kind = draw.random()
            first[item], second[item] = kind < 0.1, 0.1 <= kind < 0.2
        session = np.array([str(item % sessions) for item in range(n)]) if sessions else None
        found = difference_interval(Column(first, is_binary, session), Column(second, is_binary, session), 0.95, 0)
        shown += found.low > -0.2
    return shown / 400


@pytest.mark.parametrize(("is_binary", "sessions"), [(False, 0), (True, 0), (True, 15)])
def test_with_few_items_it_is_that_of_the_interval_that_is_taken(is_binary: bool, sessions: int) -> None:
    found = simulated_power(60, 0.2, 0.0, 0.2, 0.95, is_binary=is_binary, sessions=sessions)
    assert found == pytest.approx(naive(60, is_binary, sessions), abs=0.08)
    assert found < non_inferiority_power(60, 0.2, 0.0, 0.2) - 0.2, "the formula would promise too much"


def test_a_plan_takes_what_holds() -> None:
    claim, task = ProofClaimTable(margin=0.2), task_of("rouge_l", {})
    assert power_of(task, claim, 60) == simulated_power(60, 0.2, 0.0, 0.2, 0.95, is_binary=False) < 0.2
    assert power_of(task, claim, 200) > 0.99
    further = furthest_shown(task, claim, 100)
    assert (
        further is not None and power_of(task, claim.model_copy(update={"expected_difference": further}), 100) >= 0.79
    )
    assert not formula_holds(199, 0.2, 0, is_binary=False) and formula_holds(200, 0.2, 0, is_binary=False)
    assert not formula_holds(199, 0.2, 0, is_binary=True) and formula_holds(200, 0.2, 0, is_binary=True)
    assert (enough(0.1, 1.0, 0, is_binary=True), enough(0.1, 4.0, 9, is_binary=True)) == (400.0, 120.0)
