"""The student writes, the teacher judges: the same loop, repeatable to the bit, and what is counted and guarded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.models.tiny import save_tiny
from tutelage.config import TrainTable
from tutelage.errors import ConfigError, Interrupted, SignalError
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.progress import Quiet, Stop
from tutelage.train.examples import Example, render
from tutelage.train.health import Finding
from tutelage.train.loop import Loop, Seen, train
from tutelage.train.onpolicy import RolloutSource, written
from tutelage.train.rollout import Rollout
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.teaching import LiveTeacher, ScoringTeacher, Teaching


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def examples(folder: Path) -> tuple[Example, ...]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    talks = [
        (text, [{"role": "user", "content": text}, {"role": "assistant", "content": "good"}])
        for text in ("the film", "the plot is slow", "a story", "love", "and the film is bad", "déjà vu")
    ]
    return render(talks, tokenizer, 64).examples


def teaching(folder: Path, kind: str) -> Teaching:
    teacher = Causal.load(folder)
    with torch.no_grad():
        teacher.head().weight_VD[7] += 0.5
    if kind == "sampled":
        return ScoringTeacher(teacher, make("sampled-reverse-kl"))
    return LiveTeacher(teacher, make(kind))


def nothing(student: Causal, autocast: torch.autocast) -> Seen:
    return Seen(0.0, {}, {})


def run(folder: Path, work: Path, kind: str, log: list, stop: Stop | None = None, **more: Any) -> Causal:
    student = Causal.load(folder)
    table = TrainTable(
        epochs=2.0,
        batch_size=2,
        learning_rate=1e-3,
        precision="float32",
        checkpoint_every_s=1e-9,
        train_embeddings=True,
    )
    settings = {"max_new_tokens": 12} | more
    source = RolloutSource(
        examples(folder), student, LocalRoller(student.model), teaching(folder, kind), table, 3, **settings
    )
    train(student, source, nothing, Loop(table, 3, work, Quiet(), Stop() if stop is None else stop, log.append))
    return student


@pytest.mark.parametrize("kind", ["reverse-kl", "sampled"])
def test_a_resumed_run_writes_the_same_answers_and_ends_in_the_same_bits(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    full: list[dict[str, Any]] = []
    unbroken = run(folder, tmp_path / "one", kind, full)
    stop, seen = Stop(), list[dict[str, Any]]()

    class Log(list):
        def append(self, entry: dict) -> None:
            seen.append(entry)
            if entry["step"] == 3:
                stop.set()

    with pytest.raises(Interrupted):
        run(folder, tmp_path / "two", kind, Log(), stop)
    again = run(folder, tmp_path / "two", kind, seen)
    for one, other in zip(unbroken.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [step["loss_nats"] for step in full] == [step["loss_nats"] for step in seen]
    assert len({step["tokens"] for step in full}) > 1, "answers differ from step to step"


def test_a_mixture_takes_some_steps_on_the_datas_text(folder: Path, tmp_path: Path) -> None:
    log: list[dict[str, Any]] = []
    run(folder, tmp_path, "jsd", log, student_share=0.5)
    own = [step["rollout/own_text"] for step in log]
    assert set(own) == {0.0, 1.0}
    with pytest.raises(ConfigError, match="share of 0"):
        run(folder, tmp_path, "jsd", log, student_share=0.0)


def test_trap_d13_scores_of_the_datas_text_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="student's own text"):
        run(folder, tmp_path, "sampled", [], student_share=0.01)


def test_trap_c9_no_end_is_made_up_for_a_cut_answer() -> None:
    cut = written(Rollout((5, 6), (7, 8), (-0.1, -0.2), finished=False), "a")
    assert cut.ids == (5, 6, 7, 8)
    assert cut.targets == (2, 3)


def test_what_goes_wrong_is_told(folder: Path, tmp_path: Path) -> None:
    found: list[Finding] = []
    log: list[dict[str, Any]] = []
    run(folder, tmp_path, "reverse-kl", log, max_new_tokens=1, warn=found.append)
    assert {"truncation"} <= {finding.name for finding in found}
    assert log[0]["rollout/length_tokens"] == 1.0
    assert log[0]["rollout/entropy_nats"] > 0
