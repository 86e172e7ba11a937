"""`tutelage view`: runs, their examples and their proofs as local pages, or as files."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tutelage.view.looking import Looking


def view(
    *runs: Path,
    port: int = 0,
    bundle: Path | None = None,
    private: bool = False,
    examples: int = 500,
    cache: Path | None = None,
) -> int:
    """Look at runs in a browser: stages, every exchange and where it went, teacher and student side by side.

    Pages are served on this machine alone, under an address with a random key, until Ctrl-C. Nothing is written into a run.

    Parameters
    ----------
    runs
        Run folders, or folders of runs (default: runs).
    port
        Port on 127.0.0.1 (default: any free one).
    bundle
        Write the pages as files into this new folder instead of serving them.
    private
        With --bundle: also prompts, answers, settings, report and evidence. Without it, no page shows any of them.
    examples
        With --bundle --private: at most so many examples of each run (whole pages of 50).
    cache
        Where indexes of the stores are kept (default: the person's cache folder); they hold words of the answers.
    """
    from tutelage.errors import ConfigError
    from tutelage.view.looking import Looking
    from tutelage.view.runs import find_runs
    from tutelage.view.schema import cache_path, forget_gone

    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port} is no port", fix="give a number from 0 to 65535; 0 takes any free one")
    if bundle is None and (private or examples != 500):
        raise ConfigError("--private and --examples belong to --bundle", fix="leave them out, or add --bundle FOLDER")
    if examples < 1:
        raise ConfigError(f"--examples {examples} is no number of examples", fix="give 1 or more")
    if not runs and not Path("runs").is_dir():
        raise ConfigError("there is no folder runs here", fix="name a run folder, or a folder of runs")
    found = find_runs(runs or (Path("runs"),))
    forget_gone(cache_path(Path(), cache).parent)
    looking = Looking(found, cache)
    if bundle is not None:
        return _bundle(looking, bundle, private, examples)
    from tutelage.view.app import serve

    serve(
        looking,
        port,
        lambda address: print(f"{len(found)} runs at {address}\nCtrl-C ends it", flush=True),
    )
    return 0


def _bundle(looking: "Looking", out: Path, private: bool, examples: int) -> int:
    from tutelage.redact import Secrets
    from tutelage.view.bundle import write_bundle

    try:
        made = write_bundle(looking, out, private=private, limit=examples, secrets=Secrets.of_environment())
    finally:
        looking.close()
    print(f"{out / 'index.html'}: {made.files} files, {made.bytes / 1e6:.1f} MB")
    if private:
        print(f"they hold prompts and answers of {made.examples} examples, settings, reports and evidence: private")
    else:
        print("they hold stages, counts, verdicts, systems and sources; no prompt, answer, setting or file of a run")
    for name, count in made.left_out.items():
        print(f"{name}: {count} examples are left out (--examples)")
    for name, problem in made.problems.items():
        print(f"{name}: cannot be read: {problem}")
    return 1 if made.problems else 0
