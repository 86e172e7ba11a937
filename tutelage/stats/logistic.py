"""Multinomial logistic regression with soft targets on sparse features."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import ConfigError, DataError
from tutelage.stats.labels import Floats, log_softmax

Sparse = Any  # a scipy.sparse array or matrix; scipy ships no types
MAX_ITERATIONS = 1_000
GRADIENT_TOLERANCE = 1e-6  # nats per unit of weight, the largest component
MEMORY = 20
ARMIJO = 1e-4
SHORTEST_STEP = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """logits = features · weights_FL + bias_L; `loss_nats` is the penalised objective reached, `l2` its penalty."""

    weights_FL: Floats
    bias_L: Floats
    l2: float
    loss_nats: float
    iterations: int


def fit(features_NF: Sparse, target_NL: ArrayLike, l2: float) -> Logistic:
    """Minimise mean cross-entropy to soft targets + (l2 / 2) ‖weights‖², the bias free; float64, deterministic.

    Bishop (2006), eq. 4.108 and gradient 4.109, by L-BFGS from zero. `features_NF`: scipy sparse,
    N >= 1 rows; `target_NL`: probabilities, rows summing to 1, 2 to 20 labels; `l2` > 0, in nats.

    Raises `DataError` for wrong shapes or values, or when the minimum is not reached; `ConfigError` for l2 <= 0.
    """
    if not 0.0 < l2 < float("inf"):
        raise ConfigError(f"l2 = {l2!r}", fix="give a positive penalty such as 0.001")
    target = check_target(target_NL)
    examples, features = features_NF.shape
    if examples != len(target) or features < 1 or not np.isfinite(features_NF.data).all():
        raise DataError(
            f"features of shape {features_NF.shape} for targets of shape {target.shape}",
            fix="give one row of finite features for every row of targets",
        )
    transposed_FN = features_NF.T.tocsr()

    def objective(packed: Floats) -> tuple[float, Floats]:
        weights, bias = packed[:-1], packed[-1]
        logp = log_softmax(features_NF @ weights + bias)
        error = (np.exp(logp) - target) / examples
        loss = -(target * logp).sum() / examples + l2 / 2 * (weights**2).sum()
        return float(loss), np.vstack([transposed_FN @ error + l2 * weights, error.sum(axis=0)])

    # Words differ a thousandfold in frequency; scaling by the bound on the curvature along each, p (1 − p) <= 1/4, is
    # what makes a few dozen iterations enough.
    curvature_F = 0.25 * np.asarray((features_NF.power(2)).sum(axis=0)).ravel() / examples + l2
    inverse = 1.0 / np.append(curvature_F, 0.25)[:, None]
    found = _minimise(objective, np.zeros((features + 1, target.shape[1])), inverse)
    return Logistic(found.at[:-1], found.at[-1], l2, found.value, found.iterations)


@dataclass(frozen=True, slots=True)
class _Minimum:
    at: Floats
    value: float
    iterations: int


def _minimise(objective: Callable[[Floats], tuple[float, Floats]], at: Floats, inverse: Floats) -> _Minimum:
    """L-BFGS: the two-loop recursion of Nocedal & Wright (2006), algorithm 7.4, from `inverse` (broadcast to `at`)
    times a scale as in their 7.20, and halving as in algorithm 3.1: the objective is convex, so every step has positive
    curvature. Raises `DataError` when the gradient does not become small."""
    value, gradient = objective(at)
    steps: deque[tuple[Floats, Floats, float]] = deque(maxlen=MEMORY)
    for iteration in range(MAX_ITERATIONS):
        if np.abs(gradient).max() <= GRADIENT_TOLERANCE:
            return _Minimum(at, value, iteration)
        direction = -_two_loops(gradient, steps, inverse)
        slope, length = _dot(gradient, direction), 1.0
        while True:
            new_value, new_gradient = objective(at + length * direction)
            # The last term is rounding: near the minimum the loss no longer tells two points apart.
            if new_value <= value + ARMIJO * length * slope + 1e-15 * abs(value):
                break
            length /= 2
            if length < SHORTEST_STEP:
                raise _not_reached(iteration, gradient)
        moved, turned = length * direction, new_gradient - gradient
        if (curvature := _dot(moved, turned)) > 0.0:
            steps.append((moved, turned, curvature))
        at, value, gradient = at + moved, new_value, new_gradient
    raise _not_reached(MAX_ITERATIONS, gradient)


def _two_loops(gradient: Floats, steps: deque[tuple[Floats, Floats, float]], inverse: Floats) -> Floats:
    rest, shares = gradient.copy(), []
    for moved, turned, curvature in reversed(steps):
        shares.append(_dot(moved, rest) / curvature)
        rest -= shares[-1] * turned
    scale = 1.0
    if steps:
        _, turned, curvature = steps[-1]
        scale = curvature / _dot(turned, inverse * turned)
    rest *= scale * inverse
    for (moved, turned, curvature), share in zip(steps, reversed(shares), strict=True):
        rest += (share - _dot(turned, rest) / curvature) * moved
    return rest


def _dot(left: Floats, right: Floats) -> float:
    """Not BLAS: its threads would fight the training for the cores, and round differently with their number."""
    return float((left * right).sum())


def _not_reached(iterations: int, gradient: Floats) -> DataError:
    return DataError(
        f"logistic regression stopped after {iterations} iterations with gradient {np.abs(gradient).max():.2g}",
        fix="raise l2, or bring the features to comparable sizes",
    )


def predict_logp(model: Logistic, features_NF: Sparse) -> Floats:
    """Label log-probabilities in nats, (N, L). Raises `DataError` when there is no row or the features do not fit."""
    if features_NF.shape[1] != len(model.weights_FL):
        raise DataError(
            f"{features_NF.shape[1]} features for a model of {len(model.weights_FL)}",
            fix="make the features as for training",
        )
    return log_softmax(features_NF @ model.weights_FL + model.bias_L)


def check_target(target_NL: ArrayLike) -> Floats:
    """Soft targets as float64. Raises `DataError` unless (N >= 1, L >= 2) probabilities whose rows sum to 1."""
    target = np.asarray(target_NL, dtype=np.float64)
    if target.ndim != 2 or target.shape[0] < 1 or target.shape[1] < 2:
        raise DataError(f"targets of shape {target.shape}", fix="give (examples, labels): at least one, at least two")
    off = np.flatnonzero(~((target >= 0.0).all(axis=1) & (np.abs(target.sum(axis=1) - 1.0) <= 1e-6)))
    if off.size:
        raise DataError(
            f"target row {off[0]} is {target[off[0]].tolist()}", fix="give probabilities that sum to 1, not logarithms"
        )
    return target
