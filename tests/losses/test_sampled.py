"""Reverse KL from drawn tokens: expectations over all tokens of a small vocabulary are taken by enumeration, so exactly."""

import math

import pytest
import torch

from tests.losses.cases import draw_dense, draw_logits, draw_scored
from tests.reference.losses_naive import sampled_gradient_naive
from tutelage.losses.catalogue import make
from tutelage.losses.sampled import Baselined, closed_form_baseline, least_variance_baseline, leave_one_out
from tutelage.signals import Dense, Scored, TopK
from tutelage.signals.joining import joined

V = 8


def every_token(
    logits_V: torch.Tensor, logp_V: torch.Tensor, baseline_nats: float = 0.0
) -> tuple[torch.Tensor, Baselined]:
    """One position for each token that could have been drawn, by the student itself."""
    logits_NV = logits_V.expand(len(logits_V), -1).contiguous()
    signal = Baselined(
        torch.arange(len(logits_V)), logp_V, logits_V.log_softmax(-1), torch.full_like(logp_V, baseline_nats)
    )
    return logits_NV, signal


def moments(logits_V: torch.Tensor, logp_V: torch.Tensor, baseline_nats: float) -> tuple[torch.Tensor, float]:
    logits_NV, signal = every_token(logits_V, logp_V, baseline_nats)
    q = logits_V.softmax(-1)[:, None]
    slope = make("sampled-reverse-kl").gradient(logits_NV, signal).gradient_NV
    mean = (q * slope).sum(0)
    return mean, float((q * (slope - mean) ** 2).sum())


@pytest.mark.parametrize("spread", [0.5, 3.0], ids=["uncertain student", "certain student"])
@pytest.mark.parametrize("seed", range(5))
def test_baselines_leave_the_mean_and_order_the_variance(seed: int, spread: float) -> None:
    """E6: full (none: it is the expectation) < least-variance baseline ≤ the closed-form one and none at all; the closed-form
    one < none for a student that is uncertain."""
    logits, dense = draw_logits(seed, 1, V) * spread / 3, Dense((1.5 * draw_dense(seed, 1, V).logp_NV).log_softmax(-1))
    full = make("reverse-kl").gradient(logits.clone(), dense).gradient_NV[0]
    variances = []
    for baseline in (least_variance_baseline(logits, dense), closed_form_baseline(logits, dense), torch.zeros(1)):
        mean, variance = moments(logits[0], dense.logp_NV[0], baseline.item())
        torch.testing.assert_close(mean, full, rtol=1e-9, atol=1e-12)
        variances.append(variance)
    least, closed, none = variances
    assert 0 < least <= min(closed, none)
    if spread < 1:
        assert closed < none


