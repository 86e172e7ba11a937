"""How often one answer is better: gold alone, or with a judge beside it, and which is taken when."""

import contextlib

import numpy as np
import pytest

from benchmarks.statistics.simulate import judged_outcomes
from tutelage.errors import ConfigError, DataError
from tutelage.stats.exact import paired_difference
from tutelage.stats.outcomes import FEWEST_OF_A_KIND, judged_win_rate, win_rate
from tutelage.stats.paired import PairedTable
from tutelage.stats.ppi import ppi_mean

OTHERS = np.repeat([0.0, 0.5, 1.0], 100)


def columns(kind_to_the_student: int, hard: int, wins: int = 60, losses: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Gold and judge on 200 items: the judge calls so many losses wins, and so many wins losses; 80 ties."""
    gold = np.repeat([0.0, 0.5, 1.0], [losses, 200 - wins - losses, wins])
    judged = gold.copy()
    judged[:kind_to_the_student] = 1.0
    judged[200 - hard :] = 0.0
    return gold, judged


def test_a_win_rate_is_half_the_difference_of_wins_and_losses() -> None:
    got, table = win_rate([1.0] * 30 + [0.5] * 50 + [0.0] * 20), PairedTable(50, 30, 20, 0)
    plain = paired_difference(table)
    assert (got.low, got.high, got.n) == (plain.low / 2, plain.high / 2, 100)
    assert got.low < 0.05 < got.high
    assert "Tango" in got.method


@pytest.mark.parametrize(
    ("shown", "is_powered"),
    [
        ((20, 20), True), ((19, 20), False), ((20, 19), False), ((20, 20, 60, 19), False), ((20, 20, 19, 60), False),
        ((0, 60), False),
    ],
)  # fmt: skip
def test_the_judge_is_counted_where_gold_shows_every_kind_of_its_errors(
    shown: tuple[int, ...], is_powered: bool
) -> None:
    gold, judged = columns(*shown)
    assert FEWEST_OF_A_KIND == 20
    got = judged_win_rate(gold, judged, OTHERS)
    if is_powered:
        expected = ppi_mean(gold, judged, OTHERS).interval
        assert (got.low, got.high) == (expected.low - 0.5, expected.high - 0.5)
        assert got.method.startswith("PPI++") and got.n == 500
    else:
        assert got == win_rate(gold)


def test_without_other_items_gold_stands_alone() -> None:
    gold, judged = columns(30, 30)
    assert judged_win_rate(gold, judged, []) == judged_win_rate(gold, judged, [1.0]) == win_rate(gold)


@pytest.mark.parametrize(
    ("cell", "bare"),
    [
        ((30, 3_970, 0.6, -0.2, 0.95, "overlooks losses"), 0.3),
        ((100, 3_900, 0.96, -0.02, 0.8, "overlooks losses"), 0.2),
        ((30, 970, 0.3, -0.05, 0.95, "kind"), 0.06),
    ],
)
def test_a_judge_whose_rare_errors_gold_did_not_see_lets_nothing_pass(cell: tuple, bare: float) -> None:
    """A truth at the margin passes with 2.5 % at most; PPI++ alone lets it pass many times as often."""
    trials, wrong, wrong_alone = 800, 0, 0
    for trial in range(trials):
        data = judged_outcomes(np.random.default_rng([9, trial]), *cell)
        wrong += judged_win_rate(*data).low > cell[3]
        with contextlib.suppress(DataError):
            wrong_alone += ppi_mean(*data).interval.low - 0.5 > cell[3]
    assert wrong / trials <= 0.025 + 3 * (0.025 * 0.975 / trials) ** 0.5
    assert wrong_alone / trials > bare


def test_bad_input_is_named() -> None:
    gold, judged = columns(20, 20)
    with pytest.raises(DataError, match="200 items against 199"):
        judged_win_rate(gold, judged[1:], OTHERS)
    with pytest.raises(DataError, match="item 1 is nan"):
        judged_win_rate(gold, judged, [0.5, np.nan])
    with pytest.raises(DataError, match="outcomes of shape"):
        win_rate([])
    with pytest.raises(ConfigError, match="level 95"):
        judged_win_rate(gold, judged, OTHERS, 95)
