"""What `tutelage verify` holds against a training and a collection: what you trust, and the table of what was taken of whom."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.made import new_signer
from tests.models.tiny import save_tiny
from tests.pipeline.test_training import RUN_FILE, do, write_talks
from tests.pipeline.test_training_terms import SHORT, collect
from tutelage.canon import canonical
from tutelage.jsonl import read_lines, write_lines
from tutelage.ledger.verify import Trust, verify
from tutelage.pipeline.run import Run
from tutelage.pipeline.training import ready, train_student
from tutelage.progress import Quiet, Stop
from tutelage.run_file import load_training_config

SIGNER, OTHER = new_signer(), new_signer("example.org/eve")


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("file")
    path = folder / "run.toml"
    path.write_text(RUN_FILE.format(data=write_talks(folder / "talks.jsonl"), teacher=save_tiny(folder / "teacher")))
    return path


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, run_file: Path) -> Path:
    out = tmp_path_factory.mktemp("run")
    config = load_training_config(run_file, {"train.steps": 2, "train.answers": 0, "method.text_weight": 0.5})
    with Run(out, Quiet(), Stop(), SIGNER) as run:
        train_student(ready(config), run)
    return out


@pytest.fixture
def copied(signed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(signed, tmp_path / "copied"))


def whats(folder: Path, **trust: str) -> list[str]:
    return [f"{one.where}: {one.what}" for one in verify(folder, Trust(**trust)).findings]


def test_what_you_trust_is_held_against_a_training(signed: Path, copied: Path) -> None:
    root, key = verify(signed).root, SIGNER.verification_key
    assert (
        whats(signed) == whats(signed, root=root) == whats(signed, key=key) == whats(signed, key=key, root=root) == []
    )
    checks = " ".join(verify(signed, Trust(key=key, root=root)).checks)
    assert "the root you trust" in checks and "is signed by example.org/ada+" in checks
    assert "a key you did not name" in " ".join(verify(signed).checks)
    assert any("never had the root" in one for one in whats(signed, root="sha256:" + 64 * "0"))
    assert any("is not signed by example.org/eve" in one for one in whats(signed, key=OTHER.verification_key))
    assert whats(signed, key="garbage") and whats(signed, root="garbage")
    assert any("witness" in one for one in whats(signed, witness=OTHER.verification_key))
    note = copied / "provenance" / "checkpoint"
    text = note.read_text()
    note.write_text(text[: text.index("\n\n") + 1])
    assert any("is not signed by" in one for one in whats(copied, key=key))
    note.write_text(OTHER.note(note.read_text()))
    assert any("is not signed by" in one for one in whats(copied, key=key))
    note.write_text(text[:-8] + "AAAAAA=\n")
    assert whats(copied) and whats(copied, key=key)


def test_what_you_trust_is_held_against_a_collection(tmp_path: Path) -> None:
    assert collect(tmp_path) == 0
    root = verify(tmp_path / "answers").root
    assert whats(tmp_path / "answers") == whats(tmp_path / "answers", root=root) == []
    assert whats(tmp_path / "answers", root="sha256:" + 64 * "0")
    assert whats(tmp_path / "answers", key=SIGNER.verification_key)


Rows = list[dict[str, Any]]


def _other_licence(rows: Rows) -> None:
    next(row for row in rows if row["role"] == "soft-target")["licence"] = "own"


def _other_teacher(rows: Rows) -> None:
    next(row for row in rows if row["role"] == "soft-target")["teacher"] = "a model of our own"


def _fewer_examples(rows: Rows) -> None:
    next(row for row in rows if row["role"] == "text-target")["examples"] -= 1


def _moved_tokens(rows: Rows) -> None:
    """The sum of the role stays what it is."""
    row = next(row for row in rows if row["role"] == "text-target")
    rows.insert(0, row | {"teacher": "another.jsonl", "loss_tokens": 1})
    row["loss_tokens"] -= 1


def _no_prompts(rows: Rows) -> None:
    rows.remove(next(row for row in rows if row["role"] == "prompt-author"))


def _other_base(rows: Rows) -> None:
    rows[-1]["weights"] = "sha256:" + 64 * "1"


FORGED = (_other_licence, _other_teacher, _fewer_examples, _moved_tokens, _no_prompts, _other_base)


@pytest.mark.parametrize("change", FORGED, ids=lambda change: change.__name__)
def test_a_forged_table_of_sources_is_found_though_every_digest_fits(
    copied: Path, change: Callable[[Rows], None]
) -> None:
    def forge(out: Path) -> None:
        table = json.loads(out.read_bytes())
        change(table["rows"])
        out.write_bytes(canonical(table) + b"\n")

    assert any(one.startswith("train/sources.json: says") for one in _staged(copied, "sources", forge))


def _staged(copied: Path, stage: str, change: Callable[[Path], None], **config: Any) -> list[str]:
    """Findings after the stage's first output was changed and recorded as made by it."""
    with Run(copied, Quiet(), Stop(), SIGNER) as run:
        latest = [one for one in run.log.statements() if (one.kind, one.stage) == ("statement", stage)][-1]
        outputs = tuple(latest.outputs)
        path = next(
            name for name in outputs if name.endswith(("sources.json", "consumed.jsonl", "conversations.jsonl"))
        )

        def work(scratch: Path) -> dict[str, Any]:
            change(copied / path)
            return {name: value for name, value in latest.facts.items() if name != "wall_ms"}

        run.stage(stage, 99, {**latest.config, **config}, latest.inputs, outputs, work)
    return whats(copied)


def test_weights_that_did_not_teach_are_found(copied: Path) -> None:
    """Table and statement agree with each other, and not with what the steps and the student were made from."""

    def forge(out: Path) -> None:
        table = json.loads(out.read_bytes())
        for row in table["rows"]:
            if row["role"] == "soft-target":
                row["weights"] = "sha256:" + 64 * "2"
        out.write_bytes(canonical(table) + b"\n")

    log = list(read_lines(copied / "ledger" / "log.jsonl"))
    config = [line["config"] for line in log if (line["kind"], line["stage"]) == ("statement", "sources")][-1]
    told = _staged(copied, "sources", forge, teacher=config["teacher"] | {"weights": "sha256:" + 64 * "2"})
    assert any("other weights than" in one for one in told), told


def test_a_step_on_what_was_set_aside_is_found(copied: Path) -> None:
    aside = [row["id"] for row in read_lines(copied / "data" / "conversations.jsonl") if row["kind"] == "validation"]

    def forge(out: Path) -> None:
        steps = list(read_lines(out))
        steps[0]["examples"][0] = aside[0]
        write_lines(out, steps)

    assert any("not among the conversations to train on" in one for one in _staged(copied, "train", forge))


def test_signals_of_an_earlier_method_are_no_fault(run_file: Path, tmp_path: Path) -> None:
    do(run_file, tmp_path / "run", **SHORT, method__loss="sparse-forward-kl", method__c=0.1)
    do(run_file, tmp_path / "run", **SHORT, data__limit=18)
    assert whats(tmp_path / "run") == []
