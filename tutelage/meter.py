"""CPU-seconds, energy and counts that add up over resumed runs, in a small file."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.energy import Watch, counters
from tutelage.jsonl import write_whole


@dataclass(frozen=True, slots=True)
class Meter:
    """CPU time, energy where the machine tells, and a count of what they were spent on. A killed run adds nothing."""

    path: Path

    def add(self, cpu_s: float, count: int, energy_j: float | None = None) -> None:
        """`energy_j` None: nobody told; `energy_count` in the file is what was counted while somebody did."""
        known = self._read()
        known["cpu_ms"] += round(1000 * cpu_s)
        known["count"] += count
        if energy_j is not None:
            known["energy_mj"] += round(1000 * energy_j)
            known["energy_count"] += count
        write_whole(self.path, json.dumps(known).encode())

    def read(self) -> tuple[int, int]:
        """CPU time in ms, and the count."""
        known = self._read()
        return known["cpu_ms"], known["count"]

    def cpu_s_each(self) -> float | None:
        """`None` when nothing was measured."""
        cpu_ms, count = self.read()
        return cpu_ms / 1000 / count if count else None

    def energy_j_each(self) -> float | None:
        """Joules, of the part that was measured; `None` when none was."""
        known = self._read()
        return known["energy_mj"] / 1000 / known["energy_count"] if known["energy_count"] else None

    def energy_mj(self) -> int | None:
        """Millijoules of all; `None` when a part was not measured."""
        known = self._read()
        return known["energy_mj"] if known["energy_count"] == known["count"] > 0 else None

    def _read(self) -> dict[str, int]:
        kept = json.loads(self.path.read_bytes()) if self.path.exists() else {}
        return {"cpu_ms": 0, "count": 0, "energy_mj": 0, "energy_count": 0} | kept


@contextmanager
def own_work(path: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """What this process takes inside, earlier tries that are in the file at `path` included. Gives a function to call afterwards:
    `cpu_ms`, and `energy_mj` of the whole machine's counters where every try was measured."""
    import psutil

    meter, process = Meter(path), psutil.Process()
    began = sum(process.cpu_times()[:2])
    watch = Watch(counters().counters)

    def spent() -> dict[str, Any]:
        energy = meter.energy_mj()
        return {"cpu_ms": meter.read()[0]} | ({} if energy is None else {"energy_mj": energy})

    try:
        with watch:
            yield spent
    finally:
        meter.add(sum(process.cpu_times()[:2]) - began, 1, watch.joules())
