"""The viewer on real runs of `prove` and `compare-teachers`: what is listed, counted and shown is what their files say."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loopback import Teacher, serving
from tests.loopback_sums import Adder, Referee
from tests.pipeline.test_comparing import HALF, compare, of
from tests.pipeline.test_comparing import write as write_comparison
from tests.pipeline.test_proving import JUDGE, Models, prove, rows, write
from tests.view.conftest import Served, fill, snapshot
from tests.view.test_app import Page
from tests.view.test_bundle import bundle, links_of
from tests.view.test_index import listed
from tutelage.errors import DataError
from tutelage.jsonl import read_lines, write_lines
from tutelage.store.store import Store
from tutelage.view import query
from tutelage.view.candidates import comparison_of
from tutelage.view.compare import compare as compared
from tutelage.view.evidence import evidence_of
from tutelage.view.looking import Looking
from tutelage.view.runs import Run, find_runs, summary_of
from tutelage.view.scores import WHOLE, scored

COUNT = 60
HOSTILE_ANSWER = "<script>alert(1)</script>\u202e</title> 1"
Start = Callable[..., Served]


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two proofs on the same items, gold on two of three: `good` by gold and a judge, `bad` by gold alone."""
    folder = tmp_path_factory.mktemp("proofs")
    items = [row if at % 3 else {**row, "answer": None} for at, row in enumerate(rows(COUNT))]
    with ExitStack() as stack:
        models = Models(*(stack.enter_context(serving(Adder(share))) for share in (0.9, 0.4, 0.3)))
        judge = stack.enter_context(serving(Referee("fair")))
        with_judge = JUDGE.format(url=judge.base_url)
        assert prove(write(folder, models, items, with_judge), "--out", folder / "runs" / "good") == 0
        honest = models.student.reply
        models.student.reply = lambda text: HOSTILE_ANSWER if "4 " in text else honest(text)  # type: ignore[method-assign]
        assert prove(write(folder, models, items), "--out", folder / "runs" / "bad") == 0
    return folder / "runs"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    with serving(Teacher()) as knows, serving(Teacher(HALF)) as half:
        run_file = write_comparison(folder, of(knows, "dear", 50.0), of(half, "half"))
        assert compare(run_file, "--out", folder / "which") == 0
    return folder / "which"


@pytest.fixture
def looking(proofs: Path, tmp_path: Path) -> Looking:
    return Looking(find_runs([proofs]), tmp_path / "cache")  # bad, good


def evidence_in(run: Run) -> dict[str, Any]:
    return json.loads((run.folder / "evidence.json").read_bytes())


def test_a_proof_is_listed_with_verdicts_and_cost(looking: Looking) -> None:
    for run in looking.runs:
        found, summary = evidence_in(run), summary_of(run)
        first, *others = (claim["verdict"] for claim in found["claims"])
        verdicts = f"{first} and {len(others)} more" if others else first
        assert (summary.kind, summary.state, summary.outcome) == ("prove", "finished", verdicts)
        assert summary.cost_usd == found["cost"]["spent_usd"]
    assert len(evidence_in(looking.runs[1])["claims"]) == 2


def test_examples_are_counted_as_the_files_say(looking: Looking) -> None:
    for run in looking.runs:
        index = looking.index(run)
        asked = Counter(row["system"] for row in read_lines(run.folder / "prove" / "exchanges.jsonl"))
        assert asked["teacher again"] == COUNT
        assert ("judge strict" in asked) == (run.name == "good")
        for who, count in asked.items():
            assert listed(index, who=who).total == count, who
        scores = list(read_lines(run.folder / "prove" / "scores.jsonl"))
        for who in ("teacher", "student", "before"):
            got = [row["scores"][who]["gold_ppm"] for row in scores]
            assert listed(index, who=who, correct="right").total == got.count(WHOLE) > 0
            assert listed(index, who=who, correct="wrong").total == got.count(0) > 0
            assert listed(index, who=who, correct="-").total == got.count(None) == COUNT / 3
        apart = [differs(row["scores"]) for row in scores]
        assert listed(index, who="student", differs="differs").total == sum(apart) > 0
        assert listed(index, who="student", differs="agrees").total == COUNT - sum(apart)


