"""Are intervals, tests and plans what they say? `python -m benchmarks.statistics [--quick] [--only PART ...] [--seed N]
[--out FILE]`.

Simulated data sets of known truth, 10,000 a cell (bootstrap and sessions 4,000), over sizes 20 to 5,000, discordance
1 to 40 % and sessions. First figures of the results, which are also the last line printed, in shares of 1:

- `coverage_min`, `coverage_max` of 95 % intervals where their approximation is meant to hold (20 expected discordant items;
  20 expected right and wrong ones; 200 items for means; with sessions, 30 of them and 30 effective items on the rarer
  side); `exact_coverage_min` where the code must choose a method that holds at any size; `outside`: cells off these bars;
- `type1_excess_max`: the most by which a test erred oftener than its level, as counted, and `type1_beyond_chance_max`: what
  of it the number of simulations does not explain (3 standard deviations); also of each interval's two sides at 2.5 %, where
  it is to hold at any size or rests on a judge;
- `power_error_max`: the most by which the share of data sets that decided differs from the plan's promise;
- `ppi_gold_ratio`: gold labels that a plain mean needs over those of PPI++, correlation 0.75, ten cheap labels a gold one.

The folder has no `__init__.py`: scripts beside it that import the standard library's `statistics` would find it instead.
"""

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
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


Rows = dict[str, list[dict[str, Any]]]
PARTS = {
    **{part.__name__: ("coverage", part) for part in coverage.PARTS},
    **{part.__name__: ("type1", part) for part in decisions.WRONG},
    **{part.__name__: ("power", part) for part in decisions.FOUND},
    "gold_ratio": ("", decisions.gold_ratio),
    "preferences": ("coverage", coverage.preferences),
}  # in the order of their streams: a new one comes last


def measure(
    budget: coverage.Budget, seed: int, only: Collection[str] = (), before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All figures, or those of the parts in `only` with what `before` has of the others. Every part has a stream of its own,
    so that one more cell changes no other part."""
    took: dict[str, float] = dict(before["took_s"]) if before else {}
    rows: Rows = {kind: list(before[kind]) if before else [] for kind in ("coverage", "type1", "power")}
    ratio = before["ppi_gold_ratio"] if before else None
    for (name, (kind, part)), stream in zip(PARTS.items(), np.random.default_rng(seed).spawn(20), strict=False):
        if only and name not in only:
            continue
        began = time.perf_counter()
        if not kind:
            ratio = part(stream, budget.bootstraps)
            continue
        found = []
        for row in part(stream, budget):
            found.append(row.row)
            print(row.method, row.row, flush=True)
        again = {row["method"] for row in found}
        rows[kind] = [row for row in rows[kind] if row["method"] not in again or not only] + found
        took[name] = round(time.perf_counter() - began, 1)
    covered = [Coverage(**row) for row in rows["coverage"]]
    return first_figures(covered, *([Rate(**row) for row in rows[kind]] for kind in ("type1", "power"))) | {
        "ppi_gold_ratio": ratio,
        "simulations": budget.simulations,
        "bootstrap_simulations": budget.bootstraps,
        "session_simulations": budget.sessions,
        "seed": seed,
        "methods": by_method(covered),
        "outside": [row.row for row in covered if not row.inside],
        **rows,
        "took_s": took,
    }


def first_figures(covered: list[Coverage], wrong: list[Rate], found: list[Rate]) -> dict[str, Any]:
    """The worst of everything that has a bar."""
    approximate = [row.coverage for row in covered if row.bar == "approximate"]
    exact = [row.coverage for row in covered if row.bar == "exact"]
    sides = [
        Rate(row.method, row.setting, row.simulations, missed, 0.025)
        for row in covered
        if (row.bar == "exact" and row.method != "confidence sequence") or row.method == coverage.JUDGED
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
    parser.add_argument("--only", nargs="+", choices=PARTS, default=(), help="these parts; the file keeps the others")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    budget = QUICK if chosen.quick else coverage.Budget()
    if chosen.simulations:
        budget = coverage.Budget(chosen.simulations, max(20, 2 * chosen.simulations // 5), budget.sizes)
    before = json.loads(chosen.out.read_text("utf-8")) if chosen.only else None
    figures = measure(budget, chosen.seed, chosen.only, before)
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
