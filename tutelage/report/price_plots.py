"""The charts of what answers cost and how long they are; as in `plots`, each is pure and says its numbers again in `<desc>`."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tutelage.prove.paying import CPU, Unit, front
from tutelage.report import words
from tutelage.report.svg import (
    WIDTH,
    Scale,
    css_of,
    frame,
    line,
    log_ticks,
    marker,
    padded,
    path,
    text,
    ticks,
    x_axis,
    y_axis,
)

Record = Mapping[str, Any]
RING = 10.5  # pixels: around the marks of the Pareto front


def price_chart(
    systems: Sequence[Record], ident: str = "cost-quality", unit: Unit = CPU, quality: str = "accuracy"
) -> str:
    """Price of a question (logarithmic) against quality with its interval; the Pareto front (`paying.front`) is ringed, joined.
    Systems without a price in this unit are left out.

    Raises `ValueError` when no system has a price above zero.
    """
    shown = [system for system in systems if has_price(system, unit)]
    if not shown:
        raise ValueError(f"nothing to draw: no system has a price in {unit.words}")
    logs = [math.log10(system[unit.key]) for system in shown]
    spread = max(logs) - min(logs)
    room = max(0.12 * spread, (1 - spread) / 2)  # a decade at the least: a shorter axis may hold no round price
    x_low, x_high = min(logs) - room, max(logs) + room
    y_low, y_high = padded(min(s["ci_low"] for s in shown), max(s["ci_high"] for s in shown))
    x, y = Scale(x_low, x_high, 56, WIDTH - 12), Scale(y_low, y_high, 290, 30)
    marks = [(math.log10(value), words.number(value, 1)) for value in log_ticks(10**x_low, 10**x_high)]
    places = [(x(log), y(system["accuracy"])) for system, log in zip(shown, logs, strict=True)]
    best = front([system[unit.key] for system in shown], [system["accuracy"] for system in shown])
    parts = [*x_axis(x, marks, 30, 290)]
    parts += y_axis(y, [(value, words.percent(value, 0)) for value in ticks(y_low, y_high)], 56, WIDTH - 12)
    if len(best) > 1:
        parts.append(path(_stairs([places[at] for at in best]), "front"))
    for at, (system, (px, py)) in enumerate(zip(shown, places, strict=True)):
        parts.append(line(px, y(system["ci_low"]), px, y(system["ci_high"]), f"interval i-{css_of(system['role'])}"))
        parts.append(marker(system["role"], px, py))
        if at in best:
            parts.append(f'<circle class="ring" cx="{px:.2f}" cy="{py:.2f}" r="{RING}"/>')
    parts += _labels(shown, *zip(*places, strict=True))
    parts += [
        text((56 + WIDTH - 12) / 2, 328, f"{unit.axis} (logarithmic; left is cheaper)", "small", "middle"),
        text(0, 14, quality, "small"),
    ]
    desc = "; ".join(
        f"{words.role(s['role'])}: {words.number(s[unit.key])} {unit.axis}, "
        f"{words.percent(s['accuracy'])} (interval {words.percent_range(s['ci_low'], s['ci_high'])})"
        + (", on the Pareto front" if at in best else "")
        for at, s in enumerate(shown)
    )
    return frame(ident, 334, "Cost against quality", desc, parts)


def has_price(system: Record, unit: Unit = CPU) -> bool:
    """Whether a system can stand on a logarithmic price axis."""
    return system[unit.key] is not None and system[unit.key] > 0


def lengths_chart(rows: Sequence[Record], ident: str = "lengths") -> str:
    """Characters of every system's answers, a row each: median (mark), middle half (box), 5 % to 95 % (line).

    Raises `ValueError` when no system has an answer.
    """
    shown = [row for row in rows if row["characters"] is not None]
    if not shown:
        raise ValueError("nothing to draw: no system has an answer")
    high, top, row_height, left, right = max(row["characters"]["p95"] for row in shown), 16, 46, 150, 420
    x = Scale(0.0, max(high, 1.0) * 1.04, left, right)
    bottom = top + row_height * len(shown)
    parts = x_axis(
        x, [(value, words.count(int(value))) for value in ticks(0.0, x.high) if value == int(value)], top, bottom
    )
    for at, row in enumerate(shown):
        y, role, of = top + row_height * (at + 0.5), row["role"], row["characters"]
        low, first, median, third, most = (x(of[name]) for name in ("p5", "p25", "median", "p75", "p95"))
        css = css_of(role)
        parts += [
            text(0, y + 5, words.shorten(words.role(role), 20), "strong"),
            line(low, y, most, y, f"interval i-{css}"),
            *(line(end, y - 6, end, y + 6, f"cap i-{css}") for end in (low, most)),
            f'<rect class="box i-{css}" x="{first:.2f}" y="{y - 10:.2f}" width="{max(third - first, 1):.2f}" height="20"/>',
            marker(role, median, y),
            text(WIDTH, y - 3, _whole(of["median"]), "strong", "end"),
            text(WIDTH, y + 13, f"{_whole(of['p5'])} to {_whole(of['p95'])}", "small", "end"),
        ]
    parts.append(text((left + right) / 2, bottom + 38, "characters of an answer", "small", "middle"))
    desc = "; ".join(
        f"{words.role(row['role'])}: median {_whole(of['median'])} characters, half of {words.count(row['n'])} answers "
        f"between {_whole(of['p25'])} and {_whole(of['p75'])}, 5 % to 95 % {_whole(of['p5'])} to {_whole(of['p95'])}"
        for row in shown
        for of in (row["characters"],)
    )
    return frame(ident, bottom + 44, "How long the answers are", desc, parts)


def _whole(value: float) -> str:
    return words.count(round(value))


def _stairs(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """From each point right to the next one's price, then up: below and right of it everything is beaten."""
    found = points[:1]
    for (_, before), (px, py) in pairwise(points):
        found += [(px, before), (px, py)]
    return found


def _labels(shown: Sequence[Record], xs: Sequence[float], ys: Sequence[float]) -> list[str]:
    """Names beside the marks, pushed down where they would run into another name or another mark."""
    taken = [(x - 9, x + 9, y) for x, y in zip(xs, ys, strict=True)]
    parts: list[str] = []
    for index in sorted(range(len(shown)), key=lambda position: ys[position]):
        name = words.shorten(words.role(shown[index]["role"]), 20)
        late = xs[index] > WIDTH * 0.6
        near, far = xs[index] + (-15 if late else 15), xs[index] + (-15 - 8 * len(name) if late else 15 + 8 * len(name))
        left, right, y = min(near, far), max(near, far), ys[index]
        while any(low < right and high > left and abs(other - y) < 16 for low, high, other in taken):
            y += 4
        taken.append((left, right, y))
        parts.append(text(near, y + 5, name, "strong halo", "end" if late else "start"))
    return parts
