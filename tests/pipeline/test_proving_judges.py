"""Judges of a proof over real HTTP: what they are shown, whose kin they are, what people's preferences must be made on."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.loopback import serving
from tests.loopback_sums import Adder, Referee
from tests.pipeline.labelled_pairs import label_pairs
from tests.pipeline.test_proving import JUDGE, Models, evidence_of, ids, prove, rows, write
from tutelage.config import TeacherTable
from tutelage.pipeline.asking_judges import kin_of, pairs_of
from tutelage.proof_config import JudgeTable
from tutelage.prove.gold_file import TIE
from tutelage.prove.judges.prompts import question_text
from tutelage.prove.tasks.base import Answer
from tutelage.records import Message, Question

GOLD = 'gold = "answer"\ngold_by = "programme"'
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


class Listening(Referee):
    """A fair judge that keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__("fair")
        self.shown: list[str] = []

    def verdict(self, text: str) -> str:
        self.shown.append(text)
        return super().verdict(text.replace("(no answer)", "The answer is 999999."))


@contextmanager
def proof(folder: Path, items: list[dict[str, Any]], more: str = "", **said: str) -> Iterator[tuple[Path, Models, Any]]:
    """The run file of a proof whose one claim rests on the judge `strict`, its models, and the judge."""
    with ExitStack() as stack:
        models = Models(*(stack.enter_context(serving(Adder(share))) for share in (0.9, 0.6, 0.3)))
        judge = stack.enter_context(serving(Listening()))
        run_file = write(folder, models, items, **said)
        text = run_file.read_text()
        run_file.write_text(text[: text.index("[[claims]]")] + JUDGE.format(url=judge.base_url) + more)
        yield run_file, models, judge


def proved(run_file: Path, run: Path, *more: str) -> int:
    return prove(run_file, "--out", run, "--set", "controls.again=0", *more)


def bare(count: int) -> list[dict[str, Any]]:
    return [{"prompt": row["prompt"]} for row in rows(count)]


def by_people(run_file: Path, gold: Path) -> None:
    text = run_file.read_text()
    run_file.write_text(text.replace('licence = "own"\n[task]', f'gold_file = "{gold}"\nlicence = "own"\n[task]'))


def better(run: Path, models: Models) -> Callable[[str], str]:
    """Whose answer is right, by item."""
    asked = {row["prompt_id"]: row["messages"][-1]["content"] for row in map(json.loads, lines(run))}

    def prefer(item: str) -> str:
        text = asked[item]
        said = [getattr(models, name).reply(text) for name in ("teacher", "student")]
        right = Adder(2.0).reply(text)
        names = [name for name, one in zip(("teacher", "student"), said, strict=True) if one == right]
        return names[0] if len(names) == 1 else TIE

    return prefer


def lines(run: Path) -> list[str]:
    return (run / "data" / "items.jsonl").read_text().splitlines()


@pytest.mark.parametrize(("with_gold", "code"), [(10, 2), (0, 2), (20, 0)])
def test_a_judge_is_shown_gold_on_all_items_or_on_none(tmp_path: Path, capsys: Any, with_gold: int, code: int) -> None:
    some = [{**row, "answer": row["answer"] if at < with_gold else None} for at, row in enumerate(rows(20))]
    with proof(tmp_path, some) as (run_file, models, judge):
        assert proved(run_file, tmp_path / "run", "--set", "judges.strict.shows_gold=true") == code
        if code:
            assert f"judges.strict.shows_gold = true, and {with_gold} of 20 items" in capsys.readouterr().err
            assert [*(model.asked for model in models), judge.asked] == [0, 0, 0, 0]
        else:
            assert judge.shown and all("=== reference begins" in text for text in judge.shown)


def test_preferences_on_other_answers_are_refused_before_a_judge_is_asked(tmp_path: Path, capsys: Any) -> None:
    with proof(tmp_path, bare(40), **{GOLD: ""}) as (run_file, models, judge):
        run = tmp_path / "run"
        assert proved(run_file, run) == 0
        by_people(run_file, label_pairs(run, tmp_path / "pairs.jsonl", better(run, models), 35))
        assert proved(run_file, run) == 0  # the same answers
        assert evidence_of(run)["judges"][0]["gold_items"] == 35
        asked = judge.asked
        models.student.share = 0.3
        capsys.readouterr()
        assert proved(run_file, tmp_path / "other") == 2
        assert judge.asked == asked
    said = capsys.readouterr().err
    assert "of 35 preferences were made on other answers" in said and "label the answers of this run" in said


