"""How a training went, from `train/metrics.jsonl`: the curve of its loss, and every look at the held-out conversations."""

from typing import Any, NamedTuple

from tutelage.errors import DataError
from tutelage.records import UNATS_PER_NAT
from tutelage.report import plots
from tutelage.view.runs import METRICS, Run, kind_of, read_rows, stages_of

MOST_POINTS = 400  # of the curve: a picture has no room for more


class Look(NamedTuple):
    """The held-out conversations after a step (0: before the first), in nats a token: the objective, and cross-entropy of the
    text where it was measured."""

    step: int
    objective_nats: float
    text_nats: float | None


class Training(NamedTuple):
    """`chart` is SVG, of every step or, of a long training, of every so many; `kept` is the step whose weights were kept."""

    chart: str
    steps: int
    every: int
    looks: tuple[Look, ...]
    kept: int


def training_of(run: Run) -> Training | None:
    """None before the steps are done, and of other folders, whose evidence has it. Raises `DataError` when the file has another
    shape."""
    entries = run.statements()
    done = [stage.facts for stage in stages_of(entries) if stage.name == "train" and stage.is_done]
    if not done or kind_of(run.folder, entries) != "train":
        return None
    rows, kept = list(read_rows(run.folder / METRICS)), done[-1].get("chosen_step")
    if not rows or not isinstance(kept, int):
        return None
    every = -(-len(rows) // MOST_POINTS)
    try:
        shown = [row for at, row in enumerate(rows) if at % every == 0 or at == len(rows) - 1]
        curve = [
            {"step": int(row["step"]), "loss_nats": float(row["loss_nats"]), "validation_kl_nats": None}
            for row in shown
        ]
        looks = [
            Look(int(row["step"]), float(row["validation_nats"]), _optional(row.get("validation_text_nats")))
            for row in rows
            if "validation_nats" in row
        ]
        before = (done[-1].get(f"before_{name}_unats") for name in ("objective", "text"))
        objective, text = (None if one is None else int(one) / UNATS_PER_NAT for one in before)
        if objective is not None:
            looks.insert(0, Look(0, objective, text))
        return Training(
            plots.training_chart({"curve": curve, "chosen_step": kept}), len(rows), every, tuple(looks), kept
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{run.folder / METRICS} has not what is shown here: {error!r:.200}",
            fix="look at it with the version that wrote it",
        ) from error


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)
