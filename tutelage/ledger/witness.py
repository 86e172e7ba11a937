"""A witness: somebody outside who signs, with the time, that a checkpoint was seen (C2SP tlog-cosignature).

A witness never signs two histories of one log: it keeps the last checkpoint it signed of each, and a new one must be
consistent with it (RFC 6962 §2.1.2), which the tiles beside the checkpoint show.
"""

import json
from pathlib import Path
from typing import NamedTuple

from tutelage.canon import digest_bytes
from tutelage.errors import ConfigError, DataError
from tutelage.jsonl import pretty, write_whole
from tutelage.ledger.keys import Signer, key_folder
from tutelage.ledger.merkle import root
from tutelage.ledger.tiles import Tiles
from tutelage.ledger.verify import Checkpoint, parse_checkpoint, parse_note


class Cosigned(NamedTuple):
    """Which file was cosigned, when, and the key that checks it."""

    path: Path
    posix_s: int
    witness_key: str


def cosign(run: Path, witness: Signer, posix_s: int) -> Cosigned:
    """Adds the witness's line to the checkpoint kept from before training and, once the run is sealed, to the one that the
    statement names: what it signed counts even if its key is revoked later. Raises `ConfigError` when there is none, and
    `DataError` when it is not what the tiles say or contradicts what this witness signed before."""
    public = run if (run / "checkpoints").is_dir() else run / "provenance"
    kept = sorted(
        (path for path in (public / "checkpoints").glob("*") if path.name.isdecimal()), key=lambda path: int(path.name)
    )
    if not kept:
        raise ConfigError(
            f"{run} has no checkpoint from before training",
            fix="give a run folder or its provenance folder, once training begins",
        )
    sealed = [public / "checkpoint"] if (public / "statement.json").exists() else []
    for path in (kept[-1], *sealed):
        try:
            text = path.read_text(encoding="utf-8")
            note = parse_note(text)
            _require_consistent(public, parse_checkpoint(note.text), witness)
        except (ValueError, OSError) as error:
            raise DataError(f"{path} cannot be cosigned: {error}", fix="ask for a whole provenance folder") from error
        line = witness.cosignature(note.text, posix_s)
        write_whole(path, (text + ("" if note.signatures else "\n") + line).encode())
    return Cosigned(kept[-1], posix_s, witness.witness_key)


def _require_consistent(public: Path, seen: Checkpoint, witness: Signer) -> None:
    size = parse_checkpoint(parse_note((public / "checkpoint").read_text(encoding="utf-8")).text).size
    leaves = Tiles(public / "tile", size).read(0, 0, size)
    if seen.size > size or root(leaves[: seen.size]) != seen.root:
        raise ValueError("the tiles beside it have another root")
    memory = key_folder() / "witnessed" / f"{digest_bytes(f'{witness.name} {seen.origin}'.encode())[7:]}.json"
    if memory.exists():
        last = json.loads(memory.read_bytes())
        if last["size"] > size or root(leaves[: last["size"]]).hex() != last["root"]:
            raise ValueError(f"this witness signed another history of {seen.origin} before")
        if last["size"] > seen.size:
            return
    write_whole(memory, pretty({"origin": seen.origin, "size": seen.size, "root": seen.root.hex()}))
