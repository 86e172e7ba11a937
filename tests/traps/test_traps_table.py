"""docs/traps.md says of every trap where its test is, and says the truth."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.mutants.planted import PLANTED

ROOT = Path(__file__).parents[2]
TRAPS = [f"{table}{at}" for table, count in zip("ABCDE", (9, 11, 20, 14, 7), strict=True) for at in range(1, count + 1)]
NAMED = re.compile(r"test_traps?((?:_[a-f]\d+)+)_")


class Row(NamedTuple):
    """A line of the table: the files it names (below tests/), what else it says, and whether mistakes are planted."""

    trap: str
    files: set[str]
    words: str
    planted: bool


def rows() -> Iterator[Row]:
    for line in (ROOT / "docs" / "traps.md").read_text(encoding="utf-8").splitlines():
        if re.match(r"\| [A-E]\d+ \|", line):
            trap, _, tests, mark = (cell.strip() for cell in line.split("|")[1:5])
            yield Row(trap, set(re.findall(r"`([a-z_/0-9]+)`", tests)), tests, mark == "M")


@cache
def trap_tests() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """File below tests/ without its ending, name and traps of every test that is named after some, of tables A to E: F is about
    claims, and not here."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (name := NAMED.match(node.name)):
                traps = tuple(trap for trap in name[1].upper().strip("_").split("_") if trap in TRAPS)
                if traps:
                    found.append((path.relative_to(ROOT / "tests").with_suffix("").as_posix(), node.name, traps))
    return tuple(found)


def named() -> dict[str, set[str]]:
    """For each trap the test files that hold a test named after it."""
    found: dict[str, set[str]] = {trap: set() for trap in TRAPS}
    for file, _, traps in trap_tests():
        for trap in traps:
            found[trap].add(file)
    return found


def test_every_trap_has_its_line_and_every_line_its_test() -> None:
    table, tests = list(rows()), named()
    assert [row.trap for row in table] == TRAPS
    for row in table:
        assert row.files == tests[row.trap], f"{row.trap}: its tests are in {tests[row.trap]}"
        assert row.files or row.words.startswith("cannot happen: "), row.trap
        assert row.planted == any(mutant.trap == row.trap for mutant in PLANTED), row.trap
        assert row.planted == bool(row.files), f"{row.trap}: no mistake is planted"


def test_every_test_of_a_trap_has_a_mistake_that_it_must_notice() -> None:
    """One that passes whatever is done to the code would cover nothing."""
    covered = {mutant.test for mutant in PLANTED}
    idle = [name for file, name, _ in trap_tests() if f"tests/{file}.py::{name}" not in covered]
    assert not idle, f"no mistake is planted for {', '.join(idle)}"
