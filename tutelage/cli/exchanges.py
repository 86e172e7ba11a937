"""`tutelage export` and `tutelage import`: answers out of a run folder, and answers that others collected into one."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def export_(
    folder: Path,
    *,
    out: Path,
    form: Annotated[
        Literal["prompt-completion", "messages", "inspect"], Parameter(name=["--form", "--format"])
    ] = "prompt-completion",
    everything: bool = False,
) -> int:
    """Write the answers of a run as one file in Hugging Face columns, without those kept for the proof; or a proof as
    evaluation logs of Inspect, one a system.

    Parameters
    ----------
    folder
        The run folder.
    out
        The file to write: .jsonl or .parquet; for `inspect` the folder.
    form
        One column `messages`, or the columns `prompt` and `completion`; `tools` and `metadata` come with both. `inspect`: a
        finished `tutelage prove`.
    everything
        Also answers that an earlier collection with other settings left in the folder.
    """
    from tutelage.collect.exporting import export
    from tutelage.errors import ConfigError
    from tutelage.jsonl import read_lines
    from tutelage.store.store import Store

    if form == "inspect":
        return _export_inspect(folder, out)
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("jsonl", "parquet"):
        raise ConfigError(f"--out {out}: what should it be?", fix="let the name end in .jsonl or .parquet")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.absolute().parent}", fix="make it, or mend the path")
    if not (folder / "store").is_dir():
        raise ConfigError(f"{folder} has no store", fix="give a run folder, such as runs/NAME")
    collected = folder / "collect" / "exchanges.jsonl"
    addresses = None
    if collected.is_file() and not everything:
        addresses = [row["address"] for row in read_lines(collected)]
    with Store(folder / "store") as store:
        done = export(store, out, kind, addresses, form=form)  # type: ignore[arg-type]
    left = [f"{done.held_out:,} kept for the proof"] if done.held_out else []
    left += [f"{done.completions:,} plain completions"] if done.completions else []
    print(f"{out}: {done.rows:,} answers" + (f"; left out: {', '.join(left)}" if left else ""))
    if done.unchecked:
        print(
            f"  no terms were checked for {done.unchecked:,} of them, captured or imported: metadata.terms is empty there"
        )
    return 0


def _export_inspect(folder: Path, out: Path) -> int:
    from tutelage.pipeline.inspect_export import export_inspect

    for path in export_inspect(folder, out):
        print(path)
    return 0


def import_(
    file: Path,
    *,
    out: Path,
    model: str = "",
    licence: str = "",
    provider: str = "",
    bad_rows: Literal["stop", "skip"] = "stop",
) -> int:
    """Store answers that somebody else collected, marked as declared and unverified. Importing twice adds nothing.

    Parameters
    ----------
    file
        A .jsonl, .csv, .tsv or .parquet file with questions and answers, or a .json log of Inspect.
    out
        The run folder to put them in.
    model
        The model that answered, for rows that do not name it.
    licence
        Under which you hold the answers: "own", or an SPDX id; for rows that do not say it.
    provider
        Whose endpoint answered, an id in the terms registry, for rows that do not name it.
    bad_rows
        "skip" leaves bad rows out; "stop" stores nothing while there are any.
    """
    from tutelage.collect.draws import alone
    from tutelage.collect.importing import Declared, import_file
    from tutelage.errors import ConfigError
    from tutelage.redact import Secrets
    from tutelage.store.store import Store
    from tutelage.terms.model import TermsEntry
    from tutelage.terms.registry import load_registry

    if licence and not isinstance(load_registry().find(licence), TermsEntry):
        raise ConfigError(f"--licence {licence!r} is not known", fix="write own, or an id of `tutelage terms list`")
    declared, secrets = Declared(model, provider, licence), Secrets.of_environment()
    with alone(out), Store(out / "store") as store:
        done = import_file(file, store, declared, secrets, bad_rows=bad_rows)
    known = f", {done.known:,} were there already" if done.known else ""
    bad = f", {len(done.bad):,} bad rows skipped (the first at line {done.bad[0].line})" if done.bad else ""
    print(f"{out}: {done.added:,} answers imported, declared and unverified{known}{bad}")
    return 0
