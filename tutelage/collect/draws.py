"""Draws: the numbers that tell several answers to one question apart, and who may give them out in a folder.

A recording takes the first free number. An imported answer must be held against those that are there already: it is
added once, however often it comes.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tutelage.canon import digest_of
from tutelage.errors import StorageError
from tutelage.records import Exchange, Request
from tutelage.store.store import Store

MAX_DRAW = 2**31 - 1  # that a file may declare


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within: no other process records, imports or runs in the folder, where two would give out one draw twice.

    Raises `StorageError` when another one does, or when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise StorageError(f"cannot use the folder {folder}: {error}", fix="choose another --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(
                f"another process is working in {folder}", fix="wait for it, or choose another --out"
            ) from None
        yield


def free_draw(store: Store, request: Request) -> Request:
    """The request under a draw that has no answer yet: the first, where the draws of a question have no gaps. Doubling and
    halving finds it in a few looks."""
    low, high = -1, 0  # `low` is taken, `high` is not known to be
    while store.has(replace(request, draw=high).digest):
        low, high = high, 2 * high + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if store.has(replace(request, draw=middle).digest) else (low, middle)
    return replace(request, draw=high)


@dataclass(slots=True)
class _Known:
    """Digests of the answers under the draws from 0 to before `end`."""

    end: int = 0
    answers: set[str] = field(default_factory=set)


class Draws:
    """Where the answers of a file go. Files may declare draws with gaps, so each answer is looked at, but only once: the
    work grows with their number. Questions with one answer take no memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, _Known] = {}  # by the address of draw 0

    def place(self, request: Request, answer: Exchange) -> Request | None:
        """The request under a draw of its own, where the caller must store it: as declared where that is free, else the first
        free one. None when this very answer has that draw, or one of those before the first free one."""
        address = request.digest
        question = address if request.draw == 0 else replace(request, draw=0).digest
        known, digest = self._known.get(question), _digest(answer)
        if known is None or request.draw >= known.end:
            if not self._store.has(address):
                return request
            if _digest(self._store.get(address)) == digest:
                return None
        known = self._known.setdefault(question, _Known())
        while self._store.has(address := (free := replace(request, draw=known.end)).digest):
            known.answers.add(_digest(self._store.get(address)))
            known.end += 1
        if digest in known.answers:
            return None
        known.answers.add(digest)
        known.end += 1
        return free


def _digest(answer: Exchange) -> str:
    return digest_of([answer.answer, answer.reasoning, list(answer.tool_calls)])
