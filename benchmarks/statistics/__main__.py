"""Are intervals, tests and plans what they say? `python -m benchmarks.statistics [--quick] [--seed N] [--out FILE]`.

Simulated data sets of known truth, 10,000 a cell (bootstrap and sessions 4,000), over sizes 20 to 5,000, discordance
1 to 40 % and sessions. First figures of the results, which are also the last line printed, in shares of 1:

- `coverage_min`, `coverage_max` of 95 % intervals where their approximation is meant to hold (20 expected discordant items;
  20 expected right and wrong ones; 200 items for means; with sessions, 30 of them and 30 effective items on the rarer
  side); `exact_coverage_min` where the code must choose a method that holds at any size; `outside`: cells off these bars;
- `type1_excess_max`: the most by which a test erred oftener than its level, as counted, and `type1_beyond_chance_max`: what
  of it the number of simulations does not explain (3 standard deviations); also of each interval's two sides at 2.5 %;
- `power_error_max`: the most by which the share of data sets that decided differs from the plan's promise;
- `ppi_gold_ratio`: gold labels that a plain mean needs over those of PPI++, correlation 0.75, ten cheap labels a gold one.

The folder has no `__init__.py`: scripts beside it that import the standard library's `statistics` would find it instead.
"""

import argparse
import json
import platform
import time
from collections import defaultdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.statistics import coverage, decisions
from benchmarks.statistics.simulate import Coverage, Rate
from tutelage.hardware import describe

RESULT = Path(__file__).parents[1] / "results" / "statistics.json"
QUICK = coverage.Budget(simulations=200, bootstraps=40, sizes=(50, 500))


def measure(budget: coverage.Budget, seed: int) -> dict[str, Any]:
    """All figures. Every part has a stream of its own, so that one more cell changes no other part."""
    streams = iter(np.random.default_rng(seed).spawn(20))
    took: dict[str, float] = {}
    covered: list[Coverage] = []
    wrong: list[Rate] = []
    found: list[Rate] = []
    for kept, parts in ((covered, coverage.PARTS), (wrong, decisions.WRONG), (found, decisions.FOUND)):
        for part in parts:
            began = time.perf_counter()
            for row in part(next(streams), budget):
                kept.append(row)
                print(row.method, row.row, flush=True)
            took[part.__name__] = round(time.perf_counter() - began, 1)
    ratio = decisions.gold_ratio(next(streams), budget.bootstraps)
    return first_figures(covered, wrong, found) | {
        "ppi_gold_ratio": ratio,
        "simulations": budget.simulations,
        "bootstrap_simulations": budget.bootstraps,
        "session_simulations": budget.sessions,
        "seed": seed,
        "methods": by_method(covered),
        "outside": [row.row for row in covered if not row.inside],
        "coverage": [row.row for row in covered],
        "type1": [row.row for row in wrong],
        "power": [row.row for row in found],
        "took_s": took,
    }


def first_figures(covered: list[Coverage], wrong: list[Rate], found: list[Rate]) -> dict[str, Any]:
    """The worst of everything that has a bar."""
    approximate = [row.coverage for row in covered if row.bar == "approximate"]
    exact = [row.coverage for row in covered if row.bar == "exact"]
    sides = [
        Rate(row.method, row.setting, row.simulations, missed, 0.025)
        for row in covered
        if row.bar == "exact" and row.method != "confidence sequence"
        for missed in (row.truth_below, row.truth_above)
    ]
    return {
        "coverage_min": min(approximate),
        "coverage_max": max(approximate),
        "exact_coverage_min": min(exact),
        "type1_excess_max": max(0.0, *(row.rate - row.promised for row in wrong)),
        "type1_beyond_chance_max": max(row.beyond_chance for row in wrong + sides),
        "power_error_max": max(abs(row.rate - row.promised) for row in found),
    }


def by_method(covered: list[Coverage]) -> dict[str, Any]:
    """Least and greatest coverage of each method, with and without a bar."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in covered:
        groups[f"{row.method} ({row.bar or 'no bar'})"].append(row.coverage)
    return {name: {"cells": len(all_), "min": min(all_), "max": max(all_)} for name, all_ in groups.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look at all parts in seconds; figures are rough")
    parser.add_argument("--simulations", type=int, help="data sets a cell (two fifths of them for the bootstrap)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    budget = QUICK if chosen.quick else coverage.Budget()
    if chosen.simulations:
        budget = coverage.Budget(chosen.simulations, max(20, 2 * chosen.simulations // 5), budget.sizes)
    figures = measure(budget, chosen.seed)
    figures["at"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    figures["machine"] = describe()
    figures["versions"] = {name: version(name) for name in ("tutelage", "numpy", "scipy")} | {
        "python": platform.python_version()
    }
    chosen.out.write_text(json.dumps(_rounded(figures), indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: one for name, one in _rounded(figures).items() if isinstance(one, int | float)}))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
