"""The terms stage: may we learn from this teacher, with this data, on this base, for this purpose, today?"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from tutelage.canon import canonical, digest_file, digest_of
from tutelage.config import AcceptedRiskTable, CollectConfig, RunConfig, RunTable, ShipTable, TeacherTable
from tutelage.errors import ConfigError, ResourceError, TermsError
from tutelage.hosts import is_loopback
from tutelage.jsonl import write_whole
from tutelage.resources import Resource, fetch, resource
from tutelage.ship.notices import licence_copies
from tutelage.terms.check import accept, check, cited, combine, require, way_out
from tutelage.terms.conditions import HANDED_ON, Obligations, Release, bound, obligations, unmet, unmet_at_start
from tutelage.terms.lineage import Lineage, Made, Tie, inherited, of_file, of_folder, read_lineage
from tutelage.terms.model import AcceptedRisk, Condition, Purpose, TermsEntry, Verdict
from tutelage.terms.registry import Registry, load_registry

READ_BESIDE = (
    "config.json", "generation_config.json", "*.safetensors.index.json", "tokenizer*", "*token*.json", "vocab*", "merges*",
    "chat_template*", "*.model",
)  # fmt: skip


class Gate(NamedTuple):
    """One verdict a subject, one an ancestor of theirs, and all of them together; `conditions` are those that bind this
    student, `unmet` what of them the run file already breaks, `lineage` what the student will carry on."""

    teacher: Verdict
    data: Verdict
    base: Verdict
    inherited: tuple[Verdict, ...]
    together: Verdict
    conditions: tuple[Condition, ...]
    unmet: tuple[str, ...]
    lineage: Lineage

    @property
    def permits(self) -> bool:
        """The terms permit the run, and the run file breaks no condition that is known already."""
        return self.together.permits and not self.unmet

    @property
    def standing(self) -> str:
        """Digest of what the texts say, without the day: an input of everything learnt under it."""
        return _standing(self.together)

    @property
    def risks(self) -> str:
        """Digest of the risks that persons accepted: an input of what tells of them (the answers are the same)."""
        return digest_of([risk.to_json() for risk in self.together.accepted_risks])


def _standing(together: Verdict) -> str:
    return digest_of([[reason.entry_digest, str(reason.status)] for reason in together.reasons])


def route_of(teacher: TeacherTable) -> str:
    """How the teacher is reached: "embedded", the provider named in the run file (a proxy on loopback may stand before
    one), "loopback", or the host."""
    if teacher.url is None:
        return "embedded"
    host = urlsplit(teacher.url).hostname or ""
    return teacher.provider or ("loopback" if is_loopback(host) else host)


def _and_parents(host: str) -> list[str]:
    """`eu.api.example.com` → itself, `api.example.com`, `example.com`."""
    labels = host.split(".")
    return [".".join(labels[at:]) for at in range(max(1, len(labels) - 1))]


def _require_true_provider(teacher: TeacherTable, registry: Registry) -> None:
    """A known host is reached under its own terms, whatever provider the run file names: that is for proxies of one's own."""
    named, host = teacher.provider, urlsplit(teacher.url or "").hostname or ""
    own = next((entry for name in _and_parents(host) if isinstance(entry := registry.find(name), TermsEntry)), None)
    if named is not None and own is not None and registry.find(named) != own:
        raise ConfigError(
            f"teacher.provider = {named!r}, but {host} is {own.name}",
            fix=f'delete teacher.provider, or write "{own.id}": the terms of the host that is asked count',
        )


def teacher_licence(teacher: TeacherTable) -> str:
    """Of the pinned weights, else as stated in the run file, else empty: not public. Raises `ConfigError` for another."""
    if teacher.resource is None:
        return teacher.licence or ""
    own = resource(teacher.resource).licence
    if teacher.licence not in (None, own):
        raise ConfigError(
            f"teacher.licence = {teacher.licence!r}, but {teacher.resource} is under {own}",
            fix="delete teacher.licence: pinned weights carry their own",
        )
    return own


def check_terms(config: RunConfig, today: str) -> Gate:
    """The verdicts for a run. Raises `ConfigError` for an unknown purpose, an incomplete accepted risk or one on nothing
    that is inherited, and `DataError` for a lineage or a copy of a licence that cannot be read."""
    registry = load_registry()
    purpose = config.run.purpose
    teacher = judge_teacher(registry, config.teacher, purpose, today)
    source = config.data.resource or Path(config.data.path or "").name
    licence = resource(config.data.resource).licence if config.data.resource else config.data.licence or ""
    kept: dict[str, Any] = {"route": "local", "purpose": purpose, "today": today}
    risk = risk_of(config.data.accepted_risk)
    data = check(registry, subject=source, licence=licence, accepted_risk=risk, **kept)
    start, risk = base_of(config), risk_of(config.student.accepted_risk)
    base = check(registry, subject=start.name, licence=start.licence, accepted_risk=risk, **kept)
    parents = _parents(config)
    passed_on = judge_ancestors(config, parents, registry, today)
    conditions = (*base.conditions, *bound((*teacher.conditions, *data.conditions)))
    conditions = tuple(dict.fromkeys((*conditions, *(one for each in passed_on for one in each.conditions))))
    return Gate(
        teacher=teacher,
        data=data,
        base=base,
        inherited=passed_on,
        together=combine([teacher, data, base, *passed_on]),
        conditions=conditions,
        unmet=broken_already(config, obligations(conditions), registry),
        lineage=Lineage.of(
            config.run.name, Made.STUDENT, {Tie.TEACHER: teacher, Tie.DATA: data, Tie.BASE: base}, parents
        ),
    )


