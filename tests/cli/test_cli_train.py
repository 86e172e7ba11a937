"""`tutelage train` as people type it: what it prints, what it says of the wrong file, what a tracker is told."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import tutelage as tutelage_package
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
    assert " of 16 conversations" in said.out and "as soft-target" in said.out and " -> " in said.out
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


@pytest.mark.parametrize("name", ["config.json", "README.md", "data"])
def test_nothing_is_written_into_a_folder_of_other_things(
    run_file: Path, tmp_path: Path, capsys: Any, name: str
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / name).write_text("mine")
    assert tutelage("train", run_file, "--out", mine) == 2
    assert f"is no run's, and holds {name}" in capsys.readouterr().err
    assert [path.name for path in mine.iterdir()] == [name] and (mine / name).read_text() == "mine"


def test_a_run_is_not_taken_over_by_one_of_another_name(run_file: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert tutelage("train", run_file, "--out", out, "--set", "train.steps=2", "--quiet") == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.suffix in (".json", ".toml")}
    other = tmp_path / "other.toml"
    other.write_text(run_file.read_text().replace('name = "talks"', 'name = "other"'))
    assert tutelage("train", other, "--out", out) == 2
    assert "is the record of 'talks', and run.name is 'other' now" in capsys.readouterr().err
    assert all(path.read_bytes() == data for path, data in before.items() if path.name != "environment.json")


@pytest.mark.parametrize("verb", ["run", "collect", "prove", "compare_teachers"])
def test_every_command_keeps_its_run_in_a_folder_of_its_own(verb: str) -> None:
    text = (Path(tutelage_package.__file__).parent / "cli" / f"{verb}.py").read_text()
    assert " Run(" in text and "own_folder(" in text


def test_weights_that_end_too_early_are_told_of(run_file: Path, tmp_path: Path, capsys: Any) -> None:
    weights = tmp_path / "teacher" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert tutelage("train", run_file, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "cannot be loaded" in said and str(tmp_path / "teacher") in said and "Traceback" not in said


def test_what_was_learnt_from_is_counted_apart_from_what_there_is(run_file: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert tutelage("train", run_file, "--out", out, "--set", "train.steps=1", "--set", "train.batch_size=4") == 0
    assert "1 on 4 of 16 conversations" in capsys.readouterr().out
    assert "on 4 of 16 conversations" in (out / "student" / "README.md").read_text()


def test_answers_that_were_cut_are_not_set_aside_to_judge_by(run_file: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "talks.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | ({"finish_reason": "length"} if at > 4 else {}) for at, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tutelage("train", run_file, "--out", tmp_path / "out", "--set", "data.validation=2") == 0
    assert "3 conversations with" in (said := capsys.readouterr().err) and "2 to judge by" in said
