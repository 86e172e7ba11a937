"""What an artefact was made from, so that taint follows: through data sets, merges, and students of students.

A `Lineage` lies beside what it describes: `lineage.json` in a model folder, `NAME.lineage.json` beside a data file NAME.
It lists every ancestor, flattened, with the terms it was taken under. Using the artefact asks for all of them again,
under today's registry and the new purpose. It is what its writer declares; nothing in it can loosen a verdict.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from tutelage.canon import canonical
from tutelage.errors import ConfigError, DataError
from tutelage.records import Record
from tutelage.terms.check import check
from tutelage.terms.conditions import bound
from tutelage.terms.model import AcceptedRisk, Purpose, Status, Verdict
from tutelage.terms.registry import Registry

SCHEMA_VERSION = 1
MAX_BYTES = 1_000_000
IN_FOLDER = "lineage.json"


class Tie(StrEnum):
    """How an ancestor is in the artefact: its answers, its rows, or its weights."""

    TEACHER = "teacher"
    DATA = "data"
    BASE = "base"


class Made(StrEnum):
    """What kind of artefact a lineage describes."""

    STUDENT = "student"
    DATASET = "dataset"
    MERGE = "merge"


class Upstream(StrEnum):
    """Whether it is known what an ancestor was itself made from."""

    UNKNOWN = "unknown-upstream"
    LISTED = "listed"  # it had a lineage; its own ancestors are in the same list


@dataclass(frozen=True, slots=True)
class Ancestor(Record):
    """One source, and the terms it was taken under on `date`. `entries`: digests of the terms entries that spoke."""

    subject: str
    role: Tie
    licence: str
    route: str
    purpose: Purpose
    date: str
    status: Status
    entries: tuple[str, ...]
    accepted_risks: tuple[AcceptedRisk, ...]
    upstream: Upstream


@dataclass(frozen=True, slots=True)
class Lineage(Record):
    """Everything an artefact was made from, ancestors of ancestors included."""

    schema_version: int
    artefact: str
    kind: Made
    ancestors: tuple[Ancestor, ...]

    @classmethod
    def of(
        cls, artefact: str, kind: Made, verdicts: Mapping[Tie, Verdict], parents: Mapping[Tie, Sequence["Lineage"]]
    ) -> Self:
        """Of a new student or data set: what it takes itself (`verdicts`), then what its parents carry.

        Weights do not travel through answers or rows: what was `base` of a teacher or of data is `teacher` here.
        """
        direct = [_ancestor(role, verdict, bool(parents.get(role))) for role, verdict in verdicts.items()]
        carried = [
            replace(one, role=Tie.TEACHER) if role is not Tie.BASE and one.role is Tie.BASE else one
            for role, lineages in parents.items()
            for lineage in lineages
            for one in lineage.ancestors
        ]
        return cls(SCHEMA_VERSION, artefact, kind, tuple(dict.fromkeys((*direct, *carried))))

    @classmethod
    def of_merge(cls, artefact: str, parents: Sequence["Lineage"]) -> Self:
        """Of models (or data sets) made one: all that any of them carries. Raises `ConfigError` when there is none."""
        if not parents:
            raise ConfigError(f"nothing to merge into {artefact!r}", fix="give the lineage of every part")
        return cls(
            SCHEMA_VERSION,
            artefact,
            Made.MERGE,
            tuple(dict.fromkeys(one for each in parents for one in each.ancestors)),
        )


def inherited(
    lineage: Lineage, registry: Registry, purpose: Purpose | str, today: date | str, via: Tie = Tie.BASE
) -> tuple[Verdict, ...]:
    """One verdict an ancestor, anew: today's registry, the new purpose, and no risk that was accepted before.

    `via` says how the artefact is used. Conditions on what is handed on stay only where weights are: on a base of a base.
    Raises what `check` raises.
    """
    return tuple(_anew(lineage.artefact, one, registry, purpose, today, via) for one in lineage.ancestors)


def undocumented(artefact: str) -> Lineage:
    """Of a model that says it was distilled and does not say from what: one ancestor that nothing is known of."""
    subject = f"whatever {artefact} was distilled from (its README.md says it was, and it has no {IN_FOLDER})"
    nobody = Ancestor(
        subject, Tie.TEACHER, "", "local", Purpose.INTERNAL, "", Status.UNKNOWN, (), (), Upstream.UNKNOWN
    )  # fmt: skip
    return Lineage(SCHEMA_VERSION, artefact, Made.STUDENT, (nobody,))


def says_distilled(readme: str) -> bool:
    """Does a model card's front matter have a `distillation` key, or a tag with "distill" in it?"""
    front = re.match(r"---[ \t]*\n(.*?)^---[ \t]*$", readme, re.DOTALL | re.MULTILINE)
    if front is None:
        return False
    tags = re.search(r"^[\"']?tags[\"']?[ \t]*:(.*?)(?=^[^\s#-]|\Z)", front[1], re.DOTALL | re.MULTILINE)
    key = re.search(r"^[\"']?distillation[\"']?[ \t]*:", front[1], re.MULTILINE)
    return key is not None or (tags is not None and "distill" in tags[1].lower())


