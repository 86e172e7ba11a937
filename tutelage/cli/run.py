"""`tutelage run` and `tutelage demo`: the whole arc into a run folder; running again resumes."""

from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from tutelage.config import RunConfig

Overrides = Annotated[tuple[str, ...], Parameter(name="--set", negative="")]


def run(
    run_file: Path, *, out: Path | None = None, size: str | None = None, set_: Overrides = (), quiet: bool = False
) -> int:
    """Do the job a run file describes. Run the same command again to resume.

    Parameters
    ----------
    run_file
        The TOML file; write one with `tutelage init`.
    out
        The run folder (default: runs/NAME of the run file, with the size behind it).
    size
        A named size of the run file.
    set_
        Override one key, for instance --set train.epochs=3; may be repeated.
    quiet
        Say nothing on standard error.
    """
    from tutelage.cli.overrides import parse_overrides
    from tutelage.run_file import load_config

    config = load_config(run_file, size, parse_overrides(set_))
    folder = out or Path("runs") / (config.run.name + (f"-{size}" if size else ""))
    return _distil(config, run_file, folder, quiet)


def demo(
    *,
    full: bool = False,
    quick: bool = False,
    out: Path | None = None,
    set_: Overrides = (),
    quiet: bool = False,
) -> int:
    """The demo: a real teacher, real sentences rated by people, a student and its proof.

    Parameters
    ----------
    full
        The whole job: 6,000 questions to learn from, 4,500 held out (about half an hour on 2 cores).
    quick
        A small check that everything works (two to three minutes); too small to prove much.
    out
        The run folder (default: runs/demo, runs/demo-full or runs/demo-quick).
    set_
        Override one key of the recipe; may be repeated.
    quiet
        Say nothing on standard error.
    """
    from tutelage.cli.overrides import parse_overrides
    from tutelage.errors import ConfigError
    from tutelage.run_file import load_config

    if full and quick:
        raise ConfigError("--full and --quick together", fix="choose one")
    size: Literal["full", "standard", "quick"] = "full" if full else "quick" if quick else "standard"
    folder = out or Path("runs") / ("demo" if size == "standard" else f"demo-{size}")
    with as_file(files("tutelage.recipes") / "film_reviews" / "run.toml") as recipe:
        return _distil(load_config(recipe, size, parse_overrides(set_)), recipe, folder, quiet)


def _distil(config: "RunConfig", run_file: Path, folder: Path, quiet: bool) -> int:
    import json

    from tutelage.jsonl import write_whole
    from tutelage.ledger.keys import default_signer
    from tutelage.pipeline.distil import distil
    from tutelage.pipeline.run import Run, own_folder
    from tutelage.progress import Lines, Quiet, stop_on_signals
    from tutelage.report.tables import result_table

    progress = Quiet() if quiet else Lines()
    text = run_file.read_bytes()
    signer = default_signer()
    if signer is None:
        progress.say("record: not signed, since there is no key; make one with: tutelage key new NAME")
    with stop_on_signals(progress) as stop, Run(own_folder(folder), progress, stop, signer) as under_way:
        under_way.require_kind("run")
        write_whole(folder / "run.toml", text)
        report = distil(config, under_way)
    evidence = json.loads((folder / "evidence.json").read_bytes())
    print(result_table(evidence))
    print(f"\nreport:  {report}\nserve:   tutelage serve {folder}\nverify:  tutelage verify {folder}")
    return 0
