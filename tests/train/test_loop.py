"""The loop's own promises: what a checkpoint holds, which weights are the best ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.conftest import data, school
from tutelage.canon import digest_file
from tutelage.config import TrainTable
from tutelage.errors import SignalError
from tutelage.models.causal import Causal
from tutelage.progress import Quiet, Stop
from tutelage.train import checkpoint, memory
from tutelage.train.loop import Loop, Seen, micro, train


def test_checkpoints_hold_half_precision_to_the_bit(folder: Path, tmp_path: Path) -> None:
    model = Causal.load(folder).model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoint.save(tmp_path / "last", model, optimizer, {}, checkpoint.Progress(1, 0, {}))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert checkpoint.load(tmp_path / "last", model, optimizer) is not None
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_a_resumed_run_keeps_the_best_that_its_checkpoint_names(folder: Path, tmp_path: Path) -> None:
    """Killed after a better validation than the last checkpoint knows of; afterwards the judge finds nothing better."""
    scores = iter([5.0, 1.0, *[9.0] * 9])

    def judge(student: Causal, autocast: torch.autocast) -> Seen:
        return Seen(next(scores), {}, {})

    table = TrainTable(epochs=3.0, batch_size=4, validate_per_epoch=1, average_last=0.0, checkpoint_every_s=1e-9)

    def killed(entry: dict[str, Any]) -> None:
        if entry["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        student, source = school(folder, data(8), table)
        train(student, source, judge, Loop(table, 0, tmp_path, Quiet(), Stop(), killed))
    assert (tmp_path / "best-4.safetensors").exists()
    student, source = school(folder, data(8), table)
    best = train(student, source, judge, Loop(table, 0, tmp_path, Quiet(), Stop(), lambda entry: None))
    assert (best["step"], best["score_unats"]) == (2, 5_000_000)
    assert digest_file(tmp_path / "best-2.safetensors") == best["weights"]
    own = dict(student.model.named_parameters())
    assert all(torch.equal(own[name], value) for name, value in load_file(tmp_path / "best-2.safetensors").items())


def test_a_resumed_run_splits_its_steps_as_it_would_have(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms, real = list[Any](), memory.Fit
    monkeypatch.setattr(memory, "Fit", lambda limit, room: rooms.append(room) or real(limit, room))

    def judge(student: Causal, autocast: torch.autocast) -> Seen:
        return Seen(1.0, {}, {})

    def killed(entry: dict[str, Any]) -> None:
        if entry["step"] == 2:
            raise KeyboardInterrupt

    table = TrainTable(epochs=2.0, batch_size=4, average_last=0.0, checkpoint_every_s=1e-9)
    monkeypatch.setattr(memory, "room_tokens", lambda student: 1000)
    with pytest.raises(KeyboardInterrupt):
        train(*school(folder, data(8), table), judge, Loop(table, 0, tmp_path, Quiet(), Stop(), killed))
    monkeypatch.setattr(memory, "room_tokens", lambda student: 900)
    train(*school(folder, data(8), table), judge, Loop(table, 0, tmp_path, Quiet(), Stop(), lambda entry: None))
    again = Loop(table, 0, tmp_path / "again", Quiet(), Stop(), lambda entry: None, room_tokens=77)
    train(*school(folder, data(8), table), judge, again)
    assert rooms == [1000, 1000, 77]


def test_a_score_that_is_no_number_is_named() -> None:
    with pytest.raises(SignalError, match="learning_rate"):
        micro(float("nan"))
