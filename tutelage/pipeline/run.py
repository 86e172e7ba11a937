"""A run folder: its store, its log, and `stage`, which skips, runs and records one step of the work.

A stage's name is the digest of its name, version, configuration and inputs. One that has a statement in the log, with
its outputs unchanged on disk, is not run again. Otherwise an *intent* is appended before it runs and a *statement*
after: inputs, outputs by digest, and facts as integers and strings.
"""

import contextlib
import fcntl
import functools
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tutelage
from tutelage.canon import canonical, decimals, digest_bytes, digest_file, digest_of
from tutelage.errors import ConfigError, StorageError
from tutelage.hardware import describe
from tutelage.jsonl import write_whole
from tutelage.ledger.keys import Signer
from tutelage.ledger.log import Log
from tutelage.ledger.merkle import salt
from tutelage.models.exchange import now_utc
from tutelage.pipeline.anew import why_anew
from tutelage.progress import Progress, Stop
from tutelage.records import Statement
from tutelage.store.store import Store

Facts = dict[str, Any]
_SILENT_BYTES = 200_000_000  # of answers that may be read again without a word


@dataclass(frozen=True, slots=True)
class Done:
    """A stage's result: the digest of all its outputs, and its facts."""

    outputs_digest: str
    facts: Facts


class Run:
    """One run folder, held by one process at a time; use as a context manager."""

    def __init__(self, folder: Path, progress: Progress, stop: Stop, signer: Signer | None = None) -> None:
        self.folder = folder
        self.progress = progress
        self.stop = stop
        self.signer = signer
        self.key = b""
        self._environment = ""

    def __enter__(self) -> Self:
        if self.folder.exists() and not self.folder.is_dir():
            raise StorageError(f"{self.folder} is a file", fix="choose another --out: a run is a folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise StorageError(
                f"cannot use the run folder {self.folder}: {error}", fix="choose another --out"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(
                f"another process is working in {self.folder}", fix="wait for it, or choose another --out"
            ) from None
        _tell_of_reading(self.folder / "store", self.progress)
        self.store = Store(self.folder / "store")
        self.key = self._run_key()
        self.log = Log(self.folder, origin_of(self.key), self.signer)
        versions = installed_versions()
        write_whole(self.folder / "environment.json", canonical({"versions": versions, "hardware": describe()}) + b"\n")
        self._environment = digest_of(versions)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.close()
        self._lock.close()

    def work(self, name: str, digest: str) -> Path:
        """Scratch space of an unfinished stage; a changed stage gets a fresh one."""
        return self.folder / "work" / f"{name}-{digest.removeprefix('sha256:')[:12]}"

    def require_kind(self, kind: str, name: str = "") -> None:
        """To be asked before anything is written over what is there. Raises `ConfigError` when the folder is the record of
        another command than `kind` ("run", "collect", "compare-teachers", "prove", "train"), when a training would be
        put beside answers that are no record's yet, or when its data are there under another `name`."""
        found = _kind_of(self.log.statements())
        holds = f"is the record of `tutelage {found}`, not of `tutelage {kind}`" if found not in ("", kind) else ""
        if kind == "train" and not found and any((self.folder / "store").glob("*.seg")):
            holds = "holds answers that were captured or imported: a training in it would make them another record's"
        if holds:
            raise ConfigError(f"{self.folder} {holds}", fix="choose another --out, or another run.name")
        if name:
            self._require_name(name)

    def _require_name(self, name: str) -> None:
        names, has_data = list[str](), False
        for entry in self.log.statements():
            names += [entry.facts["name"]] if entry.kind == "opened" and "name" in entry.facts else []
            has_data = has_data or (entry.kind, entry.stage) == ("statement", "data")
        if has_data and names[-1:] != [name]:
            raise ConfigError(
                f"{self.folder} is the record of {names[-1]!r}, and run.name is {name!r} now",
                fix="choose another --out, or give the name that it has",
            )

    def opened(self, facts: Facts, kind: str) -> None:
        """Records the resolved configuration and the claims before anything is asked, unless the last start had the same. Raises
        as `require_kind` does."""
        self.require_kind(kind)
        digest = digest_of(facts)
        opened = [entry.stage_digest for entry in self.log.statements() if entry.kind == "opened"]
        if opened[-1:] != [digest]:
            self._append("opened", "run", 1, digest, {}, {}, {}, facts, now_utc())

    def commit(self, facts: Facts) -> None:
        """Records what is committed to before the work that depends on it begins, and keeps the checkpoint over it as
        something that can be published; what was committed to before is not committed again."""
        digest = digest_of(facts)
        for at, entry in enumerate(self.log.statements()):
            if entry.kind == "committed" and entry.stage_digest == digest:
                number = at + 1
                break
        else:
            self._append("committed", "run", 1, digest, {}, {}, {}, facts, now_utc())
            number = self.log.size
        self.log.keep_checkpoint(number)

    def stage(
        self,
        name: str,
        version: int,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        outputs: tuple[str, ...],
        work: Callable[[Path], Facts],
    ) -> Done:
        """Runs `work(scratch)` unless the log already has this very stage with these outputs unchanged.

        `outputs` are files or folders, relative to the run; `work` returns the facts. Whatever `work` raises leaves the
        intent in the log and the scratch folder for the next try. Why a stage that was done before is done anew is said first.
        """
        plain = decimals(dict(config))
        digest = digest_of({"stage": name, "version": version, "config": plain, "inputs": dict(inputs)})
        if (known := self._finished(digest)) is not None:
            self.progress.say(f"{name}: done before, unchanged")
            return known
        if (before := self._latest(name)) is not None:
            self.progress.say(f"{name}: done anew: {why_anew(before, version, plain, inputs, self.folder)}")
        if not self._intended(digest):
            self._append("intent", name, version, digest, plain, inputs, {}, {}, now_utc())
        scratch, began_at = self.work(name, digest), now_utc()
        with _timed(scratch / "wall_ms") as spent_ms:
            facts = work(scratch)
        facts["wall_ms"] = spent_ms()
        made = self._digests(outputs)
        self._append("statement", name, version, digest, plain, inputs, made, facts, began_at)
        shutil.rmtree(self.work(name, digest), ignore_errors=True)
        return Done(digest_of(made), facts)

    def intents(self, name: str) -> int:
        """How many different versions of a stage were ever begun."""
        return len(
            {entry.stage_digest for entry in self.log.statements() if (entry.kind, entry.stage) == ("intent", name)}
        )

    def _finished(self, digest: str) -> Done | None:
        for entry in reversed(list(self.log.statements())):
            if entry.kind == "statement" and entry.stage_digest == digest and self._intact(entry.outputs):
                return Done(digest_of(entry.outputs), entry.facts)
        return None

    def _latest(self, name: str) -> Statement | None:
        """What was recorded of a stage last, whatever its settings were."""
        found = [entry for entry in self.log.statements() if (entry.kind, entry.stage) == ("statement", name)]
        return found[-1] if found else None

    def _intact(self, outputs: Mapping[str, str]) -> bool:
        return all(
            (self.folder / path).is_file() and digest_file(self.folder / path) == known
            for path, known in outputs.items()
        )

    def _intended(self, digest: str) -> bool:
        """Whether the last thing recorded of this stage is an intent: then this is the same try, resumed."""
        kinds = [entry.kind for entry in self.log.statements() if entry.stage_digest == digest]
        return bool(kinds) and kinds[-1] == "intent"

    def _digests(self, outputs: tuple[str, ...]) -> dict[str, str]:
        found = {}
        for output in outputs:
            path = self.folder / output
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    found[file.relative_to(self.folder).as_posix()] = digest_file(file)
        return found

    def _append(
        self, kind: str, stage: str, version: int, digest: str, config: Mapping[str, Any], inputs: Mapping[str, str],
        outputs: Mapping[str, str], facts: Facts, began_at: str,
    ) -> None:  # fmt: skip
        statement = Statement(
            kind=kind,
            stage=stage,
            stage_version=version,
            stage_digest=digest,
            config=dict(config),
            inputs=dict(inputs),
            outputs=dict(outputs),
            facts=facts,
            code=code_digest(),
            environment=self._environment,
            hardware=digest_of(describe()),
            started_at=began_at,
            ended_at=now_utc(),
            signer=self.signer.verification_key if self.signer else "",
            salt=salt(self.key, "log", self.log.size).hex(),
            previous=self.log.last_digest,
        )
        self.log.append(statement)

    def _run_key(self) -> bytes:
        """The secret under the salts of all commitments of this run; it stays in the private store."""
        path = self.folder / "store" / "run.key"
        if not path.exists():
            write_whole(path, f"{secrets.token_hex(32)}\n".encode(), mode=0o600)
        key = bytes.fromhex(path.read_text().strip())
        if len(key) != 32:
            raise StorageError(
                f"{path} is no run key of 32 bytes", fix="restore it from a copy; the salts depend on it"
            )
        return key


def own_folder(folder: Path) -> Path:
    """The folder, where a run may be kept in it: it is not there, empty, or a run's already. Raises `StorageError` for a file and
    for a folder with anything else in it, which a run would write over."""
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file", fix="choose another --out: a run is a folder")
    found = sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
    store = folder / "store"
    is_run = any((store / name).exists() for name in ("run.key", "index.sqlite")) or any(store.glob("*.seg"))
    if found and not is_run:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise StorageError(
            f"{folder.resolve()} is no run's, and holds {shown}",
            fix="choose another --out: a run is a folder of its own",
        )
    return folder


def _tell_of_reading(store: Path, progress: Progress) -> None:
    """A large store without its index is read whole: a person must know what takes so long."""
    size = sum(path.stat().st_size for path in store.glob("*.seg"))
    if size > _SILENT_BYTES and not (store / "index.sqlite").exists():
        progress.say(f"store: its index is made anew from {size / 1e9:.1f} GB of answers, about {size / 1e8:.0f} s")


def _kind_of(entries: Iterable[Statement]) -> str:
    """Which command a log is of: the one with a claim, a comparison, or open questions, or the other; empty while that is
    open."""
    stages: set[str] = set()
    for entry in entries:
        if entry.kind == "opened" and "claim" in entry.facts:
            return "run"
        if entry.kind == "opened" and "comparison" in entry.facts:
            return "compare-teachers"
        if entry.kind == "opened" and "claims" in entry.facts:
            return "prove"
        stages.add(entry.stage)
    return "collect" if "questions" in stages else "train" if stages - {"run", "terms"} else ""


def origin_of(run_key: bytes) -> str:
    """The name of a run's log: the same for ever, another for every run."""
    return "tutelage/run/" + salt(run_key, "origin", 0).hex()[:16]


@contextlib.contextmanager
def _timed(tally: Path) -> Iterator[Callable[[], int]]:
    """Gives a function that says the wall time in ms, earlier tries included: one that ends by an exception leaves its
    time in `tally` (a killed one cannot)."""
    earlier = int(tally.read_text()) if tally.exists() else 0
    began = time.monotonic()

    def spent_ms() -> int:
        return earlier + round(1000 * (time.monotonic() - began))

    try:
        yield spent_ms
    except BaseException:
        with contextlib.suppress(StorageError):  # a full disk must not hide what went wrong
            write_whole(tally, str(spent_ms()).encode())
        raise


@functools.cache
def code_digest() -> str:
    """Version, and digest of the package's own source files as installed."""
    package = Path(tutelage.__file__).parent
    files = {
        path.relative_to(package).as_posix(): digest_bytes(path.read_bytes())
        for path in sorted(package.rglob("*"))
        if path.suffix in (".py", ".yaml", ".j2", ".toml")
    }
    return f"tutelage {tutelage.__version__} {digest_of(files)}"


@functools.cache
def installed_versions() -> dict[str, str]:
    """Versions of Python and of every installed package that results may depend on."""
    import platform
    from importlib.metadata import distributions

    found = {}
    for item in distributions():
        # Only the head of a package's metadata is read: to parse all of them takes a fifth of a second.
        head = (item.read_text("METADATA") or item.read_text("PKG-INFO") or "").split("\n\n", 1)[0]
        fields = dict(line.split(": ", 1) for line in head.splitlines() if line.startswith(("Name: ", "Version: ")))
        if "Name" in fields and "Version" in fields:
            found[fields["Name"].strip().lower()] = fields["Version"].strip()
    return {"python": platform.python_version(), **dict(sorted(found.items()))}
