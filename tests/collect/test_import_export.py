import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.test_records import MODEL, exchange
from tutelage.canon import digest_bytes
from tutelage.cli.main import main
from tutelage.collect import exporting
from tutelage.collect.draws import alone
from tutelage.collect.exporting import Form, export, usd
from tutelage.collect.importing import Declared, Imported, import_file
from tutelage.collect.questions import read_questions
from tutelage.config import PromptsTable
from tutelage.errors import DataError, StorageError
from tutelage.records import RAW, Message, Price, Request, Role
from tutelage.redact import Secrets
from tutelage.store import segment
from tutelage.store.store import Store

NONE = Secrets({})
DECLARED = Declared("m", "p", "own")
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "multipleOf": 0.5}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.5}'}}
HOSTILE = 'line\u2028two\r\n\t"quoted", \\ </script> \x00 \x1b[31m é😀 {"role": "system"}'


def ask(*messages: Message, draw: int = 0, tools: str = "", schema: str = "", purpose: str = "train") -> Request:
    return Request(messages, {"max_tokens": 9}, "asked", "host", purpose, draw, tools, schema)


def put(store: Store, request: Request, answer: str = "yes", **changes: Any) -> str:
    body = answer.encode("utf-8")
    made = replace(exchange(request, answer), raw_body_digest=digest_bytes(body), **changes)
    store.put(request, made, body)
    return request.digest


def filled(folder: Path) -> Store:
    store = Store(folder)
    put(store, ask(Message("system", "brief"), Message("user", "one")), reasoning="because", terms_digest="sha256:aa")
    put(store, ask(Message("user", "one"), draw=1), HOSTILE, price=Price(1_234_500, "list", "2026-01-01"))
    asked = (Message("user", HOSTILE), Message("assistant", "", (CALL,)), Message("tool", "7", tool_call_id="c1"))
    put(store, ask(*asked, tools=json.dumps(TOOLS), schema='{"type":"object"}'), "", tool_calls=(CALL,))
    put(store, ask(Message("user", "held out"), purpose="claim"), "secret", role=Role.EVALUATION)
    put(store, ask(Message(RAW, "once upon")), "a time")
    return store


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def imported(
    tmp_path: Path, rows: list[Any] | str, folder: str = "into", declared: Declared = DECLARED, **how: Any
) -> Imported:
    path = tmp_path / "rows.jsonl"
    path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
    with Store(tmp_path / folder) as store:
        return import_file(path, store, declared, how.pop("secrets", NONE), **how)


def exchanges(folder: Path) -> list[dict[str, Any]]:
    with Store(folder) as store:
        return [line.value for _, line in store.lines() if line.kind == "exchange"]


def test_json_lines_in_both_forms(tmp_path: Path) -> None:
    with filled(tmp_path / "store") as store:
        done = export(store, tmp_path / "a.jsonl", "jsonl")
        export(store, tmp_path / "b.jsonl", "jsonl", form="messages")
    assert done == (3, 1, 1, 2)
    first, second, third = lines(tmp_path / "a.jsonl")
    assert first["prompt"] == [{"role": "system", "content": "brief"}, {"role": "user", "content": "one"}]
    assert first["completion"] == [{"role": "assistant", "content": "yes", "reasoning": "because"}]
    assert second["completion"] == [{"role": "assistant", "content": HOSTILE}]
    assert third["completion"][0]["tool_calls"] == [CALL]
    assert third["tools"] == TOOLS
    assert third["schema"] == '{"type":"object"}'
    assert "tools" not in first
    for row, other in zip(lines(tmp_path / "a.jsonl"), lines(tmp_path / "b.jsonl"), strict=True):
        assert other["messages"] == [*row.pop("prompt"), *row.pop("completion")]
        assert {key: other[key] for key in row} == row
    assert [row["metadata"]["terms"] for row in (first, second, third)] == ["sha256:aa", "", ""]
    told = second["metadata"]
    assert {key: told[key] for key in ("model", "provider", "draw", "finish_reason", "cost_usd", "licence", "origin")} == {
        "model": "reported", "provider": "provider", "draw": 1, "finish_reason": "stop", "cost_usd": "0.0012345",
        "licence": "MIT", "origin": "asked",
    }  # fmt: skip
    assert told["address"] == ask(Message("user", "one"), draw=1).digest
    assert "secret" not in (tmp_path / "a.jsonl").read_text() + (tmp_path / "b.jsonl").read_text()


