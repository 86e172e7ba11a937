"""Whose terms a training is judged by, and whose words and weights its record names: of answers, of a changed teacher, of a
folder that is somebody else's record."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import save_tiny
from tests.pipeline.test_training import RUN_FILE, WORDS, Words, collect, collected_in, do, write_talks
from tutelage.cli.main import main
from tutelage.collect.importing import Declared, import_file
from tutelage.errors import ConfigError, TermsError, TutelageError
from tutelage.jsonl import read_lines
from tutelage.ledger.verify import verify
from tutelage.pipeline.gate import Base
from tutelage.pipeline.gate_training import TrainingGate, may_train
from tutelage.pipeline.run import Run
from tutelage.pipeline.session import today
from tutelage.progress import Quiet, Stop
from tutelage.redact import Secrets
from tutelage.run_file import load_training_config
from tutelage.store.store import Store

RISK = {"who": "Ada", "reason": "ours", "scope": "this run"}
SHORT: dict[str, Any] = {"train__steps": 1, "train__answers": 0}
TEXT: dict[str, Any] = {**SHORT, "method__loss": "cross-entropy"}


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "teacher")


@pytest.fixture
def run_file(tmp_path: Path, teacher: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(RUN_FILE.format(data=write_talks(tmp_path / "talks.jsonl"), teacher=teacher))
    return path


@pytest.fixture
def text_file(run_file: Path) -> Path:
    """Without a teacher."""
    text, path = run_file.read_text(), run_file.with_name("text.toml")
    path.write_text(text[: text.index("[teacher]")] + text[text.index("[student]") :])
    return path


def judged(run_file: Path, **changes: Any) -> TrainingGate:
    config = load_training_config(run_file, {key.replace("__", "."): value for key, value in changes.items()})
    return may_train(config, today())


def rows_of(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "train" / "sources.json").read_bytes())["rows"]


def intents(run: Path, stage: str) -> int:
    lines = read_lines(run / "ledger" / "log.jsonl")
    return sum((line["kind"], line["stage"]) == ("intent", stage) for line in lines)


def imported(folder: Path, declared: Declared) -> Path:
    rows = [{"prompt": f"{a} {b}", "completion": "good"} for a, b in zip(WORDS[:6], WORDS[6:12], strict=True)]
    file, answers = folder / "answers.jsonl", folder / "imported"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Store(answers / "store") as store:
        import_file(file, store, declared, Secrets({}))
    return answers


def test_a_permission_of_this_morning_permits_nothing_else(text_file: Path, tmp_path: Path) -> None:
    """The verdicts may be the same while what permits them, or what the run file says of the student, is not."""
    out, unknown = tmp_path / "out", {**TEXT, "student__licence": "who-knows"}
    do(text_file, out, **unknown, student__accepted_risk=RISK)
    with pytest.raises(TermsError, match="unknown"):
        do(text_file, out, **unknown, data__accepted_risk=RISK)
    out, research = tmp_path / "other", {**TEXT, "data__licence": "cc-by-nc-4.0", "run__purpose": "research"}
    do(text_file, out, **research, ship__commercial=False)
    with pytest.raises(TermsError, match="a condition of the terms is not met"):
        do(text_file, out, **research | {"train__steps": 2}, ship__commercial=True)
    assert intents(out, "train") == 1


def test_what_is_said_of_a_teacher_follows_it_without_training_again(
    run_file: Path, teacher: Path, tmp_path: Path
) -> None:
    out, other, words = tmp_path / "out", tmp_path / "elsewhere", Words()
    do(run_file, out, **SHORT)
    shutil.copytree(teacher, other)
    do(run_file, out, words, **SHORT, teacher__path=str(other))
    licence = tmp_path / "mit.txt"
    licence.write_text("MIT License")
    said = {"teacher__path": str(other), "teacher__licence": "mit", "ship__licence_files": [str(licence)]}
    do(run_file, out, words, **SHORT, **said)
    assert "train: done before, unchanged" in words.said and intents(out, "train") == 1
    verdicts = [json.loads(path.read_bytes())["teacher"] for path in (out / "terms").iterdir()]
    assert {(one["subject"], one["licence"]) for one in verdicts} == {
        ("teacher", "Apache-2.0"), ("elsewhere", "Apache-2.0"), ("elsewhere", "mit")
    }  # fmt: skip
    soft = next(row for row in rows_of(out) if row["role"] == "soft-target")
    assert (soft["teacher"], soft["licence"]) == ("elsewhere", "mit")
    lineage = json.loads((out / "student" / "lineage.json").read_bytes())["ancestors"]
    assert ("elsewhere", "mit") in {(one["subject"], one["licence"]) for one in lineage}
    assert "| elsewhere | mit | soft-target |" in (out / "student" / "README.md").read_text()
    assert verify(out).findings == ()


def test_a_risk_is_told_of_whom_it_was_taken_for(text_file: Path, tmp_path: Path) -> None:
    for subject in ("data", "student"):
        do(text_file, tmp_path / "out", **TEXT, **{f"{subject}__accepted_risk": RISK})
        ancestors = json.loads((tmp_path / "out" / "student" / "lineage.json").read_bytes())["ancestors"]
        accepted = [one["role"] for one in ancestors if one["accepted_risks"]]
        assert accepted == [{"data": "data", "student": "base"}[subject]]


def test_answers_are_judged_by_who_wrote_them(text_file: Path, tmp_path: Path) -> None:
    """A collection begun again with another teacher, and stopped, still holds the first one's answers."""
    assert collect(tmp_path, "llama-3.1") == 0
    assert collect(tmp_path, "apache-2.0", "other", "http://127.0.0.1:9/v1") != 0
    path = collected_in(text_file, tmp_path / "answers")
    found = judged(path)
    assert (found.judged["answers"].subject, found.judged["answers"].licence) == ("loop at loopback", "llama-3.1")
    assert "llama" in " ".join(one.entry for one in found.gate.conditions)
    with pytest.raises(TermsError):
        do(path, tmp_path / "out", **TEXT)


