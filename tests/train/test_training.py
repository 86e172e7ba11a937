"""Batches, masks and the loop on a tiny real model: exact resume, order, and what is counted."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.conftest import END, LABEL_IDS, data, loop
from tutelage.config import TrainTable
from tutelage.errors import ConfigError, Interrupted, SignalError, StorageError
from tutelage.progress import Stop
from tutelage.records import Role
from tutelage.signals.labels import pack_top_k
from tutelage.train import checkpoint
from tutelage.train.batches import Data, Example, collate, epoch_order
from tutelage.train.offpolicy import learning_rate, train, validate
from tutelage.train.step import label_logp, logits_at, train_step
from tutelage.train.student import load_student, make_student
from tutelage.train.vocabulary import token_ids_by_bytes

PLAIN = torch.autocast("cpu", enabled=False)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_one_batch_by_hand() -> None:
    """Traps C2, C3, C10: the last prompt token predicts the answer, the last answer token is predicted and not read,
    and the end of turn is in the loss."""
    some = Data(
        (Example("a", (10, 11, 12), (70, END), True), Example("b", (13,), (71, 90, END), True)),
        pack_top_k([({70: -0.1}, -2.4), ({71: -0.2}, -1.7)]),
        torch.zeros(2, 2),
        LABEL_IDS,
    )
    batch = collate(some, [0, 1], pad_id=END)
    assert batch.ids_BT.tolist() == [[10, 11, 12, 70], [13, 71, 90, END]]
    assert batch.mask_BT.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch.soft_positions_N.tolist() == [2, 4] == batch.first_positions_B.tolist()
    assert batch.text_positions_N.tolist() == [3, 5, 6]
    assert batch.text.ids_N.tolist() == [END, 90, END]
    assert some.examples[1].loss_tokens == {Role.SOFT_TARGET: 1, Role.TEXT_TARGET: 2}


def test_text_only_teachers_have_every_answer_token_in_the_loss() -> None:
    batch = collate(data(2, soft=False), [0, 1], pad_id=0)
    assert len(batch.soft_positions_N) == 0
    assert batch.soft is None
    assert len(batch.text_positions_N) == 4


def test_padding_changes_nothing(folder: Path) -> None:
    """Trap A5: a row's logits are the same alone and beside a longer one."""
    model, _ = load_student(folder)
    some = data(6)
    together = collate(some, range(6), 0)
    with torch.no_grad():
        all_at_once = logits_at(model, together, together.soft_positions_N)
        for at in range(6):
            alone = collate(some, [at], 0)
            assert torch.allclose(logits_at(model, alone, alone.soft_positions_N)[0], all_at_once[at], atol=1e-5)


def test_step_is_the_mean_over_loss_tokens(folder: Path) -> None:
    """Trap A1: the gradient of a batch is the token-weighted mean of the gradients of its halves."""
    model, _ = load_student(folder)
    some = data(6)

    def gradient(rows: list[int]) -> tuple[dict[str, torch.Tensor], int]:
        model.zero_grad()
        result = train_step(model, collate(some, rows, 0), 1e9, PLAIN)
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, result.loss_tokens

    whole, n = gradient([0, 1, 2, 3, 4, 5])
    first, a = gradient([0, 1])
    second, b = gradient([2, 3, 4, 5])
    for name, value in whole.items():
        assert torch.allclose(value, (a * first[name] + b * second[name]) / n, atol=1e-6), name


def test_prompt_tokens_carry_no_loss(folder: Path) -> None:
    model, _ = load_student(folder)
    result = train_step(model, collate(data(4), range(4), 0), 1.0, PLAIN)
    assert result.loss_tokens == 8


def test_nan_is_refused(folder: Path) -> None:
    model, _ = load_student(folder)
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    with pytest.raises(SignalError, match="nan"):
        train_step(model, collate(data(2), [0, 1], 0), 1.0, PLAIN)


def test_every_row_comes_once_an_epoch_and_the_order_is_the_seeds() -> None:
    """Trap A7: the last, smaller batch is stepped on too."""
    lengths = [3 + at % 7 for at in range(101)]
    order = epoch_order(lengths, 8, 1, 0)
    assert sorted(row for batch in order for row in batch) == list(range(101))
    assert order == epoch_order(lengths, 8, 1, 0)
    assert order != epoch_order(lengths, 8, 1, 1)
    assert len(order) == 13


def test_validation_does_not_depend_on_batches(folder: Path) -> None:
    """Trap A9."""
    model, _ = load_student(folder)
    ones = validate(model, data(11, 3), 1, 0, PLAIN)
    fours = validate(model, data(11, 3), 4, 0, PLAIN)
    assert ones.kl_nats == pytest.approx(fours.kl_nats, rel=1e-5)
    assert ones.agreement == fours.agreement
    logp = label_logp(model, collate(data(3), range(3), 0), LABEL_IDS, PLAIN)
    assert torch.allclose(logp.exp().sum(-1), torch.ones(3))


def test_it_learns_and_keeps_the_best(folder: Path, tmp_path: Path) -> None:
    model, _ = load_student(folder)
    before = validate(model, data(40, 9), 8, 0, PLAIN)
    log: list = []
    train(model, data(200), data(40, 9), loop(tmp_path, log=log, epochs=6.0, checkpoint_every_s=1e9))
    after = validate(model, data(40, 9), 8, 0, PLAIN)
    assert after.kl_nats < before.kl_nats / 4
    assert after.agreement > 0.8
    best = min(step["validation_kl_nats"] for step in log if "validation_kl_nats" in step)
    assert after.kl_nats == pytest.approx(best, rel=1e-4)
    assert sorted(row for step in log for row in step["rows"]) == sorted(list(range(200)) * 6)


@pytest.mark.parametrize("stop_at", [1, 7, 13])
def test_a_resumed_run_equals_the_unbroken_one_bit_for_bit(folder: Path, tmp_path: Path, stop_at: int) -> None:
    unbroken, _ = load_student(folder)
    full: list = []
    train(unbroken, data(40), data(10, 9), loop(tmp_path / "one", log=full))
    resumed, _ = load_student(folder)
    stop = Stop()
    seen: list = []

    class Log(list):
        def append(self, entry: dict) -> None:
            seen.append(entry)
            if entry["step"] == stop_at:
                stop.set()

    with pytest.raises(Interrupted):
        train(resumed, data(40), data(10, 9), loop(tmp_path / "two", stop, Log()))
    again, _ = load_student(folder)
    train(again, data(40), data(10, 9), loop(tmp_path / "two", log=seen))
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(again)[name]), name
    for key in ("loss_nats", "rows", "grad_norm"):
        assert [step[key] for step in full] == [step[key] for step in seen]


def test_a_damaged_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    model, _ = load_student(folder)
    train(model, data(16), data(4, 9), loop(tmp_path, epochs=1.0))
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