@pytest.mark.parametrize("form", ["prompt-completion", "messages"])
def test_parquet_has_one_type_a_column(tmp_path: Path, form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_BATCH_ROWS", 2)
    with filled(tmp_path / "store") as store:
        export(store, tmp_path / "a.parquet", "parquet", form=form)
        export(store, tmp_path / "a.jsonl", "jsonl", form=form)
    with parquet.ParquetFile(tmp_path / "a.parquet") as file:
        assert file.num_row_groups == 2
        table = file.read()
    names = ["prompt", "completion"] if form == "prompt-completion" else ["messages"]
    assert table.column_names == [*names, "tools", "schema", "metadata"]
    message = table.schema.field(names[-1]).type.value_type
    assert [message.field(name).type for name in ("role", "content", "reasoning")] == [pyarrow.string()] * 3
    assert (
        message.field("tool_calls").type.value_type.field("function").type.field("arguments").type == pyarrow.string()
    )
    assert table.schema.field("metadata").type.field("draw").type == pyarrow.int64()
    for row, plain in zip(table.to_pylist(), lines(tmp_path / "a.jsonl"), strict=True):
        plain["tools"] = json.dumps(plain["tools"], separators=(",", ":")) if "tools" in plain else None
        plain.setdefault("schema", None)
        assert _without_nothing(row) == _without_nothing(plain)


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    return [_without_nothing(item) for item in value] if isinstance(value, list) else value


def test_only_the_addresses_asked_for_and_only_first_answers(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "store"), Store(tmp_path / "store")
    with first, second:
        address = put(first, ask(Message("user", "a")), "first")
        put(second, ask(Message("user", "a")), "second")  # a second process, at the same time
        other = put(second, ask(Message("user", "b")), "other")
    with Store(tmp_path / "store") as store:
        assert export(store, tmp_path / "a.jsonl", "jsonl").rows == 2
        assert {row["completion"][0]["content"] for row in lines(tmp_path / "a.jsonl")} == {"first", "other"}
        export(store, tmp_path / "a.jsonl", "jsonl", addresses=[other, address])
        assert [row["completion"][0]["content"] for row in lines(tmp_path / "a.jsonl")] == ["other", "first"]


def test_an_answer_is_not_given_to_another_question(tmp_path: Path) -> None:
    asked, other = ask(Message("user", "a")), ask(Message("user", "b"))
    records = [("request", asked), ("request", other), ("exchange", exchange(asked, "to a"))]
    (tmp_path / "000001.seg").write_bytes(
        b"".join(segment.encode(kind, record.to_json())[1] for kind, record in records)
    )
    with Store(tmp_path) as store, pytest.raises(StorageError, match="is not the question of"):
        export(store, tmp_path / "a.jsonl", "jsonl")


def test_the_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.jsonl"
    out.write_text("before")
    with filled(tmp_path / "store") as store:
        real = exporting.row_of
        monkeypatch.setattr(exporting, "row_of", lambda pair, form: real(pair, form) if _count(seen) < 3 else 1 / 0)
        for kind in ("jsonl", "parquet"):
            seen: list[int] = []
            with pytest.raises(ZeroDivisionError):
                export(store, out, kind)
            assert out.read_text() == "before"
            assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "store"]
    with Store(tmp_path / "empty") as store, pytest.raises(DataError, match="no answer to export"):
        export(store, tmp_path / "b.jsonl", "jsonl")
    assert not (tmp_path / "b.jsonl").exists()


def _count(seen: list[int]) -> int:
    seen.append(1)
    return len(seen)


def test_without_pyarrow_the_fix_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with filled(tmp_path / "store") as store, pytest.raises(DataError, match="pyarrow is not installed") as caught:
        export(store, tmp_path / "a.parquet", "parquet")
    assert "tutelage[parquet]" in caught.value.fix


