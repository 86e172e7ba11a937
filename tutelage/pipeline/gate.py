"""The terms stage: may we learn from this teacher, with this data, on this base, for this purpose, today?"""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tutelage.canon import canonical, digest_file, digest_of
from tutelage.config import RunConfig
from tutelage.errors import ResourceError
from tutelage.jsonl import write_whole
from tutelage.resources import Resource, fetch, resource
from tutelage.terms.check import check, combine, require
from tutelage.terms.model import AcceptedRisk, Verdict
from tutelage.terms.registry import load_registry

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Gate(NamedTuple):
    """One verdict a subject, and all of them together."""

    teacher: Verdict
    data: Verdict
    base: Verdict
    together: Verdict

    @property
    def standing(self) -> str:
        """Digest of what the texts say, without the day: an input of everything learnt under it."""
        return digest_of([[reason.entry_digest, str(reason.status)] for reason in self.together.reasons])


def route_of(config: RunConfig) -> str:
    """How the teacher is reached: "embedded", the provider named in the run file (a proxy on loopback may stand before
    one), "loopback", or the host."""
    if config.teacher.url is None:
        return "embedded"
    host = urlsplit(config.teacher.url).hostname or ""
    return config.teacher.provider or ("loopback" if host in LOOPBACK else host)


def teacher_licence(config: RunConfig) -> str:
    """As stated in the run file, else of the pinned weights, else empty: not public."""
    if config.teacher.licence is not None or config.teacher.resource is None:
        return config.teacher.licence or ""
    return resource(config.teacher.resource).licence


def check_terms(config: RunConfig, today: str) -> Gate:
    """The verdicts for a run. Raises `ConfigError` for an unknown purpose or an incomplete accepted risk."""
    registry = load_registry()
    purpose = config.run.purpose
    risk = config.teacher.accepted_risk
    accepted = AcceptedRisk(risk.who, risk.reason, risk.scope) if risk else None
    teacher = check(
        registry,
        subject=teacher_name(config),
        licence=teacher_licence(config),
        route=route_of(config),
        purpose=purpose,
        today=today,
        accepted_risk=accepted,
    )
    source = config.data.resource or Path(config.data.path or "").name
    licence = resource(config.data.resource).licence if config.data.resource else config.data.licence or ""
    data = check(registry, subject=source, licence=licence, route="local", purpose=purpose, today=today)
    start = base_of(config)
    base = check(registry, subject=start.name, licence=start.licence, route="local", purpose=purpose, today=today)
    return Gate(teacher, data, base, combine([teacher, data, base]))


class Base(NamedTuple):
    """What the student starts from: a file or folder that may not be fetched yet."""

    name: str
    licence: str
    pinned: Resource | None
    folder: Path | None

    def fetch(self) -> Path:
        """Raises `ResourceError` when it cannot be had."""
        if self.pinned is not None:
            return fetch(self.pinned)
        assert self.folder is not None
        if not (self.folder / "model.safetensors").is_file():
            raise ResourceError(f"{self.folder} has no model.safetensors", fix="give a Hugging Face folder in one file")
        return self.folder

    @property
    def digest(self) -> str:
        """Raises `ResourceError` for a folder without weights."""
        return f"sha256:{self.pinned.sha256}" if self.pinned else digest_file(self.fetch() / "model.safetensors")


def base_of(config: RunConfig) -> Base:
    """The student's base as the run file names it."""
    if config.student.base is not None:
        pinned = resource(config.student.base)
        return Base(pinned.description, pinned.licence, pinned, None)
    folder = Path(config.student.path or "")
    return Base(folder.name, config.student.licence or "", None, folder)


def teacher_name(config: RunConfig) -> str:
    if config.teacher.resource:
        return resource(config.teacher.resource).description
    return f"{config.teacher.model} at {route_of(config)}"


def require_terms(gate: Gate, out: Path) -> None:
    """Raises `TermsError` unless everything permits the use; then writes the verdicts."""
    require(gate.together)
    verdicts = {"teacher": gate.teacher, "data": gate.data, "base": gate.base, "together": gate.together}
    write_whole(out, canonical({name: verdict.to_json() for name, verdict in verdicts.items()}) + b"\n")
