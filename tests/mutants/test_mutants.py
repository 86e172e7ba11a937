"""A trap whose planted mistake survives is not covered.

The whole campaign takes minutes (`pytest -m slow tests/mutants`); that the list has not rotted is checked always, and a few
mistakes are planted each time, to see that planting works.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.planted import PLANTED

ROOT = Path(__file__).parents[2]
IDS = [f"{mutant.trap}-{at}" for at, mutant in enumerate(PLANTED)]
LIGHT = ["torch", "hypothesis"]
HEAVY = [*LIGHT, "numpy", "orjson", "pydantic", "transformers.models.llama.modeling_llama", "transformers.generation"]
FEW = 4  # of those that only losses must be loaded for
CONTROL = "as it is"


def failing(mutants: Sequence[Mutant], preload: Sequence[str]) -> dict[str, int]:
    """Exit code of each mutant's test, by the mutant's id; and of all their tests on an unspoilt copy."""
    jobs = [[CONTROL, "", "", "", sorted({mutant.test for mutant in mutants})]]
    jobs += [[IDS[PLANTED.index(m)], m.file, m.old, m.new, [m.test]] for m in mutants]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("campaign.py"))],
        input=json.dumps({"preload": preload, "jobs": jobs}), cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found = {}
    for line in done.stdout.splitlines():
        told = json.loads(line)
        found[told["name"]] = told["code"]
        print(told["name"], told["code"], told["said"] if told["code"] != int(told["name"] != CONTROL) else "")
    return found


def assert_each_fails(mutants: Sequence[Mutant], preload: Sequence[str]) -> None:
    found = failing(mutants, preload)
    assert found.pop(CONTROL) == 0, "the tests fail without any mistake"
    assert len(found) == len(mutants)
    assert {name: code for name, code in found.items() if code not in (1, -1)} == {}, "survived"


@pytest.mark.parametrize("mutant", PLANTED, ids=IDS)
def test_each_mistake_can_still_be_planted(mutant: Mutant) -> None:
    assert (ROOT / "tutelage" / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new
    file, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
    assert f"_{mutant.trap.lower()}_" in name, "the test is not named after the trap"


def test_planted_mistakes_are_noticed() -> None:
    light = [mutant for mutant in PLANTED if mutant.test.startswith("tests/losses/")]
    assert_each_fails(light[:: len(light) // FEW][:FEW], LIGHT)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_mistake_survives() -> None:
    assert_each_fails(PLANTED, HEAVY)
