"""Simulated data sets of which the truth is known, and what an interval did on all of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.stats.interval import Interval
from tutelage.stats.paired import PairedTable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Coverage:
    """How often `method` held the truth. `bar`: "approximate" (93.5 to 96.5 %), "exact" (95 % at least), or "" (no bar).

    0 simulations: every outcome was counted with its probability.
    """

    method: str
    bar: str
    setting: dict[str, Any]
    simulations: int
    coverage: float
    truth_below: float  # share of data sets in which the truth lay below the interval: a claim that it is more is wrong
    truth_above: float
    mean_width: float

    @property
    def inside(self) -> bool:
        """Does the coverage meet its bar?"""
        low, high = {"approximate": (0.935, 0.965), "exact": (0.95, 1.0), "": (0.0, 1.0)}[self.bar]
        return low <= self.coverage <= high

    @property
    def row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Rate:
    """How often a test decided, against the level or the power promised."""

    method: str
    setting: dict[str, Any]
    simulations: int
    rate: float
    promised: float

    @property
    def row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def beyond_chance(self) -> float:
        """What of the excess over the promise these many simulations do not explain (3 standard deviations)."""
        variance = self.promised * (1.0 - self.promised) / self.simulations if self.simulations else 0.0
        noise = 3.0 * variance**0.5
        return max(0.0, self.rate - self.promised - noise)


def cover(
    method: str, bar: str, setting: dict[str, Any], truth: float, intervals: Iterable[tuple[Interval, float]]
) -> Coverage:
    """Coverage over intervals, each with the number of data sets that gave it, or its probability."""
    found = np.array([(interval.low, interval.high, count) for interval, count in intervals])
    low, high, count = found.T
    total, slack = count.sum(), 1e-12  # limits that are the truth but for rounding hold it
    below, above = float(count[truth < low - slack].sum() / total), float(count[truth > high + slack].sum() / total)
    width = float(((high - low) * count).sum() / total)
    simulations = round(total) if total > 1.5 else 0
    return Coverage(method, bar, setting, simulations, 1.0 - below - above, below, above, width)


def by_table(
    make: Callable[[PairedTable], Interval], tables_S4: Ints, columns: tuple[int, ...] = (1, 2)
) -> Iterable[tuple[Interval, int]]:
    """`make` once for every different table; `columns`: the counts that matter to it besides n."""
    _, first, counts = np.unique(tables_S4[:, columns], axis=0, return_index=True, return_counts=True)
    for at, count in zip(first.tolist(), counts.tolist(), strict=True):
        yield make(PairedTable(*tables_S4[at].tolist())), count


def paired_tables(
    rng: np.random.Generator, simulations: int, n: int, discordance: float, difference: float, right: float = 0.8
) -> Ints:
    """(simulations, 4) counts: both, only first, only second, neither; of the concordant a share `right` is right."""
    first, second = (discordance + difference) / 2, (discordance - difference) / 2
    both = right * (1.0 - discordance)
    shares = [both, first, second, max(0.0, 1.0 - both - first - second)]
    return rng.multinomial(n, shares, size=simulations)


@dataclass(frozen=True)
class Sessions:
    """A design that stays over the simulations: the session of every item, and their number."""

    session_N: Ints
    sessions: int

    @classmethod
    def of(cls, sessions: int, per_session: float, spread: float) -> "Sessions":
        """Sizes are the quantiles of a log-normal of mean `per_session`, `spread` in the logarithm; one item at least.

        Drawn sizes now and then hold one session so large that the interval is refused.
        """
        from scipy.special import ndtri

        place_G = ndtri((np.arange(sessions) + 0.5) / sessions)
        sizes = per_session * np.exp(spread * place_G - spread * spread / 2)
        sizes = np.maximum(1, np.round(sizes)).astype(np.int64)
        return cls(np.repeat(np.arange(sessions), sizes), sessions)

    def effective(self, correlation: float) -> float:
        """Independent items that these are worth: items over Kish's design effect."""
        size_G = np.bincount(self.session_N)
        return float(size_G.sum() / (1.0 + correlation * ((size_G**2).sum() / size_G.sum() - 1.0)))

    def scores(self, rng: np.random.Generator, correlation: float) -> Floats:
        """Normal scores, mean 0 and deviation 1, with that correlation within sessions."""
        shared = rng.standard_normal(self.sessions)[self.session_N]
        own = rng.standard_normal(self.session_N.size)
        return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own

    def answers(
        self, rng: np.random.Generator, kind: str, share: float, correlation: float
    ) -> tuple[Floats, Floats | None, float]:
        """One data set of `kind`: a column, a second one for pairs, and the true mean (difference).

        "scores": `scores`. "right": 0/1 with mean `share`. "pairs": two columns of 0/1 that differ on `share` of the
        items, each session leaning to either side as it likes; "one-sided pairs": where they differ the first is right.
        `correlation` within sessions: of the scores, of being right, or of whether the two differ.
        """
        if kind == "scores":
            return self.scores(rng, correlation), None, 0.0
        pull = 1 / correlation - 1
        chance = rng.beta(share * pull, (1 - share) * pull, self.sessions)[self.session_N]
        hit = rng.random(self.session_N.size) < chance
        if kind == "right":
            return hit.astype(np.float64), None, share
        if kind == "one-sided pairs":
            return np.ones(hit.size), 1.0 - hit, share
        leaning = rng.random(self.sessions)[self.session_N]
        first = rng.random(hit.size) < leaning
        return np.where(hit, first, 1.0), np.where(hit, ~first, 1.0), 0.0


