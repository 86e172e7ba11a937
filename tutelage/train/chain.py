"""The chain of a training run: one line a boundary between segments, each naming the digest of the line before.

`train/chain.jsonl` holds a line for step 0, for every multiple of `train.segment_steps` and for the last step. A folder
`train/segments/<step>` holds the whole state there (see `train.checkpoint`), except at step 0, which is `before/`, a new
optimizer and the seed, and at the end, where only the digests are kept.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tutelage.canon import digest_bytes
from tutelage.ledger.log import NOTHING_BEFORE
from tutelage.records import Record
from tutelage.train.checkpoint import STATE


@dataclass(frozen=True, slots=True)
class Boundary(Record):
    """Where training stood after `step` steps."""

    step: int
    state: str  # digest of segments/<step>/state.json; at step 0 of before/model.safetensors
    best: str  # digest of the best validated weights so far; empty before the first validation
    consumed: str  # digest of the first `step` lines of consumed.jsonl
    previous: str  # digest of the line before


def build_chain(folder: Path, before: str) -> tuple[Boundary, ...]:
    """The chain over a training folder as it lies there: kept states and consumed rows. `before` is the digest of the
    weights it began with. Raises `OSError` and `ValueError` for files that cannot be read."""
    lines = (folder / "consumed.jsonl").read_bytes().splitlines(keepends=True)
    states = {int(path.parent.name): path.read_bytes() for path in (folder / "segments").glob(f"*/{STATE}")}
    chain = [Boundary(0, before, "", digest_bytes(b""), NOTHING_BEFORE)]
    for step, state in sorted(states.items()):
        best = json.loads(state)["best"].get("weights", "")
        consumed = digest_bytes(b"".join(lines[:step]))
        chain.append(Boundary(step, digest_bytes(state), best, consumed, chain[-1].digest))
    return tuple(chain)


def place_segments(made: Path, out: Path) -> None:
    """Puts the states kept while training where the run keeps them, without a second copy on the disk. The made ones stay:
    a stage that is killed before it is recorded begins again from them."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(made, out, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
