"""Runs to look at: a whole one that an earlier version made, and small ones written here, with hostile texts."""

import asyncio
import http.client
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import uvicorn

from tutelage.canon import digest_bytes, digest_of
from tutelage.jsonl import write_lines
from tutelage.records import (
    Exchange,
    Failure,
    Message,
    ModelId,
    Origin,
    Position,
    Price,
    Request,
    Role,
    TokenLogprob,
    Usage,
)
from tutelage.store.store import Store
from tutelage.view.app import create_app
from tutelage.view.looking import Looking
from tutelage.view.runs import find_runs

FROZEN = Path(__file__).parents[1] / "frozen" / "0.1.0" / "run"
KEY = "k" * 22
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></textarea></select><svg onload=alert(1)>",
    "\u202egnp.exe\u2066 \u200b\x1b[31m\x00\u2028",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "w" * 900,
)


def exchange(
    question: str, answer: str, *, draw: int = 0, finish: str = "stop", model: str = "m"
) -> tuple[Request, Exchange]:
    """A stored question and answer, every free text of it `answer`'s or `question`'s."""
    request = Request((Message("system", "Do."), Message("user", question)), {}, model, "route", "train", draw)
    said = TokenLogprob("aGk=", 3, -100_000)
    other = TokenLogprob("4g==", 4, -2_500_000)  # no UTF-8 by itself
    call = {"id": "1", "type": "function", "function": {"name": question[:40], "arguments": answer[:40]}}
    return request, Exchange(
        request.digest, ModelId("p", "route", model, question[:50], "", "", "", "", "", "MIT"), answer, question, (call,),
        finish, (Position(said, (said, other)),), Usage(3, 0, 2), Price(7_000, question[:30], "2026-01-01"), 12, 1, "",
        digest_bytes(answer.encode()), "", None, Origin.ASKED, Role.TEXT_TARGET, "2026-11-28T00:00:00Z",
    )  # fmt: skip


def fill(folder: Path, texts: list[tuple[str, str]], **how: str) -> list[Request]:
    """Adds answers to the folder's store; returns what was asked."""
    made = []
    with Store(folder / "store") as store:
        for draw, (question, answer) in enumerate(texts):
            request, said = exchange(question, answer, draw=draw, **how)
            store.put(request, said, answer.encode())
            made.append(request)
    return made


def hostile_run(folder: Path) -> Path:
    """A folder whose every text is hostile, collected rows and drops included."""
    made = fill(folder, [(text, text) for text in HOSTILE], model=HOSTILE[0], finish=HOSTILE[1])
    with Store(folder / "store") as store:
        digests = store.digests_at([request.digest for request in made])
        store.put_failure(Failure(made[0].digest, HOSTILE[1], 1, "2026-11-28T00:00:00Z", True))
    rows = [
        {"address": address, "exchange": digest, "prompt": digest_of(address)} for address, digest in digests.items()
    ]
    write_lines(folder / "collect" / "exchanges.jsonl", rows)
    prompts = [
        {"prompt_id": row["prompt"], "kind": HOSTILE[0], "source": HOSTILE[1], "licence": HOSTILE[2]} for row in rows
    ]
    write_lines(folder / "data" / "prompts.jsonl", prompts)
    scores = [
        {"prompt": row["prompt"], "gold": HOSTILE[0], "decided": {"teacher": HOSTILE[1], "student": HOSTILE[2]}}
        for row in rows
    ]
    write_lines(folder / "prove" / "scores.jsonl", scores)
    write_lines(folder / "prove" / "exchanges.jsonl", rows)
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of a folder with size and time of change."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole run, as 0.1.0 wrote it."""
    return Path(shutil.copytree(FROZEN, tmp_path / "runs" / "topics"))


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


class Served:
    """A viewer on loopback. `get` takes a path below the key."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.base = f"http://127.0.0.1:{port}/{KEY}/"

    def get(self, path: str = "", **how: str) -> Answer:
        return self.ask(f"/{KEY}/{path}", **how)

    def ask(self, path: str, method: str = "GET", host: str | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", host or f"127.0.0.1:{self.port}")
            connection.endheaders()
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read().decode())
        finally:
            connection.close()


@pytest.fixture
def view(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts viewers of given folders; they end with the test."""
    ended: list[Callable[[], None]] = []

    def start(*folders: Path) -> Served:
        looking = Looking(find_runs(folders), tmp_path / "cache")
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(looking, KEY), log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)

        def stop() -> None:
            server.should_exit = True
            thread.join(10)
            listener.close()
            looking.close()

        ended.append(stop)
        return Served(listener.getsockname()[1])

    yield start
    for stop in ended:
        stop()
