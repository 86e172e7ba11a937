"""Commitments to stored exchanges: what was collected, selected and proved with."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tutelage.canon import canonical
from tutelage.ledger.examples import field_salt
from tutelage.ledger.merkle import commitment, leaf_hash
from tutelage.ledger.tiles import LevelWriter
from tutelage.pipeline.run import Run

SELECTION_TREE = Path("ledger") / "selection"


def commit_exchanges(run: Run, tree: str, addresses: Iterable[str]) -> str:
    """Root over the salted leaves of the exchanges at these addresses, in order; `tree` names what they are for."""
    return commitment(run.key, tree, (canonical(pair.exchange) for pair in run.store.pairs(addresses)))


def commit_selection(run: Run, rows: Sequence[dict[str, Any]]) -> str:
    """Root over the selected exchanges in order, each by its blinded digest as its example record has it: an opened
    record shows that its answer was selected before training, and nothing of the answer. Keeps the tree for proofs."""

    def leaves() -> Iterator[bytes]:
        for at, row in enumerate(rows):
            salted = field_salt(run.key, "exchange", at) + row["exchange"].encode()
            yield leaf_hash(hashlib.sha256(salted).digest())

    with LevelWriter(run.folder / SELECTION_TREE) as tree:
        for leaf in leaves():
            tree.append(leaf)
    return "sha256:" + tree.root.hex()