def test_the_closed_form_baseline_can_do_harm() -> None:
    """An over-confident student: the mean reward is below 0, while those of the rare tokens, whose gradient is
    large, are above 0. Subtracting it moves their advantages further from 0."""
    logits = torch.tensor([5.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    logp = torch.tensor([2.0, 0.0, 0.0, 0.0], dtype=torch.float64).log_softmax(-1)
    dense = Dense(logp[None])
    _, none = moments(logits, logp, 0.0)
    _, closed = moments(logits, logp, closed_form_baseline(logits[None], dense).item())
    _, least = moments(logits, logp, least_variance_baseline(logits[None], dense).item())
    assert least < none
    assert closed > 1.2 * none
    sharp = torch.tensor([40.0, 0.0, 0.0, 0.0])
    assert torch.isfinite(least_variance_baseline(sharp[None], dense)).all()


def test_the_closed_form_baseline_is_the_mean_reward_and_the_top_k_one_comes_close() -> None:
    logits, dense = draw_logits(3, 4, V), draw_dense(3, 4, V)
    closed = closed_form_baseline(logits.requires_grad_(), dense)
    torch.testing.assert_close(closed, -make("reverse-kl")(logits, dense).detach())
    assert not closed.requires_grad
    top = dense.logp_NV.topk(6)
    signal = TopK(top.indices, top.values, torch.log1p(-top.values.exp().sum(-1)))
    near = closed_form_baseline(logits, signal)
    torch.testing.assert_close(near, -make("top-k-reverse-kl")(logits, signal).detach())
    assert (near >= closed - 1e-12).all()
    every = TopK(torch.arange(V).expand(4, -1), dense.logp_NV, torch.full((4,), -math.inf))
    least = least_variance_baseline(logits, dense)
    torch.testing.assert_close(least_variance_baseline(logits, every), least)
    # Padded slots hold no bucket.
    slots = torch.nn.functional.pad
    padded = TopK(slots(every.ids_NK, (0, 3)), slots(every.logp_NK, (0, 3), value=-math.inf), every.tail_N)
    torch.testing.assert_close(least_variance_baseline(logits, padded), least)


def test_the_value_is_unbiased_for_the_reverse_kl() -> None:
    logits, dense = draw_logits(4, 1, V), draw_dense(4, 1, V)
    logits_NV, signal = every_token(logits[0], dense.logp_NV[0], 0.7)
    value = (logits[0].softmax(-1) * make("sampled-reverse-kl")(logits_NV, signal)).sum()
    assert value.item() == pytest.approx(make("reverse-kl")(logits, dense).item(), rel=1e-12)


def test_trap_b4_the_gradient_depends_on_the_teacher() -> None:
    """The estimator log q(y) − log p(y), differentiated as it stands, gives ∇ log q(y) whatever the teacher says, and 0 on
    average; the surrogate's gradient is the advantage's."""
    logits, one, other = draw_logits(5, 1, V), draw_dense(5, 1, V), draw_dense(50, 1, V)
    q = logits[0].softmax(-1)[:, None]
    slopes = []
    for dense in (one, other):
        logits_NV, signal = every_token(logits[0], dense.logp_NV[0])
        leaf = logits_NV.requires_grad_()
        make("sampled-reverse-kl")(leaf, signal).sum().backward()
        slopes.append(leaf.grad)
        closed = make("sampled-reverse-kl").gradient(logits_NV.detach().clone(), signal).gradient_NV
        torch.testing.assert_close(closed, leaf.grad)
    assert (slopes[0] - slopes[1]).abs().max() > 0.1
    assert (q * slopes[0]).sum(0).abs().max() > 0.05
    naive_k1 = q * (torch.eye(V, dtype=torch.float64) - q.T)
    assert naive_k1.sum(0).abs().max() < 1e-12, "what back-propagating k1 would give"


@pytest.mark.parametrize("seed", range(4))
def test_gradient_equals_the_twin_by_autograd_and_in_closed_form(seed: int) -> None:
    logits, signal = draw_logits(seed), draw_scored(seed)
    expected = torch.tensor(
        [
            sampled_gradient_naive(
                row.tolist(),
                int(signal.ids_N[at]),
                float(signal.logp_N[at]),
                float(signal.drawn_logp_N[at]),
                0.3,
                0.7,
                1.5,
            )
            for at, row in enumerate(logits)
        ],
        dtype=torch.float64,
    )
    loss = make("sampled-reverse-kl", baseline=0.3, ratio_low=0.7, ratio_high=1.5)
    leaf = logits.clone().requires_grad_()
    loss(leaf, signal).sum().backward()
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss.gradient(logits.clone(), signal).gradient_NV, expected, rtol=1e-9, atol=1e-12)


def test_tokens_of_an_engine_that_drew_otherwise_are_weighted_or_left_out() -> None:
    """Reported log-probability off by log 1.5, log 3 and −log 3: weight 1/1.5, then none."""
    logits, dense = draw_logits(6, 3, V), draw_dense(6, 3, V)
    ids = torch.tensor([1, 2, 3])
    logq = logits.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)
    off = torch.tensor([1.5, 3.0, 1 / 3], dtype=torch.float64)
    signal = Scored(ids, dense.logp_NV.gather(-1, ids[:, None]).squeeze(-1), logq + off.log())
    found = make("sampled-reverse-kl").gradient(logits.clone(), signal)
    assert found.nats_N[0].item() == pytest.approx(float(logq[0] - signal.logp_N[0]) / 1.5)
    assert (found.nats_N[1:] == 0).all()
    assert (found.gradient_NV[1:] == 0).all()
    assert found.gradient_NV[0].abs().max() > 1e-3
    kept = make("sampled-reverse-kl", ratio_low=0, ratio_high=math.inf)(logits, signal)
    torch.testing.assert_close(kept, (logq - signal.logp_N) / off)


def test_importance_weights_make_stale_draws_unbiased() -> None:
    """Drawn by older weights, all tokens enumerated: with no bound on the ratio the mean is the current student's gradient."""
    logits, old, dense = draw_logits(7, 1, V), draw_logits(70, 1, V), draw_dense(7, 1, V)
    logits_NV = logits.expand(V, V).contiguous()
    signal = Scored(torch.arange(V), dense.logp_NV[0], old[0].log_softmax(-1))
    loss = make("sampled-reverse-kl", ratio_low=0, ratio_high=math.inf)
    mean = (old[0].softmax(-1)[:, None] * loss.gradient(logits_NV, signal).gradient_NV).sum(0)
    torch.testing.assert_close(mean, make("reverse-kl").gradient(logits.clone(), dense).gradient_NV[0])


def test_trap_d13_a_missing_score_is_seen() -> None:
    """Not a number anywhere in a score, or no probability at all, must not pass for a position without loss."""
    loss, logits, signal = make("sampled-reverse-kl"), draw_logits(1), draw_scored(1)
    near = logits.log_softmax(-1).gather(-1, signal.ids_N[:, None]).squeeze(-1)
    for logp, drawn in ((math.nan, None), (None, math.nan), (-math.inf, None)):
        bad = Scored(
            signal.ids_N,
            signal.logp_N if logp is None else torch.full_like(signal.logp_N, logp),
            near if drawn is None else torch.full_like(near, drawn),
        )
        assert not torch.isfinite(loss(logits, bad)).any()
        assert not torch.isfinite(loss.gradient(logits.clone(), bad).nats_N).any()


