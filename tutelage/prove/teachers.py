"""Which of several teachers is better on the same items, what of that is decided, and whom to take. Pure.

Every pair's difference is paired by item. "First before second" is said when the pair's interval excludes 0 at its step
of Holm's procedure (1979) over both one-sided claims of all pairs, so that with the level's confidence *no* order said
is wrong: the signs of all differences at once, from which sets of ranks follow (Mogstad, Romano, Shaikh & Wilhelm
(2024), Rev. Econ. Stud. 91:476, section 3). "Within the margin of the best" is Hsu's (1984, Ann. Stat. 12:1136)
comparison with the best, by Bonferroni intervals of all pairs: it holds whoever is the best in truth.

Shape legend: C candidates, N items, P pairs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.errors import ConfigError, DataError
from tutelage.stats.exact import ENOUGH_DISCORDANT, clopper_pearson, exact_paired, paired_difference
from tutelage.stats.interval import Interval, check_level, wilson
from tutelage.stats.multiple import holm
from tutelage.stats.paired import PairedTable
from tutelage.stats.power import items_needed, mcnemar_items_needed

ENOUGH_OF_BOTH = 10  # right answers and wrong ones, from which the interval of one accuracy is Wilson's
LEAST_P = 1e-12
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Pair:
    """Two candidates on the same items, the one that was right more often first (of equals, the one named first).

    `interval` is of p_first − p_second at this pair's step of Holm's procedure: it excludes 0 just when `is_decided`.
    `at_once` is the interval that holds at the level together with those of all other pairs (Bonferroni). `p` is Holm's
    adjusted p of "first is not better".
    """

    first: str
    second: str
    difference: float
    discordance: float
    interval: Interval
    at_once: Interval
    p: float
    is_decided: bool


@dataclass(frozen=True, slots=True)
class Place:
    """One candidate: its accuracy with an interval of its own, its tier (1: nobody is decided to be better; else one more
    than the lowest tier among those that are), the ranks it can have, and whether it is shown to be within the margin of
    the best."""

    name: str
    accuracy: float
    interval: Interval
    tier: int
    best_rank: int
    worst_rank: int
    is_within: bool


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates by accuracy downwards, and all their pairs in that order."""

    places: tuple[Place, ...]
    pairs: tuple[Pair, ...]
    level: float
    margin: float

    @property
    def is_decided(self) -> bool:
        """Whether the order of every pair is decided."""
        return all(pair.is_decided for pair in self.pairs)

    @property
    def leaders(self) -> tuple[str, ...]:
        """Those who may be the best: nobody is decided to be better."""
        return tuple(place.name for place in self.places if place.tier == 1)


def rank(names: Sequence[str], correct_CN: ArrayLike, margin: float, level: float = 0.95) -> Ranking:
    """Ranks candidates by their 0/1 (or bool) correctness on the same items.

    Raises `DataError` when shapes do not match, there is no item, a value is neither 0 nor 1 (NaN among them) or a name
    repeats; `ConfigError` for a level or margin outside (0, 1).
    """
    check_level(level)
    correct = _checked(names, correct_CN)
    if not 0.0 < margin < 1.0:
        raise ConfigError(f"margin {margin!r} is not between 0 and 1", fix="give a share such as 0.03")
    order = sorted(range(len(names)), key=lambda at: (-int(correct[at].sum()), at))
    named = [names[at] for at in order]
    right_CN = correct[order]
    pairs = _pairs(named, right_CN, level)
    above: dict[str, list[str]] = {name: [] for name in named}
    below = dict.fromkeys(named, 0)
    for pair in pairs:
        if pair.is_decided:
            above[pair.second].append(pair.first)
            below[pair.first] += 1
    tiers: dict[str, int] = {}
    for name in named:  # whoever is decided to be better was right more often, and stands before
        tiers[name] = 1 + max((tiers[other] for other in above[name]), default=0)
    places = tuple(
        Place(
            name,
            float(right.mean()),
            accuracy_interval(int(right.sum()), right.size, level),
            tiers[name],
            1 + len(above[name]),
            len(named) - below[name],
            all(_low_of(pair, name) > -margin for pair in pairs if name in (pair.first, pair.second)),
        )
        for name, right in zip(named, right_CN, strict=True)
    )
    return Ranking(places, pairs, level, margin)


