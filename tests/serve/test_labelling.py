"""The labelling page over real HTTP: decisions, skips, undo, resuming, blindness, and who is turned away."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.serve.labelled import KEY, MODELS, TOKEN, header, labelling, matter_of, pairs_of, proof_run
from tutelage.errors import ConfigError, DataError, StorageError
from tutelage.prove.gold import read_gold
from tutelage.prove.gold_file import Kind, Mode, draw, read_rows
from tutelage.serve.labelling_items import deal, of_run

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></textarea></style><svg onload=alert(1)>",
    "\u202egnp.exe\u2066 \u200b\x1b[31m\x00\u2028",
    "{{ 7 * 7 }}{% raw %}",
)
TEXTS = [f"text {at}" for at in range(40)]


def test_decisions_are_on_the_disk_as_they_are_made(tmp_path: Path) -> None:
    matter, path = matter_of(TEXTS), tmp_path / "gold.jsonl"
    head = header(Mode.LABELS, matter, 5, seed=3)
    shown = []
    with labelling(path, matter, head) as page:
        for at in range(5):
            assert page.at() == at
            shown += page.texts()
            found = page.decide(at % 2)
            assert found.status == 303 and found.headers["location"] == f"/{KEY}/"
            assert len(path.read_bytes().splitlines()) == at + 2, "one more line, now"
        assert "All 5 are done" in page.get()
    read, rows = read_rows(path)
    assert read == head and read.author_kind == "person" and (read.items, read.sampled, read.seed) == (40, 5, 3)
    assert [row.item for row in rows] == draw(list(matter.questions), 5, 3)
    assert shown == [matter.questions[row.item].messages[0].content for row in rows]
    assert [row.decision for row in rows] == ["good", "bad", "good", "bad", "good"]
    assert {row.author for row in rows} == {"person:Anna"} and all(0 <= row.took_ms < 60_000 for row in rows)
    assert len({row.shown for row in rows}) == 5 and all(
        re.fullmatch(r"sha256:[0-9a-f]{64}", row.shown) for row in rows
    )
    assert path.stat().st_mode & 0o77 == 0, "private to its owner"


def test_undo_adds_a_line_and_asks_again(tmp_path: Path) -> None:
    matter, path = matter_of(TEXTS), tmp_path / "gold.jsonl"
    with labelling(path, matter, header(Mode.LABELS, matter, 4)) as page:
        assert "Undo" not in page.get()
        assert page.post("undo").headers["location"].endswith("?stale=1"), "nothing to take back"
        page.decide(0)
        page.post("skip", {"at": page.at(), "reason": "half  of it\nis missing"})
        assert page.at() == 2
        assert "Last: <strong>skipped</strong>" in page.get()
        before = path.read_bytes()
        page.post("undo")
        assert page.at() == 1
        page.post("undo")
        assert page.at() == 0
        assert page.post("undo").headers["location"].endswith("?stale=1")
        page.decide(1)
        assert path.read_bytes().startswith(before), "what was written stays"
    _, rows = read_rows(path)
    assert [row.kind for row in rows] == [Kind.DECISION, Kind.SKIP, Kind.UNDO, Kind.UNDO, Kind.DECISION]
    assert rows[1].reason == "half of it is missing" and rows[1].decision == ""
    assert list(read_gold(path).labels().values()) == ["bad"]


def test_a_skip_needs_a_reason(tmp_path: Path) -> None:
    matter, path = matter_of(TEXTS), tmp_path / "gold.jsonl"
    with labelling(path, matter, header(Mode.LABELS, matter, 4)) as page:
        found = page.post("skip", {"at": 0, "reason": "  \t "})
        assert found.status == 400 and "without a reason" in found.text and f'href="/{KEY}/"' in found.text
        assert page.at() == 0
    assert len(path.read_bytes().splitlines()) == 1


def test_a_second_click_decides_nothing_unseen(tmp_path: Path) -> None:
    matter, path = matter_of(TEXTS), tmp_path / "gold.jsonl"
    with labelling(path, matter, header(Mode.LABELS, matter, 4)) as page:
        assert page.post("decide", {"at": 0, "choice": 0}).headers["location"] == f"/{KEY}/"
        again = page.post("decide", {"at": 0, "choice": 1})
        assert again.headers["location"] == f"/{KEY}/?stale=1"
        assert "Nothing was recorded" in page.ask(f"/{KEY}/?stale=1").text
        assert page.post("decide", {"at": 3, "choice": 1}).headers["location"] == f"/{KEY}/?stale=1"
    assert len(read_rows(path)[1]) == 1


def run_texts(count: int) -> list[tuple[str, str, str]]:
    return [(f"question {at}", f"answer one {at}", f"answer two {at}") for at in range(count)]


@pytest.mark.parametrize("mode", [Mode.PAIRS, Mode.SCORE])
def test_nothing_that_is_sent_tells_who_answered(tmp_path: Path, mode: Mode) -> None:
    run = proof_run(tmp_path / "grand-oracle-70b-against-tiny", run_texts(24))
    matter = of_run(run, mode)
    with labelling(tmp_path / "teacher-student.jsonl", matter, header(mode, matter, 24)) as page:
        for at in range(24 * (2 if mode is Mode.SCORE else 1)):
            page.decide(at % 3)
        page.post("undo")
        page.post("skip", {"at": page.at(), "reason": "why"})
        page.post("decide", {"at": 0, "choice": 9})
        page.ask("/wrong/")
        page.get()
        sent = page.sent.lower()
    names = [*MODELS.values(), "teacher", "student", "oracle", "pupil", "route", "secret gold", str(tmp_path).lower()]
    for word in names:
        assert word.encode() not in sent, word
    for item in matter.questions:
        assert item.removeprefix("sha256:").encode() not in sent, "identifiers would let the lot be drawn again"


def test_the_order_of_a_pair_is_by_lot_fixed_and_recorded(tmp_path: Path) -> None:
    run, path = proof_run(tmp_path / "run", run_texts(60)), tmp_path / "gold.jsonl"
    matter = pairs_of(run)
    head = header(Mode.PAIRS, matter, 60, seed=5)
    dealt = deal(matter, head)
    assert dealt == deal(matter, head)
    first = [shown.order[0] for shown in dealt]
    assert 15 < first.count("teacher") < 45 and first.count("teacher") + first.count("student") == 60
    assert {shown.unit: shown.order for shown in deal(matter, header(Mode.PAIRS, matter, 60, seed=6))} != {
        shown.unit: shown.order for shown in dealt
    }
    with labelling(path, matter, head) as page:
        for at in range(60):
            asked, one, two = page.texts()
            text = asked.removeprefix("question ")
            said = {"teacher": f"answer one {text}", "student": f"answer two {text}"}
            assert [one, two] == [said[name] for name in dealt[at].order]
            page.decide(2 if at < 2 else [one, two].index(said["student"]) if at % 2 else 0)
    _, rows = read_rows(path)
    assert [row.order for row in rows] == [shown.order for shown in dealt]
    assert [row.decision for row in rows[:2]] == ["tie", "tie"]
    assert all(row.decision == ("student" if at % 2 else row.order[0]) for at, row in enumerate(rows) if at >= 2)
    worth = read_gold(path).preferences()
    assert [worth[row.item] for row in rows] == [
        {"tie": 0.5, "student": 1.0, "teacher": 0.0}[row.decision] for row in rows
    ]


def test_scores_of_both_come_each_at_its_own_place(tmp_path: Path) -> None:
    run, path = proof_run(tmp_path / "run", run_texts(30)), tmp_path / "gold.jsonl"
    matter = of_run(run, Mode.SCORE)
    head = header(Mode.SCORE, matter, 10)
    with labelling(path, matter, head) as page:
        for _ in range(20):
            text = page.texts()[1]
            page.decide(4 if text.startswith("answer one") else 1)
    gold = read_gold(path)
    assert set(gold.scores("teacher").values()) == {5.0} and set(gold.scores("student").values()) == {2.0}
    assert len(gold.scores("teacher")) == 10 and gold.scores("teacher").keys() == gold.scores("student").keys()
    systems = [row.system for row in read_rows(path)[1]]
    assert systems != ["teacher", "student"] * 10 and systems.count("teacher") == 10


def test_going_on_where_one_left_off_after_a_kill(tmp_path: Path) -> None:
    items, path = tmp_path / "items.jsonl", tmp_path / "gold.jsonl"
    items.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    command = [sys.executable, "-m", "tutelage", "label", str(items), "--out", str(path), "--who", "Anna",
               "--labels", "good,bad", "--sample", "6"]  # fmt: skip

    def begin() -> tuple["subprocess.Popen[str]", str, str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        return process, said, re.search(r"open (\S+)", said)[1]  # type: ignore[index]

    def decide(address: str, choice: int) -> None:
        with urlopen(address) as response:
            page = response.read().decode()
        at, token = (re.search(rf'name="{name}" value="([^"]+)"', page)[1] for name in ("at", "token"))  # type: ignore[index]
        with urlopen(address + "decide", f"token={token}&at={at}&choice={choice}".encode()) as response:
            assert response.status == 200

    process, said, address = begin()
    assert "6 of 40 items, drawn at random by seed 0" in said
    for choice in (0, 1, 1):
        decide(address, choice)
    refused = subprocess.run(
        [*command[:-2], "--sample", "6", "--port", "0"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2 and "somebody is labelling into" in refused.stderr
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    with path.open("ab") as file:
        file.write(b'{"adjudi')  # a line that the kill cut off
    process, said, address = begin()
    assert "going on: Anna has decided 3 and skipped 0" in said and "unfinished last line (8 bytes)" in said
    for choice in (0, 0):
        decide(address, choice)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 3 and "Anna decided 5, skipped 0, 1 left" in rest, rest
    assert list(read_gold(path).labels().values()) == ["good", "bad", "bad", "good", "good"]


def test_a_file_begun_otherwise_is_not_gone_on_with(tmp_path: Path) -> None:
    matter, path = matter_of(TEXTS), tmp_path / "gold.jsonl"
    with labelling(path, matter, header(Mode.LABELS, matter, 4)) as page:
        page.decide(0)
    before = path.read_bytes()
    for other in (
        header(Mode.LABELS, matter, 4, seed=1),
        header(Mode.LABELS, matter, 5),
        header(Mode.LABELS, matter, 4, labels=("bad", "good")),
        header(Mode.LABELS, matter_of(TEXTS[:-1]), 4),
    ):
        with pytest.raises(ConfigError, match="was begun with"), labelling(path, matter, other):
            pass
    assert path.read_bytes() == before
    path.write_bytes(b"my notes\nof last year\n")
    with pytest.raises(DataError, match="line 1"), labelling(path, matter, header(Mode.LABELS, matter, 4)):
        pass
    assert path.read_bytes() == b"my notes\nof last year\n"


def test_a_disk_that_takes_nothing_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    matter, path = matter_of(TEXTS), tmp_path / "gold.jsonl"
    with labelling(path, matter, header(Mode.LABELS, matter, 4)) as page:
        page.decide(0)
        before, whole = path.read_bytes(), os.write

        def full(file: int, data: bytes) -> int:
            if file != page.desk.journal._file:
                return whole(file, data)
            whole(file, bytes(data)[:7])
            raise OSError(28, "No space left on device")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("tutelage.prove.gold_file.os.write", full)
            found = page.decide(1)
        assert found.status == 500 and "No space left on device" in found.text and "not recorded" in found.text
        assert path.read_bytes() == before
        assert page.decide(1).status == 303 and page.at() == 2


def test_two_people_in_one_file_one_after_the_other(tmp_path: Path) -> None:
    matter, path = matter_of(TEXTS), tmp_path / "gold.jsonl"
    head = header(Mode.LABELS, matter, 6)
    for who, said in (("Anna", (0, 0, 1, 1, 0, 1)), ("Ben", (0, 1, 1, 1, 0, 1))):
        with labelling(path, matter, head, who) as page:
            assert page.at() == 0, "Ben decides for himself"
            assert "Last:" not in page.get()
            with pytest.raises(StorageError, match="somebody is labelling"), labelling(path, matter, head, "Carla"):
                pass
            for button in said:
                page.decide(button)
    (agreed,) = read_gold(path).agreements()
    assert (agreed.first, agreed.second, agreed.kappa.n) == ("Anna", "Ben", 6)
    assert agreed.kappa.kappa == pytest.approx((5 / 6 - 0.5) / 0.5)


def test_hostile_texts_are_escaped(tmp_path: Path) -> None:
    run = proof_run(tmp_path / "run", [(text, text, text[::-1]) for text in HOSTILE])
    matter = pairs_of(run)
    with labelling(tmp_path / "gold.jsonl", matter, header(Mode.PAIRS, matter, 5), who="<b>Anna</b>") as page:
        for _ in HOSTILE:
            found = page.ask(f"/{KEY}/")
            body = re.sub(r"<script>.*?</script>\n</body>", "", found.text, flags=re.DOTALL)
            assert "<script" not in body and "<img" not in body and "<svg" not in body and "<b>" not in body
            assert not re.search("[\u202e\u2066\u200b\x1b\x00\u2028]", found.text)
            assert "49" not in re.sub(r"<style>.*?</style>", "", body, flags=re.DOTALL)
            page.decide(0)


def test_policy_allows_the_pages_own_script_and_style_alone(tmp_path: Path) -> None:
    import base64
    import hashlib

    matter = matter_of(TEXTS)
    with labelling(tmp_path / "gold.jsonl", matter, header(Mode.LABELS, matter, 4)) as page:
        found = page.ask(f"/{KEY}/")
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", found.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert found.headers["x-content-type-options"] == "nosniff" and found.headers["cache-control"] == "no-store"
    assert " style=" not in found.text and " on" not in "".join(re.findall(r"<[^>]*>", found.text))


def test_who_is_turned_away(tmp_path: Path) -> None:
    matter, path = matter_of(TEXTS), tmp_path / "gold.jsonl"
    with labelling(path, matter, header(Mode.LABELS, matter, 4)) as page:
        good = {"at": 0, "choice": 0}
        assert page.ask(f"/{KEY}/", Host="evil.example").status == 421
        assert page.post("decide", good, Host=f"evil.example:{page.port}").status == 421
        assert page.post("decide", good, Origin="https://evil.example").status == 403
        assert page.post("decide", good, Origin="null").status == 403
        assert page.post("decide", good, Sec_Fetch_Site="cross-site").status == 403
        assert page.post("decide", {**good, "token": TOKEN[:-1]}).status == 403
        assert page.post("decide", {**good, "token": "\ud800".encode("utf-8", "replace")}).status == 403
        assert page.ask(f"/{'j' * 22}/").status == 404
        assert page.ask(f"/{'j' * 22}/decide", "POST", f"token={TOKEN}&at=0&choice=0").status == 404
        assert page.ask("/").status == 404
        assert page.ask(f"/{KEY}/decide").status == 405
        assert page.ask(f"/{KEY}/", "DELETE").status == 405
        assert page.ask(f"/{KEY}/decide", "POST", "x" * 20_000).status == 413
        assert page.post("decide", good, Content_Type="text/plain").status == 415
        for wrong in (
            {"choice": 0},
            {"at": 0},
            {"at": 0, "choice": 2},
            {"at": "-1", "choice": 0},
            {"at": "٣", "choice": 0},
        ):
            assert page.post("decide", wrong).status == 400, wrong
        assert len(path.read_bytes().splitlines()) == 1, "nothing was decided by any of these"
        assert (
            page.post("decide", good, Origin=f"http://127.0.0.1:{page.port}", Sec_Fetch_Site="same-origin").status
            == 303
        )
    assert len(path.read_bytes().splitlines()) == 2


def test_the_page_works_without_scripts(tmp_path: Path) -> None:
    matter = matter_of(TEXTS)
    with labelling(tmp_path / "gold.jsonl", matter, header(Mode.LABELS, matter, 4)) as page:
        page.decide(0)
        text = page.get()
    for key in ("1", "2", "s", "u"):
        assert f'accesskey="{key}"' in text and f'data-key="{key}"' in text
    assert text.count('<form method="post"') == 3 and text.count(f'value="{TOKEN}"') == 3
