"""What passes through the proxy is unchanged, byte for byte, also when it is odd or broken."""

import gzip
import json
import socket
import threading
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.proxied import (
    ASK,
    CALLER,
    CHAT,
    QUESTION,
    Running,
    Upstream,
    answer,
    chunked,
    delta,
    events,
    exchange,
    parsed,
    plain,
    post,
    running,
)

ODD = {
    "json": plain(answer()),
    "error": plain(
        b'{"error":{"message":"no"}}', "Content-Type: application/json\r\nRetry-After: 7\r\n", "429 Too Many"
    ),
    "gone": plain(b"", "", "404 Nicht Da"),
    "no type": plain(answer(), "X-Odd: a\r\nX-Odd: b\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\n"),
    "own date": plain(answer(), "Date: yesterday\r\nserver: something\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"),
    "gzip": plain(gzip.compress(answer()), "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"),
    "not gzip": plain(b"\x1f\x8b nonsense", "Content-Encoding: gzip\r\n"),
    "redirect": plain(b"", "Location: http://127.0.0.1:1/elsewhere\r\n", "307 Temporary Redirect"),
    "chunks": chunked([answer()[:3], answer()[3:4], 0.01, answer()[4:]], "Content-Type: application/json\r\n"),
    "events": chunked([*events(delta(content="sun")), b": comment\n\n", b"data: trailing"]),
    "one byte": chunked([bytes([byte]) for byte in answer()], ""),
    "early hint": [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", *plain(answer())],
    "to the end": [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", answer(), "close"],
    "big": plain(b"x" * 3_000_000, "Content-Type: text/plain\r\n"),
    "nothing": [b"HTTP/1.1 204 No Content\r\n\r\n"],
}


@pytest.mark.parametrize("name", ODD)
def test_answers_come_through_byte_for_byte(name: str, upstream: Upstream, proxied: Running) -> None:
    upstream.reply = lambda target, headers, body: [*ODD[name], 0.05, "close"]
    direct, through = (parsed(exchange(port, post(QUESTION))) for port in (upstream.port, proxied.port))
    if name == "own date":
        direct = (direct[0], [pair for pair in direct[1] if pair[0] != "X-Hop"], *direct[2:])
    if name == "early hint":
        direct = parsed(exchange(upstream.port, post(QUESTION)).partition(b"\r\n\r\n")[2])
    assert through == direct
    assert through[3]


def test_requests_come_through_byte_for_byte(upstream: Upstream, proxied: Running) -> None:
    odd = "/v1/a%2Fb//c/../d?x=%zz&key=&y=a+b%20c"
    body = b'{"odd":  "\\u00e9\xff" }'
    head = "X-Odd: 1\r\nx-odd: 2\r\nCookie: a=b\r\nTE: trailers\r\nUser-Agent: me\r\nX-Tutelage-Opt-Out: yes\r\n"
    exchange(proxied.port, post(body, odd, head + "Content-Encoding: gzip\r\n"))
    exchange(proxied.port, post(b"", "/v1/models", "Accept: x/y\r\n", "GET"))
    exchange(proxied.port, post(b"", "/v1/files/7", "", "DELETE"))
    # the second spelling of one name is the first's
    (first, fields, came), (get, get_fields, nothing), (delete, _, _) = upstream.seen
    assert (first, came) == (f"POST {odd} HTTP/1.1", body)
    sent = [
        ("Authorization", f"Bearer {CALLER}"),
        ("X-Odd", "1"),
        ("X-Odd", "2"),
        ("Cookie", "a=b"),
        ("User-Agent", "me"),
    ]
    sent += [("Content-Encoding", "gzip"), ("Content-Length", str(len(body)))]
    assert sorted(fields) == sorted([("Host", f"127.0.0.1:{upstream.port}"), *sent])
    assert (get, nothing) == ("GET /v1/models HTTP/1.1", b"")
    assert {name for name, _ in get_fields} == {"Host", "Authorization", "Accept"}
    assert delete == "DELETE /v1/files/7 HTTP/1.1"


def test_chunked_requests_and_expectations(upstream: Upstream, proxied: Running) -> None:
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=10) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nConnection: close\r\n"
        client.sendall(head.encode() + b"\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(QUESTION), QUESTION))
        assert b"sunny" in client.makefile("rb").read()
    assert upstream.seen[0][2] == QUESTION
    proxied.settled(1)


def test_a_head_request_keeps_its_length(upstream: Upstream, proxied: Running) -> None:
    upstream.reply = lambda target, headers, body: [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"]
    _, fields, body, _ = parsed(exchange(proxied.port, post(b"", "/x", "", "HEAD")))
    assert ("Content-Length", "99") in fields
    assert body == b""


@pytest.mark.parametrize(
    "steps",
    [
        [*chunked([answer()[:40]], "Content-Type: application/json\r\n")[:-1], "reset"],
        [*chunked(events(delta(content="sun"))[:-1])[:-1], "close"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + answer()[:40], "close"],
        [*chunked([answer()])[:-1], 0.1, b"zz\r\nno chunk\r\n", "close"],
    ],
    ids=["reset", "cut events", "too short", "bad chunk"],
)
def test_a_broken_answer_is_a_broken_answer(
    steps: list[Any], upstream: Upstream, proxied: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.serve.proxy._WATCH_S", 0.05)
    upstream.reply = lambda target, headers, body: steps
    status, _, _, is_whole = parsed(exchange(proxied.port, post(QUESTION)))
    assert status == "HTTP/1.1 200 OK"
    assert not is_whole
    proxied.settled(1, "failed")
    assert proxied.recorder.counts["recorded"] == proxied.recorder.counts["unusable"] == 0


@pytest.mark.parametrize(
    "steps", [["reset"], ["close"], [b"HTTP/1.1 what\r\n\r\n", "close"], [b"\0\1\2\r\n\r\n", "close"]]
)
def test_no_answer_is_a_502_of_the_proxy_s_own(steps: list[Any], upstream: Upstream, proxied: Running) -> None:
    upstream.reply = lambda target, headers, body: steps
    status, _, body, _ = parsed(exchange(proxied.port, post(QUESTION)))
    assert status.startswith("HTTP/1.1 502 ")
    assert json.loads(body)["error"]["type"] == "tutelage_capture_error"
    assert "127.0.0.1" in json.loads(body)["error"]["message"]


def test_an_upstream_that_is_not_there(upstream: Upstream, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        upstream.port = taken.getsockname()[1]
        with (
            running(upstream, tmp_path) as one,
            pytest.raises(openai.InternalServerError, match="tutelage capture got no"),
        ):
            one.client().chat.completions.create(model="m", messages=ASK)


def test_websockets_are_refused(proxied: Running) -> None:
    head = "GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=10) as client:
        client.sendall(f"{head}Sec-WebSocket-Version: 13\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 501 ")


def test_events_are_not_held_back(upstream: Upstream, proxied: Running) -> None:
    first, last = events(delta(content="sun")), events(delta(content="ny"), delta(finish="stop"))
    read = threading.Event()
    upstream.reply = lambda target, headers, body: chunked([first[0], read, *last])
    stream = iter(proxied.client().chat.completions.create(model="m", messages=ASK, stream=True))
    assert next(stream).choices[0].delta.content == "sun"  # comes before the rest is sent
    read.set()
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "ny"


def test_a_caller_that_hangs_up_ends_the_call_upstream(upstream: Upstream, proxied: Running) -> None:
    upstream.reply = lambda target, headers, body: chunked([*events(delta(content="sun"))[:1], 20.0])
    stream = proxied.client().chat.completions.create(model="m", messages=ASK, stream=True)
    next(iter(stream))
    stream.close()
    assert upstream.hung_up.wait(5)
    assert proxied.recorder.health()["recorded"] == 0


def test_a_caller_that_hangs_up_after_the_last_event_is_recorded(upstream: Upstream, proxied: Running) -> None:
    said = events(delta(content="sunny"), delta(finish="stop"))
    upstream.reply = lambda target, headers, body: chunked([*said, 20.0])
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=10) as client:
        client.sendall(post(QUESTION))
        received = b""
        while b"[DONE]" not in received:
            received += client.recv(65536)
    proxied.settled(1)
    assert proxied.lines("exchange")[0]["answer"] == "sunny"