def test_two_teachers_in_one_store_are_both_judged(text_file: Path, tmp_path: Path) -> None:
    assert collect(tmp_path, "mit", "one") == 0
    with Store(tmp_path / "answers" / "store") as store:
        more = tmp_path / "more.jsonl"
        more.write_text(json.dumps({"prompt": "what now", "completion": "bad"}) + "\n")
        import_file(more, store, Declared("gpt-x", "openai", "who-knows"), Secrets({}))
    shutil.rmtree(tmp_path / "answers" / "ledger")
    found = judged(collected_in(text_file, tmp_path / "answers"), data__accepted_risk=RISK)
    assert {verdict.licence for name, verdict in found.judged.items() if "answers" in name} == {"mit", "who-knows"}
    assert {"mit", "who-knows"} <= {one.licence for one in found.gate.lineage.ancestors}


def test_a_licence_for_the_file_launders_no_answers(text_file: Path, tmp_path: Path) -> None:
    answers = imported(tmp_path, Declared("gpt-x", "openai", "llama-3.1"))
    with pytest.raises(ConfigError, match=r"data.*licence"):
        judged(collected_in(text_file, answers, 'licence = "mit"\n'), data__accepted_risk=RISK)
    path = collected_in(text_file, answers)
    with pytest.raises(TermsError, match="captured or imported"):
        judged(path)
    found = judged(path, data__accepted_risk=RISK)
    assert (found.judged["answers"].licence, found.judged["answers"].route) == ("llama-3.1", "openai")
    assert {"openai-services", "llama-3.1"} <= {reason.entry for reason in found.judged["answers"].reasons}
    assert any(one.entry == "llama-3.1" for one in found.gate.conditions)
    assert ("gpt-x at openai", "llama-3.1") in {(one.subject, one.licence) for one in found.gate.lineage.ancestors}


def test_the_author_of_the_questions_is_named(text_file: Path, tmp_path: Path) -> None:
    assert collect(tmp_path) == 0
    do(collected_in(text_file, tmp_path / "answers"), tmp_path / "out", **TEXT)
    rows = {row["role"]: row for row in rows_of(tmp_path / "out")}
    assert (rows["text-target"]["teacher"], rows["text-target"]["licence"]) == ("loop", "mit")
    asked = rows["prompt-author"]
    assert (asked["teacher"], asked["route"], asked["licence"]) == ("questions.jsonl", "file", "own")
    assert asked["weights"].startswith("sha256:") and asked["loss_tokens"] == 0 < asked["examples"]
    assert verify(tmp_path / "out").findings == ()