def of_folder(folder: Path) -> tuple[Lineage, ...]:
    """The lineage in a model folder; an undocumented one if only its card says it was distilled; else none.

    Raises `DataError` for a lineage that cannot be read.
    """
    if _is_there(folder / IN_FOLDER):
        return (read_lineage(folder / IN_FOLDER),)
    card = folder / "README.md"
    said = card.is_file() and says_distilled(_read(card).decode("utf-8-sig", "replace").replace("\r\n", "\n"))
    return (undocumented(folder.resolve().name),) if said else ()


def of_file(data: Path) -> tuple[Lineage, ...]:
    """The lineage beside a data file, if there is one. Raises `DataError` when it cannot be read."""
    beside = data.with_name(f"{data.name}.{IN_FOLDER}")
    return (read_lineage(beside),) if _is_there(beside) else ()


def read_lineage(path: Path) -> Lineage:
    """A lineage file. Raises `DataError` for one that is too large, no JSON, of another shape or version, or that holds
    characters which cannot be seen."""
    data = _read(path)
    if len(data) > MAX_BYTES:
        raise _wrong(path, f"is larger than {MAX_BYTES:,} bytes")
    try:
        value = json.loads(data, object_pairs_hook=_once)
        lineage = Lineage.from_json(value)
        canonical(value)
    except RecursionError:
        raise _wrong(path, "is nested too deeply") from None
    except (ValueError, TypeError) as error:
        raise _wrong(path, f"is no lineage: {error!s:.200}") from None
    if lineage.schema_version != SCHEMA_VERSION:
        raise _wrong(path, f"has schema version {lineage.schema_version}; this reads {SCHEMA_VERSION}")
    for text in _texts(value):
        if not text.isprintable():
            raise _wrong(path, f"holds a text with characters that cannot be seen: {text!a:.80}")
    if not lineage.artefact.strip() or not all(one.subject.strip() for one in lineage.ancestors):
        raise _wrong(path, "has an artefact or a subject without a name")
    return lineage


def _ancestor(role: Tie, verdict: Verdict, listed: bool) -> Ancestor:
    entries = tuple(dict.fromkeys(reason.entry_digest for reason in verdict.reasons if reason.entry_digest))
    return Ancestor(
        subject=verdict.subject,
        role=role,
        licence=verdict.licence,
        route=verdict.route,
        purpose=verdict.purpose,
        date=verdict.date,
        status=verdict.status,
        entries=entries,
        accepted_risks=verdict.accepted_risks,
        upstream=Upstream.LISTED if listed else Upstream.UNKNOWN,
    )


def _anew(
    artefact: str, one: Ancestor, registry: Registry, purpose: Purpose | str, today: date | str, via: Tie
) -> Verdict:
    subject = f"{one.subject} ({one.role} of {artefact})"
    verdict = check(registry, subject=subject, licence=one.licence, route=one.route, purpose=purpose, today=today)
    if not (via is Tie.BASE and one.role is Tie.BASE):
        verdict = replace(verdict, conditions=bound(verdict.conditions))
    if verdict.permits:
        return verdict
    again = tuple(
        f"{risk.who} accepted a risk on {subject} for another use; that does not count here"
        for risk in one.accepted_risks
    )
    return replace(verdict, warnings=(*verdict.warnings, *again))


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()  # a link to nowhere is a lineage that was lost, not none


def _read(path: Path) -> bytes:
    """The file, or its first `MAX_BYTES` and one more. The only place here that touches the disk."""
    if not path.is_file():
        raise _wrong(path, "is not a file")
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in _texts(item)]


def _wrong(path: Path, problem: str) -> DataError:
    return DataError(
        f"{path} {problem}",
        fix="ship the artefact again with this version of tutelage, or get the file anew from whoever made it",
    )