def test_preferences_stand_when_a_system_refused_an_item(tmp_path: Path) -> None:
    """The student's refusals go to the teacher in proportion (2 at 40 of 147, rounded up: 1); the teacher's is left out."""
    items = bare(150)
    for at, size in ((7, 20_000), (9, 20_000), (17, 60_000)):  # over the student's limit; over the teacher's too
        items[at]["prompt"] += "?" * size
    with proof(tmp_path, items, **{GOLD: ""}) as (run_file, models, judge):
        text = run_file.read_text()
        for model, limit in (("large", 4_000), ("small", 1_000)):
            text = text.replace(f'model = "{model}"', f'model = "{model}"\ncontext_tokens = {limit}')
        run_file.write_text(text)
        run = tmp_path / "run"
        assert proved(run_file, run) == 0
        by_people(run_file, label_pairs(run, tmp_path / "pairs.jsonl", better(run, models), 40))
        asked = judge.asked
        assert proved(run_file, run) == 0
        assert judge.asked == asked
    (strict,) = evidence_of(run)["judges"]
    assert (strict["n"], strict["gold_items"]) == (149, 41)


def test_preferences_on_items_of_another_file_are_refused_before_anybody_is_asked(tmp_path: Path, capsys: Any) -> None:
    with proof(tmp_path, bare(40), **{GOLD: ""}) as (run_file, models, _):
        run = tmp_path / "run"
        assert proved(run_file, run) == 0
        by_people(run_file, label_pairs(run, tmp_path / "pairs.jsonl", better(run, models), 30))
        asked = models.student.asked
        assert proved(run_file, tmp_path / "other", "--set", "items.limit=39") == 2
        assert "is no sample of them" in capsys.readouterr().err
        assert models.student.asked == asked
        assert len(ids(run)) == 40


