"""How far a run is that somebody is working in, from what it writes anyway: the log, the store, the journal of its steps."""

import json
import os
import time
from pathlib import Path
from typing import Any

from tutelage.records import Statement
from tutelage.view.index import Known
from tutelage.view.runs import Run, stages_of

_LOCKS = Path("/proc/locks")
_TAIL = 1 << 16


def progress(run: Run, known: Known) -> dict[str, str]:
    """The words of the live box by name. Raises `StorageError` for a log that cannot be read."""
    entries = run.statements()
    stages = stages_of(entries)
    begun = next((stage for stage in reversed(stages) if not stage.is_done), None)
    held = is_held(run.folder)
    total = asked_in_all(entries)
    answers = f"{known.examples:,}" + (f" (the collection asks {total:,})" if total else "")
    found = {
        "stage": begun.name if begun else "no stage is begun",
        "state": "at work" if held else "nobody works in it" if held is not None else "not known here",
        "answers": answers,
        "step": "",
        "changed": ago(newest_change(run.folder)),
        "entries": str(len(entries)),
    }
    if begun is not None and (step := last_step(run.folder)):
        loss = step.get("loss_nats")
        found["step"] = f"{step['step']}" + (f", loss {loss:.3f} nats" if isinstance(loss, float) else "")
    return found


def is_held(folder: Path) -> bool | None:
    """Whether a process holds the run's lock, from the system's list of locks; None where there is no such list. Trying the
    lock itself could turn away a run that begins in that moment."""
    try:
        inode = (folder / ".lock").stat().st_ino
        lines = _LOCKS.read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return False if _LOCKS.exists() else None
    except OSError:
        return None
    held = [line.split() for line in lines]
    return any("FLOCK" in line and any(part.endswith(f":{inode}") for part in line) for line in held)


def newest_change(folder: Path) -> float:
    """Seconds of POSIX time at which the log, the store or the journal changed last; 0 when there is none of them."""
    paths = [folder / "ledger" / "log.jsonl", *(folder / "store").glob("*.seg"), *_journals(folder)]
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def ago(at: float, now: float | None = None) -> str:
    """`12 s ago`, `5 min ago`, `3 h ago`, `4 days ago`; `never` for 0."""
    if at == 0:
        return "never"
    seconds = max(0.0, (time.time() if now is None else now) - at)
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def asked_in_all(entries: list[Statement]) -> int:
    """How many questions the collection asks, once the stage that counts them is done; 0 before, or when nobody counts."""
    for entry in reversed(entries):
        if entry.kind != "statement":
            continue
        if entry.stage == "data" and "held_out" in entry.facts:
            return _whole(entry.facts.get("train")) + _whole(entry.facts.get("validation"))
        if entry.stage == "questions":
            return _whole(entry.facts.get("questions"))
    return 0


def last_step(folder: Path) -> dict[str, Any]:
    """The newest line of the journal of a training that is under way; empty when there is none."""
    for path in sorted(_journals(folder), key=lambda path: -path.stat().st_mtime):
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            for line in reversed(file.read().split(b"\n")[:-1]):
                try:
                    found = json.loads(line)
                except ValueError:
                    continue
                if isinstance(found, dict) and isinstance(found.get("step"), int):
                    return found
    return {}


def _journals(folder: Path) -> list[Path]:
    return [path for path in (folder / "work").glob("train-*/**/journal.jsonl") if path.is_file()]


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0
