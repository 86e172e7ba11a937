"""A server of our own is started by the first question that has no answer, said while it loads, and started once."""

from pathlib import Path

import pytest

from tests.models.test_llamacpp import tiny_gemma
from tutelage.errors import TeacherError
from tutelage.models.ask import Asking
from tutelage.models.base import Endpoint
from tutelage.models.budget import Budget
from tutelage.models.exchange import Terms
from tutelage.models.llamacpp import embedded_server
from tutelage.models.own import OwnModel
from tutelage.models.prices import PriceList
from tutelage.models.process import ServedProcess
from tutelage.models.questions import ask_all
from tutelage.models.throttle import RateLimits, Throttle
from tutelage.progress import Quiet, Stop
from tutelage.records import RAW, Message, Request, Role
from tutelage.store.store import Store

ENDPOINT = Endpoint("", "embedded", "someone", "tiny", "mit")


class Heard(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def ask(server: ServedProcess, store: Store, texts: list[str]) -> tuple[Asking, list[str]]:
    heard = Heard()
    asking = Asking(
        model=OwnModel(ENDPOINT, 1, server), store=store, terms=Terms("sha256:0", Role.EVALUATION), budget=Budget(0, 10**9),
        prices=PriceList(0, 0, "free", "2026-01-01"), progress=heard, stop=Stop(), attempts=1,
        throttle=Throttle(RateLimits(None, None, 1, 1)),
    )  # fmt: skip
    params = {"max_tokens": 2, "temperature": "0"}
    requests = [Request((Message(RAW, text),), params, "tiny", "embedded", "train", 0) for text in texts]
    ask_all(asking, requests, 1, "asking")
    return asking, heard.lines


def test_it_is_started_by_the_first_question_and_once(tmp_path: Path) -> None:
    server = embedded_server(tiny_gemma(tmp_path / "tiny.gguf"), 1, tmp_path / "log")
    with Store(tmp_path / "store") as store:
        try:
            assert not server.is_up and server.cpu_s() == 0.0
            first, lines = ask(server, store, ["one", "two"])
            assert first.answered == 2
            assert [line.split(" in ")[0] for line in lines] == ["loading tiny", "loaded tiny"]
            address, used_s = server.base_url, server.cpu_s()
            again, lines = ask(server, store, ["one", "two", "three"])
            assert (again.reused, again.answered, lines) == (2, 1, [])
            assert server.base_url == address and server.cpu_s() >= used_s
        finally:
            server.close()
        assert not server.is_up
        answered, lines = ask(server, store, ["three", "one"])
        assert (answered.reused, answered.answered, lines, server.is_up) == (2, 0, [], False)


def test_a_server_that_does_not_come_up_is_told(tmp_path: Path) -> None:
    server = embedded_server(tmp_path / "nothing.gguf", 1, tmp_path / "log")
    with Store(tmp_path / "store") as store, pytest.raises(TeacherError, match="the server ended while starting"):
        ask(server, store, ["one"])
    assert not server.is_up