@pytest.mark.parametrize("form", ["prompt-completion", "messages"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_out_and_in_and_out_again(tmp_path: Path, kind: Any, form: Form) -> None:
    with filled(tmp_path / "store") as store:
        export(store, tmp_path / f"a.{kind}", kind, form=form)
        export(store, tmp_path / "a.jsonl", "jsonl", form=form)
    with Store(tmp_path / "other") as store:
        done = import_file(tmp_path / f"a.{kind}", store, Declared(), NONE)
        assert (done.rows, done.added, done.known, done.bad) == (3, 3, 0, [])
        export(store, tmp_path / "b.jsonl", "jsonl", form=form)
    before, after = lines(tmp_path / "a.jsonl"), lines(tmp_path / "b.jsonl")
    for row, again in zip(before, after, strict=True):
        was, told = row.pop("metadata"), again.pop("metadata")
        assert row == again
        assert told["origin"] == "imported: declared, unverified"
        assert told["cost_usd"] == "0"
        assert [told[key] for key in ("model", "provider", "licence", "draw", "finish_reason")] == [
            was[key] for key in ("model", "provider", "licence", "draw", "finish_reason")
        ]


def test_what_was_exported_can_be_asked_again(tmp_path: Path) -> None:
    with filled(tmp_path / "store") as store:
        export(store, tmp_path / "a.jsonl", "jsonl")
    questions = list(read_questions(tmp_path / "a.jsonl", PromptsTable(path="a", licence="own")))
    assert [question.messages[-1].role for question in questions] == ["user", "user", "tool"]
    assert questions[2].tools
    assert questions[2].schema


USER, SAID = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"prompt": [USER], "completion": [SAID]},
        {"prompt": [USER], "completion": "a"},
        {"messages": [USER, SAID]},
        {"prompt": [USER, SAID]},
        {"messages": json.dumps([USER, SAID])},
        {"question": "q", "answer": "a"},
        {"instruction": "q", "input": "", "output": "a"},
        {"prompt": "q", "response": "a", "model": "m", "license": "own", "metadata": "free text"},
    ],
    ids=str,
)
def test_the_forms_that_answers_come_in(tmp_path: Path, row: dict[str, Any]) -> None:
    assert imported(tmp_path, [row]).added == 1
    with Store(tmp_path / "into") as store:
        stored = [line for _, line in store.lines()]
    body, request, answer = (line.value for line in stored)
    assert [line.kind for line in stored] == ["body", "request", "exchange"]
    assert body["text"] == json.dumps(row)
    assert request["messages"] == [USER]
    assert answer["answer"] == "a"
    assert answer["raw_body_digest"] == body["digest"]


def test_an_imported_answer_says_that_it_is_declared(tmp_path: Path) -> None:
    row = {"messages": [{"role": "system", "content": "s"}, USER, {**SAID, "reasoning_content": "why"}]}
    imported(tmp_path, [row])
    (answer,) = exchanges(tmp_path / "into")
    assert answer["origin"] == "imported: declared, unverified"
    assert answer["reasoning"] == "why"
    assert answer["price"] == {"cost_nusd": 0, "source": "not known: imported", "dated": ""}
    assert set(answer["usage"].values()) <= {0}
    assert answer["role"] == "text-target"
    told = {key: value for key, value in answer["model"].items() if value}
    assert told == {"provider": "p", "route": "imported", "model_asked": "m", "licence": "own"}


def test_importing_twice_adds_nothing_and_other_answers_are_other_draws(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": text} for text in ("a", "b", "a", "c")]
    first = imported(tmp_path, rows)
    assert (first.rows, first.added, first.known) == (4, 3, 1)
    again = imported(tmp_path, [*rows, {"prompt": "q", "completion": "d"}])
    assert (again.added, again.known) == (1, 4)
    with Store(tmp_path / "into") as store:
        requests = [line.value for _, line in store.lines() if line.kind == "request"]
    assert [request["draw"] for request in requests] == [0, 1, 2, 3]
    same = [{"prompt": "x", "completion": "y", "metadata": {"draw": draw}} for draw in (0, 1, True)]
    assert imported(tmp_path, same).added == 2, "told apart by their draws, two equal answers are two"
    assert imported(tmp_path, same).added == 0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "q"}, "no answer: no column completion, answer, response, output"),
        ({"messages": [USER]}, "no answer of an assistant after the question"),
        ({"messages": [SAID]}, "no answer of an assistant after the question"),
        ({"prompt": "q", "completion": " "}, "the answer is empty"),
        ({"prompt": "q", "completion": 5}, "completion is 5"),
        ({"prompt": "q", "completion": [USER]}, "no answer of an assistant"),
        ({"prompt": [USER, SAID], "completion": "b"}, "two answers"),
        ({"completion": "a"}, "no column prompt"),
        ({"prompt": "q", "completion": [{"role": "gpt", "content": "x"}]}, "of role 'gpt'"),
        ({"prompt": "q", "completion": "a", "metadata": {"model": "other"}}, "it says model 'other', you declare 'm'"),
        ({"prompt": "q", "completion": "a", "license": "MIT"}, "it says licence 'MIT', you declare 'own'"),
        ({"prompt": "q", "completion": "a", "tools": [{}]}, "no function tool"),
        ({"prompt": "q", "completion": "a", "metadata": {"draw": 2**31}}, "metadata.draw is 2147483648, not from 0 to"),
        ({"prompt": "q", "completion": "a", "metadata": {"draw": -1}}, "metadata.draw is -1"),
        ([], "not an object"),
    ],
    ids=str,
)
def test_rows_without_a_usable_answer_are_named_and_nothing_is_stored(tmp_path: Path, row: Any, said: str) -> None:
    good = {"prompt": "fine", "completion": "a"}
    with pytest.raises(DataError, match="1 bad rows of 2: line 2: ") as caught:
        imported(tmp_path, [good, row])
    assert said in caught.value.message
    assert "--bad-rows skip" in caught.value.fix
    assert exchanges(tmp_path / "into") == []
    done = imported(tmp_path, [good, row], bad_rows="skip")
    assert (done.added, [bad.line for bad in done.bad]) == (1, [2])


