"""Losses against naive float64 twins, closed forms and finite differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.losses_naive import cross_entropy_naive, forward_kl_top_k_naive
from tutelage.errors import SignalError
from tutelage.losses.supervised import cross_entropy
from tutelage.losses.topk import forward_kl_top_k
from tutelage.records import Position, TokenLogprob
from tutelage.signals import Text, TopK
from tutelage.signals.labels import label_distribution, pack_top_k, shifted


def random_case(
    seed: int, vocabulary: int = 11, rows: int = 4
) -> tuple[torch.Tensor, list[tuple[dict[int, float], float]]]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)
    revealed = []
    for _ in range(rows):
        teacher = (2 * torch.randn(vocabulary, generator=generator, dtype=torch.float64)).log_softmax(0)
        kept = torch.randperm(vocabulary, generator=generator)[
            : 1 + int(torch.randint(0, 5, (1,), generator=generator))
        ]
        logp = {int(at): float(teacher[at]) for at in kept}
        revealed.append((logp, math.log(1 - sum(math.exp(value) for value in logp.values()))))
    return logits, revealed


def in_float64(revealed: list[tuple[dict[int, float], float]]) -> TopK:
    """The packed signal without its rounding to float32."""
    signal = pack_top_k(revealed)
    logp_NK = signal.logp_NK.double()
    for at, (logp, _) in enumerate(revealed):
        logp_NK[at, : len(logp)] = torch.tensor(list(logp.values()), dtype=torch.float64)
    return TopK(signal.ids_NK, logp_NK, torch.tensor([tail for _, tail in revealed], dtype=torch.float64))


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_equals_the_naive_twin(seed: int) -> None:
    logits, revealed = random_case(seed)
    found = forward_kl_top_k(logits, in_float64(revealed))
    expected = [
        forward_kl_top_k_naive(row.tolist(), logp, tail) for row, (logp, tail) in zip(logits, revealed, strict=True)
    ]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_gradient_equals_finite_differences(seed: int) -> None:
    logits, revealed = random_case(seed, rows=2)
    signal = pack_top_k(revealed)
    exact = TopK(signal.ids_NK, signal.logp_NK.double(), signal.tail_N.double())
    assert torch.autograd.gradcheck(lambda z: forward_kl_top_k(z, exact), logits.requires_grad_(), eps=1e-6, atol=1e-6)


def test_is_zero_only_for_the_teacher_itself_and_never_negative() -> None:
    teacher = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    logp = teacher.log_softmax(-1)[0]
    signal = pack_top_k([({0: float(logp[0]), 2: float(logp[2])}, float(torch.logsumexp(logp[[1, 3]], 0)))])
    assert forward_kl_top_k(teacher, signal).abs().item() < 1e-7
    # Shift invariance, and moving mass inside the unrevealed rest costs nothing; moving it out of there does.
    inside = teacher.clone()
    rest = torch.logsumexp(teacher[0, [1, 3]], 0)
    inside[0, 1], inside[0, 3] = rest + math.log(0.5), rest + math.log(0.5)
    assert forward_kl_top_k(inside + 7.0, signal).abs().item() < 1e-7
    assert forward_kl_top_k(torch.zeros(1, 4, dtype=torch.float64), signal).item() > 0.05


def test_trap_d2_student_mass_outside_the_top_k_is_penalised() -> None:
    """A renormalised top-k would have no gradient on the ids it does not hold."""
    logits = torch.zeros(1, 6, requires_grad=True)
    forward_kl_top_k(logits, pack_top_k([({1: math.log(0.9)}, math.log(0.1))])).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[0, [0, 2, 3, 4, 5]] > 1e-3).all()


def test_padding_slots_do_not_hide_id_zero() -> None:
    """Ragged rows are padded with id 0; a row that did not reveal id 0 must keep it in its tail."""
    rows = [
        ({3: math.log(0.5)}, math.log(0.5)),
        ({0: math.log(0.25), 1: math.log(0.25), 2: math.log(0.25)}, math.log(0.25)),
    ]
    logits = torch.tensor([[5.0, 0.0, 0.0, 1.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5]], dtype=torch.float64)
    together = forward_kl_top_k(logits, pack_top_k(rows))
    alone = torch.cat([forward_kl_top_k(logits[at : at + 1], pack_top_k([rows[at]])) for at in range(2)])
    assert torch.allclose(together, alone)
    assert together[0].item() == pytest.approx(forward_kl_top_k_naive(logits[0].tolist(), *rows[0]), rel=1e-6)


def test_a_teacher_that_reveals_everything_has_no_tail() -> None:
    logits = torch.randn(1, 3, dtype=torch.float64)
    teacher = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    signal = pack_top_k([({at: float(teacher[at]) for at in range(3)}, -math.inf)])
    full = (teacher.exp() * (teacher - logits.log_softmax(-1)[0])).sum()
    assert forward_kl_top_k(logits, signal).item() == pytest.approx(full.item(), abs=1e-6)
    assert math.isfinite(forward_kl_top_k(torch.tensor([[50.0, 0.0, 0.0]]), signal).item())


def test_bf16_logits_are_computed_in_float32() -> None:
    logits, revealed = random_case(3)
    signal = pack_top_k(revealed)
    low = logits.to(torch.bfloat16)
    assert forward_kl_top_k(low, signal).dtype == torch.float32
    assert torch.allclose(forward_kl_top_k(low, signal), forward_kl_top_k(low.float(), signal))


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_cross_entropy_equals_the_twin(seed: int) -> None:
    logits, _ = random_case(seed)
    ids = torch.randint(0, 11, (4,), generator=torch.Generator().manual_seed(seed))
    expected = [cross_entropy_naive(row.tolist(), int(at)) for row, at in zip(logits, ids, strict=True)]
    assert torch.allclose(cross_entropy(logits, Text(ids)), torch.tensor(expected, dtype=torch.float64), rtol=1e-9)


def position(*candidates: tuple[bytes, float]) -> Position:
    import base64

    top = tuple(TokenLogprob(base64.b64encode(text).decode(), -1, round(1e6 * math.log(p))) for text, p in candidates)
    return Position(top[0], top)


def test_labels_are_found_by_bytes_and_the_rest_goes_to_the_tail() -> None:
    found = label_distribution(
        position((b" positive", 0.5), (b"neg", 0.2), (b"n", 0.05), (b"other", 0.1), (b"unknown", 0.1)),
        ["negative", "positive"], [7, 8], {b"other": 3, b"neg": 4, b"n": 5},
    )  # fmt: skip
    assert {token: round(math.exp(value), 6) for token, value in found.items()} == {8: 0.5, 7: 0.2, 5: 0.05, 3: 0.1}


def test_shift_keeps_the_total() -> None:
    moved, tail = shifted({1: math.log(0.6), 2: math.log(0.3)}, {1: -1.0, 2: 1.0})
    assert sum(map(math.exp, moved.values())) + math.exp(tail) == pytest.approx(1)
    odds = math.exp(moved[2] - moved[1])
    assert odds == pytest.approx(0.5 * math.exp(2))
    assert shifted({1: 0.0}, {})[1] == -math.inf


def test_processed_logprobs_are_refused() -> None:
    with pytest.raises(SignalError, match="sum to"):
        shifted({1: math.log(0.7), 2: math.log(0.5)}, {})
