import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.canon import digest_file
from tutelage.collect import rows
from tutelage.collect.questions import COLUMNS, ROLES, Questions, read_questions
from tutelage.config import PromptsTable
from tutelage.errors import DataError
from tutelage.records import Message, Question

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": 1}'}}
USER = {"role": "user", "content": "hello"}
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "number", "maximum": 0.5}}}


def read(tmp_path: Path, content: str | bytes, name: str = "prompts.jsonl", **settings: Any) -> Questions:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return read_questions(path, PromptsTable(path=str(path), licence="own", **settings))


def one(tmp_path: Path, row: dict[str, Any], **settings: Any) -> Question:
    (question,) = read(tmp_path, json.dumps(row) + "\n", **settings)
    return question


def problem(tmp_path: Path, row: dict[str, Any], **settings: Any) -> str:
    with pytest.raises(DataError, match="1 bad rows of 1: line 1: ") as caught:
        one(tmp_path, row, **settings)
    return caught.value.message.split("line 1: ", 1)[1]


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"prompt": "one"}, "one"),
        ({"prompt": " two\n"}, " two\n"),
        ({"question": "three", "answer": "unread"}, "three"),
        ({"instruction": "four", "input": "", "output": "unread"}, "four"),
        ({"instruction": "five", "input": "more"}, "five\n\nmore"),
        ({"text": "six"}, "six"),
        ({"turns": ["seven", "eight"], "category": "writing"}, "seven"),
        ({"prompt": "nine", "messages": [USER, {"role": "assistant", "content": "unread"}]}, "nine"),
        ({"prompt": None, "text": "ten"}, "ten"),
    ],
)
def test_texts_are_found_by_the_usual_names(tmp_path: Path, row: dict, asked: str) -> None:
    question = one(tmp_path, row)
    assert question.messages == (Message("user", asked),)
    assert (question.source, question.licence, question.tools, question.schema) == ("prompts.jsonl", "own", "", "")
    assert question.source_digest == digest_file(tmp_path / "prompts.jsonl")


def test_a_named_column_is_taken_and_no_other(tmp_path: Path) -> None:
    assert one(tmp_path, {"prompt": "no", "body": "yes"}, text="body").messages == (Message("user", "yes"),)
    assert one(tmp_path, {"prompt": "no", "body": [USER]}, text="body").messages == (Message("user", "hello"),)
    assert "no column 'body'; it has prompt, text" in problem(tmp_path, {"prompt": "x", "text": "y"}, text="body")


def test_a_conversation_with_tools(tmp_path: Path) -> None:
    turns = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
        {"role": "tool", "content": "7", "tool_call_id": "c1"},
    ]
    expected = (
        Message("system", "be brief"),
        Message("user", "ab", name="ann"),
        Message("assistant", "", (CALL,)),
        Message("tool", "7", tool_call_id="c1"),
    )
    for column in ("messages", "prompt"):
        question = one(tmp_path, {column: turns, "tools": [TOOL]})
        assert question.messages == expected
        assert json.loads(question.tools) == [TOOL]
    as_object = {**CALL, "function": {"name": "look_up", "arguments": {"a": 1}}}
    turns[2] = {**turns[2], "tool_calls": [as_object]}
    called = one(tmp_path, {"messages": turns}).messages[2].tool_calls[0]
    assert json.loads(called["function"]["arguments"]) == {"a": 1}


def test_system_messages(tmp_path: Path) -> None:
    usual, own = {"system": "usual"}, {"role": "system", "content": "own"}
    user = Message("user", "hello")
    assert one(tmp_path, {"prompt": "hello"}, **usual).messages == (Message("system", "usual"), user)
    assert one(tmp_path, {"prompt": "hello", "system": "own"}, **usual).messages == (Message("system", "own"), user)
    assert one(tmp_path, {"messages": [own, USER]}, **usual).messages == (Message("system", "own"), user)
    assert "two system messages" in problem(tmp_path, {"messages": [own, USER], "system": "other"})