def gold_and_cheap(
    rng: np.random.Generator, kind: str, gold: int, cheap: int, correlation: float, mean: float = 0.0
) -> tuple[Floats, Floats, Floats]:
    """Gold labels, cheap labels of the same items, cheap labels of others; gold has `mean` and, if "normal", deviation 1.

    "right": gold is 0/1 with mean 0.8 (`mean` does not matter), cheap agrees with it except when drawn afresh.
    """
    total = gold + cheap
    if kind == "normal":
        cheap_all = rng.standard_normal(total)
        own = rng.standard_normal(gold)
        labels = correlation * cheap_all[:gold] + np.sqrt(1 - correlation**2) * own + mean
        return labels, cheap_all[:gold], cheap_all[gold:]
    truth = rng.random(total) < 0.8
    afresh = rng.random(total) < 1 - correlation
    judged = np.where(afresh, rng.random(total) < 0.8, truth).astype(np.float64)
    return truth[:gold].astype(np.float64), judged[:gold], judged[gold:]


def judged_outcomes(
    rng: np.random.Generator, gold: int, others: int, tie: float, difference: float, right: float, errs: str
) -> tuple[Floats, Floats, Floats]:
    """Outcomes 1, ½, 0 of `gold` items by gold and by a judge, and of `others` by the judge alone.

    `tie` is the share of ties, wins less losses are 2 `difference`. The judge is right with probability `right`; else it
    says one of the two other outcomes ("anything"), that the student wins ("kind"), a tie ("tie"), or, on losses alone,
    that the student wins ("overlooks losses").
    """
    losses = (1.0 - tie) / 2.0 - difference
    truth = rng.choice(3, gold + others, p=(losses, tie, max(0.0, 1.0 - tie - losses)))
    is_wrong = rng.random(truth.size) > right
    if errs == "overlooks losses":
        is_wrong &= truth == 0
    said = (
        (truth + rng.integers(1, 3, truth.size)) % 3 if errs == "anything" else np.full(truth.size, 1 + (errs != "tie"))
    )
    judged = np.where(is_wrong, said, truth)
    return truth[:gold] / 2.0, judged[:gold] / 2.0, judged[gold:] / 2.0
