"""The models of a proof, each asked through its endpoint in the claims' own namespace."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tutelage.canon import decimals, digest_of
from tutelage.config import SamplingTable, TeacherTable
from tutelage.energy import Watch, counters
from tutelage.meter import Meter
from tutelage.models.ask import Asking
from tutelage.models.budget import Budget
from tutelage.models.exchange import Terms
from tutelage.models.questions import ask_all, open_request, sampling_params
from tutelage.pipeline.forms import serve_system
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.run import Run
from tutelage.pipeline.serving import Served
from tutelage.pipeline.session import asking
from tutelage.records import Exchange, Question, Request, Role

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Asker:
    """What every question of a proof shares: `purpose` is the claims' namespace, `standing` the digest of the terms."""

    run: Run
    budget: Budget
    standing: str
    purpose: str
    seed: int


class Turn(NamedTuple):
    """Questions that a model is asked in one go: its `name` in the rows, which draw of each is wanted (default: the first), and
    which item of the proof each is about, where it is not the item itself."""

    name: str
    questions: Sequence[Question]
    draws: Sequence[int] | None = None
    items: Sequence[str] | None = None


class Said(NamedTuple):
    """What one model said: an exchange a question, None where it refused; where the server is ours CPU-seconds a question, and
    joules of the machine's counters where it has such; and of what weights the answers are, as `Served` tells it."""

    exchanges: tuple[Exchange | None, ...]
    rows: tuple[Row, ...]
    cpu_s: float | None
    energy_j: float | None
    weights: Mapping[str, str] = {}


def ask_open(
    asker: Asker, table: TeacherTable, turns: Sequence[Turn], sampling: SamplingTable, role: Role
) -> list[Said]:
    """Asks every question of every turn once, and says what came of each turn; a server of ours is started once, and only if
    the store lacks an answer. Resumes. Raises what `ask` raises; what was answered is kept."""
    run = asker.run
    warmth = "1" if sampling.temperature is None else repr(sampling.temperature)
    extra = json.dumps(sampling.extra, separators=(",", ":"), ensure_ascii=False) if sampling.extra else ""
    params, found = sampling_params(table, sampling), []
    with serve_system(table, turns[0].name, run.folder) as served:
        for turn in turns:
            meter = Meter(_meter_of(run.folder, turn.name, table, sampling))
            how = asking(run, served, table, Terms(asker.standing, role), asker.budget, asker.seed, warmth)
            draws = turn.draws or [0] * len(turn.questions)
            requests = [
                open_request(served.endpoint, question, params, extra, sampling.seed, asker.purpose, draw)
                for question, draw in zip(turn.questions, draws, strict=True)
            ]
            with metered(served, meter, how):
                ask_all(how, requests, table.concurrency, f"asking {turn.name}: {teacher_name(table)}")
            took = meter.cpu_s_each(), meter.energy_j_each()
            found.append(Said(*_found(run, turn, requests), *took, dict(served.weights)))
    return found


def _found(run: Run, turn: Turn, requests: Sequence[Request]) -> tuple[tuple[Exchange | None, ...], tuple[Row, ...]]:
    exchanges: list[Exchange | None] = []
    rows = []
    for at, (question, request) in enumerate(zip(turn.questions, requests, strict=True)):
        address = request.digest
        if not run.store.has(address):
            exchanges.append(None)
            continue
        exchanges.append(run.store.get(address))
        row = {"prompt": question.prompt_id, "system": turn.name, "address": address}
        about = {} if turn.items is None else {"item": turn.items[at]}
        rows.append(row | about | {"exchange": run.store.digest_at(address)})
    return tuple(exchanges), tuple(rows)


def _meter_of(folder: Path, name: str, table: TeacherTable, sampling: SamplingTable) -> Path:
    way = digest_of(decimals([table.model_dump(mode="json"), sampling.model_dump(mode="json")]))
    return folder / "work" / "meters" / f"{name}-{way.removeprefix('sha256:')[:16]}.json"


@contextmanager
def metered(served: Served, meter: Meter, how: Asking) -> Iterator[None]:
    """CPU-seconds of our own server, and the machine's energy, while questions are asked, whatever ends the asking."""
    if served.cpu_s is None:
        yield
        return
    before_s, before, watch = served.cpu_s(), how.answered, Watch(counters().counters)
    try:
        with watch:
            yield
    finally:
        meter.add(served.cpu_s() - before_s, how.answered - before, watch.joules())
