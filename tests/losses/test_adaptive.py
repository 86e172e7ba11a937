"""Divergences in which something of the student is held fixed, and DistiLLM-2: derivatives, limits, the published traps."""

import pytest
import torch

from tests.losses.cases import draw_dense, draw_logits, seeded
from tests.reference import losses_naive as naive
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import make
from tutelage.losses.contrast import Contrast, HiddenContrast, adaptive_alpha, average_token, own_weight
from tutelage.signals import Dense, Head, Signal
from tutelage.signals.joining import joined


def slope(loss: Loss, logits_NV: torch.Tensor, signal: Signal) -> torch.Tensor:
    leaf = logits_NV.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, signal).sum(), leaf)[0]


def draw_contrast(seed: int, rows: int = 6) -> Contrast:
    """Two answers of the data's and two of the student's own by turns of positions; gaps of either sign."""
    generator = seeded(seed + 6)
    at = torch.arange(rows) % 4
    gap = torch.tensor([0.2, -0.1, 0.05, 0.3], dtype=torch.float64)[at]
    mean = torch.where(at % 2 == 1, 0.1, 0.125).double()
    share = torch.rand(rows, generator=generator, dtype=torch.float64)
    return Contrast(draw_dense(seed, rows).logp_NV, at % 2 == 1, share, gap, mean, 0.3)


