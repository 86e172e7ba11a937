"""The event log: one canonical JSON statement a line, a Merkle tree over them in tiles, its root in a signed checkpoint.

`ledger/log.jsonl` holds the statements and is private; `provenance/tile` (C2SP tlog-tiles, hashes alone) and
`provenance/checkpoint` (C2SP tlog-checkpoint, a signed note when there is a key) are for everybody. Statements carry a
salt each, so a hash tells nothing of what it covers. Everything is written with fsync; a torn last line is cut off before
the next append.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tutelage.canon import canonical, digest_bytes
from tutelage.errors import ConfigError, StorageError
from tutelage.jsonl import write_whole
from tutelage.ledger.keys import Signer, key_ids
from tutelage.ledger.merkle import leaf_hash, root
from tutelage.ledger.note import checkpoint_text
from tutelage.ledger.tiles import write_tiles
from tutelage.ledger.verify import parse_note
from tutelage.records import Statement

BEFORE_TRAINING = "before-training.json"
NOTHING_BEFORE = "sha256:" + 64 * "0"


class Log:
    """The log of one run folder. `origin` names it for ever; `signer` signs its checkpoints, None leaves them unsigned."""

    def __init__(self, run: Path, origin: str, signer: Signer | None) -> None:
        self.path = run / "ledger" / "log.jsonl"
        self.public = run / "provenance"
        self.checkpoint = self.public / "checkpoint"
        self.origin = origin
        self.signer = signer
        self._lines = list(self._whole_lines())
        self._leaves = [leaf_hash(line) for line in self._lines]
        if self._lines:
            self._publish(0)  # a kill may have come between the line and its checkpoint

    def append(self, statement: Statement) -> str:
        """Appends the statement, which must name the line before; returns its digest.

        Raises `ConfigError` when the record is signed with another key than is at hand.
        """
        if statement.previous != self.last_digest:
            raise ValueError(f"statement names {statement.previous}, the log ends with {self.last_digest}")
        self.require_holder(self.signer)
        line = canonical(statement.to_json())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            whole = sum(len(kept) + 1 for kept in self._lines)
            with self.path.open("ab") as file:
                if file.tell() != whole:
                    file.truncate(whole)  # a torn last line: its statement was never completed
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error}", fix="free disk space and run again") from error
        self._lines.append(line)
        self._leaves.append(leaf_hash(line))
        self._publish(len(self._lines) - 1)
        return digest_bytes(line)

    def require_holder(self, signer: Signer | None) -> None:
        """Raises `ConfigError` when the record is signed with a key that this signer neither has nor took over from."""
        holder = self._holder()
        if holder is not None and (signer is None or holder[1] not in key_ids(signer)):
            raise ConfigError(
                f"this record is signed by {holder[0]}, and what is added to it must be too",
                fix=f"bring that key (tutelage key use {holder[0]}), or choose another --out",
            )

    def keep_checkpoint(self, size: int) -> None:
        """Keeps the checkpoint over the first `size` entries, which an outside witness may sign, and publishes the last of
        them. One that was kept is left as it is: signing it later would say that it was signed then."""
        path = self.public / "checkpoints" / str(size)
        if not path.exists():
            current = self.checkpoint.read_bytes()
            text = checkpoint_text(self.origin, size, root(self._leaves[:size])).encode()
            write_whole(path, current if current.startswith(text) else text)
        write_whole(self.public / BEFORE_TRAINING, self._lines[size - 1] + b"\n")

    def sign(self) -> None:
        """Signs the checkpoint with the key at hand, in place of whoever signed it before; without a key nothing is done."""
        text = checkpoint_text(self.origin, self.size, root(self._leaves))
        if self.signer is not None and (note := self.signer.note(text)) != self.checkpoint.read_text(encoding="utf-8"):
            write_whole(self.checkpoint, note.encode())

    @property
    def signed_by(self) -> str:
        """Name of the key that signed the checkpoint; empty when none did."""
        holder = self._holder()
        return "" if holder is None else holder[0]

    def _holder(self) -> tuple[str, bytes] | None:
        """Name and key id of the first signature on the checkpoint that is no witness's; None when it has none."""
        if not self.checkpoint.exists():
            return None
        signatures = parse_note(self.checkpoint.read_text(encoding="utf-8")).signatures
        return next((one[:2] for one in signatures if len(one[2]) == 64), None)  # 72 bytes: a witness's

    @property
    def last_digest(self) -> str:
        return digest_bytes(self._lines[-1]) if self._lines else NOTHING_BEFORE

    @property
    def size(self) -> int:
        return len(self._lines)

    @property
    def root(self) -> str:
        return self.root_at(self.size)

    def root_at(self, size: int) -> str:
        """The root when the log had `size` entries."""
        return "sha256:" + root(self._leaves[:size]).hex()

    def statements(self) -> Iterator[Statement]:
        for line in self._lines:
            yield Statement.from_json(json.loads(line))

    def _publish(self, kept: int) -> None:
        """Tiles and checkpoint for what the log holds; one that says the same and is signed is left as it is, and so is any
        that is signed when the key is not at hand: the next start with the key catches up."""
        write_tiles(self.public / "tile", self._leaves, kept)
        text = checkpoint_text(self.origin, self.size, root(self._leaves))
        found = self.checkpoint.read_text("utf-8", "replace") if self.checkpoint.exists() else ""
        if found.startswith(text + "\n") or (self.signer is None and (found == text or self.signed_by)):
            return
        write_whole(self.checkpoint, (text if self.signer is None else self.signer.note(text)).encode())

    def _whole_lines(self) -> Iterator[bytes]:
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]
