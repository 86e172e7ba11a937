"""Tasks by name, what is refused, texts and labels, and a task of one's own in a small file."""

from pathlib import Path

import pytest

from tutelage.errors import ConfigError, DataError
from tutelage.prove.tasks.base import Answer
from tutelage.prove.tasks.catalogue import BUILT_IN, task_of

OWN = '''"""How near the length of an answer is to the reference's."""

from dataclasses import dataclass

from tutelage.errors import ConfigError, DataError
from tutelage.prove.tasks.base import Answer, Score


@dataclass(frozen=True)
class Length:
    name: str = "length"
    is_binary: bool = False
    metric: str = "share of length"

    def require_reference(self, reference: str) -> None:
        if not reference:
            raise DataError("gold is empty", fix="give every gold")

    def score(self, answer: Answer, reference: str) -> Score:
        short, long = sorted((len(answer.text), len(reference)))
        return Score(short / max(long, 1), bool(answer.text), f"{len(answer.text)} characters")


def make(options):
    if options:
        raise ConfigError(f"length takes no options, not {options}", fix="leave them out")
    return Length()
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_task.py").write_text(OWN + "\n\nclass Half:\n    name = 'half'\n")
    info = tmp_path / "their_task-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-task\nVersion: 1.0\n")
    points = (
        "length = their_task:make\nhalf = their_task:Half\nfew = their_task:make.nothing\nexact = their_task:make\n"
    )
    (info / "entry_points.txt").write_text(f"[tutelage.tasks]\n{points}")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_a_task_of_one_s_own_is_a_small_file() -> None:
    assert len(OWN.splitlines()) < 30
    task = task_of("length", {})
    assert task.score(Answer("abc"), "abcd").value == 0.75
    with pytest.raises(DataError, match="gold is empty"):
        task.require_reference("")
    with pytest.raises(ConfigError, match="no options"):
        task_of("length", {"x": 1})
    assert task_of("exact", {}).metric == "exact match", "a plug-in replaces nothing of ours"


@pytest.mark.usefixtures("installed")
def test_a_plug_in_that_is_no_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'half' cannot be opened"):
        task_of("half", {})
    with pytest.raises(ConfigError, match=r"'few' cannot be opened"):
        task_of("few", {})
    with pytest.raises(ConfigError, match="no task kind 'lenght'; did you mean 'length'") as caught:
        task_of("lenght", {})
    assert "length" in caught.value.fix


def test_unknown_kinds_options_and_code_by_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'number'"):
        task_of("numbre", {})
    with pytest.raises(ConfigError, match="tolerance"):
        task_of("number", {"tolerence": 1})
    with pytest.raises(ConfigError, match="names code") as caught:
        task_of("os:system", {})
    assert "entry point" in caught.value.fix
    with pytest.raises(ConfigError, match="allow_execution is not true"):
        task_of("code", {})


def test_names_and_metrics() -> None:
    made = {
        kind: task_of(kind, {"labels": ["a", "b"]} if kind == "labels" else {}) for kind in BUILT_IN if kind != "code"
    }
    assert all(task.name == kind for kind, task in made.items())
    assert [kind for kind, task in made.items() if not task.is_binary] == ["json", "rouge_l", "chrf"]
    assert task_of("json", {"score": "all"}).is_binary


@pytest.mark.parametrize(
    ("answer", "gold", "options", "is_right"),
    [
        (" Paris\n", "Paris", {}, 1),
        ("Paris.", "Paris", {}, 0),
        ("paris", "Paris", {}, 0),
        ("paris", "Paris", {"ignore_case": True}, 1),
        ("Paris!", "Paris", {"ignore_punctuation": True}, 1),
        ("3.5", "35", {"ignore_punctuation": True}, 0),
        ("-1", "1", {"ignore_punctuation": True}, 0),
        ("a  b", "a b", {}, 1),
        ("a  b", "a b", {"ignore_white_space": False}, 0),
        ("e\u0301", "é", {}, 1),
        ("STRASSE", "straße", {"ignore_case": True}, 1),
        ("Pariss", "Paris", {}, 0),
    ],
)
def test_exact(answer: str, gold: str, options: dict, is_right: int) -> None:
    assert task_of("exact", options).score(Answer(answer), gold).value == is_right


def test_labels() -> None:
    task = task_of("labels", {"labels": ["negative", "positive"]})
    assert task.score(Answer(" Positive."), "positive").value == 1
    assert task.score(Answer("neg"), "positive").value == 0
    found = task.score(Answer("who knows"), "positive")
    assert (found.value, found.is_read) == (0, False)
    with pytest.raises(DataError, match="none of the labels"):
        task.require_reference("5")
    with pytest.raises(ConfigError, match="repeat"):
        task_of("labels", {"labels": ["a", "A"]})


def test_empty_gold_is_refused() -> None:
    with pytest.raises(DataError, match="is empty"):
        task_of("exact", {"ignore_punctuation": True}).require_reference("!!")
