"""Runs tests on copies of the package, each with one mistake in it. A program, so that nothing of the package is loaded before
the copy is chosen: it loads what is slow to load once and forks.

Reads {"preload": modules, "jobs": [[name, file, old, new, tests], …]} from its standard input, `file` empty for a copy without
a mistake; prints a line of JSON for each job: its name, pytest's exit code (−1 when time ran out), seconds and the end of what it said.
"""

import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 300.0
OPTIONS = ("-q", "-x", "-m", "not gpu", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line", "--disable-warnings",
           "-c", "pyproject.toml")  # fmt: skip


def main() -> None:
    """Forked children do not share threads: one each."""
    asked = json.load(sys.stdin)
    sys.path[:] = [path for path in sys.path if path and Path(path).resolve() not in (ROOT, Path(__file__).parent)]
    for module in asked["preload"]:
        importlib.import_module(module)
    for name, file, old, new, tests in asked["jobs"]:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            scratch = Path(folder)
            copy(scratch, file, old, new)
            code = in_a_fork(scratch, tests)
            said = (scratch / "said").read_text(errors="replace")[-1500:]
        took_s = round(time.monotonic() - begun, 1)
        print(json.dumps({"name": name, "code": code, "took_s": took_s, "said": said}), flush=True)


def copy(scratch: Path, file: str, old: str, new: str) -> None:
    """The project with the mistake: the package copied, the rest linked."""
    for name in ("tests", "benchmarks", "docs"):
        (scratch / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pyproject.toml", scratch)
    shutil.copytree(ROOT / "tutelage", scratch / "tutelage", ignore=shutil.ignore_patterns("__pycache__"))
    if file:
        path = scratch / "tutelage" / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} holds {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")


def in_a_fork(scratch: Path, tests: list[str]) -> int:
    """Exit code of pytest in a child that sees the copy and no other."""
    child = os.fork()
    if not child:
        os.setsid()
        said = os.open(scratch / "said", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(scratch)
        os.environ["PYTHONPATH"] = str(scratch)
        sys.path.insert(0, str(scratch))
        settings.register_profile("mutant", database=None, derandomize=True)  # no luck, and nothing left behind
        settings.load_profile("mutant")
        code = 3
        try:
            code = int(pytest.main([*OPTIONS, *tests]))
        finally:
            sys.stdout.flush()
            os._exit(code)
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


if __name__ == "__main__":
    main()
