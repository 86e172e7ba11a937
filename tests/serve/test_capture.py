"""What is recorded of calls that pass, and what is not; storage that fails; the command."""

import gzip
import json
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.proxied import (
    ASK,
    CALLER,
    CHAT,
    KEY,
    QUESTION,
    Running,
    Upstream,
    answer,
    chunked,
    delta,
    events,
    exchange,
    health,
    parsed,
    plain,
    post,
    running,
)
from tutelage.errors import ConfigError, DataError
from tutelage.serve import recording
from tutelage.serve.capture import Capture, capture, summary
from tutelage.serve.proxy import _drawn
from tutelage.store.store import Store


def test_an_exchange_is_recorded_whole(upstream: Upstream, proxied: Running) -> None:
    logprob = {"token": "sunny", "logprob": -0.1, "bytes": list(b"sunny"), "top_logprobs": []}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "sunny", "reasoning_content": "hm"},
        "finish_reason": "stop",
    }
    body = answer(choices=[{**choice, "logprobs": {"content": [logprob]}}], system_fingerprint="fp")
    upstream.reply = lambda target, headers, body_: plain(
        body, "Content-Type: application/json\r\nx-request-id: req-1\r\n"
    )
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns = [
        {"role": "developer", "content": "be brief"}, *ASK, {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
    ]  # fmt: skip
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "minimum": 0.5}}}
    proxied.client().chat.completions.create(
        model="m", messages=turns, temperature=0.5, max_completion_tokens=9, stop="end", seed=3, logprobs=True,
        top_logprobs=1, tools=[tool], response_format=schema, user="ada", logit_bias={"5": 1}, top_p=1,
    )  # fmt: skip
    proxied.settled(1)
    (request,), (kept,), (stored,) = (proxied.lines(kind) for kind in ("request", "exchange", "body"))
    assert [message["role"] for message in request["messages"]] == ["system", "user", "assistant", "tool"]
    assert request["messages"][2]["tool_calls"] == [call]
    assert request["params"] == {
        "max_tokens": 9, "temperature": "0.5", "top_p": "1.0", "stop": ["end"], "seed": 3, "logprobs": True, "top_logprobs": 1,
    }  # fmt: skip
    assert json.loads(request["tools"]) == [tool]
    assert json.loads(request["schema"]) == schema["json_schema"]["schema"]
    assert json.loads(request["extra"]) == {"logit_bias": {"5": 1}}
    assert (request["purpose"], request["draw"], request["route"]) == ("capture", 0, "127.0.0.1")
    assert (kept["answer"], kept["reasoning"], kept["origin"], kept["role"]) == (
        "sunny",
        "hm",
        "captured",
        "text-target",
    )
    assert kept["usage"]["prompt_tokens"] == 7
    assert len(kept["logprobs"]) == 1
    assert kept["price"]["cost_nusd"] == 0
    assert kept["request_id_hash"].startswith("sha256:")
    assert stored["text"].encode() == body


