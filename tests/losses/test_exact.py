"""Every loss of the catalogue: its value against the naive twin, its derivative against finite differences, and the closed form
against autograd."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.losses.cases import CASES, DENSE, FAST, HELD_FIXED, JOINT, Case, draw_dense, draw_logits
from tutelage.losses import inplace
from tutelage.losses.catalogue import make, names
from tutelage.signals import Dense, Signal

SEEDS = st.integers(0, 10**6)


def by_autograd(loss: Any, logits_NV: torch.Tensor, signal: Signal) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = logits_NV.detach().clone().requires_grad_()
    nats = loss(leaf, signal)
    (slope,) = torch.autograd.grad(nats.sum(), leaf)
    return nats.detach(), slope


def test_every_loss_has_a_case() -> None:
    assert {case.name for case in (*CASES, *JOINT)} == set(names())
    assert {case.name for case in FAST} >= {"forward-kl", "reverse-kl", "jsd", "sparse-forward-kl", "cross-entropy"}


@pytest.mark.parametrize("case", CASES, ids=str)
@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_equals_the_naive_twin(case: Case, seed: int) -> None:
    logits, signal = draw_logits(seed), case.draw(seed)
    expected = [case.twin(row.tolist(), signal, at) for at, row in enumerate(logits)]
    found = case.loss()(logits, signal)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in HELD_FIXED], ids=str)
def test_gradient_equals_finite_differences(case: Case) -> None:
    """The others are in tests/losses/test_sampled.py and test_adaptive.py."""
    loss = case.loss()
    for seed in range(3):
        logits, signal = draw_logits(seed, rows=3), case.draw(seed).rows(slice(0, 3))
        assert torch.autograd.gradcheck(lambda z, s=signal: loss(z, s), logits.requires_grad_(), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", FAST, ids=str)
@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_the_closed_form_equals_autograd(case: Case, seed: int) -> None:
    loss, logits, signal = case.loss(), draw_logits(seed), case.draw(seed)
    nats, slope = by_autograd(loss, logits, signal)
    found = loss.gradient(logits, signal)
    torch.testing.assert_close(found.nats_N, nats, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.gradient_NV, slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", FAST, ids=str)
def test_blocks_join_and_the_signal_stays(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, the last one short; logits are overwritten where their type allows, the signal never."""
    monkeypatch.setattr(inplace, "CACHE_BYTES", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    loss, logits, signal = case.loss(), draw_logits(5), case.draw(5)
    before = [getattr(signal, name).clone() for name in signal.__slots__]
    nats, slope = by_autograd(loss, logits, signal)
    found = loss.gradient(logits, signal)
    torch.testing.assert_close(found.gradient_NV, slope)
    torch.testing.assert_close(found.nats_N, nats)
    assert found.gradient_NV.data_ptr() == logits.data_ptr()
    assert all(torch.equal(getattr(signal, name), old) for name, old in zip(signal.__slots__, before, strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_trap_b11_half_precision_logits_are_computed_in_float32(case: Case) -> None:
    """The only error left is that of the logits' own rounding: equal to the same numbers in float64 to float32's precision."""
    loss, low, signal = case.loss(), draw_logits(3).bfloat16(), case.draw(3)
    kept = low.clone()
    single = loss(low, signal)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), loss(low.double(), signal), rtol=1e-5, atol=1e-6)
    if loss.gradient is not None:
        exact = loss.gradient(low.double(), signal)
        found = loss.gradient(low, signal)
        assert found.gradient_NV.dtype == torch.float32
        torch.testing.assert_close(found.gradient_NV.double(), exact.gradient_NV, rtol=1e-5, atol=1e-6)
    assert torch.equal(low, kept), "logits of a smaller type are copied"


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("shift", [50.0, -7.0])
def test_only_differences_of_logits_matter(case: Case, shift: float) -> None:
    logits, signal = draw_logits(8), case.draw(8)
    if case.name == "sparse-forward-kl":  # there it holds for estimates whose total is 1
        signal = type(signal)(signal.ids_NK, signal.weights_NK / signal.weights_NK.sum(-1, keepdim=True))
    torch.testing.assert_close(case.loss()(logits + shift, signal), case.loss()(logits, signal), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", DENSE, ids=str)
def test_a_student_that_is_the_teacher_has_nothing_to_learn(case: Case) -> None:
    loss, signal = case.loss(), draw_dense(4)
    nats, slope = by_autograd(loss, signal.logp_NV, signal)
    assert nats.abs().max() < 1e-14
    if case.name != "total-variation":  # its gradient is a sign, and rounding has one
        assert slope.abs().max() < 1e-14
    assert (loss(draw_logits(4), signal) > 1e-3).all()


@pytest.mark.parametrize("case", DENSE, ids=str)
def test_trap_a5_a_position_counts_alone_and_sums_over_the_vocabulary(case: Case) -> None:
    """Other rows, padding rows among them, change nothing; splitting each token into two equal halves changes nothing
    either, where a mean over the vocabulary would halve."""
    loss, logits, signal = case.loss(), draw_logits(6), draw_dense(6)
    whole = loss(logits, signal)
    torch.testing.assert_close(whole[1:2], loss(logits[1:2], signal.rows(slice(1, 2))))
    halves = Dense(torch.cat([signal.logp_NV, signal.logp_NV], 1) - torch.log(torch.tensor(2.0, dtype=torch.float64)))
    if case.name != "adaptive-kl":  # half a token may be enough for its head
        torch.testing.assert_close(loss(torch.cat([logits, logits], 1), halves), whole)
    if loss.gradient is not None:
        found = loss.gradient(logits.clone(), signal)
        torch.testing.assert_close(found.nats_N, whole)
        alone = loss.gradient(logits[1:2].clone(), signal.rows(slice(1, 2)))
        torch.testing.assert_close(alone.gradient_NV, found.gradient_NV[1:2])
        both = loss.gradient(torch.cat([logits, logits], 1), halves).gradient_NV
        torch.testing.assert_close(both[:, :11] + both[:, 11:], found.gradient_NV)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_trap_a8_no_squared_temperature_is_hidden_in_the_scale(scale: float) -> None:
    """The derivative of KL(p ‖ q) is q − p exactly, however flat or sharp both are."""
    teacher, logits = scale * draw_logits(1), scale * draw_logits(2)
    signal = Dense(teacher.log_softmax(-1))
    expected = logits.softmax(-1) - teacher.softmax(-1)
    torch.testing.assert_close(by_autograd(make("forward-kl"), logits, signal)[1], expected)
    torch.testing.assert_close(make("forward-kl").gradient(logits.clone(), signal).gradient_NV, expected)


def test_trap_b5_a_negative_partial_sum_keeps_its_gradient() -> None:
    """Nothing is clamped at 0: a list whose own terms sum below 0 pulls as hard as any other."""
    from tests.losses.test_topk import rows_of

    signal = rows_of([({0: 0.1, 1: 0.1}, 0.8)])
    logits = torch.tensor([[2.0, 2.0, -1.0, -1.0]], dtype=torch.float64)
    q = logits.softmax(-1)
    revealed_part = (0.1 * torch.log(0.1 / q[0, :2])).sum()
    assert revealed_part < 0
    # Inside the list q − p; outside it the bucket's pull, shared by q.
    expected = torch.cat([q[0, :2] - 0.1, q[0, 2:] - 0.8 * q[0, 2:] / q[0, 2:].sum()])
    torch.testing.assert_close(by_autograd(make("top-k-forward-kl"), logits, signal)[1][0], expected)
    torch.testing.assert_close(make("top-k-forward-kl").gradient(logits.clone(), signal).gradient_NV[0], expected)


def test_trap_b9_beta_weighs_the_teacher() -> None:
    """JSD/β → KL(p ‖ q) at small β, JSD/(1 − β) → KL(q ‖ p) near 1; the two differ, so that a mirrored β is seen."""
    generator = torch.Generator().manual_seed(9)
    logits = torch.randn(6, 11, generator=generator, dtype=torch.float64)
    signal = Dense(torch.randn(6, 11, generator=generator, dtype=torch.float64).log_softmax(-1))
    forward, reverse = make("forward-kl")(logits, signal), make("reverse-kl")(logits, signal)
    assert ((forward - reverse).abs() > 0.05 * forward).sum() >= 4
    torch.testing.assert_close(make("jsd", beta=1e-3)(logits, signal) / 1e-3, forward, rtol=0.01, atol=0)
    torch.testing.assert_close(make("jsd", beta=1 - 1e-3)(logits, signal) / 1e-3, reverse, rtol=0.01, atol=0)
    fused = make("jsd", beta=1e-3).gradient(logits.clone(), signal)
    torch.testing.assert_close(fused.nats_N / 1e-3, forward, rtol=0.01, atol=0)
    slope = make("forward-kl").gradient(logits.clone(), signal).gradient_NV
    torch.testing.assert_close(fused.gradient_NV / 1e-3, slope, rtol=0.05, atol=0.01)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_trap_b8_the_jsd_mixes_probabilities_and_not_logs(seed: int) -> None:
    """Symmetric and at most log 2 at β = ½; a mixture of logs, which is no distribution, is neither bounded nor that."""
    a, b = 4 * draw_logits(seed), 4 * draw_logits(seed + 77)
    loss = make("jsd", beta=0.5)
    one = loss(a, Dense(b.log_softmax(-1)))
    torch.testing.assert_close(one, loss(b, Dense(a.log_softmax(-1))), rtol=1e-9, atol=1e-12)
    fused = loss.gradient(a.clone(), Dense(b.log_softmax(-1)))
    torch.testing.assert_close(fused.nats_N, one, rtol=1e-9, atol=1e-12)
    assert (one >= 0).all()
    assert (one <= torch.log(torch.tensor(2.0)) + 1e-12).all()


def test_trap_c17_zero_probabilities_are_no_nan() -> None:
    """−inf × 0 counts as 0, in values and derivatives, for the teacher's zeros and for the student's."""
    for case in DENSE:
        loss, signal, logits = case.loss(), draw_dense(2, zeros=3), draw_logits(2)
        if case.name in ("reverse-kl", "adaptive-kl", "entropy-aware-kl"):
            assert torch.isinf(loss(logits, signal)).all(), "mass where the teacher has none is infinitely far"
            assert loss.gradient is None or torch.isinf(loss.gradient(logits.clone(), signal).nats_N).all()
            logits[:, :3] = -torch.inf
        nats, slope = by_autograd(loss, logits, signal)
        assert torch.isfinite(nats).all(), case
        assert torch.isfinite(slope).all(), case
        logits[:, :2] = -torch.inf  # both have none
        nats, slope = by_autograd(loss, logits, signal)
        assert torch.isfinite(nats).all(), case
        assert torch.isfinite(slope).all(), case
        short = loss(logits[:, 2:], Dense(signal.logp_NV[:, 2:]))
        torch.testing.assert_close(nats, short)
        if loss.gradient is not None:
            found = loss.gradient(logits.clone(), signal)
            torch.testing.assert_close(found.nats_N, nats)
            torch.testing.assert_close(found.gradient_NV, slope)


@pytest.mark.parametrize("case", FAST, ids=str)
def test_extreme_logits_stay_finite_in_float32(case: Case) -> None:
    loss, logits, signal = case.loss(), 200 * draw_logits(12).float(), case.draw(12)
    found = loss.gradient(logits, signal)
    assert torch.isfinite(found.nats_N).all()
    assert torch.isfinite(found.gradient_NV).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_logits_that_are_nan_show_in_value_and_gradient(case: Case) -> None:
    """Whatever is done about log 0 must not hide them, and they must not spread to other rows."""
    loss, logits, signal = case.loss(), draw_logits(1), case.draw(1)
    logits[2, 5] = torch.nan
    bad = torch.tensor([False, False, True, False])
    assert torch.equal(loss(logits, signal).isnan(), bad)
    if loss.gradient is not None:
        found = loss.gradient(logits, signal)
        assert torch.equal(found.nats_N.isnan(), bad)
        assert torch.equal(found.gradient_NV.isnan().any(-1), bad)


@pytest.mark.parametrize("case", DENSE, ids=str)
def test_a_teacher_that_is_nan_shows(case: Case) -> None:
    loss, logits, signal = case.loss(), draw_logits(1), draw_dense(1)
    signal.logp_NV[1] = torch.nan
    assert loss(logits, signal).isnan().tolist() == [False, True, False, False]
    if loss.gradient is not None:
        assert loss.gradient(logits, signal).nats_N.isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_positions_are_no_trouble(case: Case) -> None:
    loss, signal = case.loss(), case.draw(0).rows(slice(0, 0))
    empty = torch.zeros(0, 11)
    assert loss(empty, signal).shape == (0,)
    if loss.gradient is not None:
        assert loss.gradient(empty, signal).gradient_NV.shape == (0, 11)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", FAST, ids=str)
def test_the_closed_form_equals_autograd_on_a_gpu(case: Case) -> None:
    """Softmax over its own input is the processor's habit; another device must have it too, at a real vocabulary."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(4, 49152, generator=generator)
    logits[:, :11] = draw_logits(1).float() + 3
    signal = case.draw(1)
    if isinstance(signal, Dense):
        signal = Dense((2 * torch.randn(4, 49152, generator=generator)).log_softmax(-1))
    nats, slope = by_autograd(case.loss(), logits, signal)
    found = case.loss().gradient(logits.cuda(), signal.to("cuda"))
    torch.testing.assert_close(found.nats_N.cpu(), nats, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.gradient_NV.cpu(), slope, rtol=1e-4, atol=1e-6)
