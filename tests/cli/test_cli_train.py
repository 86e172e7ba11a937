"""`tutelage train` as people type it: what it prints, what it says of the wrong file, what a tracker is told."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import save_tiny
from tests.pipeline.test_training import RUN_FILE, write_talks
from tutelage.cli.main import main


def tutelage(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(
        RUN_FILE.format(data=write_talks(tmp_path / "talks.jsonl"), teacher=save_tiny(tmp_path / "teacher"))
    )
    return path


def test_it_prints_what_came_of_it_and_the_folder_verifies(
    run_file: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "trackio.py").write_text(
        "told = []\ndef init(**kept): told.append(kept)\ndef log(values, step): told.append((step, values))\n"
    )
    monkeypatch.syspath_prepend(str(modules))
    out = tmp_path / "out"
    assert tutelage("train", run_file, "--out", out, "--track", "trackio", "--set", "train.steps=2") == 0
    said = capsys.readouterr()
    assert "2 on 16 conversations" in said.out and "as soft-target" in said.out and " -> " in said.out
    assert "terms: " in said.err and "before training" in said.err
    import trackio  # pyrefly: ignore

    assert trackio.told[0] == {"project": "tutelage", "name": "talks"}
    assert [step for step, _ in trackio.told[1:]] == [1, 2] and trackio.told[2][1]["grad_norm"] > 0
    assert tutelage("verify", out) == 0
    capsys.readouterr()
    assert tutelage("train", run_file, "--out", out, "--set", "train.steps=2", "--json", "--quiet") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["loss"], found["folder"]) == (2, "forward-kl", str(out))


def test_each_kind_of_run_file_is_sent_to_its_own_command(run_file: Path, tmp_path: Path, capsys: Any) -> None:
    for verb in ("run", "collect"):
        assert tutelage(verb, run_file) == 2
        assert f"fix: tutelage train {run_file}" in capsys.readouterr().err
    other = tmp_path / "other.toml"
    other.write_text("[prompts]\n")
    assert tutelage("train", other) == 2
    assert "fix: tutelage collect" in capsys.readouterr().err


def test_a_tracker_that_is_not_there_is_told_before_training(run_file: Path, tmp_path: Path, capsys: Any) -> None:
    assert tutelage("train", run_file, "--out", tmp_path / "out", "--track", "wandb", "--quiet") == 2
    assert "wandb is not installed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ('method.loss="forward_kl"', "did you mean forward-kl?"),
        ('method.signal="pairs"', "pairs"),
        ("method.beta=0.5", "takes no parameters"),
        ('data.path="absent.jsonl"', "absent.jsonl"),
    ],
)
def test_what_can_be_judged_before_leaves_no_folder(
    run_file: Path, tmp_path: Path, capsys: Any, key: str, told: str
) -> None:
    out = tmp_path / "out"
    assert tutelage("train", run_file, "--out", out, "--set", key) == 2
    assert told in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_weights_are_loaded_ends_it_at_once(
    run_file: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Nobody looks at the stop flag there; the same command goes on afterwards."""
    from tutelage.pipeline import stepping

    load, out, after = stepping.load_pupil, tmp_path / "out", list[str]()

    def slow(*given: Any) -> Any:
        os.kill(os.getpid(), number)
        after.append("went on")
        return load(*given)

    monkeypatch.setattr(stepping, "load_pupil", slow)
    arguments = ("train", run_file, "--out", out, "--set", "train.steps=2")
    assert tutelage(*arguments) == 130
    assert "run the same command again to resume" in capsys.readouterr().err and not after
    monkeypatch.undo()
    assert tutelage(*arguments) == 0 and tutelage("verify", out) == 0


def test_a_signal_between_steps_lets_the_step_end(
    run_file: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.train import loop

    take, taken = loop.take, list[str]()

    def interrupted(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        result = take(*given)
        taken.append("whole")
        return result

    monkeypatch.setattr(loop, "take", interrupted)
    assert tutelage("train", run_file, "--out", tmp_path / "out", "--set", "train.steps=2") == 130
    assert taken == ["whole"] and "what was done so far is kept" in capsys.readouterr().err
