"""Proofs as logs of Inspect and back: a log that the real library wrote, round trips, hostile text, and the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_records import exchange
from tutelage.cli.main import main
from tutelage.jsonl import pretty
from tutelage.prove.inspect_logs import ProofRecord, file_name, log_of
from tutelage.records import Exchange, Message, Question, Usage
from tutelage.store.store import Store
from tutelage.wire.inspect_logs import read_log, rows_of_log, sample_of, worth
from tutelage.wire.values import WireError

GOLDEN = Path(__file__).parents[1] / "golden" / "inspect-log.json"  # written by inspect_ai 0.3.285, events taken out
HOSTILE = '<think>no</think> attachment://x </script>\u2028\x00\x1b[31m {{7*7}} "\\ é😀 tc://y'
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.5}'}}


def question(number: int, *messages: Message, group: str = "") -> Question:
    return Question(
        f"sha256:{number:064x}", messages or (Message("user", f"q{number}"),), "i.jsonl", "", "own", group=group
    )


def answered(text: str, **changes: Any) -> Exchange:
    return replace(exchange(answer=text), **{"finish_reason": "stop", "usage": Usage(9, 4, 5), **changes})


def proof(
    items: list[tuple[Question, str]], answers: dict[str, Exchange], scores: list[dict[str, Any]] | None = None,
    refused: frozenset[str] = frozenset(),
) -> ProofRecord:  # fmt: skip
    taught = {one.prompt_id: answered("a") for one, _ in items if one.prompt_id not in refused}
    row = {"gold_ppm": 500_000, "teacher_ppm": None, "read": "x"}
    system = {
        "role": "student", "label": "small", "n": len(items), "score": 0.5, "ci_low": 0.1, "ci_high": 0.9,
        "interval_method": "exact", "agreement": None,
    }  # fmt: skip
    run = {"name": "a task/with: signs", "created_at": "2026-01-01T00:00:00Z", "task": "exact", "metric": "accuracy"}
    evidence = {"run": run, "systems": [system], "claims": [], "missing_controls": []}
    rows = [{"scores": {"student": one}} for one in scores or [row] * len(items)]
    return ProofRecord(
        evidence, {"temperature": 0.0, "top_p": None}, items, rows, {"student": answers, "teacher": taught}
    )


def test_a_log_that_the_library_wrote_is_read() -> None:
    log = read_log(GOLDEN.read_bytes())
    assert (log.task, log.model, log.status, len(log.samples)) == ("sums", "mockllm/model", "success", 4)
    rows = {row.item: row for row in rows_of_log(GOLDEN.read_bytes())}
    assert list(rows) == ["2", "3", "4", "a"]
    assert rows["a"].answer == "<think>count first</think>The answer is 8"  # as the mock model said it
    assert rows["a"].asked == (Message("system", "You add."), Message("user", "What is 1 + 7?"))
    assert rows["a"].input == "What is 1 + 7?"
    assert rows["2"].target == ("4", "four")
    assert rows["2"].answer == 'It is "4" </script> \u2028 é😀'
    assert [turn.role for turn in rows["2"].asked] == ["system", "system", "user"]
    assert rows["2"].scores == {"match": 0.0, "includes": 1.0}
    assert rows["4"].scores == {"match": 1.0, "includes": 1.0}
    assert {row.error for row in rows.values()} == {""} and {row.stop_reason for row in rows.values()} == {"stop"}


UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(
        st.tuples(UNICODE, UNICODE, UNICODE, UNICODE, st.one_of(st.none(), st.integers(0, 10**6)), st.booleans()),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_what_is_written_is_read_back(data: list[tuple[str, str, str, str, int | None, bool]]) -> None:
    items, answers, scores = [], {}, []
    for at, (asked, gold, said, thought, ppm, is_there) in enumerate(data):
        items.append((question(at, Message("system", thought), Message("user", asked)), gold))
        if is_there:
            answers[items[-1][0].prompt_id] = answered(said, reasoning=thought)
        scores.append({"gold_ppm": ppm, "teacher_ppm": ppm, "read": said})
    log = log_of(proof(items, answers, scores), "student")
    rows = rows_of_log(pretty(log))
    assert len(rows) == len(data)
    for row, (one, gold), (asked, _, said, thought, ppm, is_there) in zip(rows, items, data, strict=True):
        assert (row.item, row.target) == (one.prompt_id, (gold,))
        assert row.asked == one.messages
        assert row.input == f"{thought}\n\n{asked}"
        assert row.answer == (said if is_there else "") and bool(row.error) != is_there
        assert row.reasoning == (thought if is_there else "")
        assert row.scores == ({} if ppm is None else {"exact": ppm / 1e6, "agreement": ppm / 1e6})


def test_hostile_text_changes_nothing_but_itself() -> None:
    one = question(1, Message("user", HOSTILE), group=HOSTILE)
    log = log_of(proof([(one, HOSTILE)], {one.prompt_id: answered(HOSTILE)}), "student")
    (row,) = rows_of_log(pretty(log))
    assert (row.input, row.answer, row.target, row.reasoning) == (HOSTILE, HOSTILE, (HOSTILE,), "")
    said = log["samples"][0]["messages"][-1]
    assert said["content"] == [{"type": "text", "text": HOSTILE}]  # as one text Inspect would cut <think> out of it
    assert "/" not in file_name(log) and file_name(log).startswith("2026-01-01T00-00-00Z_a-task-with-signs-student_")
    log["eval"]["task"] = "../../x"
    assert "/" not in file_name(log) and ".." not in file_name(log)


def test_every_message_has_an_id_of_its_own() -> None:
    """The real reader takes two messages with one id, or none, for the same."""
    items = [(question(at, Message("system", "s"), Message("user", f"q{at}")), "") for at in range(3)]
    log = log_of(proof(items, {one.prompt_id: answered("a") for one, _ in items}), "student")
    ids = [message["id"] for sample in log["samples"] for message in sample["messages"]]
    assert len(set(ids)) == len(ids) == 9


def test_tool_calls_go_there_and_back() -> None:
    turns = (Message("user", "q"), Message("assistant", "", (CALL,)), Message("tool", "7", tool_call_id="c1"))
    broken = {**CALL, "function": {"name": "f", "arguments": "{x"}}
    items = [(question(1, *turns), ""), (question(2), "")]
    answers = {
        items[0][0].prompt_id: answered("", tool_calls=(CALL,), finish_reason="tool_calls"),
        items[1][0].prompt_id: answered("", tool_calls=(broken,)),
    }
    log = log_of(proof(items, answers), "student")
    first, second = rows_of_log(pretty(log))
    back = {**CALL, "function": {"name": "f", "arguments": '{"x":1.5}'}}
    assert first.tool_calls == (back,) and first.asked[1].tool_calls == (back,) and first.asked[2] == turns[2]
    assert first.stop_reason == "tool_calls"
    assert second.tool_calls == (broken,), "{} stands in the log for what was written"
    assert log["samples"][1]["output"]["choices"][0]["message"]["tool_calls"][0]["parse_error"].endswith("{x")


def test_what_the_teacher_refused_has_no_score_against_the_gold() -> None:
    items = [(question(1), "g"), (question(2), "g")]
    answers = {one.prompt_id: answered("a") for one, _ in items}
    made = proof(items, answers, refused=frozenset([items[1][0].prompt_id]))
    made.evidence["systems"][0].update(agreement=0.5, agreement_low=0.1, agreement_high=0.9)
    made.scores[0]["scores"]["student"] = {"gold_ppm": 10**6, "teacher_ppm": 500_000, "read": "x"}
    log = log_of(made, "student")
    assert [sorted(sample["scores"]) for sample in log["samples"]] == [["agreement", "exact"], []]
    counted = {one["name"]: (one["scored_samples"], one["unscored_samples"]) for one in log["results"]["scores"]}
    assert counted["agreement"] == (1, 1)


def test_figures_are_those_of_the_evidence() -> None:
    one = question(1)
    log = log_of(proof([(one, "g")], {one.prompt_id: answered("a")}), "student")
    (score,) = log["results"]["scores"]
    assert score["metrics"]["accuracy"] == {
        "name": "accuracy", "value": 0.5, "params": {}, "metadata": {"ci_low": 0.1, "ci_high": 0.9, "method": "exact"}
    }  # fmt: skip
    assert log["eval"]["model_generate_config"] == {"temperature": 0.0}
    usage = log["samples"][0]["model_usage"]["provider/asked"]
    assert (usage["input_tokens"], usage["input_tokens_cache_read"], usage["total_tokens"]) == (5, 4, 14)
    with pytest.raises(KeyError):
        log_of(proof([(one, "g")], {}), "nobody")


@pytest.mark.parametrize(
    ("value", "number"),
    [("C", 1.0), ("I", 0.0), ("P", 0.5), ("N", 0.0), (True, 1.0), (0.25, 0.25), ("0.5", 0.5), ("yes", 1.0),
     (float("nan"), None), ("inf", None), (None, None), ([1], None), ({"a": 1}, None), ("good", None), (10**400, None)],
)  # fmt: skip
def test_scores_as_numbers(value: Any, number: float | None) -> None:
    assert worth(value) == number


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1]", "not an evaluation log"),
        (b'{"version": 1, "eval": {}}', "version 1"),
        (b'{"version": 2, "eval": {}, "samples": []}', "no samples"),
        (b'{"version": 2, "eval": {"task": 3}, "samples": [1]}', "'task' is 3"),
    ],
)
def test_what_is_no_log_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message) as caught:
        read_log(data)
    assert "inspect log convert" in caught.value.fix


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "id is None"),
        ({"epoch": 0}, "epoch is 0"),
        ({"input": 7}, "input is 7"),
        ({"input": "\ud800"}, "not Unicode"),
        ({"input": [{"role": "king", "content": "x"}]}, "role 'king'"),
        ({"input": [{"role": "user", "content": [{"type": "image", "image": "data:x"}]}]}, "type 'image'"),
        ({"target": 4}, "target is 4"),
        ({"scores": [1]}, "scores are"),
        ({"output": {"choices": [3]}}, "first choice"),
        ({"output": {"choices": [{"message": {"content": "a", "tool_calls": [{"id": 1}]}}]}}, "tool call"),
    ],
)
def test_a_damaged_sample_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    sound = {"id": 1, "epoch": 1, "input": "q", "target": "t"}
    assert sample_of(sound).item == "1"
    with pytest.raises(WireError, match=message):
        sample_of(sound | change)


def test_long_texts_come_out_of_the_attachments() -> None:
    turn = {"role": "user", "content": "attachment://abc"}
    sample = {"id": 1, "input": "attachment://none", "target": "", "messages": [turn], "attachments": {"abc": "long"}}
    assert sample_of(sample | {"input": [turn]}).asked == (Message("user", "long"),)
    assert sample_of(sample).input == "attachment://none"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    return int(ended.value.code or 0)


def test_a_log_is_imported_as_declared_answers(tmp_path: Path, capsys: Any) -> None:
    assert run("import", GOLDEN, "--out", tmp_path / "run", "--licence", "own") == 0
    assert "4 answers imported, declared and unverified" in capsys.readouterr().out
    with Store(tmp_path / "run" / "store") as store:
        found = [Exchange.from_json(line.value) for _, line in store.lines() if line.kind == "exchange"]
    assert {one.model.model_asked for one in found} == {"mockllm/model"}
    assert {one.answer for one in found} >= {"no idea", "16"}
    assert run("import", GOLDEN, "--out", tmp_path / "run", "--licence", "own") == 0
    assert "0 answers imported" in capsys.readouterr().out


def test_samples_that_ended_in_errors_are_bad_rows(tmp_path: Path, capsys: Any) -> None:
    log = json.loads(GOLDEN.read_bytes())
    log["samples"][1]["error"] = {"message": "time\nout", "traceback": "", "traceback_ansi": ""}
    log["samples"][2]["id"] = None
    path = tmp_path / "log.json"
    path.write_text(json.dumps(log))
    assert run("import", path, "--out", tmp_path / "run", "--licence", "own") == 2
    said = capsys.readouterr().err
    assert "line 2: the sample ended in an error: time" in said and "line 3" in said
    assert run("import", path, "--out", tmp_path / "run", "--licence", "own", "--bad-rows", "skip") == 0
    assert "2 answers imported" in capsys.readouterr().out
    path.write_text("{}")
    assert run("import", path, "--out", tmp_path / "run", "--licence", "own") == 2
    assert "not an evaluation log of Inspect" in capsys.readouterr().err
