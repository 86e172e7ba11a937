"""Chunk likelihoods: the published implementation's values, the ends 0 and 1, and one tokenizer twice."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.losses.cases import draw_logits, draw_text
from tutelage.losses.alm import Chunks, alm, log1mexp
from tutelage.losses.joint import log_likelihood

PUBLISHED = json.loads((Path(__file__).parents[1] / "golden" / "alm.json").read_bytes())


@pytest.mark.parametrize("case", PUBLISHED["cases"])
def test_equals_the_published_implementation(case: dict) -> None:
    tokens = torch.tensor(case["student_tokens"])
    unit = torch.repeat_interleave(torch.arange(len(tokens)), tokens)
    logp = torch.zeros(len(unit))
    ends = torch.tensor(case["teacher_tokens"]).cumsum(0).tolist()
    for chunk, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        logp[int((unit == chunk).nonzero()[0])] = math.fsum(case["teacher_logp"][start:stop])
    logq = torch.tensor(case["student_logq"]).requires_grad_()
    mean = alm(logq, Chunks(torch.zeros_like(unit), unit, logp), case["temperature"]).sum() / len(tokens)
    assert mean.item() == pytest.approx(case["mean_loss"], rel=1e-5)
    mean.backward()
    assert logq.grad is not None
    known = logq.detach() < 0  # at 0 each library has a derivative of its own for the bound, times 1 − q = 0
    torch.testing.assert_close(logq.grad[known], torch.tensor(case["gradient_by_logq"])[known], rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("tau", [1.0, 100.0])
@pytest.mark.parametrize("teacher", [0.0, -1e-9, -3.0, -2e3, -math.inf])
@pytest.mark.parametrize("student", [0.0, -1e-9, -3.0, -2e3, -math.inf])
def test_is_finite_for_chunks_that_are_certain_or_impossible(tau: float, teacher: float, student: float) -> None:
    logq = torch.tensor([student, -1.0]).requires_grad_()
    found = alm(logq, Chunks(torch.tensor([1, 2]), torch.tensor([0, 1]), torch.tensor([teacher, -1.0])), tau)
    found.sum().backward()
    assert logq.grad is not None
    assert torch.isfinite(found).all()
    assert torch.isfinite(logq.grad).all()


@given(st.integers(0, 10**6), st.sampled_from([1.0, 7.0, 100.0]))
@settings(max_examples=25, deadline=None)
def test_with_one_tokenizer_twice_it_is_the_binarised_token_loss(seed: int, tau: float) -> None:
    """Every chunk is a token: the cross-entropy of "this token or another", and least where student and teacher are the same."""
    logits, ids = draw_logits(seed, 6), draw_text(seed, 6).ids_N
    logp = log_likelihood(draw_logits(seed + 9, 6), ids)
    signal = Chunks(ids, torch.arange(6), logp)
    logq = log_likelihood(logits, ids)
    a, b = ((value / tau - 1e-6).exp() for value in (logp, logq))
    torch.testing.assert_close(alm(logq, signal, tau), -a * b.log() - (1 - a) * (1 - b).log(), rtol=1e-8, atol=1e-8)
    leaf = logp.clone().requires_grad_()
    alm(leaf, signal, tau).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() < 1e-9
    assert bool((alm(logq, signal, tau) >= alm(logp, signal, tau) - 1e-12).all())


def test_its_gradient_times_the_temperature_is_on_the_scale_of_cross_entropy() -> None:
    logp, logq = torch.tensor([-1.0, -4.0, 0.0]).double(), torch.tensor([-2.0, -1.0, -3.0]).double().requires_grad_()
    alm(logq, Chunks(torch.zeros(3).long(), torch.arange(3), logp), 1e3).mul(1e3).sum().backward()
    assert logq.grad is not None
    torch.testing.assert_close(logq.grad, torch.tensor([-0.5, 3.0, -1.0]).double(), rtol=0, atol=0.02)


def test_log1mexp_keeps_its_digits() -> None:
    for value in (-1e-12, -1e-6, -0.6931471805599453, -1.0, -40.0):
        assert log1mexp(torch.tensor(value, dtype=torch.float64)).item() == pytest.approx(
            math.log(-math.expm1(value)) if value > -1 else math.log1p(-math.exp(value)), rel=1e-12
        )
