"""Losses that tie positions together: exact, and the same however many positions have logits at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.losses.cases import JOINT, VOCABULARY, JointCase, draw_logits, draw_text, seeded
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part, head_gradients, values
from tutelage.losses.joint import at_last, unit_sums
from tutelage.signals import Head, Text

SEEDS = st.integers(0, 10**6)
WIDTH = 5


@pytest.mark.parametrize("case", JOINT, ids=str)
@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_equals_the_naive_twin(case: JointCase, seed: int) -> None:
    signal = case.draw(seed)
    logits = draw_logits(seed, len(signal))
    logq = logits.log_softmax(-1).gather(-1, signal.ids_N[:, None])[:, 0]
    expected = torch.tensor(case.twin(logq.tolist(), signal), dtype=torch.float64)
    torch.testing.assert_close(case.loss()(logits, signal), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(case.loss().joint(logq, signal), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", JOINT, ids=str)
def test_gradient_equals_finite_differences(case: JointCase) -> None:
    loss = case.loss()
    for seed in range(3):
        signal = case.draw(seed)
        logits = draw_logits(seed, len(signal)).requires_grad_()
        assert torch.autograd.gradcheck(lambda z, s=signal: loss(z, s), logits, eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", JOINT, ids=str)
@pytest.mark.parametrize("rows", [2, 3, 100])
def test_chunks_of_positions_change_nothing(case: JointCase, rows: int) -> None:
    """Beside a second loss on the same positions: values, gradient by hidden states and by the head, against autograd."""
    signal, count = case.draw(4), len(case.draw(4))
    hidden = torch.randn(count, WIDTH, generator=seeded(1), dtype=torch.float64)
    weight = torch.randn(VOCABULARY, WIDTH, generator=seeded(2), dtype=torch.float64)
    text = Part(make("cross-entropy"), Text(draw_text(9, count).ids_N), 0.5)
    parts = (Part(case.loss(), signal, 2.0), text)
    buffer = torch.zeros_like(weight)
    found = head_gradients(hidden, Head(weight), parts, 0.25, weight_gradient_VD=buffer, rows=rows)

    leaf, head = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    joint, words = (part.loss(leaf @ head.T, part.signal) for part in parts)
    (0.25 * (2.0 * joint.sum() + 0.5 * words.sum())).backward()
    torch.testing.assert_close(found.gradient_ND, leaf.grad)
    torch.testing.assert_close(buffer, head.grad)
    assert found.nats == pytest.approx((joint.sum().item(), words.sum().item()))
    for one, other in zip(values(hidden, Head(weight), parts, rows), (joint, words), strict=True):
        torch.testing.assert_close(one, other.detach())


@given(st.lists(st.integers(-1, 3), max_size=12))
def test_units_are_summed_and_stand_at_their_last_position(units: list[int]) -> None:
    unit = torch.tensor(units, dtype=torch.long)
    value = torch.arange(1.0, 1 + len(units), dtype=torch.float64)
    expected = [sum(v for v, one in zip(value.tolist(), units, strict=True) if one == at) for at in range(4)]
    sums = unit_sums(value, unit, 4)
    assert sums.tolist() == expected
    placed = at_last(sums, unit)
    assert placed.sum().item() == pytest.approx(sum(expected))
    for at in range(4):
        if at in units:
            assert placed[len(units) - 1 - units[::-1].index(at)].item() == expected[at]
