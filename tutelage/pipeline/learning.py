"""The stages that make the student: cut it out of its base, train it, write it down. torch is imported when they run."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.canon import canonical, decimals, digest_file, digest_of
from tutelage.config import RunConfig
from tutelage.jsonl import pretty, read_lines, write_lines, write_whole
from tutelage.meter import own_work
from tutelage.pipeline.documents import describe_student
from tutelage.pipeline.gate import Gate, base_of, require_met
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.session import Session
from tutelage.prompts import read_prompts
from tutelage.records import Checkpoint, Role
from tutelage.ship.card import model_card
from tutelage.ship.notices import write_notices
from tutelage.store.store import Store
from tutelage.terms.conditions import obligations
from tutelage.terms.lineage import IN_FOLDER

BEFORE = "before"  # the pruned student before training, in the form it would ship


def read_selection(folder: Path) -> dict[str, Any]:
    """The committed selection of a run."""
    return json.loads((folder / "curate" / "selection.json").read_bytes())


def student(run: Run, config: RunConfig) -> Done:
    """The pruned student as a folder of its own; also the control "before training"."""
    base = base_of(config)

    def work(scratch: Path) -> Facts:
        from tutelage.train.student import make_student

        run.progress.say(f"student: the first {config.student.layers} layers of {base.name}")
        return make_student(
            base.fetch(), config.student.layers, config.student.template, config.task.labels, run.folder / BEFORE
        )

    table = {
        **config.student.model_dump(mode="json", exclude={"path", "accepted_risk"}),
        "labels": list(config.task.labels),
    }
    return run.stage("student", 1, table, {"base": base.digest}, (BEFORE,), work)


def train(run: Run, config: RunConfig, curated: Done, made: Done) -> Done:
    """Steps on the selection; writes the best weights, the metrics, what every step consumed, and the chain of states."""
    folder = run.folder

    def work(scratch: Path) -> Facts:
        with own_work(scratch / "meter.json") as spent:
            facts = _train(run, config, scratch, folder / "train")
        return facts | {"loss_tokens": _loss_tokens(folder)} | spent()

    inputs = {"curate": curated.outputs_digest, "student": made.outputs_digest}
    files = ("weights.safetensors", "metrics.jsonl", "consumed.jsonl", "segments", "chain.jsonl", "checkpoint.json")
    return run.stage("train", 2, train_settings(config), inputs, tuple(f"train/{name}" for name in files), work)


def train_settings(config: RunConfig) -> dict[str, Any]:
    """What of the configuration the trained weights depend on."""
    table = config.train.model_dump(mode="json", exclude={"checkpoint_every_s"})
    return {"train": table, "seed": config.run.seed, "task": config.task.model_dump(mode="json")}


class Lesson(NamedTuple):
    """A student as it is before training, what it is to learn, and how it is judged meanwhile."""

    student: Any
    source: Any
    judge: Any


def lesson(folder: Path, store: Store, config: RunConfig) -> Lesson:
    """All that training starts from, out of the run folder alone; sets torch's seed. Raises what reading it raises."""
    import torch

    from tutelage.models.causal import Causal
    from tutelage.models.kernels import economical
    from tutelage.train.labels import LabelJudge, LabelSource, build, offsets_nats
    from tutelage.train.student import load_student

    model, tokenizer = load_student(folder / BEFORE)
    prompts = read_prompts(folder / "data" / "prompts.jsonl")
    texts = {prompt.prompt_id: prompt.text for prompt in (*prompts.train, *prompts.validation)}
    selection = read_selection(folder)
    offsets = offsets_nats(json.loads((folder / "curate" / "decision.json").read_bytes()))
    data, validation = (
        build(config.task, selection[kind], texts, store, tokenizer, config.teacher.signal, offsets)
        for kind in ("train", "validation")
    )
    economical(model)
    student = Causal(model)
    torch.manual_seed(config.run.seed)  # last: what loading draws must not matter
    return Lesson(student, LabelSource(data, config.train, config.run.seed), LabelJudge(validation))


def ship(arc: Session, gate: Gate, trained: Done, made: Done, accounted: Done) -> Done:
    """The student's folder, with the notices and the lineage that its terms ask to travel with it.

    Raises `TermsError` when a condition of the terms is not met by what would be handed on.
    """
    run, config, folder = arc.run, arc.config, arc.folder

    def work(scratch: Path) -> Facts:
        from tutelage.ship.student import ship as write_student
        from tutelage.train.student import load_student

        model, _ = load_student(folder / BEFORE, folder / "train" / "weights.safetensors")
        extras = scratch / "extras"
        shutil.rmtree(extras, ignore_errors=True)
        displays = write_notices(extras, gate.together, gate.conditions, config.ship.licence_files)
        write_whole(extras / IN_FOLDER, pretty(gate.lineage.to_json()))
        card = model_card(describe_student(arc, gate, {}, "", None), displays)
        judge = require_met(config, obligations(gate.conditions), card)
        write_student(model, folder / BEFORE, card, extras, folder / "student", judge)
        return {"weights": digest_file(folder / "student" / "model.safetensors")}

    table = {
        "name": config.run.name,
        "purpose": config.run.purpose,
        "layers": config.student.layers,
        "commercial": config.ship.commercial,
        "monthly_users": config.ship.monthly_users,
        "licence_files": [digest_file(Path(name)) for name in config.ship.licence_files],
    }
    inputs = {"train": trained.outputs_digest, "student": made.outputs_digest, "account": accounted.outputs_digest}
    return run.stage("ship", 2, table, inputs | {"terms": gate.standing, "risks": gate.risks}, ("student",), work)