def differs(scores: dict[str, Any]) -> bool:
    student, teacher = scores["student"], scores["teacher"]
    return (
        student["gold_ppm"] != teacher["gold_ppm"] if student["teacher_ppm"] is None else student["teacher_ppm"] < WHOLE
    )


def test_pairs_are_those_of_the_scores(looking: Looking) -> None:
    run = looking.runs[1]
    index = looking.index(run)
    index.refresh(60)
    scores = [row["scores"] for row in read_lines(run.folder / "prove" / "scores.jsonl")]
    both = [(one["student"]["gold_ppm"], one["teacher"]["gold_ppm"]) for one in scores]
    gold = [(student, teacher) for student, teacher in both if student is not None]
    with index.reading() as database:
        found, total, pages, counts = query.list_pairs(database, "", 1)
        assert (len(found), total, pages) == (50, COUNT, 2)
        assert counts == {
            "": COUNT,
            "differs": sum(map(differs, scores)),
            "worse": sum(student < teacher for student, teacher in gold),
            "better": sum(student > teacher for student, teacher in gold),
            "both-wrong": gold.count((0, 0)),
        }
        assert counts["worse"] > 0 < counts["both-wrong"]
        row, places = query.pair_at(database, 2) or pytest.fail("no item 2")
    assert [one.who for one in row.outcomes] == ["teacher", "student", "before"]
    assert places.keys() == {"teacher", "student", "before", "teacher again"}
    assert found[1].question == "What is 1 + 7?"
    assert row.gold == "sum #### 8"


def test_the_pages_of_a_proof(proofs: Path, view: Start) -> None:
    before = snapshot(proofs)
    served = view(proofs)
    found = evidence_in(find_runs([proofs])[1])
    page = " ".join(Page(served.get("run/2").text).text.split())
    for claim in found["claims"]:
        assert claim["verdict"] in page
    assert "against the gold: accuracy" in page and "by a judge: win rate" in page
    assert "fine-tuned plainly" in page  # a control that is missing
    assert "strict: referee at loopback" in page
    for system in found["systems"]:
        assert system["label"] in page
    worse = Page(served.get("run/2/proof?which=worse").text)
    item = Page(served.ask(next(link for link in worse.links if "/proof/" in link)).text)
    assert [tag for tag, _ in item.elements if tag in ("del", "ins")] == ["del", "ins"]
    for said in ("sum #### ", "right", "wrong", "differs from the teacher", "teacher again", "Before training"):
        assert said in item.text
    assert "no gold for this item" in served.get("run/2/proof/1").text
    wrong = Page(served.get("run/2/examples?who=student&correct=wrong").text)
    example = Page(served.ask(next(link for link in wrong.links if "/example/" in link)).text).text
    assert "student minus teacher, both against the gold of held-out items" in example
    assert "a judge's preference" in example
    assert "asked for a proof: never trained on" in example
    assert "held out, from items.jsonl" in example
    assert "allowed (MIT License" in example
    assert snapshot(proofs) == before


