"""`tutelage train` run again over what is there, and what is refused before the time is spent."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import save_tiny
from tests.pipeline.test_training import RUN_FILE, Words, collected_in, do, write_talks
from tutelage.canon import digest_file
from tutelage.errors import TutelageError
from tutelage.ledger.verify import verify
from tutelage.pipeline import pupil
from tutelage.pipeline.tuition import size_in_words


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("file")
    path = folder / "run.toml"
    teacher = save_tiny(folder / "teacher")
    path.write_text(RUN_FILE.format(data=write_talks(folder / "talks.jsonl"), teacher=teacher))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, run_file: Path) -> Path:
    out = tmp_path_factory.mktemp("run")
    do(run_file, out)
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def kept_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("student.before-*"))


def test_a_changed_setting_is_named_and_the_earlier_student_kept(run_file: Path, copied: Path) -> None:
    first, words = digest_file(copied / "student" / "model.safetensors"), Words()
    do(run_file, copied, words, train__learning_rate=0.002)
    (kept,) = kept_in(copied)
    assert digest_file(kept / "model.safetensors") == first != digest_file(copied / "student" / "model.safetensors")
    assert (kept / "README.md").is_file() and (kept / "NOTICE").is_file()
    said = "\n".join(words.said)
    assert "train: done anew: train.learning_rate is 0.002, was 0.003" in words.said
    assert "ship: done anew: its input train is another" in said and f"kept as {kept.name}" in said
    assert not re.search(r"(data|student): done anew", said)
    assert verify(copied).findings == ()


def test_going_back_keeps_both_students_once(run_file: Path, copied: Path) -> None:
    for rate in (0.002, 0.003, 0.002):
        do(run_file, copied, train__learning_rate=rate)
    weights = {digest_file(folder / "model.safetensors") for folder in kept_in(copied)}
    assert len(kept_in(copied)) == len(weights) == 2
    assert digest_file(copied / "student" / "model.safetensors") in weights


def test_new_papers_alone_keep_no_second_copy_of_the_weights(run_file: Path, copied: Path) -> None:
    words = Words()
    do(run_file, copied, words, ship__monthly_users=5)
    assert kept_in(copied) == [] and "ship: done anew: monthly_users is 5, was null" in words.said


def test_a_file_that_went_missing_is_named(run_file: Path, copied: Path) -> None:
    words = Words()
    (copied / "student" / "NOTICE").unlink()
    do(run_file, copied, words)
    assert "ship: done anew: student/NOTICE is missing" in words.said
    (copied / "student" / "NOTICE").write_text("another")
    do(run_file, copied, words)
    assert "ship: done anew: student/NOTICE is not as it was written" in words.said


def test_a_first_run_is_not_called_anew(run_file: Path, tmp_path: Path) -> None:
    words = Words()
    do(run_file, tmp_path / "run", words)
    assert not any("anew" in line for line in words.said)


def test_too_many_layers_are_refused_before_the_weights_are_read(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(source: Path) -> Any:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(pupil, "load_base", load)
    with pytest.raises(TutelageError, match=r"student\.layers = 40, but teacher has 2") as caught:
        do(run_file, tmp_path / "run", student__layers=40)
    assert caught.value.fix == "choose at most 2"


def test_a_random_student_may_have_more_layers_than_its_base(run_file: Path, tmp_path: Path) -> None:
    do(run_file, tmp_path / "run", student__layers=3, student__init="random", train__steps=1)
    made = json.loads((tmp_path / "run" / "student" / "config.json").read_bytes())
    assert made["num_hidden_layers"] == 3


@pytest.mark.parametrize("what", ["nowhere", "a file"])
def test_a_collection_that_is_not_there_is_said_so(run_file: Path, tmp_path: Path, what: str) -> None:
    answers = tmp_path / "answers"
    if what == "a file":
        answers.write_text("{}\n")
    path = collected_in(run_file, answers)
    words = {"nowhere": "is not there", "a file": "is a file"}[what]
    with pytest.raises(TutelageError, match=f"data.collected = .*answers.*{words}") as caught:
        do(path, tmp_path / "run")
    assert "holds no answers" not in str(caught.value) and caught.value.fix


@pytest.mark.parametrize("key", ["data.path", "student.path", "teacher.path"])
def test_what_is_not_there_is_said_before_its_licence_is_judged(run_file: Path, tmp_path: Path, key: str) -> None:
    table = key.split(".")[0]
    changes = {key: str(tmp_path / "nowhere"), f"{table}.licence": "who-knows"}
    with pytest.raises(TutelageError, match=r"nowhere") as caught:
        do(run_file, tmp_path / "run", **changes)
    assert "who-knows" not in str(caught.value) and "registry" not in caught.value.fix
    assert not (tmp_path / "run" / "config.json").exists()


def test_small_sizes_are_said_in_a_unit_that_shows_them() -> None:
    assert [size_in_words(size) for size in (0, 999, 1_000, 48_312, 999_949, 1_000_000, 12_345_678, 2_400_000_000)] == [
        "0 bytes", "999 bytes", "1.0 kB", "48.3 kB", "999.9 kB", "1.0 MB", "12.3 MB", "2,400.0 MB"
    ]  # fmt: skip
