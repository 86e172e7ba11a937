"""`tutelage train`: a student trained on conversations, as a run file says; running it again resumes."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from tutelage.pipeline.training import Trained

Overrides = Annotated[tuple[str, ...], Parameter(name="--set", negative="")]


def train(
    run_file: Path,
    *,
    out: Path | None = None,
    track: Literal["trackio", "mlflow", "wandb"] | None = None,
    set_: Overrides = (),
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Train a student on conversations, from a teacher's weights or on text alone. Run the same command again to resume.

    Parameters
    ----------
    run_file
        The TOML file; docs/training.md has one, docs/run-file.md every key.
    out
        The run folder (default: runs/NAME).
    track
        Show the numbers there as well, in the project tutelage; train/metrics.jsonl has them in any case.
    set_
        Set one key of the run file, for instance --set train.steps=20; may be repeated.
    json
        Print one JSON object.
    quiet
        Say nothing on standard error.
    """
    from tutelage.cli.output import print_json
    from tutelage.cli.overrides import parse_overrides
    from tutelage.jsonl import write_whole
    from tutelage.ledger.keys import default_signer
    from tutelage.pipeline.run import Run, own_folder
    from tutelage.pipeline.training import ready, train_student
    from tutelage.progress import Lines, Quiet, stop_on_signals
    from tutelage.run_file import load_training_config

    config = load_training_config(run_file, parse_overrides(set_))
    folder = own_folder(out or Path("runs") / config.run.name)
    progress, text = Quiet() if quiet else Lines(), run_file.read_bytes()
    with stop_on_signals(progress, at_once=True) as stop:
        is_ready = ready(config, track or "")  # before there is a folder
        with Run(folder, progress, stop, default_signer()) as under_way:
            under_way.require_kind("train", config.run.name)
            write_whole(folder / "run.toml", text)
            found = train_student(is_ready, under_way)
    if json:
        print_json({**found._asdict(), "folder": str(folder)})
    else:
        print(describe(found, folder))
    return 0


def describe(found: "Trained", folder: Path) -> str:
    """What came of it, in plain lines."""
    tokens = ", ".join(f"{count:,} as {role}" for role, count in found.tokens.items())
    where = shlex.quote(str(folder))
    worse = found.objective_unats >= found.before_objective_unats
    return "\n".join(
        [
            f"student    {folder / 'student'}: {found.parameters:,} parameters of {found.base_parameters:,}",
            f"steps      {found.steps:,} on {_of(found)} conversations; the weights of step {found.chosen_step:,} kept",
            f"tokens     {tokens}",
            f"judged on  {found.validation_examples:,} conversations that were set aside, nats a token:",
            f"  {found.objective}  {_change(found.before_objective_unats, found.objective_unats)}",
            f"  cross-entropy of the text  {_change(found.before_text_unats, found.text_unats)}",
            *(
                ["warning    no step was better than the student before training, by the first of these"]
                if worse
                else []
            ),
            *([sure] if (sure := _sure(found.calibration)) else ()),
            f"serve:     tutelage serve {where}",
            f"verify:    tutelage verify {where}",
        ]
    )


def _of(found: "Trained") -> str:
    return f"{found.taken:,} of {found.examples:,}" if found.taken < found.examples else f"{found.examples:,}"


def _sure(ppm: Mapping[str, int]) -> str:
    """How far the student's confidence is to be believed; empty where that was not measured."""
    if not ppm:
        return ""
    from tutelage.ship.training_card import FEW_TOKENS

    off = f"its probabilities are {ppm['ece_ppm'] / 1e4:.1f} points off how often it is right, on {ppm['positions']:,} tokens"
    if "ece_after_ppm" in ppm:
        off += f"; {ppm['ece_after_ppm'] / 1e4:.1f} with logits divided by {ppm['temperature_ppm'] / 1e6:.3f}"
    return f"sure       {off} ({'few tokens: ' if ppm['positions'] < FEW_TOKENS else ''}the card says more)"


def _change(before_unats: int, after_unats: int) -> str:
    return f"{before_unats / 1e6:.3f} -> {after_unats / 1e6:.3f}"
