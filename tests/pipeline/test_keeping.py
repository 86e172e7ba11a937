"""Rollouts that are kept: written and scored once, the same training at first, nothing asked twice, no other teacher's scores."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.scoring_endpoint import Endpoint
from tests.pipeline.test_scorer import endpoint, run_file, weights  # noqa: F401  (fixtures)
from tests.pipeline.test_training import Words
from tutelage.errors import ConfigError, Interrupted, SignalError, StorageError
from tutelage.jsonl import read_lines
from tutelage.ledger.verify import verify
from tutelage.pipeline import teaching_plan
from tutelage.pipeline.run import Run
from tutelage.pipeline.training import Trained, ready, train_student
from tutelage.progress import Stop
from tutelage.run_file import load_training_config
from tutelage.train.rollout import Rollout
from tutelage.train.rollout_local import LocalRoller

KEPT = {
    "method.loss": "sampled-reverse-kl", "method.prefix": "student", "method.rollouts": "kept", "train.steps": 3,
    "train.answers": 0, "train.precision": "float32",
}  # fmt: skip


@pytest.fixture
def near(run_file: Path, weights: Path) -> Path:  # noqa: F811
    """With the teacher's weights here."""
    text = run_file.read_text()
    start, end = text.index("[teacher]"), text.index("[student]")
    path = run_file.with_name("near.toml")
    path.write_text(f'{text[:start]}[teacher]\npath = "{weights}"\nlicence = "Apache-2.0"\n\n{text[end:]}')
    return path


def do(run_file: Path, out: Path, said: Words | None = None, stop: Stop | None = None, **changes: Any) -> Trained:  # noqa: F811
    config = load_training_config(run_file, KEPT | changes)
    with Run(out, said or Words(), Stop() if stop is None else stop) as run:
        return train_student(ready(config), run)


def metrics(out: Path) -> list[dict[str, Any]]:
    return list(read_lines(out / "train" / "metrics.jsonl"))


def stages(out: Path, name: str) -> list[dict[str, Any]]:
    log = read_lines(out / "ledger" / "log.jsonl")
    return [line for line in log if line["kind"] == "statement" and line["stage"] == name]


def test_the_first_step_is_that_of_fresh_rollouts_and_the_record_holds(near: Path, tmp_path: Path) -> None:
    found = do(near, tmp_path / "kept")
    do(near, tmp_path / "fresh", **{"method.rollouts": "fresh"})
    kept, fresh = metrics(tmp_path / "kept"), metrics(tmp_path / "fresh")
    assert kept[0]["loss_nats"] == pytest.approx(fresh[0]["loss_nats"], abs=3e-6)  # what micro-nats leave
    assert kept[0]["grad_norm"] == pytest.approx(fresh[0]["grad_norm"], rel=1e-4)
    assert (
        kept[-1]["rollout/drift_nats"] > 10 * fresh[-1]["rollout/drift_nats"]
    )  # the student moved, its answers did not
    rows = list(read_lines(tmp_path / "kept" / "rollouts" / "answers.jsonl"))
    assert found.tokens["soft-target"] == sum(len(row["ids"]) for row in rows)
    assert len(rows) == 3 * 4 and all(len(row["ids"]) == len(row["score_unats"]) for row in rows)
    assert not verify(tmp_path / "kept").findings


def test_other_steps_on_the_same_rollouts_write_nothing_anew(near: Path, tmp_path: Path) -> None:
    said = Words()
    do(near, tmp_path / "out")
    do(near, tmp_path / "out", said, **{"train.learning_rate": 0.01})
    assert "rollouts: done before, unchanged" in said.said
    assert len(stages(tmp_path / "out", "rollouts")) == 1 and len(stages(tmp_path / "out", "train")) == 2


def test_an_endpoint_is_asked_once_for_every_answer(run_file: Path, tmp_path: Path, endpoint: Endpoint) -> None:  # noqa: F811
    out = tmp_path / "out"
    do(run_file, out)
    endpoint.asked = []
    do(run_file, out, **{"train.learning_rate": 0.01})
    assert not endpoint.asked  # the answers were not written anew, and the scores of both sides are there
    assert not verify(out).findings
    made, trained = (stages(out, name)[-1] for name in ("rollouts", "train"))
    assert trained["inputs"]["rollouts"] and trained["inputs"]["scorer"] == made["inputs"]["scorer"]
    assert trained["facts"]["settled_tokens"] == endpoint.tokens