def test_a_stream_is_put_together(upstream: Upstream, proxied: Running) -> None:
    calls = [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"at":'}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "hear", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": '"x"}'}},
    ]
    usage = {**delta(), "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}}
    parts = [delta(role="assistant", content=""), delta(reasoning_content="hm"), delta(content="a"), delta(content="é")]
    parts += [delta(tool_calls=[call]) for call in calls]
    body = b"".join(part for part in events(*parts, delta(finish="tool_calls"), usage) if isinstance(part, bytes))
    cuts = [body[at : at + 7] for at in range(0, len(body), 7)]
    upstream.reply = lambda target, headers, body_: chunked(cuts)
    stream = proxied.client().chat.completions.create(
        model="m", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "aé"
    proxied.settled(1)
    (kept,) = proxied.lines("exchange")
    assert (kept["answer"], kept["reasoning"], kept["finish_reason"]) == ("aé", "hm", "tool_calls")
    assert [call["function"]["arguments"] for call in kept["tool_calls"]] == ['{"at":"x"}', "{}"]
    assert kept["usage"] == {"prompt_tokens": 5, "completion_tokens": 6, "cached_tokens": 0}
    assert proxied.lines("request")[0]["params"] == {}


def test_errors_come_through_and_are_not_recorded(upstream: Upstream, proxied: Running) -> None:
    body = b'{"error":{"message":"slow down","type":"t","param":null,"code":"c"}}'
    upstream.reply = lambda target, headers, body_: plain(
        body, "Content-Type: application/json\r\n", "429 Too Many Requests"
    )
    with pytest.raises(openai.RateLimitError, match="slow down"):
        proxied.client().chat.completions.create(model="m", messages=ASK)
    proxied.recorder.close()
    assert proxied.recorder.counts == {"passed": 1}


def test_the_same_question_again_is_another_draw(upstream: Upstream, proxied: Running) -> None:
    for _ in range(5):
        exchange(proxied.port, post(QUESTION))
    token = {"content": [{"token": "x", "logprob": -0.5}]}
    said = {"finish_reason": "stop", "logprobs": token}
    choices = [{"index": at, "message": {"role": "assistant", "content": str(at)}, **said} for at in range(3)]
    upstream.reply = lambda target, headers, body: plain(answer(choices=choices))
    exchange(proxied.port, post(QUESTION[:-1] + b',"n":3}'))
    proxied.settled(8)
    assert [request["draw"] for request in proxied.lines("request")] == list(range(8))
    kept = proxied.lines("exchange")
    assert [one["answer"] for one in kept[5:]] == ["0", "1", "2"]
    assert [one["usage"]["completion_tokens"] for one in kept[5:]] == [2, 0, 0]
    assert [len(one["logprobs"]) for one in kept[5:]] == [1, 1, 1]


def test_no_key_and_no_address_is_written(upstream: Upstream, tmp_path: Path) -> None:
    said = f"Mail ada@example.com, with {KEY} or {CALLER} or 4111 1111 1111 1111."
    token = {"token": said, "logprob": -0.5, "bytes": list(said.encode()), "top_logprobs": []}
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    whole = answer(choices=[{**choice, "logprobs": {"content": [token]}}])
    pieces = [said[at : at + 3] for at in range(0, len(said), 3)]
    stream = events(*(delta(content=piece) for piece in pieces), delta(finish="stop"))
    upstream.reply = lambda target, headers, body: chunked(stream) if b"true" in body else plain(whole)
    with running(upstream, tmp_path / "out") as one:
        ask = [{"role": "user", "content": f"I am ada@example.com, {KEY}"}]
        assert one.client().chat.completions.create(model="m", messages=ask).choices[0].message.content == said
        chunks = one.client().chat.completions.create(model="m", messages=ask, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
        one.settled(2)
        shown = "\n".join(summary(one.recorder)) + json.dumps(one.recorder.health())
    written = one.written()
    for secret in (KEY, CALLER, "ada@example", "4111", "example.com"):
        assert secret.encode() not in written
        assert secret not in shown
    for kept in one.lines("exchange"):
        assert (
            kept["answer"]
            == "Mail [redacted:email], with [redacted:PLANTED] or [redacted:CALLER_KEY_0] or [redacted:card]."
        )
        assert kept["logprobs"] == []
    assert "redacted email: 4" in shown


def test_keys_in_headers_and_queries_are_taken_out(upstream: Upstream, proxied: Running) -> None:
    keys = [
        "first-key-0001",
        "second-key-0002",
        "third-key-0003",
        "cGFzczpmb3VydGgta2V5",
        "fourth-key",
        "fifth-key-0005",
    ]
    head = f"x-api-key: {keys[0]}\r\napi-key: {keys[1]}\r\nx-goog-api-key: {keys[2]}\r\nProxy-Authorization: Basic {keys[3]}\r\n"
    upstream.reply = lambda target, headers, body: plain(answer(" ".join(keys)))
    exchange(proxied.port, post(QUESTION, f"{CHAT}?key={keys[5]}", head))
    proxied.settled(1)
    (kept,) = proxied.lines("exchange")
    assert kept["answer"].count("[redacted:CALLER_KEY_") == len(keys)
    assert not any(key.encode() in proxied.written() for key in keys)


def test_opting_out_and_sampling(upstream: Upstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path / "none", sample=0.0) as one:
        one.client(default_headers={"X-Tutelage-Opt-Out": "1"}).chat.completions.create(model="m", messages=ASK)
        one.client().chat.completions.create(model="m", messages=ASK)
    assert one.recorder.counts == {"passed": 2, "opted_out": 1, "not_sampled": 1}
    assert not (tmp_path / "none").exists()
    assert [_drawn(f"id-{at}", 0.3) for at in range(50)] == [_drawn(f"id-{at}", 0.3) for at in range(50)]
    assert 250 < sum(_drawn(f"id-{at}", 0.3) for at in range(1000)) < 350
    assert all(_drawn(str(at), 1.0) for at in range(100))


def test_a_dry_run_shows_and_writes_nothing(upstream: Upstream, tmp_path: Path) -> None:
    upstream.reply = lambda target, headers, body: plain(answer("ask bob@example.org"))
    with running(upstream, tmp_path / "dry", dry=True) as one:
        one.client().chat.completions.create(model="m", messages=ASK)
        one.settled(1)
    assert summary(one.recorder)[1] == "  redacted email: 1, such as bo… (15 characters)"
    assert list(tmp_path.iterdir()) == []


PICTURE = b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}'


@pytest.mark.parametrize(
    ("path", "body", "reply", "reason"),
    [
        (CHAT, f"nonsense of {KEY}".encode(), answer(), "request: form"),
        (CHAT, b"[" * 5000, answer(), "request: form"),
        (CHAT, b'{"messages":[]}', answer(), "request: messages"),
        (CHAT, QUESTION, f"nonsense of {CALLER}".encode(), "answer: form"),
        (CHAT, QUESTION, b"{}", "answer: choices"),
        (CHAT, QUESTION, b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', "answer: finish_reason"),
        ("/v1/completions", b'{"model":"m","prompt":[1,2]}', answer(), "request: prompt"),
        (CHAT, PICTURE, answer(), "request: messages[n].content"),
    ],
)
def test_what_cannot_be_kept_is_counted_and_served(
    path, body, reply, reason, upstream: Upstream, proxied: Running
) -> None:
    upstream.reply = lambda target, headers, came: plain(reply)
    assert parsed(exchange(proxied.port, post(body, path)))[2] == reply
    proxied.settled(1, "unusable")
    assert summary(proxied.recorder)[1:] == [f"  not recorded: 1 × {reason}"]


def test_packed_bodies_are_unpacked_for_the_record_within_bounds(
    upstream: Upstream, proxied: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_COPY_BYTES", 100_000)
    head = "Content-Encoding: gzip\r\n"
    bomb = gzip.compress(b" " * (recording.MAX_COPY_BYTES + 9))
    replies = [gzip.compress(answer()), gzip.compress(answer())[:-9], bomb]
    upstream.reply = lambda target, headers, body: plain(replies.pop(0), head)
    for _ in range(3):
        exchange(proxied.port, post(gzip.compress(QUESTION), head=head))
    proxied.settled(2, "unusable")
    proxied.settled(1)
    assert proxied.lines("exchange")[0]["answer"] == "sunny"


def test_a_body_too_large_to_copy_is_passed_on(
    upstream: Upstream, proxied: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.serve.proxy.MAX_COPY_BYTES", 1000)
    upstream.reply = lambda target, headers, body: plain(answer("x" * 2000))
    assert (
        len(proxied.client().chat.completions.create(model="m", messages=ASK).choices[0].message.content or "") == 2000
    )
    proxied.recorder.close()
    assert proxied.recorder.counts == {"passed": 1, "too_large": 1}


def test_storage_that_fails_is_told_and_comes_back(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recording, "RETRY_S", 0.05)
    monkeypatch.setattr(recording, "RECENT_S", 0.2)
    folder = tmp_path / "capture"
    folder.mkdir()
    with running(upstream, folder) as one:
        client = one.client()
        client.chat.completions.create(model="m", messages=ASK)
        one.settled(1)
        assert health(one.port)[0] == 200
        (folder / "store").rename(tmp_path / "moved")
        (folder / "store").write_text("no folder")
        for _ in range(3):
            client.chat.completions.create(model="m", messages=ASK)
        until = time.monotonic() + 5
        while (told := health(one.port))[0] == 200 and time.monotonic() < until:
            time.sleep(0.01)
        assert told[0] == 503
        assert (told[1]["status"], told[1]["recorded"]) == ("degraded", 1)
        (folder / "store").unlink()
        (tmp_path / "moved").rename(folder / "store")
        one.settled(4)
        assert health(one.port)[0] == 200
    assert [request["draw"] for request in one.lines("request")] == [0, 1, 2, 3]
    said = capsys.readouterr().err
    assert said.count("NOT RECORDED") == 1
    assert "recording again" in said


def test_a_full_queue_drops_and_never_waits(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recording, "MAX_QUEUE", 3)
    (tmp_path / "store").write_text("no folder")
    with running(upstream, tmp_path) as one:
        client = one.client()
        began = time.monotonic()
        for _ in range(10):
            client.chat.completions.create(model="m", messages=ASK)
        assert time.monotonic() - began < 2
        assert health(one.port)[0] == 503
    assert one.recorder.counts == {"passed": 10, "dropped": 10}
    assert capsys.readouterr().err.count("NOT RECORDED") == 1


def test_an_answer_stored_before_the_failure_is_not_stored_twice(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "RETRY_S", 0.02)
    put, tries = Store.put, []

    def fails_late(store: Store, *what: Any) -> str:
        digest = put(store, *what)
        tries.append(digest)
        if len(tries) == 1:
            raise OSError(28, "no space for the index")
        return digest

    monkeypatch.setattr(Store, "put", fails_late)
    with running(upstream, tmp_path) as one:
        one.client().chat.completions.create(model="m", messages=ASK)
        one.settled(1)
    assert len(one.lines("exchange")) == 1


RUN = """
import resource, signal, sys
limit = int(sys.argv.pop(1))
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
from tutelage.cli.main import main
main(sys.argv[1:])
"""


def start(upstream: Upstream, out: Path, *more: str, limit: int = 0) -> tuple[subprocess.Popen, int]:
    command = ["capture", "--upstream", f"http://127.0.0.1:{upstream.port}", "--port", "0", "--out", str(out), *more]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(limit), *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PLANTED_API_KEY": KEY, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("passing http://127.0.0.1:"), process.communicate()
    return process, int(line.split(":")[2].split(" ")[0])


def test_the_command_records_and_tells(upstream: Upstream, tmp_path: Path) -> None:
    upstream.reply = lambda target, headers, body: plain(answer(f"ticket-123 and {KEY}"))
    out = tmp_path / "out"
    for number in (1, 2):
        process, port = start(upstream, out, "--redact-pattern", "ticket=ticket-[0-9]+", "--redact", "none")
        exchange(port, post(QUESTION))
        process.send_signal(signal.SIGTERM if number == 1 else signal.SIGINT)
        shown, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")
        assert "passed 1, recorded 1" in shown
        assert "redacted ticket: 1, such as ti…" in shown
    with Store(out / "store") as store:
        answers = [line.value for _, line in store.lines() if line.kind == "exchange"]
    assert [one["answer"] for one in answers] == ["[redacted:ticket] and [redacted:PLANTED_API_KEY]"] * 2
    noted = json.loads((out / "capture.json").read_text())["captures"]
    assert [(note["upstream"], note["counts"]["recorded"]) for note in noted] == [("127.0.0.1", 1)] * 2
    assert noted[0]["redacted"] == ["ticket"]
    assert not any(KEY.encode() in path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_a_full_disk_stops_no_call(upstream: Upstream, tmp_path: Path) -> None:
    upstream.reply = lambda target, headers, body: plain(answer("x" * 20_000))
    process, port = start(upstream, tmp_path / "out", limit=100_000)
    for _ in range(8):
        assert len(parsed(exchange(port, post(QUESTION)))[2]) > 20_000
    until = time.monotonic() + 5
    while health(port)[0] == 200 and time.monotonic() < until:
        time.sleep(0.02)
    assert health(port)[1]["status"] == "degraded"
    process.send_signal(signal.SIGTERM)
    shown, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "NOT RECORDED" in errors
    assert "passed 8" in shown and "dropped" in shown
    with Store(tmp_path / "out" / "store") as store:
        whole = [line for _, line in store.lines() if line.kind == "exchange"]
    assert f"recorded {len(whole)}," in shown


@pytest.mark.parametrize(
    "upstream_url",
    [
        "api.openai.com",
        "ftp://x",
        "https://",
        "https://user:secret@x",
        "https://x/?key=secret",
        "https://x:99999",
        "https://x#y",
    ],
)
def test_upstreams_that_cannot_be(upstream_url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--upstream") as caught:
        capture(Capture(upstream_url, tmp_path / "out"))
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_other_things_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--sample"):
        capture(Capture("http://127.0.0.1:9", tmp_path, sample=1.5))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot listen"):
        capture(Capture("http://127.0.0.1:9", tmp_path, port=taken.getsockname()[1]))
    (tmp_path / "capture.json").write_text("[]")
    with pytest.raises(DataError, match="damaged"):
        capture(Capture("http://127.0.0.1:9", tmp_path, port=0))


def test_an_open_address_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken, pytest.raises(ConfigError):
        capture(Capture("http://127.0.0.1:9", None, host="0.0.0.0", port=taken.getsockname()[1]))
    assert "whoever reaches 0.0.0.0" in capsys.readouterr().err
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