def judge_teacher(registry: Registry, teacher: TeacherTable, purpose: str, today: str) -> Verdict:
    """The verdict on a teacher however it is reached. Raises `ConfigError` where it does not say whose terms count."""
    _require_true_provider(teacher, registry)
    return check(
        registry,
        subject=teacher_name(teacher),
        licence=teacher_licence(teacher),
        route=route_of(teacher),
        purpose=purpose,
        today=today,
        accepted_risk=risk_of(teacher.accepted_risk),
    )


class Permission(NamedTuple):
    """The verdicts under which open questions are asked: no student is made yet, so no base is judged."""

    teacher: Verdict
    data: Verdict
    inherited: tuple[Verdict, ...]
    together: Verdict

    @property
    def standing(self) -> str:
        return _standing(self.together)

    def to_json(self) -> dict[str, Any]:
        verdicts = {"teacher": self.teacher, "data": self.data, "together": self.together}
        value: dict[str, Any] = {name: verdict.to_json() for name, verdict in verdicts.items()}
        return value | {"inherited": [verdict.to_json() for verdict in self.inherited]}


def may_ask(config: CollectConfig, today: str) -> Permission:
    """The teacher's own ancestors are judged too. Raises `ConfigError` and `DataError` as `check_terms` does."""
    registry, purpose, prompts = load_registry(), config.run.purpose, config.prompts
    teacher = judge_teacher(registry, config.teacher, purpose, today)
    data = check(
        registry,
        subject=Path(prompts.path).name,
        licence=prompts.licence,
        route="local",
        purpose=purpose,
        today=today,
        accepted_risk=risk_of(prompts.accepted_risk),
    )
    lineages = lineages_of(config.teacher.path, config.teacher.lineage)
    passed_on = tuple(
        dict.fromkeys(one for each in lineages for one in inherited(each, registry, purpose, today, Tie.TEACHER))
    )
    return Permission(teacher, data, passed_on, combine([teacher, data, *passed_on]))


def risk_of(table: AcceptedRiskTable | None) -> AcceptedRisk | None:
    return None if table is None else AcceptedRisk(**table.model_dump())


class HandedOn(Protocol):
    """What a run file says of the student that will be handed on."""

    @property
    def run(self) -> RunTable: ...

    @property
    def ship(self) -> ShipTable: ...


def broken_already(config: HandedOn, owed: Obligations, registry: Registry) -> tuple[str, ...]:
    """What is broken already: a copy of a licence that will be missing is told now, not after the teacher is paid."""
    found = unmet_at_start(owed, release(config))
    try:
        licence_copies(owed.copies, config.ship.licence_files, registry)
    except TermsError as error:
        found = (*found, f"{error.message}: {error.fix}")
    return found


def release(config: HandedOn, card: str = "", files: tuple[str, ...] = ()) -> Release:
    """What the run file says of the student that will be handed on; `card` and `files` once they are there."""
    purpose, ship = Purpose(config.run.purpose), config.ship
    return Release(config.run.name, purpose, purpose in HANDED_ON, ship.commercial, ship.monthly_users, card, files)


def require_met(config: HandedOn, owed: Obligations, card: str) -> Callable[[tuple[str, ...]], None]:
    """A judge of the files that would be handed on with this card. It raises `TermsError` where a condition is not met."""

    def judge(files: tuple[str, ...]) -> None:
        if broken := unmet(owed, release(config, card, files)):
            raise TermsError(f"the student may not be handed on like this: {broken[0]}", fix="; ".join(broken))

    return judge


def _parents(config: RunConfig) -> dict[Tie, tuple[Lineage, ...]]:
    """The lineages that lie beside what the run file names: a pinned resource has none."""
    return {
        Tie.TEACHER: lineages_of(config.teacher.path, config.teacher.lineage),
        Tie.DATA: of_file(Path(config.data.path)) if config.data.path else (),
        Tie.BASE: lineages_of(config.student.path),
    }


def lineages_of(weights: str | None, named: str | None = None) -> tuple[Lineage, ...]:
    """The lineage that is named, and the one that lies beside the weights: in their folder, or in that of their file. Raises
    `DataError` for one that cannot be read."""
    found = [read_lineage(Path(named))] if named else []
    if weights is not None:
        path = Path(weights)
        found += of_folder(path.parent if path.is_file() else path)
    return tuple(dict.fromkeys(found))


