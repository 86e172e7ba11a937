"""The viewer's index: everything in it, nothing written into the run, and what became of each answer."""

import json
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.view.conftest import FROZEN, exchange, fill, snapshot
from tutelage.canon import digest_of
from tutelage.errors import DataError, StorageError
from tutelage.jsonl import read_lines, write_lines
from tutelage.records import Exchange, TokenLogprob
from tutelage.store.store import Store
from tutelage.view import query
from tutelage.view.diff import MOST_WORDS, word_diff
from tutelage.view.example import read_example, token_text
from tutelage.view.index import Place, ViewIndex
from tutelage.view.looking import Looking
from tutelage.view.query import Filters, list_examples
from tutelage.view.runs import Run, find_runs
from tutelage.view.schema import cache_path, forget_gone
from tutelage.view.texts import fts_query, question_of


def listed(index: ViewIndex, **given: str) -> query.Listed:
    index.refresh(60)
    with index.reading() as database:
        return list_examples(database, Filters.parse(given))


def made(folder: Path, cache: Path) -> ViewIndex:
    return ViewIndex(folder, cache_path(folder, cache))


def test_every_exchange_is_listed_and_the_run_is_left_alone(run: Path, tmp_path: Path) -> None:
    before = snapshot(run)
    index = made(run, tmp_path / "cache")
    known = index.refresh(60)
    assert known.is_whole
    assert known.examples == 84
    assert known.read == known.size == (run / "store" / "000001.seg").stat().st_size
    assert listed(index).pages == 2
    assert snapshot(run) == before
    assert index.path.stat().st_mode & 0o777 == 0o600
    assert index.path.parent.stat().st_mode & 0o777 == 0o700


def test_lineage_is_what_the_stages_wrote(run: Path, tmp_path: Path) -> None:
    index = made(run, tmp_path / "cache")
    assert listed(index, stage="collect").total == 24
    assert listed(index, stage="prove").total == 60
    assert listed(index, fate="trained on").total == 18
    assert listed(index, fate="tuned by").total == 6
    # held out: 16 asked of three systems; validation: 6 of the student and the pruned model
    assert {who: listed(index, stage="prove", who=who).total for who in ("teacher", "student", "before")} == {
        "teacher": 16, "student": 22, "before": 22,
    }  # fmt: skip
    scores = list(read_lines(run / "prove" / "scores.jsonl"))
    for who in ("teacher", "student", "before"):
        right = sum(row["decided"][who] == row["gold"] for row in scores)
        assert listed(index, stage="prove", who=who, correct="right").total == right
        assert listed(index, stage="prove", who=who, correct="wrong").total == len(scores) - right
    differing = sum(row["decided"]["teacher"] != row["decided"]["student"] for row in scores)
    assert listed(index, differs="differs", who="student").total == differing


def test_loss_tokens_are_those_of_the_steps(run: Path, tmp_path: Path) -> None:
    wanted: Counter[tuple[str, str]] = Counter()
    for step in read_lines(run / "train" / "consumed.jsonl"):
        for digest, by_role in zip(step["exchanges"], step["loss_tokens"], strict=True):
            for role, tokens in by_role.items():
                wanted[digest, role] += tokens
    index = made(run, tmp_path / "cache")
    found = {}
    for row in listed(index, fate="trained on").rows:
        with index.reading() as database:
            lineage = query.lineage_of(database, row.place)
        assert lineage is not None
        for one in lineage["taken"]:
            found["sha256:" + lineage["digest"].hex(), one["role"]] = one["tokens"]
    assert found == dict(wanted)


def test_an_example_knows_its_terms_and_its_proof(run: Path, tmp_path: Path) -> None:
    looking = Looking(find_runs([run]), tmp_path / "cache")
    (one,) = looking.runs
    index = looking.index(one)
    asked = looking.example(one, listed(index, stage="collect").rows[0].place)
    assert asked is not None
    assert asked[0].terms["status"] == "conditional"
    assert "MIT License" in asked[0].terms["said"]
    assert asked[0].asked_by["stage"] == "collect"
    assert asked[0].proof == ""
    proved = looking.example(one, listed(index, stage="prove", who="student", correct="wrong").rows[0].place)
    assert proved is not None
    assert proved[0].proof.startswith("student minus teacher")
    said = {one.who: one.said for one in proved[0].lineage["score"]["outcomes"]}
    assert said["student"] != proved[0].lineage["score"]["gold"]
    assert proved[0].terms == {"status": "", "digest": ""}  # our own model's
    assert abs(sum(c.probability for c in asked[0].steps[0].candidates) + asked[0].steps[0].tail - 1) < 1e-9
    assert looking.example(one, Place(1, 0)) is None


