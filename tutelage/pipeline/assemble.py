"""`evidence.json`: what the log and the proof found, put together. Computes no statistic; docs/formats.md has its keys."""

import json
from pathlib import Path
from typing import Any

from tutelage.hardware import describe as describe_hardware
from tutelage.jsonl import read_lines
from tutelage.ledger.sources import TARGETS
from tutelage.pipeline.gate import Gate, base_of, teacher_name
from tutelage.pipeline.run import installed_versions
from tutelage.pipeline.session import Session
from tutelage.prove.claims import power
from tutelage.prove.paying import queries_to_pay
from tutelage.records import NUSD_PER_USD, Claim
from tutelage.terms.model import Verdict

SHOWN_VERSIONS = ("tutelage", "python", "torch", "transformers", "xllamacpp", "numpy", "scipy", "aiohttp")


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
        "schema_version": 2,
        "run": {
            "name": config.run.name,
            "size": f"{config.data.train} questions to learn from, {config.data.held_out} held out",
            "created_at": facts["prove"]["ended_at"],
            "purpose": config.run.purpose,
            "task": config.run.question,
            "labels": list(config.task.labels),
            "teacher": teacher_name(config.teacher),
            "student": f"{facts['student']['layers']} of {facts['student']['base_layers']} layers of "
            f"{base_of(config).name}",
        },
        "claims": [judged],
        "systems": systems,
        **{name: results[name] for name in ("controls", "missing_controls", "ceiling", "checkpoint", "unseen")},
        "training": _training(run.folder, facts, config),
        "disagreements": results["disagreements"],
        "drops": _drops(run.folder, facts),
        "cost": costs,
        "provenance": _provenance(run, facts),
        "terms": _terms(gate),
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
    train_ms = facts["train"]["cpu_ms"]  # of the student alone: a plainly trained control is no part of its price
    collect = facts["collect"]
    once_s = (collect["cpu_ms"] + train_ms) / 1000
    usd_each = collect["cost_nusd"] / NUSD_PER_USD / collect["questions"]
    if usd_each > 0:
        basis = "money for the teacher's answers alone"
        even = queries_to_pay(collect["cost_nusd"] / NUSD_PER_USD, usd_each, 0.0)
    else:
        basis = "CPU-seconds: collecting and training against what each query saves"
        even = queries_to_pay(once_s, teacher_s, student_s)
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
        "estimated_usd": collect.get("expected_nusd", collect["cost_nusd"]) / NUSD_PER_USD,
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
    if refused := facts["collect"]["refused"]:
        rows.append(
            {"filter": "refused", "reason": "the endpoint would not answer it", "count": refused, "of": "train"}
        )
    if missing := len(facts["data"]["held_out_without_gold"]):
        rows.append({"filter": "gold", "reason": "its human rating names no label", "count": missing, "of": "held-out"})
    if bad := len(facts["data"]["bad_rows"]):
        rows.append({"filter": "rows", "reason": "bad row of the data file", "count": bad, "of": "train"})
    return rows


def _provenance(run: Any, facts: Any) -> dict[str, Any]:
    total = facts["account"]["loss_tokens"]
    signed = run.signer is not None
    who = f"signed by {run.signer.name}" if signed else "not signed: it names nobody"
    return {
        "sources": [
            {**row, "share": row["loss_tokens"] / total if row["role"] in TARGETS else None}
            for row in facts["account"]["sources"]
        ],
        "log_root": run.log.root,
        "entries": run.log.size,
        "tier": f"L0, {who}; L1, committed before training, claimed by the signer" if signed else f"none, {who}",
        "upstream": "unknown: neither the teacher nor the base says which models' output it was trained on",
        "proves": [
            "every answer is stored as it was received and re-hashes to its name",
            "the training set was committed before training started, and what was stepped on is in it",
            "the weights are the ones the record names; nothing in the record changed since its root",
            *(["who made the record, to whoever knows the signer's key"] if signed else []),
        ],
        "does_not_prove": [
            "that nothing outside the record was trained on: re-train segments with tutelage replay to find out",
            *([] if signed else ["who made the record: it is not signed"]),
            "when: no outside clock has seen its root; a witness's cosignature would show it",
        ],
    }


def _terms(gate: Gate) -> list[dict[str, Any]]:
    direct = [("teacher", gate.teacher), ("data", gate.data), ("base", gate.base)]
    return [term_row(of, verdict) for of, verdict in (*direct, *(("inherited", one) for one in gate.inherited))]


def term_row(of: str, verdict: Verdict) -> dict[str, Any]:
    reason = verdict.decisive
    return {
        "of": of,
        "subject": verdict.subject,
        "licence": verdict.licence,
        "purpose": str(verdict.purpose),
        "verdict": str(verdict.status),
        "clause": f"{reason.entry_name} {reason.number}".strip(),
        "gist": reason.gist,
        "source": reason.source,
        "checked_on": reason.checked_on,
        "conditions": [condition.words for condition in verdict.conditions],
        "warnings": list(verdict.warnings),
        "accepted_risks": [risk.to_json() for risk in verdict.accepted_risks],
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
    notes.append(
        "Confidence is recalibrated by one temperature, fitted on validation items with the teacher's labels: it changes no "
        "decision, and no gold was used for it."
    )
    return notes