def test_leave_one_out_is_the_mean_of_the_other_answers() -> None:
    signal = Scored(torch.arange(4), torch.tensor([-1.0, -2.0, -3.0, -6.0]), torch.full((4,), -1.0))
    found = leave_one_out(signal, torch.tensor([0, 0, 1, 2]))
    torch.testing.assert_close(found, torch.tensor([-3.5, -3.5, -2.0, -1.0]))
    assert (leave_one_out(signal.rows(slice(0, 2)), torch.tensor([0, 0])) == 0).all(), "one answer alone"


def test_leave_one_out_is_unbiased_over_whole_answers_and_lowers_the_variance() -> None:
    """Two answers of two tokens, all pairs of them enumerated: what a token is followed by depends on it, so that a mean with
    tokens of the same answer in it is biased. Teacher and student are far apart, as when training begins."""
    draw = torch.Generator().manual_seed(0)
    first_V, second_VV = (torch.randn(size, generator=draw, dtype=torch.float64) / 2 for size in ((3,), (3, 3)))
    first_p_V, second_p_VV = (torch.randn(size, generator=draw, dtype=torch.float64) for size in ((3,), (3, 3)))
    first_p_V[0] += 5
    second_p_VV[:, 0] += 5
    texts, chances = torch.cartesian_prod(torch.arange(3), torch.arange(3)), []
    signals = []
    for one, two in texts.tolist():
        logq_N, logp_N = (
            torch.stack([a_V.log_softmax(-1)[one], b_VV.log_softmax(-1)[one, two]])
            for a_V, b_VV in ((first_V, second_VV), (first_p_V, second_p_VV))
        )
        signals.append(Scored(torch.tensor([one, two]), logp_N, logq_N))
        chances.append(logq_N.sum().exp())
    loss = make("sampled-reverse-kl", ratio_low=0, ratio_high=math.inf)
    found: dict[str, list[torch.Tensor]] = {"none": [], "leave one out": []}
    for one, other in torch.cartesian_prod(torch.arange(9), torch.arange(9)).tolist():
        both = joined([signals[one], signals[other]])
        base_N = leave_one_out(both, torch.tensor([0, 0, 1, 1]))
        logits_NV = torch.stack([row for at in (one, other) for row in (first_V, second_VV[texts[at, 0]])])
        for name, signal in (("none", both), ("leave one out", Baselined(*_columns(both), base_N))):
            slope_NV = loss.gradient(logits_NV.clone(), signal).gradient_NV
            by_second_VV = torch.zeros(3, 3, dtype=torch.float64)
            by_second_VV.index_add_(0, texts[[one, other], 0], slope_NV[1::2])
            found[name].append(torch.cat([slope_NV[::2].sum(0), by_second_VV.flatten()]) / 2)
    weight_E1 = torch.outer(torch.stack(chances), torch.stack(chances)).flatten()[:, None]
    mean, variance = {}, {}
    for name, rows in found.items():
        mean[name] = (weight_E1 * torch.stack(rows)).sum(0)
        variance[name] = float((weight_E1 * (torch.stack(rows) - mean[name]) ** 2).sum())
    full = make("reverse-kl")
    first = full.gradient(first_V[None].clone(), Dense(first_p_V.log_softmax(-1)[None])).gradient_NV
    second = full.gradient(second_VV.clone(), Dense(second_p_VV.log_softmax(-1))).gradient_NV
    expected = torch.cat([first, first_V.softmax(-1)[:, None] * second]).flatten()
    torch.testing.assert_close(mean["none"], expected)
    torch.testing.assert_close(mean["leave one out"], expected)
    assert variance["leave one out"] < variance["none"]


def _columns(signal: Scored) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return signal.ids_N, signal.logp_N, signal.drawn_logp_N


def test_a_baselined_signal_keeps_its_rows() -> None:
    logits, signal = draw_logits(2), draw_scored(2)
    with_baseline = Baselined(signal.ids_N, signal.logp_N, signal.drawn_logp_N, torch.arange(4.0))
    loss = make("sampled-reverse-kl", ratio_low=0, ratio_high=math.inf)
    whole = loss.gradient(logits.clone(), with_baseline)
    part = loss.gradient(logits[2:3].clone(), with_baseline.rows(slice(2, 3)))
    constant = make("sampled-reverse-kl", baseline=2.0, ratio_low=0, ratio_high=math.inf)
    torch.testing.assert_close(part.gradient_NV, whole.gradient_NV[2:3])
    torch.testing.assert_close(
        part.gradient_NV, constant.gradient(logits[2:3].clone(), signal.rows(slice(2, 3))).gradient_NV
    )
    assert isinstance(with_baseline.to("cpu"), Baselined)
    both = constant.gradient(logits.clone(), Baselined(*_columns(signal), torch.arange(4.0) - 2))
    torch.testing.assert_close(both.gradient_NV, whole.gradient_NV)
    assert isinstance(Dense(logits).rows(slice(0, 1)), Dense)
