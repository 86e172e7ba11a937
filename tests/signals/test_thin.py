"""Thinning a distribution: unbiased, of the least variance, and the same however it is cut."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.signals_naive import draw_naive, threshold_naive
from tutelage.signals import Sparse
from tutelage.signals.thin import (
    expected,
    random_draws,
    sampled_top_k,
    seeded,
    threshold,
    threshold_at,
    top_k,
    with_sampled,
)

V = 300
TIMES = 4000


def zipf(vocabulary: int = V, power: float = 1.5) -> torch.Tensor:
    """Log-probabilities that fall like a power of their rank, ids shuffled."""
    ranks = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(5)) + 1.0
    return (-power * ranks.log()).double().log_softmax(-1).float()


def dense(signal: Sparse, vocabulary: int = V) -> torch.Tensor:
    found = torch.zeros(len(signal), vocabulary, dtype=torch.float64)
    return found.scatter_add_(1, signal.ids_NK, signal.weights_NK.double())


def rows(signal: Sparse) -> list[dict[int, float]]:
    return [
        {int(token): float(weight) for token, weight in zip(ids, weights, strict=True) if weight > 0}
        for ids, weights in zip(signal.ids_NK, signal.weights_NK, strict=True)
    ]


def close_to(found_TV: torch.Tensor, wanted_V: torch.Tensor, variance_V: torch.Tensor) -> None:
    """The mean of independent rows is what is wanted, within 4 standard errors: for every id that is common enough to have
    a normal mean, and for the others together."""
    often_V = wanted_V * len(found_TV) > 15
    z_V = (found_TV.mean(0) - wanted_V) / (variance_V / len(found_TV)).sqrt().clamp(min=1e-7)
    assert often_V.sum() > 20 and z_V[often_V].abs().max() < 4
    rest_T = found_TV[:, ~often_V].sum(-1)
    gap = rest_T.mean() - wanted_V[~often_V].sum()
    assert gap.abs() <= 4 * rest_T.std() / math.sqrt(len(found_TV)) + 1e-6


@pytest.mark.parametrize("c", [1 / 50, 1 / 8, 1.0])
def test_threshold_has_the_right_mean_error_size_and_total(c: float) -> None:
    logp_V = zipf()
    p_V = logp_V.double().exp()
    signal = threshold(logp_V.expand(TIMES, V), c, torch.Generator().manual_seed(1))
    t_TV = dense(signal)
    close_to(t_TV, p_V, torch.where(p_V < c, p_V * (c - p_V), 0.0))
    said = expected(logp_V[None], c)
    mse_T = (t_TV - p_V).square().sum(-1)
    assert abs(mse_T.mean() - said.mse_N) < 4 * mse_T.std() / math.sqrt(TIMES)
    assert torch.allclose(said.mse_N, torch.where(p_V < c, p_V * (c - p_V), 0.0).sum(), rtol=1e-5)
    held_T = (signal.weights_NK > 0).sum(-1).double()
    assert abs(held_T.mean() - said.ids_N) < 4 * held_T.std() / math.sqrt(TIMES) + 1e-6
    assert held_T.max() - held_T.min() <= 1 and held_T.max() <= 1 / c + 1
    assert ((t_TV.sum(-1) - 1).abs() <= c * (1 + 1e-5)).all()
    assert mse_T.mean() < (
        (p_V * (1 - p_V)).sum() / float(said.ids_N)
    )  # fewer than as many independent draws would have


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(0, 2**32), st.sampled_from([1 / 100, 1 / 50, 0.3, 1.0]), st.floats(0.1, 30))
def test_threshold_is_its_naive_twin(vocabulary: int, seed: int, c: float, sharpness: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits_NV = torch.randn(3, vocabulary, generator=generator) * sharpness
    logits_NV[:, 1:][torch.rand(3, vocabulary - 1, generator=generator) < 0.2] = -torch.inf
    logp_NV = logits_NV.log_softmax(-1)
    uniform_N = torch.rand(3, generator=generator, dtype=torch.float64)
    c32 = float(torch.tensor(c))
    found = rows(threshold_at(logp_NV, c, uniform_N))
    for logp_V, uniform, row in zip(logp_NV, uniform_N.tolist(), found, strict=True):
        assert row == threshold_naive(logp_V.exp().tolist(), c32, uniform)


def test_ties_at_c_are_exact_and_one_hot_rows_stay_whole() -> None:
    tied_NV = torch.full((1, 4), 0.25).log()
    assert rows(threshold(tied_NV, 0.25, seeded("a"))) == [dict.fromkeys(range(4), 0.25)]
    hot_NV = torch.tensor([[-math.inf, 0.0, -math.inf]])
    assert rows(threshold(hot_NV, 0.02, seeded("a"))) == [{1: 1.0}]
    assert rows(random_draws(hot_NV, 50, seeded("a"))) == [{1: 1.0}]
    assert rows(sampled_top_k(hot_NV, 2, seeded("a"))) == [{1: 1.0}]
    assert len(threshold(hot_NV[:0], 0.02, seeded("a"))) == 0


def test_what_is_drawn_depends_on_the_generator_alone() -> None:
    logp_NV = torch.randn(75, 1000, generator=seeded("rows")).log_softmax(-1)
    for thin in (
        lambda rows_NV, generator: threshold(rows_NV, 0.02, generator),
        lambda rows_NV, generator: random_draws(rows_NV, 20, generator),
        lambda rows_NV, generator: sampled_top_k(rows_NV, 3, generator),
    ):
        whole, again, other = (thin(logp_NV, seeded("draws", seed)) for seed in (0, 0, 1))
        one = seeded("draws")
        cut = [row for part in logp_NV.split([1, 7, 40, 27]) for row in rows(thin(part, one))]
        assert rows(whole) == rows(again) == cut
        assert rows(whole) != rows(other)
    assert not torch.equal(torch.rand(9, generator=seeded("a")), torch.rand(9, generator=seeded("b")))


def test_small_numbers_are_not_lost_in_a_large_sum() -> None:
    """49,000 ids far below c whose sum float32 cannot follow: the ids are those of exact arithmetic."""
    logp_NV = (torch.randn(6, 49_152, generator=seeded("rows")) * 0.5).log_softmax(-1)
    uniform_N = torch.rand(6, generator=seeded("wheel"), dtype=torch.float64)
    c32 = float(torch.tensor(1 / 1000))
    found = threshold_at(logp_NV, 1 / 1000, uniform_N)
    wanted = [threshold_naive(p, c32, u) for p, u in zip(logp_NV.exp().tolist(), uniform_N.tolist(), strict=True)]
    assert rows(found) == wanted and min(map(len, wanted)) > 990


def test_random_draws_are_unbiased_and_count() -> None:
    logp_V = zipf()
    p_V = logp_V.double().exp()
    signal = random_draws(logp_V.expand(TIMES, V), 50, torch.Generator().manual_seed(2))
    t_TV = dense(signal)
    close_to(t_TV, p_V, p_V * (1 - p_V) / 50)
    assert torch.allclose(t_TV.sum(-1), torch.ones(TIMES, dtype=torch.float64), atol=1e-6)
    mse_T = (t_TV - p_V).square().sum(-1)
    assert abs(mse_T.mean() - (p_V * (1 - p_V)).sum() / 50) < 4 * mse_T.std() / math.sqrt(TIMES)
    assert torch.allclose(signal.weights_NK * 50, (signal.weights_NK * 50).round(), atol=1e-4)


def test_a_draw_is_its_naive_twin() -> None:
    logp_NV = (torch.randn(200, V, generator=seeded("rows")) * 3).log_softmax(-1)
    drawn = sampled_top_k(logp_NV, 0, seeded("draws")).ids_NK[:, 0]
    uniform_N = 1 - torch.rand(200, 1, generator=seeded("draws"), dtype=torch.float64)
    wanted = [draw_naive(p, u) for p, u in zip(logp_NV.exp().tolist(), uniform_N[:, 0].tolist(), strict=True)]
    assert drawn.tolist() == wanted


def test_top_k_keeps_its_tail_to_the_digit() -> None:
    logp_NV = (torch.randn(70, V, generator=seeded("rows"), dtype=torch.float64) * 9).log_softmax(-1)
    signal = top_k(logp_NV, 5)
    rest_N = logp_NV.sort(-1, descending=True).values[:, 5:].logsumexp(-1)
    assert torch.allclose(signal.tail_N.double(), rest_N, rtol=1e-5) and rest_N.min() < -15
    total_N = torch.cat([signal.logp_NK, signal.tail_N[:, None]], -1).exp().sum(-1)
    assert torch.allclose(total_N, torch.ones(70), atol=1e-6)
    every = top_k(logp_NV, V + 3)
    assert every.ids_NK.shape == (70, V) and (every.tail_N == -math.inf).all()


def test_candidates_and_the_sampled_token_are_unbiased_and_beat_the_token_alone() -> None:
    logp_V = zipf(power=1.1)
    p_V = logp_V.double().exp()
    t_TV = dense(sampled_top_k(logp_V.expand(TIMES, V), 5, torch.Generator().manual_seed(3)))
    outside_V = torch.ones(V, dtype=torch.bool).scatter(0, p_V.topk(5).indices, False)
    close_to(t_TV, p_V, torch.where(outside_V, p_V * (1 - p_V), 0.0))
    alone_TV = dense(sampled_top_k(logp_V.expand(TIMES, V), 0, torch.Generator().manual_seed(3)))
    close_to(alone_TV, p_V, p_V * (1 - p_V))
    assert (t_TV - p_V).square().sum(-1).mean() < 0.9 * (alone_TV - p_V).square().sum(-1).mean()


def test_a_padded_slot_does_not_hide_a_sampled_token_of_the_same_id() -> None:
    revealed = top_k(torch.tensor([[0.1, 0.6, 0.3]]).log(), 1)
    padded = type(revealed)(torch.tensor([[1, 0]]), torch.tensor([[math.log(0.6), -math.inf]]), revealed.tail_N)
    assert rows(with_sampled(padded, torch.tensor([0]))) == [{1: pytest.approx(0.6), 0: 1.0}]
    assert rows(with_sampled(padded, torch.tensor([1]))) == [{1: pytest.approx(0.6)}]
