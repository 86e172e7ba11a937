"""The log: one canonical JSON statement a line, each naming the digest of the line before; its root in a checkpoint.

`provenance/log.jsonl` holds the statements; `provenance/checkpoint` holds origin, size and root (base64) as the first
three lines of a C2SP checkpoint. Both are written with fsync; a torn last line is cut off before the next append.
"""

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tutelage.canon import canonical, digest_bytes
from tutelage.errors import StorageError
from tutelage.jsonl import write_whole
from tutelage.ledger.merkle import leaf_hash, root
from tutelage.records import Statement

NOTHING_BEFORE = "sha256:" + 64 * "0"


class Log:
    """The log of one run folder."""

    def __init__(self, provenance: Path) -> None:
        self.path = provenance / "log.jsonl"
        self.checkpoint = provenance / "checkpoint"
        self._lines = list(self._whole_lines())
        if self._lines:
            self._write_checkpoint()  # a kill may have come between the line and its checkpoint

    def append(self, statement: Statement) -> str:
        """Appends the statement, which must name the line before; returns its digest."""
        if statement.previous != self.last_digest:
            raise ValueError(f"statement names {statement.previous}, the log ends with {self.last_digest}")
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
        self._write_checkpoint()
        return digest_bytes(line)

    @property
    def last_digest(self) -> str:
        return digest_bytes(self._lines[-1]) if self._lines else NOTHING_BEFORE

    @property
    def size(self) -> int:
        return len(self._lines)

    @property
    def root(self) -> str:
        return "sha256:" + root(leaf_hash(line) for line in self._lines).hex()

    def statements(self) -> Iterator[Statement]:
        for line in self._lines:
            yield Statement.from_json(json.loads(line))

    def _write_checkpoint(self) -> None:
        encoded = base64.b64encode(bytes.fromhex(self.root.removeprefix("sha256:"))).decode()
        content = f"tutelage/run\n{self.size}\n{encoded}\n".encode()
        if not self.checkpoint.exists() or self.checkpoint.read_bytes() != content:
            write_whole(self.checkpoint, content)

    def _whole_lines(self) -> Iterator[bytes]:
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]
