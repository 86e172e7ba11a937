"""`evidence.json` of a proof in an open task: what the log and the proof found, put together. Computes no statistic."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.hardware import describe as describe_hardware
from tutelage.pipeline.assemble import SHOWN_VERSIONS, term_row
from tutelage.pipeline.forms import system_label
from tutelage.pipeline.gate_proof import ProofGate
from tutelage.pipeline.making import Made, cost_rows
from tutelage.pipeline.run import Run, installed_versions
from tutelage.proof_config import ProofConfig
from tutelage.prove.tasks.base import Task
from tutelage.records import NUSD_PER_USD

KIND = "proof"
_PART = "that the items with gold are a random sample of all: pick none of them by what the models say"
_ELSEWHERE = "that a model behind a URL stayed the same while it was asked: its name is what it was asked by"


def assemble_proof(
    config: ProofConfig, run: Run, gate: ProofGate, task: Task, items: Mapping[str, Any], made: Made
) -> dict[str, Any]:
    """All of `evidence.json`; docs/formats.md lists its keys. `items` are the facts of the items stage that this proof rests on:
    the last in the log may be of other settings."""
    results = json.loads((run.folder / "prove" / "results.json").read_bytes())
    facts: dict[str, dict[str, Any]] = {
        entry.stage: {**entry.facts, "ended_at": entry.ended_at}
        for entry in run.log.statements()
        if entry.kind == "statement"
    }
    return {
        "schema_version": 1,
        "kind": KIND,
        "run": {
            "name": config.run.name,
            "created_at": facts["prove"]["ended_at"],
            "purpose": config.run.purpose,
            "question": config.run.question,
            "task": config.task.kind,
            "metric": task.metric,
            "items": items["items"],
            "teacher": system_label(config.systems["teacher"]),
            "student": system_label(config.systems["student"]),
        },
        **results,
        "cost": _cost(run, results["systems"], made),
        "provenance": {
            "log_root": run.log.root,
            "entries": run.log.size,
            "signed_by": run.signer.name if run.signer else "",
            "gold_by": (config.items.gold_by or "people") if items["with_gold"] else "",
            "gold_warnings": items["gold_warnings"],
            "trained_on": items["trained_on"],
            "with_gold": items["with_gold"],
            "preferred": items.get("preferred", 0),  # runs from before this was counted have none
            "does_not_prove": [
                *(
                    [_PART]
                    if any(0 < items.get(name, 0) < items["items"] for name in ("with_gold", "preferred"))
                    else []
                ),
                *([_ELSEWHERE] if any(table.url for table in config.systems.values()) else []),
                "that the items were never trained on by whoever made the models: they were held against the questions of "
                "the run folders and files that were named",
                *([] if run.signer else ["who made the record: it is not signed"]),
            ],
        },
        "terms": [term_row(name, verdict) for name, verdict in gate.judged.items()]
        + [term_row("inherited", verdict) for verdict in gate.inherited],
        "looks": {"proofs": run.intents("prove")},
        "wall_s": {name: fact["wall_ms"] / 1000 for name, fact in facts.items() if "wall_ms" in fact},
        "versions": {name: value for name, value in installed_versions().items() if name in SHOWN_VERSIONS},
        "seeds": {"run": config.run.seed},
        "hardware": describe_hardware(),
    }


def _cost(run: Run, systems: list[dict[str, Any]], made: Made) -> dict[str, Any]:
    """What the proof cost, what a question costs of teacher and student, and when the student has paid for itself."""
    spent = run.store.spent()
    by_role = {row["role"]: row for row in systems}
    return {
        "spent_usd": spent.settled_nusd / NUSD_PER_USD,
        "unresolved_usd": spent.unresolved_nusd / NUSD_PER_USD,
        **cost_rows(made, by_role["teacher"], by_role["student"]),
    }


def write_page(folder: Path, name: str) -> dict[str, Any]:
    """The page beside `evidence.json`, if it is not there or the evidence is newer; gives the evidence."""
    from tutelage.report.proof import write_proof_page

    evidence = json.loads((folder / "evidence.json").read_bytes())
    write_proof_page(evidence, folder / name)
    return evidence
