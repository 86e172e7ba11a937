"""Runs `code_runner` with a deadline and limits on memory, processes and output.

With `namespaces` the code has no network, sees files read-only and others' not at all, and dies with its namespace: a kernel
boundary. Without, only the limits of the process hold: its own files, the network and processes it leaves behind are open to it.
In either, code that looks for the runner's token in its own process could claim to have passed.
"""

import contextlib
import functools
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

RUNNER = Path(__file__).with_name("code_runner.py")
MAX_OUTPUT = 4096  # bytes that a runner may tell
MAX_PROCESSES = 32
FILE_BYTES = 16 << 20
LOOK_S = 0.05
_UNSHARE = (
    "--user",
    "--map-root-user",
    "--net",
    "--mount",
    "--pid",
    "--ipc",
    "--uts",
    "--fork",
    "--kill-child",
    "--mount-proc",
)


class Limits(NamedTuple):
    """Wall time of one test in seconds, memory of all its processes in bytes, and whether it is shut in."""

    time_s: float
    memory_bytes: int
    isolated: bool


def run_test(code: str, setup: str, test: str, limits: Limits) -> str:
    """What came of it: "passed", "raised" and the name of the exception, "time", "memory", "processes", "output", or "ended" for
    code that ended its process. `isolation_problem` says before whether `isolated` can be had."""
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="tutelage-code-", ignore_cleanup_errors=True) as folder:
        job = {
            "code": code, "setup": setup, "test": test, "token": token, "folder": os.path.realpath(folder),
            "isolated": limits.isolated, "memory_bytes": limits.memory_bytes, "file_bytes": FILE_BYTES,
            "cpu_s": max(1, round(limits.time_s) + 1),
        }  # fmt: skip
        command = [sys.executable, "-I", "-S", "-B", str(RUNNER)]
        command = [_unshare() or "unshare", *_UNSHARE, *command] if limits.isolated else command
        with tempfile.TemporaryFile() as stdin:
            stdin.write(json.dumps(job).encode())
            stdin.seek(0)
            process = subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder,
                env={"PATH": os.defpath, "TMPDIR": folder, "HOME": folder, "LC_ALL": "C.UTF-8"}, start_new_session=True,
            )  # fmt: skip
        try:
            return _watched(process, token, limits)
        finally:
            _end(process)


@functools.cache
def isolation_problem() -> str:
    """Why code cannot be shut in on this machine; "" when it can. Tried once, by shutting in a test that must pass."""
    if not sys.platform.startswith("linux"):
        return f"{sys.platform} has no namespaces"
    if not _unshare():
        return "there is no program `unshare` (util-linux)"
    found = run_test("", "", "pass", Limits(20.0, 1 << 29, True))
    return "" if found == "passed" else "the kernel or the container refuses user namespaces or mounts in them"


def _unshare() -> str | None:
    return shutil.which("unshare", path=os.defpath + ":/usr/sbin:/sbin")


def _watched(process: subprocess.Popen[bytes], token: str, limits: Limits) -> str:
    assert process.stdout is not None
    ends, output, pipe = time.monotonic() + limits.time_s, b"", process.stdout.fileno()
    while True:
        left = ends - time.monotonic()
        if left <= 0:
            return "time"
        if select.select([pipe], [], [], min(LOOK_S, left))[0]:
            read = os.read(pipe, MAX_OUTPUT)
            output += read
            if len(output) > MAX_OUTPUT:
                return "output"
            if not read or output.endswith(b"\n"):
                break
        elif problem := _too_much(process.pid, limits.memory_bytes):
            return problem
    first, _, outcome = output.decode(errors="replace").rstrip("\n").partition(" ")
    return outcome if first == token and outcome else "ended"


def _too_much(pid: int, memory_bytes: int) -> str:
    family = _family(pid)
    if len(family) > MAX_PROCESSES:
        return "processes"
    memory = 0
    for one in family:
        with contextlib.suppress(psutil.Error):
            memory += one.memory_info().rss
    return "memory" if memory > memory_bytes else ""


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _end(process: subprocess.Popen[bytes]) -> None:
    """Children first: the first of them is the init of the namespace, and takes all others along, wherever they hid."""
    for one in _family(process.pid):
        with contextlib.suppress(psutil.Error):
            one.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
