"""Truncated teachers: the tail bucket, ragged rows, and what a student could do without the bucket."""

import math
from collections.abc import Sequence

import pytest
import torch

from tests.losses.cases import draw_dense, draw_logits
from tests.reference.losses_naive import forward_kl_top_k_naive
from tutelage.losses.catalogue import make
from tutelage.losses.topk import forward_kl_top_k, reverse_kl_top_k
from tutelage.signals import NO_TAIL, TopK

BOTH = ("top-k-forward-kl", "top-k-reverse-kl")


def rows_of(rows: Sequence[tuple[dict[int, float], float]]) -> TopK:
    """Probabilities by id and the tail's, in float64, padded with id 0."""
    width = max(1, *(len(row) for row, _ in rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    logp = torch.full((len(rows), width), -math.inf, dtype=torch.float64)
    for at, (row, _) in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(list(row), dtype=torch.long)
        logp[at, : len(row)] = torch.tensor(list(row.values()), dtype=torch.float64).log()
    return TopK(ids, logp, torch.tensor([tail for _, tail in rows], dtype=torch.float64).log())


def full_support(logp_NV: torch.Tensor, order_V: torch.Tensor) -> TopK:
    ids = order_V.expand(len(logp_NV), -1)
    return TopK(ids, logp_NV.gather(-1, ids), torch.full((len(logp_NV),), NO_TAIL, dtype=torch.float64))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_teacher_that_reveals_everything_is_dense(direction: str) -> None:
    logits, dense = draw_logits(1), draw_dense(1)
    signal = full_support(dense.logp_NV, torch.randperm(11, generator=torch.Generator().manual_seed(1)))
    partial, full = make(f"top-k-{direction}-kl"), make(f"{direction}-kl")
    torch.testing.assert_close(partial(logits, signal), full(logits, dense), rtol=1e-9, atol=1e-12)
    expected = full.gradient(logits.clone(), dense).gradient_NV
    torch.testing.assert_close(partial.gradient(logits.clone(), signal).gradient_NV, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_what_is_revealed_is_at_most_the_full_divergence_and_zero_for_the_teacher(direction: str) -> None:
    logits, dense = draw_logits(2), draw_dense(2)
    top = dense.logp_NV.topk(4)
    rest = torch.log1p(-top.values.exp().sum(-1))
    signal = TopK(top.indices, top.values, rest)
    partial = make(f"top-k-{direction}-kl")
    assert (partial(logits, signal) <= make(f"{direction}-kl")(logits, dense) + 1e-12).all()
    assert partial(dense.logp_NV + 7, signal).abs().max() < 1e-12
    # Moving mass inside the rest costs nothing, moving it out of there does.
    inside = dense.logp_NV.scatter(-1, top.indices, -math.inf).exp()
    even = torch.where(inside > 0, inside.sum(-1, keepdim=True) / 7, inside).log()
    moved = torch.where(inside > 0, even, dense.logp_NV)
    assert partial(moved, signal).abs().max() < 1e-12
    assert (partial(torch.zeros_like(logits), signal) > 1e-2).all()


@pytest.mark.parametrize("name", BOTH)
def test_trap_d2_student_mass_outside_the_top_k_is_penalised(name: str) -> None:
    """A top-k renormalised on the student's side would have no gradient on the ids it does not hold."""
    signal = rows_of([({1: 0.9}, 0.1)])
    logits = torch.zeros(1, 6, dtype=torch.float64)
    slope = make(name).gradient(logits.clone(), signal).gradient_NV
    assert (slope[0, [0, 2, 3, 4, 5]] > 1e-3).all()
    leaf = logits.clone().requires_grad_()
    make(name)(leaf, signal).sum().backward()
    assert (leaf.grad[0, [0, 2, 3, 4, 5]] > 1e-3).all()
    if name == "top-k-forward-kl":  # what is too much outside, no more
        assert leaf.grad[0, [0, 2, 3, 4, 5]].sum().item() == pytest.approx(5 / 6 - 0.1)


def test_trap_d3_top_k_reverse_kl_keeps_the_student_on_the_support() -> None:
    """Gradient descent from a student that agrees with the head: with the bucket its mass stays on what the teacher revealed
    (97 %); the bare sum over the list, run beside it, empties it."""
    signal = rows_of([({0: 0.6, 1: 0.3, 2: 0.07}, 0.03)])

    def bare(logits_NV: torch.Tensor, signal: TopK) -> torch.Tensor:
        logq_NK = logits_NV.log_softmax(-1).gather(-1, signal.ids_NK)
        return (logq_NK.exp() * (logq_NK - signal.logp_NK)).sum(-1)

    def lowest_mass(loss: object) -> float:
        z = torch.tensor([[1.5, 2.0, 0.0, -2.0, -2.0, -2.0, -2.0, -2.0]], dtype=torch.float64, requires_grad=True)
        least = 1.0
        for _ in range(400):
            (slope,) = torch.autograd.grad(loss(z, signal).sum(), z)  # pyrefly: ignore
            z = (z - 1.0 * slope).detach().requires_grad_()
            least = min(least, float(z.softmax(-1)[0, :3].sum().detach()))
        return least

    assert lowest_mass(make("top-k-reverse-kl")) > 0.9
    assert lowest_mass(bare) < 0.5


def test_trap_d4_padding_slots_do_not_hide_id_zero() -> None:
    """Ragged rows are padded with id 0; a row that did not reveal id 0 must keep it in its tail."""
    rows = [({3: 0.5}, 0.5), ({0: 0.25, 1: 0.25, 2: 0.25}, 0.25)]
    logits = torch.tensor([[5.0, 0.0, 0.0, 1.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5]], dtype=torch.float64)
    for loss in map(make, BOTH):
        together = loss.gradient(logits.clone(), rows_of(rows))
        alone = [loss.gradient(logits[at : at + 1].clone(), rows_of([rows[at]])) for at in range(2)]
        torch.testing.assert_close(together.nats_N, torch.cat([one.nats_N for one in alone]))
        torch.testing.assert_close(together.gradient_NV, torch.cat([one.gradient_NV for one in alone]))
    logp = {token: math.log(p) for token, p in rows[0][0].items()}
    expected = forward_kl_top_k_naive(logits[0].tolist(), logp, math.log(0.5))
    assert forward_kl_top_k(logits, rows_of(rows))[0].item() == pytest.approx(expected, rel=1e-9)


def test_the_students_tail_is_exact_in_float32_however_small() -> None:
    """1 − Σ q over the list would be 0 or rounding noise here; so the loss would be infinite or arbitrary."""
    signal = rows_of([({0: 1 - 1e-9}, 1e-9)])
    logits = torch.tensor([[0.0, -25.0, -26.0]])
    for loss in (forward_kl_top_k, reverse_kl_top_k):
        assert loss(logits, signal).item() == pytest.approx(loss(logits.double(), signal).item(), rel=0.05, abs=0)
    rest = math.log(math.exp(-25) + math.exp(-26))
    slope = make("top-k-forward-kl").gradient(logits.clone(), signal).gradient_NV
    expected = math.exp(-25) * (1 - 1e-9 / math.exp(rest))
    assert slope[0, 1].item() == pytest.approx(expected, rel=1e-3)


def test_a_rounded_list_without_a_tail_does_not_make_the_reverse_kl_infinite() -> None:
    """Reported probabilities may sum to 1 though the vocabulary goes on: the tail counts as `least_tail` there."""
    logits = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    none, given = (rows_of([({0: 0.75, 1: 0.25}, tail)]) for tail in (0.0, 1e-4))
    found = reverse_kl_top_k(logits, none, least_tail=1e-4)
    assert found.item() == pytest.approx(reverse_kl_top_k(logits, given).item(), rel=1e-12)
    found.sum().backward()
    assert (logits.grad[0, 2:] > 0.1).all()
