"""Progress on standard error: a live line on a terminal, a plain line every ten seconds elsewhere. Observed, never asked.

Also the stop flag: the first Ctrl-C asks for a clean end, the second one kills.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

PLAIN_EVERY_S = 10.0


class Progress(Protocol):
    """What a stage tells while it works. A `note` stands in the line until another one, or an empty one, takes its place."""

    def begin(self, what: str, total: int, done: int = 0) -> None: ...
    def kept(self) -> None: ...
    def advance(self, done: int, *, tokens: int = 0, usd: float = 0.0, note: str | None = None) -> None: ...
    def say(self, line: str) -> None: ...
    def end(self) -> None: ...


class Stop:
    """Set by the first Ctrl-C (or SIGTERM); stages look at it between questions and between steps. `at_once`: outside
    `heeded` nobody looks for a while (imports, loading weights, looks before the first step), and no step, answer or signal
    is lost by an end there."""

    def __init__(self, *, at_once: bool = False) -> None:
        self._event = threading.Event()
        self._at_once, self._heeded = at_once, 0

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Within: whoever works looks at the flag often, and ends tidily."""
        self._heeded += 1
        try:
            yield
        finally:
            self._heeded -= 1

    @property
    def ends_at_once(self) -> bool:
        return self._at_once and not self._heeded


@contextmanager
def stop_on_signals(say: Progress, *, at_once: bool = False) -> Iterator[Stop]:
    """Within: SIGINT and SIGTERM set the stop flag; a second one raises `KeyboardInterrupt`, and so does the first where the
    flag `ends_at_once`."""
    stop = Stop(at_once=at_once)

    def handle(number: int, frame: FrameType | None) -> None:
        if stop or stop.ends_at_once:
            say.say("stopped at once; run the same command again to resume")
            raise KeyboardInterrupt
        stop.set()
        say.say("stopping: finishing what is under way (Ctrl-C again to kill)")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Quiet:
    """Says nothing."""

    def begin(self, what: str, total: int, done: int = 0) -> None: ...
    def kept(self) -> None: ...
    def advance(self, done: int, *, tokens: int = 0, usd: float = 0.0, note: str | None = None) -> None: ...
    def say(self, line: str) -> None: ...
    def end(self) -> None: ...


class Lines:
    """Plain lines, or one rewritten line on a terminal: done/total, rate, tokens/s, money, time left."""

    def __init__(self, *, live: bool | None = None) -> None:
        self._live = sys.stderr.isatty() if live is None else live
        self._what, self._total = "", 0
        self._done = self._began_with = 0
        self._tokens, self._usd, self._note = 0, 0.0, ""
        self._began_at = self._shown_at = 0.0

    def begin(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._done, self._began_with = what, total, done, done
        self._tokens, self._usd, self._note = 0, 0.0, ""
        self._began_at = time.monotonic()
        self._shown_at = self._began_at
        kept = f", {done} already done" if done else ""
        self.say(f"{what}: {total}{kept}")

    def kept(self) -> None:
        """One more that was done before: it counts as done, not as speed."""
        self._done += 1
        self._began_with += 1

    def advance(self, done: int, *, tokens: int = 0, usd: float = 0.0, note: str | None = None) -> None:
        self._done, self._note = done, self._note if note is None else note
        self._tokens += tokens
        self._usd += usd
        now = time.monotonic()
        if now - self._shown_at >= (0.2 if self._live else PLAIN_EVERY_S):
            self._shown_at = now
            self._show()

    def say(self, line: str) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
        self.say(self._line(final=True))

    def _show(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K" + self._line(final=False)[:118])
            sys.stderr.flush()
        else:
            self.say(self._line(final=False))

    def _line(self, *, final: bool) -> str:
        took = max(1e-9, time.monotonic() - self._began_at)
        rate = (self._done - self._began_with) / took
        parts = [f"  {self._what}: {self._done}/{self._total}", f"{rate:.1f}/s"]
        if self._tokens:
            parts.append(f"{self._tokens / took:,.0f} tokens/s")
        if self._usd:
            parts.append(f"${self._usd:.4f}")
        if self._note and not final:
            parts.append(self._note)
        if final and self._began_with:
            parts.append(f"{self._began_with} of them before")
        if final:
            parts.append(f"took {clock(took)}")
        elif rate > 0:
            parts.append(f"{clock((self._total - self._done) / rate)} left")
        return "  ".join(parts)


def clock(seconds: float) -> str:
    """`75` → `1:15`."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
