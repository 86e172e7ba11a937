"""The two stages of a training that take long: capturing the teacher's signals, and the steps."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutelage.canon import canonical, decimals, digest_file, digest_of
from tutelage.jsonl import read_lines, write_lines, write_whole
from tutelage.models.causal import Causal
from tutelage.pipeline.gate_training import teacher_inputs
from tutelage.pipeline.learning import last_of_each_step
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.talks import BEFORE, SIGNALS, Sides, consumed, sides_in
from tutelage.pipeline.teaching_check import check_pupil, check_teacher
from tutelage.pipeline.teaching_plan import (
    Lesson,
    Method,
    Reader,
    cached,
    identity_of,
    judged_by,
    kind_of,
    lesson_of,
    load_pupil,
    load_teacher,
    roles_of,
    teacher_precision,
    teaching_of,
)
from tutelage.records import Checkpoint
from tutelage.store.signals import SignalWriter, identity_in
from tutelage.train.batch import Batch
from tutelage.train.capture import capture, size_of
from tutelage.train.chain import build_chain, place_segments
from tutelage.train.checkpoint import save_weights
from tutelage.train.examples import Example, render
from tutelage.train.health import Start
from tutelage.train.loop import Loop, precision
from tutelage.train.loop import train as loop
from tutelage.train.numerics import numerics
from tutelage.train.preflight import CAPTURED
from tutelage.train.step import Look
from tutelage.train.tracking import tracked
from tutelage.training_config import TrainingConfig

JOURNAL = "journal.jsonl"
NOT_METRICS = ("rows", "examples", "example_tokens")  # of a journal's line: consumed.jsonl has them
FILES = (
    "weights.safetensors", "metrics.jsonl", "consumed.jsonl", "segments", "chain.jsonl",
    "checkpoint.json",
)  # fmt: skip


class Recorded:
    """A source whose journal also says which conversations each step was stepped on, and how many loss tokens each had."""

    def __init__(self, inner: Any) -> None:
        self._inner: Any = inner
        self._rows: Sequence[int] = ()
        self.plan = inner.plan

    def rows(self, step: int) -> Sequence[int]:
        self._rows = self._inner.rows(step)
        return self._rows

    def tokens(self, row: int) -> int:
        return self._inner.tokens(row)

    def loss_tokens(self, rows: Sequence[int]) -> int:
        return self._inner.loss_tokens(rows)

    def batch(self, rows: Sequence[int]) -> Batch:
        return self._inner.batch(rows)

    @property
    def look(self) -> Look | None:
        return self._inner.look

    def metrics(self) -> dict[str, Any]:
        """What the source saw, and the step's conversations."""
        taken = {
            "examples": [self._inner.origin(row) for row in self._rows],
            "example_tokens": [self._inner.loss_tokens((row,)) for row in self._rows],
        }
        return {**self._inner.metrics(), **taken}