class Taken(NamedTuple):
    """The steps that were taken: what each saw, the best validated weights' facts, the time in ms, where the states lie."""

    steps: list[dict[str, Any]]
    best: dict[str, Any]
    train_ms: int
    work: Path
    numerics: dict[str, Any]


def take_steps(run: Run, config: RunConfig, scratch: Path, lessons: Callable[[], Lesson]) -> tuple[Lesson, Taken]:
    """Trains what `lessons` gives in place, resuming what lies in `scratch`. Raises what the loop raises."""
    import torch

    from tutelage.train.loop import Loop
    from tutelage.train.loop import train as loop
    from tutelage.train.numerics import numerics

    torch.set_num_threads(torch.get_num_threads())  # by order: left alone, the math library may take fewer at times
    bound = numerics(config.train.precision)
    student, source, judge = taught = lessons()
    # Under its own name: other numerics make other bits, so what was begun under them is not gone on with here.
    scratch /= digest_of(bound)[-12:]
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / "journal.jsonl").open("a", encoding="utf-8") as journal:
        print(file=journal)  # ends a line that a killed run may have left torn
        settings = Loop(
            config.train,
            config.run.seed,
            scratch,
            run.progress,
            run.stop,
            lambda entry: print(json.dumps(entry), file=journal, flush=True),
        )
        began = time.monotonic()
        best = loop(student, source, judge, settings)
    train_ms = round(1000 * (time.monotonic() - began))
    return taught, Taken(last_of_each_step(scratch / "journal.jsonl"), best, train_ms, scratch, bound)


def _train(run: Run, config: RunConfig, scratch: Path, out: Path) -> Facts:
    from tutelage.train.chain import build_chain, place_segments
    from tutelage.train.checkpoint import save_weights
    from tutelage.train.memory import room_in

    (student, source, judge), (steps, best, train_ms, scratch, bound) = take_steps(
        run, config, scratch, lambda: lesson(run.folder, run.store, config)
    )
    write_metrics(out / "metrics.jsonl", steps)
    write_lines(out / "consumed.jsonl", consumed(steps, source.data))
    save_weights(out / "weights.safetensors", student.model)
    place_segments(scratch / "segments", out / "segments")
    chain = build_chain(out, digest_file(run.folder / BEFORE / "model.safetensors"))
    write_lines(out / "chain.jsonl", (boundary.to_json() for boundary in chain))
    checkpoint = _checkpoint(run, config, out, chain, best["step"])
    write_whole(out / "checkpoint.json", canonical(checkpoint.to_json()) + b"\n")
    return {
        "steps": len(steps),
        "chosen_step": best["step"],
        "examples": len(source.data.examples),
        "validation_examples": len(judge.data.examples),
        "validation_kl_unats": best["kl_unats"],
        "validation_agreement_ppm": best["agreement_ppm"],
        "train_ms": train_ms,
        "checkpoint": checkpoint.digest,
        "numerics": bound,
        "room_tokens": room_in(scratch),
    }


def write_metrics(path: Path, steps: list[dict[str, Any]]) -> None:
    """One line a step."""
    write_whole(path, b"".join(json.dumps(step).encode() + b"\n" for step in steps))


def last_of_each_step(journal: Path) -> list[dict[str, Any]]:
    """A killed run writes some steps twice, and may leave a torn last line."""
    found = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found[entry["step"]] = entry
    return [found[step] for step in sorted(found)]


def consumed(steps: list[dict[str, Any]], data: Any) -> Iterator[dict[str, Any]]:
    """What each step was stepped on: exchanges, and the loss tokens of each by role."""
    for step in steps:
        examples = [data.examples[row] for row in step["rows"]]
        yield {
            "step": step["step"],
            "exchanges": [example.exchange for example in examples],
            "loss_tokens": [{str(role): count for role, count in e.loss_tokens.items()} for e in examples],
        }


def _loss_tokens(folder: Path) -> dict[str, int]:
    total = {str(Role.SOFT_TARGET): 0, str(Role.TEXT_TARGET): 0}
    for step in read_lines(folder / "train" / "consumed.jsonl"):
        for by_role in step["loss_tokens"]:
            for role, count in by_role.items():
                total[role] += count
    return total


def _checkpoint(run: Run, config: RunConfig, out: Path, chain: tuple[Any, ...], chosen: int) -> Checkpoint:
    return Checkpoint(
        weights=digest_file(out / "weights.safetensors"),
        parent=chain[0].state,
        config=digest_of(decimals({"train": config.train.model_dump(mode="json"), "seed": config.run.seed})),
        state=chain[-1].state,
        chain=chain[-1].digest,
        step=chosen,
        data_position=chain[-1].step,
        loss_tokens=_loss_tokens(run.folder),
        consumed=digest_file(out / "consumed.jsonl"),
    )
