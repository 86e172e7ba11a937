"""The viewer on trainings: conversations as examples with what the steps took of them, the curve, and hostile words."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import save_tiny
from tests.pipeline.test_training import RUN_FILE, do, write_talks
from tests.view.conftest import HOSTILE, Served, snapshot
from tests.view.test_app import Page, crawl
from tests.view.test_bundle import bundle, links_of
from tests.view.test_index import listed
from tutelage.canon import digest_of
from tutelage.errors import DataError, StorageError
from tutelage.jsonl import read_lines, write_lines, write_pretty
from tutelage.view import query
from tutelage.view.index import Place
from tutelage.view.looking import Looking
from tutelage.view.runs import find_runs, summary_of
from tutelage.view.talks import Talk
from tutelage.view.training import MOST_POINTS, training_of

Start = Callable[..., Served]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real training of four steps on 16 conversations, judged by 4 more."""
    folder = tmp_path_factory.mktemp("trained")
    run_file = folder / "run.toml"
    run_file.write_text(
        RUN_FILE.format(data=write_talks(folder / "talks.jsonl"), teacher=save_tiny(folder / "teacher"))
    )
    do(run_file, folder / "talks", train__steps=3)
    return folder / "talks"


@pytest.fixture
def trained(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "runs" / "talks"))


@pytest.fixture
def looking(trained: Path, tmp_path: Path) -> Looking:
    return Looking(find_runs([trained]), tmp_path / "cache")


def conversation(question: str, answer: str, kind: str, *, cut: bool = False) -> dict[str, Any]:
    """A line as the data stage writes it, of several turns."""
    said = [
        ("system", "be brief"),
        ("user", question),
        ("assistant", "earlier words"),
        ("user", "more"),
        ("assistant", answer),
    ]
    messages = [{"role": role, "content": content} for role, content in said]
    name = digest_of({"messages": messages})
    return {"id": name, "kind": kind, "messages": messages, "cut": cut, "author": 1, "asked_by": 0}


def write_data(folder: Path, lines: list[dict[str, Any]], who: str = "an author") -> Path:
    """A training that is no further than its data stage."""
    write_lines(folder / "data" / "conversations.jsonl", lines)
    authors = [
        {"teacher": name, "weights": "", "provider": who, "route": who, "licence": who} for name in ("asks", who)
    ]
    write_pretty(folder / "data" / "authors.json", {"authors": authors})
    (folder / "store").mkdir(exist_ok=True)
    return folder


def talk_at(looking: Looking, place: Place) -> Talk:
    found = looking.example(looking.runs[0], place)
    assert found is not None
    assert isinstance(found[0], Talk)
    return found[0]


def test_conversations_are_listed_with_what_the_steps_took(looking: Looking, trained: Path) -> None:
    index = looking.index(looking.runs[0])
    lines = {row["id"]: row for row in read_lines(trained / "data" / "conversations.jsonl")}
    wanted: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    for step in read_lines(trained / "train" / "consumed.jsonl"):
        for name, by_role in zip(step["examples"], step["loss_tokens"], strict=True):
            wanted[name] += by_role["soft-target"]
            steps[name] += 1
    assert len(wanted) == 12  # three steps of four
    assert listed(index).total == 20
    assert listed(index, fate="trained on").total == 12
    assert listed(index, fate="to train on").total == 4
    assert listed(index, fate="judged by").total == 4
    for row in listed(index).rows:
        talk = talk_at(looking, row.place)
        line = lines[talk.id]
        assert (talk.kind, row.question, row.answer) == (line["kind"], *(turn["content"] for turn in line["messages"]))
        taken = [(one["role"], one["tokens"], one["steps"]) for one in talk.lineage["taken"]]
        assert taken == ([("soft-target", wanted[talk.id], steps[talk.id])] if talk.id in wanted else [])
        assert row.fate == ("judged by" if talk.kind == "validation" else "trained on" if taken else "to train on")
        assert (talk.author["teacher"], row.who) == ("talks.jsonl", "talks.jsonl")


def test_the_pages_of_a_training(trained: Path, view: Start) -> None:
    before = snapshot(trained)
    pages = crawl(view(trained))
    assert snapshot(trained) == before
    assert sum("/example/" in path for path in pages) == 20
    summary = summary_of(find_runs([trained])[0])
    metrics = list(read_lines(trained / "train" / "metrics.jsonl"))
    assert (summary.kind, summary.state) == ("train", "finished")
    assert summary.outcome.endswith(f"{metrics[-1]['validation_nats']:.3f} nats")
    html = next(html for path, html in pages.items() if path.endswith("/run/1"))
    page = Page(html)
    assert "every conversation: 20 in the data" in " ".join(page.text.split())
    assert "kept: step" in page.text and "before training" in page.text
    assert sum(attrs.get("class") == "dot loss" for _, attrs in page.elements) == len(metrics)
    shown = [
        found for path, html in pages.items() if "/example/" in path and "held against it" in (found := Page(html).text)
    ]
    assert len(shown) == 20
    assert sum("loss tokens as soft-target in 1 steps" in text for text in shown) == 12


