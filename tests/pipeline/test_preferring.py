"""`tutelage train` with pairs of answers: what is written, kept, counted and refused, and exact resuming."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tests.models.tiny import save_tiny
from tests.pipeline.test_training import RUN_FILE, Words, do, write_talks
from tutelage.errors import ConfigError, DataError, TutelageError
from tutelage.jsonl import read_lines
from tutelage.ledger.verify import verify
from tutelage.pipeline import pairing
from tutelage.pipeline.pairing import ALIKE
from tutelage.pipeline.teaching_check import check_pupil
from tutelage.pipeline.teaching_plan import ends_of, load_pupil
from tutelage.pipeline.training import Trained
from tutelage.progress import Stop
from tutelage.run_file import load_training_config
from tutelage.train.examples import Example

PREFER: dict[str, Any] = {"method__loss": "dpo", "method__beta": 0.2}


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a teacher's weights."""
    folder = tmp_path_factory.mktemp("file")
    text = RUN_FILE.format(data=write_talks(folder / "talks.jsonl"), teacher=save_tiny(folder / "base"))
    path = folder / "run.toml"
    path.write_text(text[: text.index("[teacher]")] + text[text.index("[student]") :])
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, run_file: Path) -> tuple[Path, Trained, list[str]]:
    out, words = tmp_path_factory.mktemp("run"), Words()
    return out, do(run_file, out, words, train__steps=24, **PREFER), words.said


def answers_in(out: Path) -> list[dict[str, Any]]:
    return list(read_lines(out / "rejected" / "answers.jsonl"))


def test_it_learns_to_prefer_the_datas_answers(finished: tuple[Path, Trained, list[str]]) -> None:
    out, found, said = finished
    assert found.before_objective_unats == pytest.approx(693147, abs=20), "log 2: nothing is preferred yet"
    assert found.objective_unats < 0.8 * found.before_objective_unats
    last = list(read_lines(out / "train" / "metrics.jsonl"))[-1]
    assert last["validation_preferred"] == 1 and last["validation_margin_nats"] > 2
    assert {"validation_chosen_tokens", "validation_rejected_tokens", "validation_length_tokens"} <= last.keys()
    assert verify(out).findings == ()
    looks = " ".join(said)
    assert "20 answers of the student's own" in looks and "warning: 9" in looks and "were cut at 8 tokens" in looks


def test_the_students_answers_are_in_the_record_and_counted_as_its_own(
    finished: tuple[Path, Trained, list[str]], run_file: Path
) -> None:
    out, found, _ = finished
    kinds = {row["id"]: row["kind"] for row in read_lines(out / "data" / "conversations.jsonl")}
    answers = {row["id"]: row for row in answers_in(out)}
    assert answers.keys() == kinds.keys() and len({row["seed"] for row in answers.values()}) == 20
    tokenizer: Any = AutoTokenizer.from_pretrained(out / "before")
    for row in answers.values():
        assert row["text"] == tokenizer.decode(row["ids"], skip_special_tokens=True)
        assert row["finished"] == (row["ids"][-1] in (0, 2)) and (row["finished"] or len(row["ids"]) == 8)
    own = 0
    for step in read_lines(out / "train" / "consumed.jsonl"):
        for name, by_role in zip(step["examples"], step["loss_tokens"], strict=True):
            assert by_role["own-text"] == len(answers[name]["ids"]) and kinds[name] == "train"
            own += by_role["own-text"]
    rows = json.loads((out / "train" / "sources.json").read_bytes())["rows"]
    assert [(row["role"], row["teacher"], row["loss_tokens"]) for row in rows] == [
        ("own-text", "base", own), ("prompt-author", "talks.jsonl", 0),
        ("text-target", "talks.jsonl", found.tokens["text-target"]), ("base-lineage", "base", 0),
    ]  # fmt: skip
    card = (out / "student" / "README.md").read_text()
    assert "preferred to the student's own" in card and "own-text" in card


