"""Fills `Account` from the log, the source table, the verdicts and the evidence: what every document is written from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tutelage
from tutelage.canon import decimals, digest_file
from tutelage.config import RunTable
from tutelage.ledger.sources import UNKNOWN_UPSTREAM, SourceRow
from tutelage.models.exchange import now_utc
from tutelage.pipeline.gate import Gate, base_of
from tutelage.pipeline.run import Run
from tutelage.pipeline.session import Session
from tutelage.report import words
from tutelage.resources import resource
from tutelage.ship.account import Account, LogHead, Metric, Part

METHOD = {
    "top-logprobs": "forward KL on the teacher's most likely tokens with the rest of its mass kept, cross-entropy on text",
    "text": "cross-entropy on the teacher's words",
}


def describe_student(
    arc: Session, gate: Gate, files: Mapping[str, str], weights: str, evidence: Mapping[str, Any] | None
) -> Account:
    """`files`: name -> digest of the student's folder, empty before it is written; `evidence` is None before the proof."""
    run, config = arc.run, arc.config
    facts = latest_facts(run)
    student, base, last = facts["student"], base_of(config), list(run.log.statements())[-1]
    return Account(
        name=config.run.name,
        version=tutelage.__version__,
        created_at=now_utc() if evidence is None else evidence["run"]["created_at"],
        purpose=config.run.purpose,
        task=_task(arc),
        question=config.task.question,
        labels=config.task.labels,
        method=METHOD[config.teacher.signal],
        architecture=_architecture(run.folder / "before" / "config.json"),
        parameters=student["parameters"],
        layers=student["layers"],
        base_layers=student["base_layers"],
        weights=weights,
        files=dict(files),
        base=Part(base.name, base.digest, base.licence, base.pinned.url if base.pinned else ""),
        data=_data(arc),
        sources=tuple(SourceRow.from_json(row) for row in facts["account"]["sources"]),
        examples=_examples(run),
        terms=(gate.teacher, gate.data, gate.base, *gate.inherited),
        hyperparameters={
            name: str(value)
            for name, value in decimals(config.train.model_dump(mode="json")).items()
            if value is not None
        },
        metrics=() if evidence is None else _metrics(evidence),
        verdict="" if evidence is None else words.verdict(evidence["claims"][0]),
        log=LogHead(run.log.origin, run.log.size, run.log.root),
        code=last.code,
        environment=last.environment,
        upstream=UNKNOWN_UPSTREAM,
    )


def latest_facts(run: Run) -> dict[str, dict[str, Any]]:
    """The facts of the latest statement of each stage, with the time it ended."""
    return {
        entry.stage: {**entry.facts, "ended_at": entry.ended_at}
        for entry in run.log.statements()
        if entry.kind == "statement"
    }


def _task(arc: Session) -> str:
    """What the student does: as the run file asks it, or, where it asks nothing, what it answers."""
    said, labels = arc.config.run.question, arc.config.task.labels
    asked = said != RunTable.model_fields["question"].default
    return said if asked else f"Names which of these fits a text: {', '.join(labels)}"


def _examples(run: Run) -> dict[str, str]:
    """The private records of what was trained on, by digest."""
    entry = [entry for entry in run.log.statements() if (entry.kind, entry.stage) == ("statement", "account")][-1]
    return {name: digest for name, digest in entry.outputs.items() if name.endswith(".jsonl")}


def _architecture(config: Path) -> str:
    return json.loads(config.read_bytes())["architectures"][0]


def _data(arc: Session) -> Part:
    table = arc.config.data
    if table.resource:
        pinned = resource(table.resource)
        return Part(pinned.name, f"sha256:{pinned.sha256}", pinned.licence, pinned.url)
    path = Path(table.path or "")
    return Part(path.name, digest_file(path) if path.is_file() else "", table.licence or "", "")


def _metrics(evidence: Mapping[str, Any]) -> tuple[Metric, ...]:
    level = repr(evidence["claims"][0]["level"])
    return tuple(
        Metric(
            "accuracy", row["role"], repr(row["accuracy"]), repr(row["ci_low"]), repr(row["ci_high"]), level, row["n"]
        )
        for row in evidence["systems"]
    )
