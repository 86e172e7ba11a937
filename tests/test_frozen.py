"""What a release wrote verifies for ever: whole runs and disclosures as each version made them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.ledger.verify import Trust, told, verify

VERSIONS = sorted(path for path in (Path(__file__).parent / "frozen").iterdir() if (path / "trust.json").exists())
DISCLOSED = {
    "share": "100 % of the ",
    "blinded": "at least ",
    "absence": "no example of the record came from 'somebody-else'",
    "example": "this example was used as ",
    "audit": "these 20 draws would have hit one with 95 %",
    "consistency": "nothing was rewritten",
}


def test_there_is_something_to_hold_us_to() -> None:
    assert VERSIONS


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_the_run_verifies_with_its_signers_first_key_and_its_witness(folder: Path) -> None:
    trust = json.loads((folder / "trust.json").read_text())
    result = verify(folder / "run", Trust(**trust))
    assert result.findings == ()
    assert result.tier[0].startswith("L0 signed claim")
    assert result.tier[1].startswith("L1: a witness you trust saw the selection committed at ")
    assert result.root == trust["root"]


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_the_verifier_of_that_release_still_runs(folder: Path) -> None:
    script = folder / "run" / "provenance" / "verify.py"
    done = subprocess.run(
        [sys.executable, "-I", script, folder / "run" / "provenance"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", DISCLOSED)
@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_disclosures_verify(folder: Path, name: str) -> None:
    trust = json.loads((folder / "trust.json").read_text())
    result = verify(folder / f"{name}.json", Trust(key=trust["key"]))
    assert result.findings == ()
    assert any(DISCLOSED[name] in line for line in told(result))


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_a_changed_byte_is_still_found(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    path = tmp_path / "run" / "ledger" / "examples" / "1.jsonl"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert next(finding.where for finding in verify(tmp_path / "run").findings).startswith("ledger/examples/1.jsonl")
