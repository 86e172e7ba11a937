"""The student writes, the teacher judges: the same loop, repeatable to the bit, and what is counted and guarded."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoTokenizer

from tests.models.tiny import save_tiny
from tutelage.config import TrainTable
from tutelage.errors import ConfigError, Interrupted, SignalError
from tutelage.losses.catalogue import make
from tutelage.losses.sampled import Baselined
from tutelage.models.causal import Causal
from tutelage.progress import Quiet, Stop
from tutelage.train.examples import Example, render
from tutelage.train.health import Finding, Start
from tutelage.train.loop import Loop, Seen, precision, take, train
from tutelage.train.memory import Fit
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


def source_of(folder: Path, student: Causal, kind: str, batch_size: int = 4, **more: Any) -> RolloutSource:
    table, settings = TrainTable(epochs=1.0, batch_size=batch_size), {"max_new_tokens": 12} | more
    roller = settings.pop("roller", None) or LocalRoller(student.model)
    return RolloutSource(examples(folder), student, roller, teaching(folder, kind), table, 3, **settings)


def test_scores_come_with_the_mean_reward_of_the_other_answers_of_the_whole_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the step is split, and however the teacher reads it: the same gradient."""
    found = []
    for limit, read in ((None, 4096), (30, 4096), (30, 1)):
        monkeypatch.setattr("tutelage.train.teaching.PASS_TOKENS", read)
        student = Causal.load(folder)
        source = source_of(folder, student, "sampled")
        rows = source.rows(0)
        take(student, source, rows, Fit(limit), 1e9, precision("float32"))
        found.append(torch.cat([p.grad.flatten() for p in student.model.parameters()]))
        parts = [source.batch((row,)).terms[0].parts[0] for row in rows]
        signals = [cast("Baselined", part.signal) for part in parts]
        reward = [signal.logp_N - signal.drawn_logp_N for signal in signals]
        for row, signal in enumerate(signals):
            others = torch.cat([own for at, own in enumerate(reward) if at != row])
            torch.testing.assert_close(signal.baseline_N, others.mean().expand(len(signal)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=1e-4)
    alone = source_of(folder, student, "sampled", 1)
    (part,) = alone.batch(alone.rows(0)).terms[0].parts
    assert (cast("Baselined", part.signal).baseline_N == 0).all()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_scores_of_tokens_drawn_otherwise_are_refused(folder: Path, tmp_path: Path, temperature: float) -> None:
    with pytest.raises(ConfigError, match="draws at 1"):
        run(folder, tmp_path, "sampled", [], temperature=temperature)


class Off(LocalRoller):
    """Says of its tokens that they were less likely than they were."""

    def write(self, *given: Any) -> list[Rollout]:
        return [
            rollout._replace(logp=tuple(value - 0.25 for value in rollout.logp)) for rollout in super().write(*given)
        ]


@pytest.mark.parametrize("kind", ["reverse-kl", "sampled"])
def test_a_writer_that_is_not_the_trainer_is_told(folder: Path, kind: str) -> None:
    for roller, drift in ((LocalRoller, 0.0), (Off, 0.25)):
        student, found = Causal.load(folder), list[Finding]()
        source = source_of(folder, student, kind, roller=roller(student.model), warn=found.append)
        take(student, source, source.rows(0), Fit(None), 1e9, precision("float32"))
        metrics = source.metrics()
        assert metrics["rollout/drift_nats"] == pytest.approx(drift, abs=1e-4)
        assert ("engine_drift" in {finding.name for finding in found}) == (drift > 0)


def test_a_run_that_is_gone_on_with_knows_what_was_usual(folder: Path) -> None:
    student, found = Causal.load(folder), list[Finding]()
    source = source_of(folder, student, "reverse-kl", start=Start(5, 1.0, 100.0), warn=found.append)
    take(student, source, source.rows(0), Fit(None), 1e9, precision("float32"))
    source.metrics()
    assert {"length_inflation", "entropy_collapse"} <= {finding.name for finding in found}


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
