"""Replay: an honest segment comes out bit for bit, every way of training on something else is found, nothing is written."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import Made, do
from tutelage.canon import digest_bytes
from tutelage.errors import ConfigError, StorageError
from tutelage.ledger.log import NOTHING_BEFORE
from tutelage.pipeline import learning
from tutelage.pipeline.replay import Verdict, choose, replay, replays_needed
from tutelage.progress import Quiet
from tutelage.train import chain, labels, loop, memory, numerics
from tutelage.train.batch import Batch
from tutelage.train.labels import Data

STEPS, SEGMENTS = 78, 3  # 100 examples in batches of 8, 6 epochs; a state every 30 steps


class Trained(Exception):
    """The train stage is in the record: the test needs no more of the run."""


def train_again(made: Made, monkeypatch: pytest.MonkeyPatch, **mutants: Callable[..., Any]) -> None:
    """Does the training stage of a run once more, with functions of the loop exchanged."""
    shutil.rmtree(made.folder / "train", ignore_errors=True)
    real = learning.train

    def train_only(*arguments: Any) -> None:
        real(*arguments)
        raise Trained

    with monkeypatch.context() as patch:
        patch.setattr(learning, "train", train_only)
        for name, mutant in mutants.items():
            patch.setattr(labels if hasattr(labels, name) else loop, name, mutant)
        do(made.run_file, made.folder, made.signer)


def replayed(made: Made, segment: int) -> tuple[Verdict, str]:
    found = replay(made.folder, Quiet(), segment)
    return found.verdict, "; ".join(found.differences)


def test_every_segment_is_reproduced_and_nothing_is_written(finished: Made) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.folder.rglob("*")}

    before, covered = files(), 0
    for number in range(1, SEGMENTS + 1):
        found = replay(finished.folder, Quiet(), number)
        assert (found.verdict, found.differences) == (Verdict.REPRODUCED, ())
        covered += found.last_step - found.first_step + 1
    assert covered == STEPS
    assert files() == before


def test_the_chain_names_the_states_the_rows_and_the_best_weights(finished: Made) -> None:
    train = finished.folder / "train"
    lines = (train / "chain.jsonl").read_bytes().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["step"] for entry in entries] == [0, 30, 60, STEPS]
    assert [entry["previous"] for entry in entries] == [NOTHING_BEFORE, *map(digest_bytes, lines[:-1])]
    checkpoint = json.loads((train / "checkpoint.json").read_bytes())
    assert checkpoint["chain"] == digest_bytes(lines[-1])
    assert checkpoint["state"] == entries[-1]["state"] == digest_bytes((train / "segments/78/state.json").read_bytes())
    assert checkpoint["weights"] == entries[-1]["best"]
    assert checkpoint["consumed"] == entries[-1]["consumed"]
    assert not (train / "segments" / "78" / "state.safetensors").exists()


def test_another_process_reproduces_the_segment_a_beacon_draws(finished: Made) -> None:
    command = [sys.executable, "-m", "tutelage", "replay", str(finished.folder), "--json", "--beacon", "2026-11-24"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"] == "REPRODUCED"
    assert found["segment"] == choose(SEGMENTS, bytes.fromhex(found["log_root"][7:]), "2026-11-24")


def test_an_example_stepped_on_in_secret_is_found(copied: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant puts another sentence into step 41 than it says, once."""
    real, calls = labels.collate, iter(range(10_000))

    def collate(data: Data, rows: tuple[int, ...]) -> Batch:
        if len(data.examples) < 100 or next(calls) != 40:
            return real(data, rows)
        secret = next(at for at in range(100) if at not in rows)
        return real(data, (secret, *rows[1:]))._replace(rows=tuple(rows))

    with pytest.raises(Trained):
        train_again(copied, monkeypatch, collate=collate)
    assert replayed(copied, 1)[0] is Verdict.REPRODUCED
    verdict, words = replayed(copied, 2)
    assert verdict is Verdict.DIFFERS
    assert "tensors differ, first weights/model.layers.0." in words
    assert "the largest difference is " in words
    assert replayed(copied, 3)[0] is Verdict.REPRODUCED, "an honest end of what was begun otherwise"


