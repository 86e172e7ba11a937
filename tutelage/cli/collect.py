"""`tutelage collect`: ask a teacher about open questions; running it again asks only what is not answered."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tutelage.errors import TermsError

if TYPE_CHECKING:
    from tutelage.pipeline.collecting import Collected

Overrides = Annotated[tuple[str, ...], Parameter(name="--set", negative="")]


def collect(
    source: Path,
    *,
    out: Path | None = None,
    teacher: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    licence: str | None = None,
    max_cost: float | None = None,
    set_: Overrides = (),
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Ask a teacher every question of a file, within a budget. Run the same command again to resume.

    Parameters
    ----------
    source
        A run file (.toml), or a file of questions (.jsonl, .csv, .tsv, .parquet) with --teacher.
    out
        The folder for answers and record (default: runs/NAME).
    teacher
        "embedded", or the URL of an endpoint, such as https://host/v1.
    model
        The model to ask there.
    api_key_env
        Name of the environment variable that holds the key; the key itself is never written.
    licence
        Of the model's weights, where they are public.
    max_cost
        Stop before spending more than so many dollars (default: 3).
    set_
        Set one key of the run file, for instance --set sampling.max_tokens=200; may be repeated.
    json
        Print one JSON object.
    quiet
        Say nothing on standard error.
    """
    from tutelage.cli.output import print_json
    from tutelage.cli.overrides import parse_overrides
    from tutelage.config import CollectConfig
    from tutelage.errors import ConfigError
    from tutelage.ledger.keys import default_signer
    from tutelage.pipeline.collecting import collect as ask
    from tutelage.pipeline.run import Run, own_folder
    from tutelage.progress import Lines, Quiet, stop_on_signals
    from tutelage.run_file import applied, load_collect_config, validate

    if teacher is not None and teacher != "embedded" and not teacher.startswith(("http://", "https://")):
        shown = "" if set(teacher) & set("?@") else f" {teacher!r}"  # it may hold a key
        raise ConfigError(f"--teacher{shown} is no URL", fix='give "embedded" or a URL such as http://host:8000/v1')
    said = _said(teacher, model, api_key_env, licence, max_cost)
    overrides = {**said, **parse_overrides(set_)}
    if source.suffix == ".toml":
        config = load_collect_config(source, overrides)
    elif teacher is None:
        raise ConfigError(f"{source}: whom to ask?", fix="add --teacher URL --model NAME, or give a run file (.toml)")
    else:
        config = validate(CollectConfig, applied(_questions_alone(source), overrides), "the command line")
    folder = own_folder(out or Path("runs") / config.run.name)
    progress = Quiet() if quiet else Lines()
    with (
        stop_on_signals(progress) as stop,
        _with_hint(source, licence),
        Run(folder, progress, stop, default_signer()) as under_way,
    ):
        found = ask(config, under_way)
    if json:
        print_json({**found._asdict(), "folder": str(folder)})
    else:
        print(describe(found, folder))
    return 0


@contextmanager
def _with_hint(source: Path, licence: str | None) -> Iterator[None]:
    """What the terms lack is said as a flag to whoever uses flags."""
    try:
        yield
    except TermsError as error:
        if source.suffix == ".toml" or licence is not None:
            raise
        fix = f"{error.fix}; on the command line: --licence ID, where the model's weights are public"
        raise TermsError(error.message, fix=fix) from None


def describe(found: "Collected", folder: Path) -> str:
    """What came of it, in plain lines."""
    from tutelage.records import NUSD_PER_USD

    cost, expected = found.settled_nusd / NUSD_PER_USD, found.expected_nusd / NUSD_PER_USD
    unknown = found.unresolved_nusd / NUSD_PER_USD
    maybe = f", and up to ${unknown:.4f} for calls whose end nobody knows" if unknown else ""
    refused = f", {found.refused:,} refused (collect/refused.jsonl)" if found.refused else ""
    cut = f"; {found.cut:,} were cut at max_tokens" if found.cut else ""
    return "\n".join(
        [
            f"answers   {found.answered:,} of {found.draws:,} to {found.questions:,} questions{refused}{cut}",
            f"cost      ${cost:.4f}{maybe}; about ${expected:.4f} was expected",
            f"export    tutelage export {shlex.quote(str(folder))} --out answers.jsonl",
        ]
    )


def _said(
    teacher: str | None, model: str | None, api_key_env: str | None, licence: str | None, max_cost: float | None
) -> dict[str, Any]:
    """The flags as dotted keys of a run file."""
    where = (
        {}
        if teacher is None
        else {"teacher.resource": _EMBEDDED}
        if teacher == "embedded"
        else {"teacher.url": teacher}
    )
    rest = {
        "teacher.model": model,
        "teacher.api_key_env": api_key_env,
        "teacher.licence": licence,
        "budget.max_cost_usd": max_cost,
    }
    return {**where, **{key: value for key, value in rest.items() if value is not None}}


_EMBEDDED = "smollm2-135m-instruct"


def _questions_alone(source: Path) -> dict[str, Any]:
    """A run file around a file of questions: the answered words, your own licence, internal use."""
    name = "".join(character if character.isalnum() or character in "._-" else "-" for character in source.stem)
    return {
        "run": {"name": name.strip("-._")[:64] or "questions", "seed": 1, "purpose": "internal"},
        "prompts": {"path": str(source), "licence": "own"},
        "teacher": {"signal": "text", "concurrency": 16},
    }
