"""The journal of a run, shown elsewhere as well: trackio, MLflow or Weights & Biases, imported only when asked for.

`metrics.jsonl` stays the record; a tracker that fails is told once and left alone, since no run should end for a chart.
"""

import importlib
from collections.abc import Callable
from typing import Any

from tutelage.errors import ConfigError
from tutelage.train.watch import numbers

TRACKERS = ("trackio", "mlflow", "wandb")
Log = Callable[[dict[str, Any]], None]


def tracker(name: str) -> Any:
    """The package of this name. Raises `ConfigError` for an unknown one and for one that is not installed."""
    if name not in TRACKERS:
        raise ConfigError(f"there is no tracker {name!r}", fix=f"use one of {', '.join(TRACKERS)}, or none")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"{name} is not installed", fix=f"pip install {name}, or leave the tracker out") from error


def tracked(name: str, project: str, run: str, log: Log, tell: Callable[[str], None]) -> Log:
    """`log`, and the numbers of every line to the tracker of this name. Raises `ConfigError` for an unknown one and for one that
    is not installed."""
    module = tracker(name)
    send = _mlflow(module, project, run) if name == "mlflow" else _wandb_like(module, project, run)
    broken = False

    def both(entry: dict[str, Any]) -> None:
        nonlocal broken
        log(entry)
        if not broken:
            try:
                send(numbers(entry), int(entry["step"]))
            except Exception as error:  # whatever a tracker does wrong is not ours to die of
                broken = True
                tell(f"{name} failed and is not told any more: {error}")

    return both


def _wandb_like(module: Any, project: str, run: str) -> Callable[[dict[str, float], int], None]:
    module.init(project=project, name=run)
    return lambda values, step: module.log(values, step=step)


def _mlflow(module: Any, project: str, run: str) -> Callable[[dict[str, float], int], None]:
    module.set_experiment(project)
    module.start_run(run_name=run)
    return lambda values, step: module.log_metrics({key.replace("/", "."): v for key, v in values.items()}, step=step)
