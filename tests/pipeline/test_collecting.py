"""`tutelage collect` over real HTTP: questions in, answers and a record out, within a budget, resumed, nothing leaked."""

import base64
import functools
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from tests.loopback import Teacher, problem, serving
from tests.loopback_batches import Desk, serving_batches
from tests.models.tiny import save_tiny
from tutelage.canon import digest_file
from tutelage.cli.main import main
from tutelage.ledger.verify import verify
from tutelage.models import questions as questions_module
from tutelage.models.batch import Pace, ask_in_batches
from tutelage.store.store import Store

QUESTIONS = [{"prompt": f"the team and the goal {number}"} for number in range(30)]
RUN_FILE = """
[run]
name = "open"
seed = 1
purpose = "internal"
[prompts]
path = "{path}"
licence = "own"
[teacher]
url = "{url}"
model = "loop"
licence = "mit"
signal = "text"
concurrency = 8
timeout_s = 5
[teacher.price]
input_usd_per_mtok = 1.0
output_usd_per_mtok = 2.0
dated = "2026-11-01"
[sampling]
max_tokens = 16
"""


def write(folder: Path, teacher: Teacher, rows: list[dict[str, Any]], more: str = "") -> Path:
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_file = folder / "run.toml"
    run_file.write_text(RUN_FILE.format(path=questions, url=teacher.base_url) + more)
    return run_file


def collect(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["collect", *map(str, arguments), "--quiet"])
    return int(ended.value.code or 0)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_question_is_answered_once_and_the_record_says_what_it_cost(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as teacher:
        run_file = write(tmp_path, teacher, QUESTIONS)
        assert collect(run_file, "--out", tmp_path / "run") == 0
        assert collect(run_file, "--out", tmp_path / "run") == 0
        assert teacher.asked == 30
    said = capsys.readouterr().out
    assert "30 of 30 to 30 questions" in said
    assert "$0.0003; about $0.0" in said  # 30 answers of 7 tokens at $1 and one at $2 a million
    rows = rows_of(tmp_path / "run" / "collect" / "exchanges.jsonl")
    assert [row["draw"] for row in rows] == [0] * 30
    with Store(tmp_path / "run" / "store") as store:
        assert store.spent()[:2] == (30 * 9000, 30 * 8)
        assert store.spent()[2:] == (0, 0)
        assert {pair.exchange["answer"] for pair in store.pairs([row["address"] for row in rows])} == {"sport"}


def test_the_record_of_a_collection_holds_and_a_changed_answer_is_found(tmp_path: Path) -> None:
    with serving(Teacher()) as teacher:
        assert collect(write(tmp_path, teacher, QUESTIONS[:3]), "--out", tmp_path / "run") == 0
    result = verify(tmp_path / "run")
    assert result.findings == ()
    (segment,) = (tmp_path / "run" / "store").glob("*.seg")
    data = segment.read_bytes()
    at = data.index(b'"answer":"sport"') + 10
    segment.write_bytes(data[:at] + b"S" + data[at + 1 :])
    assert verify(tmp_path / "run").findings


def test_samples_are_draws_with_seeds_of_their_own(tmp_path: Path) -> None:
    with serving(Teacher()) as teacher:
        run_file = write(tmp_path, teacher, QUESTIONS[:3], "samples = 4\nseed = 10\ntemperature = 0.7\nstop = ['x']\n")
        assert collect(run_file, "--out", tmp_path / "run") == 0
        assert sorted(body["seed"] for body in teacher.bodies) == sorted([10, 11, 12, 13] * 3)
        assert {(body["temperature"], tuple(body["stop"]), body["max_tokens"]) for body in teacher.bodies} == {
            (0.7, ("x",), 16)
        }
    rows = rows_of(tmp_path / "run" / "collect" / "exchanges.jsonl")
    assert [row["draw"] for row in rows] == [0, 1, 2, 3] * 3
    assert len({row["address"] for row in rows}) == 12


def test_tools_and_turns_and_extra_fields_go_out_as_they_came(tmp_path: Path) -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "number", "minimum": 0.5}}}
    tools = [{"type": "function", "function": {"name": "look", "parameters": parameters}}]
    calls = [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"x":1}'}}]
    turns = [
        {"role": "user", "content": "find the goal"}, {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "found"}, {"role": "user", "content": "the match"},
    ]  # fmt: skip
    with serving(Teacher()) as teacher:
        rows = [{"messages": turns, "tools": tools, "system": "be short"}]
        run_file = write(tmp_path, teacher, rows, "extra = { top_k = 40, min_p = 0.05 }\n")
        assert collect(run_file, "--out", tmp_path / "run") == 0
        (body,) = teacher.bodies
    assert body["messages"][0] == {"role": "system", "content": "be short"}
    assert body["messages"][2]["tool_calls"] == calls
    assert body["messages"][3] == {"role": "tool", "content": "found", "tool_call_id": "c1"}
    assert (body["tools"], body["top_k"], body["min_p"]) == (tools, 40, 0.05)


