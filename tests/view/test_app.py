"""The viewer's server over real connections: every page, what it refuses, hostile texts, runs that are under way or broken."""

import fcntl
import http.client
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.view.conftest import HOSTILE, KEY, Served, fill, hostile_run, snapshot
from tutelage.errors import ConfigError, StorageError
from tutelage.view.live import ago
from tutelage.view.runs import find_runs, read_log

VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}
Start = Callable[..., Served]


class Page(HTMLParser):
    """Elements with their attributes, links, text, and whether every element was closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def links(self) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.elements if tag == "a" and "hidden" not in attrs]


def crawl(served: Served, most: int = 400) -> dict[str, str]:
    """Every page that can be reached from the first one, by its path."""
    found: dict[str, str] = {}
    waiting = [f"/{KEY}/"]
    while waiting and len(found) < most:
        path = waiting.pop(0)
        if path in found:
            continue
        answer = served.ask(path)
        assert answer.status == 200, (path, answer.text[:500])
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        found[path] = answer.text
        if "text/html" in answer.headers["content-type"] and not path.endswith("report.html"):
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            links = [link for link in Page(answer.text).links if not link.startswith("#")]
            assert all(link.startswith(f"/{KEY}/") for link in links), links
            waiting += links
    return found


def test_every_link_leads_to_a_page_and_nothing_is_written(run: Path, view: Start) -> None:
    (run / "report.html").write_text("<!DOCTYPE html><title>report</title>")
    before = snapshot(run)
    found = crawl(view(run))
    assert snapshot(run) == before
    paths = set(found)
    assert {
        f"/{KEY}/run/1",
        f"/{KEY}/run/1/examples?page=2",
        f"/{KEY}/run/1/report.html",
        f"/{KEY}/run/1/proof/16",
    } <= paths
    assert sum("/example/" in path for path in paths) == 84
    page = Page(found[f"/{KEY}/run/1"]).text
    assert "INFERIOR" in page
    assert "6.2\u00a0% vs teacher 100.0" in page
    assert all(stage in page for stage in ("terms", "collect", "curate", "train", "account", "ship", "prove", "seal"))
    assert "topics.csv" in page  # who gave what
    assert "INFERIOR" in Page(found[f"/{KEY}/"]).text


def test_the_page_of_an_example_tells_its_whole_way(run: Path, view: Start) -> None:
    served = view(run)
    trained = served.get("run/1/examples?" + urlencode({"fate": "trained on"})).text
    text = Page(served.ask(next(link for link in Page(trained).links if "/example/" in link)).text).text
    for said in ("very short we my in 63 your sunny", "kept: place 0", "2 loss tokens as soft-target in 2 steps",
                 "stage collect", "conditional", "MIT License", "91.8", "chatcmpl-1", "no money is paid"):  # fmt: skip
        assert said in " ".join(text.split()) or said in text, said
    item = Page(served.get("run/1/proof/5").text)
    assert [tag for tag, _ in item.elements if tag in ("del", "ins")] == ["del", "ins"]
    assert "Before training" in item.text


def test_filters_search_and_pages(run: Path, view: Start) -> None:
    served = view(run)
    assert "16 exchanges of 84" in served.get("run/1/examples?stage=prove&who=teacher").text
    assert "0 exchanges of 84" in served.get("run/1/examples?stage=nonsense").text
    assert "on this page" in served.get("run/1/examples?page=77").text
    assert Page(served.get("run/1/examples?q=frost").text).text.count("frost") >= 1
    answer = served.get("run/1/examples?page=0")
    assert answer.status == 400
    assert "page &#39;0&#39; is no number" in answer.text
    assert served.get("run/1/proof?which=worse").status == 200
    assert served.get("compare?a=1&b=7").status == 400


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}", "[::1]:{port}"]
)
def test_another_host_is_turned_away(run: Path, view: Start, host: str) -> None:
    """DNS rebinding: a page of somebody else's name that leads here."""
    served = view(run)
    answer = served.get(host=host.format(port=served.port))
    assert answer.status == 421
    assert "INFERIOR" not in answer.text
    assert served.get(host=f"localhost:{served.port}").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_only_get(run: Path, view: Start, method: str) -> None:
    answer = view(run).ask(f"/{KEY}/", method)
    assert answer.status == 405
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    ["/", "/run/1", "/wrong/", f"/{KEY[:-1]}x/run/1", f"/{KEY}x/", "//", "/%00/", "/%C3%A9/"],
)
def test_without_the_key_nothing_is_told(run: Path, view: Start, path: str) -> None:
    answer = view(run).ask(path)
    assert answer.status == 404
    assert KEY not in answer.text