def judge_ancestors(
    config: HandedOn, parents: Mapping[Tie, Sequence[Lineage]], registry: Registry, today: str
) -> tuple[Verdict, ...]:
    """A verdict an ancestor, with the risks the run file accepts again, each by the name of its subject."""
    verdicts = dict.fromkeys(
        verdict
        for via, lineages in parents.items()
        for lineage in lineages
        for verdict in inherited(lineage, registry, config.run.purpose, today, via)
    )
    accepted = config.ship.inherited_risks
    if strangers := set(accepted) - {verdict.subject for verdict in verdicts}:
        raise ConfigError(
            f"ship.inherited_risks names {sorted(strangers)[0]!r}, which nothing here inherits",
            fix="write the subject as `tutelage terms check` shows it, or delete the entry",
        )
    return tuple(
        accept(one, AcceptedRisk(**accepted[one.subject].model_dump())) if one.subject in accepted else one
        for one in verdicts
    )


class Base(NamedTuple):
    """Weights that a run file names: a file or folder that may not be fetched yet."""

    name: str
    licence: str
    pinned: Resource | None
    folder: Path | None  # a Hugging Face folder, or a GGUF file

    @classmethod
    def of(cls, pinned: str | None, path: str | None, licence: str | None) -> "Base":
        """A resource by its name, or weights of one's own. Raises `ResourceError` for an unknown resource."""
        if pinned is not None:
            found = resource(pinned)
            return cls(found.description, found.licence, found, None)
        return cls(Path(path or "").name, licence or "", None, Path(path or ""))

    def fetch(self) -> Path:
        """Raises `ResourceError` when it cannot be had."""
        if self.pinned is not None:
            return fetch(self.pinned)
        assert self.folder is not None
        if not self._files():
            raise ResourceError(
                f"{self.folder} has no model.safetensors"
                if self.folder.is_dir()
                else f"there is no folder or file {self.folder}",
                fix="give a Hugging Face folder of safetensors, or a GGUF file",
            )
        return self.folder

    @property
    def digest(self) -> str:
        """Of the file, or of the names and digests of several. Raises `ResourceError` for a folder without weights."""
        if self.pinned is not None:
            return f"sha256:{self.pinned.sha256}"
        self.fetch()
        files = self._files()
        return digest_file(files[0]) if len(files) == 1 else digest_of({path.name: digest_file(path) for path in files})

    @property
    def beside(self) -> str:
        """Digest of what is read beside the weights (configuration, tokenizer, template, index); empty where nothing is."""
        if self.folder is None:
            return ""
        folder = self.folder.parent if self.folder.is_file() else self.folder
        files = {path.name: path for pattern in READ_BESIDE for path in folder.glob(pattern) if path.is_file()}
        return digest_of({name: digest_file(path) for name, path in sorted(files.items())}) if files else ""

    def inputs(self, name: str) -> dict[str, str]:
        """All that is read, as inputs of a stage: the weights under `name`. Raises as `digest` does."""
        return {name: self.digest} | ({f"{name}_files": beside} if (beside := self.beside) else {})

    def _files(self) -> list[Path]:
        assert self.folder is not None
        return [self.folder] if self.folder.is_file() else sorted(self.folder.glob("model*.safetensors"))


def base_of(config: RunConfig) -> Base:
    """The student's base as the run file names it."""
    return Base.of(config.student.base, config.student.path, config.student.licence)


def teacher_name(teacher: TeacherTable) -> str:
    if teacher.resource:
        return resource(teacher.resource).description
    return Path(teacher.path).name if teacher.path else f"{teacher.model} at {route_of(teacher)}"


def require_permitted(gate: Gate) -> None:
    """Raises `TermsError` unless everything permits the use and the run file breaks no condition."""
    decisive = gate.together.decisive
    if not gate.together.permits and decisive.subject in {verdict.subject for verdict in gate.inherited}:
        raise TermsError(
            f"{decisive.subject}: {gate.together.purpose} is {decisive.status} on {gate.together.date}: {cited(decisive)}",
            fix=f"{way_out(gate.together)}; it is inherited, so under this subject's name in ship.inherited_risks",
        )
    require(gate.together)
    if gate.unmet:
        raise TermsError(f"a condition of the terms is not met: {gate.unmet[0]}", fix="; ".join(gate.unmet))


def require_terms(gate: Gate, out: Path) -> None:
    """Raises `TermsError` as `require_permitted` does; then writes the verdicts."""
    require_permitted(gate)
    verdicts = {"teacher": gate.teacher, "data": gate.data, "base": gate.base, "together": gate.together}
    value = {name: verdict.to_json() for name, verdict in verdicts.items()}
    write_whole(out, canonical(value | {"inherited": [verdict.to_json() for verdict in gate.inherited]}) + b"\n")
