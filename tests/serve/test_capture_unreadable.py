"""Calls that pass and cannot be read: told loudly while it goes on, and prevented where that is asked for."""

import importlib
from pathlib import Path

import pytest

from tests.serve.proxied import CALLER, QUESTION, Running, Upstream, answer, exchange, health, plain, post, running
from tutelage.collect.draws import alone
from tutelage.errors import StorageError
from tutelage.serve.capture import Capture, capture, summary
from tutelage.serve.recording import ENOUGH_CALLS
from tutelage.serve.unpacking import can_unpack, readable, unpacked
from tutelage.wire.values import WireError

WHY = "20 of the last 20 calls could not be recorded, most often because of answer: content-encoding.compress"


def test_when_most_calls_cannot_be_recorded_it_is_told(
    upstream: Upstream, proxied: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(count: int, coding: str, into: str, until: int) -> tuple[int, dict[str, object]]:
        upstream.reply = lambda target, headers, body: plain(answer(), f"Content-Encoding: {coding}\r\n")
        for _ in range(count):
            exchange(proxied.port, post(QUESTION))
        proxied.settled(until, into)
        return health(proxied.port)

    assert ask(ENOUGH_CALLS - 1, "compress", "unusable", ENOUGH_CALLS - 1)[0] == 200
    assert "NOT RECORDED" not in capsys.readouterr().err
    status, told = ask(1, "compress", "unusable", ENOUGH_CALLS)
    assert (status, told["status"], told["recording"]) == (503, "degraded", WHY)
    said = capsys.readouterr().err
    assert said.count("NOT RECORDED") == 1
    assert WHY in said
    assert f"  NOT RECORDED: {WHY}" in summary(proxied.recorder)
    assert ask(ENOUGH_CALLS - 1, "identity", "recorded", ENOUGH_CALLS - 1)[0] == 503
    status, told = ask(1, "identity", "recorded", ENOUGH_CALLS)
    assert (status, told["recording"]) == (200, "ok")
    assert ask(1, CALLER, "unusable", ENOUGH_CALLS + 1)[0] == 503
    assert CALLER not in capsys.readouterr().err + str(summary(proxied.recorder))


def test_calls_that_are_too_large_count_as_well(
    upstream: Upstream, proxied: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.serve.proxy.MAX_COPY_BYTES", 10)
    for _ in range(ENOUGH_CALLS):
        exchange(proxied.port, post(QUESTION))
    proxied.settled(ENOUGH_CALLS, "too_large")
    assert str(health(proxied.port)[1]["recording"]).endswith("because of their size")


@pytest.mark.parametrize("ask_readable", [False, True])
def test_only_what_can_be_read_is_asked_for(upstream: Upstream, tmp_path: Path, ask_readable: bool) -> None:
    head = "accept-Encoding: x-own, gzip;q=0.5,*\r\n"
    with running(upstream, tmp_path / "out", ask_readable=ask_readable) as one:
        for asked in (post(QUESTION, head=head), post(b"", "/v1/models", head, "GET"), post(QUESTION)):
            exchange(one.port, asked)
    came = [[pair for pair in fields if pair[0].lower() == "accept-encoding"] for _, fields, _ in upstream.seen]
    as_sent = ("accept-Encoding", "x-own, gzip;q=0.5,*")
    assert came == [[("accept-Encoding", "gzip;q=0.5") if ask_readable else as_sent], [as_sent], []]
    assert readable("x-own, compress") == "identity"
    assert readable("GZIP , identity;q=0") == "GZIP, identity;q=0"


@pytest.mark.parametrize(("coding", "module"), [("br", "brotli"), ("zstd", "backports.zstd")])
def test_other_codings_are_read_where_a_decoder_is_installed(coding: str, module: str) -> None:
    if not can_unpack(coding):
        with pytest.raises(WireError) as caught:
            unpacked(b"x", coding, 9)
        assert caught.value.param == f"content-encoding.{coding}"
        return
    packer = importlib.import_module(module)
    data = b"sunny " * 100_000
    packed = packer.compress(data)
    assert unpacked(packed, coding.upper(), len(data)) == data
    for body, limit in (
        (packed, len(data) - 1),
        (packed, 1000),
        (packed[:-3], len(data)),
        (packed + b"x", len(data)),
        (b"x", 9),
    ):
        with pytest.raises(WireError):
            unpacked(body, coding, limit)


def test_two_captures_never_share_a_folder(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(StorageError, match="another process is working in"):
        capture(Capture("http://127.0.0.1:9", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot use the folder"):
        capture(Capture("http://127.0.0.1:9", tmp_path / "file"))
