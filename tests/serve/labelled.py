"""A small proof to label, and labelling pages on loopback."""

import html
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import uvicorn

from tutelage.canon import digest_bytes, digest_of
from tutelage.jsonl import write_lines
from tutelage.prove.gold_file import DRAWN, FORMAT, PERSON, TIE, Header, Journal, Mode, frame_of
from tutelage.prove.shown import SYSTEMS
from tutelage.records import Exchange, Message, ModelId, Origin, Price, Question, Request, Role, Usage
from tutelage.report.words import visible
from tutelage.serve.labelling import Desk, create_app
from tutelage.serve.labelling_items import Matter, deal, of_run
from tutelage.store.store import Store

KEY, TOKEN = "k" * 22, "t" * 22
MODELS = {"teacher": "grand-oracle-70b", "student": "tiny-pupil-1b"}


def question(text: str) -> Question:
    messages = (Message("user", text),)
    said = digest_of([message.to_json() for message in messages])
    return Question(said, messages, "items.jsonl", digest_bytes(b"items"), "own")


def answered(model: str, asked: Question, answer: str) -> tuple[Request, Exchange]:
    request = Request(asked.messages, {}, model, f"route-{model}", "proof", 0)
    return request, Exchange(
        request.digest, ModelId(model, f"route-{model}", model, model, "", model, "", "", "", "MIT"), answer, "", (), "stop",
        (), Usage(3, 0, 2), Price(7_000, "list", "2026-01-01"), 12, 1, "", digest_bytes(answer.encode()), "", None,
        Origin.ASKED, Role.EVALUATION, "2026-11-28T00:00:00Z",
    )  # fmt: skip


def proof_run(folder: Path, texts: Sequence[tuple[str, str, str]]) -> Path:
    """A run folder as `tutelage prove` leaves it: question, the teacher's answer, the student's answer."""
    asked = [question(text) for text, _, _ in texts]
    rows = []
    with Store(folder / "store") as store:
        for one, (_, *answers) in zip(asked, texts, strict=True):
            for system, answer in zip(SYSTEMS, answers, strict=True):
                request, said = answered(MODELS[system], one, answer)
                digest = store.put(request, said, answer.encode())
                rows.append({"prompt": one.prompt_id, "system": system, "address": request.digest, "exchange": digest})
    write_lines(folder / "data" / "items.jsonl", [{**one.to_json(), "gold": "secret gold"} for one in asked])
    write_lines(folder / "prove" / "exchanges.jsonl", rows)
    return folder


def header(
    mode: Mode, matter: Matter, sampled: int, seed: int = 0, labels: tuple[str, ...] = ("good", "bad")
) -> Header:
    choices = {Mode.LABELS: labels, Mode.PAIRS: (*SYSTEMS, TIE), Mode.SCORE: tuple("12345")}[mode]
    systems = () if mode is Mode.LABELS else SYSTEMS
    return Header(
        FORMAT, PERSON, mode, "What fits?", choices, systems, len(matter.questions), sampled, seed, DRAWN,
        frame_of(matter.questions), "2026-11-28T00:00:00Z",
    )  # fmt: skip


def matter_of(texts: Sequence[str]) -> Matter:
    asked = [question(text) for text in texts]
    return Matter({one.prompt_id: one for one in asked}, {}, 0)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str
    raw: bytes


class Page:
    """A labelling page on loopback, and everything it ever sent."""

    def __init__(self, port: int, desk: Desk) -> None:
        self.port, self.desk = port, desk
        self.base = f"http://127.0.0.1:{port}/{KEY}/"
        self.sent = b""

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            named = {"Host": f"127.0.0.1:{self.port}", "Content-Type": "application/x-www-form-urlencoded"}
            named |= {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            data = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            self.sent += json.dumps(found).encode() + data
            return Answer(response.status, found, data.decode(), data)
        finally:
            connection.close()

    def get(self) -> str:
        found = self.ask(f"/{KEY}/")
        assert found.status == 200
        return found.text

    def post(self, what: str, fields: Mapping[str, object] | None = None, **headers: str) -> Answer:
        return self.ask(f"/{KEY}/{what}", "POST", urlencode({"token": TOKEN, **(fields or {})}), **headers)

    def at(self) -> int:
        found = re.search(r'name="at" value="(\d+)"', self.get())
        assert found, "no item is asked"
        return int(found[1])

    def decide(self, button: int) -> Answer:
        return self.post("decide", {"at": self.at(), "choice": button})

    def texts(self) -> list[str]:
        """What is on the page in boxes: the question, then the answers."""
        return [
            html.unescape(text)
            for text in re.findall(r'<div class="text" dir="auto">(.*?)</div>', self.get(), re.DOTALL)
        ]


@contextmanager
def labelling(
    path: Path, matter: Matter, head: Header, who: str = "Anna", *, adjudicates: bool = False
) -> Iterator[Page]:
    """The page while it is open; the file is held meanwhile."""
    with Journal(path, head) as journal:
        desk = Desk(journal, deal(matter, head), who, adjudicates)
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            create_app(desk, KEY, TOKEN, visible), log_level="error", timeout_graceful_shutdown=1, server_header=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        for _ in range(2000):
            if server.started:
                break
            time.sleep(0.01)
        assert server.started
        try:
            yield Page(listener.getsockname()[1], desk)
        finally:
            server.should_exit = True
            thread.join(20)
            listener.close()


def pairs_of(folder: Path) -> Matter:
    return of_run(folder, Mode.PAIRS)
