"""The terms stage of a training: the teacher's weights, whoever wrote the answers, the data, the student's base."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tutelage.canon import canonical
from tutelage.config import CollectConfig, TeacherTable
from tutelage.errors import ConfigError, TermsError
from tutelage.jsonl import write_whole
from tutelage.pipeline.gate import (
    Base,
    Gate,
    broken_already,
    judge_ancestors,
    judge_teacher,
    require_permitted,
    risk_of,
)
from tutelage.run_file import validate
from tutelage.terms.check import check, combine
from tutelage.terms.conditions import bound, obligations
from tutelage.terms.lineage import Lineage, Made, Tie, of_file, of_folder, read_lineage
from tutelage.terms.model import Verdict
from tutelage.terms.registry import Registry, load_registry
from tutelage.training_config import ConversationsTable, TrainingConfig, WeightsTable

RECORD = Path("ledger") / "log.jsonl"


class TrainingGate(NamedTuple):
    """One verdict a subject in `judged` (`data`, `base`, and where there are any `teacher` and `answers`); the rest as `Gate`."""

    judged: Mapping[str, Verdict]
    gate: Gate

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {name: verdict.to_json() for name, verdict in self.judged.items()}
        value["together"] = self.gate.together.to_json()
        return value | {"inherited": [verdict.to_json() for verdict in self.gate.inherited]}


def may_train(config: TrainingConfig, today: str) -> TrainingGate:
    """The verdicts, by today's terms, also on answers that were collected under earlier ones. Raises `ConfigError` and
    `DataError` as `gate.check_terms` does, and `TermsError` for captured or imported answers that nobody answers for."""
    registry = load_registry()
    judged: dict[str, Verdict] = {}
    if config.teacher is not None:
        judged["teacher"] = judge_teacher(registry, _as_teacher(config.teacher), config.run.purpose, today)
    judged |= _judged_data(config, registry, today)
    base, risk = base_in(config), risk_of(config.student.accepted_risk)
    judged["base"] = check(
        registry, subject=base.name, licence=base.licence, route="local", purpose=config.run.purpose, today=today,
        accepted_risk=risk,
    )  # fmt: skip
    parents = _parents(config)
    passed_on = judge_ancestors(config, parents, registry, today)
    others = [one for name, verdict in judged.items() if name != "base" for one in verdict.conditions]
    every = (*judged["base"].conditions, *bound(others), *(one for each in passed_on for one in each.conditions))
    conditions = tuple(dict.fromkeys(every))
    teacher = judged.get("teacher", judged.get("answers", judged["data"]))
    gate = Gate(
        teacher=teacher,
        data=judged["data"],
        base=judged["base"],
        inherited=passed_on,
        together=combine([*judged.values(), *passed_on]),
        conditions=conditions,
        unmet=broken_already(config, obligations(conditions), registry),
        lineage=_lineage(config.run.name, judged, parents),
    )
    return TrainingGate(judged, gate)


def require_training(found: TrainingGate, out: Path) -> None:
    """Raises `TermsError` unless everything permits the training; then writes the verdicts."""
    require_permitted(found.gate)
    write_whole(out, canonical(found.to_json()) + b"\n")


def base_in(config: TrainingConfig) -> Base:
    """What the student starts from."""
    return Base.of(config.student.base, config.student.path, config.student.licence)


def teacher_in(config: TrainingConfig) -> Base:
    """The teacher's weights; the run file names some."""
    assert config.teacher is not None
    return Base.of(config.teacher.resource, config.teacher.path, config.teacher.licence)


def is_recorded(folder: Path) -> bool:
    """Whether a folder of answers is one of `tutelage collect`, asked under a verdict on their terms. Raises `ConfigError` when
    it holds no answers, or those to label questions."""
    if not (folder / "store").is_dir():
        raise ConfigError(
            f"{folder} holds no answers", fix="data.collected names a folder that `tutelage collect` made"
        )
    if not (folder / RECORD).exists():
        return False
    if not (folder / "data" / "questions.jsonl").exists():
        raise ConfigError(
            f"{folder} is no finished collection of open questions",
            fix="finish `tutelage collect`, or name another folder",
        )
    return True


def _judged_data(config: TrainingConfig, registry: Registry, today: str) -> dict[str, Verdict]:
    """The file; or of a collection its teacher and its questions, anew; or of other answers what a person answers for."""
    data, purpose, risk = config.data, config.run.purpose, risk_of(config.data.accepted_risk)
    kept: dict[str, Any] = {"route": "local", "purpose": purpose, "today": today, "accepted_risk": risk}
    if data.collected is None:
        name = Path(data.path or "").name
        return {"data": check(registry, subject=name, licence=data.licence or "", **kept)}
    folder = Path(data.collected)
    if not is_recorded(folder):
        if risk is None:
            raise TermsError(
                f"the answers in {folder} were captured or imported: no terms were checked for them",
                fix="collect them with `tutelage collect`, or let a named person take the risk: data.accepted_risk",
            )
        return {"data": check(registry, subject=f"answers in {folder.name}", licence=data.licence or "", **kept)}
    asked = _collection(folder, data)
    teacher = asked.teacher.model_copy(update={"accepted_risk": data.accepted_risk})
    prompts = check(registry, subject=Path(asked.prompts.path).name, licence=asked.prompts.licence, **kept)
    return {"answers": judge_teacher(registry, teacher, purpose, today), "data": prompts}


def _collection(folder: Path, data: ConversationsTable) -> CollectConfig:
    """The configuration that answers were collected under."""
    try:
        raw = orjson.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder / 'config.json'} cannot be read: {error}", fix="restore the folder from a copy"
        ) from error
    found = validate(CollectConfig, raw, str(folder / "config.json"))
    if found.teacher.lineage and data.accepted_risk is None:
        raise ConfigError(
            f"the teacher of {folder} is itself a student, and the folder does not hold its lineage",
            fix="export the answers and put the lineage beside them as NAME.lineage.json, or set data.accepted_risk",
        )
    return found


def _as_teacher(table: WeightsTable) -> TeacherTable:
    return TeacherTable(
        resource=table.resource, path=table.path, licence=table.licence, accepted_risk=table.accepted_risk
    )


def _parents(config: TrainingConfig) -> dict[Tie, tuple[Lineage, ...]]:
    teacher, data, student = config.teacher, config.data, config.student
    from_teacher: tuple[Lineage, ...] = ()
    if teacher is not None:
        told = (read_lineage(Path(teacher.lineage)),) if teacher.lineage else ()
        from_teacher = told or _of_weights(teacher.path)
    return {
        Tie.TEACHER: from_teacher,
        Tie.DATA: of_file(Path(data.path)) if data.path else (),
        Tie.BASE: _of_weights(student.path),
    }


def _of_weights(path: str | None) -> tuple[Lineage, ...]:
    return of_folder(Path(path)) if path and Path(path).is_dir() else ()


def _lineage(name: str, judged: Mapping[str, Verdict], parents: Mapping[Tie, tuple[Lineage, ...]]) -> Lineage:
    """What the student carries on: answers and weights may come from two teachers."""
    direct = {tie: judged[str(tie)] for tie in (Tie.TEACHER, Tie.DATA, Tie.BASE) if str(tie) in judged}
    found = Lineage.of(name, Made.STUDENT, direct, parents)
    if "answers" not in judged:
        return found
    more = Lineage.of(name, Made.STUDENT, {Tie.TEACHER: judged["answers"]}, {})
    return replace(found, ancestors=tuple(dict.fromkeys((*more.ancestors, *found.ancestors))))