def test_a_budget_ends_the_run_cleanly_and_more_money_resumes_it(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as teacher:
        run_file = write(tmp_path, teacher, QUESTIONS)
        assert collect(run_file, "--out", tmp_path / "run", "--max-cost", "0.0003") == 3
        assert "max_cost_usd" in capsys.readouterr().err
        asked = teacher.asked
        assert 1 < asked < 30
        assert asked * 9000 <= 300_000
        assert collect(run_file, "--out", tmp_path / "run", "--max-cost", "1") == 0
        assert teacher.asked == 30


def test_an_answer_that_breaks_its_schema_is_drawn_again_then_named(tmp_path: Path, capsys: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    with serving(Teacher()) as teacher:
        run_file = write(tmp_path, teacher, [{**row, "schema": schema} for row in QUESTIONS])
        assert collect(run_file, "--out", tmp_path / "run") == 2
        assert "did not have the form" in capsys.readouterr().err
        assert teacher.asked <= 2 * (8 + 8), "not thirty times two"
        assert teacher.bodies[0]["response_format"]["json_schema"]["schema"] == schema
    with Store(tmp_path / "run" / "store") as store:
        attempts = [line.value for line in store.records("attempt")]
        assert store.spent().settled_nusd == 9000 * teacher.asked, "what was paid for is counted"
    assert all("JSON" in attempt["reason"] for attempt in attempts)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "wizard", "content": "x"}]}, "wizard"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "line 2"),
        ({"prompt": ""}, "line 2"),
        ({"prompt": "x", "schema": {"type": "string", "minLength": 5, "maxLength": 3}}, "line 2"),
    ],
)
def test_bad_rows_are_named_before_anything_is_asked(
    tmp_path: Path, capsys: Any, row: dict[str, Any], said: str
) -> None:
    with serving(Teacher()) as teacher:
        run_file = write(tmp_path, teacher, [QUESTIONS[0], row])
        assert collect(run_file, "--out", tmp_path / "run") == 2
        assert teacher.asked == 0
    assert said in capsys.readouterr().err


