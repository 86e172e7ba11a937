"""Pure functions on label scores `logp_NL`: N examples, L labels (2 to 20), natural logarithms, finite.

Rows need not be normalised: every function here sees only differences within a row.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.errors import ConfigError, DataError

MAX_LABELS = 20
BEYOND_NATS = 1.0  # how far past the last example a cut goes that leaves a label without any
_SWEEPS = 30
_SLACK = 1e-12  # path costs closer than this, relative to the largest score, are equal: rounding must not make cycles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def log_softmax(logits_NL: ArrayLike) -> Floats:
    """Row-wise log-softmax in float64, in nats. Raises `DataError` unless (N >= 1, 2 <= L <= 20) and finite."""
    logits = _scores(logits_NL)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def kl_rows(p_logits_NL: ArrayLike, q_logits_NL: ArrayLike) -> Floats:
    """KL(p ‖ q) = Σ p (log p − log q) of every row in nats, (N,), both sides normalised: Kullback & Leibler (1951).

    Rounding below zero is cut off. Raises `DataError` as `log_softmax`, or when the shapes differ.
    """
    logp, logq = log_softmax(p_logits_NL), log_softmax(q_logits_NL)
    if logp.shape != logq.shape:
        raise DataError(f"shapes {logp.shape} and {logq.shape} differ", fix="score the same examples and labels twice")
    return np.maximum((np.exp(logp) * (logp - logq)).sum(axis=1), 0.0)


def shares_of(decisions_N: ArrayLike, num_labels: int) -> Floats:
    """Share of the decisions that fall on each label, (num_labels,), summing to 1.

    Raises `DataError` when there is no decision or one is not a whole number in 0..num_labels − 1.
    """
    decisions = np.asarray(decisions_N)
    if decisions.ndim != 1 or decisions.size == 0 or decisions.dtype.kind not in "iu":
        raise DataError(
            f"decisions of shape {decisions.shape} and type {decisions.dtype}", fix="give label indices, at least one"
        )
    if decisions.min() < 0 or decisions.max() >= num_labels:
        wrong = decisions[(decisions < 0) | (decisions >= num_labels)][0]
        raise DataError(f"label index {wrong} of {num_labels} labels", fix="count labels from 0; −1 is no label")
    return np.bincount(decisions, minlength=num_labels) / decisions.size


def decide(logp_NL: ArrayLike, offsets_L: ArrayLike) -> Ints:
    """argmax over labels of logp + offsets, (N,); of equal labels the first. Raises `DataError` for wrong shapes."""
    logp = _scores(logp_NL)
    offsets = np.asarray(offsets_L, dtype=np.float64)
    if offsets.shape != (logp.shape[1],) or not np.isfinite(offsets).all():
        raise DataError(f"offsets {offsets.tolist()} for {logp.shape[1]} labels", fix="give one finite offset a label")
    return np.argmax(logp + offsets, axis=1)


def balance_offsets(logp_NL: ArrayLike, shares_L: ArrayLike) -> Floats:
    """Offsets (L,), summing to 0, so that `decide(logp, offsets)` has label shares as near as can be to `shares_L`.

    Uses no gold label: only the declared shares. Two labels: label 0 is decided where logp_0 − logp_1 exceeds a
    quantile of that difference, midway between its neighbours; for shares 0.5, 0.5 it is the median. Equal differences
    go to the same label, whichever side leaves the shares nearer; where both sides are equally near (the middle of an
    odd number) the cut runs through them.

    More labels: the counts nearest to N · shares (largest remainder), and the offsets are the dual prices of the
    assignment with these counts that has the largest total logp (a transportation problem: Hitchcock (1941); solved by
    shortest augmenting paths, Ahuja, Magnanti & Orlin (1993), section 9.7), taken inside the dual face, so that the
    counts are met exactly unless examples tie: equal rows are always decided alike.

    Raises `ConfigError` unless the shares are L positive numbers summing to 1, `DataError` for scores of wrong shape or
    when all examples have the same scores up to a constant (no offset can divide them).
    """
    logp = _scores(logp_NL)
    shares = np.asarray(shares_L, dtype=np.float64)
    if shares.shape != (logp.shape[1],) or not (shares > 0).all() or abs(shares.sum() - 1.0) > 1e-9:
        raise ConfigError(
            f"label shares {shares.tolist()} for {logp.shape[1]} labels", fix="give one positive share a label, sum 1"
        )
    relative = logp - logp[:, :1]
    if (relative == relative[0]).all():
        raise DataError(
            f"all {len(logp)} examples have the same label scores {logp[0].tolist()}",
            fix="no offset can divide them: give more examples, or a model that tells them apart",
        )
    if logp.shape[1] == 2:
        cut = _cut(logp[:, 0] - logp[:, 1], shares[1])
        return np.array([-cut / 2, cut / 2])
    counts = _whole_counts(shares, len(logp))
    offsets = _transport(logp, counts, _sweep(logp, counts))
    return offsets - offsets.mean()


def _scores(values: ArrayLike) -> Floats:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] < 1 or not 2 <= scores.shape[1] <= MAX_LABELS:
        raise DataError(
            f"label scores of shape {scores.shape}", fix=f"give (examples, labels): at least 1, and 2 to {MAX_LABELS}"
        )
    if not np.isfinite(scores).all():
        at = tuple(int(index) for index in np.argwhere(~np.isfinite(scores))[0])
        raise DataError(f"label score {scores[at]} at {at}", fix="give every label a finite score (a floor, not -inf)")
    return scores


def _cut(values_N: Floats, share_below: float) -> float:
    """The number with a share of `values_N` below it nearest to `share_below`, midway between its neighbours."""
    levels, counts = np.unique(values_N, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])  # below[j]: how many lie under a cut just under levels[j]
    missed = np.abs(below - share_below * len(values_N))
    near = np.flatnonzero(missed <= missed.min() + 1e-9)
    if len(near) == 2:
        return float(levels[near[0]])
    if near[0] == 0:
        return float(levels[0] - BEYOND_NATS)
    if near[0] == len(levels):
        return float(levels[-1] + BEYOND_NATS)
    return float((levels[near[0] - 1] + levels[near[0]]) / 2)


def _whole_counts(shares_L: Floats, total: int) -> Ints:
    """Largest-remainder rounding of total · shares; equal remainders favour the first label."""
    exact = shares_L * total
    counts = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


def _sweep(logp_NL: Floats, counts_L: Ints) -> Floats:
    """Good first offsets: each label in turn gets its count, the others fixed. Need not converge, and need not."""
    offsets = np.zeros(logp_NL.shape[1])
    for _ in range(_SWEEPS):
        if (np.bincount(np.argmax(logp_NL + offsets, axis=1), minlength=len(offsets)) == counts_L).all():
            break
        for label, count in enumerate(counts_L):
            scores = logp_NL + offsets
            scores[:, label] = -np.inf
            offsets[label] = _cut(scores.max(axis=1) - logp_NL[:, label], count / len(logp_NL))
    return offsets


def _transport(logp_NL: Floats, counts_L: Ints, start_L: Floats) -> Floats:
    """Move examples along cheapest paths from labels with too many to labels with too few, then read off the prices.

    An assignment by argmax(logp + any offsets) is the best for its own counts, and a cheapest move keeps it so. Every
    round moves one example's worth of imbalance: at most N rounds.
    """
    size = len(start_L)
    label_N = np.argmax(logp_NL + start_L, axis=1)
    # cost[a, b]: least logp lost by moving one example from label a to label b; item[a, b]: which example
    cost, item = np.full((size, size), np.inf), np.zeros((size, size), dtype=np.int64)
    _reprice(range(size), logp_NL, label_N, cost, item)
    held = np.bincount(label_N, minlength=size)
    slack = _SLACK * max(1.0, float(np.abs(logp_NL).max()))
    while (held != counts_L).any():
        path = _cheapest_path(cost, held > counts_L, held < counts_L, slack)
        moved = [(item[a, b], b) for a, b in pairwise(path)]
        for example, label in moved:
            label_N[example] = label
        held[path[0]] -= 1
        held[path[-1]] += 1
        _reprice(path, logp_NL, label_N, cost, item)
    # Feasible prices: o_b − o_a <= cost[a, b]. Shortest distances from each label are vertices; their mean is inside.
    distance = cost.copy()
    np.fill_diagonal(distance, 0.0)
    for middle in range(size):
        distance = np.minimum(distance, distance[:, middle, None] + distance[None, middle, :])
    offsets = distance[held > 0].mean(axis=0)
    offsets[held == 0] -= BEYOND_NATS
    return offsets


def _reprice(labels: range | list[int], logp_NL: Floats, label_N: Ints, cost: Floats, item: Ints) -> None:
    for label in labels:
        members = np.flatnonzero(label_N == label)
        if not len(members):
            cost[label] = np.inf
            continue
        lost = logp_NL[members, label, None] - logp_NL[members]
        best = lost.argmin(axis=0)
        cost[label] = lost[best, np.arange(len(best))]
        item[label] = members[best]
        cost[label, label] = np.inf


def _cheapest_path(
    cost: Floats, too_many_L: NDArray[np.bool_], too_few_L: NDArray[np.bool_], slack: float
) -> list[int]:
    """Bellman–Ford from all labels with too many examples to the nearest label with too few."""
    distance = np.where(too_many_L, 0.0, np.inf)
    before = np.full(len(distance), -1)
    for _ in range(len(distance)):
        through = distance[:, None] + cost
        best = through.argmin(axis=0)
        shorter = through[best, np.arange(len(best))] < distance - slack
        if not shorter.any():
            break
        distance = np.where(shorter, through[best, np.arange(len(best))], distance)
        before[shorter] = best[shorter]
    path = [int(np.argmin(np.where(too_few_L, distance, np.inf)))]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
        assert len(path) <= len(distance), "a cycle of negative cost: the assignment was not the best for its counts"
    return path[::-1]