def test_a_judges_calls_and_the_item_they_are_about_name_each_other(
    looking: Looking, proofs: Path, view: Start
) -> None:
    run = looking.runs[1]
    rows_of = list(read_lines(run.folder / "prove" / "exchanges.jsonl"))
    judged = Counter(row["item"] for row in rows_of if row["system"] == "judge strict")
    assert set(judged.values()) == {2} and not any("item" in row for row in rows_of if row["system"] == "student")
    scores = [row["item"] for row in read_lines(run.folder / "prove" / "scores.jsonl")]
    number = next(at for at, item in enumerate(scores, 1) if item in judged)
    served = view(proofs)
    item = Page(served.get(f"run/2/proof/{number}").text)
    assert "What judges said" in item.text and item.text.count("judge strict:") == 2
    index = looking.index(run)
    index.refresh(60)
    with index.reading() as database:
        calls = query.judgements_on(database, scores[number - 1])
    assert len(calls) == 2
    for call in calls:
        assert any(link.endswith(f"/example/{call.place}") for link in item.links)
        page = Page(served.get(f"run/2/example/{call.place}").text)
        assert any(link.endswith(f"/proof/{number}") for link in page.links)
        assert f"judges item {number}" in " ".join(page.text.split())
    alike = next(at for at, item in enumerate(scores, 1) if item not in judged)
    assert "What judges said" not in served.get(f"run/2/proof/{alike}").text


def test_hostile_answers_of_a_proof_stay_texts(proofs: Path, view: Start) -> None:
    served = view(proofs / "bad")
    said = Page(served.get("run/1/examples?who=student&q=alert").text)
    examples = [link.split("/", 2)[2] for link in said.links if "/example/" in link]
    assert examples
    paths = ["", "run/1", "run/1/examples?who=student", "run/1/proof", *(f"run/1/proof/{item}" for item in range(1, 9))]
    pages = [served.get(path) for path in (*paths, *examples[:3])]
    for page in pages:
        assert page.status == 200
        assert "\u202e" not in page.text
        assert sum(tag == "script" for tag, _ in Page(page.text).elements) == 1
    assert sum("&lt;script&gt;alert(1)" in page.text for page in pages) > 4


def test_two_proofs_are_compared(looking: Looking, proofs: Path, view: Start) -> None:
    left, right = looking.runs
    found = compared(left, right)
    assert found.same_items is True
    assert found.problems == []
    page = Page(view(proofs).get("compare?a=1&b=2").text).text
    for run in (left, right):
        for claim in evidence_in(run)["claims"]:
            assert claim["verdict"] in page
    assert "same held-out items" in page and "judges.strict.model" in page


def test_a_proof_in_files(proofs: Path, comparison: Path, tmp_path: Path) -> None:
    bundle(tmp_path / "out", proofs / "good", comparison, private=False)
    links_of(tmp_path / "out")
    text = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "against the gold" in text and "dear at loopback" in text
    assert "What is" not in text and "The answer is" not in text and "the clause" not in text
    bundle(tmp_path / "all", proofs / "good", comparison, private=True, limit=50)
    links_of(tmp_path / "all")
    assert "What is 1 + 7?" in (tmp_path / "all" / "run-1-item-2.html").read_text()


