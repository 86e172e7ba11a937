"""The two stages of a training that take long: capturing the teacher's signals, and the steps."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tutelage.canon import canonical, decimals, digest_file, digest_of
from tutelage.jsonl import read_lines, write_lines, write_whole
from tutelage.meter import own_work
from tutelage.models.causal import Causal
from tutelage.pipeline.keeping import ROLLOUTS, read_kept, write_kept
from tutelage.pipeline.learning import last_of_each_step
from tutelage.pipeline.pairing import REJECTED, keep_renewed, paired
from tutelage.pipeline.reasoning import two_tasks, unused, unused_of_train
from tutelage.pipeline.rendering import Rows, rendered
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.scorer import asked_as, taught_by_scorer
from tutelage.pipeline.talks import BEFORE, SIGNALS, Sides, consumed, sides_in
from tutelage.pipeline.teachers import contexts, courses_of, inputs_of
from tutelage.pipeline.teaching_check import check_pupil
from tutelage.pipeline.teaching_plan import (
    Lesson,
    Method,
    Reader,
    lesson_of,
    load_pupil,
    load_teacher,
    objective_in_words,
    roles_of,
    teacher_precision,
)
from tutelage.pipeline.tuition import Taught, capture_course, clear_others, look, summed, taught_by, told
from tutelage.records import Checkpoint, Role
from tutelage.train.batch import Batch
from tutelage.train.calibration import calibrate
from tutelage.train.chain import build_chain, place_segments
from tutelage.train.checkpoint import save_weights
from tutelage.train.health import Start
from tutelage.train.loop import Loop, precision
from tutelage.train.loop import train as loop
from tutelage.train.memory import room_in
from tutelage.train.numerics import numerics
from tutelage.train.pairs import ROLES
from tutelage.train.preflight import CAPTURED
from tutelage.train.step import Look
from tutelage.train.teaching import StepScores
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
            "example_tokens": [self._counted(row) for row in self._rows],
        }
        return {**self._inner.metrics(), **taken}

    def _counted(self, row: int) -> int | dict[str, int]:
        """Loss tokens of a row; by role, where the roles are not of the same tokens."""
        by_role = getattr(self._inner, "by_role", None)
        return self._inner.loss_tokens((row,)) if by_role is None else by_role(row)


def signals(config: TrainingConfig, method: Method, run: Run, data: Done, made: Done) -> Done | None:
    """The signals stage: what the teacher says of every conversation, kept; None where it is asked as training goes."""
    if method.signal not in CAPTURED:
        return None
    out = run.folder / SIGNALS

    def work(scratch: Path) -> Facts:
        pupil, sides = load_pupil(config, run.folder / BEFORE), sides_in(run.folder)
        rows = rendered(config, run, pupil, sides)
        seen: dict[str, Any] = check_pupil(config, pupil, rows.train, run.progress.say)
        courses = courses_of(config, run.folder, pupil.tokenizer, sides, rows.train, rows.validation)
        clear_others(out, [course.name for course in courses])
        captured = []
        with own_work(scratch / "meter.json") as spent:
            for course in courses:  # one teacher in memory at a time
                teacher = load_teacher(course.config, method, pupil)
                every = (*rows.train, *rows.validation)
                seen = told(seen, course, look(course, method, pupil, teacher, every, run.progress.say))
                captured.append(capture_course(course, method, run, out / course.name, pupil, teacher))
                del teacher
        return summed(captured) | seen | spent()

    table = config.method
    kept = {"threshold": {"c": table.c}, "random": {"draws": table.draws}, "top-k": {"k": table.k}}
    settings = {"signal": method.signal, **kept.get(method.signal, {}), "seed": config.run.seed,
                "max_tokens": config.data.max_tokens} | _read_by(config, "precision")  # fmt: skip
    inputs = {"data": data.outputs_digest, "student": made.outputs_digest} | inputs_of(config, run.folder)
    return run.stage("signals", 1, settings, inputs, (SIGNALS,), work)


def rollouts(config: TrainingConfig, method: Method, run: Run, data: Done, made: Done) -> Done | None:
    """The rollouts stage: all answers that training will take, by the student as it is before it, and the teacher's scores of
    them; None where it writes as it goes."""
    if config.method.rollouts != "kept":
        return None

    def work(scratch: Path) -> Facts:
        pupil, sides = load_pupil(config, run.folder / BEFORE), sides_in(run.folder)
        rows = rendered(config, run, pupil, sides)
        seen = check_pupil(config, pupil, rows.train, run.progress.say)
        with own_work(scratch / "meter.json") as spent:
            taught = _taught(config, method, run, pupil, sides, rows, has_signals=False)
            assert isinstance(taught.teaching, StepScores)
            facts = write_kept(config, run, pupil, rows.train, taught.teaching, scratch)
        return seen | taught.facts | facts | spent()

    names = ("loss", "max_new_tokens", "engine", "writer")
    settings = {name: value for name, value in config.method.model_dump(mode="json").items() if name in names}
    settings |= {name: getattr(config.train, name) for name in ("batch_size", "epochs", "steps")}
    settings |= {"seed": config.run.seed, "max_tokens": config.data.max_tokens}
    settings |= _read_by(config, "teacher_precision") | asked_as(config)
    inputs = {"data": data.outputs_digest, "student": made.outputs_digest} | inputs_of(config, run.folder)
    return run.stage(ROLLOUTS, 1, settings, inputs, (ROLLOUTS,), work)


def train(
    config: TrainingConfig, method: Method, run: Run, data: Done, made: Done, captured: Done | None, track: str
) -> Done:
    """The train stage: looks, then steps; writes the best weights, the metrics, and what every step consumed. `track` names
    where the numbers are shown besides; empty for nowhere."""

    def work(scratch: Path) -> Facts:
        with own_work(scratch / "meter.json") as spent:
            facts = _train(config, method, run, scratch, method.signal in CAPTURED, track)
        return facts | spent() | (run.store.spent()._asdict() if config.scorer is not None else {})

    settings: dict[str, Any] = {
        "train": config.train.model_dump(
            mode="json", exclude={"checkpoint_every_s", "epochs", *unused_of_train(config)}
        ),
        "epochs": config.train.epochs if config.train.steps is None else 0,
        "method": config.method.model_dump(mode="json", exclude={"engine_url", "engine_folder", *unused(config)}),
        "lora": None if config.student.lora is None else config.student.lora.model_dump(mode="json"),
        "max_tokens": config.data.max_tokens,
        "seed": config.run.seed,
    }
    inputs = {"data": data.outputs_digest, "student": made.outputs_digest}
    if captured is not None:
        rests_on = ROLLOUTS if config.method.rollouts == "kept" else REJECTED if method.signal == "pairs" else SIGNALS
        inputs[rests_on] = captured.outputs_digest
    inputs |= inputs_of(config, run.folder)
    settings |= _read_by(config, "teacher_precision") | asked_as(config)
    files = (*FILES, REJECTED) if config.method.refresh == "epoch" else FILES
    return run.stage("train", 1, settings, inputs, tuple(f"train/{name}" for name in files), work)


def _read_by(config: TrainingConfig, name: str) -> dict[str, Any]:
    """How the teachers read, as settings: precision under `name`, and digests of the prompts that they alone read."""
    found = {teacher: teacher_precision(alone) for teacher, alone in config.each_teacher().items()}
    own = contexts(config)
    precision: Any = found.get("", found)
    return ({name: precision} if found else {}) | ({"contexts": own} if own else {})


def _train(config: TrainingConfig, method: Method, run: Run, scratch: Path, has_signals: bool, track: str) -> Facts:
    torch.set_num_threads(torch.get_num_threads())  # by order: left alone, the math library may take fewer at times
    bound = numerics(config.train.precision)
    pupil = load_pupil(config, run.folder / BEFORE)
    sides = sides_in(run.folder)
    rows = rendered(config, run, pupil, sides)
    is_kept = config.method.rollouts == "kept"
    looked = has_signals or is_kept or method.signal == "pairs"
    seen: dict[str, Any] = {} if looked else check_pupil(config, pupil, rows.train, run.progress.say)
    # Under its own name: other numerics make other bits, so what was begun under them is not gone on with here.
    scratch /= digest_of(bound)[-12:]
    scratch.mkdir(parents=True, exist_ok=True)
    journal, judging = scratch / JOURNAL, None
    start = Start.of(last_of_each_step(journal) if journal.exists() else ())
    if method.signal == "pairs":
        lesson, rows = paired(config, method, run, pupil, rows, scratch)
        roles: tuple[Role, ...] = ROLES
    elif rows.rationales:
        lesson, roles = two_tasks(config, method, pupil, rows), (Role.TEXT_TARGET,)
    else:
        taught = _taught(config, method, run, pupil, sides, rows, has_signals=has_signals, has_scores=is_kept)
        kept = read_kept(run, rows.train, method) if is_kept else None
        seen |= taught.facts
        judging = taught.judging
        roles = roles_of(config, taught.teaching)
        lesson = lesson_of(
            config,
            pupil,
            rows.train,
            rows.validation,
            taught.teaching if kept is None else kept.scores,
            taught.judging,
            run.progress.say,
            start,
            scratch,
            kept=None if kept is None else kept.roller,
        )
    began = time.monotonic()
    try:
        before = _before(config, lesson, pupil.model, scratch)
        with run.stop.heeded():  # what the steps came to is written before anything ends
            best = _steps(config, run, lesson, pupil.model, scratch, track)
            autocast = precision(config.train.precision, pupil.model.device.type)
            sure = calibrate(pupil.model, rows.validation, autocast, judging)
            steps = _write(config, run, pupil.model.model, scratch, [str(role) for role in roles], best["step"])
    finally:
        lesson.close()
    return {
        **seen,
        "loss": method.loss.name,
        "objective": objective_in_words(config, method),
        "signal": method.signal,
        "steps": steps,
        "chosen_step": best["step"],
        "examples": len(rows.train),
        "taken": _taken(run.folder / "train"),
        "validation_examples": len(rows.validation),
        "dropped": rows.dropped,
        **{f"before_{name}": value for name, value in before.items()},
        **{name: best[name] for name in before},
        "calibration": {} if sure is None else sure.facts(),
        "tokens": _tokens(run.folder / "train"),
        "train_ms": round(1000 * (time.monotonic() - began)),
        "checkpoint": digest_file(run.folder / "train" / "checkpoint.json"),
        "numerics": bound,
        "room_tokens": room_in(scratch),
    }


def _taught(
    config: TrainingConfig, method: Method, run: Run, pupil: Reader, sides: Sides, rows: Rows, *, has_signals: bool,
    has_scores: bool = False,
) -> Taught:  # fmt: skip
    """By an endpoint that scores, by weights, or by what they said; `has_scores`: of the student's own answers, from before."""
    if config.scorer is not None:
        return taught_by_scorer(config, method, run, pupil, rows, has_scores=has_scores)
    courses = courses_of(config, run.folder, pupil.tokenizer, sides, rows.train, rows.validation)
    every = (*rows.train, *rows.validation)
    return taught_by(courses, config, method, run, pupil, every, has_signals=has_signals)


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
        for role, count in _told(step, roles[0]).items():
            assert count == step[role], step["step"]
    if config.method.refresh == "epoch":
        keep_renewed(scratch, out / REJECTED)
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


def _told(step: dict[str, Any], role: str) -> dict[str, int]:
    """Loss tokens of the step's conversations: by role where the journal has them so, else as `role`."""
    found: dict[str, int] = {}
    for count in step["example_tokens"]:
        for name, tokens in (count if isinstance(count, dict) else {role: count}).items():
            found[name] = found.get(name, 0) + tokens
    return found


def _taken(out: Path) -> int:
    """Different conversations that the steps were on."""
    return len({name for step in read_lines(out / "consumed.jsonl") for name in step["examples"]})


def _tokens(out: Path) -> dict[str, int]:
    """Loss tokens by role, over the steps that were taken."""
    found: dict[str, int] = {}
    for step in read_lines(out / "consumed.jsonl"):
        for by_role in step["loss_tokens"]:
            for role, count in by_role.items():
                found[role] = found.get(role, 0) + count
    return found