def test_questions_of_another_start_are_refused(text_file: Path, tmp_path: Path) -> None:
    assert collect(tmp_path, questions=8) == 0
    assert collect(tmp_path, url="http://127.0.0.1:9/v1", questions=4) != 0
    with pytest.raises(ConfigError, match="other questions") as caught:
        judged(collected_in(text_file, tmp_path / "answers"))
    assert "tutelage collect" in caught.value.fix


def test_a_lineage_that_is_named_hides_none_that_is_there(run_file: Path, teacher: Path, tmp_path: Path) -> None:
    do(run_file, tmp_path / "first", **SHORT)
    lineage = json.loads((tmp_path / "first" / "student" / "lineage.json").read_bytes())
    named = tmp_path / "named.json"
    named.write_text(json.dumps(lineage))
    lineage["ancestors"][0] |= {"licence": "who-knows", "subject": "a secret"}
    (teacher / "lineage.json").write_text(json.dumps(lineage))
    (teacher / "weights.gguf").write_bytes(b"GGUF")
    for changes in ({}, {"teacher__lineage": str(named)}, {"teacher__path": str(teacher / "weights.gguf")}):
        found = judged(run_file, **changes, student__path=str(tmp_path / "first" / "before")).gate
        assert not found.together.permits
        assert any(verdict.subject.startswith("a secret") for verdict in found.inherited), changes


BESIDE = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "model.safetensors.index.json", "tokenizer.model",
)  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_what_is_read_beside_the_weights_counts(teacher: Path, name: str) -> None:
    base, file = Base.of(None, str(teacher), "mit"), teacher / name
    before, weights = base.beside, base.digest
    file.write_bytes((file.read_bytes() if file.exists() else b"") + b"\n")
    assert base.beside != before and base.digest == weights
    (teacher / "README.md").write_text("about it")
    (teacher / "model.gguf").write_bytes(b"GGUF")
    assert base.beside == Base.of(None, str(teacher / "model.gguf"), "mit").beside


def test_a_base_or_teacher_that_is_read_otherwise_is_taken_anew(run_file: Path, teacher: Path, tmp_path: Path) -> None:
    out, base = tmp_path / "out", tmp_path / "base"
    shutil.copytree(teacher, base)
    taken: dict[str, Any] = {**SHORT, "student__path": str(base), "method__loss": "sparse-forward-kl"}
    do(run_file, out, **taken)
    config = json.loads((teacher / "config.json").read_bytes())
    (teacher / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    do(run_file, out, **taken)
    assert (intents(out, "signals"), intents(out, "train"), intents(out, "student")) == (2, 2, 1)
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0], "max_length": 99}))
    do(run_file, out, **taken)
    assert intents(out, "student") == 2
    assert json.loads((out / "student" / "generation_config.json").read_bytes())["max_length"] == 99


def test_a_folder_is_the_record_of_one_command(text_file: Path, tmp_path: Path, capsys: Any) -> None:
    assert collect(tmp_path) == 0
    answers = tmp_path / "answers"
    before = {path: path.read_bytes() for path in answers.rglob("*.json")}
    path = collected_in(text_file, answers)
    with pytest.raises(SystemExit):
        main(["train", str(path), "--out", str(answers), "--quiet", "--set", "method.loss=cross-entropy"])
    assert "tutelage collect" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="tutelage collect"):
        do(path, answers, **TEXT)
    assert not (answers / "run.toml").exists() and all(path.read_bytes() == data for path, data in before.items())
    do(text_file, tmp_path / "out", **TEXT)
    shutil.move(answers, tmp_path / "kept")
    shutil.move(tmp_path / "out", answers)
    capsys.readouterr()
    assert collect(tmp_path) == 2
    assert "tutelage train" in capsys.readouterr().err
    for folder, kind in ((answers, "train"), (tmp_path / "kept", "collect")):
        with Run(folder, Quiet(), Stop()) as run, pytest.raises(TutelageError, match=f"tutelage {kind}"):
            run.opened({"claim": {}}, "run")


def test_the_terms_of_a_training_file_are_shown(text_file: Path, capsys: Any) -> None:
    def check(*more: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["terms", "check", str(text_file), *more])
        return int(ended.value.code or 0)

    assert check() == 0
    said = capsys.readouterr().out
    assert "talks.jsonl" in said and "teacher" in said
    assert check("--set", "data.licence=who-knows", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["permitted"] and found["verdicts"]["data"]["licence"] == "who-knows"
    assert check("--set", "data.licence=cc-by-nc-4.0", "--set", "run.purpose=research") == 1
    assert "not met: " in capsys.readouterr().out
