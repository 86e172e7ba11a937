"""Scoring tasks by name, as run files write them, and plug-ins for one's own.

A plug-in is an entry point of the group `tutelage.tasks`: its name is the `kind` of run files, its object a callable
`(options) -> Task`, options being the other keys of the table. It raises `ConfigError` for options that are none of its own.
"""

import difflib
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tutelage.errors import ConfigError, TutelageError
from tutelage.prove.tasks.base import Task
from tutelage.prove.tasks.code import Code, CodeOptions
from tutelage.prove.tasks.exact import Exact, ExactOptions
from tutelage.prove.tasks.json_fields import JsonFields, JsonOptions
from tutelage.prove.tasks.labels import LabelOptions
from tutelage.prove.tasks.labels import make as make_labels
from tutelage.prove.tasks.maths import Maths, MathsOptions
from tutelage.prove.tasks.numbers import Number, NumberOptions
from tutelage.prove.tasks.overlap import Chrf, ChrfOptions, RougeL, RougeOptions
from tutelage.prove.tasks.tool_calls import ToolCallOptions
from tutelage.prove.tasks.tool_calls import make as make_tool_calls
from tutelage.run_file import validate

PLUG_INS = "tutelage.tasks"
BUILT_IN: dict[str, tuple[Any, Callable[[Any], Task]]] = {
    "exact": (ExactOptions, Exact),
    "labels": (LabelOptions, make_labels),
    "number": (NumberOptions, Number),
    "maths": (MathsOptions, Maths),
    "json": (JsonOptions, JsonFields),
    "tool_calls": (ToolCallOptions, make_tool_calls),
    "rouge_l": (RougeOptions, RougeL),
    "chrf": (ChrfOptions, Chrf),
    "code": (CodeOptions, Code),
}


def task_of(kind: str, options: Mapping[str, Any]) -> Task:
    """The task of that kind. Raises `ConfigError` for an unknown kind, naming the near one, and for options that the kind
    does not have or that are out of range."""
    if kind in BUILT_IN:
        table, make = BUILT_IN[kind]
        return make(validate(table, dict(options), f"task {kind}"))
    if ":" in kind:
        raise ConfigError(
            f"task kind {kind!r} names code; a run file runs none",
            fix=f"install it as an entry point of the group {PLUG_INS} and give that name; see docs/prove.md",
        )
    found = entry_points(group=PLUG_INS)
    for plug_in in found:
        if plug_in.name == kind:
            return _opened(plug_in, options)
    known = [*BUILT_IN, *sorted(found.names)]
    near = difflib.get_close_matches(kind, known, n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"there is no task kind {kind!r}{meant}", fix=f"one of: {', '.join(known)}; or install its plug-in"
    )


def _opened(plug_in: EntryPoint, options: Mapping[str, Any]) -> Task:
    kind = plug_in.name
    try:
        task = plug_in.load()(dict(options))
    except TutelageError:
        raise
    except Exception as error:
        raise ConfigError(
            f"task plug-in {kind!r} cannot be opened with {dict(options)!r}: {type(error).__name__}: {error}",
            fix="mend the options in the run file, or the plug-in",
        ) from error
    lacks = [name for name in ("name", "is_binary", "metric", "require_reference", "score") if not hasattr(task, name)]
    if lacks:
        raise ConfigError(
            f"task plug-in {kind!r} has no {', '.join(lacks)}", fix="give it all of tutelage.prove.tasks.base.Task"
        )
    return task
