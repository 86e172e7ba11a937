"""The stages that make the student: cut it out of its base, train it, write it down. torch is imported when they run."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import psutil

from tutelage.canon import canonical, decimals, digest_file, digest_of
from tutelage.config import RunConfig
from tutelage.jsonl import read_lines, write_lines, write_whole
from tutelage.ledger import verify
from tutelage.meter import Meter
from tutelage.pipeline.commit import source_table
from tutelage.pipeline.gate import Gate, base_of, teacher_name
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.prompts import read_prompts
from tutelage.records import Checkpoint, Role

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

    table = {**config.student.model_dump(mode="json", exclude={"path"}), "labels": list(config.task.labels)}
    return run.stage("student", 1, table, {"base": base.digest}, (BEFORE,), work)


def train(run: Run, config: RunConfig, curated: Done, made: Done) -> Done:
    """Steps on the selection; writes the best weights, the metrics, and what every step consumed."""
    folder = run.folder

    def work(scratch: Path) -> Facts:
        meter = Meter(scratch / "meter.json")
        process = psutil.Process()
        began = sum(process.cpu_times()[:2])
        try:
            facts = _train(run, config, scratch, folder / "train")
        finally:
            meter.add(sum(process.cpu_times()[:2]) - began, 1)
        return facts | {"loss_tokens": _loss_tokens(folder), "cpu_ms": meter.read()[0]}

    table = {"train": config.train.model_dump(mode="json", exclude={"checkpoint_every_s"}), "seed": config.run.seed}
    table["task"] = config.task.model_dump(mode="json")
    inputs = {"curate": curated.outputs_digest, "student": made.outputs_digest}
    outputs = tuple(f"train/{name}" for name in ("weights.safetensors", "metrics.jsonl", "consumed.jsonl"))
    return run.stage("train", 1, table, inputs, (*outputs, "train/checkpoint.json"), work)


def ship(run: Run, config: RunConfig, gate: Gate, trained: Done, made: Done) -> Done:
    """The student's folder and the table of sources."""
    folder = run.folder

    def work(scratch: Path) -> Facts:
        from tutelage.ship.student import ship as write_student
        from tutelage.train.student import load_student

        model, _ = load_student(folder / BEFORE, folder / "train" / "weights.safetensors")
        sources = source_table(read_lines(folder / "train" / "consumed.jsonl"), _models(run))
        write_whole(folder / "provenance" / "sources.json", canonical({"sources": sources}) + b"\n")
        shutil.copyfile(Path(verify.__file__), folder / "provenance" / "verify.py")
        write_student(model, folder / BEFORE, _card(config, gate, trained, made), folder / "student")
        return {"weights": digest_file(folder / "student" / "model.safetensors"), "sources": sources}

    inputs = {"train": trained.outputs_digest, "student": made.outputs_digest, "terms": gate.standing}
    table = {"name": config.run.name, "purpose": config.run.purpose, "layers": config.student.layers}
    return run.stage("ship", 1, table, inputs, ("student", "provenance/sources.json"), work)


def _train(run: Run, config: RunConfig, scratch: Path, out: Path) -> Facts:
    import torch

    from tutelage.train.batches import build, offsets_nats
    from tutelage.train.checkpoint import save_weights
    from tutelage.train.offpolicy import Loop
    from tutelage.train.offpolicy import train as loop
    from tutelage.train.student import load_student

    torch.manual_seed(config.run.seed)
    model, tokenizer = load_student(run.folder / BEFORE)
    prompts = read_prompts(run.folder / "data" / "prompts.jsonl")
    texts = {prompt.prompt_id: prompt.text for prompt in (*prompts.train, *prompts.validation)}
    selection = read_selection(run.folder)
    offsets = offsets_nats(json.loads((run.folder / "curate" / "decision.json").read_bytes()))
    signal = config.teacher.signal
    data, validation = (
        build(config.task, selection[kind], texts, run.store, tokenizer, signal, offsets)
        for kind in ("train", "validation")
    )
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / "journal.jsonl").open("a", encoding="utf-8") as journal:
        print(file=journal)  # ends a line that a killed run may have left torn
        settings = Loop(
            config.train,
            config.run.seed,
            tokenizer.pad_token_id,
            scratch,
            run.progress,
            run.stop,
            lambda entry: print(json.dumps(entry), file=journal, flush=True),
        )
        began = time.monotonic()
        best = loop(model, data, validation, settings)
    steps = _last_of_each_step(scratch / "journal.jsonl")
    write_whole(out / "metrics.jsonl", b"".join(json.dumps(step).encode() + b"\n" for step in steps))
    write_lines(out / "consumed.jsonl", _consumed(steps, data))
    save_weights(out / "weights.safetensors", model)
    checkpoint = _checkpoint(run, config, out, steps, best["step"])
    write_whole(out / "checkpoint.json", canonical(checkpoint.to_json()) + b"\n")
    return {
        "steps": len(steps),
        "chosen_step": best["step"],
        "examples": len(data.examples),
        "validation_examples": len(validation.examples),
        "validation_kl_unats": best["kl_unats"],
        "validation_agreement_ppm": best["agreement_ppm"],
        "train_ms": round(1000 * (time.monotonic() - began)),
        "checkpoint": checkpoint.digest,
    }


def _last_of_each_step(journal: Path) -> list[dict[str, Any]]:
    """A killed run writes some steps twice, and may leave a torn last line."""
    found = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found[entry["step"]] = entry
    return [found[step] for step in sorted(found)]


def _consumed(steps: list[dict[str, Any]], data: Any) -> Any:
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


def _checkpoint(run: Run, config: RunConfig, out: Path, steps: list[dict[str, Any]], chosen: int) -> Checkpoint:
    parent = digest_file(run.folder / BEFORE / "model.safetensors")
    return Checkpoint(
        weights=digest_file(out / "weights.safetensors"),
        parent=parent,
        config=digest_of(decimals({"train": config.train.model_dump(mode="json"), "seed": config.run.seed})),
        optimizer="",
        rng="",
        step=chosen,
        data_position=len(steps),
        loss_tokens=_loss_tokens(run.folder),
        consumed=digest_file(out / "consumed.jsonl"),
    )


def _models(run: Run) -> dict[str, dict[str, Any]]:
    selection = read_selection(run.folder)["train"]
    return {row["exchange"]: run.store.get(row["address"]).model.to_json() for row in selection}


def _card(config: RunConfig, gate: Gate, trained: Done, made: Done) -> dict[str, Any]:
    reason = gate.teacher.decisive
    return {
        "name": config.run.name,
        "teacher": teacher_name(config),
        "licence": gate.teacher.licence or "not public",
        "licence_tag": gate.base.licence.lower(),
        "verdict": str(gate.teacher.status),
        "clause": f"{reason.entry_name} {reason.number}".strip(),
        "source": reason.source,
        "purpose": config.run.purpose,
        "labels": list(config.task.labels),
        "question": config.task.question,
        "layers": config.student.layers,
        "base": base_of(config).name,
        "base_licence": gate.base.licence,
        "base_layers": made.facts["base_layers"],
        "parameters": f"{made.facts['parameters']:,}",
        "examples": f"{trained.facts['examples']:,}",
        "loss_tokens": ", ".join(f"{count:,} {role}" for role, count in trained.facts["loss_tokens"].items() if count),
    }
