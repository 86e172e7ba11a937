"""`tutelage prove` over real HTTP: claims first, then answers, scores, verdict, page; resumed; bad inputs refused by name."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.loopback import problem, serving
from tests.loopback_sums import Adder, Referee
from tests.pipeline.labelled_pairs import label_pairs
from tutelage.canon import canonical
from tutelage.cli.main import main
from tutelage.ledger.verify import verify
from tutelage.prove.gold_file import DRAWN, FORMAT, PERSON, TIE, Header, Kind, Mode, Row, draw, frame_of

COUNT = 300
RUN_FILE = """
[run]
name = "sums"
seed = 1
purpose = "internal"
question = "Does the small one add as well?"
[items]
path = "{path}"
gold = "answer"
gold_by = "programme"
licence = "own"
[task]
kind = "number"
[sampling]
max_tokens = 16
temperature = 0.0
[systems.teacher]
url = "{teacher}"
model = "large"
licence = "mit"
[systems.student]
url = "{student}"
model = "small"
licence = "mit"
[systems.before]
url = "{before}"
model = "raw"
licence = "mit"
[[claims]]
comparison = "gold"
margin = 0.05
expected_discordance = 0.2
"""


JUDGE = """
[judges.strict]
url = "{url}"
model = "referee"
licence = "mit"
[[claims]]
comparison = "judge"
margin = 0.01
"""
TWICE = '[[claims]]\ncomparison = "judge"\njudge = "strict"\nmargin = 0.2\n'


class Models(NamedTuple):
    teacher: Adder
    student: Adder
    before: Adder


@pytest.fixture
def models() -> Iterator[Models]:
    with ExitStack() as stack:
        yield Models(*(stack.enter_context(serving(Adder(share))) for share in (0.9, 0.88, 0.3)))


def rows(count: int = COUNT) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {at} + {7 * at}?", "answer": f"sum #### {8 * at}"} for at in range(count)]


def write(folder: Path, models: Models, items: list[dict[str, Any]], more: str = "", **said: str) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in items))
    run_file = folder / "proof.toml"
    urls = {name: getattr(models, name).base_url for name in Models._fields}
    text = RUN_FILE.format(path=path, **urls)
    for old, new in said.items():
        text = text.replace(old.replace("__", " = "), new)
    run_file.write_text(text + more)
    return run_file


def prove(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["prove", *map(str, arguments), "--quiet"])
    return int(ended.value.code or 0)


def evidence_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evidence.json").read_bytes())


def test_a_claim_is_declared_asked_scored_and_judged(tmp_path: Path, models: Models, capsys: Any) -> None:
    run_file, run = write(tmp_path, models, rows()), tmp_path / "run"
    assert prove(run_file, "--out", run) == 0
    said = capsys.readouterr().out
    found = evidence_of(run)
    (claim,) = found["claims"]
    by_role = {row["role"]: row for row in found["systems"]}
    right = {name: sum(getattr(models, name).reply(row["prompt"]).endswith(f" {at * 8}.") for at, row in enumerate(rows()))
             for name in Models._fields}  # fmt: skip
    for name, count in right.items():
        assert by_role[name]["score"] == pytest.approx(count / COUNT)
        assert by_role[name]["ci_low"] < count / COUNT < by_role[name]["ci_high"]
    assert claim["difference"] == pytest.approx((right["student"] - right["teacher"]) / COUNT)
    assert claim["ci_low"] < claim["difference"] < claim["ci_high"]
    assert claim["verdict"] in ("EQUIVALENT", "NON-INFERIOR")
    assert found["ceiling"]["agreement"] == 1.0 and found["ceiling"]["n"] == COUNT
    assert found["gap"]["recovered"] == pytest.approx(
        (right["student"] - right["before"]) / (right["teacher"] - right["before"])
    )
    missing = " ".join(found["missing_controls"])
    assert "fine-tuned plainly" in missing and "checkpoint" in missing and "500 items" in missing
    assert "before training" not in missing
    assert claim["missing_controls"] == found["missing_controls"]
    assert claim["verdict"] in said and "without these controls" in said
    assert {"5", "14"} <= {str(by_role["teacher"]["completion_tokens"])[:1], "14"}
    page = (run / "report.html").read_text()
    assert claim["verdict"] in page and "Without these controls" in page and "Does the small one add as well?" in page
    assert not verify(run).findings


def test_running_again_asks_nothing_and_other_settings_ask_anew(tmp_path: Path, models: Models) -> None:
    run_file, run = write(tmp_path, models, rows(40)), tmp_path / "run"
    assert prove(run_file, "--out", run) == 0
    asked = [model.asked for model in models]
    assert asked == [80, 40, 40]  # the teacher twice
    assert prove(run_file, "--out", run) == 0
    assert [model.asked for model in models] == asked
    assert prove(run_file, "--out", run, "--set", "items.limit=30") == 0
    assert evidence_of(run)["run"]["items"] == 30
    assert prove(run_file, "--out", run, "--set", 'run.question="And now?"') == 0
    assert evidence_of(run)["run"]["question"] == "And now?"
    assert [model.asked for model in models] == asked
    assert evidence_of(run)["looks"]["proofs"] == 2
    assert prove(run_file, "--out", run, "--set", "sampling.max_tokens=17") == 0
    assert [model.asked for model in models] == [160, 80, 80]


def test_an_inferior_student_is_called_so(tmp_path: Path, models: Models) -> None:
    models.student.share = 0.5
    run = tmp_path / "run"
    assert prove(write(tmp_path, models, rows()), "--out", run) == 0
    assert evidence_of(run)["claims"][0]["verdict"] == "INFERIOR"
    worst = evidence_of(run)["disagreements"][0]
    assert (worst["teacher_score"], worst["student_score"]) == (1.0, 0.0)


def test_a_claim_against_the_teacher_needs_no_gold(tmp_path: Path, models: Models) -> None:
    bare = [{"prompt": row["prompt"]} for row in rows()]
    run_file = write(tmp_path, models, bare, **{'gold = "answer"\ngold_by = "programme"': "", '"gold"': '"teacher"'})
    assert prove(run_file, "--out", tmp_path / "run") == 0
    (claim,) = evidence_of(tmp_path / "run")["claims"]
    assert claim["kind"] == "teacher"
    assert claim["teacher"] == 1.0 and 0.9 < claim["student"] < 1.0
    assert all(system["score"] is None for system in evidence_of(tmp_path / "run")["systems"])


def test_two_claims_are_held_together(tmp_path: Path, models: Models) -> None:
    more = '[[claims]]\ncomparison = "teacher"\nmargin = 0.05\nexpected_discordance = 0.05\n'
    assert prove(write(tmp_path, models, rows(), more), "--out", tmp_path / "run") == 0
    claims = evidence_of(tmp_path / "run")["claims"]
    assert [claim["kind"] for claim in claims] == ["gold", "teacher"]
    assert all(0.0 <= claim["p_adjusted"] <= 1.0 for claim in claims)


def test_with_gold_for_some_items_a_claim_against_gold_rests_on_those(tmp_path: Path, models: Models) -> None:
    models.student.share, models.student.from_above = 0.6, True
    some = [row if at % 2 == 0 else {**row, "answer": None} for at, row in enumerate(rows(500))]
    assert prove(write(tmp_path, models, some), "--out", tmp_path / "run") == 0
    (claim,) = evidence_of(tmp_path / "run")["claims"]
    assert claim["method"] == "Tango score" and claim["n"] == 250
    assert {row["n"] for row in evidence_of(tmp_path / "run")["systems"]} == {250}
    assert claim["ci_low"] < -0.3 < claim["ci_high"]


def test_items_in_sessions_get_a_wider_interval(tmp_path: Path, models: Models) -> None:
    grouped = [{**row, "session": f"s{at // 10}"} for at, row in enumerate(rows())]
    assert prove(write(tmp_path, models, grouped), "--out", tmp_path / "run") == 0
    found = evidence_of(tmp_path / "run")
    assert "30 sessions" in found["claims"][0]["method"] and found["gap"]["method"].endswith("of sessions")
    assert found["claims"][0]["power_assumption"].endswith("if items of a session were independent")


def test_claims_at_two_levels_are_refused(tmp_path: Path, models: Models, capsys: Any) -> None:
    more = '[[claims]]\ncomparison = "teacher"\nmargin = 0.05\nlevel = 0.9\n'
    assert prove(write(tmp_path, models, rows(20), more), "--out", tmp_path / "run") == 2
    assert "claims at levels 0.9, 0.95: they are held together" in capsys.readouterr().err
    assert [model.asked for model in models] == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"margin__0.05": "margin = -0.05"}, "margin"),
        ({'"programme"': '"teacher"'}, "what a model wrote is no gold"),
        ({'gold_by = "programme"': ""}, "say who wrote the gold"),
        ({"max_tokens = 16": 'max_tokens = 16\ntools_file = "t.json"'}, "an item brings its tools"),
        ({'kind = "number"': 'kind = "nombre"'}, "nombre"),
        ({'"gold"\nmargin': '"judge"\nmargin'}, "judges.NAME"),
        ({"systems.student": "systems.pupil"}, "systems.student is missing"),
        (
            {"[[claims]]": JUDGE.format(url="http://127.0.0.1:1/v1") + TWICE + "[[claims]]"},
            "two claims compare the same",
        ),
        ({'gold = "answer"': 'gold = "anwser"'}, "did you mean 'answer'?"),
    ],
)
def test_a_run_file_that_cannot_be_proved_is_refused(
    tmp_path: Path, models: Models, change: dict[str, str], words: str, capsys: Any
) -> None:
    assert prove(write(tmp_path, models, rows(20), **change), "--out", tmp_path / "run") == 2
    assert words in capsys.readouterr().err
    assert [model.asked for model in models] == [0, 0, 0]
    assert not (tmp_path / "run" / "store").exists()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "What is 1 + 1?", "answer": "none at all"}, "gold of item"),
        ({"prompt": "What is 1 + 1?", "answer": "2", "exchange": "sha256:0"}, "a model's"),
        ({"prompt": "What is 0 + 0?", "answer": "9"}, "the same question"),
    ],
)
def test_gold_that_is_none_is_refused(
    tmp_path: Path, models: Models, row: dict[str, Any], words: str, capsys: Any
) -> None:
    assert prove(write(tmp_path, models, [*rows(20), row]), "--out", tmp_path / "run") == 2
    assert words in capsys.readouterr().err
    assert [model.asked for model in models] == [0, 0, 0]


def test_items_that_were_trained_on_are_refused_with_the_overlap(tmp_path: Path, models: Models, capsys: Any) -> None:
    trained = tmp_path / "trained.jsonl"
    trained.write_text(json.dumps({"messages": [{"role": "user", "content": "what is 3  + 21"}]}) + "\n")
    run_file = write(
        tmp_path, models, rows(20), **{'licence = "own"\n[task]': f'licence = "own"\nseen = ["{trained}"]\n[task]'}
    )
    assert prove(run_file, "--out", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "1 of 20 held-out items were trained on" in said and "What is 3 + 21?" in said and "trained.jsonl" in said
    assert models.teacher.asked == 0


def test_naming_what_was_trained_on_later_is_another_proof(tmp_path: Path, models: Models) -> None:
    trained = tmp_path / "trained.jsonl"
    trained.write_text(json.dumps({"prompt": "What is 1 + 1?"}) + "\n")
    run_file, run = write(tmp_path, models, rows(20)), tmp_path / "run"
    assert prove(run_file, "--out", run) == 0
    assert any("items.seen" in words for words in evidence_of(run)["missing_controls"])
    asked = models.teacher.asked
    assert prove(run_file, "--out", run, "--set", f'items.seen=["{trained}"]') == 0
    found = evidence_of(run)
    assert found["provenance"]["trained_on"] == 1 and models.teacher.asked == asked
    assert not any("items.seen" in words for words in found["missing_controls"])
    assert prove(run_file, "--out", run) == 0
    assert any("items.seen" in words for words in evidence_of(run)["missing_controls"])
    assert evidence_of(run)["provenance"]["trained_on"] == 0


def test_tests_of_code_are_not_asked_for_twice(tmp_path: Path, models: Models) -> None:
    items = [{"prompt": row["prompt"], "answer": f"assert {at}"} for at, row in enumerate(rows(20))]
    run_file = write(tmp_path, models, items, **{'kind = "number"': 'kind = "code"\nallow_execution = true'})
    run_file.write_text(run_file.read_text().replace("[sampling]", 'isolation = "none"\n[sampling]'))
    assert prove(run_file, "--out", tmp_path / "run") == 0
    assert models.teacher.asked == 20
    found = evidence_of(tmp_path / "run")
    assert found["ceiling"] is None and "the teacher asked again" in found["missing_controls"]


def test_one_class_of_gold_is_refused(tmp_path: Path, models: Models, capsys: Any) -> None:
    same = [{"prompt": f"What is {at} + {40 - at}?", "answer": "40"} for at in range(30)]
    assert prove(write(tmp_path, models, same), "--out", tmp_path / "run") == 2
    assert "one class only" in capsys.readouterr().err


def test_hostile_answers_are_text_on_the_page(tmp_path: Path, models: Models) -> None:
    models.student.reply = lambda text: "<script>alert(1)</script>\u202e 1"  # type: ignore[method-assign]
    assert prove(write(tmp_path, models, rows(30)), "--out", tmp_path / "run") == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "\u202e" not in page


def test_a_folder_of_another_command_is_refused(tmp_path: Path, models: Models, capsys: Any) -> None:
    run_file = write(tmp_path, models, rows(20))
    assert prove(run_file, "--out", tmp_path / "run") == 0
    with pytest.raises(SystemExit):
        main(["train", str(run_file), "--out", str(tmp_path / "run")])
    assert "no" in capsys.readouterr().err


def judged(folder: Path, models: Models, manner: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """The evidence of a proof whose one claim rests on a judge of that manner; no item has gold."""
    bare = [{"prompt": row["prompt"]} for row in items]
    with serving(Referee(manner)) as judge:
        run_file = write(folder, models, bare, **{'gold = "answer"\ngold_by = "programme"': ""})
        text = run_file.read_text()
        run_file.write_text(text[: text.index("[[claims]]")] + JUDGE.format(url=judge.base_url))
        assert prove(run_file, "--out", folder / "run", "--set", "controls.again=0") == 0
    return evidence_of(folder / "run")


@pytest.mark.parametrize("manner", ["first", "garbage", "random"])
def test_a_judge_that_cannot_judge_gives_no_verdict(tmp_path: Path, models: Models, manner: str) -> None:
    models.student.share = 0.4
    found = judged(tmp_path, models, manner, rows(120))
    (claim,) = found["claims"]
    assert claim["verdict"] == "INCONCLUSIVE" and claim["why"]
    assert claim["ci_low"] is None
    assert found["judges"][0]["gate"]["is_usable"] is False
    assert "no verdict" in (tmp_path / "run" / "report.html").read_text()


def test_a_fair_judge_finds_a_worse_student(tmp_path: Path, models: Models) -> None:
    models.teacher.share, models.student.share, models.student.from_above = 0.58, 0.44, True
    found = judged(tmp_path, models, "fair", rows(600))
    (claim,) = found["claims"]
    assert claim["metric"] == "win rate" and 0.38 < claim["student"] < 0.47
    assert claim["verdict"] == "INFERIOR"
    assert found["judges"][0]["swap_consistency"]["share"] == 1.0
    assert not verify(tmp_path / "run").findings


def ids(folder: Path) -> list[str]:
    return [json.loads(line)["prompt_id"] for line in (folder / "data" / "items.jsonl").read_text().splitlines()]


def decided(path: Path, mode: Mode, choices: tuple[str, ...], items: list[str], decisions: dict[str, str]) -> Path:
    """A file of `tutelage label` on a random sample of these items."""
    systems = () if mode is Mode.LABELS else ("teacher", "student")
    head = Header(
        FORMAT, PERSON, mode, "Which?", choices, systems, len(items), len(decisions), 0, DRAWN, frame_of(items),
        "2026-11-28T00:00:00Z",
    )  # fmt: skip
    rows = [
        Row(
            item=item, system="", kind=Kind.DECISION, decision=decision, reason="", author=f"{PERSON}:Anna", mode=mode,
            order=systems, shown="sha256:" + "0" * 64, at="2026-11-28T00:00:00Z", took_ms=900, adjudicates=False,
        )
        for item, decision in decisions.items()
    ]  # fmt: skip
    path.write_bytes(b"".join(canonical(one.to_json()) + b"\n" for one in (head, *rows)))
    return path


def test_labels_of_people_are_gold(tmp_path: Path, models: Models) -> None:
    bare = [{"prompt": row["prompt"]} for row in rows(60)]
    first = write(tmp_path, models, bare, **{'gold = "answer"\ngold_by = "programme"': "", '"gold"\n': '"teacher"\n'})
    assert prove(first, "--out", tmp_path / "run") == 0
    names = ids(tmp_path / "run")
    right = dict(zip(names, (f"{8 * at}" for at in range(60)), strict=True))
    drawn = {one: right[one] for one in draw(names, 40, 0)}
    gold = decided(tmp_path / "gold.jsonl", Mode.LABELS, tuple(drawn.values()), names, drawn)
    second = write(tmp_path, models, bare, **{'gold = "answer"\ngold_by = "programme"': f'gold_file = "{gold}"'})
    assert prove(second, "--out", tmp_path / "second") == 0
    found = evidence_of(tmp_path / "second")
    assert found["claims"][0]["method"] == "exact, simultaneous limits" and found["claims"][0]["n"] == 40
    assert found["provenance"]["with_gold"] == 40 and found["provenance"]["gold_by"] == "people"


def test_what_people_prefer_lets_a_judge_speak_that_order_alone_does_not(tmp_path: Path, models: Models) -> None:
    """A student that is never better fails the gate's look at both sides; people who agree with the judge clear it."""
    models.teacher.share, models.student.share = 0.7, 0.4
    items = rows(200)
    bare = [{"prompt": row["prompt"]} for row in items]
    with serving(Referee("fair")) as judge:
        run_file = write(tmp_path, models, bare, **{'gold = "answer"\ngold_by = "programme"': ""})
        text = run_file.read_text()
        run_file.write_text(text[: text.index("[[claims]]")] + JUDGE.format(url=judge.base_url))
        run = tmp_path / "run"
        assert prove(run_file, "--out", run, "--set", "controls.again=0") == 0
        assert evidence_of(run)["claims"][0]["verdict"] == "INCONCLUSIVE"
        asked = judge.asked, models.student.asked
        names = ids(run)
        prompts = dict(zip(names, (row["prompt"] for row in items), strict=True))
        preferred = {}
        for one in draw(names, 150, 0):
            total = f"{sum(map(int, re.findall('[0-9]+', prompts[one])))}."
            better = [
                name
                for name in ("teacher", "student")
                if getattr(models, name).reply(prompts[one]).endswith(f" {total}")
            ]
            preferred[one] = better[0] if len(better) == 1 else TIE
        gold = label_pairs(run, tmp_path / "pairs.jsonl", preferred.__getitem__, len(preferred))
        run_file.write_text(
            run_file.read_text().replace('licence = "own"\n[task]', f'gold_file = "{gold}"\nlicence = "own"\n[task]')
        )
        assert prove(run_file, "--out", run, "--set", "controls.again=0") == 0
        assert (judge.asked, models.student.asked) == asked  # nobody is asked again
    found = evidence_of(run)
    assert (
        found["judges"][0]["gate"] == {"is_usable": False, "ground": "gold"}
        or found["claims"][0]["verdict"] == "INFERIOR"
    )
    assert found["judges"][0]["gold_items"] == 150
    assert found["provenance"]["preferred"] == 150
    assert any("random sample" in words for words in found["provenance"]["does_not_prove"])
    assert "people's preferences between two answers to 150 of 200 items" in (run / "report.html").read_text()