def test_a_prompt_over_the_models_limit_is_told_before_it_is_sent(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as teacher:
        rows = [*QUESTIONS, {"prompt": "x" * 9000}]
        run_file = write(tmp_path, teacher, rows)
        assert collect(run_file, "--out", tmp_path / "run", "--set", "teacher.context_tokens=1000") == 3
        assert teacher.asked == 30
    assert "9,000 bytes" in capsys.readouterr().err


def test_an_expired_key_is_one_error(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOP_KEY", "sk-expired-0123456789abcdef")
    teacher = Teacher()
    teacher.fault = lambda number, request: problem(401) if number > 10 else None
    with serving(teacher):
        run_file = write(tmp_path, teacher, QUESTIONS)
        assert collect(run_file, "--out", tmp_path / "run", "--api-key-env", "LOOP_KEY") == 2
        assert teacher.asked < 10 + 1 + 8
    err = capsys.readouterr().err
    assert err.count("HTTP 401") == 1
    assert "LOOP_KEY" in err


def test_a_planted_key_is_in_nothing_that_is_written_or_said(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """The server echoes it wherever a server can: errors, answers, headers; and a question holds it."""
    key = "sk-planted-9f8e7d6c5b4a3210"
    monkeypatch.setenv("LOOP_KEY", key)
    teacher = Teacher()

    def fault(number: int, request: web.Request) -> Any:
        if number % 4 == 1:
            return problem(500, {"x-request-id": key, "x-echo": key}, f"failed for {request.headers['Authorization']}")
        if number % 4 == 2:
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": f"your key is {key}"},
                "finish_reason": "stop",
            }
            usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
            return web.json_response({"model": key, "choices": [choice], "usage": usage}, headers={"x-request-id": key})
        return None

    teacher.fault = fault
    with serving(teacher):
        run_file = write(tmp_path, teacher, [*QUESTIONS, {"prompt": f"what is {key} for?"}])
        with pytest.raises(SystemExit):
            main(["collect", str(run_file), "--out", str(tmp_path / "run"), "--api-key-env", "LOOP_KEY"])
        assert any(header.get("Authorization") == f"Bearer {key}" for header in teacher.headers)
        assert not any(key in json.dumps(body) for body in teacher.bodies)
        teacher.fault = lambda number, request: problem(401, {}, f"bad key {key}")
        with pytest.raises(SystemExit):
            main(["collect", str(run_file), "--out", str(tmp_path / "two"), "--api-key-env", "LOOP_KEY"])
    written = [
        path
        for path in tmp_path.rglob("*")
        if (path.is_file() and path.name != "questions.jsonl") or path.parent.name == "data"
    ]
    said = capsys.readouterr()
    spelled = [key.encode(), quote(key).encode(), base64.b64encode(key.encode())]
    assert len(written) > 8
    for place in (said.out.encode(), said.err.encode(), *(path.read_bytes() for path in written)):
        assert not any(form in place for form in spelled)


def test_flags_do_without_a_run_file(tmp_path: Path) -> None:
    with serving(Teacher()) as teacher:
        write(tmp_path, teacher, QUESTIONS[:4])
        asked = [tmp_path / "questions.jsonl", "--teacher", teacher.base_url, "--model", "loop", "--licence", "mit"]
        assert collect(*asked, "--out", tmp_path / "run") == 0
        assert teacher.asked == 4
        assert teacher.bodies[0]["model"] == "loop"


def test_terms_that_forbid_it_stop_it_before_the_first_question(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as teacher:
        run_file = write(tmp_path, teacher, QUESTIONS[:4])
        assert collect(run_file, "--out", tmp_path / "run", "--set", "teacher.provider=openai") == 1
        assert teacher.asked == 0
    assert "fix:" in capsys.readouterr().err


def test_a_plan_says_what_it_would_cost_and_asks_none_of_it(tmp_path: Path, capsys: Any) -> None:
    with serving(Teacher()) as teacher:
        run_file = write(tmp_path, teacher, QUESTIONS)
        with pytest.raises(SystemExit) as ended:
            main(["plan", str(run_file), "--no-probe"])
        assert (ended.value.code, teacher.asked) == (0, 0)
        said = capsys.readouterr().out
        assert "30, 30 answers" in said
        assert "at most 480 out" in said
        with pytest.raises(SystemExit) as ended:
            main(["plan", str(run_file), "--no-probe", "--set", "budget.max_cost_usd=0.0001"])
        assert ended.value.code == 1
        assert "OVER THE BUDGET" in capsys.readouterr().out


def test_a_batch_is_half_the_price_and_recorded_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = functools.partial(ask_in_batches, pace=Pace(0.01, 0.05, 0.1))
    monkeypatch.setattr(questions_module, "ask_in_batches", impatient)
    desk = Desk()
    with serving_batches(desk):
        run_file = write(tmp_path, Teacher(), QUESTIONS[:6], "")
        price = (
            "teacher.price={input_usd_per_mtok=1.0, output_usd_per_mtok=2.0, batch_discount=0.5, dated='2026-11-01'}"
        )
        asked = ("--teacher", f"{desk.base_url}/v1", "--set", "teacher.batch=true", "--set", price)
        assert collect(run_file, "--out", tmp_path / "run", *asked) == 0
        assert len(desk.jobs) == 1
    with Store(tmp_path / "run" / "store") as store:
        (one, *_) = store.pairs(row["address"] for row in rows_of(tmp_path / "run" / "collect" / "exchanges.jsonl"))
        assert one.exchange["price"]["tier"] == "batch"


def test_what_a_probe_found_decides_before_anything_is_asked(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    with serving(Teacher(logprobs=False)) as teacher:
        run_file = write(tmp_path, teacher, QUESTIONS)
        with pytest.raises(SystemExit):
            main(["probe", str(run_file)])
        asked = teacher.asked
        assert collect(run_file, "--out", tmp_path / "run", "--set", "teacher.signal=top-logprobs") == 2
        assert teacher.asked == asked
        assert "does not offer top-logprobs" in capsys.readouterr().err
        assert collect(run_file, "--out", tmp_path / "run") == 0
    with Store(tmp_path / "run" / "store") as store:
        (probe,) = store.records("probe")
        row = rows_of(tmp_path / "run" / "collect" / "exchanges.jsonl")[0]
        assert store.get(row["address"]).model.probe_digest == probe.digest
    assert verify(tmp_path / "run").findings == ()


def test_a_folder_of_weights_is_a_teacher_too(tmp_path: Path) -> None:
    save_tiny(tmp_path / "weights")
    run_file = write(tmp_path, Teacher(), QUESTIONS[:3])
    text = run_file.read_text().replace('url = ""', f'path = "{tmp_path / "weights"}"')
    run_file.write_text(text.replace('signal = "text"', 'signal = "top-logprobs"').split("[teacher.price]")[0])
    assert collect(run_file, "--out", tmp_path / "run", "--set", "sampling.max_tokens=4") == 0
    with Store(tmp_path / "run" / "store") as store:
        row = rows_of(tmp_path / "run" / "collect" / "exchanges.jsonl")[0]
        exchange = store.get(row["address"])
    assert exchange.model.weights_digest == digest_file(tmp_path / "weights" / "model.safetensors")
    assert len(exchange.logprobs) == exchange.usage.completion_tokens == 4
    assert len(exchange.logprobs[0].top) == 20
