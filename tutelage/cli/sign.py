"""`tutelage sign` and `tutelage cosign`: put one's name to a finished record, or witness that it was seen."""

from pathlib import Path


def sign(run: Path, *, key: str | None = None) -> int:
    """Sign a finished run: its checkpoint, the statement over the weights, and the OpenSSF model signature.

    A run made with a key is signed already. What is signed afterwards names the signer (L0); only what was signed before
    training shows that the selection was fixed by then.

    Parameters
    ----------
    run
        The run folder.
    key
        The key's name (default: the default key).
    """
    from tutelage.errors import ConfigError
    from tutelage.ledger.keys import default_signer, load_key
    from tutelage.pipeline.run import Run
    from tutelage.pipeline.sealing import publish
    from tutelage.progress import Quiet, Stop

    signer = load_key(key) if key else default_signer()
    if signer is None:
        raise ConfigError("there is no key", fix="make one: tutelage key new NAME")
    if not (run / "provenance" / "statement.json").exists():
        raise ConfigError(f"{run} is not sealed", fix="let the run end first: tutelage run")
    with Run(run, Quiet(), Stop(), signer) as under_way:
        publish(run, under_way.log, signer)
    print(f"signed by {signer.verification_key}")
    return 0


def cosign(run: Path, *, key: str) -> int:
    """Witness a run of somebody else: sign, with the time, the checkpoint from before its training.

    Needs the provenance folder alone. A witness signs one history of a log: a checkpoint that contradicts one it signed
    before is refused.

    Parameters
    ----------
    run
        The run folder, or its provenance folder.
    key
        The name of the witness's key.
    """
    import time

    from tutelage.ledger.keys import load_key
    from tutelage.ledger.witness import cosign as witness

    seen = witness(run, load_key(key), int(time.time()))
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seen.posix_s))
    print(f"cosigned {seen.path} at {at}; others check it with:\n--witness {seen.witness_key}")
    return 0