@pytest.mark.parametrize(
    "path",
    ["run/1/store/run.key", "run/1/config.json", "run/1/../../../../etc/passwd", "run/1/..%2f..%2fstore%2frun.key",
     "run/0", "run/2", "run/-1", "run/1/example/1.1", "run/1/example/..", "run/1/example/9999999.1", "run/1/proof/0",
     "run/1/proof/99999999999999999999999", "run/99999999999999999999999", "view.py", "static/../view.css"],
)  # fmt: skip
def test_no_address_becomes_a_path(run: Path, view: Start, path: str) -> None:
    answer = view(run).get(path)
    assert answer.status == 404
    assert (run / "store" / "run.key").read_text().strip() not in answer.text


def test_a_link_in_place_of_the_report_is_not_followed(run: Path, view: Start) -> None:
    (run / "report.html").symlink_to(run / "store" / "run.key")
    served = view(run)
    key = (run / "store" / "run.key").read_text().strip()
    answer = served.get("run/1/report.html")
    assert answer.status == 500
    assert key not in answer.text
    page = served.get("run/1")
    assert page.status == 200
    assert "is a link" in page.text
    assert key not in page.text


def test_hostile_texts_stay_texts(tmp_path: Path, view: Start) -> None:
    folder = hostile_run(tmp_path / "runs" / '<img src=x onerror="alert(1)">')
    other = hostile_run(tmp_path / "runs" / "b")
    served = view(folder, other)
    pages = crawl(served)
    pages["search"] = served.get("run/1/examples?" + urlencode({"q": HOSTILE[1], "finish": HOSTILE[2]})).text
    pages["which"] = served.get("run/1/proof?" + urlencode({"which": HOSTILE[1]})).text
    pages["error"] = served.get("compare?" + urlencode({"a": HOSTILE[0], "b": HOSTILE[1]})).text
    assert len(pages) > 30
    for path, html in pages.items():
        page = Page(html)
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"img", "iframe", "object", "embed", "base", "style"}, path
        scripts = [attrs for tag, attrs in page.elements if tag == "script"]
        assert scripts == [{"src": f"/{KEY}/view.js", "defer": None}], path
        for tag, attrs in page.elements:
            assert not [name for name in attrs if name.startswith("on") or name == "style"], (path, tag, attrs)
            assert not (attrs.get("href") or "").lower().startswith("javascript"), path
        for hidden in ("\u202e", "\u2066", "\u200b", "\x1b", "\x00", "\u2028"):
            assert hidden not in html, (path, hidden)
    assert "{{ 7 * 7 }}" in "".join(pages.values())
    example = next(html for path, html in pages.items() if "/example/" in path and "gnp.exe" in html)
    assert "⟨U+202E⟩gnp.exe" in example


