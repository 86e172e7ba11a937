"""CPU-seconds and counts that add up over resumed runs, in a small file."""

import json
from dataclasses import dataclass
from pathlib import Path

from tutelage.jsonl import write_whole


@dataclass(frozen=True, slots=True)
class Meter:
    """CPU time and a count of what it was spent on. What a killed run did not add is in neither."""

    path: Path

    def add(self, cpu_s: float, count: int) -> None:
        cpu_ms, known = self.read()
        write_whole(self.path, json.dumps({"cpu_ms": cpu_ms + round(1000 * cpu_s), "count": known + count}).encode())

    def read(self) -> tuple[int, int]:
        """CPU time in ms, and the count."""
        if not self.path.exists():
            return 0, 0
        value = json.loads(self.path.read_bytes())
        return value["cpu_ms"], value["count"]

    def cpu_s_each(self) -> float | None:
        """`None` when nothing was measured."""
        cpu_ms, count = self.read()
        return cpu_ms / 1000 / count if count else None
