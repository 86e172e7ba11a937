"""The stages that prove and report: ask teacher, pruned and shipped student, judge the claim, write the page."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tutelage.hardware import describe as describe_hardware
from tutelage.jsonl import read_lines, write_lines, write_pretty, write_whole
from tutelage.meter import Meter
from tutelage.models.questions import label_params
from tutelage.pipeline.commit import commit_exchanges
from tutelage.pipeline.gate import Gate, base_of, teacher_name
from tutelage.pipeline.learning import BEFORE, read_selection
from tutelage.pipeline.run import Done, Facts, installed_versions
from tutelage.pipeline.serving import STUDENT_CONCURRENCY, serve_student, serve_teacher
from tutelage.pipeline.session import Session
from tutelage.prompts import Prompts, read_prompts
from tutelage.prove.claims import power
from tutelage.prove.controls import bag_of_words, majority
from tutelage.prove.observe import Answers, Questions, fix_offsets, observe
from tutelage.prove.results import System, describe, disagreements, judge, system
from tutelage.records import NUSD_PER_USD, UNATS_PER_NAT, Claim, Role
from tutelage.tasks import read_answer, student_messages, teacher_messages

OUTPUTS = ("prove/scores.jsonl", "prove/exchanges.jsonl", "prove/results.json")
SHOWN_VERSIONS = ("tutelage", "python", "torch", "transformers", "xllamacpp", "numpy", "scipy", "aiohttp")


class Inputs(NamedTuple):
    """The stages a proof rests on."""

    data: Done
    curated: Done
    shipped: Done
    before: Done


class Asked(NamedTuple):
    """A system that answered through its endpoint, and which exchange answers which prompt."""

    system: System
    rows: tuple[dict[str, str], ...]


def prove(arc: Session, gate: Gate, claim: Claim, made: Inputs) -> Done:
    """Every system answers the held-out prompts through its endpoint, in the claim's own namespace."""
    run, config = arc.run, arc.config

    def work(scratch: Path) -> Facts:
        prompts = read_prompts(run.folder / "data" / "prompts.jsonl")
        gold = json.loads((run.folder / "data" / "gold.json").read_bytes())
        labels = list(config.task.labels)
        gold_N = np.array([labels.index(gold[prompt.prompt_id]) for prompt in prompts.held_out])
        meters = run.folder / "work" / "meters"
        asked = [
            _teacher(arc, gate, claim, prompts, meters),
            _student(arc, gate, claim, prompts, "student", "student", meters),
            _student(arc, gate, claim, prompts, BEFORE, "before", meters),
        ]
        teacher, student, pruned = (one.system for one in asked)
        systems = [teacher, student, pruned, *_controls(arc, prompts)]
        write_lines(run.folder / "prove" / "scores.jsonl", _scores(prompts, gold_N, systems, labels))
        rows = [row for one in asked for row in one.rows]
        write_lines(run.folder / "prove" / "exchanges.jsonl", rows)
        level = config.claim.level
        rng = np.random.default_rng(config.run.seed)
        results = {
            "claim": judge(teacher, student, pruned, gold_N, config.claim.margin, level, rng),
            "systems": [describe(one, teacher, gold_N, level) for one in systems],
            "disagreements": disagreements(prompts.held_out, labels, gold_N, teacher, student),
            "tokens_per_question": {name: _tokens(meters, name) for name in ("teacher", "student")},
        }
        write_pretty(run.folder / "prove" / "results.json", results)
        committed = commit_exchanges(run, [row["address"] for row in rows])
        return {"verdict": results["claim"]["verdict"], "items": len(gold_N), "commitment": committed}

    inputs = {
        "claim": claim.digest,
        "data": made.data.outputs_digest,
        "curate": made.curated.outputs_digest,
        "student": made.shipped.outputs_digest,
        "before": made.before.outputs_digest,
    }
    table = {"task": config.task.model_dump(mode="json"), "claim": config.claim.model_dump(mode="json")}
    return run.stage("prove", 1, table, inputs, OUTPUTS, work)


def report(arc: Session, gate: Gate, claim: Claim, proved: Done) -> Path:
    """`evidence.json` and `report.html`, from the log and the results; computes no statistic."""
    run = arc.run

    def work(scratch: Path) -> Facts:
        from tutelage.report.build import write_report

        found = assemble(arc, gate, claim)
        write_pretty(run.folder / "evidence.json", found)
        write_report(run.folder / "evidence.json", run.folder / "report.html")
        return {}

    run.stage("report", 1, {}, {"prove": proved.outputs_digest, "claim": claim.digest}, ("evidence.json",), work)
    return run.folder / "report.html"


