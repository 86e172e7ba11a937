import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.statistics import coverage
from benchmarks.statistics.__main__ import first_figures, measure
from benchmarks.statistics.simulate import Coverage, Rate, cover, paired_tables
from tutelage.stats.interval import Interval

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def figures():
    return measure(coverage.Budget(simulations=100, bootstraps=20, sizes=(50, 500)), seed=1)


def test_a_quick_look_sees_every_method(figures):
    assert {name.split(" (")[0] for name in figures["methods"]} == {
        "Tango", "Newcombe, paired", "chosen for pairs", "Wilson", "Newcombe", "Clopper-Pearson",
        "sessions, scores", "sessions, right", "sessions, pairs", "PPI++", "BCa bootstrap", "confidence sequence",
        "gold and a judge", "PPI++ of outcomes",
    }  # fmt: skip
    assert {row["method"] for row in figures["type1"]} == {
        "non-inferiority of pairs", "equivalence of pairs", "McNemar, exact", "sign flips", "Holm", "Benjamini-Hochberg",
    }  # fmt: skip
    assert {row["method"] for row in figures["power"]} == {
        "non-inferiority of pairs", "equivalence of pairs", "McNemar, exact", "clusters", "PPI++",
        "confidence sequence", "sign flips",
    }  # fmt: skip
    json.dumps(figures)


def test_a_quick_look_is_near_what_the_long_run_must_show(figures):
    assert 0.8 < figures["coverage_min"] <= figures["coverage_max"] <= 1.0
    assert figures["exact_coverage_min"] > 0.88
    assert 0.0 <= figures["type1_excess_max"] < 0.1
    assert figures["type1_beyond_chance_max"] < 0.06
    assert figures["power_error_max"] < 0.2
    assert figures["ppi_gold_ratio"] == pytest.approx(2.045, abs=0.2)


def test_one_part_again_keeps_the_others(figures):
    budget = coverage.Budget(simulations=100, bootstraps=20, sizes=(50, 500))
    again = measure(budget, seed=1, only=["sequences"], before=figures)
    assert {row["method"] for row in again["coverage"]} == {row["method"] for row in figures["coverage"]}
    assert len(again["coverage"]) == len(figures["coverage"])
    kept = ("type1", "power", "ppi_gold_ratio", "coverage_min", "exact_coverage_min")
    assert {name: again[name] for name in kept} == {name: figures[name] for name in kept}


def test_a_judge_that_errs_beyond_the_level_is_seen_in_the_first_figures():
    rows = [
        Coverage(coverage.JUDGED, "", {}, 10_000, 0.9, 0.1, 0.0, 0.1),
        Coverage("x", "exact", {}, 10, 1.0, 0.0, 0.0, 0.1),
    ]
    rows.append(Coverage("y", "approximate", {}, 10, 0.95, 0.0, 0.0, 0.1))
    got = first_figures(rows, [Rate("z", {}, 10, 0.0, 0.05)], [Rate("z", {}, 10, 0.8, 0.8)])
    assert got["type1_beyond_chance_max"] > 0.07


def test_coverage_counts_both_sides_by_weight():
    made = [(Interval(0.0, 0.4, 0.95, "by hand", 9), 3), (Interval(0.6, 0.8, 0.95, "by hand", 9), 1)]
    got = cover("by hand", "approximate", {}, 0.5, made)
    assert (got.coverage, got.truth_below, got.truth_above) == (0.0, 0.25, 0.75)
    assert (got.simulations, got.mean_width) == (4, pytest.approx(0.35))
    assert cover("by hand", "", {}, 0.4, [(made[0][0], 0.75), (made[1][0], 0.25)]).coverage == 0.75


def test_first_figures_are_the_worst():
    def row(bar, coverage):
        return Coverage("by hand", bar, {}, 10_000, coverage, 1 - coverage, 0.0, 0.1)

    covered = [row("approximate", 0.93), row("approximate", 0.97), row("exact", 0.9), row("", 0.5)]
    wrong = [Rate("by hand", {}, 10_000, 0.06, 0.05), Rate("by hand", {}, 10_000, 0.02, 0.05)]
    got = first_figures(covered, wrong, [Rate("by hand", {}, 10_000, 0.8, 0.85), Rate("by hand", {}, 10_000, 0.9, 0.9)])
    assert (got["coverage_min"], got["coverage_max"], got["exact_coverage_min"]) == (0.93, 0.97, 0.9)
    assert got["type1_excess_max"] == pytest.approx(0.01)
    assert got["power_error_max"] == pytest.approx(0.05)
    noise = 3 * (0.025 * 0.975 / 10_000) ** 0.5
    assert got["type1_beyond_chance_max"] == pytest.approx(0.1 - 0.025 - noise)


def test_simulated_pairs_are_what_was_asked_for():
    tables = paired_tables(np.random.default_rng(0), 2_000, 500, 0.2, -0.06, right=0.75)
    assert tables.mean(axis=0) / 500 == pytest.approx([0.6, 0.07, 0.13, 0.2], abs=0.002)


def test_the_standard_librarys_statistics_is_not_hidden():
    """A script in benchmarks/ has that folder first on its path."""
    code = "import sys; sys.path.insert(0, 'benchmarks'); import statistics; print(statistics.NormalDist().cdf(0))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.5"
