"""The record: any byte changed, dropped, doubled or swapped in what it covers is found, and where."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import Made, do
from tutelage.canon import canonical, digest_bytes
from tutelage.ledger import verify as verifier
from tutelage.ledger.verify import verify

NOT_COVERED = (
    "verify.py",
    "index.sqlite",
    "report.html",
    "run.toml",
    "environment.json",
    ".lock",
    "run/logs",
    "run/work",
)


def covered_files(run: Path) -> list[Path]:
    files = [path for path in run.rglob("*") if path.is_file()]
    return [path for path in files if path.stat().st_size and not any(part in str(path) for part in NOT_COVERED)]


def test_a_finished_run_verifies(finished: Made) -> None:
    result = verify(finished.folder)
    assert result.findings == ()
    assert len(result.shares) == 1
    assert result.shares[0].startswith("100 % of the ")
    assert "from word-counter under MIT" in result.shares[0]
    assert result.counts["exchanges"] > 300


def test_the_verifier_runs_alone(finished: Made, tmp_path: Path) -> None:
    alone = shutil.copy(Path(verifier.__file__), tmp_path / "verify.py")
    done = subprocess.run(
        [sys.executable, "-I", str(alone), str(finished.folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "OK  sha256:" in done.stdout


def test_every_kind_of_file_is_covered(finished: Made) -> None:
    names = {path.relative_to(finished.folder).as_posix() for path in covered_files(finished.folder)}
    assert names >= {
        "evidence.json", "config.json", "student/model.safetensors", "student/README.md", "before/model.safetensors",
        "train/weights.safetensors", "train/consumed.jsonl", "curate/selection.json", "collect/exchanges.jsonl",
        "prove/scores.jsonl", "provenance/log.jsonl", "provenance/checkpoint", "provenance/sources.json", "store/000001.seg",
        "store/run.key", "data/gold.json",
    }  # fmt: skip


def test_single_byte_mutations_are_caught_and_located(copied: Made) -> None:
    draw = random.Random(11)
    files = covered_files(copied.folder)
    for path in files:
        original = path.read_bytes()
        for _ in range(6 if len(original) > 100_000 else 9):
            at = draw.randrange(len(original))
            flipped = original[at] ^ (1 << draw.randrange(8))
            path.write_bytes(original[:at] + bytes([flipped]) + original[at + 1 :])
            findings = verify(copied.folder).findings
            name = path.relative_to(copied.folder).as_posix()
            assert findings, f"{name}: byte {at} {original[at]:#x} -> {flipped:#x} was not noticed"
            located = any(name in finding.where for finding in findings)
            assert located or name in ("store/run.key", "collect/exchanges.jsonl"), (name, findings[:3])
        path.write_bytes(original)
    assert not verify(copied.folder).findings


@pytest.mark.parametrize(
    "name", ["provenance/log.jsonl", "store/000001.seg", "train/consumed.jsonl", "prove/exchanges.jsonl"]
)
@pytest.mark.parametrize("how", ["drop", "double", "swap", "truncate"])
def test_lines_dropped_doubled_swapped_and_cut(copied: Made, name: str, how: str) -> None:
    path = copied.folder / name
    lines = path.read_bytes().splitlines(keepends=True)
    at = len(lines) // 2
    changed = {
        "drop": lines[:at] + lines[at + 1 :],
        "double": [*lines[: at + 1], *lines[at:]],
        "swap": [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]],
        "truncate": lines[:-3],
    }[how]
    path.write_bytes(b"".join(changed))
    result = verify(copied.folder)
    harmless = name.endswith(".seg") and how in ("double", "swap")  # the store is a set of records, named by content
    assert bool(result.findings) != harmless


def test_an_answer_changed_with_its_digest_is_caught_by_the_commitment(copied: Made) -> None:
    path = copied.folder / "store" / "000001.seg"
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if b" exchange " in line)
    value = json.loads(lines[at].split(b" ", 2)[2])
    value["model"]["licence"] = "Apache-2.0"
    body = canonical(value)
    lines[at] = digest_bytes(body).encode() + b" exchange " + body + b"\n"
    path.write_bytes(b"".join(lines))
    assert any("committed answers are not in the store" in finding.what for finding in verify(copied.folder).findings)


def test_a_forged_source_table_does_not_match_the_steps(copied: Made) -> None:
    path = copied.folder / "provenance" / "sources.json"
    value = json.loads(path.read_bytes())
    value["sources"][0]["teacher"] = "somebody-else"
    path.write_bytes(canonical(value) + b"\n")
    assert any("the steps taken say" in finding.what for finding in verify(copied.folder).findings)


def test_an_added_file_is_noticed(copied: Made) -> None:
    (copied.folder / "student" / "adapter_config.json").write_text("{}")
    assert [finding.where for finding in verify(copied.folder).findings] == ["student/adapter_config.json"]


def test_evidence_of_another_student_is_noticed(copied: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between shipping a new student and proving it: what is proven is not what would be served."""
    from tutelage.pipeline import evidence

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evidence, "_teacher", killed)
    with pytest.raises(KeyboardInterrupt):
        do(copied.run_file, copied.folder, **{"train.epochs": 2})
    assert any("rests on another student" in finding.what for finding in verify(copied.folder).findings)
    monkeypatch.undo()
    do(copied.run_file, copied.folder, **{"train.epochs": 2})
    assert not verify(copied.folder).findings


def test_a_missing_file_and_hostile_content_are_findings_not_crashes(copied: Made) -> None:
    (copied.folder / "train" / "weights.safetensors").unlink()
    assert any("is missing" in finding.what for finding in verify(copied.folder).findings)
    (copied.folder / "provenance" / "log.jsonl").write_bytes(
        b'{"previous": [1, 2], "kind": {}}\n' + b"[" * 5000 + b"\n\xff"
    )
    assert verify(copied.folder).findings
    (copied.folder / "store" / "000001.seg").write_bytes(b"\x00\xff\n" * 50)
    assert verify(copied.folder).findings
