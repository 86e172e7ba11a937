"""Batches, masks and the loop on a tiny real model: exact resume, order, and what is counted."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.conftest import END, LABEL_IDS, data, loop, school, train_on
from tutelage.config import TrainTable
from tutelage.errors import ConfigError, Interrupted, SignalError, StorageError
from tutelage.models.causal import Causal
from tutelage.progress import Stop
from tutelage.records import Role
from tutelage.signals.labels import pack_top_k
from tutelage.train import checkpoint
from tutelage.train.labels import Data, Example, LabelJudge, LabelSource, collate
from tutelage.train.loop import learning_rate
from tutelage.train.order import epoch_order
from tutelage.train.step import StepResult, train_step
from tutelage.train.student import load_student, make_student
from tutelage.train.vocabulary import token_ids_by_bytes

PLAIN = torch.autocast("cpu", enabled=False)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_traps_c2_c3_c10_one_batch_by_hand() -> None:
    """Traps C2, C3, C10: the last prompt token predicts the answer, the last answer token is predicted and not read,
    and the end of turn is in the loss."""
    some = Data(
        (Example("a", (10, 11, 12), (70, END), True), Example("b", (13,), (71, 90, END), True)),
        pack_top_k([({70: -0.1}, -2.4), ({71: -0.2}, -1.7)]),
        torch.zeros(2, 2),
        LABEL_IDS,
    )
    batch = collate(some, [0, 1])
    assert batch.ids_T.tolist() == [10, 11, 12, 70, 13, 71, 90]
    assert batch.lengths == (4, 3)
    soft, text = batch.terms
    assert soft.positions_N.tolist() == [2, 4]
    assert text.positions_N.tolist() == [3, 5, 6]
    assert text.parts[0].signal.ids_N.tolist() == [END, 90, END]
    assert some.examples[1].loss_tokens == {Role.SOFT_TARGET: 1, Role.TEXT_TARGET: 2}
    assert batch.loss_tokens == {Role.SOFT_TARGET: 2, Role.TEXT_TARGET: 3}


def test_text_only_teachers_have_every_answer_token_in_the_loss() -> None:
    batch = collate(data(2, soft=False), [0, 1])
    assert len(batch.terms) == 1
    assert len(batch.terms[0].positions_N) == 4


def step(student: Causal, source: LabelSource, *parts: list[int], limit: float = 1e9) -> StepResult:
    rows = [row for part in parts for row in part]
    return train_step(student, map(source.batch, parts), source.loss_tokens(rows), limit, PLAIN)


def gradients(student: Causal) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in student.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("parts", [[[0, 1], [2, 3, 4, 5]], [[0], [1], [2], [3], [4], [5]]], ids=("2+4", "6x1"))
def test_trap_a1_the_gradient_does_not_depend_on_passes(folder: Path, parts: list[list[int]]) -> None:
    student, source = school(folder, data(6))
    whole = step(student, source, [0, 1, 2, 3, 4, 5])
    expected = gradients(student)
    student.model.zero_grad()
    found = step(student, source, *parts)
    assert found.objective_nats == pytest.approx(whole.objective_nats, rel=1e-6)
    for name, value in gradients(student).items():
        assert torch.allclose(value, expected[name], atol=1e-6), name


def test_prompt_tokens_carry_no_loss(folder: Path) -> None:
    assert step(*school(folder, data(4)), [0, 1, 2, 3]).loss_tokens == 8


def test_nan_is_refused(folder: Path) -> None:
    student, source = school(folder, data(2))
    with torch.no_grad():
        student.body.norm.weight[0] = math.nan
    with pytest.raises(SignalError, match="nan"):
        step(student, source, [0, 1])


def test_trap_a7_every_row_comes_once_an_epoch_and_the_order_is_the_seeds() -> None:
    """Trap A7: the last, smaller batch is stepped on too."""
    lengths = [3 + at % 7 for at in range(101)]
    order = epoch_order(lengths, 8, 1, 0)
    assert sorted(row for batch in order for row in batch) == list(range(101))
    assert order == epoch_order(lengths, 8, 1, 0)
    assert order != epoch_order(lengths, 8, 1, 1)
    assert len(order) == 13


def test_trap_a9_validation_does_not_depend_on_batches(folder: Path) -> None:
    student, _ = school(folder, data(11, 3))
    ones, fours = (LabelJudge(data(11, 3), size)(student, PLAIN) for size in (1, 4))
    assert ones.score_nats == pytest.approx(fours.score_nats, rel=1e-5)
    assert ones.facts == fours.facts
    logp = LabelJudge(data(3)).label_logp(student, range(3), PLAIN)
    assert torch.allclose(logp.exp().sum(-1), torch.ones(3))


def test_it_learns_and_keeps_the_best(folder: Path, tmp_path: Path) -> None:
    judge = LabelJudge(data(40, 9))
    before = judge(school(folder, data(1))[0], PLAIN)
    log: list = []
    student = train_on(folder, data(200), data(40, 9), loop(tmp_path, log=log, epochs=6.0, checkpoint_every_s=1e9))
    after = judge(student, PLAIN)
    assert after.score_nats < before.score_nats / 4
    assert after.facts["agreement_ppm"] > 800_000
    best = min(step["validation_kl_nats"] for step in log if "validation_kl_nats" in step)
    assert after.score_nats == pytest.approx(best, rel=1e-4)
    assert sorted(row for step in log for row in step["rows"]) == sorted(list(range(200)) * 6)


@pytest.mark.parametrize("stop_at", [1, 7, 13])
def test_a_resumed_run_equals_the_unbroken_one_bit_for_bit(folder: Path, tmp_path: Path, stop_at: int) -> None:
    full: list = []
    unbroken = train_on(folder, data(40), data(10, 9), loop(tmp_path / "one", log=full))
    stop = Stop()
    seen: list = []

    class Log(list):
        def append(self, entry: dict) -> None:
            seen.append(entry)
            if entry["step"] == stop_at:
                stop.set()

    with pytest.raises(Interrupted):
        train_on(folder, data(40), data(10, 9), loop(tmp_path / "two", stop, Log()))
    again = train_on(folder, data(40), data(10, 9), loop(tmp_path / "two", log=seen))
    for name, value in weights(unbroken.model).items():
        assert torch.equal(value, weights(again.model)[name]), name
    for key in ("loss_nats", "rows", "grad_norm"):
        assert [step[key] for step in full] == [step[key] for step in seen]


def test_a_damaged_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    model = train_on(folder, data(16), data(4, 9), loop(tmp_path, epochs=1.0)).model
    state = tmp_path / "last" / "state.safetensors"
    damaged = bytearray(state.read_bytes())
    damaged[-1] ^= 1
    state.write_bytes(damaged)
    with pytest.raises(StorageError, match="damaged"):
        checkpoint.load(tmp_path / "last", model, torch.optim.AdamW(model.parameters()))


def test_learning_rate_warms_up_and_falls_to_a_tenth() -> None:
    table = TrainTable(epochs=1.0, warmup=0.1, learning_rate=1.0)
    rates = [learning_rate(step, 100, table) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_student_of_more_layers_than_its_base_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"student\.layers = 5"):
        make_student(folder, 5, None, ("a", "b"), tmp_path / "x")


def test_the_template_costs_two_tokens(folder: Path) -> None:
    _, tokenizer = load_student(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "good"}], add_generation_prompt=True, return_dict=False
    )
    assert tokenizer.decode(ids).endswith("good<|im_end|>")
    assert len(ids) <= len(tokenizer("good")["input_ids"]) + 2


def test_vocabulary_by_bytes(folder: Path) -> None:
    _, tokenizer = load_student(folder)
    ids = token_ids_by_bytes(tokenizer)
    for token in tokenizer("the film is good")["input_ids"]:
        assert token in ids.values()
    assert ids["é".encode()[:1]] != ids["é".encode()[1:]]
    assert b"<|im_end|>" not in ids
