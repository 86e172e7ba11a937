"""The whole arc over a real protocol: what it makes, what it does not do twice, and what stops it."""

import json
from pathlib import Path

import pytest

from tests.loopback import Teacher, problem, serving
from tests.pipeline.conftest import Made, do, entries_of, make_config
from tutelage.errors import DataError, Interrupted, StorageError, TeacherError, TermsError
from tutelage.ledger.keys import Signer
from tutelage.ledger.verify import verify
from tutelage.pipeline.distil import distil
from tutelage.pipeline.plan import describe, plan
from tutelage.pipeline.run import Run
from tutelage.progress import Quiet, Stop
from tutelage.run_file import load_config


def test_what_a_run_makes(finished: Made) -> None:
    evidence = json.loads((finished.folder / "evidence.json").read_text())
    claim = evidence["claims"][0]
    wanted = {
        "metric", "teacher", "student", "before", "gap_recovered", "difference", "ci_low", "ci_high", "margin", "n",
        "verdict",
    }  # fmt: skip
    assert wanted <= set(claim)
    assert claim["n"] == 60
    assert claim["verdict"] in ("EQUIVALENT", "NON-INFERIOR", "INFERIOR", "INCONCLUSIVE")
    assert claim["teacher"] == 1.0, "the word counter knows every topic"
    assert claim["student"] > claim["before"], "it learnt something"
    assert {"cost", "wall_s", "versions", "seeds"} <= set(evidence)
    assert [row["role"] for row in evidence["systems"]] == ["teacher", "student", "before", "majority", "bag-of-words"]
    student = {path.name for path in (finished.folder / "student").iterdir()}
    assert student >= {
        "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
        "chat_template.jinja", "README.md",
    }  # fmt: skip
    card = (finished.folder / "student" / "README.md").read_text()
    assert "word-counter" in card
    assert "MIT" in card
    page = (finished.folder / "report.html").read_text()
    assert claim["verdict"] in page


def test_running_again_asks_nothing_and_changes_nothing(copied: Made, signer: Signer) -> None:
    asked, entries = copied.teacher.asked, len(entries_of(copied.folder))
    before = {path: path.stat().st_mtime_ns for path in (copied.folder / "student").iterdir()}
    do(copied.run_file, copied.folder, signer)
    assert copied.teacher.asked == asked
    assert len(entries_of(copied.folder)) == entries
    assert before == {path: path.stat().st_mtime_ns for path in (copied.folder / "student").iterdir()}


def test_only_the_stages_that_a_change_touches_run_again(copied: Made, signer: Signer) -> None:
    asked = copied.teacher.asked
    do(copied.run_file, copied.folder, signer, **{"train.epochs": 1})
    assert copied.teacher.asked == asked, "the teacher's answers are still good"
    stages = [entry.stage for entry in entries_of(copied.folder) if entry.kind == "statement"]
    assert stages[-6:] == ["train", "account", "ship", "prove", "report", "seal"]
    evidence = json.loads((copied.folder / "evidence.json").read_text())
    assert evidence["looks"]["held_out"] == 2, "each look at the held-out labels is counted"
    assert not verify(copied.folder).findings


def test_going_back_to_an_earlier_configuration_is_done_once(copied: Made, signer: Signer) -> None:
    for epochs in (1, 6, 6):
        do(copied.run_file, copied.folder, signer, **{"train.epochs": epochs})
    stages = [entry.stage for entry in entries_of(copied.folder) if entry.kind == "statement"]
    assert stages.count("train") == 3, "the first, the other, and the first again; the second time it is found"
    assert not verify(copied.folder).findings


def test_a_page_that_was_deleted_is_made_again(copied: Made, signer: Signer) -> None:
    (copied.folder / "report.html").unlink()
    do(copied.run_file, copied.folder, signer)
    assert (copied.folder / "report.html").exists()


def test_another_server_on_another_port_is_another_teacher(copied: Made, signer: Signer) -> None:
    with serving(Teacher()) as other:
        do(copied.run_file, copied.folder, signer, **{"teacher.url": other.base_url})
        assert other.asked == 180 + 60, "the held-out ones a second time"


def test_the_claim_and_the_selection_come_before_what_they_bind(finished: Made) -> None:
    entries = [(entry.kind, entry.stage) for entry in entries_of(finished.folder)]
    assert entries[0] == ("opened", "run")
    assert entries.index(("statement", "terms")) < entries.index(("intent", "collect"))
    assert entries.index(("statement", "curate")) < entries.index(("intent", "train"))
    assert entries.index(("statement", "train")) < entries.index(("intent", "prove"))


def test_trap_e6_held_out_prompts_reach_no_training_stage(finished: Made) -> None:
    held_out = set(json.loads((finished.folder / "data" / "gold.json").read_text()))
    assert len(held_out) == 60
    collected = (finished.folder / "collect" / "exchanges.jsonl").read_text()
    selection = (finished.folder / "curate" / "selection.json").read_text()
    assert not any(prompt in collected or prompt in selection for prompt in held_out)


