"""States kept while training: what they hold, that a segment trained again from one ends in the next, and their chain."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import data, loop, train_on
from tutelage.canon import canonical, digest_bytes
from tutelage.errors import Interrupted, StorageError
from tutelage.jsonl import write_lines
from tutelage.progress import Stop
from tutelage.train import checkpoint
from tutelage.train.chain import build_chain, place_segments
from tutelage.train.checkpoint import STATE, TENSORS

EVERY = {"segment_steps": 4, "average_last": 0.5}  # 15 steps: boundaries at 4, 8, 12 and the end


@pytest.fixture(scope="module")
def work(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with the states of an unbroken run."""
    out = tmp_path_factory.mktemp("unbroken")
    train_on(folder, data(40), data(10, 9), loop(out, checkpoint_every_s=1e9, **EVERY))
    return out


def states(out: Path) -> dict[int, bytes]:
    return {int(path.parent.name): path.read_bytes() for path in (out / "segments").glob(f"*/{STATE}")}


def again(student: Path, out: Path, start: Path | None, until: int, log: list | None = None) -> None:
    settings = loop(out, log=log, **EVERY)._replace(start=start, until=until)
    train_on(student, data(40), data(10, 9), settings, whole=False)


def test_states_hold_everything_and_the_last_one_its_digests_alone(work: Path) -> None:
    assert sorted(states(work)) == [4, 8, 12, 15]
    kinds = {
        step: {name.split("/")[0] for name in json.loads(state)["tensors"]} for step, state in states(work).items()
    }
    assert kinds[4] == {"weights", "optimizer", "rng"}, "nothing is averaged yet"
    assert kinds[8] == kinds[12] == kinds[15] == {"weights", "average", "optimizer", "rng"}
    assert [(work / "segments" / str(step) / TENSORS).exists() for step in (4, 8, 12, 15)] == [True, True, True, False]


@pytest.mark.parametrize(("start", "until"), [(0, 4), (4, 8), (8, 12), (12, 15), (4, 15)])
def test_a_segment_trained_again_ends_in_the_next_state(
    folder: Path,
    work: Path,
    tmp_path: Path,
    start: int,
    until: int,
) -> None:
    log: list[dict[str, Any]] = []
    again(folder, tmp_path, work / "segments" / str(start) if start else None, until, log)
    assert states(tmp_path)[until] == states(work)[until]
    assert [entry["step"] for entry in log] == list(range(start + 1, until + 1))
    assert checkpoint.differences(tmp_path / "segments" / str(until), work / "segments" / str(until)) == []


def test_differences_name_the_weights_first_and_how_far(folder: Path, work: Path, tmp_path: Path) -> None:
    settings = loop(tmp_path, learning_rate=1.1e-2, **EVERY)._replace(until=8)
    train_on(folder, data(40), data(10, 9), settings, whole=False)
    words = checkpoint.differences(tmp_path / "segments" / "8", work / "segments" / "8")
    assert any("tensors differ, first weights/" in line for line in words)
    assert words[-1].startswith("the largest difference is ")
    assert float(words[-1].split()[4].rstrip(",")) > 0


@pytest.mark.parametrize("stop_at", [1, 4, 9])
def test_a_stopped_and_resumed_run_keeps_the_same_states(
    folder: Path,
    work: Path,
    tmp_path: Path,
    stop_at: int,
) -> None:
    stop = Stop()

    class Log(list):
        def append(self, entry: dict) -> None:
            if entry["step"] == stop_at:
                stop.set()

    with pytest.raises(Interrupted):
        train_on(folder, data(40), data(10, 9), loop(tmp_path, stop, Log(), **EVERY))
    train_on(folder, data(40), data(10, 9), loop(tmp_path, **EVERY))
    assert states(tmp_path) == states(work)


def test_a_start_that_is_missing_or_damaged_is_refused(folder: Path, work: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="5 is missing"):
        again(folder, tmp_path, work / "segments" / "5", 8)
    place_segments(work / "segments", tmp_path / "copy")
    state = tmp_path / "copy" / "4" / STATE
    changed = json.loads(state.read_bytes()) | {"tensors": {"rng": "sha256:0"}}
    state.unlink()  # the copy shares its bytes with the original
    state.write_bytes(canonical(changed))
    with pytest.raises(StorageError, match="the digest of a tensor differs"):
        again(folder, tmp_path, tmp_path / "copy" / "4", 8)
    (tmp_path / "copy" / "8" / TENSORS).unlink()
    with pytest.raises(StorageError, match="is damaged"):
        again(folder, tmp_path, tmp_path / "copy" / "8", 12)


def test_the_chain_changes_from_the_first_changed_row_on(work: Path, tmp_path: Path) -> None:
    place_segments(work / "segments", tmp_path / "segments")

    def chain_of(rows: list[str]) -> list[str]:
        write_lines(tmp_path / "consumed.jsonl", ({"exchanges": [row]} for row in rows))
        return [boundary.digest for boundary in build_chain(tmp_path, "sha256:before")]

    one, other = chain_of(["a"] * 15), chain_of(["a"] * 9 + ["b"] + ["a"] * 5)
    assert [left == right for left, right in zip(one, other, strict=True)] == [True, True, True, False, False]
    boundaries = build_chain(tmp_path, "sha256:before")
    assert boundaries[0].consumed == digest_bytes(b"")
    assert boundaries[0].best == ""
    assert boundaries[-1].best == json.loads(states(work)[15])["best"]["weights"]
