"""Training one segment of a finished run again, from the state kept at its beginning, and comparing what comes out.

A run whose record was made to fit (rows left out of `consumed.jsonl`, other weights, another learning rate) passes
`verify`, which only compares digests; here the recorded rows and configuration must lead to the recorded state, bit for
bit. Everything is read from the run folder, nothing is written there. torch is imported when it runs.
"""

import hashlib
import json
import math
import os
import secrets
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.canon import canonical, decimals, digest_bytes, digest_file, digest_of
from tutelage.config import RunConfig
from tutelage.errors import ConfigError, StorageError, TutelageError
from tutelage.ledger.log import NOTHING_BEFORE
from tutelage.ledger.merkle import leaf_hash, root
from tutelage.pipeline.learning import BEFORE, consumed, lesson, train_settings
from tutelage.progress import Progress, Stop
from tutelage.records import Checkpoint, Statement
from tutelage.run_file import validate
from tutelage.store.store import Store

CONFIDENCE = 0.95
STAGES = ("data", "curate", "student", "train")  # those whose outputs a segment is trained from


class Verdict(StrEnum):
    REPRODUCED = "REPRODUCED"
    DIFFERS = "DIFFERS"
    NOT_COMPARABLE = "NOT COMPARABLE"


class Recorded(NamedTuple):
    """What the log says of a run: its root (32 bytes), and the latest statement of each stage."""

    root: bytes
    latest: dict[str, Statement]
    config: RunConfig


class Replay(NamedTuple):
    """What came out. Segments are numbered from 1; steps `first_step` to `last_step` of `steps` were trained again."""

    verdict: Verdict
    differences: tuple[str, ...]  # of state and rows, or of the numerics when it is not comparable
    segment: int
    segments: int
    first_step: int
    last_step: int
    steps: int
    replays_for_95: int
    chosen: str
    log_root: str
    took_s: float


def choose(segments: int, log_root: bytes, beacon: str | None) -> int:
    """A segment's number, from 1: by chance, or for everybody the same from SHA-256(log root ‖ beacon) as one integer,
    modulo the number of segments."""
    if beacon is None:
        return 1 + secrets.randbelow(segments)
    return 1 + int.from_bytes(hashlib.sha256(log_root + beacon.encode()).digest(), "big") % segments


def replays_needed(segments: int) -> int:
    """How many random replays meet one tampered segment among `segments` with probability 0.95 (draws with replacement)."""
    return 1 if segments == 1 else math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - 1 / segments))


def replay(run: Path, progress: Progress, segment: int | None = None, beacon: str | None = None) -> Replay:
    """Trains a segment of the run again and compares. Raises `StorageError` when what it starts from is not what the
    record names, and `ConfigError` for a segment that does not exist."""
    began = time.monotonic()
    try:
        recorded = read_record(run)
        chain = _checked_chain(run, recorded)
    except TutelageError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise _damaged(run, f"the record cannot be read: {type(error).__name__}: {error}") from error
    segments = len(chain) - 1
    if segment is not None and not 1 <= segment <= segments:
        raise ConfigError(f"--segment {segment}: the run has {segments}", fix=f"give a number from 1 to {segments}")
    number = segment or choose(segments, recorded.root, beacon)
    start, end = chain[number - 1].step, chain[number].step
    progress.say(f"replay: segment {number} of {segments}, steps {start + 1} to {end}")
    found = _other_numerics(recorded)
    verdict = Verdict.NOT_COMPARABLE
    if not found:
        found = _train_again(run, recorded, start, end, progress)
        verdict = Verdict.DIFFERS if found else Verdict.REPRODUCED
    return Replay(
        verdict=verdict,
        differences=tuple(found),
        segment=number,
        segments=segments,
        first_step=start + 1,
        last_step=end,
        steps=chain[-1].step,
        replays_for_95=replays_needed(segments),
        chosen="given" if segment else "by chance" if beacon is None else f"by the beacon {beacon!r}",
        log_root="sha256:" + recorded.root.hex(),
        took_s=round(time.monotonic() - began, 1),
    )