@pytest.mark.parametrize("alpha", [0.1, 0.4])
@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_distillm_2_equals_its_twin_in_value_and_derivative(alpha: float, beta: float) -> None:
    loss = make("distillm-2", alpha=alpha, beta=beta)
    for seed in range(5):
        logits, signal = draw_logits(seed, 6), draw_contrast(seed)
        value, gradient = loss(logits, signal), slope(loss, logits, signal)
        for at, row in enumerate(logits.tolist()):
            p = signal.logp_NV[at].exp().tolist()
            own, share = bool(signal.own_N[at]), float(signal.share_N[at])
            gap, mean = float(signal.gap_N[at]), float(signal.mean_gap_N[at])
            expected = naive.contrast_naive(row, p, own, share, gap, mean, 0.3, alpha, beta)
            assert float(value[at]) == pytest.approx(expected, rel=1e-9)
            weight = 1 + (beta - 1) * 0.6
            pull = naive.contrast_gradient_naive(row, p, own, naive.alpha_naive(gap, mean, alpha))
            scaled = [share * (weight if own else 2 - weight) * one for one in pull]
            torch.testing.assert_close(gradient[at], torch.tensor(scaled, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_without_skew_distillm_2_is_forward_and_reverse_kl() -> None:
    logits, signal = draw_logits(3, 6), draw_contrast(3)
    loss = make("distillm-2", alpha=1e-9, beta=1.0)
    found, gradient = loss(logits, signal), slope(loss, logits, signal)
    for own, name in ((False, "forward-kl"), (True, "reverse-kl")):
        rows = signal.own_N == own
        share = signal.share_N[rows]
        torch.testing.assert_close(
            found[rows], share * make(name)(logits[rows], signal.rows(rows)), rtol=1e-6, atol=1e-8
        )
        expected = share[:, None] * slope(make(name), logits[rows], Dense(signal.logp_NV[rows]))
        torch.testing.assert_close(gradient[rows], expected, rtol=1e-6, atol=1e-7)


def test_the_student_is_held_fixed_inside_its_own_mixture() -> None:
    """The value is that of skew reverse KL, the derivative is not: it is stronger, as if p were further off."""
    logits, dense = draw_logits(1, 4), draw_dense(1, 4)
    ones = torch.ones(4, dtype=torch.float64)
    signal = Contrast(dense.logp_NV, ones.bool(), ones, -ones, ones, 0.0)  # gaps reversed: the largest skew
    fixed, moving = make("distillm-2", alpha=0.3), make("skew-reverse-kl", alpha=0.3)
    torch.testing.assert_close(fixed(logits, signal), moving(logits, dense))
    assert ((slope(fixed, logits, signal) - slope(moving, logits, dense)).norm(dim=-1) > 0.01).all()
    p = Contrast(dense.logp_NV, ones.bool(), ones, -ones, ones, 0.0)
    torch.testing.assert_close(
        slope(fixed, dense.logp_NV, p), torch.zeros(4, 11, dtype=torch.float64), atol=1e-14, rtol=0
    )


def test_skew_and_weight_are_as_published() -> None:
    gap = torch.tensor([0.2, 0.1, 0.4, -0.3, 0.0], dtype=torch.float64)
    mean = torch.full_like(gap, 0.2)
    found = adaptive_alpha(gap, mean, 0.1).tolist()
    assert found[0] == pytest.approx(0.1, abs=1e-4) and found[1] == 0.01  # as far apart as the mean one; nearer
    assert found[2] == found[3] == 0.1 and found[4] == 0.01
    assert [own_weight(progress, 1.5) for progress in (0, 0.25, 0.5, 1)] == [1.0, 1.25, 1.5, 1.5]
    logp, answer = torch.tensor([-1.0, -3.0, -2.0]), torch.tensor([0, 0, 1])
    torch.testing.assert_close(average_token(logp, answer, 2), torch.tensor([-2.0, -2.0]).double().exp())


def test_hidden_states_keep_what_a_contrast_says() -> None:
    hidden, head = torch.randn(6, 5, generator=seeded(1)), Head(torch.randn(11, 5, generator=seeded(2)))
    whole = draw_contrast(1)
    signal = HiddenContrast(hidden, head, whole.own_N, whole.share_N, whole.gap_N, whole.mean_gap_N, 0.3)
    dense = signal.dense()
    assert isinstance(dense, Contrast) and dense.progress == 0.3
    again = joined([signal.rows(slice(0, 2)), signal.rows(slice(2, 6))])
    loss, logits = make("distillm-2"), draw_logits(1, 6)
    assert torch.equal(loss(logits, again), loss(logits, dense)) and not torch.equal(
        loss(logits, dense), loss(logits, whole)
    )


def test_the_head_of_adaptive_kl_is_measured_in_its_own_order() -> None:
    """Where the likeliest ids are last, a mask in sorted order on gaps in another one would take the tail's for the head's."""
    p = torch.tensor([[0.02, 0.03, 0.05, 0.3, 0.6]], dtype=torch.float64)
    q = torch.tensor([[0.02, 0.03, 0.05, 0.6, 0.3]], dtype=torch.float64)
    signal = Dense(p.log())
    torch.testing.assert_close(
        make("adaptive-kl", head=0.8)(q.log(), signal), make("forward-kl")(q.log(), signal)
    )  # all of the gap is on the head
    tail = torch.tensor([[0.1, 0.05, 0.05, 0.3, 0.5]], dtype=torch.float64)
    found = make("adaptive-kl", head=0.6)(tail.log(), signal)  # |p − q|: 0.1 on the head, 0.1 on the tail
    both = make("forward-kl")(tail.log(), signal) + make("reverse-kl")(tail.log(), signal)
    torch.testing.assert_close(found, both / 2)


def test_the_derivatives_of_what_is_weighed_or_moved() -> None:
    logits, signal = draw_logits(5), draw_dense(5)
    forward, reverse = (slope(make(name), logits, signal) for name in ("forward-kl", "reverse-kl"))
    p, q = signal.logp_NV.exp(), logits.softmax(-1)
    for at in range(len(logits)):
        value, one, other = (
            float(make(name)(logits, signal)[at]) for name in ("adaptive-kl", "forward-kl", "reverse-kl")
        )
        share = (value - other) / (one - other)
        assert 0 < share < 1
        mixed = share * forward[at] + (1 - share) * reverse[at]
        torch.testing.assert_close(slope(make("adaptive-kl"), logits, signal)[at], mixed, rtol=1e-7, atol=1e-9)
        target = naive.taid_target_naive(logits[at].tolist(), p[at].tolist(), 0.4)
        torch.testing.assert_close(
            slope(make("taid", t=0.4), logits, signal)[at], q[at] - torch.tensor(target, dtype=torch.float64)
        )
    torch.testing.assert_close(slope(make("taid", t=1.0), logits, signal), forward)
    torch.testing.assert_close(make("taid", t=1.0)(logits, signal), make("forward-kl")(logits, signal))
    assert make("taid", t=0.0)(logits, signal).abs().max() < 1e-13


def test_the_teachers_entropy_decides_where_forward_kl_counts_too() -> None:
    logits, signal = draw_logits(2, 40), draw_dense(2, 40)
    entropy = -(signal.logp_NV.exp() * signal.logp_NV).sum(-1)
    found = make("entropy-aware-kl", threshold_nats=1.2)(logits, signal)
    forward, reverse = make("forward-kl")(logits, signal), make("reverse-kl")(logits, signal)
    high = entropy > 1.2
    assert 5 < high.sum() < 35
    torch.testing.assert_close(found[high], (forward + reverse)[high])
    torch.testing.assert_close(found[~high], reverse[~high])