class Rows(NamedTuple):
    """Examples of both sides, and how many conversations were left out for which reason."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    dropped: dict[str, int]


def signals(config: TrainingConfig, method: Method, run: Run, data: Done, made: Done) -> Done | None:
    """The signals stage: what the teacher says of every conversation, kept; None where it is asked as training goes."""
    if method.signal not in CAPTURED:
        return None
    out = run.folder / SIGNALS

    def work(scratch: Path) -> Facts:
        pupil, teacher = load_pupil(config, run.folder / BEFORE), load_teacher(config)
        sides = sides_in(run.folder)
        rows = rendered(config, run, pupil, sides)
        seen = check_pupil(config, pupil, rows.train, run.progress.say)
        seen |= check_teacher(
            config, method, pupil, teacher, sides.train, rows.train, rows.validation, run.progress.say
        )
        every = (*rows.train, *rows.validation)
        kind = kind_of(config.method, method.signal, teacher)
        identity = identity_of(config, kind, teacher.digest, pupil, every)
        size = size_of(every, teacher.model, pupil.tokens, kind)
        run.progress.say(f"signals: {kind.name}, about {size_in_words(size)} on the disk")
        if (out / "cache.json").exists() and identity_in(out)["identity"] != identity.described():
            shutil.rmtree(out)  # of another try, with another teacher, template or kind
        with SignalWriter(out, identity) as writer:
            capture(every, teacher.model, pupil.tokens, writer, run.progress, config.run.seed, run.stop)
        facts = {"positions": writer.positions, "bytes": writer.bytes, "expected_bytes": size}
        run.progress.say(
            f"signals: {size_in_words(writer.bytes)}, {writer.bytes / writer.positions:.1f} bytes a position"
        )
        return facts | seen

    table = config.method
    kept = {"threshold": {"c": table.c}, "random": {"draws": table.draws}, "top-k": {"k": table.k}}
    settings = {"signal": method.signal, **kept.get(method.signal, {}), "seed": config.run.seed,
                "max_tokens": config.data.max_tokens, "precision": teacher_precision(config)}  # fmt: skip
    inputs = {"data": data.outputs_digest, "student": made.outputs_digest} | teacher_inputs(config)
    return run.stage("signals", 1, settings, inputs, (SIGNALS,), work)


def train(
    config: TrainingConfig, method: Method, run: Run, data: Done, made: Done, captured: Done | None, track: str
) -> Done:
    """The train stage: looks, then steps; writes the best weights, the metrics, and what every step consumed. `track` names
    where the numbers are shown besides; empty for nowhere."""

    def work(scratch: Path) -> Facts:
        return _train(config, method, run, scratch, captured is not None, track)

    settings: dict[str, Any] = {
        "train": config.train.model_dump(mode="json", exclude={"checkpoint_every_s", "epochs"}),
        "epochs": config.train.epochs if config.train.steps is None else 0,
        "method": config.method.model_dump(mode="json", exclude={"engine_url", "engine_folder"}),
        "lora": None if config.student.lora is None else config.student.lora.model_dump(mode="json"),
        "max_tokens": config.data.max_tokens,
        "seed": config.run.seed,
    }
    inputs = {"data": data.outputs_digest, "student": made.outputs_digest}
    inputs |= {"signals": captured.outputs_digest} if captured else {}
    if config.teacher is not None:
        inputs |= teacher_inputs(config)
        settings["teacher_precision"] = teacher_precision(config)
    return run.stage("train", 1, settings, inputs, tuple(f"train/{name}" for name in FILES), work)


def rendered(config: TrainingConfig, run: Run, pupil: Reader, sides: Sides) -> Rows:
    """Examples of both sides as the student's template writes them. Raises `DataError` when one side has none."""
    limit = min(config.data.max_tokens, pupil.model.limit)
    parts = [
        render(talks, pupil.tokenizer, limit, cut=lambda source: source in sides.cut)
        for talks in (sides.train, sides.validation)
    ]
    dropped: dict[str, int] = {}
    for part in parts:
        for reason, count in part.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    every = len(sides.train) + len(sides.validation)
    left = "".join(f"; {count:,} of {every:,} left out: {reason}" for reason, count in dropped.items())
    tokens, (train, judge) = sum(len(one.targets) for one in parts[0].examples), (len(part.examples) for part in parts)
    run.progress.say(f"look: {train:,} conversations with {tokens:,} tokens of answers, {judge:,} to judge by{left}")
    return Rows(parts[0].examples, parts[1].examples, dropped)


def size_in_words(size_bytes: int) -> str:
    """48,312 → "48.3 kB": in a unit that shows it."""
    if size_bytes < 1_000:
        return f"{size_bytes} bytes"
    unit, name = (1e6, "MB") if size_bytes >= 1_000_000 else (1e3, "kB")
    return f"{size_bytes / unit:,.1f} {name}"


