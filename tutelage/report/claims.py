"""A claim's figures in its own unit: shares of items as percentages and points, log-probabilities as they are."""

from collections.abc import Mapping
from typing import Any

from tutelage.report import words

POINTS = "points"


def unit(claim: Mapping[str, Any]) -> str:
    """`points`, `nats a token` or `bits a byte`."""
    return claim.get("unit", POINTS)


def value(claim: Mapping[str, Any], what: float) -> str:
    """A system's mean: `82.8 %`, or `−1.24`."""
    return words.percent(what) if unit(claim) == POINTS else words.number(what)


def apart(claim: Mapping[str, Any], what: float) -> str:
    """A difference without its unit: `−0.6`, or `−0.114`."""
    if unit(claim) == POINTS:
        return words.points(what)
    return f"{'+' if what > 0 else ''}{words.number(what)}"


def between(claim: Mapping[str, Any]) -> str:
    """The interval of the difference, without its unit."""
    return f"{apart(claim, claim['ci_low'])} to {apart(claim, claim['ci_high'])}"


def margin(claim: Mapping[str, Any]) -> str:
    """The margin without its unit: `3`, or `0.1`."""
    return words.plain_points(claim["margin"]) if unit(claim) == POINTS else f"{claim['margin']:g}"
