"""Several claims at once: p-values adjusted so that each may be held against the level as it stands."""

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import DataError
from tutelage.stats.columns import Floats, finite_column


def holm(p_M: ArrayLike) -> Floats:
    """Adjusted p of M claims, in the order given: P(any wrong rejection) stays under the level, whatever their dependence.

    Holm (1979), Scand. J. Stat. 6:65: with p sorted upwards, max over i <= k of (M − i + 1) p_(i), at most 1. Raises
    `DataError` when there is no p or one is outside [0, 1].
    """
    p, order = _sorted(p_M)
    return _back(np.maximum.accumulate((p.size - np.arange(p.size)) * p), order)


def benjamini_hochberg(p_M: ArrayLike) -> Floats:
    """Adjusted p of M claims, in the order given: the expected share of wrong ones among the rejected stays under the level.

    Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57:289, for independent or positively dependent claims: with p sorted
    upwards, min over i >= k of (M / i) p_(i), at most 1. Raises as `holm`.
    """
    p, order = _sorted(p_M)
    scaled = p * p.size / np.arange(1, p.size + 1)
    return _back(np.minimum.accumulate(scaled[::-1])[::-1], order)


def _sorted(p_M: ArrayLike) -> tuple[Floats, np.ndarray]:
    p = finite_column(p_M, "p-values")
    if (wrong := p[(p < 0.0) | (p > 1.0)]).size:
        raise DataError(f"p-value {float(wrong[0])!r} is not in [0, 1]", fix="give probabilities, not their logarithms")
    order = np.argsort(p, kind="stable")
    return p[order], order


def _back(adjusted: Floats, order: np.ndarray) -> Floats:
    result = np.empty_like(adjusted)
    result[order] = np.minimum(adjusted, 1.0)
    return result