def test_what_is_added_is_found_and_what_is_replaced_is_read_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fill(folder, [("one", "first")])
    index = made(folder, tmp_path / "cache")
    assert listed(index).total == 1
    fill(folder, [("two", "second needle"), ("three", "third")])
    assert listed(index, q="needle").total == 1
    assert listed(index).total == 3
    shutil.rmtree(folder / "store")
    fill(folder, [("other", "needle")])
    assert [row.question for row in listed(index).rows] == ["other"]
    assert listed(index, q="third").total == 0


def test_a_torn_line_waits_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fill(folder, [("one", "first"), ("two", "second")])
    path = folder / "store" / "000001.seg"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    index = made(folder, tmp_path / "cache")
    assert listed(index).total == 1
    assert index.refresh(60).is_whole
    path.write_bytes(whole)
    assert listed(index).total == 2
    spoilt = whole.replace(b'"finish_reason"', b'"finish_season"')
    (folder / "store" / "000001.seg").write_bytes(spoilt)
    other = made(folder, tmp_path / "other")
    problem = other.refresh(60).problem
    assert isinstance(problem, StorageError)
    assert "000001.seg is damaged at byte" in problem.message
    assert "finish_reason" in problem.message


def test_a_changed_answer_is_shown_as_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fill(folder, [("one", "first answer")])
    looking = Looking(find_runs([folder]), tmp_path / "cache")
    place = listed(looking.index(looking.runs[0])).rows[0].place
    path = folder / "store" / "000001.seg"
    data = path.read_bytes()
    at = data.rindex(b"first answer")
    path.write_bytes(data[:at] + b"First" + data[at + 5 :])
    with pytest.raises(StorageError, match="digest differs"):
        looking.example(looking.runs[0], place)


def test_a_record_of_another_shape_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    request, said = exchange("q", "a")
    plain = said.to_json()
    with Store(folder / "store") as store:
        monkeypatch.setattr(Exchange, "to_json", lambda self: {**plain, "unheard_of": 1})
        store.put(request, said, b"a")
    monkeypatch.undo()
    index = made(folder, tmp_path / "cache")
    place = listed(index).rows[0].place
    with index.reading() as database:
        lineage = query.lineage_of(database, place)
    assert lineage is not None
    with pytest.raises(DataError, match="unheard_of"):
        read_example(Run(1, folder, "run"), index, place, lineage)


def test_a_broken_stage_file_is_named_and_the_store_still_listed(run: Path, tmp_path: Path) -> None:
    (run / "curate" / "selection.json").write_text('{"train": [{"exchange": 3}], "validation": []}')
    index = made(run, tmp_path / "cache")
    problem = index.refresh(60).problem
    assert isinstance(problem, DataError)
    assert listed(index).total == 84


def test_two_viewers_of_one_cache_count_nothing_twice(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fill(folder, [(f"question {number}", "answer") for number in range(400)])
    pair = [made(folder, tmp_path / "cache") for _ in range(2)]
    for index in pair:
        index.refresh(0)
    for index in pair:
        assert index.refresh(60).examples == 400
        assert listed(index, q="answer").total == 400


def test_a_spoilt_index_is_made_anew_and_a_forgotten_one_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fill(folder, [("one", "first")])
    index = made(folder, tmp_path / "cache")
    assert listed(index).total == 1
    index.close()
    index.path.write_bytes(b"no database" * 100)
    again = made(folder, tmp_path / "cache")
    assert listed(again).total == 1
    again.close()
    assert forget_gone(tmp_path / "cache") == 0
    shutil.rmtree(folder)
    assert forget_gone(tmp_path / "cache") == 1
    assert list((tmp_path / "cache").glob("*.sqlite")) == []


def test_a_folder_for_the_index_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fill(folder, [("one", "first")])
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match="--cache"):
        made(folder, tmp_path / "cache").refresh(1)


