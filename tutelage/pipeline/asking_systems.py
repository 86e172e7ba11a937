"""The models of a proof, each asked through its endpoint in the claims' own namespace."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tutelage.canon import decimals, digest_of
from tutelage.config import SamplingTable, TeacherTable
from tutelage.meter import Meter
from tutelage.models.ask import Asking
from tutelage.models.budget import Budget
from tutelage.models.exchange import Terms
from tutelage.models.questions import ask_all, open_request, sampling_params
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.run import Run
from tutelage.pipeline.serving import Served, serve_teacher
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


class Said(NamedTuple):
    """What one model said: an exchange a question, None where it refused; CPU-seconds a question where the server is ours."""

    exchanges: tuple[Exchange | None, ...]
    rows: tuple[Row, ...]
    cpu_s: float | None


def ask_open(
    asker: Asker, name: str, table: TeacherTable, questions: Sequence[Question], sampling: SamplingTable, role: Role,
    draws: Sequence[int] | None = None,
) -> Said:  # fmt: skip
    """Asks every question once; `draws` says which draw of each is wanted (default: the first). Resumes. Raises what `ask`
    raises; what was answered is kept."""
    run, wanted = asker.run, draws or [0] * len(questions)
    warmth = "1" if sampling.temperature is None else repr(sampling.temperature)
    extra = json.dumps(sampling.extra, separators=(",", ":"), ensure_ascii=False) if sampling.extra else ""
    meter = Meter(_meter_of(run.folder, name, table, sampling))
    with serve_teacher(table, run.folder) as served:
        how = asking(run, served, table, Terms(asker.standing, role), asker.budget, asker.seed, warmth)
        params = sampling_params(table, sampling)
        requests = [
            open_request(served.endpoint, question, params, extra, sampling.seed, asker.purpose, draw)
            for question, draw in zip(questions, wanted, strict=True)
        ]
        with _metered(served, meter, how):
            ask_all(how, requests, table.concurrency, f"asking {name}: {teacher_name(table)}")
    return Said(*_found(run, name, questions, requests), meter.cpu_s_each())


def _found(
    run: Run, name: str, questions: Sequence[Question], requests: Sequence[Request]
) -> tuple[tuple[Exchange | None, ...], tuple[Row, ...]]:
    exchanges: list[Exchange | None] = []
    rows = []
    for question, request in zip(questions, requests, strict=True):
        address = request.digest
        if not run.store.has(address):
            exchanges.append(None)
            continue
        exchanges.append(run.store.get(address))
        rows.append(
            {"prompt": question.prompt_id, "system": name, "address": address, "exchange": run.store.digest_at(address)}
        )
    return tuple(exchanges), tuple(rows)


def _meter_of(folder: Path, name: str, table: TeacherTable, sampling: SamplingTable) -> Path:
    way = digest_of(decimals([table.model_dump(mode="json"), sampling.model_dump(mode="json")]))
    return folder / "work" / "meters" / f"{name}-{way.removeprefix('sha256:')[:16]}.json"


@contextmanager
def _metered(served: Served, meter: Meter, how: Asking) -> Iterator[None]:
    """CPU-seconds of our own server while questions are asked, whatever ends the asking."""
    before_s, before = served.cpu_s() if served.cpu_s else 0.0, how.answered
    try:
        yield
    finally:
        if served.cpu_s:
            meter.add(served.cpu_s() - before_s, how.answered - before)
