"""Bundles: what they hold is what was asked for; links within them lead somewhere; nothing secret is in any file."""

import base64
import hashlib
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.view.conftest import fill, hostile_run, snapshot
from tests.view.test_app import Page
from tutelage.cli.main import main
from tutelage.errors import ConfigError
from tutelage.jsonl import read_lines
from tutelage.redact import Secrets
from tutelage.view.bundle import Bundled, write_bundle
from tutelage.view.looking import Looking
from tutelage.view.runs import find_runs


def bundle(out: Path, *folders: Path, private: bool, limit: int = 500, secrets: Secrets | None = None) -> Bundled:
    looking = Looking(find_runs(folders), out.parent / "cache")
    try:
        return write_bundle(looking, out, private=private, limit=limit, secrets=secrets or Secrets({}))
    finally:
        looking.close()


def links_of(out: Path) -> None:
    for path in out.glob("*.html"):
        if path.name.endswith("report.html"):
            continue
        page = Page(path.read_text())
        for link in page.links:
            assert link.startswith("#") or (out / unquote(link)).is_file(), (path.name, link)
        assert "script" not in {tag for tag, _ in page.elements}


def test_without_private_no_text_of_the_run_is_in_it(run: Path, tmp_path: Path) -> None:
    (run / "report.html").write_text("<title>report</title>")
    broken = run.with_name("broken")
    (broken / "ledger").mkdir(parents=True)
    (broken / "ledger" / "log.jsonl").write_text('{"kind": "very private"}\n')
    before = snapshot(run)
    made = bundle(tmp_path / "out", run, broken, private=False)
    assert snapshot(run) == before
    assert "broken" in made.problems
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "run-1.html"]
    assert (made.files, made.examples) == (2, 0)
    text = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "INFERIOR" in text
    assert all(row["text"] not in text for row in read_lines(run / "data" / "prompts.jsonl"))
    assert "Name the topic" not in text
    assert "very private" not in text
    assert str(tmp_path) not in text
    assert "AVX512" not in text  # facts about the machine
    links_of(tmp_path / "out")


def test_with_private_every_link_leads_to_a_file(run: Path, tmp_path: Path) -> None:
    (run / "report.html").write_text("<title>report</title>")
    hostile = hostile_run(tmp_path / "runs" / "<b>hostile")
    made = bundle(tmp_path / "out", run, hostile, private=True)
    links_of(tmp_path / "out")
    assert made.examples == 84 + 7
    assert made.left_out == {}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert made.files == len(names)
    assert {
        "index.html",
        "run-1-examples-2.html",
        "run-1-report.html",
        "run-1-evidence.json",
        "compare-1-2.html",
    } <= names
    assert len([name for name in names if name.startswith("run-1-item-")]) == 16
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert (run / "store" / "run.key").read_bytes().strip() not in everything
    salts = [row["salt"].encode() for row in read_lines(run / "ledger" / "log.jsonl")]
    assert not [salt for salt in salts if salt in everything]
    assert b"chatcmpl-" not in everything  # raw responses
    for name in names:
        if name.startswith("run-2"):
            tags = {tag for tag, _ in Page((tmp_path / "out" / name).read_text()).elements}
            assert not tags & {"img", "script", "iframe"}, name


def test_its_policy_allows_its_own_style_alone(run: Path, tmp_path: Path) -> None:
    bundle(tmp_path / "out", run, private=False)
    page = (tmp_path / "out" / "index.html").read_text()
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    policy = re.search(r"style-src &#39;sha256-([^&]*)&#39;", page)
    assert style is not None
    assert policy is not None
    assert base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode() == policy[1]
    assert "default-src &#39;none&#39;" in page


def test_more_than_the_limit_is_left_out_and_said(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fill(run, [(f"question {number}", "an answer") for number in range(120)])
    made = bundle(tmp_path / "out", run, private=True, limit=60)
    assert made.examples == 100  # whole pages
    assert made.left_out == {"run": 20}
    assert "The first 100 of 120 exchanges" in (tmp_path / "out" / "run-1-examples-1.html").read_text()
    assert not (tmp_path / "out" / "run-1-examples-3.html").exists()
    links_of(tmp_path / "out")


def test_a_secret_of_the_environment_is_not_in_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fill(run, [("what is it", "it is sk-abcdefghijklmnop1234")])
    bundle(tmp_path / "out", run, private=True, secrets=Secrets({"KEY": "sk-abcdefghijklmnop1234"}))
    text = "".join(path.read_text() for path in (tmp_path / "out").glob("*.html"))
    assert "sk-abcdefghijklmnop1234" not in text
    assert "[redacted:KEY]" in text


def test_a_folder_with_something_in_it_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not empty"):
        bundle(run, run, private=False)


def test_the_command_says_what_it_wrote(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["view", *arguments])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    cache = ("--cache", str(tmp_path / "cache"))
    code, out, _ = command(str(run), "--bundle", str(tmp_path / "out"), *cache)
    assert code == 0
    assert "2 files" in out
    assert "no prompt, answer, setting or file of a run" in out
    code, out, _ = command(str(run), "--bundle", str(tmp_path / "all"), "--private", "--examples", "50", *cache)
    assert code == 0
    assert "answers of 50 examples" in out
    assert "topics: 34 examples are left out" in out
    for arguments in ((str(tmp_path / "nowhere"),), (str(run), "--private"), (str(run), "--port", "99999")):
        code, _, error = command(*arguments)
        assert code == 2
        assert "fix:" in error
