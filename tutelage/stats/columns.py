"""Columns of numbers as they come from outside, checked once."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.errors import DataError

Floats = NDArray[np.float64]


def finite_column(values_N: ArrayLike, name: str, least: int = 1) -> Floats:
    """`values_N` as float64, one number an item. Raises `DataError` unless it is flat, finite and `least` items long."""
    try:
        values = np.asarray(values_N, dtype=np.float64)
    except (TypeError, ValueError) as error:  # words, or rows of unequal length
        raise DataError(f"{name}: {error}", fix="give one number an item") from error
    if values.ndim != 1 or values.size < least:
        raise DataError(f"{name} of shape {values.shape}", fix=f"give one number an item, at least {least}")
    if (wrong := np.flatnonzero(~np.isfinite(values))).size:
        raise DataError(
            f"{name}: item {wrong[0]} is {float(values[wrong[0]])!r} ({wrong.size} such items)",
            fix="a missing score is not a number: score the item, or take it out of both models' columns",
        )
    return values


def paired_columns(first_N: ArrayLike, second_N: ArrayLike, least: int = 1) -> tuple[Floats, Floats]:
    """Two columns on the same items, in the same order. Raises `DataError` as `finite_column`, or on unequal lengths."""
    first, second = finite_column(first_N, "first column", least), finite_column(second_N, "second column", least)
    if first.size != second.size:
        raise DataError(f"{first.size} items against {second.size}", fix="give both the same items in the same order")
    return first, second
