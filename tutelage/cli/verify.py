"""`tutelage verify`: is the record of a run whole, and what share came from whom?"""

from pathlib import Path


def verify(run: Path, *, explain: bool = False, json: bool = False) -> int:
    """Check a run's record end to end; exit code 1 when anything is not as recorded.

    Parameters
    ----------
    run
        The run folder.
    explain
        List what the record covers and what it does not.
    json
        Print one JSON object.
    """
    from tutelage.cli.output import print_json
    from tutelage.errors import ConfigError
    from tutelage.ledger.verify import COVERED, NOT_COVERED
    from tutelage.ledger.verify import verify as check

    if not (run / "provenance" / "log.jsonl").exists():
        raise ConfigError(f"{run} has no record (provenance/log.jsonl)", fix="give the folder of a run")
    result = check(run)
    if json:
        coverage = {"covered": COVERED, "not_covered": NOT_COVERED}
        print_json({"ok": not result.findings, **result._asdict(), **(coverage if explain else {})})
        return 1 if result.findings else 0
    if explain:
        print(
            "covered:",
            *(f"  {line}" for line in COVERED),
            "not covered:",
            *(f"  {line}" for line in NOT_COVERED),
            sep="\n",
        )
    for finding in result.findings:
        print(f"{finding.where}: {finding.what}")
    for share in result.shares:
        print(share)
    checked = ", ".join(f"{count:,} {name}" for name, count in result.counts.items())
    if result.findings:
        print(f"FAILED: {len(result.findings)} findings ({checked} checked)")
        return 1
    print(f"OK: {checked} checked; log root {result.root}; not signed, so it does not prove who wrote it or when")
    return 0