class Caller(Adder):
    """Calls a tool instead of saying a sum."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        response = await super().handle(request)
        body = json.loads(response.body)  # type: ignore[attr-defined]
        sums = body["choices"][0]["message"]["content"].removeprefix("The answer is ").removesuffix(".")
        call = {**CALL, "function": {"name": "add", "arguments": json.dumps({"sum": int(sums)})}}
        body["choices"][0] |= {
            "message": {"role": "assistant", "content": None, "tool_calls": [call]}, "finish_reason": "tool_calls",
        }  # fmt: skip
        return web.json_response(body)


def test_a_judge_sees_the_calls_and_the_tools_that_were_offered(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    items = [{"prompt": row["prompt"], "tools": [tool]} for row in rows(20)]
    said = {GOLD: "", 'kind = "number"': 'kind = "tool_calls"'}
    with (
        serving(Caller(0.2)) as student,
        serving(Caller(0.9)) as teacher,
        proof(tmp_path, items, **said) as (run_file, models, judge),
    ):
        text = run_file.read_text().replace(models.student.base_url, student.base_url)
        run_file.write_text(text.replace(models.teacher.base_url, teacher.base_url))
        judge.verdict = lambda text: judge.shown.append(text) or "no verdict"
        assert proved(run_file, tmp_path / "run") == 0
    assert judge.shown
    assert all(
        text.count('add({"sum": ') == 2 and "(tools)" in text and "(no answer)" not in text for text in judge.shown
    )
    assert all('"parameters"' in text for text in judge.shown)


def test_what_is_said_is_shown_with_the_calls() -> None:
    asked = Question("q", (Message("user", "1 + 1?"),), "own", "", "own")
    both = (Answer("Let me see.", (CALL,)), Answer("", (CALL,)))
    (pair, *_) = pairs_of([asked], [both[0]], [both[1]], [None])
    assert (pair.student, pair.teacher) == ('Let me see.\nadd({"a": 1})', 'add({"a": 1})')
    (refused,) = pairs_of([asked], [None], [Answer(" ")], [None])
    assert refused.student == refused.teacher == "(no answer)"
    talk = (Message("user", "1 + 1?"), Message("assistant", "", (CALL,)), Message("tool", "2"))
    assert question_text(talk, "[]") == '(tools)\n[]\n\n(user)\n1 + 1?\n\n(assistant)\nadd({"a": 1})\n\n(tool)\n2'


def test_a_judge_of_whom_nothing_was_claimed_has_no_verdict(tmp_path: Path) -> None:
    with serving(Referee("fair")) as other:
        more = f'[judges.other]\nurl = "{other.base_url}"\nmodel = "second"\nlicence = "mit"\n'
        with proof(tmp_path, bare(200), more, **{GOLD: "", "margin__0.01": ""}) as (run_file, models, _):
            run_file.write_text(run_file.read_text().replace("margin = 0.01", 'judge = "strict"\nmargin = 0.2'))
            models.teacher.share, models.student.share, models.student.from_above = 0.6, 0.5, True
            assert proved(run_file, tmp_path / "run") == 0
    found = evidence_of(tmp_path / "run")["judges"]
    assert [row["declared"] for row in found] == [True, False, False]
    assert found[0]["gate"]["is_usable"] and found[0]["verdict"] and found[0]["together"] is None, "one claim alone"
    assert [(row["verdict"], row["together"]) for row in found[1:]] == [(None, None)] * 2
    page = (tmp_path / "run" / "report.html").read_text()
    section = page[page.index('id="judges"') : page.index('id="disagreements"')]
    assert f"interval: {found[0]['verdict']}</dd>" in section and "holm" not in found[0]
    assert section.count("so it has no verdict") == 2


def test_a_judge_that_is_the_teacher_itself_is_named(tmp_path: Path) -> None:
    with proof(tmp_path, bare(30), **{GOLD: ""}) as (run_file, models, judge):
        text = run_file.read_text().replace(judge.base_url, models.teacher.base_url)
        run_file.write_text(text.replace('model = "referee"', 'model = "large"'))
        assert proved(run_file, tmp_path / "run") == 0
    (strict,) = evidence_of(tmp_path / "run")["judges"]
    assert "the judge is the teacher itself (large)" in " ".join(strict["self_preference"])
    assert "the judge is the teacher itself" in (tmp_path / "run" / "report.html").read_text()


def test_kinship_goes_by_the_model_and_not_by_what_the_table_or_the_host_is_called(tmp_path: Path) -> None:
    def table(model: str, url: str = "https://api.deepseek.com/v1") -> TeacherTable:
        return TeacherTable(url=url, model=model)

    systems = {"teacher": table("gpt-4.1"), "student": table("my-own")}
    kin = kin_of(JudgeTable(url="https://api.deepseek.com/v1", model="claude-sonnet-5"), systems)
    assert kin.families == {"Claude"}
    assert len(kin.warnings) == 1 and "family of 'my-own' is not known" in kin.warnings[0]
    other_host = kin_of(JudgeTable(url="https://eu.example.com/v1", model="GPT-4.1"), systems)
    assert other_host.warnings[0].startswith("the judge is the teacher itself (gpt-4.1)")
    folders = [tmp_path / name / "student" for name in "ab"]
    here = {**systems, "student": TeacherTable(path=str(folders[0]), licence="mit")}
    one, two = (kin_of(JudgeTable(path=str(folder), licence="mit"), here).warnings[-1] for folder in folders)
    assert "is the student itself" in one and "itself" not in two


@pytest.mark.parametrize(
    ("criteria", "words"),
    [('Quality = "right"', "'Quality' is no name of a criterion"), ("", "no criterion"), ('tone = " "', "no meaning")],
)
def test_criteria_that_no_judge_can_mark_are_refused(tmp_path: Path, capsys: Any, criteria: str, words: str) -> None:
    with proof(tmp_path, bare(20), f"[judges.strict.criteria]\n{criteria}\n", **{GOLD: ""}) as (run_file, models, _):
        assert proved(run_file, tmp_path / "run") == 2
        assert models.teacher.asked == 0
    said = capsys.readouterr().err
    assert words in said and "judges.strict" in said