def test_a_teacher_that_is_swapped_between_scores_and_steps_is_refused(
    run_file: Path, tmp_path: Path, endpoint: Endpoint  # noqa: F811
) -> None:  # fmt: skip
    stop, written = Stop(), 12
    endpoint.bend = lambda answer: stop.set() if len(endpoint.asked) > 8 + written + 1 else None
    with pytest.raises(Interrupted):
        do(run_file, tmp_path / "out", stop=stop, **{"data.validation": 8})
    endpoint.bend, endpoint.fingerprint = lambda answer: None, "fp-two"
    with pytest.raises(SignalError, match=r"'tiny fp-one'.*'tiny fp-two'.*two teachers are not mixed"):
        do(run_file, tmp_path / "out", **{"data.validation": 8})


def test_other_weights_score_anew(near: Path, weights: Path, tmp_path: Path) -> None:  # noqa: F811
    do(near, tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    config = json.loads((other / "generation_config.json").read_bytes())
    (other / "generation_config.json").write_text(json.dumps(config | {"top_k": 7}))
    said = Words()
    do(near, tmp_path / "out", said, **{"teacher.path": str(other)})
    assert any(line.startswith("rollouts: done anew: ") for line in said.said)


def test_a_stopped_writing_goes_on_to_the_same_answers(near: Path, tmp_path: Path) -> None:
    changes = {"train.steps": 40}  # more than two blocks
    do(near, tmp_path / "whole", **changes)

    class Once(Words):
        def advance(self, done: int) -> None:
            stop.set()

    stop = Stop()
    with pytest.raises(Interrupted):
        do(near, tmp_path / "out", Once(), stop, **changes)
    assert not (tmp_path / "out" / "rollouts").exists()
    do(near, tmp_path / "out", **changes)
    one, other = (tmp_path / name / "rollouts" / "answers.jsonl" for name in ("whole", "out"))
    assert one.read_bytes() == other.read_bytes()


def test_rollouts_that_are_missing_are_named(near: Path, tmp_path: Path) -> None:
    from tutelage.train.kept import KeptRoller

    with pytest.raises(StorageError, match="the answer by seed 5 is not among the kept rollouts"):
        KeptRoller({}).write([(1, 2)], 8, 1.0, [5])


def test_a_changed_answer_is_found(near: Path, tmp_path: Path) -> None:
    do(near, tmp_path / "out")
    path = tmp_path / "out" / "rollouts" / "answers.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"finished":false', b'"finished":true ', 1))
    assert any(finding.where == "rollouts/answers.jsonl" for finding in verify(tmp_path / "out").findings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method.loss": "reverse-kl"}, r'rollouts = "kept" keeps scores of the tokens that the student drew'),
        ({"method.prefix": 0.5}, r'rollouts = "kept" keeps scores of the tokens that the student drew'),
        ({"teacher.system": "Be short."}, "method.rollouts = kept takes one teacher that reads what the student reads"),
    ],
)
def test_what_cannot_be_kept_is_refused(near: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        do(near, tmp_path / "out", **changes)


@pytest.mark.parametrize("off", [0.0, 0.25])
def test_an_engine_with_other_weights_is_told_of(
    near: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    class Off(LocalRoller):
        def write(self, *given: Any) -> list[Rollout]:
            return [one._replace(logp=tuple(value - off for value in one.logp)) for one in super().write(*given)]

    monkeypatch.setattr(teaching_plan, "LocalRoller", Off)
    said = Words()
    do(near, tmp_path / "out", said)
    assert any("its weights are stale or coarse" in line for line in said.said) == bool(off)
    assert _facts(tmp_path / "out")["drift_unats"] == pytest.approx(1e6 * off, abs=100)


def _facts(out: Path) -> dict[str, Any]:
    """Of the rollouts stage."""
    lines = map(json.loads, (out / "ledger" / "log.jsonl").read_text().splitlines())
    return next(line["facts"] for line in lines if (line["kind"], line["stage"]) == ("statement", "rollouts"))


def test_a_student_of_no_known_teacher_is_warned_of(near: Path, tmp_path: Path, weights: Path) -> None:  # noqa: F811
    said = Words()
    do(near, tmp_path / "out", said)
    (line,) = [line for line in said.said if "rollouts are kept for a student" in line]
    assert weights.name in line and "lineage names no teacher" in line
    said = Words()
    trained = {"student.path": str(tmp_path / "out" / "student"), "student.licence": "own", "student.init": "whole"}
    text = near.read_text().replace("layers = 1\n", "")
    near.write_text(text)
    do(near, tmp_path / "next", said, **trained)
    assert not any("rollouts are kept for a student" in line for line in said.said)
