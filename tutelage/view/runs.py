"""Run folders as the viewer sees them: found, named, and told from their log alone. Nothing here writes.

`ledger.log.Log` publishes checkpoints when it is opened, and `store.Store` makes an index: both belong to whoever works
in the folder. The viewer reads the files themselves.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.errors import ConfigError, DataError, StorageError, TutelageError
from tutelage.records import NUSD_PER_USD, UNATS_PER_NAT, Statement

REPORT, EVIDENCE = "report.html", "evidence.json"
COMPARISON = "comparison.json"
CONVERSATIONS, AUTHORS, METRICS = "data/conversations.jsonl", "data/authors.json", "train/metrics.jsonl"
MOST_RUNS = 1000
_LAST = {  # the stage after which a folder is finished
    "run": "seal",
    "collect": "collect",
    "train": "ship",
    "prove": "report",
    "compare-teachers": "compare",
}
_OPENED_WITH = {"claim": "run", "comparison": "compare-teachers", "claims": "prove"}
_VERIFY = "`tutelage verify` on the folder tells what differs; restore the file from a copy"


class Stage(NamedTuple):
    """What the log says of one stage: the last time it began, and what came of it."""

    name: str
    is_done: bool
    began_at: str
    ended_at: str
    wall_ms: int | None
    facts: dict[str, Any]
    files: int
    times: int


@dataclass(frozen=True, slots=True)
class Run:
    """One folder. `number` is its place in the list, from 1: addresses name runs by it and never by a path."""

    number: int
    folder: Path
    name: str

    @property
    def kind(self) -> str:
        return kind_of(self.folder, self.statements())

    @property
    def has_pairs(self) -> bool:
        """Whether a proof tells item by item what the systems decided."""
        return (self.folder / "prove" / "scores.jsonl").exists()

    @property
    def examples_are(self) -> tuple[str, str]:
        """What the run's examples are, one and several: a training has conversations, every other folder exchanges."""
        is_training = (self.folder / CONVERSATIONS).exists()
        return ("conversation", "conversations") if is_training else ("exchange", "exchanges")

    def statements(self) -> list[Statement]:
        return read_log(self.folder)


class Summary(NamedTuple):
    """One line of the list. `outcome` is a verdict, a choice, or what training did; empty before there is one. `cost_usd` is
    None where nobody counted; `problem` is the error of a folder that cannot be read."""

    run: Run
    kind: str
    state: str  # finished | begun | open
    stage: str  # the stage that is begun
    done: int
    outcome: str
    cost_usd: float | None
    changed_at: str
    problem: TutelageError | None


def find_runs(given: Sequence[Path]) -> list[Run]:
    """The runs named, and those in folders of runs, in the order given and then by name; each folder once.

    Raises `ConfigError` for a folder that is not there or holds no run, and for more than `MOST_RUNS`.
    """
    found: dict[Path, None] = {}
    for path in given:
        if not path.is_dir():
            raise ConfigError(f"there is no folder {path}", fix="give a run folder, or a folder of runs")
        inside = [path] if is_run(path) else sorted(one for one in path.iterdir() if one.is_dir() and is_run(one))
        if not inside:
            raise ConfigError(f"{path} is no run and holds none", fix="give a run folder, or a folder of runs")
        found |= dict.fromkeys(one.resolve() for one in inside)
    if len(found) > MOST_RUNS:
        raise ConfigError(f"{len(found)} runs are too many for one list", fix=f"name at most {MOST_RUNS}")
    return [Run(number, folder, folder.name) for number, folder in enumerate(found, 1)]


def is_run(folder: Path) -> bool:
    """Whether a folder looks like one that some command of ours works in."""
    return (folder / "ledger" / "log.jsonl").exists() or (folder / "store").is_dir()