def assemble(arc: Session, gate: Gate, claim: Claim) -> dict[str, Any]:
    """All of `evidence.json`; docs/formats.md lists its keys."""
    run, config = arc.run, arc.config
    results = json.loads((run.folder / "prove" / "results.json").read_bytes())
    facts = _facts(run)
    systems = results["systems"]
    costs = _cost(arc, facts, systems, results["tokens_per_question"])
    assumed = (
        f"true difference {config.claim.expected_difference:+.3f}, discordance {config.claim.expected_discordance}"
    )
    judged = {
        **results["claim"],
        "power": power(config),
        "power_assumption": assumed,
        "declared_at": claim.declared_on,
        "digest": claim.digest,
    }
    return {
        "schema_version": 1,
        "run": {
            "name": config.run.name,
            "size": f"{config.data.train} questions to learn from, {config.data.held_out} held out",
            "created_at": facts["prove"]["ended_at"],
            "purpose": config.run.purpose,
            "task": config.run.question,
            "labels": list(config.task.labels),
            "teacher": teacher_name(config),
            "student": f"{facts['student']['layers']} of {facts['student']['base_layers']} layers of "
            f"{base_of(config).name}",
        },
        "claims": [judged],
        "systems": systems,
        "training": _training(run.folder, facts, config),
        "disagreements": results["disagreements"],
        "drops": _drops(run.folder, facts),
        "cost": costs,
        "provenance": _provenance(run, facts),
        "terms": [_term(verdict) for verdict in (gate.teacher, gate.data, gate.base)],
        "looks": {
            "held_out": run.intents("prove"),
            "what_counts": "each configuration or student that was compared with the held-out labels in this run folder",
        },
        "wall_s": {name: fact["wall_ms"] / 1000 for name, fact in facts.items() if "wall_ms" in fact},
        "versions": {name: value for name, value in installed_versions().items() if name in SHOWN_VERSIONS},
        "seeds": {"run": config.run.seed},
        "hardware": describe_hardware(),
        "notes": _notes(config),
    }


def _teacher(arc: Session, gate: Gate, claim: Claim, prompts: Prompts, meters: Path) -> Asked:
    config = arc.config
    with serve_teacher(config, arc.folder) as served:
        how = Questions(
            teacher_messages,
            label_params(config.teacher),
            config.teacher.signal,
            config.teacher.concurrency,
            served.cpu_s,
        )
        asking = arc.asking(served, gate, Role.EVALUATION)
        meter = Meter(meters / "prove-teacher.json")
        answers = observe(
            asking, config.task, prompts.held_out, how, claim.digest, "asking the teacher, held out", meter
        )
    _keep_tokens(meters, "teacher", answers)
    decision = json.loads((arc.folder / "curate" / "decision.json").read_bytes())
    offsets_L = np.array(decision["offsets_unats"]) / UNATS_PER_NAT
    label = f"{teacher_name(config)}, {len(config.task.examples)} examples in its prompt"
    one = system("teacher", label, answers.logp_NL, offsets_L, answers.literal_N, meter.cpu_s_each())
    return Asked(one, answers.rows)


def _student(arc: Session, gate: Gate, claim: Claim, prompts: Prompts, folder: str, role: str, meters: Path) -> Asked:
    """Validation prompts fix the decision rule; held-out prompts are then decided by it."""
    config = arc.config
    weights = next(
        entry.outputs[f"{folder}/model.safetensors"]
        for entry in reversed(list(arc.run.log.statements()))
        if f"{folder}/model.safetensors" in entry.outputs
    )
    params = {"max_tokens": 1, "temperature": "0", "logprobs": True, "top_logprobs": 20}
    name = f"{config.run.name}-{role}"
    with serve_student(arc.folder / folder, name, weights, arc.folder / "logs" / f"{role}.log") as served:
        how = Questions(student_messages, params, "top-logprobs", STUDENT_CONCURRENCY, served.cpu_s)
        meter = Meter(meters / f"prove-{weights.removeprefix('sha256:')[:16]}.json")
        said = {}
        for kind, items in (("validation", prompts.validation), ("held out", prompts.held_out)):
            asking = arc.asking(served, gate, Role.EVALUATION)
            what = f"asking the {'student' if role == 'student' else 'pruned model'}, {kind}"
            said[kind] = observe(asking, config.task, items, how, claim.digest, what, meter)
    if role == "student":
        _keep_tokens(meters, "student", said["held out"])
    offsets_L = fix_offsets(config.task, said["validation"].logp_NL)
    label = "the shipped student" if role == "student" else "the pruned model before training"
    answers = said["held out"]
    one = system(role, label, answers.logp_NL, offsets_L, answers.literal_N, meter.cpu_s_each())
    return Asked(one, (*said["validation"].rows, *answers.rows))