@pytest.mark.parametrize(
    ("typed", "count"),
    [("needle", 1), ("NEEDLE", 1), ("need", 0), ("need*", 1), ('"a needle"', 1), ('"needle a"', 0), ("needle missing", 0),
     ("猫", 1), ("黒猫", 1), ("猫黒", 0), ("!!!", 0), ("NOT needle", 0), ("question:needle", 0), ("über", 1)],
)  # fmt: skip
def test_search(tmp_path: Path, typed: str, count: int) -> None:
    folder = tmp_path / "run"
    fill(folder, [("find a needle", "yes"), ("黒猫はどこ", "ここ"), ("Über alles", "no")])
    assert listed(made(folder, tmp_path / "cache"), q=typed).total == count


@given(st.text(max_size=60))
def test_no_search_is_an_error(typed: str) -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE words USING fts5 (question, answer, content='')")
    database.execute("INSERT INTO words (rowid, question, answer) VALUES (1, 'a b', 'c')")
    if text := fts_query(typed.encode("utf-8", "replace").decode()):
        database.execute("SELECT rowid FROM words WHERE words MATCH ?", (text,)).fetchall()
    database.close()


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_diff_holds_both_texts_whole(left: str, right: str) -> None:
    found = word_diff(left, right)
    assert "".join(piece.text for piece in found.left) == left
    assert "".join(piece.text for piece in found.right) == right
    shared = ["".join(piece.text for piece in side if piece.is_shared) for side in (found.left, found.right)]
    assert shared[0] == shared[1]
    if left == right:
        assert all(piece.is_shared for piece in found.left)


def test_a_diff_of_long_texts_is_not_made() -> None:
    found = word_diff("a " * MOST_WORDS, "b")
    assert not found.is_compared
    assert found.left[0].text == "a " * MOST_WORDS


@given(st.integers(0, 10**6), st.integers(0, 2**31))
def test_places_are_read_back(number: int, offset: int) -> None:
    place = Place(number, offset)
    assert Place.parse(str(place)) == place == Place.of_id(place.id)


@pytest.mark.parametrize(
    "text",
    ["", ".", "1", "1.", ".1", "-1.2", "1.2.3", "١.٢", "1." + "9" * 11, "../etc", "999999999.0", "1.17179869184"],
)
def test_what_is_no_place_is_none(text: str) -> None:
    assert Place.parse(text) is None


def test_tokens_that_are_no_text_are_shown() -> None:
    assert token_text(TokenLogprob("4g==", 1, 0)) == "\\xe2"
    assert token_text(TokenLogprob("IGEK", 1, 0)) == "␣a↵"
    assert token_text(TokenLogprob("", 1, 0)) == "(empty)"


def test_the_frozen_run_itself_has_no_index() -> None:
    """The fixture is evidence too: nothing of the viewer may ever lie in it."""
    assert not list(FROZEN.rglob("*.sqlite*"))
    assert json.loads((FROZEN / "config.json").read_bytes())["run"]["name"] == "topics"


def test_a_text_to_continue_is_listed_by_its_end() -> None:
    text = "the same examples\n" * 40 + "Review: the last one"
    assert question_of({"messages": [{"role": "raw", "content": text}]}).endswith("Review: the last one")
    assert question_of({"messages": [{"role": "raw", "content": "short"}]}) == "short"
    messages = [{"role": "user", "content": "asked"}, {"role": "assistant", "content": "begun"}]
    assert question_of({"messages": messages}) == "asked"


def test_a_call_that_scores_a_text_is_no_answer_of_a_system(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    names = ("teacher", "student scores", "student")
    asked = fill(folder, [("What is 1 + 1?", name) for name in names])
    rows = [
        {"address": one.digest, "prompt": digest_of("item"), "system": name}
        for one, name in zip(asked, names, strict=True)
    ]
    write_lines(folder / "prove" / "exchanges.jsonl", rows)
    score = {"gold_ppm": 0, "teacher_ppm": None, "read": ""}
    scores = {"item": digest_of("item"), "session": None, "gold": "2", "scores": {"teacher": score, "student": score}}
    write_lines(folder / "prove" / "scores.jsonl", [scores])
    index = made(folder, tmp_path / "cache")
    assert listed(index, who="student scores").total == 1
    with index.reading() as database:
        _, places = query.pair_at(database, 1) or pytest.fail("no item 1")
    assert places.keys() == {"teacher", "student"}
