"""The little SVG every chart shares: scales, ticks, escaped text, markers, the accessible frame. Pure.

Colours and fonts live in `report.css`; here are only coordinates (viewBox pixels) and class names.
"""

import math
from dataclasses import dataclass

from markupsafe import escape

from tutelage.report.words import visible

WIDTH = 520


@dataclass(frozen=True)
class Scale:
    """A linear map from values `low`..`high` to pixels `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def padded(low: float, high: float, share: float = 0.08) -> tuple[float, float]:
    """A range widened by `share` on both sides; a range of no width is opened around its value."""
    room = (high - low) * share if high > low else max(abs(low) * share, 0.01)
    return low - room, high + room


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) inside `low`..`high`, around `about` of them."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Values for a logarithmic axis: decades, with 2 and 5 between them when the range is short."""
    factors = (1,) if math.log10(high / low) > 2.2 else (1, 2, 5)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [value for decade in decades for factor in factors if low <= (value := factor * 10.0**decade) <= high]


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    """One escaped line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(visible(content))}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """One straight line, to a hundredth of a pixel."""
    return f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" class="{css}"/>'


def css_of(role: str) -> str:
    """The part of a class name that colours a system."""
    return role if role in ("teacher", "student", "before") else "control"


def marker(role: str, x: float, y: float, size: float = 5.5) -> str:
    """A system's mark: shape and fill differ by role, so that colour is never needed to tell them apart."""
    css = f"mark m-{css_of(role)}"
    if role == "teacher":
        wide = size * 1.25
        return (
            f'<path class="{css}" d="M{x:.2f} {y - wide:.2f}L{x + wide:.2f} {y:.2f}L{x:.2f} {y + wide:.2f}'
            f'L{x - wide:.2f} {y:.2f}Z"/>'
        )
    if role == "majority":
        side = f"{2 * size:.2f}"
        return f'<rect class="{css}" x="{x - size:.2f}" y="{y - size:.2f}" width="{side}" height="{side}"/>'
    if role == "bag-of-words":
        tall = size * 1.15
        return f'<path class="{css}" d="M{x:.2f} {y - tall:.2f}L{x + tall:.2f} {y + size:.2f}H{x - tall:.2f}Z"/>'
    if role == "plain":
        tall = size * 1.15
        return f'<path class="{css}" d="M{x:.2f} {y + tall:.2f}L{x + tall:.2f} {y - size:.2f}H{x - tall:.2f}Z"/>'
    return f'<circle class="{css}" cx="{x:.2f}" cy="{y:.2f}" r="{size:.2f}"/>'


def path(points: list[tuple[float, float]], css: str) -> str:
    """A line through pixel points."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="{css}" d="M{steps}"/>'


def x_axis(scale: Scale, marks: list[tuple[float, str]], top: float, bottom: float) -> list[str]:
    """A line at `bottom` with its marks, (value, words) each, and a faint line up to `top` at every one."""
    parts = [line(scale.start, bottom, scale.end, bottom, "axis")]
    for value, label in marks:
        parts.append(line(scale(value), top, scale(value), bottom + 5, "tick"))
        parts.append(text(scale(value), bottom + 19, label, "small num", "middle"))
    return parts


def y_axis(scale: Scale, marks: list[tuple[float, str]], left: float, right: float) -> list[str]:
    """Marks, (value, words) each, left of `left`, with a faint line to `right` at every one."""
    parts: list[str] = []
    for value, label in marks:
        parts.append(line(left, scale(value), right, scale(value), "tick"))
        parts.append(text(left - 7, scale(value) + 4, label, "small num", "end"))
    return parts


def frame(ident: str, height: float, title: str, desc: str, parts: list[str]) -> str:
    """The finished picture, `WIDTH` by `height`, with a title and a description that carries the numbers."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">{escape(visible(title))}</title><desc id="{ident}-d">{escape(visible(desc))}</desc>'
        + "".join(parts)
        + "</svg>"
    )
