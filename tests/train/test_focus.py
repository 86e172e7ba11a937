"""Learning the positions of highest student entropy alone: which they are, what they count, what they leave out."""

import math

import pytest
import torch

from benchmarks.experiments.oracle import Taught, table, tiny, zipf
from tutelage.losses import chunked
from tutelage.losses.catalogue import make
from tutelage.signals import Dense
from tutelage.train.focus import choose, entropy, kept
from tutelage.train.loop import precision
from tutelage.train.offpolicy import DataSource, batch_of, passage_of
from tutelage.train.step import clear, train_step

OFF = precision("float32")


def texts(count: int = 6, tokens: int = 9):
    return zipf(32, 0).texts(count, tokens, 1)


def test_the_surest_of_each_answer_are_left_out_whatever_stands_beside_it() -> None:
    entropy_N = torch.tensor([3.0, 1, 2, 2, 0, 5, 4, 4, 4])
    assert choose(entropy_N, (5, 4), 0.5).tolist() == [0, 2, 3, 5, 6]
    assert choose(entropy_N[5:], (4,), 0.5).tolist() == [0, 1]
    assert choose(entropy_N, (5, 4), 0.01).tolist() == [0, 5]
    assert choose(entropy_N[:0], (), 0.5).tolist() == []
    assert [kept(7, share) for share in (None, 0.5, 0.999, 0.1)] == [7, 4, 7, 1]


def test_entropy_is_that_of_the_distribution() -> None:
    student = tiny(32, 0)
    passage = passage_of(texts())
    with torch.no_grad():
        hidden = student.hidden(passage.ids_T, passage.lengths)
    logp = student.head().logits(hidden).log_softmax(-1)
    torch.testing.assert_close(entropy(hidden, student.head()), -(logp.exp() * logp).sum(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_gradient_and_counts_are_those_of_the_chosen_positions(share: float) -> None:
    """Against a loss that is 0 elsewhere; the step is the same in one pass and in three."""
    examples, oracle, student = texts(), zipf(32, 0), tiny(32, 0)
    source = DataSource(examples, Taught(oracle, make("forward-kl")), table(1, 6, 6), 0, focus=share)
    rows = source.rows(0)
    count = source.loss_tokens(rows)
    assert count == 6 * math.ceil(share * 9) == source.batch(rows).loss_tokens["soft-target"]
    found = train_step(student, [source.batch(rows)], count, 1e9, OFF, source.look)
    assert found.positions == {"forward-kl": count} and source.metrics()["entropy_nats"] > 0
    gradients = [parameter.grad.clone() for parameter in student.model.parameters()]

    clear(student)
    passage = passage_of([examples[row] for row in rows])
    logits = student.head().logits(student.hidden(passage.ids_T, passage.lengths))[passage.positions_N]
    logq = logits.log_softmax(-1)
    uncertain = -(logq.exp() * logq).sum(-1).detach()
    chosen = torch.zeros(len(uncertain))
    for at in range(0, len(uncertain), 9):
        chosen[at + uncertain[at : at + 9].topk(math.ceil(share * 9)).indices] = 1
    nats = make("forward-kl")(logits, Dense(oracle.rows(passage.ids_T, passage.lengths)[passage.positions_N]))
    ((nats * chosen).sum() / count).backward()
    assert found.objective_nats == pytest.approx(float((nats.detach() * chosen).sum()), rel=1e-5)
    for one, parameter in zip(gradients, student.model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-7)

    clear(student)
    train_step(student, [source.batch(rows[at : at + 2]) for at in (0, 2, 4)], count, 1e9, OFF)
    for one, parameter in zip(gradients, student.model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-7)


def test_no_derivative_is_taken_where_nothing_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    inner = chunked._logit_gradient
    monkeypatch.setattr(
        chunked, "_logit_gradient", lambda logits_NV, *rest: seen.append(len(logits_NV)) or inner(logits_NV, *rest)
    )
    student, teaching = tiny(32, 0), Taught(zipf(32, 0), make("forward-kl"))
    batch = batch_of(texts(), teaching, range(6), "cpu", focus=0.3)
    train_step(student, [batch], 18, 1e9, OFF)
    assert sum(seen) == 18 < batch.positions == 54
