"""`tutelage disclose`: show one thing about a record to somebody who sees none of the data, as one JSON file."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def share(
    run: Path,
    *,
    teacher: str,
    licence: str | None = None,
    blind: Annotated[tuple[int, ...], Parameter(negative="")] = (),
    out: Path | None = None,
) -> int:
    """What share of the loss tokens came from a teacher: exactly, or between bounds when rows are blinded.

    Parameters
    ----------
    run
        The run folder.
    teacher
        The teacher's name, as the source table has it.
    licence
        Only what was taken under this licence.
    blind
        Row of the source table to keep back (0 is the first); may be repeated.
    out
        The file to write (default: standard output).
    """
    from tutelage.ledger import disclose

    return _write(disclose.share(disclose.Sealed(run), teacher, licence, blind), out)


def absence(run: Path, *, teacher: str, out: Path | None = None) -> int:
    """That no example came from a teacher: the whole source table, in which it has no row.

    Parameters
    ----------
    run
        The run folder.
    teacher
        The teacher's name.
    out
        The file to write (default: standard output).
    """
    from tutelage.ledger import disclose

    return _write(disclose.absence(disclose.Sealed(run), teacher), out)


def example(
    run: Path,
    *,
    prompt: str | None = None,
    position: int | None = None,
    role: str | None = None,
    open_: Annotated[tuple[str, ...], Parameter(name="--open", negative="")] = (),
    out: Path | None = None,
) -> int:
    """That one example was used, and how: its record, with paths into its source's tree and into the selection.

    Parameters
    ----------
    run
        The run folder.
    prompt
        The prompt's id (data/prompts.jsonl).
    position
        Or its place in the committed selection, from 0.
    role
        The role to show (default: the first target role it has).
    open_
        Also show a field that is blinded in the record: exchange, prompt, answer or logprobs; may be repeated.
    out
        The file to write (default: standard output).
    """
    from tutelage.ledger import disclose
    from tutelage.pipeline.opening import blinded_values, position_of

    sealed = disclose.Sealed(run)
    at = position_of(run, prompt, position)
    return _write(disclose.example(sealed, at, role, blinded_values(run, at, open_)), out)


def audit(run: Path, *, beacon: str, draws: int = 300, out: Path | None = None) -> int:
    """Open examples drawn at random by loss tokens, for an auditor under an agreement: lengths of neighbours show.

    Parameters
    ----------
    run
        The run folder.
    beacon
        A public value that nobody knew when the record was sealed, such as a drand round.
    draws
        How many loss tokens are drawn; 300 find one per cent of mislabelling with 95 %.
    out
        The file to write (default: standard output).
    """
    from tutelage.ledger import disclose

    return _write(disclose.audit(disclose.Sealed(run), beacon, draws), out)


def consistency(run: Path, *, old: Path, out: Path | None = None) -> int:
    """That an older checkpoint is a beginning of the log as it is now: nothing was rewritten since.

    Parameters
    ----------
    run
        The run folder.
    old
        The older checkpoint, a file.
    out
        The file to write (default: standard output).
    """
    from tutelage.errors import ConfigError
    from tutelage.ledger import disclose

    if not old.is_file():
        raise ConfigError(f"there is no file {old}", fix="give an older checkpoint: see provenance/checkpoints")
    text = old.read_text(encoding="utf-8", errors="replace")
    return _write(disclose.consistency(disclose.Sealed(run), text), out)


def _write(disclosure: dict[str, object], out: Path | None) -> int:
    from tutelage.jsonl import pretty, write_whole

    if out is None:
        print(pretty(disclosure).decode(), end="")
    else:
        write_whole(out, pretty(disclosure))
        print(f"{out}: check it with: tutelage verify {out}")
    return 0
