import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import ConfigError
from tutelage.stats.permutation import paired_permutation
from tutelage.stats.power_means import sign_flip_items_needed, sign_flip_power
from tutelage.stats.power_sequences import _first_passage, sequence_items_needed, sequence_power
from tutelage.stats.sequences import confidence_sequence


@pytest.mark.parametrize(("height", "slope"), [(1.0, 0.0), (1.0, 0.5), (2.0, -1.0), (0.5, 2.0)])
def test_a_straight_line_is_crossed_as_often_as_known(height, slope):
    """Bachelier and Levy: P(W crosses a + b t by t) = Φ(−(a + bt)/√t) + e^(−2ab) Φ((bt − a)/√t)."""
    time = np.geomspace(1e-3, 1.0, 300)

    def phi(z):
        return 0.5 * math.erfc(-z / math.sqrt(2))

    known = phi(-(height + slope)) + math.exp(-2 * height * slope) * phi(slope - height)
    assert _first_passage(time, height + slope * time) == pytest.approx(known, abs=2e-4)


def test_promised_is_what_looks_deliver():
    rng, said = np.random.default_rng(0), np.zeros(2)
    for _ in range(600):
        scores = rng.choice([1.0, 0.0, -1.0], 500, p=[0.06, 0.9, 0.04])
        said += confidence_sequence(scores, bounds=(-1.0, 1.0)).low_T[[249, 499]] > -0.05
    deviation = math.sqrt(0.1 - 0.02**2)
    promised = [sequence_power(n, 0.02, deviation, 0.05) for n in (250, 500)]
    assert said / 600 == pytest.approx(promised, abs=0.06)
    assert 0.2 < promised[0] < promised[1] < 0.97


@settings(max_examples=15)
@given(st.integers(2, 800), st.floats(-0.1, 0.3), st.floats(0.1, 0.6), st.floats(0.0, 0.2))
def test_more_items_and_more_margin_find_more(items, difference, deviation, margin):
    got = sequence_power(items, difference, deviation, margin)
    assert 0.0 <= got <= 1.0
    assert sequence_power(2 * items, difference, deviation, margin) >= got - 1e-2
    assert sequence_power(items, difference, deviation, margin + 0.05) >= got - 1e-2
    assert sequence_power(items, difference, deviation, margin, 0.8) >= got - 1e-2
    in_points = sequence_power(items, 5 * difference, 5 * deviation, 5 * margin, bounds=(0.0, 5.0))
    assert in_points == pytest.approx(got, abs=1e-9)


def test_what_a_sequence_needs():
    needed = sequence_items_needed(0.9, 0.0, math.sqrt(0.1), 0.05)
    assert sequence_power(needed, 0.0, math.sqrt(0.1), 0.05) >= 0.9
    assert sequence_power(needed - 1, 0.0, math.sqrt(0.1), 0.05) < 0.9
    assert needed < sequence_items_needed(0.9, 0.0, math.sqrt(0.2), 0.05)


@pytest.mark.parametrize(("items", "difference"), [(12, 0.9), (40, -0.5)])
def test_sign_flips_find_what_was_promised(items, difference):
    rng = np.random.default_rng(1)
    found = sum(paired_permutation(rng.normal(difference, 1.0, items), rng, 999).p <= 0.05 for _ in range(400))
    assert found / 400 == pytest.approx(sign_flip_power(items, difference, 1.0), abs=0.065)


def test_what_sign_flips_need():
    needed = sign_flip_items_needed(0.9, 0.1, 0.5)
    assert sign_flip_power(needed, 0.1, 0.5) >= 0.9 > sign_flip_power(needed - 1, 0.1, 0.5)
    assert sign_flip_power(50, 0.1, 0.5) == pytest.approx(sign_flip_power(50, -0.1, 0.5))
    assert sign_flip_power(50, 1e-12, 0.5) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sequence_power(1, 0.0, 0.3), "1 items"),
        (lambda: sequence_power(10**7, 0.0, 0.3), "10000000 items"),
        (lambda: sequence_power(100, 0.0, 0.3, bounds=(1.0, 1.0)), r"bounds \(1\.0, 1\.0\)"),
        (lambda: sequence_power(100, 0.0, 0.0), r"deviation 0\.0"),
        (lambda: sequence_power(100, 0.9, 0.9), r"deviation 0\.9"),
        (lambda: sequence_power(100, math.nan, 0.3), "difference of nan"),
        (lambda: sequence_power(100, 0.0, 0.3, -0.03), r"(?s)margin -0\.03.*not -0\.03"),
        (lambda: sequence_power(100, 0.0, 0.3, level=95), "level 95"),
        (lambda: sequence_items_needed(0.9, 0.0, 0.3), "not above minus the margin"),
        (lambda: sequence_items_needed(0.9, 1e-6, 0.3), "more than 2000000"),
        (lambda: sequence_items_needed(1.0, 0.5, 0.3), r"power 1\.0"),
        (lambda: sign_flip_power(5, 0.1, 1.0), "5 items"),
        (lambda: sign_flip_power(50, 0.1, 0.0), r"deviation 0\.0"),
        (lambda: sign_flip_power(50, math.inf, 1.0), "difference of inf"),
        (lambda: sign_flip_items_needed(0.9, 0.0, 1.0), "never found"),
    ],
)
def test_bad_plans_are_named(call, words):
    with pytest.raises(ConfigError, match=words):
        call()