def test_a_changed_answer_is_found(finished: tuple[Path, Trained, list[str]], tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    path = copy / "rejected" / "answers.jsonl"
    path.write_text(path.read_text().replace('"finished":false', '"finished":true', 1))
    assert [finding.where for finding in verify(copy).findings] == ["rejected/answers.jsonl"]


def test_another_beta_does_not_write_the_answers_again(
    finished: tuple[Path, Trained, list[str]], run_file: Path, tmp_path: Path
) -> None:
    copy, words = tmp_path / "run", Words()
    shutil.copytree(finished[0], copy)
    do(run_file, copy, words, train__steps=24, **(PREFER | {"method__beta": 0.1}))
    assert "rejected: done before, unchanged" in words.said and verify(copy).findings == ()
    do(run_file, copy, words, train__steps=3, method__loss="cross-entropy")
    assert verify(copy).findings == (), "an earlier method's answers stay, and nothing rests on them"


class After(Stop):
    """Set after so many looks at it."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


MORE: dict[str, dict[str, Any]] = {
    "once": {"method__text_weight": 0.5},
    "every epoch": {"method__refresh": "epoch"},
    "adapters": {"student__lora": {"rank": 2, "alpha": 4.0}, "student__init": "whole", "student__layers": None},
    "few tokens": {"student__trim_vocabulary": True},
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_a_stopped_run_goes_on_to_the_same_weights(
    run_file: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while the student writes, then while it learns, in the middle of its third epoch."""
    monkeypatch.setattr("tutelage.pipeline.pairing.BLOCK", 8)
    changes = PREFER | {"train__steps": 11} | MORE[name]
    whole = do(run_file, tmp_path / "whole", **changes)
    for looks in (1, 9):
        with pytest.raises(TutelageError, match="interrupted"):
            do(run_file, tmp_path / "parts", stop=After(looks), **changes)
    assert do(run_file, tmp_path / "parts", **changes) == whole
    one, other = (load_file(tmp_path / run / "train" / "weights.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    for file in ("train/consumed.jsonl", "rejected/answers.jsonl"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()
    assert verify(tmp_path / "parts").findings == ()
    renewed = sorted(path.name for path in (tmp_path / "whole" / "train").glob("rejected/*"))
    assert renewed == (["epoch-2.jsonl", "epoch-3.jsonl"] if name == "every epoch" else [])
    if renewed:
        first, third = (row["text"] for row in (answers_in(tmp_path / "whole")[0],
                        next(read_lines(tmp_path / "whole" / "train" / "rejected" / "epoch-3.jsonl"))))  # fmt: skip
        assert first != third


@pytest.mark.parametrize("every", [1, 2])
def test_answers_that_are_the_preferred_ones_are_left_out_and_all_of_them_refused(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """A student that gives the data's answer to every conversation, or to every second one."""
    block, words = pairing._block, Words()

    def copied(config: Any, examples: Any, *more: Any) -> list[dict[str, Any]]:
        rows = block(config, examples, *more)
        for row, example in list(zip(rows, examples, strict=True))[::every]:
            row["ids"], row["finished"] = list(example.ids[example.targets[0] :]), True
        return rows

    monkeypatch.setattr(pairing, "_block", copied)
    if every == 1:
        with pytest.raises(DataError, match="16 conversations to train on is the preferred one") as caught:
            do(run_file, tmp_path / "run", **PREFER)
        assert caught.value.fix and not (tmp_path / "run" / "train").exists()
        return
    found = do(run_file, tmp_path / "run", words, **PREFER)
    assert any(f"10 left out: {ALIKE}" in line for line in words.said)
    assert (found.examples, found.validation_examples) == (8, 2) and verify(tmp_path / "run").findings == ()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "on-policy": ({"method__prefix": "student"}, "needs both in every step"),
    "another signal": ({"method__signal": "text"}, "does not learn from signal = 'text'"),
    "a beta of 0": ({"method__beta": 0.0}, "out of range"),
    "no room for answers": ({"method__max_new_tokens": 120}, "context of 128"),
    "a teacher": ({"teacher": {"path": "x", "licence": "own"}}, "asks no teacher"),
    "another loss that is to be renewed": ({"method__loss": "cross-entropy", "method__beta": None,
                                            "method__refresh": "epoch"}, "is for pairs"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_before_the_first_step(run_file: Path, tmp_path: Path, name: str) -> None:
    changes, words = REFUSED[name]
    if "teacher" in changes:
        changes = {"teacher": {"path": str(run_file.parent / "base"), "licence": "own"}}
    with pytest.raises(TutelageError, match=words) as caught:
        do(run_file, tmp_path / "run", **(PREFER | changes))
    assert caught.value.fix or isinstance(caught.value, ConfigError)
    assert not (tmp_path / "run" / "train").exists()


def test_it_goes_on_from_a_student_that_was_trained_before(run_file: Path, tmp_path: Path) -> None:
    """Text first, then pairs: two run files, and the second student's ancestors are the first one's."""
    first = do(run_file, tmp_path / "text", method__loss="cross-entropy", train__steps=8)
    student = {"path": str(tmp_path / "text" / "student"), "licence": "own"}
    found = do(run_file, tmp_path / "pairs", student=student, **PREFER)
    assert found.before_text_unats == pytest.approx(first.text_unats, rel=0.2)
    assert found.parameters == first.parameters and verify(tmp_path / "pairs").findings == ()
    lineage = json.loads((tmp_path / "pairs" / "student" / "lineage.json").read_bytes())
    assert "base" in " ".join(one["subject"] for one in lineage["ancestors"])


def test_questions_to_judge_by_are_answered_too_and_need_room(run_file: Path, finished: Any) -> None:
    config = load_training_config(run_file, {key.replace("__", "."): value for key, value in PREFER.items()})
    pupil = load_pupil(config, finished[0] / "before")
    ends = tuple(sorted(ends_of(pupil)))
    short, long = (Example((*range(4, 4 + size), ends[0]), (size,), "a") for size in (8, 125))
    assert check_pupil(config, pupil, [short], print)
    with pytest.raises(ConfigError, match="the longest question has 125 tokens"):
        check_pupil(config, pupil, [short], print, asked=[short, long])
