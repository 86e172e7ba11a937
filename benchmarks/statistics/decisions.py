"""Does a test err no oftener than its level, and find what is there as often as its plan promised?"""

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.statistics.coverage import Budget
from benchmarks.statistics.simulate import Ints, Rate, Sessions, gold_and_cheap, paired_tables
from tutelage.records import Decision
from tutelage.stats.clusters import clustered_mean
from tutelage.stats.equivalence import equivalence, non_inferiority
from tutelage.stats.exact import paired_difference
from tutelage.stats.interval import Interval
from tutelage.stats.multiple import benjamini_hochberg, holm
from tutelage.stats.paired import PairedTable, mcnemar_exact
from tutelage.stats.permutation import paired_permutation
from tutelage.stats.power import equivalence_power, mcnemar_power, non_inferiority_power
from tutelage.stats.power_means import clustered_power, ppi_power, sign_flip_power
from tutelage.stats.power_sequences import sequence_power
from tutelage.stats.ppi import ppi_mean
from tutelage.stats.sequences import confidence_sequence

LEVEL = 0.95
NULLS = ((50, 0.4), (100, 0.1), (200, 0.1), (200, 0.4), (1_000, 0.01), (1_000, 0.1), (5_000, 0.02), (5_000, 0.2))


def _share(tables: Ints, decides: Callable[[PairedTable], bool]) -> float:
    _, first, counts = np.unique(tables[:, 1:3], axis=0, return_index=True, return_counts=True)
    said = [decides(PairedTable(*tables[at].tolist())) for at in first.tolist()]
    return float(counts[said].sum() / counts.sum())


def wrong_on_pairs(rng: np.random.Generator, budget: Budget) -> Iterator[Rate]:
    """At the margin a claim is wrong: non-inferiority at 2.5 %, equivalence (90 % interval) at 5 %; McNemar at 5 %."""
    for n, discordance in NULLS:
        if n > max(budget.sizes):
            continue
        margin = discordance / 2
        setting = {"n": n, "discordance": discordance}
        at_margin = paired_tables(rng, budget.simulations, n, discordance, -margin)
        rate = _share(
            at_margin, lambda t, m=margin: _said(paired_difference(t), m, non_inferiority, Decision.NON_INFERIOR)
        )
        yield Rate("non-inferiority of pairs", setting | {"margin": margin}, budget.simulations, rate, 0.025)
        rate = _share(
            at_margin, lambda t, m=margin: _said(paired_difference(t, 0.9), m, equivalence, Decision.EQUIVALENT)
        )
        yield Rate("equivalence of pairs", setting | {"margin": margin}, budget.simulations, rate, 0.05)
        same = paired_tables(rng, budget.simulations, n, discordance, 0.0)
        yield Rate(
            "McNemar, exact", setting, budget.simulations, _share(same, lambda t: mcnemar_exact(t) <= 0.05), 0.05
        )


def _said(interval: Interval, margin: float, rule: Callable[[Interval, float], Decision], decision: Decision) -> bool:
    return rule(interval, margin) is decision


def wrong_on_scores(rng: np.random.Generator, budget: Budget) -> Iterator[Rate]:
    """Sign flips at 5 %, counted and drawn."""
    for n, resamples in ((12, 999), (50, 999)):
        wrong = 0
        for _ in range(budget.simulations):
            wrong += paired_permutation(rng.laplace(size=n), rng, resamples).p <= 0.05
        yield Rate("sign flips", {"n": n, "resamples": resamples}, budget.simulations, wrong / budget.simulations, 0.05)


def wrong_among_many(rng: np.random.Generator, budget: Budget) -> Iterator[Rate]:
    """Twenty claims of which ten are null: Holm's chance of any wrong rejection, and the share of wrong ones after B.-H."""
    from scipy.special import ndtr

    any_wrong = share_wrong = 0.0
    for _ in range(budget.simulations):
        z = rng.standard_normal(20)
        z[10:] += 3.0
        p = 1.0 - ndtr(z)
        any_wrong += bool((holm(p)[:10] <= 0.05).any())
        rejected = benjamini_hochberg(p) <= 0.05
        share_wrong += rejected[:10].sum() / max(1, rejected.sum())
    for method, wrong in (("Holm", any_wrong), ("Benjamini-Hochberg", share_wrong)):
        yield Rate(method, {"claims": 20, "null": 10}, budget.simulations, wrong / budget.simulations, 0.05)