def test_the_curve_and_the_looks_are_those_of_the_metrics(trained: Path) -> None:
    (run,) = find_runs([trained])
    path = trained / "train" / "metrics.jsonl"
    rows = list(read_lines(path))
    found = training_of(run)
    assert found is not None
    looks = [row for row in rows if "validation_nats" in row]
    assert [one.step for one in found.looks] == [0, *(row["step"] for row in looks)]
    assert [one.objective_nats for one in found.looks[1:]] == [row["validation_nats"] for row in looks]
    long = [{"step": step, "loss_nats": 1 / step} for step in range(1, 3 * MOST_POINTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in long))
    found = training_of(run)
    assert found is not None
    assert (found.steps, found.every) == (len(long), 3)
    path.write_text('{"step": 1, "loss_nats": null}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl has not what is shown here"):
        training_of(run)


def test_a_changed_conversation_is_shown_as_damaged_and_new_data_is_read_anew(looking: Looking, trained: Path) -> None:
    index = looking.index(looking.runs[0])
    row = listed(index, q="fine").rows[0]
    path = trained / "data" / "conversations.jsonl"
    status, data = path.stat(), path.read_bytes()
    at = data.index(b"fine", row.place.offset)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"Fine")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the index does not see it; the page does
    with pytest.raises(StorageError, match="digest differs"):
        talk_at(looking, row.place)
    write_lines(path, [{**conversation("other", "needle", "train"), "author": 0}])
    assert [one.question for one in listed(index).rows] == ["more"]
    assert listed(index, q="needle").total == listed(index, q='"earlier words"').total == 1
    assert listed(index, q="brief").total == 0  # system messages are left out
    path.write_bytes(b'{"id": 3}\n')
    assert "damaged at byte 0" in str(index.refresh(60).problem)
    path.write_bytes(data)
    assert listed(index).total == 20
    path.rename(trained / "elsewhere.jsonl")
    path.symlink_to(trained / "elsewhere.jsonl")
    assert listed(index).total == 0


def test_steps_that_are_taken_later_change_what_became_of_it(tmp_path: Path) -> None:
    lines = [conversation(f"q{at}", "a", "train", cut=at == 1) for at in range(3)]
    folder = write_data(tmp_path / "run", lines)
    looking = Looking(find_runs([folder]), tmp_path / "cache")
    index = looking.index(looking.runs[0])
    assert listed(index, fate="to train on").total == 3
    assert listed(index, finish="length").total == 1
    step = {"step": 1, "examples": [lines[0]["id"]], "loss_tokens": [{"text-target": 5}]}
    write_lines(folder / "train" / "consumed.jsonl", [step])
    assert listed(index, fate="trained on").total == 1
    (folder / "train" / "consumed.jsonl").unlink()
    assert listed(index, fate="to train on").total == 3
    with index.reading() as database:
        assert query.lineage_of(database, Place(0, 0)) is not None
    assert looking.example(looking.runs[0], Place(0, 7)) is None


def test_hostile_conversations_stay_texts(tmp_path: Path, view: Start) -> None:
    lines = [conversation(text, text, "train", cut=True) for text in HOSTILE]
    folder = write_data(tmp_path / "runs" / "<b>", lines, HOSTILE[0])
    pages = crawl(view(folder))
    assert sum("/example/" in path for path in pages) == len(HOSTILE)
    for path, html in pages.items():
        tags = [tag for tag, _ in Page(html).elements]
        assert not {"img", "iframe", "b", "base"} & {*tags}, path
        assert tags.count("script") == 1, path
        for hidden in ("\u202e", "\u200b", "\x1b", "\x00"):
            assert hidden not in html, (path, hidden)


def test_a_training_in_files(trained: Path, tmp_path: Path) -> None:
    bundle(tmp_path / "out", trained, private=False)
    links_of(tmp_path / "out")
    words = {
        word for row in read_lines(trained / "data" / "conversations.jsonl") for word in [row["messages"][0]["content"]]
    }
    text = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "kept: step" in text
    assert not [word for word in words if word in text]
    made = bundle(tmp_path / "all", trained, private=True)
    links_of(tmp_path / "all")
    assert made.examples == 20
    assert (tmp_path / "all" / "run-1-example-0.0.html").exists()