def test_tools_and_schema_as_values_or_text(tmp_path: Path) -> None:
    forms = [
        {"tools": [TOOL], "schema": SCHEMA},
        {"tools": json.dumps([TOOL]), "schema": json.dumps(SCHEMA)},
        {"tools": [TOOL], "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        {"tools": [TOOL], "response_format": {"type": "json_schema", "schema": SCHEMA}, "schema": SCHEMA},
    ]
    asked = [one(tmp_path, {"prompt": "x", **form}) for form in forms]
    assert len({question.prompt_id for question in asked}) == 1
    (schema,) = {question.schema for question in asked}
    assert list(json.loads(schema)["properties"]) == ["b", "a"], "the order of keys guides a model: it stays"
    alone = [{"prompt": "x", **form} for form in ({}, {"tools": [TOOL]}, {"schema": SCHEMA}, forms[0])]
    assert len({one(tmp_path, row).prompt_id for row in alone}) == 4
    plain = {"tools": [], "schema": None, "response_format": {"type": "text"}}
    assert one(tmp_path, {"prompt": "x", **plain}).prompt_id == one(tmp_path, {"prompt": "x"}).prompt_id
    assert one(tmp_path, {"prompt": "x", "response_format": {"type": "json_object"}}).schema == '{"type":"object"}'


def test_groups(tmp_path: Path) -> None:
    found = read(tmp_path, '{"prompt": "a", "group": "g"}\n{"prompt": "b", "session": 7}\n{"prompt": "c"}\n')
    assert [question.group for question in found] == ["g", "7", ""]
    assert "group is [1]" in problem(tmp_path, {"prompt": "a", "group": [1]})


def test_the_same_question_twice_is_one(tmp_path: Path) -> None:
    lines = ['{"prompt": "a"}', '{"messages": [{"role": "user", "content": "a"}]}', '{"prompt": "a", "system": "s"}']
    found = read(tmp_path, "\n".join([*lines, lines[0]]))
    assert (found.count, found.rows, found.repeated) == (2, 4, 2)
    assert len({question.prompt_id for question in found}) == len(list(found)) == 2


def test_limit_takes_the_first_and_looks_no_further(tmp_path: Path) -> None:
    found = read(tmp_path, '{"prompt": "a"}\n{"prompt": "a"}\n{"prompt": "b"}\nnot JSON\n', limit=2)
    assert [question.messages[0].content for question in found] == ["a", "b"]


BAD = [
    ({}, "no column prompt, messages, question, instruction, text or turns; it has none"),
    ({"prompts": "x"}, "it has prompts"),
    ({"prompt": ""}, "the prompt is empty"),
    ({"prompt": " \n"}, "the prompt is empty"),
    ({"prompt": 5}, "prompt is 5, not text or a list of messages"),
    ({"prompt": []}, "prompt is empty"),
    ({"turns": []}, "turns are []"),
    ({"instruction": "x", "input": 5}, "input is 5, not text"),
    ({"messages": [{"role": "user", "content": " "}]}, "the prompt is empty"),
    ({"messages": [{"role": "system", "content": "x"}]}, "no turn of a user"),
    ({"messages": [{"role": "human", "content": "x"}]}, f"messages[0] is of role 'human'; roles are {', '.join(ROLES)}"),
    ({"messages": [{"role": "raw", "content": "x"}]}, "messages[0] is of role 'raw'"),
    ({"messages": [{"from": "user", "value": "x"}]}, "messages[0] is {'from': 'user'"),
    ({"messages": ["x"]}, "messages[0] is 'x'"),
    ({"messages": [{"role": "user"}]}, "messages[0] has no content"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content is 7, not text"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content[0] is a part of type 'image_url'"),
    ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "the last turn is the assistant's: drop it"),
    ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1] is an answer of a tool without tool_call_id"),
    ({"messages": [USER, {"role": "tool", "content": "x", "tool_call_id": "c9"}]}, "messages[1] answers 'c9'"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "only an assistant calls tools, not user"),
    ({"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, USER]}, "messages[2] comes before an answer"),
    ({"messages": [USER, {"role": "assistant", "tool_calls": [CALL, CALL]}, USER]}, "has the id 'c1', not one of its own"),
    ({"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "c"}]}, USER]}, "which names no function"),
    (
        {"messages": [USER, {"role": "assistant", "tool_calls": [CALL, {**CALL, "id": "c2"}]},
                      {"role": "tool", "content": "7", "tool_call_id": "c1"}]},
        "messages has no answer to the call 'c2'",
    ),
    ({"prompt": "x", "system": 5}, "system is 5, not text"),
    ({"prompt": "x", "tools": [{"name": "f"}]}, "tools[0] is no function tool"),
    ({"prompt": "x", "tools": [TOOL, TOOL]}, "two tools have the name 'look_up'"),
    ({"prompt": "x", "tools": "[{"}, "tools is not JSON"),
    ({"prompt": "x", "tools": {"a": 1}}, "not a list"),
    ({"prompt": "x", "schema": {"type": "text"}}, "no JSON Schema: at /type"),
    ({"prompt": "x", "schema": "CREATE TABLE t"}, "schema is not JSON"),
    ({"prompt": "x", "schema": {"type": "string", "enum": []}}, "nothing can satisfy the schema"),
    ({"prompt": "x", "schema": {"$ref": "https://127.0.0.1:1/s"}}, "outside itself"),
    ({"prompt": "x", "response_format": {"type": "grammar"}}, "its types are text, json_object, json_schema"),
    ({"prompt": "x", "response_format": {"type": "json_schema"}}, "without a schema"),
    ({"prompt": "x", "response_format": {"type": "json_object"}, "schema": SCHEMA}, "say different things"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "said"), BAD, ids=[said[:40] for _, said in BAD])
def test_a_bad_row_is_told_with_its_value(tmp_path: Path, row: dict, said: str) -> None:
    assert said in problem(tmp_path, row)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"prompt": "a"', "not JSON"),
        (b"[1]", "not an object"),
        (b'{"prompt": "a", "n": NaN}', "the number NaN is not JSON"),
        (b'{"prompt": "a", "n": -Infinity}', "the number -Infinity is not JSON"),
        (b'{"prompt": "a", "n": 1e999}', "infinity"),
        (b'{"prompt": "\\ud800"}', "half a character"),
        (b'{"prompt": "\xff"}', "not JSON"),
        (b'{"prompt": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_is_no_json_is_told(tmp_path: Path, line: bytes, said: str) -> None:
    with pytest.raises(DataError, match="1 bad rows of 2: line 3: ") as caught:
        read(tmp_path, b'{"prompt": "fine"}\n\n' + line)
    assert said in caught.value.message


def test_a_line_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 1 << 20)
    long = b'{"prompt": "' + b"x" * (3 << 20) + b'"}\n'
    tracemalloc.start()
    found = read(tmp_path, b'{"prompt": "a"}\n' + long + b'{"prompt": "b"}', bad_rows="skip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(row.line, row.problem) for row in found.bad] == [(2, "longer than 1 MiB")]
    assert found.count == 2
    assert peak < len(long) + (4 << 20), "the test itself holds the line once"


def test_stop_names_the_first_five_and_counts_all(tmp_path: Path) -> None:
    content = '{"prompt": "a"}\n' + "".join(f'{{"prompt": {number}}}\n' for number in range(7))
    with pytest.raises(DataError, match=r"7 bad rows of 8: line 2: .*; line 6: .* and 2 more\n") as caught:
        read(tmp_path, content)
    assert "line 7" not in caught.value.message
    assert 'bad_rows = "skip" under [prompts]' in caught.value.fix
    found = read(tmp_path, content, bad_rows="skip")
    assert [row.line for row in found.bad] == [2, 3, 4, 5, 6, 7, 8]
    assert len(list(found)) == 1


def test_one_mistake_in_every_row_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n' + '{"prompt": 5}\n' * 7)
    with pytest.raises(DataError, match=r"7 of 8 rows, from line 2 on: prompt is 5"):
        read_questions(tmp_path / "prompts.jsonl", PromptsTable(path="prompts.jsonl", licence="own"))


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    assert read(tmp_path, '\ufeff{"prompt": "a"}\r\n{"prompt": "b"}\r\n').count == 2


def test_csv_and_tsv(tmp_path: Path) -> None:
    found = read(tmp_path, '\ufeffprompt,system\n"one, ""two""\nthree",s\nfour,\nbad\n', "p.csv", bad_rows="skip")
    assert [[message.content for message in question.messages] for question in found] == [
        ["s", 'one, "two"\nthree'],
        ["four"],
    ]
    assert [(row.line, row.problem) for row in found.bad] == [(5, "1 columns instead of 2")]
    found = read(tmp_path, 'text\tid\nsaid "yes\t1\n', "p.tsv")
    assert [question.messages[0].content for question in found] == ['said "yes']
    with pytest.raises(DataError, match="line 3: not UTF-8"):
        read(tmp_path, b"text,a\nok,1\nb\xffd,2\n", "p.csv")


def test_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"prompt": ["a", None, "b"], "messages": [None, [USER], None], "system": ["s", None, None]})
    parquet.write_table(table, tmp_path / "p.parquet")
    found = read(tmp_path, (tmp_path / "p.parquet").read_bytes(), "p.parquet")
    assert [question.messages[-1].content for question in found] == ["a", "hello", "b"]
    strange = pyarrow.table({"prompt": ["a"], "schema": [{"maximum": float("nan")}]})
    parquet.write_table(strange, tmp_path / "p.parquet")
    with pytest.raises(DataError, match=r"line 1: schema: .*nan.* is not JSON"):
        read(tmp_path, (tmp_path / "p.parquet").read_bytes(), "p.parquet")
    with pytest.raises(DataError, match="no Parquet file that can be read"):
        read(tmp_path, "PAR1 not", "broken.parquet")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    table = PromptsTable(path="x", licence="own")
    with pytest.raises(DataError, match="cannot read"):
        read_questions(tmp_path / "none.jsonl", table)
    with pytest.raises(DataError, match="cannot read"):
        (tmp_path / "folder.jsonl").mkdir()
        read_questions(tmp_path / "folder.jsonl", table)
    with pytest.raises(DataError, match=r"prompts\.txt does not tell what the file is"):
        read(tmp_path, "a", "prompts.txt")
    with pytest.raises(DataError, match="no usable row"):
        read(tmp_path, "\n\n")
    assert len(list(read(tmp_path, '{"prompt": "a"}', "prompts.txt", format="jsonl"))) == 1


def test_a_file_that_changes_between_checking_and_asking_is_told(tmp_path: Path) -> None:
    found = read(tmp_path, '{"prompt": "a"}\n')
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    with pytest.raises(DataError, match="changed while it was read"):
        list(found)


def test_a_long_file_streams(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps({"prompt": f"{at} {'word ' * 400}"}) + "\n" for at in range(2000))
    tracemalloc.start()
    assert sum(1 for _ in read_questions(path, PromptsTable(path=str(path), licence="own"))) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size * 0.6


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(["user", "assistant", "tool", "text", "json_schema", "c1"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["role", "content", "type", "text", "tool_calls", "tool_call_id", "id", "function", "name",
                         "arguments", "parameters", "schema", "$ref"]) | st.text(max_size=2), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
ROWS = st.dictionaries(
    st.sampled_from([*COLUMNS, "system", "tools", "schema", "response_format", "group"]), JSON, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS | JSON, max_size=4))
def test_no_row_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, values: list[Any]) -> None:
    folder = tmp_path_factory.getbasetemp()
    content = "\n".join(json.dumps(value) for value in values)
    try:
        found = read(folder, content, bad_rows="skip")
    except DataError as error:
        assert "no usable row" in error.message
        return
    questions = list(found)
    assert found.count == len(questions) == found.rows - found.repeated - len(found.bad)
    assert all(Question.from_json(question.to_json()) == question for question in questions)
