"""The terms stage of a training: the teacher's weights, whoever wrote the answers, the data, the student's base."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.collect.conversations import Author
from tutelage.config import TeacherTable
from tutelage.errors import ConfigError, TermsError
from tutelage.pipeline.gate import (
    Base,
    Gate,
    broken_already,
    judge_ancestors,
    judge_teacher,
    lineages_of,
    risk_of,
)
from tutelage.pipeline.talks import answers_in, is_recorded
from tutelage.terms.check import OWN_ROUTES, check, combine
from tutelage.terms.conditions import bound, obligations
from tutelage.terms.lineage import Lineage, Made, Tie, of_file
from tutelage.terms.model import Verdict
from tutelage.terms.registry import Registry, load_registry
from tutelage.training_config import TrainingConfig, WeightsTable


class TrainingGate(NamedTuple):
    """One verdict a subject in `judged`: `data`, `base`, and where there are any `teacher`, `teacher-2`, `answers`, `answers-2`
    and so on; the student as it was is judged as `base`. The rest is as in `Gate`."""

    judged: Mapping[str, Verdict]
    gate: Gate

    @property
    def subjects(self) -> dict[str, list[list[str]]]:
        """Who was judged, under which licence, by which route and with which risks: where it is told, it is told anew when it
        changes."""
        every = {**{name: [verdict] for name, verdict in self.judged.items()}, "inherited": self.gate.inherited}
        return {
            name: [
                [one.subject, one.licence, one.route, *(risk.digest for risk in one.accepted_risks)] for one in verdicts
            ]
            for name, verdicts in every.items()
        }

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {name: verdict.to_json() for name, verdict in self.judged.items()}
        value["together"] = self.gate.together.to_json()
        return value | {"inherited": [verdict.to_json() for verdict in self.gate.inherited]}


def may_train(config: TrainingConfig, today: str) -> TrainingGate:
    """The verdicts, by today's terms, also on answers that were collected under earlier ones. Raises `ConfigError` and
    `DataError` as `gate.check_terms` does, and `TermsError` for captured or imported answers that nobody answers for."""
    registry = load_registry()
    teachers = _teachers(config, registry, today)
    judged = _numbered("teacher", teachers)
    judged |= _judged_data(config, registry, today)
    base, risk = base_in(config), risk_of(config.student.accepted_risk)
    judged["base"] = check(
        registry, subject=base.name, licence=base.licence, route="local", purpose=config.run.purpose, today=today,
        accepted_risk=risk,
    )  # fmt: skip
    parents = _parents(config, teachers)
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
        lineage=_lineage(config.run.name, judged, parents, teachers),
    )
    return TrainingGate(judged, gate)


def base_in(config: TrainingConfig) -> Base:
    """What the student starts from."""
    return Base.of(config.student.base, config.student.path, config.student.licence)


def teacher_in(config: TrainingConfig) -> Base:
    """The teacher's weights; the run file names some."""
    assert config.teacher is not None
    return Base.of(config.teacher.resource, config.teacher.path, config.teacher.licence)


def teacher_inputs(config: TrainingConfig) -> dict[str, str]:
    """The teacher's weights and what is read beside them, as inputs of a stage; none where the run file names no teacher."""
    return teacher_in(config).inputs("teacher") if config.teacher is not None else {}


def _judged_data(config: TrainingConfig, registry: Registry, today: str) -> dict[str, Verdict]:
    """The file; or of answers each of their authors, as the store names them, and the questions. Whoever takes the risk
    takes it for all of them."""
    data, risk = config.data, config.data.accepted_risk

    def judge(subject: str, licence: str, route: str = "local") -> Verdict:
        return check(
            registry, subject=subject, licence=licence, route=route, purpose=config.run.purpose, today=today,
            accepted_risk=risk_of(risk),
        )  # fmt: skip

    if data.collected is None:
        return {"data": judge(Path(data.path or "").name, data.licence or "")}
    folder = Path(data.collected)
    if risk is None:
        _require_verdicts(folder)
    found = answers_in(folder, data)
    if risk is None and found.talks.unchecked:
        raise _unchecked(f"{found.talks.unchecked} of the answers in {folder} have no verdict on their terms")
    judged = dict.fromkeys(judge(_named(author), author.licence, _route_of(author)) for author in found.talks.authors)
    return _numbered("answers", judged) | {"data": judge(found.asked_by.teacher, found.asked_by.licence)}