def found_on_pairs(rng: np.random.Generator, budget: Budget) -> Iterator[Rate]:
    """Power of non-inferiority, equivalence and McNemar's test against their plans."""
    for n, margin, difference, discordance in (
        (200, 0.1, -0.02, 0.2), (500, 0.05, 0.0, 0.1), (1_000, 0.03, 0.0, 0.1), (2_000, 0.02, -0.002, 0.05),
        (4_500, 0.03, -0.01, 0.17),
    ):  # fmt: skip
        if n > max(budget.sizes):
            continue
        setting = {"n": n, "margin": margin, "difference": difference, "discordance": discordance}
        tables = paired_tables(rng, budget.simulations, n, discordance, difference)
        promised = non_inferiority_power(n, margin, difference, discordance, LEVEL)
        rate = _share(tables, lambda t, m=margin: paired_difference(t, LEVEL).low > -m)
        yield Rate("non-inferiority of pairs", setting, budget.simulations, rate, promised)
        promised = equivalence_power(n, margin, difference, discordance, 0.9)
        rate = _share(tables, lambda t, m=margin: _said(paired_difference(t, 0.9), m, equivalence, Decision.EQUIVALENT))
        yield Rate("equivalence of pairs", setting, budget.simulations, rate, promised)
    for n, difference, discordance in ((60, 0.15, 0.3), (500, 0.04, 0.1), (2_000, 0.01, 0.04)):
        setting = {"n": n, "difference": difference, "discordance": discordance}
        tables = paired_tables(rng, budget.simulations, n, discordance, difference)
        rate = _share(tables, lambda t: mcnemar_exact(t) <= 1.0 - LEVEL)
        yield Rate(
            "McNemar, exact", setting, budget.simulations, rate, mcnemar_power(n, difference, discordance, LEVEL)
        )


def found_on_means(rng: np.random.Generator, budget: Budget) -> Iterator[Rate]:
    """Power of a mean difference in sessions, and of one helped by cheap labels."""
    for sessions, difference, margin, correlation in (
        (20, 0.0, 0.3, 0.1),
        (60, -0.05, 0.2, 0.05),
        (200, 0.1, 0.0, 0.3),
    ):
        design = Sessions.of(sessions, 8, 0.0)
        said = 0
        for _ in range(budget.simulations):
            values = design.scores(rng, correlation) + difference
            said += clustered_mean(values, design.session_N, LEVEL).interval.low > -margin
        promised = clustered_power(sessions, 8, difference, 1.0, correlation, margin, LEVEL)
        setting = {"sessions": sessions, "difference": difference, "margin": margin, "correlation": correlation}
        yield Rate("clusters", setting, budget.simulations, said / budget.simulations, promised)
    for gold, difference, margin, correlation in ((60, 0.0, 0.25, 0.8), (200, -0.03, 0.2, 0.6), (200, 0.0, 0.15, 0.75)):
        said = 0
        for _ in range(budget.simulations):
            data = gold_and_cheap(rng, "normal", gold, 10 * gold, correlation, difference)
            said += ppi_mean(*data, LEVEL).interval.low > -margin
        promised = ppi_power(gold, 10 * gold, difference, 1.0, correlation, margin, LEVEL)
        setting = {"n": gold, "difference": difference, "margin": margin, "correlation": correlation}
        yield Rate("PPI++", setting, budget.simulations, said / budget.simulations, promised)


def found_at_any_look(rng: np.random.Generator, budget: Budget) -> Iterator[Rate]:
    """Power of a confidence sequence by its last look, and of sign flips."""
    for n, difference, discordance, margin in (
        (500, 0.02, 0.1, 0.05),
        (1_000, 0.0, 0.2, 0.08),
        (2_000, 0.05, 0.4, 0.0),
    ):
        if n > max(budget.sizes):
            continue
        shares = [(discordance + difference) / 2, 1 - discordance, (discordance - difference) / 2]
        said = 0
        for _ in range(budget.simulations):
            scores = rng.choice([1.0, 0.0, -1.0], n, p=shares)
            said += confidence_sequence(scores, LEVEL, (-1.0, 1.0)).low_T[-1] > -margin
        promised = sequence_power(n, difference, (discordance - difference**2) ** 0.5, margin, LEVEL)
        setting = {"n": n, "difference": difference, "discordance": discordance, "margin": margin}
        yield Rate("confidence sequence", setting, budget.simulations, said / budget.simulations, promised)
    for n, difference in ((12, 0.9), (50, 0.4)):
        found = 0
        for _ in range(budget.simulations):
            found += paired_permutation(rng.normal(difference, 1.0, n), rng, 999).p <= 1 - LEVEL
        promised = sign_flip_power(n, difference, 1.0, LEVEL)
        setting = {"n": n, "difference": difference, "resamples": 999}
        yield Rate("sign flips", setting, budget.simulations, found / budget.simulations, promised)


def gold_ratio(rng: np.random.Generator, simulations: int, correlation: float = 0.75, gold: int = 200) -> float:
    """Gold labels the plain mean needs over those PPI++ needs, at equal width, with ten times as many cheap ones."""
    worth = [
        ppi_mean(*gold_and_cheap(rng, "normal", gold, 10 * gold, correlation)).gold_equivalent / gold
        for _ in range(simulations)
    ]
    return float(np.mean(worth))


WRONG = (wrong_on_pairs, wrong_on_scores, wrong_among_many)
FOUND = (found_on_pairs, found_on_means, found_at_any_look)
