"""`tutelage replay`: does training a part of a run again give what its record says?"""

from pathlib import Path


def replay(run: Path, *, segment: int | None = None, beacon: str | None = None, json: bool = False) -> int:
    """Train one segment of a run again and compare it bit for bit with the record. Writes nothing into the run.

    Exit code 0: reproduced; 1: it differs; 3: not comparable on this machine (other processor, torch or thread count).

    Parameters
    ----------
    run
        The run folder.
    segment
        Which segment, from 1 (default: one drawn by chance).
    beacon
        Draw the segment from the log's root and this text, which nobody could know before: everybody draws the same.
    json
        Print one JSON object.
    """
    from tutelage.cli.output import print_json
    from tutelage.errors import ConfigError
    from tutelage.pipeline.replay import Verdict
    from tutelage.pipeline.replay import replay as work_out
    from tutelage.progress import Lines

    if not (run / "ledger" / "log.jsonl").exists():
        raise ConfigError(f"{run} has no record (ledger/log.jsonl)", fix="give the folder of a run")
    if segment is not None and beacon is not None:
        raise ConfigError(f"--segment {segment} and --beacon {beacon!r} together", fix="choose one")
    found = work_out(run, Lines(), segment, beacon)
    if json:
        print_json(found._asdict())
    else:
        stretch = f"steps {found.first_step:,} to {found.last_step:,}"
        share = (found.last_step - found.first_step + 1) / found.steps
        print(f"{found.verdict}: segment {found.segment} of {found.segments} ({found.chosen}), {stretch}")
        for difference in found.differences:
            print(f"  {difference}")
        if found.verdict is Verdict.REPRODUCED:
            print(
                f"  {100 * share:.1f} % of {found.steps:,} steps lead from the recorded state over the recorded rows to the "
                "recorded state, bit for bit"
            )
        print(
            f"  replays drawn by chance that meet one tampered segment of {found.segments} with 95 %: {found.replays_for_95}"
        )
        print(f"  log root {found.log_root}; took {found.took_s:.1f} s")
    return {Verdict.REPRODUCED: 0, Verdict.DIFFERS: 1, Verdict.NOT_COMPARABLE: 3}[found.verdict]
