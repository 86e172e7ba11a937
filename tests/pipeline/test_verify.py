"""The record of a real run: any byte changed in what it covers is found, and where; a forged one holds alone and no further.

What needs many records (lines, links, hostile content, contradictions) is tried on small ones: tests/ledger.
"""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.ledger.made import new_signer
from tests.ledger.test_forgeries import rewritten
from tests.pipeline.conftest import Made, entries_of
from tutelage.canon import canonical, digest_bytes
from tutelage.jsonl import pretty
from tutelage.ledger import disclose
from tutelage.ledger import verify as verifier
from tutelage.ledger.verify import NOT_LOCATED, Trust, verify
from tutelage.pipeline.opening import blinded_values, position_of


def covered_files(run: Path) -> list[Path]:
    names = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    covered = [name for name in names if not name.startswith(NOT_LOCATED) or name == "ledger/locator.jsonl"]
    return [run / name for name in covered if (run / name).stat().st_size]


def test_a_finished_run_verifies(finished: Made) -> None:
    result = verify(finished.folder, Trust(key=finished.signer.verification_key))
    assert result.findings == ()
    assert len(result.shares) == 1
    assert result.shares[0].startswith("100 % of the ")
    assert "from word-counter under MIT" in result.shares[0]
    assert result.counts["exchanges"] > 300
    assert result.tier[0].startswith("L0 signed claim: signed by example.org/ada+")
    assert result.tier[1] == "L1 claimed by the signer"
    for path in (finished.folder, finished.folder / "provenance"):
        assert verify(path, Trust(root=result.root)).findings == ()
        assert verify(path).tier[0].endswith("a key you did not name (--key)")


def test_the_verifier_runs_alone(finished: Made, tmp_path: Path) -> None:
    """With nothing but the standard library, and as the file that a record carries along."""
    alone = shutil.copy(finished.folder / "provenance" / "verify.py", tmp_path / "verify.py")
    assert alone.read_bytes() == Path(verifier.__file__).read_bytes()
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(alone), str(finished.folder), "--key", finished.signer.verification_key],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "OK  log root sha256:" in done.stdout
    assert done.stderr == ""


def test_every_kind_of_file_is_covered(finished: Made) -> None:
    names = {path.relative_to(finished.folder).as_posix() for path in covered_files(finished.folder)}
    assert names >= {
        "evidence.json", "config.json", "student/model.safetensors", "student/README.md", "before/model.safetensors",
        "train/weights.safetensors", "train/consumed.jsonl", "train/chain.jsonl", "curate/selection.json",
        "collect/exchanges.jsonl", "prove/scores.jsonl", "ledger/log.jsonl", "ledger/locator.jsonl",
        "ledger/examples/1.jsonl", "ledger/selection/0", "provenance/checkpoint", "provenance/sources.json",
        "provenance/statement.dsse.json", "provenance/sealed.json", "store/000001.seg", "store/run.key", "data/gold.json",
    }  # fmt: skip
    left_out = {
        path.relative_to(finished.folder).as_posix() for path in finished.folder.rglob("*") if path.is_file()
    } - names
    empty = {name for name in left_out if not (finished.folder / name).stat().st_size}
    assert {name.split("/")[0] for name in left_out - empty} <= {
        "environment.json",
        "logs",
        "work",
        "report.html",
        "store",
    }
    assert {name for name in left_out if name.startswith("store/")} == {"store/index.sqlite"}


def one_byte(path: Path, draw: random.Random) -> int:
    """Changes one bit of the file and says in which byte."""
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    data[at] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return at


def test_single_byte_mutations_are_caught_and_located(copied: Made, finished: Made) -> None:
    """One in every file: what stages wrote all at once, since each is found by its own digest; the rest one by one. Many
    more, on a small record: tests/ledger."""
    draw, run = random.Random(11), copied.folder
    written = {name for entry in entries_of(run) if entry.kind == "statement" for name in entry.outputs}
    names = [path.relative_to(run).as_posix() for path in covered_files(run)]
    places = {name: one_byte(run / name, draw) for name in names if name in written}
    told = [(finding.where, finding.what[:38]) for finding in verify(run).findings]
    for name, at in places.items():
        assert (f"{name} byte {at}", "has another digest than recorded (sha2") in told
        shutil.copy(finished.folder / name, run / name)
    for name in [name for name in names if name not in written]:
        at = one_byte(run / name, draw)
        where = [finding.where for finding in verify(run).findings]
        assert any(place.startswith(name) and place.endswith(f" byte {at}") for place in where), (name, at, where[:3])
        shutil.copy(finished.folder / name, run / name)
    assert not verify(run).findings


def test_a_forged_record_holds_alone_and_no_further(copied: Made, finished: Made) -> None:
    """Backdated, chained, hashed, sealed and signed anew by a stranger under the same name."""
    true = verify(finished.folder)

    def backdate(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            entry["started_at"] = entry["ended_at"] = "2020-01-01T00:00:00Z"

    rewritten(copied.folder, backdate, new_signer())
    assert verify(copied.folder).findings == ()
    for path in (copied.folder, copied.folder / "provenance"):
        for trust in (Trust(key=finished.signer.verification_key), Trust(root=true.root)):
            result = verify(path, trust)
            assert result.findings
            assert result.shares == ()


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


def test_a_forged_source_table_is_not_the_one_stated(copied: Made) -> None:
    path = copied.folder / "provenance" / "sources.json"
    value = json.loads(path.read_bytes())
    value["rows"][-1]["row"]["teacher"] = "somebody-else"
    path.write_bytes(canonical(value) + b"\n")
    told = verify(copied.folder).findings
    assert any(finding.where.startswith("provenance/sources.json") for finding in told)
    assert any("is not the source table of 4 rows" in finding.what for finding in told)


def test_every_kind_of_disclosure_holds_on_a_real_run(finished: Made, tmp_path: Path) -> None:
    run, sealed = finished.folder, disclose.Sealed(finished.folder)
    prompt = json.loads((run / "curate" / "selection.json").read_bytes())["train"][5]["prompt"]
    at = position_of(run, prompt, None)
    values = blinded_values(run, at, disclose.OPENABLE)
    kept = next((run / "provenance" / "checkpoints").iterdir()).read_text()
    made = {
        "share": disclose.share(sealed, "word-counter", "MIT"),
        "absence": disclose.absence(sealed, "gpt-9"),
        "example": disclose.example(sealed, at, "soft-target", values),
        "audit": disclose.audit(sealed, "round 1", 50),
        "consistency": disclose.consistency(sealed, kept),
    }
    for about, value in made.items():
        (tmp_path / about).write_bytes(pretty(value))
        result = verify(tmp_path / about, Trust(key=finished.signer.verification_key))
        assert result.findings == (), about
    said = verify(tmp_path / "example").shares
    assert any(line.startswith("logprobs: [{") for line in said)
    assert f"answer: {values['answer']}" in said


def test_a_missing_file_is_named(copied: Made) -> None:
    (copied.folder / "train" / "weights.safetensors").unlink()
    assert ("train/weights.safetensors", "is missing") in verify(copied.folder).findings