def test_two_addresses_under_one_name_are_refused(tmp_path: Path, models: Models, capsys: Any) -> None:
    """Answers are named by model and route: the student's would be the teacher's."""
    run_file = write(tmp_path, models, rows(20))
    text = run_file.read_text().replace('model = "small"', 'model = "large"\nprovider = "own-proxy"')
    run_file.write_text(text.replace('model = "large"\nlicence', 'model = "large"\nprovider = "own-proxy"\nlicence', 1))
    assert prove(run_file, "--out", tmp_path / "run") == 2
    assert "at two addresses" in capsys.readouterr().err
    assert models.teacher.asked == 0


def test_the_teacher_beside_itself_is_refused(tmp_path: Path, models: Models, capsys: Any) -> None:
    run_file = write(tmp_path, models, rows(20), **{'model = "small"': 'model = "large"'})
    run_file.write_text(run_file.read_text().replace(models.student.base_url, models.teacher.base_url))
    assert prove(run_file, "--out", tmp_path / "run") == 2
    assert "the same model" in capsys.readouterr().err


def test_what_the_teacher_refuses_counts_for_nobody(tmp_path: Path, models: Models) -> None:
    models.teacher.fault = lambda number, request: problem(400) if number in (30, 60) else None
    run = tmp_path / "run"
    assert prove(write(tmp_path, models, rows(150)), "--out", run) == 0
    found = evidence_of(run)
    by_role = {row["role"]: row for row in found["systems"]}
    assert by_role["teacher"]["refused"] == 2
    assert {row["n"] for row in found["systems"]} == {148} == {found["claims"][0]["n"]}
    assert found["claims"][0]["left_out"] == 2
    assert "2 items" in (run / "report.html").read_text()


