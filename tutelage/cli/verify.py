"""`tutelage verify`: does a record, or what was disclosed of it, hold; what share came from whom; how much that proves."""

import re
from pathlib import Path

COVERED = (
    "ledger/log.jsonl: every entry, by the chain, the tiles and the Merkle root (RFC 6962 section 2.1)",
    "provenance: checkpoint and kept checkpoints, tiles, statement and its envelope, source table, documents",
    "every file a stage wrote: data, collect, curate, before, train, ledger/examples, student, prove, terms, evidence.json",
    "store/*.seg: every question, answer and raw body, re-hashed; the answers trained on and proved with, by commitment",
    "store/run.key: by the commitments made with it",
    "config.json: by the digest of its bytes, recorded before anything was asked",
    "that nothing was added to the folders of stages, and that each stage rests on the latest of those before it",
    "ledger/locator.jsonl: by its own last line",
)
NOT_COVERED = (
    "store/index.sqlite: a rebuildable index",
    "logs/, work/: server logs, meters and scratch",
    "report.html: how the evidence looks (its numbers are in evidence.json, which is covered)",
    "run.toml, environment.json: copies for people (the log has the digests that count)",
)


def verify(
    path: Path,
    *,
    key: str | None = None,
    history: Path | None = None,
    witness: str | None = None,
    root: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> int:
    """Check a run, its public part or a disclosure; exit code 1 when anything is not as recorded.

    Parameters
    ----------
    path
        A run folder (everything is checked), its provenance folder (no data needed), or a disclosure (one JSON file).
    key
        The verification key you trust, or a file that holds it: who signed then counts, not only that it is signed.
    history
        The published history of that key: whom it handed over to, what was revoked.
    witness
        The verification key of a witness you trust, or a file: when the selection was committed then counts.
    root
        A log root you trust (sha256:…), as `verify` printed it for a sealed record: what is stated must be in that log.
    explain
        List what the record covers and what it does not.
    json
        Print one JSON object.
    """
    from tutelage.cli.output import print_json
    from tutelage.errors import ConfigError
    from tutelage.ledger.verify import NOT_PROVEN, Trust, told
    from tutelage.ledger.verify import verify as check

    if not path.exists():
        raise ConfigError(f"there is no {path}", fix="give a run folder, its provenance folder, or a disclosure")
    if path.is_dir() and not any(
        (path / name).exists() for name in ("ledger/log.jsonl", "provenance", "statement.json")
    ):
        if (path / "store").is_dir():
            raise ConfigError(
                f"{path} holds captured or imported answers: nobody made a record of how they came about",
                fix="verify a folder that `tutelage run` or `tutelage collect` made",
            )
        raise ConfigError(f"{path} has no record", fix="give a run folder, its provenance folder, or a disclosure")
    if history is not None and not history.is_file():
        raise ConfigError(f"there is no file {history}", fix="give the history file that the key's owner published")
    passed_on = history.read_text(encoding="utf-8", errors="replace") if history else ""
    trust = Trust(_key(key), passed_on, _key(witness), root or "")
    if root is not None and not re.fullmatch("sha256:[0-9a-f]{64}", root):
        raise ConfigError(f"{root!r} is no log root", fix="give sha256: and 64 hexadecimal digits, as verify prints it")
    result = check(path, trust)
    if json:
        coverage = {"covered": COVERED, "not_covered": NOT_COVERED, "not_proven": NOT_PROVEN}
        found = {**result._asdict(), "findings": [finding._asdict() for finding in result.findings]}
        print_json({"ok": not result.findings, **found, **(coverage if explain else {})})
    else:
        if explain:
            print(
                "covered:",
                *(f"  {line}" for line in COVERED),
                "not covered:",
                *(f"  {line}" for line in NOT_COVERED),
                sep="\n",
            )
        print("\n".join(told(result)))
    return 1 if result.findings else 0


def _key(given: str | None) -> str:
    """A verification key as given, or the text of the file it names. Raises `ConfigError` when it is none."""
    from tutelage.errors import ConfigError
    from tutelage.ledger.verify import Bad, parse_key

    if given is None:
        return ""
    is_file = "+" not in given and Path(given).is_file()
    text = (Path(given).read_text(encoding="utf-8", errors="replace") if is_file else given).strip()
    try:
        parse_key(text)
    except Bad as error:
        raise ConfigError(
            str(error), fix="give name+id+key as its owner hands it out, or a file that holds it"
        ) from None
    return text