def test_evidence_of_another_shape_is_named(proofs: Path, tmp_path: Path, view: Start) -> None:
    run = Path(shutil.copytree(proofs / "good", tmp_path / "runs" / "good"))
    found = json.loads((run / "evidence.json").read_bytes())
    del found["claims"][0]["verdict"]
    (run / "evidence.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match="verdict"):
        evidence_of(find_runs([run])[0])
    served = view(run)
    assert "DataError" in served.get("run/1").text
    (run / "evidence.json").write_text('{"cost": [1], "kind": "proof"}')
    assert summary_of(find_runs([run])[0]).problem is None
    (run / "prove" / "scores.jsonl").write_text('{"item": "x", "gold": null, "scores": {"teacher": 3}}\n')
    assert "not in this version&#39;s shape" in view(run).get("run/1").text


def test_one_answer_of_two_systems_is_of_both(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (request,) = fill(folder, [("one", "first")])
    with Store(folder / "store") as store:
        digest = store.digest_at(request.digest)
    asked = [
        {"prompt": "p", "system": who, "address": request.digest, "exchange": digest} for who in ("teacher", "student")
    ]
    write_lines(folder / "prove" / "exchanges.jsonl", asked)
    looking = Looking(find_runs([folder]), tmp_path / "cache")
    index = looking.index(looking.runs[0])
    assert listed(index, who="teacher, student").total == 1
    write_lines(folder / "prove" / "exchanges.jsonl", asked[1:])
    assert listed(index, who="student").total == 1
    (folder / "prove" / "exchanges.jsonl").unlink()
    assert listed(index, who="teacher").total == 1  # whom the exchange itself names


def test_compared_teachers_are_listed_and_shown(comparison: Path, tmp_path: Path, view: Start) -> None:
    (run,) = find_runs([comparison])
    found = json.loads((comparison / "comparison.json").read_bytes())
    summary = summary_of(run)
    assert (summary.kind, summary.state) == ("compare-teachers", "finished")
    assert summary.outcome.endswith(found["verdict"]["recommended"])
    assert summary.outcome.startswith("recommended" if found["verdict"]["is_shown"] else "not shown")
    assert summary.cost_usd == pytest.approx(found["spent_usd"])
    page = Page(view(comparison).get("run/1").text).text
    for one in found["candidates"]:
        assert one["teacher"] in page
        assert f"{100 * one['accuracy']:.1f}\u00a0%" in page
    assert found["verdict"]["why"] in page
    looking = Looking([run], tmp_path / "cache2")
    index = looking.index(run)
    asked = Counter(row["teacher"] for row in read_lines(comparison / "collect" / "exchanges.jsonl"))
    assert {who: listed(index, who=who).total for who in asked} == asked
    example = looking.example(run, listed(index, who="half").rows[0].place)
    assert example is not None
    assert example[0].lineage["prompt_from"]["kind"] == "comparison"
    assert example[0].terms["status"] == "conditional"  # type: ignore[union-attr]


def test_a_candidate_that_was_not_asked_and_a_comparison_of_another_shape(comparison: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(comparison, tmp_path / "which"))
    found = json.loads((run / "comparison.json").read_bytes())
    kept = {name: found["candidates"][1][name] for name in ("name", "teacher", "terms", "terms_say", "conditions")}
    found["candidates"][1] = kept
    (run / "comparison.json").write_text(json.dumps(found))
    shown = comparison_of(find_runs([run])[0])
    assert shown is not None
    assert shown.candidates[1].accuracy is None and shown.candidates[0].accuracy == found["candidates"][0]["accuracy"]
    (run / "comparison.json").write_text('{"verdict": []}')
    with pytest.raises(DataError, match="compare-teachers"):
        comparison_of(find_runs([run])[0])


PPM = st.one_of(st.none(), st.integers(0, WHOLE))


@given(PPM, PPM, PPM)
def test_marks_and_differences(teacher: int | None, student: int | None, alike: int | None) -> None:
    row = {
        "item": "i", "gold": "g", "session": "",
        "scores": {
            "other": {"gold_ppm": None, "teacher_ppm": None, "read": None},
            "student": {"gold_ppm": student, "teacher_ppm": alike, "read": "s"},
            "teacher": {"gold_ppm": teacher, "teacher_ppm": None, "read": "t"},
        },
    }  # fmt: skip
    found = scored(row)
    assert found is not None
    assert [one.who for one in found.outcomes] == ["teacher", "student", "other"]
    for one, ppm in zip(found.outcomes, (teacher, student, None), strict=True):
        assert one.mark == {None: "", 0: "wrong", WHOLE: "right"}.get(ppm, "in part")
    by_gold = None not in (teacher, student) and teacher != student
    assert found.differs == (by_gold if alike is None else alike < WHOLE)
    if alike in (0, WHOLE):
        assert found.differs == found.outcomes[1].likeness.startswith("differs"), "one word for one thing"
    assert (found.outcomes[1].likeness == "") == (alike is None)


def test_a_proof_without_teacher_or_student_has_no_pairs() -> None:
    assert (
        scored({"item": "i", "gold": "g", "scores": {"teacher": {"gold_ppm": 0, "teacher_ppm": 0, "read": ""}}}) is None
    )
    assert scored({"prompt": "i", "something": "else"}) is None