def _require_verdicts(folder: Path) -> None:
    """Raises `TermsError` for answers that nobody was asked about, and for those of a teacher whose ancestors are not here."""
    if not is_recorded(folder):
        raise _unchecked(f"the answers in {folder} were captured or imported: no terms were checked for them")
    for path in sorted((folder / "terms").glob("*.json")):
        try:
            ancestors = json.loads(path.read_bytes())["inherited"]
        except (OSError, ValueError, LookupError, TypeError):
            raise ConfigError(f"{path} cannot be read", fix="restore the folder from a copy") from None
        if ancestors:
            raise TermsError(
                f"the teacher of {folder} is itself a student, and the folder does not hold its lineage",
                fix="export the answers and put the lineage beside them as NAME.lineage.json, or set data.accepted_risk",
            )


def _unchecked(problem: str) -> TermsError:
    fix = "collect them with `tutelage collect`, or let a named person take the risk: data.accepted_risk"
    return TermsError(problem, fix=fix)


def _route_of(author: Author) -> str:
    """By what route the terms gate knows how the answers were had."""
    return author.route if author.route in OWN_ROUTES else author.provider or "local"


def _named(author: Author) -> str:
    return author.teacher if author.route in OWN_ROUTES else f"{author.teacher} at {_route_of(author)}"


def _as_teacher(table: WeightsTable) -> TeacherTable:
    return TeacherTable(
        resource=table.resource, path=table.path, licence=table.licence, accepted_risk=table.accepted_risk
    )


def _teachers(config: TrainingConfig, registry: Registry, today: str) -> dict[Verdict, tuple[Lineage, ...]]:
    """A verdict for each teacher but the student itself, and the lineages of its weights."""
    found: dict[Verdict, tuple[Lineage, ...]] = {}
    if config.scorer is not None:
        verdict = judge_teacher(registry, config.scorer, config.run.purpose, today)
        found[verdict] = lineages_of(None, config.scorer.lineage)
    for alone in config.each_teacher().values():
        table = alone.teacher
        if table is not None and not table.old_self:
            verdict = judge_teacher(registry, _as_teacher(table), config.run.purpose, today)
            found[verdict] = (*found.get(verdict, ()), *lineages_of(table.path, table.lineage))
    return found


def _numbered(name: str, verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    return {f"{name}-{at}" if at > 1 else name: one for at, one in enumerate(verdicts, 1)}


def _parents(config: TrainingConfig, teachers: Mapping[Verdict, tuple[Lineage, ...]]) -> dict[Tie, tuple[Lineage, ...]]:
    return {
        Tie.TEACHER: tuple(dict.fromkeys(one for lineages in teachers.values() for one in lineages)),
        Tie.DATA: of_file(Path(config.data.path)) if config.data.path else (),
        Tie.BASE: lineages_of(config.student.path),
    }


def _lineage(
    name: str,
    judged: Mapping[str, Verdict],
    parents: Mapping[Tie, tuple[Lineage, ...]],
    teachers: Mapping[Verdict, tuple[Lineage, ...]],
) -> Lineage:
    """What the student carries on: answers and weights may come from several teachers."""
    direct = {tie: judged[str(tie)] for tie in (Tie.TEACHER, Tie.DATA, Tie.BASE) if str(tie) in judged}
    first, others = next(iter(teachers.values()), ()), list(teachers.items())[1:]
    found = Lineage.of(name, Made.STUDENT, direct, {**parents, Tie.TEACHER: first})
    more = [
        Lineage.of(name, Made.STUDENT, {Tie.TEACHER: verdict}, {Tie.TEACHER: lineages})
        for verdict, lineages in [*((one, ()) for one in _answers(judged)), *others]
    ]
    every = (*(ancestor for each in more for ancestor in each.ancestors), *found.ancestors)
    return replace(found, ancestors=tuple(dict.fromkeys(every)))


def _answers(judged: Mapping[str, Verdict]) -> list[Verdict]:
    return [verdict for name, verdict in judged.items() if name.startswith("answers")]