def accuracy_interval(right: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's interval for one accuracy, or Clopper & Pearson's exact one with fewer than 10 right or 10 wrong.

    Raises `DataError` and `ConfigError` as they do.
    """
    few = min(right, n - right) < ENOUGH_OF_BOTH
    return clopper_pearson(right, n, level) if few else wilson(right, n, level)


def two_sided_p(table: PairedTable) -> float:
    """The least 1 − level at which `paired_difference` excludes 0; not below 1e-12, and 1 where none does.

    From 20 discordant items Tango's score test at 0, McNemar's without correction: erfc(|b − c| / √(2(b + c))). Below,
    by halving: the exact interval shrinks as its level does.
    """
    apart, discordant = abs(table.only_first - table.only_second), table.only_first + table.only_second
    if discordant >= ENOUGH_DISCORDANT:
        return max(LEAST_P, math.erfc(apart / math.sqrt(2.0 * discordant)))
    low, high = LEAST_P, 1.0 - LEAST_P
    if _excludes_zero(exact_paired(table, 1.0 - low)):
        return low
    if not _excludes_zero(exact_paired(table, 1.0 - high)):
        return 1.0
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _excludes_zero(exact_paired(table, 1.0 - middle)) else (middle, high)
    return high


def items_to_order(pair: Pair, power: float = 0.9) -> int | None:
    """How many items in all decide the order of an open pair with this power, if the shares seen are the true ones.

    McNemar's exact test at the pair's level (`mcnemar_items_needed`). None when no number does: nothing seen apart, or
    more than a thousand million.
    """
    if pair.difference == 0.0:
        return None
    try:
        return mcnemar_items_needed(power, pair.difference, pair.discordance, pair.interval.level)
    except ConfigError:
        return None


def items_within(pair: Pair, margin: float, power: float = 0.9) -> int | None:
    """How many items in all show the first to be within the margin of the second, if the shares seen are the true ones
    (`items_needed` at the level of all pairs at once). None when no number does."""
    if pair.discordance <= pair.difference**2:
        return None
    try:
        return items_needed(power, margin, pair.difference, pair.discordance, pair.at_once.level)
    except ConfigError:
        return None


class Offer(NamedTuple):
    """What else is known of a candidate: price in US dollars for a thousand questions, and whether it reveals
    log-probabilities."""

    usd_per_thousand: float
    reveals_logprobs: bool


class Choice(NamedTuple):
    """Whom to take. `is_shown` says whether that rests on what is shown, not on what merely was seen; `why` is a clause."""

    name: str
    is_shown: bool
    why: str


def choose(ranking: Ranking, offers: Mapping[str, Offer]) -> Choice:
    """Of those shown to be within the margin of the best: who reveals log-probabilities before who does not, then the
    cheapest, then the more accurate. Where nobody is shown to be, the same among those who may be the best, not shown.

    Candidates that may not be asked are in no ranking. Raises `DataError` for a price that is no number of dollars.
    """
    for name, offer in offers.items():
        if not math.isfinite(offer.usd_per_thousand) or offer.usd_per_thousand < 0:
            raise DataError(f"{name} costs {offer.usd_per_thousand!r} dollars", fix="give a finite price of 0 or more")
    if len(ranking.places) == 1:
        return Choice(ranking.places[0].name, True, "the only candidate that was asked: it was compared with nobody")
    within = [place for place in ranking.places if place.is_within]
    pool = within or [place for place in ranking.places if place.tier == 1]
    revealing = [place for place in pool if offers[place.name].reveals_logprobs]
    # Where nothing is shown the more accurate goes first: a low price is no reason to take what may be worse.
    kept = sorted(revealing or pool, key=lambda place: (offers[place.name].usd_per_thousand, -place.accuracy))
    best = kept[0] if within else max(kept, key=lambda place: place.accuracy)
    return Choice(best.name, bool(within), _why(best, kept, offers, ranking.margin, bool(revealing), bool(within)))


def _why(
    best: Place, kept: Sequence[Place], offers: Mapping[str, Offer], margin: float, reveals: bool, shown: bool
) -> str:
    """`best` of `kept`, in words."""
    points = f"{100 * margin:g} points"
    prices = {offers[place.name].usd_per_thousand for place in kept}
    first = "most often right" if not shown else "the cheapest" if len(prices) > 1 else "most often right at one price"
    what = f"shown to be within {points} of the best" if shown else "that may be the best"
    if len(kept) == 1:
        who = f"the only one {what}" + (" that reveals log-probabilities" if reveals else "")
    else:
        who = f"{first} of those {what}" + (" and reveal log-probabilities" if reveals and not shown else "")
        who += " that reveal log-probabilities" if reveals and shown else ""
    return who + ("" if reveals else "; none of them reveals log-probabilities")


def _checked(names: Sequence[str], correct_CN: ArrayLike) -> NDArray[np.bool_]:
    correct = np.asarray(correct_CN)
    if correct.ndim != 2 or correct.shape[0] != len(names) or correct.size == 0:
        raise DataError(
            f"correctness of shape {correct.shape} for {len(names)} candidates",
            fix="give (candidates, items), the same items for all, at least one of each",
        )
    if len(set(names)) != len(names):
        raise DataError(f"names repeat: {list(names)}", fix="give every candidate a name of its own")
    if not (good := np.isin(correct, (0, 1))).all():
        at, item = (int(index) for index in np.argwhere(~good)[0])
        raise DataError(
            f"correctness {correct[at, item].item()!r} of {names[at]} at item {item}",
            fix="use 1 for right and 0 for wrong",
        )
    return correct == 1


def _pairs(names: Sequence[str], right_CN: NDArray[np.bool_], level: float) -> tuple[Pair, ...]:
    """All pairs of rows, earlier row first, with the intervals of Holm's step-down over 2P one-sided claims.

    A pair's sign is wrong when one of its two claims is rejected though true. The claim against the sign seen has half
    the two-sided p; its opposite at least 1/2. After k rejections the next is tested at α/(2P − k), which is whether the
    two-sided interval at 1 − 2α/(2P − k) excludes 0; the first that does not ends it, and all later have its level.
    """
    chosen = list(combinations(range(len(names)), 2))
    tables = [PairedTable.from_correct(right_CN[one], right_CN[two]) for one, two in chosen]
    if not tables:
        return ()
    alpha, count = 1.0 - level, len(tables)
    p_P = np.array([two_sided_p(table) for table in tables])
    adjusted_P = holm(np.concatenate([p_P / 2, 1 - p_P / 2]))[:count]
    found: dict[int, Interval] = {}
    decided = 0
    is_open = False
    for at in np.argsort(p_P, kind="stable"):
        interval = paired_difference(tables[at], 1.0 - 2.0 * alpha / (2 * count - decided))
        is_open = is_open or not _excludes_zero(interval)
        decided += not is_open
        found[int(at)] = interval
    return tuple(
        Pair(
            names[one],
            names[two],
            table.difference,
            table.discordance,
            found[at],
            paired_difference(table, 1.0 - alpha / count),
            float(adjusted_P[at]),
            _excludes_zero(found[at]),
        )
        for at, ((one, two), table) in enumerate(zip(chosen, tables, strict=True))
    )


def _excludes_zero(interval: Interval) -> bool:
    return interval.low > 0.0 or interval.high < 0.0


def _low_of(pair: Pair, name: str) -> float:
    """The lower limit of how much better `name` is than the other, at once with all pairs."""
    return pair.at_once.low if name == pair.first else -pair.at_once.high
