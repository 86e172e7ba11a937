"""Run files: hand-written TOML in, a resolved and validated configuration out.

Unknown keys are refused with the nearest known one. Sizes are named tables of dotted overrides, applied before
validation; what is run is always the resolved configuration, and it is saved beside the run.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tutelage.config import CollectConfig, RunConfig, TeacherTable
from tutelage.errors import ConfigError
from tutelage.training_config import TrainingConfig


def load_config(path: Path, size: str | None = None, overrides: dict[str, Any] | None = None) -> RunConfig:
    """The run file of a distillation, with the named size and then dotted overrides applied.

    Raises `ConfigError` with the offending key or value and the fix.
    """
    raw = _read(path)
    if "prompts" in raw:
        raise ConfigError(f"{path} is a run file of `tutelage collect`", fix=f"tutelage collect {path}")
    _refuse_training(path, raw)
    sizes = raw.get("sizes", {})
    if size is not None and size not in sizes:
        known = ", ".join(sorted(sizes)) or "none"
        raise ConfigError(f"{path} has no size {size!r}", fix=f"sizes in this file: {known}")
    overrides = {**(sizes[size] if size else {}), **(overrides or {})}
    return validate(RunConfig, applied(raw, overrides), str(path))


def load_collect_config(path: Path, overrides: dict[str, Any] | None = None) -> CollectConfig:
    """The run file of `tutelage collect`, with dotted overrides applied. Raises `ConfigError`."""
    raw = _read(path)
    if "task" in raw:
        raise ConfigError(f"{path} is a run file of `tutelage run`", fix=f"tutelage run {path}")
    _refuse_training(path, raw)
    return validate(CollectConfig, applied(raw, overrides or {}), str(path))


def load_training_config(path: Path, overrides: dict[str, Any] | None = None) -> TrainingConfig:
    """The run file of `tutelage train`, with dotted overrides applied. Raises `ConfigError`."""
    raw = _read(path)
    for table, verb in (("task", "run"), ("prompts", "collect")):
        if table in raw:
            raise ConfigError(f"{path} is a run file of `tutelage {verb}`", fix=f"tutelage {verb} {path}")
    return validate(TrainingConfig, applied(raw, overrides or {}), str(path))


def _refuse_training(path: Path, raw: dict[str, Any]) -> None:
    if "method" in raw:
        raise ConfigError(f"{path} is a run file of `tutelage train`", fix=f"tutelage train {path}")


class _TeacherAlone(BaseModel):
    model_config = ConfigDict(extra="ignore")
    teacher: TeacherTable


def load_teacher(path: Path | None, overrides: dict[str, Any]) -> TeacherTable:
    """The teacher of a run file of either kind, or of dotted overrides alone. Raises `ConfigError`."""
    raw = applied({} if path is None else _read(path), overrides)
    return validate(_TeacherAlone, raw, "the command line" if path is None else str(path)).teacher


def is_collection(path: Path) -> bool:
    """Whether a run file is one of `tutelage collect`. Raises `ConfigError` when it cannot be read."""
    return "prompts" in _read(path)


def is_training(path: Path) -> bool:
    """Whether a run file is one of `tutelage train`. Raises `ConfigError` when it cannot be read."""
    return "method" in _read(path)


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
        problems = [_explain(kind, item) for item in error.errors()]
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
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(item["loc"][-1]), _known_keys(kind, item["loc"][:-1]), n=1, cutoff=0.5)
        return f"unknown key {path}" + (f" (did you mean {near[0]}?)" if near else "")
    if item["type"] == "missing":
        return f"missing key {path}"
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if path.startswith("teacher") and not path.count(".") else f" = {item['input']!r:.120}"  # may hold a key
    return f"{path}{shown}: {message}" if item["loc"] else message


def _known_keys(kind: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    model: Any = kind
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        model = next((kind for kind in _models_in(annotation)), None)
        if model is None:
            return []
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _models_in(inner)]
