"""Run files: hand-written TOML in, a resolved and validated configuration out.

Unknown keys are refused with the nearest known one. Sizes are named tables of dotted overrides, applied before
validation; what is run is always the resolved configuration, and it is saved beside the run.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tutelage.compare_config import CompareConfig
from tutelage.config import CollectConfig, RunConfig, TeacherTable
from tutelage.errors import ConfigError
from tutelage.proof_config import ProofConfig
from tutelage.training_config import TrainingConfig

# Whose run file it is, by the first table that is there.
_MARKS = (
    ("systems", "prove"),
    ("method", "train"),  # which may have teachers as well
    ("teachers", "compare-teachers"),
    ("prompts", "collect"),
    ("task", "run"),
)


def verb_of(path: Path) -> str:
    """Which command a run file is of; "run" where nothing tells. Raises `ConfigError` when it cannot be read."""
    return _verb(_read(path))


def load_config(path: Path, size: str | None = None, overrides: dict[str, Any] | None = None) -> RunConfig:
    """The run file of a distillation, with the named size and then dotted overrides applied.

    Raises `ConfigError` with the offending key or value and the fix.
    """
    raw = _read_for("run", path)
    sizes = raw.get("sizes", {})
    if size is not None and size not in sizes:
        known = ", ".join(sorted(sizes)) or "none"
        raise ConfigError(f"{path} has no size {size!r}", fix=f"sizes in this file: {known}")
    overrides = {**(sizes[size] if size else {}), **(overrides or {})}
    return validate(RunConfig, applied(raw, overrides), str(path))


def load_collect_config(path: Path, overrides: dict[str, Any] | None = None) -> CollectConfig:
    """The run file of `tutelage collect`, with dotted overrides applied. Raises `ConfigError`."""
    return validate(CollectConfig, applied(_read_for("collect", path), overrides or {}), str(path))


def load_training_config(path: Path, overrides: dict[str, Any] | None = None) -> TrainingConfig:
    """The run file of `tutelage train`, with dotted overrides applied. Raises `ConfigError`."""
    return validate(TrainingConfig, applied(_read_for("train", path), overrides or {}), str(path))


def load_compare_config(path: Path, overrides: dict[str, Any] | None = None) -> CompareConfig:
    """The run file of `tutelage compare-teachers`, with dotted overrides applied. Raises `ConfigError`."""
    return validate(CompareConfig, applied(_read_for("compare-teachers", path), overrides or {}), str(path))


def load_proof_config(path: Path, overrides: dict[str, Any] | None = None) -> ProofConfig:
    """The run file of `tutelage prove`, with dotted overrides applied. Raises `ConfigError`."""
    return validate(ProofConfig, applied(_read_for("prove", path), overrides or {}), str(path))


def _verb(raw: dict[str, Any]) -> str:
    return next((verb for table, verb in _MARKS if table in raw), "run")


def _read_for(verb: str, path: Path) -> dict[str, Any]:
    """The tables of a run file of that command. Raises `ConfigError` for one of another."""
    raw = _read(path)
    found = _verb(raw)
    if found != verb and any(table in raw for table, _ in _MARKS):
        raise ConfigError(f"{path} is a run file of `tutelage {found}`", fix=f"tutelage {found} {path}")
    return raw


class _TeacherAlone(BaseModel):
    model_config = ConfigDict(extra="ignore")
    teacher: TeacherTable


def load_teacher(path: Path | None, overrides: dict[str, Any]) -> TeacherTable:
    """The teacher of a run file of either kind, or of dotted overrides alone. Raises `ConfigError`."""
    raw = applied({} if path is None else _read(path), overrides)
    return validate(_TeacherAlone, raw, "the command line" if path is None else str(path)).teacher


def applied(raw: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The same tables with dotted overrides written in. Raises `ConfigError` for a table that is none."""
    for dotted, value in overrides.items():
        _set(raw, dotted, value)
    return raw


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"no run file {path}",
            fix="write one with: tutelage init --data FILE --teacher URL; docs/training.md has a training's",
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", fix="give a run file that can be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", fix="mend the line named above") from None


Kind = TypeVar("Kind", bound=BaseModel)


def validate(kind: type[Kind], raw: dict[str, Any], where: str) -> Kind:
    """Raises `ConfigError` naming every problem, with a did-you-mean for unknown keys."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        problems = list(dict.fromkeys(_explain(kind, item) for item in error.errors()))
    raise ConfigError(f"{where}: " + "; ".join(problems), fix="mend the keys named above; see docs/run-file.md")


def _set(raw: dict[str, Any], dotted: str, value: Any) -> None:
    table = raw
    *parents, last = dotted.split(".")
    for name in parents:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{dotted}: {name} is not a table", fix="use table.key as in the run file")
    table[last] = value


def _explain(kind: type[BaseModel], item: Any) -> str:
    is_scorer = kind is TrainingConfig and item["loc"][:1] == ("scorer",)  # people write it as [teacher]
    named = [
        part for part in item["loc"] if not str(part).startswith("constrained-")
    ]  # of several types that a key may have
    path = ".".join(str(part) for part in (("teacher", *named[1:]) if is_scorer else named))
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(item["loc"][-1]), _known_keys(kind, item["loc"][:-1]), n=1, cutoff=0.5)
        return f"unknown key {path}" + (f" (did you mean {near[0]}?)" if near else "")
    if item["type"] == "missing":
        return f"missing key {path}"
    message = item["msg"].removeprefix("Value error, ")
    if isinstance(item["input"], dict):
        return f"{path}{_given(item['input'], message)}: {message}" if item["loc"] else message
    whole = path.count(".") == path.startswith("teachers.")  # a teacher's table may hold a key
    shown = "" if path.startswith("teacher") and whole else f" = {item['input']!r:.120}"
    return f"{path}{shown}: {message}" if item["loc"] else message


def _given(table: dict[str, Any], message: str) -> str:
    """Which of the keys that a problem is about a table has, in words; never their values, which may be secret."""
    told = [key for key in table if re.search(rf"\b{re.escape(key)}\b", message)]
    return f" has {', '.join(told[:-1])} and {told[-1]}" if len(told) > 1 else f" has {told[0]}" if told else ""


def _known_keys(kind: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    model: Any = kind
    for part in location:
        if isinstance(part, int) or part not in model.model_fields:  # a place in a list, a name that a person gave
            continue
        annotation = model.model_fields[part].annotation
        model = next((kind for kind in _models_in(annotation)), None)
        if model is None:
            return []
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _models_in(inner)]
