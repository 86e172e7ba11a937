"""Does a 95 % interval hold the truth in 95 % of the data sets?"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.statistics.simulate import (
    Coverage,
    Sessions,
    by_table,
    cover,
    gold_and_cheap,
    judged_outcomes,
    paired_tables,
)
from tutelage.errors import DataError
from tutelage.stats.clusters import clustered_difference, clustered_mean
from tutelage.stats.exact import ENOUGH_DISCORDANT, clopper_pearson, paired_difference
from tutelage.stats.interval import Interval, bootstrap_of_means, wilson
from tutelage.stats.newcombe import newcombe, newcombe_paired
from tutelage.stats.outcomes import EVEN, judged_win_rate
from tutelage.stats.paired import tango
from tutelage.stats.ppi import ppi_mean
from tutelage.stats.sequences import confidence_sequence

SIZES = (20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
DISCORDANCE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
# Right or wrong: student, student before training, teacher; 0.78, 0.50 and 0.82 on average.
KINDS_8x3 = np.array([(s, b, t) for s in (0, 1) for b in (0, 1) for t in (0, 1)], dtype=np.float64)
KIND_SHARES = np.array([0.10, 0.07, 0.02, 0.03, 0.03, 0.30, 0.03, 0.42])


@dataclass(frozen=True)
class Budget:
    """How much to simulate: data sets a cell, those of bootstrap cells, and which sizes."""

    simulations: int = 10_000
    bootstraps: int = 4_000
    sizes: tuple[int, ...] = SIZES

    @property
    def sessions(self) -> int:
        """Data sets of a cell with sessions: each takes half a millisecond, and there are many cells of one method."""
        return max(1, 2 * self.simulations // 5)


def paired(rng: np.random.Generator, budget: Budget) -> Iterator[Coverage]:
    """Tango and Newcombe where they should hold, and what `paired_difference` chooses everywhere."""
    for n in budget.sizes:
        for discordance in DISCORDANCE:
            for difference in (0.0, -discordance / 3):
                tables = paired_tables(rng, budget.simulations, n, discordance, difference)
                setting = {"n": n, "discordance": discordance, "difference": round(difference, 5)}
                expected = n * discordance
                if expected >= ENOUGH_DISCORDANT:
                    yield cover("Tango", "approximate", setting, difference, by_table(tango, tables))
                    made = by_table(newcombe_paired, tables, (0, 1, 2))
                    yield cover("Newcombe, paired", "approximate", setting, difference, made)
                # Near the switch some data sets take the wider interval: only the lower bar makes sense there.
                chosen = by_table(paired_difference, tables)
                bar = "exact" if expected < ENOUGH_DISCORDANT else ""
                yield cover("chosen for pairs", bar, setting, difference, chosen)


def proportions(rng: np.random.Generator, budget: Budget) -> Iterator[Coverage]:
    """Wilson (all outcomes counted) and Newcombe from 20 expected on either side; Clopper-Pearson has its bar below that."""
    from scipy.special import gammaln

    for n in budget.sizes:
        for share in (0.5, 0.8, 0.9, 0.98):
            setting = {"n": n, "share": share}
            count_X = np.arange(n + 1)
            chance_X = np.exp(
                gammaln(n + 1) - gammaln(count_X + 1) - gammaln(n - count_X + 1)
                + count_X * np.log(share) + (n - count_X) * np.log1p(-share)
            )  # fmt: skip
            pairs = [(x, chance) for x, chance in enumerate(chance_X.tolist()) if chance > 1e-12]
            enough = n * (1 - share) >= 20 - 1e-9
            if enough:
                yield cover("Wilson", "approximate", setting, share, ((wilson(x, n), chance) for x, chance in pairs))
            exact = ((clopper_pearson(x, n), chance) for x, chance in pairs)
            yield cover("Clopper-Pearson", "" if enough else "exact", setting, share, exact)
            if enough:
                other, m = share - 0.05, n // 2
                two = np.stack([rng.binomial(n, share, budget.simulations), rng.binomial(m, other, budget.simulations)])
                both, counts = np.unique(two.T, axis=0, return_counts=True)
                made = (
                    (newcombe(x, n, y, m), many) for (x, y), many in zip(both.tolist(), counts.tolist(), strict=True)
                )
                yield cover("Newcombe", "approximate", setting | {"m": m, "other": other}, share - other, made)


SESSION_CELLS = (
    # kind, share (right) or discordance (pairs), correlation within sessions, spread of their sizes
    ("scores", 0.0, 0.05, 0.0), ("scores", 0.0, 0.3, 0.6),
    ("right", 0.8, 0.05, 0.6), ("right", 0.8, 0.4, 0.0), ("right", 0.95, 0.2, 0.0),
    ("pairs", 0.2, 0.2, 0.6), ("pairs", 0.05, 0.2, 0.0), ("one-sided pairs", 0.2, 0.2, 0.0),
)  # fmt: skip
ENOUGH_SESSIONS = 30


def clusters(rng: np.random.Generator, budget: Budget) -> Iterator[Coverage]:
    """Sessions of 8 items on average, equal or far from it.

    The approximation is meant to hold for scores, and from 30 sessions with 30 effective items on the rarer side; under 20
    of these the code must choose limits that hold at least 95 % by itself, and between all that counts is that it does.
    """
    for sessions in (5, 10, 30, 100, 500):
        if sessions * 8 > max(budget.sizes):
            continue
        for kind, share, correlation, spread in SESSION_CELLS:
            if sessions < ENOUGH_SESSIONS and (spread or (kind == "scores" and sessions < 10)):
                continue  # scores without bounds are refused where sessions are too few or one is too large
            design = Sessions.of(sessions, 8, spread)
            results, truth = [], 0.0
            for _ in range(budget.sessions):
                first, second, truth = design.answers(rng, kind, share, correlation)
                if second is None:
                    results.append((clustered_mean(first, design.session_N).interval, 1))
                else:
                    results.append((clustered_difference(first, second, design.session_N).interval, 1))
            rarer = design.effective(correlation) * (1.0 - share if kind == "right" else share)
            setting = {
                "n": design.session_N.size, "sessions": sessions, "kind": kind, "share": share,
                "correlation": correlation, "spread": spread,
            }  # fmt: skip
            if kind == "scores":
                yield cover("sessions, scores", "approximate", setting, truth, results)
                continue
            setting["effective_rarer"] = round(rarer, 1)
            enough = sessions >= ENOUGH_SESSIONS and rarer >= 1.5 * ENOUGH_DISCORDANT
            bar = "approximate" if enough else "exact" if rarer < ENOUGH_DISCORDANT or sessions < 10 else ""
            yield cover(f"sessions, {kind.removeprefix('one-sided ')}", bar, setting, truth, results)


def predictions(rng: np.random.Generator, budget: Budget) -> Iterator[Coverage]:
    """PPI++ with ten cheap labels for each gold one; below 200 gold labels without a bar."""
    for gold in (50, 200, 1_000):
        if gold > max(budget.sizes):
            continue
        for kind, correlation in (("normal", 0.0), ("normal", 0.75), ("normal", 0.95), ("right", 0.8)):
            if kind == "right" and gold == 50:
                continue  # too few disagreements: some data sets have none, and are refused
            truth = 0.8 if kind == "right" else 0.0
            made = (
                (ppi_mean(*gold_and_cheap(rng, kind, gold, 10 * gold, correlation)).interval, 1)
                for _ in range(budget.simulations)
            )
            setting = {"n": gold, "cheap": 10 * gold, "kind": kind, "correlation": correlation}
            yield cover("PPI++", "approximate" if gold >= 200 else "", setting, truth, made)


PREFERENCE_CELLS = (
    # gold items, others, share of ties, win rate less one half, how often the judge is right, how it errs
    (20, 380, 0.3, -0.05, 0.8, "anything"), (30, 970, 0.3, -0.05, 0.95, "kind"),
    (30, 3_970, 0.6, -0.2, 0.95, "overlooks losses"), (50, 350, 0.3, -0.05, 0.8, "anything"),
    (50, 3_950, 0.9, -0.05, 0.8, "kind"), (100, 900, 0.0, -0.1, 0.7, "anything"),
    (100, 3_900, 0.96, -0.02, 0.8, "overlooks losses"), (200, 800, 0.3, -0.05, 0.7, "anything"),
    (200, 800, 0.0, -0.05, 0.8, "kind"), (200, 200, 0.0, 0.0, 0.7, "tie"), (400, 600, 0.3, -0.2, 0.7, "anything"),
    (400, 3_600, 0.0, -0.05, 0.5, "anything"), (400, 3_600, 0.3, -0.05, 0.8, "anything"),
    (400, 3_600, 0.9, -0.05, 0.9, "kind"),
)  # fmt: skip
JUDGED = "gold and a judge"


def preferences(rng: np.random.Generator, budget: Budget) -> Iterator[Coverage]:
    """How often people prefer the student's answer, by gold on some items and a judge on all: the rule, and PPI++ without it,
    over the data sets that it does not refuse. The sides are what counts: a claim is one-sided."""
    for gold, others, tie, difference, right, errs in PREFERENCE_CELLS:
        if gold > max(budget.sizes):
            continue
        chosen, bare = [], []
        for _ in range(budget.sessions):
            data = judged_outcomes(rng, gold, others, tie, difference, right, errs)
            chosen.append((judged_win_rate(*data), 1))
            with contextlib.suppress(DataError):
                found = ppi_mean(*data).interval
                bare.append((Interval(found.low - EVEN, found.high - EVEN, 0.95, found.method, gold), 1))
        setting = {"n": gold, "others": others, "ties": tie, "difference": difference, "right": right, "errs": errs}
        setting["by_ppi"] = sum(one.method.startswith("PPI") for one, _ in chosen) / len(chosen)
        yield cover(JUDGED, "", setting, difference, chosen)
        if bare:
            yield cover("PPI++ of outcomes", "", setting, difference, bare)


def bootstrap(rng: np.random.Generator, budget: Budget) -> Iterator[Coverage]:
    """BCa: the share of the gap recovered from 0/1 columns, and a skewed mean."""
    for n in (200, 1_000, 5_000):
        if n > max(budget.sizes):
            continue
        student, before, teacher = KIND_SHARES @ KINDS_8x3
        truth = (student - before) / (teacher - before)
        made = (
            (bootstrap_of_means(KINDS_8x3[rng.choice(8, n, p=KIND_SHARES)], _recovered, rng, resamples=1_000), 1)
            for _ in range(budget.bootstraps)
        )
        yield cover("BCa bootstrap", "approximate", {"n": n, "of": "gap recovered"}, truth, made)
    made = (
        (bootstrap_of_means(rng.exponential(size=(200, 1)), lambda mean: mean, rng, resamples=1_000), 1)
        for _ in range(budget.bootstraps)
    )
    yield cover("BCa bootstrap", "approximate", {"n": 200, "of": "exponential mean"}, 1.0, made)


def _recovered(student: np.ndarray, before: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    return (student - before) / (teacher - before)


def sequences(rng: np.random.Generator, budget: Budget) -> Iterator[Coverage]:
    """The truth must lie within the limits after every item at once: the worst look decides. Width: after the last."""
    n = min(2_000, max(budget.sizes))
    for share in (0.5, 0.95):
        missed_low = missed_high = 0
        width = 0.0
        for _ in range(budget.simulations):
            found = confidence_sequence((rng.random(n) < share).astype(np.float64))
            missed_low += bool((found.low_T > share).any())
            missed_high += bool((found.high_T < share).any())
            width += float(found.high_T[-1] - found.low_T[-1]) / budget.simulations
        below, above = missed_low / budget.simulations, missed_high / budget.simulations
        setting = {"n": n, "share": share, "looks": n}
        yield Coverage(
            "confidence sequence", "exact", setting, budget.simulations, 1 - below - above, below, above, width
        )


PARTS = (paired, proportions, clusters, predictions, bootstrap, sequences)
