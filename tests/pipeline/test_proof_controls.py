"""The controls of a label proof in whole runs: asked, trained, compared, and named in the verdict where they are missing."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loopback import Teacher, serving
from tests.pipeline.conftest import Made, do, entries_of, make_config
from tutelage.canon import canonical
from tutelage.errors import DataError
from tutelage.jsonl import read_lines
from tutelage.ledger.keys import Signer
from tutelage.ledger.verify import verify
from tutelage.models.hf import GenerationRequest, HFModel
from tutelage.pipeline.controls import checkpoint_logp
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.held_out import read_gold
from tutelage.prove.controls import same_artefact
from tutelage.run_file import load_config
from tutelage.tasks import label_logprobs, student_messages
from tutelage.terms.lineage import Ancestor, Lineage, Tie, Upstream
from tutelage.terms.lineage import Made as Kind
from tutelage.terms.model import Purpose, Status

PLAIN = "the same student fine-tuned plainly on the teacher's words"
FEWER = "the teacher asked again on 500 items (fewer: 60)"


def evidence_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evidence.json").read_text())


def test_a_run_says_which_controls_it_lacks(finished: Made) -> None:
    evidence = evidence_of(finished.folder)
    assert evidence["missing_controls"] == evidence["claims"][0]["missing_controls"] == [PLAIN, FEWER]
    page = (finished.folder / "report.html").read_text()
    first_screen = page[: page.index('<nav aria-label="On this page">')]
    assert "fine-tuned plainly on the teacher" in first_screen
    assert FEWER in first_screen
    proved = [entry for entry in entries_of(finished.folder) if (entry.kind, entry.stage) == ("statement", "prove")][-1]
    assert proved.facts["missing_controls"] == [PLAIN, FEWER], "the log says so too"
    assert evidence["unseen"] == {"held_out": 60, "trained_on": 120, "overlap": 0}


def test_the_teacher_is_asked_again_as_another_draw(finished: Made) -> None:
    evidence = evidence_of(finished.folder)
    assert evidence["ceiling"]["agreement"] == 1.0, "the word counter says the same every time"
    assert evidence["ceiling"]["n"] == 60
    draws = {0: 0, 1: 0}
    for path in (finished.folder / "store").glob("*.seg"):
        for line in path.read_text().splitlines():
            _, kind, text = line.split(" ", 2)
            request = json.loads(text) if kind == "request" else {"purpose": ""}
            if request["purpose"].startswith("sha256:") and request["model_asked"] == "word-counter":
                draws[request["draw"]] += 1
    assert draws == {0: 60, 1: 60}
    scores = list(read_lines(finished.folder / "prove" / "scores.jsonl"))
    assert all(row["decided"]["teacher again"] == row["decided"]["teacher"] for row in scores)


def test_an_unsteady_teacher_lowers_the_ceiling(tmp_path: Path, base: Path) -> None:
    class Unsteady(Teacher):
        def scores(self, text: str) -> dict[str, float]:
            first = super().scores(text)
            if self.answered[text] < 2:  # counted before the answer is made
                return first
            return dict(zip(first, [*list(first.values())[1:], next(iter(first.values()))], strict=True))

    with serving(Unsteady()) as teacher:
        do(make_config(tmp_path, teacher, base), tmp_path / "run", **{"train.epochs": 1, "controls.again": 30})
    ceiling = evidence_of(tmp_path / "run")["ceiling"]
    assert (ceiling["agreement"], ceiling["n"]) == (0.0, 30)


def test_the_plainly_trained_student_stands_beside(copied: Made, signer: Signer) -> None:
    asked = copied.teacher.asked
    do(copied.run_file, copied.folder, signer, **{"controls.plain": True})
    assert copied.teacher.asked == asked, "it learns from the answers that are there"
    evidence = evidence_of(copied.folder)
    assert evidence["missing_controls"] == [FEWER]
    by_role = {row["role"]: row for row in evidence["systems"]}
    assert list(by_role) == ["teacher", "student", "plain", "before", "majority", "bag-of-words"]
    assert by_role["plain"]["accuracy"] > by_role["before"]["accuracy"], "it learnt something"
    facts = {entry.stage: entry.facts for entry in entries_of(copied.folder) if entry.kind == "statement"}
    assert facts["plain"]["steps"] == facts["train"]["steps"]
    assert list(facts["plain"]["loss_tokens"]) == ["text-target"]
    assert facts["plain"]["loss_tokens"]["text-target"] == sum(facts["train"]["loss_tokens"].values())
    assert facts["plain"]["weights"] != facts["ship"]["weights"]
    assert not verify(copied.folder).findings
    stages = [entry.stage for entry in entries_of(copied.folder) if entry.kind == "statement"]
    assert stages[-4:] == ["plain", "prove", "report", "seal"], "the student itself was not trained again"

    do(copied.run_file, copied.folder, signer)
    assert evidence_of(copied.folder)["missing_controls"] == [PLAIN, FEWER]
    assert not verify(copied.folder).findings


def test_controls_that_are_turned_off_are_named(tmp_path: Path, base: Path) -> None:
    with serving(Teacher()) as teacher:
        run_file = make_config(tmp_path, teacher, base)
        off = {"controls.again": 0, "controls.checkpoint": 0, "train.epochs": 1}
        do(run_file, tmp_path / "run", **off)
        assert teacher.asked == 180
    evidence = evidence_of(tmp_path / "run")
    assert evidence["missing_controls"] == [
        PLAIN, "the teacher asked again", "the training checkpoint beside the served student",
    ]  # fmt: skip
    assert evidence["ceiling"] is evidence["checkpoint"] is None
    proved = [entry for entry in entries_of(tmp_path / "run") if entry.stage == "prove"][-1]
    assert "train" not in proved.inputs
    assert not verify(tmp_path / "run").findings


def served_logp(folder: Path, texts: list[str], task: Any) -> np.ndarray:
    model = HFModel.load(folder)
    requests = [GenerationRequest(model.render(student_messages(task, text)), 1, top_logprobs=20) for text in texts]
    return np.array([label_logprobs(task.labels, answer.positions[0]) for answer in model.first_tokens(requests)])


def test_the_checkpoint_answers_as_the_artefact_and_another_one_does_not(copied: Made) -> None:
    evidence = evidence_of(copied.folder)
    assert evidence["checkpoint"]["n"] == 60
    assert evidence["checkpoint"]["decisions_differ"] <= 1, "half precision may tip an item"
    assert evidence["checkpoint"]["largest_nats"] < 0.2
    config = load_config(copied.run_file)
    texts = [prompt.text for prompt in read_gold(copied.folder)[0].held_out]
    served = served_logp(copied.folder / "student", texts, config.task)
    zero = np.zeros(len(config.task.labels))
    own = same_artefact(checkpoint_logp(copied.folder, config, texts), served, zero, 0.95)
    assert own["decisions_differ"] <= 1
    shutil.copy(copied.folder / "before" / "model.safetensors", copied.folder / "train" / "weights.safetensors")
    other = same_artefact(checkpoint_logp(copied.folder, config, texts), served, zero, 0.95)
    assert other["decisions_differ"] > 10
    assert other["largest_nats"] is None or other["largest_nats"] > 10 * (own["largest_nats"] or 0.01)


def test_confidence_is_recalibrated_on_validation_items(finished: Made) -> None:
    by_role = {row["role"]: row for row in evidence_of(finished.folder)["systems"]}
    for role in ("student", "before"):
        row = by_role[role]
        assert (row["ece_recalibrated"] is None) == (row["recalibration"] != "")
    assert by_role["teacher"]["recalibration"] == "it was not asked the validation questions"


def test_gold_of_one_class_stops_before_anything_is_asked(tmp_path: Path, base: Path) -> None:
    with serving(Teacher()) as teacher:
        run_file = make_config(tmp_path, teacher, base)
        data = tmp_path / "topics.csv"
        lines = data.read_text().splitlines()
        data.write_text("\n".join([lines[0], *(line.rsplit(",", 1)[0] + ",food" for line in lines[1:])]) + "\n")
        with pytest.raises(DataError, match="all 60 held-out items are 'food': one class only"):
            do(run_file, tmp_path / "run")
        assert teacher.asked == 0


def test_gold_that_the_teacher_wrote_stops_before_anything_is_asked(tmp_path: Path, base: Path) -> None:
    with serving(Teacher()) as teacher:
        run_file = make_config(tmp_path, teacher, base)
        name = teacher_name(load_config(run_file).teacher)
        ancestor = Ancestor(
            name, Tie.TEACHER, "mit", "local", Purpose.INTERNAL, "2026-11-01", Status.ALLOWED, (), (), Upstream.UNKNOWN
        )
        lineage = Lineage(1, "topics.csv", Kind.DATASET, (ancestor,))
        (tmp_path / "topics.csv.lineage.json").write_bytes(canonical(lineage.to_json()))
        with pytest.raises(DataError, match="its labels are no gold"):
            do(run_file, tmp_path / "run")
        assert teacher.asked == 0
