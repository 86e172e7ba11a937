"""Two arms of a benchmark on the same items: how far apart they are."""

from collections.abc import Sequence

import numpy as np

from tutelage.stats.interval import bootstrap_of_means


def difference(first_SN: Sequence[Sequence[float]], second_SN: Sequence[Sequence[float]]) -> dict[str, float]:
    """Mean of first minus second over N items, in the arms' unit, paired by item after the S seeds of each are averaged, with
    the BCa bootstrap's 95 % interval over items."""
    first_N, second_N = (np.mean(np.asarray(arm_SN), axis=0) for arm_SN in (first_SN, second_SN))
    pairs_N2 = np.stack([first_N, second_N], 1)
    apart = bootstrap_of_means(pairs_N2, lambda one, other: one - other, np.random.default_rng(1))
    values = (float((first_N - second_N).mean()), apart.low, apart.high)
    return {key: round(value, 4) for key, value in zip(("mean", "low", "high"), values, strict=True)}