def _train(config: TrainingConfig, method: Method, run: Run, scratch: Path, has_signals: bool, track: str) -> Facts:
    torch.set_num_threads(torch.get_num_threads())  # by order: left alone, the math library may take fewer at times
    bound = numerics(config.train.precision)
    pupil = load_pupil(config, run.folder / BEFORE)
    sides = sides_in(run.folder)
    rows = rendered(config, run, pupil, sides)
    seen: dict[str, int] = {}
    teacher, cache = None, None
    if has_signals:
        cache = cached(config, method, run.folder / SIGNALS, pupil, (*rows.train, *rows.validation))
    else:
        seen = check_pupil(config, pupil, rows.train, run.progress.say)
        if config.teacher is not None:
            teacher = load_teacher(config)
            seen |= check_teacher(
                config, method, pupil, teacher, sides.train, rows.train, rows.validation, run.progress.say
            )
    teaching = teaching_of(config, method, teacher, cache)
    roles = roles_of(config, teaching)
    # Under its own name: other numerics make other bits, so what was begun under them is not gone on with here.
    scratch /= digest_of(bound)[-12:]
    scratch.mkdir(parents=True, exist_ok=True)
    journal = scratch / JOURNAL
    start = Start.of(last_of_each_step(journal) if journal.exists() else ())
    judging = judged_by(method, teacher, teaching)
    lesson = lesson_of(config, pupil, rows.train, rows.validation, teaching, judging, run.progress.say, start)
    began = time.monotonic()
    try:
        before = _before(config, lesson, pupil.model, scratch)
        best = _steps(config, run, lesson, pupil.model, scratch, track)
    finally:
        lesson.close()
    steps = _write(config, run, pupil.model.model, scratch, [str(role) for role in roles], best["step"])
    return {
        **seen,
        "loss": method.loss.name,
        "signal": method.signal,
        "steps": steps,
        "chosen_step": best["step"],
        "examples": len(rows.train),
        "validation_examples": len(rows.validation),
        "dropped": rows.dropped,
        **{f"before_{name}": value for name, value in before.items()},
        **{name: best[name] for name in before},
        "tokens": _tokens(run.folder / "train"),
        "train_ms": round(1000 * (time.monotonic() - began)),
        "checkpoint": digest_file(run.folder / "train" / "checkpoint.json"),
        "numerics": bound,
    }


def _before(config: TrainingConfig, lesson: Lesson, student: Causal, scratch: Path) -> dict[str, int]:
    """How good the student was before the first step: judged once, and kept over restarts."""
    path = scratch / "before.json"
    if not path.exists():
        student.model.eval()
        seen = lesson.judge(student, precision(config.train.precision, student.device.type))
        write_whole(path, canonical(dict(seen.facts)))
    return json.loads(path.read_bytes())


def _steps(
    config: TrainingConfig, run: Run, lesson: Lesson, student: Causal, scratch: Path, track: str
) -> dict[str, Any]:  # fmt: skip
    """What is known of the best weights, which the student holds afterwards."""
    torch.manual_seed(config.run.seed)  # last: what loading draws must not matter
    with (scratch / JOURNAL).open("a", encoding="utf-8") as journal:
        print(file=journal)  # ends a line that a killed run may have left torn

        def log(entry: dict[str, Any]) -> None:
            print(json.dumps(entry), file=journal, flush=True)

        told = tracked(track, "tutelage", config.run.name, log, run.progress.say) if track else log
        settings = Loop(config.train, config.run.seed, scratch, run.progress, run.stop, told)
        return loop(student, Recorded(lesson.source), lesson.judge, settings)


def _write(config: TrainingConfig, run: Run, model: Any, scratch: Path, roles: Sequence[str], best_step: int) -> int:
    """All files of the stage; returns how many steps were taken."""
    out, steps = run.folder / "train", last_of_each_step(scratch / JOURNAL)
    lines = ({name: value for name, value in step.items() if name not in NOT_METRICS} for step in steps)
    write_whole(out / "metrics.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    for step in steps:  # what is told of the conversations is what the optimizer divided by
        assert sum(step["example_tokens"]) == step[roles[0]], step["step"]
    write_lines(out / "consumed.jsonl", consumed(steps, roles))
    save_weights(out / "weights.safetensors", model)
    place_segments(scratch / "segments", out / "segments")
    chain = build_chain(out, digest_file(run.folder / BEFORE / "model.safetensors"))
    write_lines(out / "chain.jsonl", (boundary.to_json() for boundary in chain))
    checkpoint = Checkpoint(
        weights=digest_file(out / "weights.safetensors"),
        parent=chain[0].state,
        config=digest_of(decimals({"train": config.train.model_dump(mode="json"), "seed": config.run.seed})),
        state=chain[-1].state,
        chain=chain[-1].digest,
        step=best_step,
        data_position=chain[-1].step,
        loss_tokens=_tokens(out),
        consumed=digest_file(out / "consumed.jsonl"),
    )
    write_whole(out / "checkpoint.json", canonical(checkpoint.to_json()) + b"\n")
    return len(steps)


def _tokens(out: Path) -> dict[str, int]:
    """Loss tokens by role, over the steps that were taken."""
    found: dict[str, int] = {}
    for step in read_lines(out / "consumed.jsonl"):
        for by_role in step["loss_tokens"]:
            for role, count in by_role.items():
                found[role] = found.get(role, 0) + count
    return found
