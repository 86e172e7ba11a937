"""The charts of the page, each a pure function from evidence to an inline SVG string.

Every chart says its numbers again in `<desc>`; model-written text is escaped. Proportions are 0..1, axes show percent.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.report import claims, words
from tutelage.report.svg import WIDTH, Scale, css_of, frame, line, marker, padded, path, text, ticks, x_axis, y_axis

Record = Mapping[str, Any]


def accuracy_chart(systems: Sequence[Record], ident: str = "accuracy", quality: str = "accuracy") -> str:
    """Every system's accuracy (or the `quality` of that name) as a dot with its interval, one row each; the
    teacher's value runs down as a line.

    Raises `ValueError` when there is no system.
    """
    _some(systems, "systems")
    row, top, left, right = 46, 16, 168, 404
    low, high = padded(min(s["ci_low"] for s in systems), max(s["ci_high"] for s in systems))
    scale = Scale(low, high, left, right)
    bottom = top + row * len(systems)
    one_n = len({system["n"] for system in systems}) == 1
    parts = x_axis(scale, [(value, words.percent(value, 0)) for value in ticks(low, high)], top, bottom)
    parts += [line(scale(s["accuracy"]), top, scale(s["accuracy"]), bottom, "ref") for s in _of(systems, "teacher")]
    for index, system in enumerate(systems):
        y = top + row * (index + 0.5)
        label = system["label"] if one_n else f"n {words.count(system['n'])} · {system['label']}"
        parts += [
            text(0, y - 3, words.shorten(words.role(system["role"]), 20), "strong"),
            text(0, y + 13, words.shorten(label, 22), "small"),
            *_whiskers(scale(system["ci_low"]), scale(system["ci_high"]), y, system["role"]),
            marker(system["role"], scale(system["accuracy"]), y, 4.5),
            text(WIDTH, y - 3, words.percent(system["accuracy"]), "strong", "end"),
            text(WIDTH, y + 13, words.percent_range(system["ci_low"], system["ci_high"]), "small", "end"),
        ]
    note = f"{quality}, n = {words.count(systems[0]['n'])} each" if one_n else quality
    parts.append(text((left + right) / 2, bottom + 38, note, "small", "middle"))
    desc = "; ".join(
        f"{words.role(s['role'])} ({s['label']}): {words.percent(s['accuracy'])}, interval "
        f"{words.percent_range(s['ci_low'], s['ci_high'])}, n {words.count(s['n'])}"
        for s in systems
    )
    return frame(ident, bottom + 44, f"{quality[:1].upper()}{quality[1:]} of every system, with intervals", desc, parts)


def margin_chart(claim: Record, ident: str = "margin") -> str:
    """The paired difference and its interval against zero and minus the margin, and plus the margin where it says EQUIVALENT."""
    margin, top, bottom, y = claim["margin"], 52, 138, 98
    both = claim["verdict"] == "EQUIVALENT"
    low, high = padded(min(claim["ci_low"], -margin), max(claim["ci_high"], margin if both else 0.0), 0.04)
    unit = (high - low) / (WIDTH - 140)  # 70 pixels on both sides for the numbers beside the interval
    scale = Scale(low - 70 * unit, high + 70 * unit, 0, WIDTH)
    edge, zero = scale(-margin), scale(0)
    difference = f"{claims.apart(claim, claim['difference'])}{words.NBSP}{claims.unit(claim)}"
    margin_words = f"margin {words.MINUS}{claims.margin(claim)}"
    is_points = claims.unit(claim) == claims.POINTS
    said = (lambda v: words.points(v, _decimals(low, high))) if is_points else (lambda v: claims.apart(claim, v))
    marks = [(v, said(v)) for v in ticks(low - 50 * unit, high + 50 * unit)]
    compared = f"percentage points of {claim['metric']}" if is_points else claim["metric"]
    verticals = (edge, zero, scale(margin)) if both else (edge, zero)
    above = _clear_of(scale(claim["difference"]), verticals)
    beside = (edge - 5, "end") if edge > 160 else (edge - 5, "start")
    parts = [
        f'<rect class="beyond" x="0" y="{top}" width="{edge:.2f}" height="{bottom - top}"/>',
        *x_axis(scale, marks, bottom, bottom),
        line(edge, top - 6, edge, bottom, "edge"),
        *(_other_edge(scale(margin), top, bottom, claims.margin(claim)) if both else []),
        line(zero, top - 24, zero, bottom, "zero"),
        text(zero, top - 30, "no difference", "small", "end" if zero > WIDTH / 2 else "start"),
        text(beside[0], top - 12, margin_words, "strong", beside[1]),
        *_whiskers(scale(claim["ci_low"]), scale(claim["ci_high"]), y, "student"),
        marker("student", scale(claim["difference"]), y, 7),
        text(above, y - 17, difference, "strong halo", "middle"),
        text(scale(claim["ci_low"]) - 9, y + 5, claims.apart(claim, claim["ci_low"]), "halo", "end"),
        text(scale(claim["ci_high"]) + 9, y + 5, claims.apart(claim, claim["ci_high"]), "halo"),
        text(WIDTH / 2, bottom + 39, f"student minus teacher, {compared}", "small", "middle"),
    ]
    desc = (
        f"Difference {difference}, {words.level(claim['level'])} interval "
        f"{claims.between(claim)}, {margin_words} {claims.unit(claim)}, n {words.count(claim['n'])}. "
        f"Verdict: {claim['verdict']}."
    )
    return frame(ident, bottom + 46, "Difference from the teacher against the margin", desc, parts)


def _other_edge(x: float, top: float, bottom: float, margin: str) -> list[str]:
    """Plus the margin: what an equivalence must not pass either."""
    label = text(x, top - 12, f"+{margin}", "strong", "middle")
    return [line(x, top - 6, x, bottom, "edge"), label]


def training_chart(training: Record, ident: str = "training") -> str:
    """Training loss and, below it on its own axis, validation KL (nats) by step; the kept step is marked.

    Raises `ValueError` when the curve is empty.
    """
    curve = training["curve"]
    _some(curve, "training.curve")
    loss = [(point["step"], point["loss_nats"]) for point in curve]
    held = [(p["step"], p["validation_kl_nats"]) for p in curve if p["validation_kl_nats"] is not None]
    low, high = loss[0][0], max(loss[-1][0], loss[0][0] + 1)
    scale = Scale(low, high, 56, WIDTH - 16)
    panels = [("training loss, nats", loss, "loss")] + ([("validation KL, nats", held, "kl")] if held else [])
    tall, gap = (118, 46) if len(panels) == 2 else (220, 46)
    parts: list[str] = []
    for index, (title, points, css) in enumerate(panels):
        top = 30 + index * (tall + gap)
        parts += _panel(scale, title, points, css, top, top + tall)
    bottom = 30 + len(panels) * tall + (len(panels) - 1) * gap
    parts += x_axis(scale, [(v, words.count(int(v))) for v in ticks(low, high) if v == int(v)], bottom, bottom)
    chosen = scale(min(max(training["chosen_step"], low), high))
    late = chosen > WIDTH * 0.6
    parts += [
        line(chosen, 18, chosen, bottom, "ref"),
        text(
            chosen + (-6 if late else 6),
            18,
            f"kept: step {words.count(training['chosen_step'])}",
            "strong halo",
            "end" if late else "start",
        ),
        text((56 + WIDTH - 16) / 2, bottom + 38, "optimizer step", "small", "middle"),
    ]
    desc = f"Training loss from {words.number(loss[0][1])} to {words.number(loss[-1][1])} nats over {len(loss)} points"
    if held:
        desc += f"; validation KL from {words.number(held[0][1])} to {words.number(held[-1][1])} nats"
    desc += f"; step {training['chosen_step']} was kept."
    return frame(ident, bottom + 44, "Training loss and validation KL", desc, parts)


def reliability_chart(systems: Sequence[Record], ident: str = "reliability") -> str:
    """Accuracy against stated confidence, teacher and student; a mark's area grows with the bin's n.

    Raises `ValueError` when no system has a bin with an answer in it.
    """
    shown = [(s, [b for b in s["reliability"] if has_mean(b)]) for s in systems if s["role"] in ("teacher", "student")]
    shown = [(system, bins) for system, bins in shown if bins]
    _some(shown, "reliability bins")
    lowest = min(min(b["confidence"], b["accuracy"]) for _, bins in shown for b in bins)
    most = max(b["n"] for _, bins in shown for b in bins)
    floor = max(0.0, math.floor(lowest * 10) / 10 - 0.02)
    x, y = Scale(floor, 1.02, 52, 372), Scale(floor, 1.02, 330, 16)
    marks = [(value, words.percent(value, 0)) for value in ticks(floor, 1.02)]
    parts = [*x_axis(x, marks, 16, 330), *y_axis(y, marks, 52, 372)]
    parts.append(line(x(floor), y(floor), x(1.0), y(1.0), "ref"))
    for system, bins in shown:
        places = [(x(b["confidence"]), y(b["accuracy"]), 3 + 7 * math.sqrt(b["n"] / most)) for b in bins]
        parts.append(path([place[:2] for place in places], f"curve {system['role']}"))
        parts += [marker(system["role"], *place) for place in places]
    for index, (system, _) in enumerate(shown):
        top = 40 + 62 * index
        ece = f"{words.DASH} not measured" if system["ece"] is None else words.number(system["ece"], 2)
        parts += [marker(system["role"], 398, top - 5), text(412, top, words.role(system["role"]), "strong")]
        parts += [
            text(412, top + 17, f"ECE {ece}", "small"),
            text(412, top + 33, f"n {words.count(system['n'])}", "small"),
        ]
    parts += [
        text(212, 368, "stated confidence", "small", "middle"),
        text(0, 11, "accuracy", "small"),
        text(388, 306, "on the line: means", "small"),
        text(388, 322, "what it says", "small"),
    ]
    desc = "; ".join(
        f"{words.role(system['role'])}: "
        + ", ".join(
            f"{words.percent(b['confidence'], 0)} → {words.percent(b['accuracy'], 0)} (n {b['n']})" for b in bins
        )
        for system, bins in shown
    )
    return frame(ident, 374, "Reliability: stated confidence against accuracy", desc, parts)


def has_mean(bin_: Record) -> bool:
    """Whether a reliability bin has answers in it and therefore a confidence and an accuracy."""
    return bin_["n"] > 0 and bin_["confidence"] is not None and bin_["accuracy"] is not None


def _clear_of(x: float, verticals: tuple[float, ...], half: float = 54) -> float:
    """The place nearest to `x` where a label `2 * half` wide crosses no vertical line, or `x` when there is none."""
    places = [x] + [vertical + side for vertical in verticals for side in (-half, half)]
    free = [p for p in places if all(abs(p - v) >= half for v in verticals) and half <= p <= WIDTH - half]
    return min(free, key=lambda place: abs(place - x), default=x)


def _panel(
    scale: Scale, title: str, points: list[tuple[float, float]], css: str, top: float, bottom: float
) -> list[str]:
    low, high = padded(min(value for _, value in points), max(value for _, value in points))
    y = Scale(low, high, bottom, top)
    places = [(scale(step), y(value)) for step, value in points]
    dots = [f'<circle class="dot {css}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in places]
    return [
        *y_axis(y, [(value, f"{value:g}") for value in ticks(low, high, 4)], scale.start, scale.end),
        line(scale.start, bottom, scale.end, bottom, "axis"),
        path(places, f"curve {css}"),
        *(dots if len(dots) <= 40 else []),
        text(scale.start, top - 9, title, "small"),
    ]


def _whiskers(low: float, high: float, y: float, role: str) -> list[str]:
    css = f"interval i-{css_of(role)}"
    caps = [line(x, y - 6, x, y + 6, f"cap i-{css_of(role)}") for x in (low, high)]
    return [line(low, y, high, y, css), *caps]


def _decimals(low: float, high: float) -> int:
    """Decimals that keep neighbouring ticks of a point axis apart."""
    return 0 if (high - low) * 100 > 4 else 1


def _of(systems: Sequence[Record], role: str) -> list[Record]:
    return [system for system in systems if system["role"] == role]


def _some(values: Sequence[Any], name: str) -> None:
    if not values:
        raise ValueError(f"nothing to draw: {name} is empty")
