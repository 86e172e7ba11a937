"""What a store holds, by reading every line of every segment with the standard library: the slow twin of the index."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any


class Naive:
    """Answers (address to digest of the first), money and listed lines of a store folder."""

    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, str] = {}
        self.settled = [0, 0]
        self.listed: dict[str, list[str]] = defaultdict(list)
        self._noted = [0, 0]
        self._open: list[dict[str, Any]] = []  # reservations in order, all segments
        late: list[tuple[str, int, str]] = []
        for path in sorted(folder.glob("*.seg")):
            for line in path.read_bytes().split(b"\n")[:-1]:  # what follows the last newline is torn
                digest, kind, text = line.decode().split(" ", 2)
                self._take(path.name, digest, kind, json.loads(text), late)
        for segment, number, request in late:  # in order: closed in a later segment than they were made in
            self._close(lambda one, at=segment: one["segment"] < at, number, request)

    @property
    def unresolved(self) -> list[int]:
        return [
            self._noted[0] + sum(one["nusd"] for one in self._open),
            self._noted[1] + sum(one["tokens"] for one in self._open),
        ]

    def _take(self, segment: str, digest: str, kind: str, value: dict[str, Any], late: list) -> None:
        if kind == "reservation":
            self._open.append({**value, "segment": segment})
        elif kind == "attempt":
            self.settled[0] += value["nusd"]
            self.settled[1] += value["tokens"]
            self._noted[0] += value["open_nusd"]
            self._noted[1] += value["open_tokens"]
        elif kind == "exchange":
            self.answers.setdefault(value["request_digest"], digest)
            if value["origin"] != "asked" or value["model"]["provider"] == "tutelage":
                return
            self.settled[0] += value["price"]["cost_nusd"]
            self.settled[1] += value["usage"]["prompt_tokens"] + value["usage"]["completion_tokens"]
        if kind in ("attempt", "exchange"):
            number = value["attempt"] if kind == "attempt" else value["attempts"]
            here = self._close(lambda one: one["segment"] == segment, number, value["request_digest"])
            if number and not here:
                late.append((segment, number, value["request_digest"]))
        if kind not in ("body", "request", "exchange", "reservation"):
            self.listed[kind].append(digest)

    def _close(self, where: Any, number: int, request: str) -> bool:
        """Closes the newest reservation of that call among those; says whether there was one."""
        for at in reversed(range(len(self._open))):
            one = self._open[at]
            if number and one["request_digest"] == request and one["attempt"] == number and where(one):
                del self._open[at]
                return True
        return False