def test_answers_for_training_are_never_used_as_proof(finished: Made) -> None:
    purposes = set()
    for path in (finished.folder / "store").glob("*.seg"):
        for line in path.read_text().splitlines():
            _, kind, text = line.split(" ", 2)
            if kind == "request":
                purposes.add(json.loads(text)["purpose"])
    assert "train" in purposes
    assert sum(purpose.startswith("sha256:") for purpose in purposes) == 1


def test_a_stopped_run_is_usable_and_resumes(tmp_path: Path, base: Path) -> None:
    teacher, stop = Teacher(), Stop()
    with serving(teacher):
        run_file = make_config(tmp_path, teacher, base)
        teacher.fault = lambda number, request: stop.set() if number == 40 else None  # type: ignore[func-returns-value]
        with pytest.raises(Interrupted), Run(tmp_path / "run", Quiet(), stop) as run:
            distil(load_config(run_file), run)
        assert teacher.asked < 60
        do(run_file, tmp_path / "run")
        held_out = len(json.loads((tmp_path / "run" / "data" / "gold.json").read_text()))
        paid = sorted(teacher.answered.values())
        assert paid == [1] * 120 + [2] * held_out, "none was paid for twice but those asked again on purpose"
    assert not verify(tmp_path / "run").findings


def test_terms_stop_the_run_before_a_token_is_asked_for(tmp_path: Path, base: Path) -> None:
    with serving(Teacher()) as teacher:
        run_file = make_config(tmp_path, teacher, base)
        with pytest.raises(TermsError, match="forbidden") as caught:
            do(run_file, tmp_path / "run", **{"teacher.licence": "llama-3"})
        assert "§1.b.v" in caught.value.message
        with pytest.raises(TermsError, match="unknown"):
            do(run_file, tmp_path / "run", **{"teacher.licence": "my-made-up-licence"})
        assert teacher.asked == 0


def test_a_completion_teacher_teaches_and_refused_questions_are_reported(tmp_path: Path, base: Path) -> None:
    teacher = Teacher()
    refused = {7, 130}  # one of those to learn from, one held out
    teacher.fault = lambda number, request: problem(400) if number in refused else None
    with serving(teacher):
        run_file = make_config(tmp_path, teacher, base)
        do(run_file, tmp_path / "run", **{"task.completion": "{text}\nTopic: {label}\n\n"})
    run = tmp_path / "run"
    assert not verify(run).findings
    evidence = json.loads((run / "evidence.json").read_text())
    assert {"filter": "refused", "reason": "the endpoint would not answer it", "count": 1, "of": "train"} in evidence[
        "drops"
    ]
    assert "HTTP 400" in (run / "collect" / "refused.jsonl").read_text()
    answered = (run / "prove" / "exchanges.jsonl").read_text().splitlines()
    assert len(answered) == (60 - 1) + 2 * (60 + 20) + 60, "the refused one has no exchange, and counts as wrong"
    assert evidence["ceiling"]["agreement"] == 59 / 60, "and no second answer agrees with none"
    assert evidence["claims"][0]["teacher"] > 0.9


def test_an_unreachable_teacher_is_one_error(tmp_path: Path, base: Path) -> None:
    teacher = Teacher()
    teacher.base_url = "http://127.0.0.1:9/v1"
    run_file = make_config(tmp_path, teacher, base)
    with pytest.raises(TeacherError, match="does not answer"):
        do(run_file, tmp_path / "run")


def test_bad_rows_are_told_before_anything_is_asked(tmp_path: Path, base: Path) -> None:
    with serving(Teacher()) as teacher:
        run_file = make_config(tmp_path, teacher, base)
        data = tmp_path / "topics.csv"
        data.write_text(data.read_text() + "only one column\n")
        with pytest.raises(DataError, match="line 222"):
            do(run_file, tmp_path / "run")
        assert teacher.asked == 0
        teacher.fault = lambda number, request: problem(500)
        with pytest.raises(TeacherError):
            do(run_file, tmp_path / "run", **{"data.bad_rows": "skip"})


def test_one_run_folder_has_one_owner(tmp_path: Path) -> None:
    with (
        Run(tmp_path, Quiet(), Stop()),
        pytest.raises(StorageError, match="another process"),
        Run(tmp_path, Quiet(), Stop()),
    ):
        pass


def test_plan_spends_nothing(finished: Made) -> None:
    asked = finished.teacher.asked
    found = plan(load_config(finished.run_file), "2026-11-23")
    assert finished.teacher.asked == asked
    assert found["questions"] == {"train": 100, "validation": 20, "held_out": 60, "again": 60}
    assert found["cost_usd"] == 0
    assert found["permitted"]
    assert 0 < found["claim"]["power"] < 1
    text = describe(found)
    for word in ("terms", "tokens", "cost", "time", "disk", "memory", "power"):
        assert word in text
