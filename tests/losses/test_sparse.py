"""The unbiased sparse estimate: the same as the full loss in expectation, value and derivative."""

import math

import pytest
import torch

from tests.losses.cases import draw_dense, draw_logits, draw_text
from tutelage.losses.catalogue import make
from tutelage.signals import Sparse

LOSS = make("sparse-forward-kl")


def exact(logp_NV: torch.Tensor) -> Sparse:
    return Sparse(torch.arange(logp_NV.shape[1]).expand(len(logp_NV), -1), logp_NV.exp())


def test_the_exact_distribution_gives_dense_up_to_the_teachers_entropy() -> None:
    logits, dense = draw_logits(1), draw_dense(1)
    entropy = -(dense.logp_NV.exp() * dense.logp_NV).sum(-1)
    expected = make("forward-kl").gradient(logits.clone(), dense)
    found = LOSS.gradient(logits.clone(), exact(dense.logp_NV))
    torch.testing.assert_close(found.nats_N, expected.nats_N + entropy)
    torch.testing.assert_close(found.gradient_NV, expected.gradient_NV)


def test_one_token_of_weight_one_is_cross_entropy() -> None:
    logits, text = draw_logits(2), draw_text(2)
    signal = Sparse(text.ids_N[:, None], torch.ones(4, 1))
    torch.testing.assert_close(LOSS(logits, signal), make("cross-entropy")(logits, text))


def top_and_sample(p: torch.Tensor, kept: int) -> list[tuple[float, Sparse]]:
    """Every estimate the rule "the top ids exactly, and 1 on the token drawn where it is none of them" can give, each with its
    probability (methods: unbiased by construction, its total is random)."""
    top = p.topk(kept)
    draws = [(float(top.values.sum()), Sparse(top.indices[None], top.values[None]))]
    for token in sorted(set(range(len(p))) - set(top.indices.tolist())):
        ids = torch.cat([top.indices, torch.tensor([token])])
        weights = torch.cat([top.values, torch.ones(1, dtype=p.dtype)])
        draws.append((float(p[token]), Sparse(ids[None], weights[None])))
    return draws


def moments(logits: torch.Tensor, p: torch.Tensor, normalised: bool) -> tuple[torch.Tensor, float]:
    """Mean of the derivative over all draws, and its total variance. `normalised`: of −Σ tᵢ log qᵢ, for comparison."""
    slopes, chances = [], []
    for chance, signal in top_and_sample(p, 3):
        leaf = logits.clone().requires_grad_()
        if normalised:
            value = -(signal.weights_NK * leaf.log_softmax(-1).gather(-1, signal.ids_NK)).sum()
        else:
            value = LOSS(leaf, signal).sum()
        slopes.append(torch.autograd.grad(value, leaf)[0][0])
        chances.append(chance)
    weight = torch.tensor(chances, dtype=torch.float64)[:, None]
    stacked = torch.stack(slopes)
    mean = (weight * stacked).sum(0)
    return mean, float((weight * (stacked - mean) ** 2).sum())


@pytest.mark.parametrize("seed", range(4))
def test_the_derivative_is_unbiased_though_the_total_is_random(seed: int) -> None:
    """By enumeration of all draws, so exactly."""
    logits, dense = draw_logits(seed, rows=1), draw_dense(seed, rows=1)
    mean, _ = moments(logits, dense.logp_NV[0].exp(), False)
    torch.testing.assert_close(mean, (logits.softmax(-1) - dense.logp_NV.exp())[0], rtol=1e-9, atol=1e-12)


def test_the_random_total_does_not_shake_the_student() -> None:
    """A student near a teacher with a long tail, where the total of an estimate varies most: the variance of −Σ tᵢ log qᵢ, as
    unbiased, is larger, and the variance left is that of the estimate itself."""
    p = torch.tensor([0.3, 0.25, 0.15, *[0.3 / 30] * 30], dtype=torch.float64)
    logits = p.log()[None]
    mean, variance = moments(logits, p, False)
    other_mean, other = moments(logits, p, True)
    torch.testing.assert_close(mean, other_mean, rtol=0, atol=1e-12)
    tail = p[3:]
    assert variance == pytest.approx(float((tail * (1 - tail)).sum()), rel=1e-9)
    assert other > 1.05 * variance


def test_a_common_shift_moves_the_value_by_what_the_total_lacks() -> None:
    logits = draw_logits(3, rows=1)
    signal = Sparse(torch.tensor([[2, 5]]), torch.tensor([[0.5, 0.25]], dtype=torch.float64))
    moved = LOSS.gradient(logits + 8, signal)
    assert moved.nats_N.item() - LOSS(logits, signal).item() == pytest.approx(8 * 0.25)
    torch.testing.assert_close(moved.gradient_NV, LOSS.gradient(logits.clone(), signal).gradient_NV)


def test_trap_c17_padding_that_points_at_an_impossible_id_counts_for_nothing() -> None:
    logits = torch.tensor([[-math.inf, 1.0, 2.0]], dtype=torch.float64)
    signal = Sparse(torch.tensor([[1, 0]]), torch.tensor([[1.0, 0.0]]))
    found = LOSS.gradient(logits.clone(), signal)
    assert found.nats_N.item() == pytest.approx(math.log(1 + math.e))
    assert LOSS(logits, signal).item() == pytest.approx(math.log(1 + math.e))
    assert torch.isfinite(found.gradient_NV).all()