def test_a_run_under_way_is_followed(run: Path, view: Start) -> None:
    log = run / "ledger" / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    begun = next(at for at, line in enumerate(lines) if b'"intent"' in line and b'"stage":"collect"' in line)
    log.write_bytes(b"".join(lines[: begun + 1]) + lines[begun + 1][:50])
    for gone in ("prove", "curate", "train", "collect", "evidence.json"):
        path = run / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    served = view(run)
    page = Page(served.get("run/1").text).text
    assert "nobody works in it" in page
    assert "84 (the collection asks 24)" in page
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "at work" in Page(served.get("run/1").text).text
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        connection.request("GET", f"/{KEY}/run/1/live")
        response = connection.getresponse()
        assert response.headers["content-type"].startswith("text/event-stream")
        first = json.loads(response.readline().removeprefix(b"data: "))
        assert (first["stage"], first["state"]) == ("collect", "at work")
        assert first["answers"].startswith("84 ")
        fill(run, [("a new one", "needle")])
        told = first
        for _ in range(40):
            line = response.readline()
            if line.startswith(b"data: "):
                told = json.loads(line.removeprefix(b"data: "))
            if told["answers"].startswith("85 "):
                break
        assert told["answers"].startswith("85 ")
        connection.close()
    assert "1 exchange of 85" in served.get("run/1/examples?q=needle").text


def test_a_broken_run_is_named_and_the_others_are_shown(run: Path, tmp_path: Path, view: Start) -> None:
    broken = Path(shutil.copytree(run, run.with_name("broken")))
    lines = (broken / "ledger" / "log.jsonl").read_bytes().splitlines(keepends=True)
    (broken / "ledger" / "log.jsonl").write_bytes(lines[0] + b'{"kind": 3}\n' + lines[2])
    with pytest.raises(StorageError, match=r"log\.jsonl, line 2 is no statement") as told:
        read_log(broken)
    assert "tutelage verify" in told.value.fix
    half = Path(shutil.copytree(run, run.with_name("half")))
    (half / "evidence.json").write_text('{"claims": []}')
    garbage = Path(shutil.copytree(run, run.with_name("garbage")))
    (garbage / "store" / "000001.seg").write_bytes(b"\xff\xfe garbage\n" * 3)
    served = view(run.parent)  # broken, garbage, half, topics
    page = Page(served.get().text).text
    assert "StorageError" in page
    assert "line 2 is no statement" in page
    assert "INFERIOR" in page
    answer = served.get("run/1")
    assert answer.status == 500
    assert "tutelage verify" in answer.text
    assert "damaged at byte 0" in served.get("run/2").text
    assert "damaged at byte 0" in served.get("run/2/examples").text
    page = served.get("run/3")
    assert page.status == 200
    assert "DataError" in page.text
    assert "84 in the store" in Page(page.text).text
    assert served.get("run/4").status == 200


def test_runs_are_found_and_what_is_none_is_named(run: Path, tmp_path: Path) -> None:
    assert [one.name for one in find_runs([run.parent, run])] == ["topics"]
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            find_runs([path])


def test_answers_without_a_record_are_shown(tmp_path: Path, view: Start) -> None:
    fill(tmp_path / "answers", [("one", "first")])
    served = view(tmp_path / "answers")
    assert "nobody made a record" in served.get("run/1").text
    assert "1 exchange<" in served.get("run/1/examples").text
    assert sum("/example/" in path for path in crawl(served)) == 1


def test_two_runs_are_compared(run: Path, view: Start) -> None:
    other = Path(shutil.copytree(run, run.with_name("other")))
    config = json.loads((other / "config.json").read_bytes())
    config["train"]["learning_rate"] = 0.5
    config["task"]["labels"] = ["<b>"]
    (other / "config.json").write_text(json.dumps(config))
    page = Page(view(run, other).get("compare?a=1&b=2").text).text
    assert "train.learning_rate" in page
    assert "0.01" in page
    assert "0.5" in page
    assert "<b>" in page
    assert "claim.margin" not in page
    assert "same held-out items" in page


def test_how_long_ago() -> None:
    assert [ago(1000.0, 1000.0 + past) for past in (0, 119, 120, 7200, 200_000)] == [
        "0 s ago", "119 s ago", "2 min ago", "2 h ago", "2 days ago",
    ]  # fmt: skip
    assert ago(0) == "never"