def test_a_learning_rate_other_than_recorded_is_found_at_the_end_too(
    copied: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.learning_rate
    with pytest.raises(Trained):
        train_again(copied, monkeypatch, learning_rate=lambda *given: 1.001 * real(*given))
    verdict, words = replayed(copied, SEGMENTS)
    assert verdict is Verdict.DIFFERS
    assert "tensors differ, first weights/" in words


def test_another_order_of_rows_than_the_seeds_is_found(copied: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    real = labels.epoch_order
    with pytest.raises(Trained):
        train_again(copied, monkeypatch, epoch_order=lambda lengths, size, seed, epoch: real(lengths, size, 99, epoch))
    verdict, words = replayed(copied, 1)
    assert verdict is Verdict.DIFFERS
    assert re.match(r"2\d of 30 steps took other rows than recorded, first step \d+; ", words), words


@pytest.mark.parametrize(
    "name", ["train/segments/30/state.safetensors", "before/model.safetensors", "curate/selection.json", "config.json"]
)
def test_a_changed_file_is_refused_by_name(copied: Made, name: str) -> None:
    changed = bytearray((copied.folder / name).read_bytes())
    changed[len(changed) // 2] ^= 1
    (copied.folder / name).write_bytes(changed)
    with pytest.raises(StorageError, match=name):
        replay(copied.folder, Quiet(), 2)


def test_a_changed_answer_is_refused(copied: Made) -> None:
    """The store is no output of a stage: what is read from it is held against the selection."""
    path = copied.folder / "store" / "000001.seg"
    path.write_bytes(path.read_bytes().replace(b'"finish_reason":"stop"', b'"finish_reason":"Stop"', 1))
    with pytest.raises(StorageError, match="is damaged"):
        replay(copied.folder, Quiet(), 2)


def test_a_step_is_split_as_it_was_however_much_memory_there_is(
    finished: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "room_tokens", lambda student: 1)
    assert replayed(finished, 1) == (Verdict.REPRODUCED, "")


def test_other_numerics_are_not_comparable(finished: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "cpu_name", lambda: "Abacus 9")
    monkeypatch.setattr(loop, "train_step", None)  # nothing is trained
    verdict, words = replayed(finished, 1)
    assert verdict is Verdict.NOT_COMPARABLE
    assert words.startswith("cpu: trained with ")
    assert words.endswith(", here Abacus 9")


@pytest.mark.parametrize("killed", ["stepping", "placing", "resumed elsewhere"])
def test_a_killed_and_resumed_run_has_the_chain_of_an_unbroken_one(
    copied: Made, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    unbroken = (copied.folder / "train" / "chain.jsonl").read_bytes()
    real, calls = loop.train_step, iter(range(10_000))

    def train_step(*arguments: Any) -> Any:
        if next(calls) == 40:
            raise KeyboardInterrupt
        return real(*arguments)

    def place(made: Path, out: Path) -> None:
        raise KeyboardInterrupt

    config = copied.run_file.read_text().replace("[claim]", "checkpoint_every_s = 1e-9\n\n[claim]")
    run_file = copied.folder.parent / "often.toml"
    run_file.write_text(config)
    made = copied._replace(run_file=run_file)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if killed == "placing":
            patch.setattr(chain, "place_segments", place)
            train_again(made, patch)
        else:
            train_again(made, patch, train_step=train_step)
    assert not (copied.folder / "train" / "chain.jsonl").exists()
    if killed == "resumed elsewhere":
        monkeypatch.setattr(numerics, "cpu_name", lambda: "Abacus 9")
    steps: list[int] = []
    with pytest.raises(Trained):
        train_again(made, monkeypatch, train_step=lambda *given: steps.append(1) or real(*given))
    assert len(steps) == {"stepping": STEPS - 40, "placing": 0, "resumed elsewhere": STEPS}[killed]
    assert (copied.folder / "train" / "chain.jsonl").read_bytes() == unbroken
    assert replayed(copied, 2)[0] is Verdict.REPRODUCED


@pytest.mark.parametrize("line", [b"{}", b"[1]", b"[" * 3 + b"\xff", b'{"kind": {}}'])
def test_a_log_of_something_else_is_refused(copied: Made, line: bytes) -> None:
    (copied.folder / "ledger" / "log.jsonl").write_bytes(line + b"\n")
    with pytest.raises(StorageError, match="cannot be read"):
        replay(copied.folder, Quiet(), 1)


def test_a_segment_that_does_not_exist(finished: Made) -> None:
    with pytest.raises(ConfigError, match="--segment 4: the run has 3"):
        replay(finished.folder, Quiet(), 4)


def test_choosing_and_how_often() -> None:
    drawn = [choose(5, bytes(32), str(beacon)) for beacon in range(400)]
    assert sorted(set(drawn)) == [1, 2, 3, 4, 5]
    assert drawn == [choose(5, bytes(32), str(beacon)) for beacon in range(400)]
    assert drawn != [choose(5, bytes(31) + b"1", str(beacon)) for beacon in range(400)]
    assert [replays_needed(segments) for segments in (1, 2, 4, 100)] == [1, 5, 11, 299]