def read_record(run: Path) -> Recorded:
    """The log, its lines chained, and every file of the stages before and of training as it names them. Raises
    `StorageError` with the file that is not as recorded."""
    path = run / "ledger" / "log.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1]  # a torn last line was never acknowledged
    previous, opened, latest = NOTHING_BEFORE, "", dict[str, Statement]()
    for number, line in enumerate(lines, 1):
        entry = Statement.from_json(json.loads(line))
        if entry.previous != previous:
            raise _damaged(path, f"line {number} does not name the line before")
        previous = digest_bytes(line)
        if entry.kind == "statement":
            latest[entry.stage] = entry
        elif entry.kind == "opened":
            opened = entry.facts["config"]
    if "train" in latest and "curate" not in latest:
        raise ConfigError(
            f"{run} was made by `tutelage train`: only runs of `tutelage run` can be replayed",
            fix="`tutelage verify` checks its record; training it again by its run file shows the rest",
        )
    if missing := [stage for stage in STAGES if stage not in latest]:
        raise ConfigError(f"{run} has not come through {missing[0]} yet", fix="finish the run first")
    if "numerics" not in latest["train"].facts:
        raise ConfigError(f"{run} was trained without keeping its states", fix="train it again with this version")
    named = {name: digest for stage in STAGES for name, digest in latest[stage].outputs.items()}
    for name, digest in {**named, "config.json": opened}.items():
        if not (run / name).is_file() or digest_file(run / name) != digest:
            raise _damaged(run / name, "missing" if not (run / name).is_file() else f"not {digest}, as recorded")
    for made in ("curate", "student"):
        if latest["train"].inputs[made] != digest_of(latest[made].outputs):
            raise _damaged(run, f"it was trained from another {made} than the one made last")
    config = validate(RunConfig, json.loads((run / "config.json").read_bytes()), str(run / "config.json"))
    if latest["train"].config != decimals(train_settings(config)):
        raise _damaged(run / "config.json", "the run was trained with other settings than it was last opened with")
    return Recorded(root(map(leaf_hash, lines)), latest, config)


def _damaged(path: Path, what: str) -> StorageError:
    return StorageError(f"{path}: {what}", fix="restore the run from a copy; `tutelage verify` shows more")


def _checked_chain(run: Path, recorded: Recorded) -> tuple[Any, ...]:
    """The chain, rebuilt from the states and rows beside it and held against what was recorded."""
    from tutelage.train.chain import build_chain

    folder = run / "train"
    chain = build_chain(folder, digest_file(run / BEFORE / "model.safetensors"))
    lines = b"".join(canonical(boundary.to_json()) + b"\n" for boundary in chain)
    if (folder / "chain.jsonl").read_bytes() != lines:
        raise _damaged(folder / "chain.jsonl", "not the chain of the states and rows beside it")
    checkpoint = Checkpoint.from_json(json.loads((folder / "checkpoint.json").read_bytes()))
    named = (checkpoint.chain, checkpoint.state, checkpoint.weights, checkpoint.consumed, checkpoint.digest)
    if named != (
        chain[-1].digest, chain[-1].state, chain[-1].best, chain[-1].consumed, recorded.latest["train"].facts["checkpoint"],
    ):  # fmt: skip
        raise _damaged(folder / "checkpoint.json", "it names other weights, rows or states than the chain ends with")
    return chain


def _other_numerics(recorded: Recorded) -> list[str]:
    """What replay is bound to and is different here; sets the recorded number of threads where there are as many cores."""
    import torch

    from tutelage.train.numerics import numerics

    wanted = recorded.latest["train"].facts["numerics"]
    if int(wanted["threads"]) <= (os.cpu_count() or 1):
        torch.set_num_threads(int(wanted["threads"]))
    here = numerics(recorded.config.train.precision)
    return [
        f"{name}: trained with {wanted.get(name, 'unknown')}, here {here.get(name, 'unknown')}"
        for name in sorted(wanted.keys() | here.keys())
        if wanted.get(name) != here.get(name)
    ]


def _train_again(run: Path, recorded: Recorded, start: int, end: int, progress: Progress) -> list[str]:
    """Differences of rows and state, in words; none when the segment is reproduced."""
    from tutelage.train.checkpoint import differences
    from tutelage.train.loop import Loop, advance

    config, steps = recorded.config, list[dict[str, Any]]()
    kept = run / "train" / "segments"
    with tempfile.TemporaryDirectory(prefix="tutelage-replay-") as temporary:
        work = Path(temporary)
        for segment in (run / "store").glob("*.seg"):  # the store makes its index beside them, so not in the run
            (work / "store").mkdir(exist_ok=True)
            (work / "store" / segment.name).symlink_to(segment.resolve())
        with Store(work / "store") as store:
            student, source, judge = lesson(run, store, config)
        begin = kept / str(start) if start else None
        advance(
            student, source, judge,
            Loop(config.train, config.run.seed, work, progress, Stop(), steps.append, begin, end,
                 recorded.latest["train"].facts.get("room_tokens", 0)),
        )  # fmt: skip
        apart = differences(work / "segments" / str(end), kept / str(end))
    ours = [canonical(row) for row in consumed(steps, source.data)]
    theirs = (run / "train" / "consumed.jsonl").read_bytes().splitlines()[start:end]
    other = [step for step, (one, two) in enumerate(zip(ours, theirs, strict=True), start + 1) if one != two]
    if other:
        apart.insert(0, f"{len(other)} of {end - start} steps took other rows than recorded, first step {other[0]}")
    return apart