def _controls(arc: Session, prompts: Prompts) -> list[System]:
    config, run = arc.config, arc.run
    texts = {prompt.prompt_id: prompt.text for prompt in (*prompts.train, *prompts.validation)}
    decision = json.loads((run.folder / "curate" / "decision.json").read_bytes())
    offsets_L = np.array(decision["offsets_unats"]) / UNATS_PER_NAT
    selection = read_selection(run.folder)
    texts_of, targets = {}, {}
    for kind in ("train", "validation"):
        rows = selection[kind]
        texts_of[kind] = [texts[row["prompt"]] for row in rows]
        readings = [read_answer(config.task, run.store.get(row["address"]), config.teacher.signal) for row in rows]
        targets[kind] = np.array([reading.logp_L for reading in readings]) + offsets_L
    held = [prompt.text for prompt in prompts.held_out]
    shares_L = np.array(config.task.declared_shares) if config.task.decision == "balanced" else None
    words = bag_of_words(
        texts_of["train"],
        _softmax(targets["train"]),
        texts_of["validation"],
        _softmax(targets["validation"]),
        held,
        shares_L,
    )
    return [majority(targets["train"].argmax(-1), len(config.task.labels), len(held)), words]


def _softmax(logits_NL: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits_NL - logits_NL.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


def _scores(prompts: Prompts, gold_N: np.ndarray, systems: list[System], labels: list[str]) -> Any:
    """One row a held-out item: what each system decided."""
    for at, prompt in enumerate(prompts.held_out):
        decided = {one.role: labels[one.decided_N[at]] for one in systems}
        yield {"prompt": prompt.prompt_id, "gold": labels[gold_N[at]], "decided": decided}


def _keep_tokens(meters: Path, name: str, answers: Answers) -> None:
    write_whole(meters / f"tokens-{name}.json", json.dumps(answers.tokens_per_question).encode())


def _tokens(meters: Path, name: str) -> float:
    return json.loads((meters / f"tokens-{name}.json").read_bytes())


def _facts(run: Any) -> dict[str, dict[str, Any]]:
    """The facts of the latest statement of each stage."""
    return {
        entry.stage: {**entry.facts, "ended_at": entry.ended_at}
        for entry in run.log.statements()
        if entry.kind == "statement"
    }


def _cost(arc: Session, facts: Any, systems: list[dict[str, Any]], tokens: dict[str, float]) -> dict[str, Any]:
    by_role = {row["role"]: row for row in systems}
    teacher_s, student_s = (by_role[role]["cpu_s_per_query"] for role in ("teacher", "student"))
    train_ms, _ = Meter(arc.folder / "work" / "meters" / "train.json").read()
    collect = facts["collect"]
    once_s = (collect["cpu_ms"] + train_ms) / 1000
    usd_each = collect["cost_nusd"] / NUSD_PER_USD / collect["questions"]
    saved_s = teacher_s - student_s if teacher_s is not None and student_s is not None else None
    if usd_each > 0:
        basis, even = "money for the teacher's answers alone", round(collect["cost_nusd"] / NUSD_PER_USD / usd_each)
    else:
        basis = "CPU-seconds: collecting and training against what each query saves"
        even = round(once_s / saved_s) if saved_s and saved_s > 0 else None
    return {
        "teacher_cpu_s_per_query": teacher_s,
        "student_cpu_s_per_query": student_s,
        "cpu_ratio": teacher_s / student_s if teacher_s and student_s else None,
        "teacher_tokens_per_query": tokens["teacher"],
        "student_tokens_per_query": tokens["student"],
        "teacher_usd_per_1000": 1000 * usd_each,
        "collect_questions": collect["questions"],
        "collect_cpu_s": collect["cpu_ms"] / 1000,
        "train_cpu_s": train_ms / 1000,
        "spent_usd": arc.budget.spent_nusd / NUSD_PER_USD,
        "estimated_usd": usd_each
        * (collect["questions"] + len(read_prompts(arc.folder / "data" / "prompts.jsonl").held_out)),
        "break_even_queries": even,
        "break_even_basis": basis,
    }


def _training(folder: Path, facts: Any, config: Any) -> dict[str, Any]:
    steps = list(read_lines(folder / "train" / "metrics.jsonl"))
    every = max(1, len(steps) // 200)
    shown = [step for at, step in enumerate(steps) if at % every == 0 or "validation_kl_nats" in step]
    seen, curve = 0, []
    keys = {step["step"] for step in shown}
    for step in steps:
        seen += len(step["rows"])
        if step["step"] in keys:
            curve.append(
                {
                    "step": step["step"],
                    "examples": seen,
                    "loss_nats": step["loss_nats"],
                    "validation_kl_nats": step.get("validation_kl_nats"),
                    "validation_agreement": step.get("validation_agreement"),
                }
            )
    return {
        "curve": curve,
        "examples": facts["train"]["examples"],
        "validation_examples": facts["train"]["validation_examples"],
        "loss_tokens": facts["train"]["loss_tokens"],
        "epochs": config.train.epochs,
        "steps": facts["train"]["steps"],
        "chosen_step": facts["train"]["chosen_step"],
        "student_layers": facts["student"]["layers"],
        "teacher_layers": facts["student"]["base_layers"],
        "student_parameters": facts["student"]["parameters"],
        "teacher_parameters": facts["student"]["base_parameters"],
    }


def _drops(folder: Path, facts: Any) -> list[dict[str, Any]]:
    counted: dict[tuple[str, str], int] = {}
    for drop in read_lines(folder / "curate" / "drops.jsonl"):
        reason = drop["reason"].split(" 0.")[0]
        counted[drop["filter"], reason] = counted.get((drop["filter"], reason), 0) + 1
    rows = [{"filter": name, "reason": why, "count": n, "of": "train"} for (name, why), n in sorted(counted.items())]
    if missing := len(facts["data"]["held_out_without_gold"]):
        rows.append({"filter": "gold", "reason": "its human rating names no label", "count": missing, "of": "held-out"})
    if bad := len(facts["data"]["bad_rows"]):
        rows.append({"filter": "rows", "reason": "bad row of the data file", "count": bad, "of": "train"})
    return rows


def _provenance(run: Any, facts: Any) -> dict[str, Any]:
    sources = facts["ship"]["sources"]
    total = sum(row["loss_tokens"] for row in sources)
    return {
        "sources": [{**row, "share": row["loss_tokens"] / total} for row in sources],
        "log_root": run.log.root,
        "entries": run.log.size,
        "upstream": "unknown: neither the teacher nor the base says which models' output it was trained on",
        "proves": [
            "every answer is stored as it was received and re-hashes to its name",
            "the training set was committed before training started, and what was stepped on is in it",
            "the weights are the ones the record names; nothing in the record changed since its root",
        ],
        "does_not_prove": [
            "that nothing outside the record was trained on",
            "who made the record: it is not signed",
            "when: no outside clock has seen its root",
        ],
    }


def _term(verdict: Any) -> dict[str, Any]:
    reason = verdict.decisive
    return {
        "subject": verdict.subject,
        "licence": verdict.licence,
        "purpose": str(verdict.purpose),
        "verdict": str(verdict.status),
        "clause": f"{reason.entry_name} {reason.number}".strip(),
        "gist": reason.gist,
        "source": reason.source,
        "checked_on": reason.checked_on,
        "conditions": [condition.words for condition in verdict.conditions],
    }


def _notes(config: Any) -> list[str]:
    notes = []
    if config.teacher.resource is not None and config.teacher.resource == config.student.base:
        notes.append(
            "This student starts from the teacher's own pruned weights, which nobody has who tutors from an API; "
            "a student of other flesh starts from further away."
        )
    if config.task.decision == "balanced":
        notes.append(
            "Every system decides by the same rule: label offsets that give the declared label shares, fixed on training "
            "items. 'Plain' accuracy is that of the word actually said."
        )
    notes.append("Tuning looks at a validation slice of the training prompts, by agreement with the teacher.")
    return notes