def test_a_model_and_a_licence_are_declared_and_people_are_none(tmp_path: Path) -> None:
    row = {"prompt": "q", "completion": "a"}
    with pytest.raises(DataError, match="no model is declared: add --model"):
        imported(tmp_path, [row], declared=Declared("", "", "own"))
    with pytest.raises(DataError, match="no licence is declared"):
        imported(tmp_path, [row], declared=Declared("m"))
    for declared in (Declared("Human", "", "own"), Declared("m", "people", "own")):
        with pytest.raises(DataError, match="is no model: imported answers are never taken for people's"):
            imported(tmp_path, [row], declared=declared)
    with pytest.raises(DataError, match="has no row"):
        imported(tmp_path, "\n")


def test_a_secret_in_a_row_is_not_stored(tmp_path: Path) -> None:
    key = "sk-planted-0123456789"
    imported(tmp_path, [{"prompt": f"my key is {key}", "completion": "a"}], secrets=Secrets({"K": key}))
    assert all(key not in path.read_bytes().decode("latin-1") for path in (tmp_path / "into").iterdir())
    with Store(tmp_path / "into") as store:
        (request,) = [line.value for _, line in store.lines() if line.kind == "request"]
    assert request["messages"][0]["content"] == "my key is [redacted:K]"


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, run = tmp_path / "rows.jsonl", tmp_path / "run"
    source.write_text('{"question": "q", "answer": "a"}\n{"question": "r"}\n')

    def code(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return int(ended.value.code or 0)

    take = ("import", source, "--out", run, "--model", "m", "--licence", "own")
    assert code(*take) == 2
    assert "line 2: no answer" in capsys.readouterr().err
    assert code(*take, "--bad-rows", "skip") == 0
    assert capsys.readouterr().out == (
        f"{run}: 1 answers imported, declared and unverified, 1 bad rows skipped (the first at line 2)\n"
    )
    assert code(*take, "--bad-rows", "skip") == 0
    assert "0 answers imported, declared and unverified, 1 were there already" in capsys.readouterr().out
    assert code("export", run, "--out", tmp_path / "a.parquet", "--form", "messages") == 0
    assert capsys.readouterr().out == (
        f"{tmp_path / 'a.parquet'}: 1 answers\n"
        "  no terms were checked for 1 of them, captured or imported: metadata.terms is empty there\n"
    )
    assert parquet.read_table(tmp_path / "a.parquet").num_rows == 1
    with alone(run):
        assert code(*take, "--bad-rows", "skip") == 2
    assert "another process is working in" in capsys.readouterr().err
    assert code("export", run, "--out", tmp_path / "a.txt") == 2
    assert code("export", tmp_path / "none", "--out", tmp_path / "a.jsonl") == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("nusd", "dollars"), [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (10**11, "100")])
def test_money_is_exact(nusd: int, dollars: str) -> None:
    assert usd(nusd) == dollars


TEXT = st.text(max_size=8) | st.sampled_from(["user", "assistant", "m", HOSTILE])
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "reasoning", "tool_calls", "draw", "model"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
KEYS = ["prompt", "completion", "messages", "answer", "metadata", "tools", "reasoning", "model", "licence", "system"]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), VALUE | TEXT, max_size=6), max_size=15))
def test_no_row_breaks_the_import(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("any")
    try:
        done = imported(folder, [*rows, {"prompt": "q", "completion": HOSTILE}], bad_rows="skip")
    except DataError:
        pytest.fail("one row is good")
    assert done.rows == len(rows) + 1 == done.added + done.known + len(done.bad)
    with Store(folder / "into") as store:
        assert export(store, folder / "a.parquet", "parquet").rows == done.added
    assert MODEL.provider not in {answer["model"]["provider"] for answer in exchanges(folder / "into")}
