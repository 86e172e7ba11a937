"""Pictures of price and length: marks where the axes say, the front ringed, nothing drawn of what is not known."""

import math
import re

import pytest

from tutelage.prove.paying import MONEY
from tutelage.report import price_plots, words


def system(role: str, accuracy: float, usd: float) -> dict:
    return {
        "role": role, "accuracy": accuracy, "ci_low": accuracy - 0.05, "ci_high": accuracy + 0.05,
        "usd_per_1000": usd, "cpu_s_per_query": None,
    }  # fmt: skip


SYSTEMS = [
    system("teacher", 0.9, 4.0),
    system("student", 0.8, 0.2),
    system("before", 0.5, 0.2),
    system("plain", 0.7, 0.0),
]


def rings(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'class="ring" cx="([\d.]+)" cy="([\d.]+)"', svg)]


def test_the_front_is_ringed_and_joined() -> None:
    svg = price_plots.price_chart(SYSTEMS, unit=MONEY, quality="F1")
    teacher, student = sorted(rings(svg), reverse=True)
    assert teacher[0] - student[0] > 0 and teacher[1] < student[1]
    assert 'class="front"' in svg and "US dollars per 1,000 questions" in svg and ">F1<" in svg
    assert "Plain fine-tuning" not in svg, "a price of 0 has no place on a logarithmic axis"
    assert svg.count("on the Pareto front") == 2


def test_prices_stand_where_the_axis_says() -> None:
    svg = price_plots.price_chart(SYSTEMS, unit=MONEY)
    ticks = {value: float(x) for x, value in re.findall(r'<text x="([\d.]+)" y="309.0"[^>]*>([\d.]+)<', svg)}
    (low, at_low), *_, (high, at_high) = ((math.log10(float(value)), x) for value, x in ticks.items())
    where = at_low + (math.log10(0.2) - low) / (high - low) * (at_high - at_low)
    assert min(x for x, _ in rings(svg)) == pytest.approx(where, abs=0.3)


@pytest.mark.parametrize("teacher_usd", [0.0123, 0.0124, 0.015, 0.019])
def test_the_axis_has_marks_where_prices_are_nearly_alike(teacher_usd: float) -> None:
    svg = price_plots.price_chart([system("teacher", 0.9, teacher_usd), system("student", 0.8, 0.0123)], unit=MONEY)
    marks = {float(x): value for x, value in re.findall(r'<text x="([\d.]+)" y="309.0"[^>]*>([\d.]+)<', svg)}
    assert len(marks) >= 2
    assert all(56 <= x <= price_plots.WIDTH - 12 for x in marks)


def test_nothing_is_drawn_of_nothing() -> None:
    with pytest.raises(ValueError, match="CPU-seconds"):
        price_plots.price_chart(SYSTEMS)
    with pytest.raises(ValueError, match="no system has an answer"):
        price_plots.lengths_chart([{"role": "student", "n": 0, "characters": None}])


def test_lengths_in_order() -> None:
    of = {"p5": 10.0, "p25": 40.0, "median": 80.0, "p75": 120.0, "p95": 400.0}
    rows = [
        {"role": "teacher", "n": 9, "characters": of},
        {"role": "student", "n": 9, "characters": dict.fromkeys(of, 0.0)},
    ]
    svg = price_plots.lengths_chart(rows)
    box = re.search(r'class="box i-teacher" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)
    assert box is not None
    x, wide = map(float, box.groups())
    span = 270 / (400 * 1.04)
    assert x == pytest.approx(150 + 40 * span, abs=0.05) and wide == pytest.approx(80 * span, abs=0.05)
    assert "median 80 characters, half of 9 answers between 40 and 120" in svg and "nan" not in svg


def test_energy_in_words() -> None:
    said = [words.energy(value).replace(words.NBSP, " ") for value in (840.0, 12_300.0, 5.2e6)]
    assert said == ["840 J", "12.3 kJ", "5.20 MJ (1.44 kWh)"]
