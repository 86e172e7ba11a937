"""Answers and reasonings as two tasks: the weighted means exactly, whatever the passes, and where the reasoning comes from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.tiny import save_tiny
from tests.pipeline.test_training import RUN_FILE, Words, do, write_talks
from tests.train.test_pairs import END, PLAIN, example, logq
from tutelage.collect.conversations import talk_of
from tutelage.collect.questions import UnusableRow
from tutelage.collect.rationales import split_answer
from tutelage.collect.rows import Row
from tutelage.config import TrainTable
from tutelage.errors import TutelageError
from tutelage.jsonl import read_lines, write_lines
from tutelage.ledger.verify import verify
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.pipeline.rendering import asked_to_reason
from tutelage.train.judging import HeldOutJudge
from tutelage.train.loop import take
from tutelage.train.memory import Fit
from tutelage.train.rationales import TaskJudge, TaskSource
from tutelage.train.teaching import Words as Text
from tutelage.training_config import ConversationsTable

LABELS = tuple(example((70 + at, 80), (100 + at, END), str(at)) for at in range(3))
REASONS = {str(at): example((60, 70 + at, 80), (110, 111, 112 + at, END)[at:], str(at)) for at in (0, 2)}
WEIGHT = 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def by_hand(student: Any) -> torch.Tensor:
    label, reason = (torch.cat([-logq(student, one) for one in some]).mean() for some in (LABELS, REASONS.values()))
    share = WEIGHT * 2 / 3  # two of three have a reasoning
    return (1 - share) * label + share * reason


@pytest.mark.parametrize("limit", [None, 8])
def test_a_step_is_the_weighted_mean_of_each_task(folder: Path, limit: int | None) -> None:
    student, plain = Causal.load(folder), Causal.load(folder).model
    table = TrainTable(epochs=1, batch_size=3)
    source = TaskSource(LABELS, REASONS, make("cross-entropy"), WEIGHT, table, 0)
    rows = source.rows(0)
    result = take(student, source, rows, Fit(limit), 1e9, PLAIN)
    expected = by_hand(plain)
    expected.backward()
    assert result.objective_nats / result.loss_tokens == pytest.approx(expected.item(), rel=1e-5)
    assert result.by_role == {"text-target": 12} and result.positions == {"cross-entropy": 6, "rationale": 6}
    for (name, one), other in zip(student.model.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-6), name
    text = Text(make("cross-entropy"))
    judge = TaskJudge(HeldOutJudge(LABELS, text), HeldOutJudge(list(REASONS.values()), text), WEIGHT, 2 / 3)
    seen = judge(Causal.load(folder), PLAIN)
    assert seen.score_nats == pytest.approx(expected.item(), rel=1e-5)
    assert seen.facts["objective_unats"] == round(1e6 * seen.score_nats) != seen.facts["text_unats"]


def test_reasoning_is_told_apart_by_its_marker() -> None:
    assert split_answer("2 + 2 is 4\n#### 4", "####") == ("2 + 2 is 4", "4")
    assert split_answer("a #### b\n#### c", "####") == ("a #### b", "c")
    assert split_answer("<think>\nso\n</think>\n\nyes", "</think>") == ("so", "yes")
    assert split_answer("so</think>yes", "</think>") == ("so", "yes")
    assert split_answer("yes", "####") == ("", "yes")


def talk(fields: dict[str, Any], **settings: Any) -> Any:
    return talk_of(Row(1, fields, b"", ""), ConversationsTable(path="x", licence="own", **settings))


def test_a_row_gives_its_answer_and_its_reasoning() -> None:
    row = {"question": "q", "answer": "because\n#### 4", "why": " so "}
    found = talk(row, rationale_marker="####")
    assert (found.messages[-1]["content"], found.rationale) == ("4", "because")
    found = talk(row, rationale="why")
    assert (found.messages[-1]["content"], found.rationale) == ("because\n#### 4", "so")
    assert talk(row).rationale == "" and talk(row | {"why": None}, rationale="why").rationale == ""
    assert talk(row, rationale="why").id != talk(row).id
    for fields, settings in (({"answer": "so ####"}, {"rationale_marker": "####"}), ({"why": 3}, {"rationale": "why"})):
        with pytest.raises(UnusableRow):
            talk(row | fields, **settings)


def test_the_question_is_asked_under_the_prefix() -> None:
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert asked_to_reason(said, "[why]", "so") == [
        said[0], {"role": "user", "content": "[why]\nq"}, {"role": "assistant", "content": "so"}
    ]  # fmt: skip
    assert said[1]["content"] == "q"


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("file")
    rows = list(read_lines(write_talks(folder / "talks.jsonl")))
    for at, row in enumerate(rows):
        if at % 5:
            row["answer"] = f"the {row['answer']} film is slow\n#### {row['answer']}"
    write_lines(folder / "talks.jsonl", rows)
    text = RUN_FILE.format(data=folder / "talks.jsonl", teacher=save_tiny(folder / "base"))
    path = folder / "run.toml"
    path.write_text(text[: text.index("[teacher]")] + text[text.index("[student]") :])
    return path


def test_from_the_run_file_both_are_learnt_counted_and_verified(run_file: Path, tmp_path: Path) -> None:
    words = Words()
    settings = {"data__rationale_marker": "####", "method__loss": "cross-entropy"}
    found = do(run_file, tmp_path / "run", words, train__steps=24, student__trim_vocabulary=True, **settings)
    assert verify(tmp_path / "run").findings == ()
    assert "data: 16 of 20 conversations come with a rationale" in words.said
    assert any(line.startswith("look: 16 rationales with") for line in words.said)
    lines = list(read_lines(tmp_path / "run" / "train" / "metrics.jsonl"))
    assert lines[-1]["validation_rationale_nats"] < 0.8 * lines[3]["validation_rationale_nats"]
    assert found.text_unats < found.before_text_unats
    rows = json.loads((tmp_path / "run" / "train" / "sources.json").read_bytes())["rows"]
    assert next(row for row in rows if row["role"] == "text-target")["loss_tokens"] == found.tokens["text-target"]
    said = {row["id"]: row for row in read_lines(tmp_path / "run" / "data" / "conversations.jsonl")}
    assert sum("rationale" in row for row in said.values()) == 16
    assert not any("####" in message["content"] for row in said.values() for message in row["messages"])
    alone = do(
        run_file, tmp_path / "alone", train__steps=24, data__rationale_marker=None, **{"method__loss": "cross-entropy"}
    )
    assert alone.examples == found.examples


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no row with one": ({"data__rationale_marker": "===="}, "comes with a rationale"),
    "a loss on distributions": ({"data__rationale_marker": "####", "method__loss": "dpo"}, "learnt as text"),
    "a weight of nothing": ({"method__rationale_weight": 0.3}, "no reasoning is learnt"),
    "both": ({"data__rationale_marker": "####", "data__rationale": "why"}, "column of a file"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused(run_file: Path, tmp_path: Path, name: str) -> None:
    changes, words = REFUSED[name]
    with pytest.raises(TutelageError, match=words):
        do(run_file, tmp_path / "run", **({"method__loss": "cross-entropy"} | changes))
    assert not (tmp_path / "run" / "train").exists()
