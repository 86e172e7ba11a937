"""`tutelage prove`: is a student about as good as its teacher in an open task? A claim, an interval, a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from tutelage.pipeline.proving import Proved


def prove(
    run_file: Path,
    *,
    out: Path | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Ask teacher, student and controls the held-out items of a run file, score their answers, judge the claims that it
    declares. Run the same command again to resume. docs/prove.md has the run file.

    Parameters
    ----------
    run_file
        The TOML file that describes the proof.
    out
        The folder for answers, record and page (default: runs/NAME).
    set_
        Set one key of the run file, for instance --set items.limit=200; may be repeated.
    json
        Print one JSON object.
    quiet
        Say nothing on standard error.
    """
    from tutelage.cli.output import print_json
    from tutelage.cli.overrides import parse_overrides
    from tutelage.jsonl import write_whole
    from tutelage.ledger.keys import default_signer
    from tutelage.pipeline.proof_opening import look
    from tutelage.pipeline.proving import prove as work
    from tutelage.pipeline.run import Run, own_folder
    from tutelage.progress import Lines, Quiet, stop_on_signals
    from tutelage.run_file import load_proof_config

    config = load_proof_config(run_file, parse_overrides(set_))
    looked = look(config)  # nothing is written of what cannot be proved
    folder = own_folder(out or Path("runs") / config.run.name)
    progress, text = Quiet() if quiet else Lines(), run_file.read_bytes()
    with stop_on_signals(progress) as stop, Run(folder, progress, stop, default_signer()) as under_way:
        under_way.require_kind("prove")
        write_whole(folder / "run.toml", text)
        found = work(config, under_way, looked)
    if json:
        print_json({**found._asdict(), "folder": str(folder)})
    else:
        print(describe(found))
    return 0


def describe(found: "Proved") -> str:
    """The verdicts in plain lines, what was missing, where the page is."""
    from tutelage.report import claims
    from tutelage.report.proof import found as describe_claim
    from tutelage.report.words import percent, visible

    lines = []
    for claim in found.claims:
        lines.append(
            f"{claim['verdict']}: {visible(describe_claim(claim))}, margin {claims.margin(claim)} {claims.unit(claim)}"
        )
        lines.append(f"  {claim['comparison']}")
        if claim["why"]:
            lines.append(f"  {visible(claim['why'])}")
    if found.proofs > 1:
        lines.append(
            f"perhaps not the first look: a proof was begun in this folder {found.proofs:,} times, each time with other "
            "settings; a margin that was chosen after answers were seen was not declared before looking"
        )
    if found.missing_controls:
        lines.append(f"without these controls: {'; '.join(found.missing_controls)}")
    width = max(len(system["role"]) for system in found.systems)
    for system in found.systems:
        score = "no gold" if system["score"] is None else percent(system["score"])
        alike = "" if system["agreement"] is None else f"  agrees with the teacher {percent(system['agreement'])}"
        unread = f"  {system['unread']:,} unread" if system["unread"] else ""
        refused = f"  {system['refused']:,} refused" if system["refused"] else ""
        lines.append(f"  {system['role']:{width}}  {score:>8}{alike}{unread}{refused}")
    lines.append(f"spent   ${found.spent_usd:.4f}")
    lines.append(f"page    {found.page}")
    return "\n".join(lines).replace("\u00a0", " ")