def test_an_answer_without_the_form_is_wrong_and_not_drawn_again(tmp_path: Path, models: Models) -> None:
    schema = json.dumps({"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]})
    items = [{"prompt": row["prompt"], "schema": schema, "answer": {"sum": 8 * at}} for at, row in enumerate(rows(40))]
    run_file = write(tmp_path, models, items, **{'kind = "number"': 'kind = "json"'})
    assert prove(run_file, "--out", tmp_path / "run") == 0
    assert models.student.asked == 40
    assert {row["score"] for row in evidence_of(tmp_path / "run")["systems"]} == {0.0}


def test_sums_that_differ_in_a_sign_are_two_questions(tmp_path: Path, models: Models, capsys: Any) -> None:
    trained = tmp_path / "trained.jsonl"
    trained.write_text(json.dumps({"prompt": "What is 3 - 21?"}) + "\n")
    seen = {'licence = "own"\n[task]': f'licence = "own"\nseen = ["{trained}"]\n[task]'}
    assert prove(write(tmp_path, models, rows(20), **seen), "--out", tmp_path / "run") == 0
    found = evidence_of(tmp_path / "run")
    assert found["provenance"]["trained_on"] == 1
    assert not any("items.seen" in words for words in found["missing_controls"])


def test_sessions_in_some_rows_only_are_told_before_anybody_is_asked(
    tmp_path: Path, models: Models, capsys: Any
) -> None:
    some = [{**row, **({"session": "a"} if at % 2 else {})} for at, row in enumerate(rows(20))]
    assert prove(write(tmp_path, models, some), "--out", tmp_path / "run") == 2
    assert "10 of 20 items name a session" in capsys.readouterr().err
    assert models.teacher.asked == 0


@pytest.mark.parametrize(
    ("said", "words"), [("Who knows.", "nothing can be read in 40"), ("It is 999999.", "right on none of 40")]
)
def test_a_teacher_that_is_no_measure_gives_no_verdict(
    tmp_path: Path, models: Models, said: str, words: str, capsys: Any
) -> None:
    for model in models:
        model.reply = lambda text: said  # type: ignore[method-assign]
    assert prove(write(tmp_path, models, rows(40)), "--out", tmp_path / "run") == 0
    (claim,) = evidence_of(tmp_path / "run")["claims"]
    assert claim["verdict"] == "INCONCLUSIVE" and words in claim["why"]
    assert words in capsys.readouterr().out


def test_answers_are_the_likeliest_unless_said_otherwise(tmp_path: Path, models: Models) -> None:
    run_file = write(tmp_path, models, rows(20), **{"temperature = 0.0\n": ""})
    assert prove(run_file, "--out", tmp_path / "run") == 0
    assert {body["temperature"] for body in models.teacher.bodies} == {0.0}