def read_log(folder: Path) -> list[Statement]:
    """The whole lines of the log; empty where there is none. Raises `StorageError` with the line that is no statement."""
    path, found = folder / "ledger" / "log.jsonl", []
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # a torn last line was never completed
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", fix="mend its permissions") from error
    for number, line in enumerate(lines, 1):
        try:
            found.append(Statement.from_json(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            why = str(error)[:200]
            raise StorageError(f"{path}, line {number} is no statement: {why}", fix=_VERIFY) from error
    return found


def kind_of(folder: Path, entries: Iterable[Statement]) -> str:
    """Which command a folder is of: run, compare-teachers, prove, collect, train or capture; "new" before that shows."""
    stages: set[str] = set()
    for entry in entries:
        if entry.kind == "opened":
            for fact, kind in _OPENED_WITH.items():
                if fact in entry.facts:
                    return kind
        stages.add(entry.stage)
    if "questions" in stages:
        return "collect"
    if stages - {"run", "terms"}:
        return "train"
    return "new" if stages else "capture" if (folder / "capture.json").exists() else "answers"


def stages_of(entries: Iterable[Statement]) -> list[Stage]:
    """Each stage once, in the order they were first begun."""
    found: dict[str, Stage] = {}
    for entry in entries:
        if entry.kind not in ("intent", "statement"):
            continue
        is_done = entry.kind == "statement"
        wall = entry.facts.get("wall_ms")
        before = found.get(entry.stage)
        found[entry.stage] = Stage(
            entry.stage,
            is_done,
            entry.started_at,
            entry.ended_at if is_done else "",
            wall if isinstance(wall, int) else None,
            {name: value for name, value in entry.facts.items() if name != "wall_ms"},
            len(entry.outputs),
            (before.times if before else 0) + (not is_done),
        )
    return list(found.values())


def summary_of(run: Run) -> Summary:
    """Never raises for what is in a folder: a list must show the others."""
    try:
        entries = run.statements()
        kind, stages = kind_of(run.folder, entries), stages_of(entries)
        begun = next((stage.name for stage in reversed(stages) if not stage.is_done), "")
        done = [stage.name for stage in stages if stage.is_done]
        state = "finished" if not begun and _LAST.get(kind) in done else "begun" if begun else "open"
        changed_at = entries[-1].ended_at if entries else ""
        return Summary(
            run, kind, state, begun, len(done), outcome_of(stages), _cost(run, stages), changed_at, None
        )  # fmt: skip
    except TutelageError as error:
        return Summary(run, "unreadable", "unreadable", "", 0, "", None, "", error)


def outcome_of(stages: Sequence[Stage]) -> str:
    """In a few words, from what the log keeps of the stages that are done; empty before there is any."""
    facts = {stage.name: stage.facts for stage in stages if stage.is_done}
    if (proved := facts.get("prove")) is not None:
        verdicts = proved.get("verdicts")
        found = verdicts if isinstance(verdicts, list) else [proved.get("verdict", "")]
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"{found[0]}{more}" if found else ""
    if (compared := facts.get("compare")) is not None:
        said = "recommended" if compared.get("is_shown") else "not shown; for now"
        return f"{said} {compared.get('recommended', '')}"
    trained = facts.get("train", {})
    before, after = trained.get("before_objective_unats"), trained.get("objective_unats")
    if isinstance(before, int) and isinstance(after, int):
        return f"validation {before / UNATS_PER_NAT:.3f} → {after / UNATS_PER_NAT:.3f} nats"
    return ""


def _cost(run: Run, stages: Sequence[Stage]) -> float | None:
    """What the folder says was spent, in USD: the evidence, or else the collection's facts."""
    found = read_json(run.folder / EVIDENCE)
    cost = found.get("cost") if isinstance(found, dict) else None
    spent = cost.get("spent_usd") if isinstance(cost, dict) else None
    if isinstance(spent, int | float):
        return float(spent)
    for stage in stages:
        for name in ("settled_nusd", "cost_nusd"):
            if stage.name == "collect" and isinstance(value := stage.facts.get(name), int):
                return value / NUSD_PER_USD
    return None


def read_json(path: Path) -> Any:
    """The file's value; None when it is not there. Raises `DataError` when it is no JSON, `StorageError` when unreadable."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", fix="mend its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {str(error)[:200]}", fix=_VERIFY) from error


def read_rows(path: Path) -> Iterable[dict[str, Any]]:
    """The objects of a JSON Lines file; nothing when it is not there. Raises `DataError` with the line that is none."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    return  # somebody is writing it
                raise DataError(f"{path}, line {number} is no JSON: {str(error)[:200]}", fix=_VERIFY) from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number} is no object", fix=_VERIFY)
            yield row


def own_file(run: Run, name: str) -> Path | None:
    """One of the two files that are handed out as they are; None when it is not there. A link is not followed: it could
    lead anywhere. Raises `StorageError` for one."""
    if name not in (REPORT, EVIDENCE):
        return None
    path = run.folder / name
    if path.is_symlink():
        raise StorageError(f"{path} is a link", fix="put the file itself there")
    return path if path.is_file() else None
