"""Model servers as child processes on loopback: started, watched, measured in CPU-seconds, never outliving us."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tutelage.errors import TeacherError

START_LIMIT_S = 180.0
_READY = "listening on "


class ServedProcess:
    """`python -m MODULE ARGS…` that announces its address. As a context manager it runs from beginning to end; with `start`
    and `close` from when it is needed.

    The child's standard input is a pipe from us: when we die, even by SIGKILL, the child reads its end and exits.
    """

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._loading_cpu_s = 0.0
        self.base_url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_up(self) -> bool:
        """Whether it was started, and not closed."""
        return self._process is not None

    def start(self) -> None:
        """Starts the server unless it runs, and waits for its address. Raises `TeacherError` when it does not come up."""
        if self._process is not None:
            return
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for us; the server goes on until we have drained
            )
        try:
            self.base_url = self._await_address() + "/v1"
            self._loading_cpu_s = self._used_s()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the server, if it runs."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def cpu_s(self) -> float:
        """CPU-seconds (user + system) that the server has used since it was up; what loading took is no question's."""
        return self._used_s() - self._loading_cpu_s if self._process is not None else 0.0

    def _used_s(self) -> float:
        assert self._process is not None
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def _await_address(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        output = self._process.stdout

        def read() -> None:
            for line in output:
                lines.put(line)
            lines.put("")  # the end

        threading.Thread(target=read, daemon=True).start()
        try:
            while line := lines.get(timeout=START_LIMIT_S):
                if line.startswith(_READY):
                    return line.removeprefix(_READY).strip()
        except queue.Empty:
            raise TeacherError(
                f"the server did not come up within {START_LIMIT_S:g} s", fix=f"see its log: {self._log}"
            ) from None
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise TeacherError(f"the server ended while starting: {last[0][:300]}", fix=f"see its log: {self._log}")


def announce(address: str) -> None:
    """In the child: tell the parent the address."""
    print(_READY + address, flush=True)


def exit_with_parent() -> None:
    """In the child: end the process as soon as the parent's end of standard input closes."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
