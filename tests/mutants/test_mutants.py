"""A trap whose planted mistake survives is not covered.

The whole campaign is slow (`pytest -m slow tests/mutants`); that the list has not rotted is checked always."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.planted import PLANTED, Mutant

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tutelage"
IDS = [f"{mutant.trap}-{at}" for at, mutant in enumerate(PLANTED)]
SAMPLE = ("A1", "D8")  # planted in every run, to see that planting works


def killed(mutant: Mutant | None, test: str, scratch: Path) -> bool:
    """Whether the test fails when run on a copy of the package with the mistake in it (or, with None, without any)."""
    for name in ("tests", "benchmarks", "docs"):
        (scratch / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pyproject.toml", scratch)
    shutil.copytree(PACKAGE, scratch / "tutelage", ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        path = scratch / "tutelage" / mutant.file
        path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(scratch), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-m",
        "not gpu",
        "-p",
        "no:xdist",
        "--rootdir",
        str(scratch),
        test,
    ]
    done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), f"{test} was not run: {done.stdout[-800:]} {done.stderr[-800:]}"
    return done.returncode == 1


@pytest.mark.parametrize("mutant", PLANTED, ids=IDS)
def test_each_mistake_can_still_be_planted(mutant: Mutant) -> None:
    assert (PACKAGE / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new
    file, _, name = mutant.test.partition("::")
    assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("mutant", [mutant for mutant in PLANTED if mutant.trap in SAMPLE], ids=SAMPLE)
def test_planted_mistakes_are_noticed(mutant: Mutant, tmp_path: Path) -> None:
    assert killed(mutant, mutant.test, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", PLANTED, ids=IDS)
def test_no_mistake_survives(mutant: Mutant, tmp_path: Path) -> None:
    assert killed(mutant, mutant.test, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("test", sorted({mutant.test for mutant in PLANTED}))
def test_without_a_mistake_nothing_fails(test: str, tmp_path: Path) -> None:
    assert not killed(None, test, tmp_path)
