"""Calibration after training: a student that is too sure is found out and mended, one that is not is left alone."""

import math

import pytest
import torch

from benchmarks.experiments.oracle import Oracle, Taught, tiny, zipf
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.stats.calibration import expected_calibration_error, fit_temperature
from tutelage.train.calibration import _half, _temperature, calibrate
from tutelage.train.loop import precision
from tutelage.train.offpolicy import passage_of

OFF = precision("float32")


def speaker(sharp: float, vocabulary: int = 64) -> tuple[Causal, Oracle]:
    """A model whose own distribution is the language, and which says it `sharp` times as surely."""
    student = tiny(vocabulary, 3)
    with torch.no_grad():
        student.model.lm_head.weight.mul_(60 * sharp)
    return student, zipf(vocabulary, 0)


def own_text(student: Causal, sharp: float, count: int, seed: int) -> list:
    """What the model writes at the temperature that undoes its sharpness."""
    from tutelage.train.onpolicy import written
    from tutelage.train.rollout_local import LocalRoller

    found = LocalRoller(student.model, ends=frozenset({-1})).write(
        [(0,)] * count, 32, sharp, list(range(seed, seed + count))
    )
    return [written(one, "own") for one in found]


@pytest.mark.parametrize("sharp", [1.0, 2.0, 0.6])
def test_the_temperature_that_was_put_in_is_found_and_undone(sharp: float) -> None:
    student, _ = speaker(sharp)
    found = calibrate(student, own_text(student, sharp, 120, 0), OFF)
    assert found is not None and found.temperature == pytest.approx(sharp, rel=0.06)
    assert found.positions == 60 * 32 and 0.05 < found.right < 0.95
    assert found.ece_after is not None and found.ece_after < 0.04
    if sharp == 2.0:
        assert found.ece > 3 * found.ece_after
    assert found.kl_nats is None and {"kl_nats_ppm", "teacher_ece_ppm"}.isdisjoint(found.facts())
    assert found.facts()["temperature_ppm"] == round(1e6 * found.temperature)


def test_it_is_the_temperature_of_the_statistics_on_the_same_numbers() -> None:
    student, _ = speaker(1.3, 16)
    texts = own_text(student, 1.0, 12, 5)
    half = _half(student, texts, OFF, None)
    logits = student.head().logits(half.hidden_ND).double()
    expected = fit_temperature(logits.log_softmax(-1).detach().numpy(), half.ids_N.numpy())
    assert _temperature(half, student.head()) == pytest.approx(expected, rel=1e-4)


def test_a_teachers_distribution_is_compared_before_and_after() -> None:
    student, oracle = speaker(1.0)
    texts = oracle.texts(40, 16, 2)
    found = calibrate(student, texts, OFF, Taught(oracle, make("forward-kl")))
    assert found is not None and found.kl_nats is not None and found.kl_nats_after is not None
    passage = passage_of(texts[1::2])
    with torch.no_grad():
        logq = (
            student.head().logits(student.hidden(passage.ids_T, passage.lengths)).log_softmax(-1)[passage.positions_N]
        )
    logp = oracle.rows(passage.ids_T, passage.lengths)[passage.positions_N]
    assert found.kl_nats == pytest.approx(float((logp.exp() * (logp - logq)).sum(-1).mean()), rel=1e-4)
    assert found.kl_nats_after < found.kl_nats
    best = logp.exp().max(-1)
    right = (best.indices == passage.target_ids_N).numpy()
    assert found.teacher_ece == pytest.approx(expected_calibration_error(best.values.double().numpy(), right), rel=1e-4)
    assert found.facts()["teacher_ece_ppm"] == round(1e6 * found.teacher_ece) != found.facts()["ece_ppm"]


def test_where_nothing_can_be_fitted_it_is_said() -> None:
    student, _ = speaker(1.0)
    texts = own_text(student, 0.0, 4, 0)  # the likeliest tokens: all right
    found = calibrate(student, texts, OFF)
    assert found is not None and found.temperature is None and found.ece_after is None and found.right == 1.0
    assert calibrate(student, texts[:1], OFF) is None
    assert math.isfinite(found.ece)
