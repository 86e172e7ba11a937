"""A finished proof's run folder as evaluation logs of Inspect, one file a system."""

import json
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, DataError
from tutelage.jsonl import read_lines, write_pretty
from tutelage.prove.inspect_logs import ProofRecord, file_name, log_of
from tutelage.records import Exchange, Question
from tutelage.store.store import Store


def export_inspect(run: Path, out: Path) -> list[Path]:
    """Writes the logs into the folder `out` and returns their paths, in the order of evidence.json. Writing again replaces them.

    Raises `ConfigError` for a folder that holds no finished proof, `DataError` when its files do not belong together,
    `StorageError` when a file cannot be written or the store is damaged.
    """
    proof = read_proof(run)
    paths = []
    for system in proof.evidence["systems"]:
        log = log_of(proof, system["role"])
        paths.append(out / file_name(log))
        write_pretty(paths[-1], log)
    return paths


def read_proof(run: Path) -> ProofRecord:
    """Everything a finished proof holds. Raises as `export_inspect`."""
    needed = (
        "evidence.json",
        "config.json",
        "data/items.jsonl",
        "prove/scores.jsonl",
        "prove/exchanges.jsonl",
        "store",
    )
    missing = [name for name in needed if not (run / name).exists()]
    evidence: dict[str, Any] = {} if missing else json.loads((run / "evidence.json").read_bytes())
    if missing or evidence.get("kind") != "proof":
        why = f"has no {missing[0]}" if missing else "is the record of another command"
        raise ConfigError(f"{run} {why}", fix="give the run folder of a `tutelage prove` that has finished")
    config = json.loads((run / "config.json").read_bytes())
    items = []
    for row in read_lines(run / "data" / "items.jsonl"):
        gold = row.pop("gold")
        items.append((Question.from_json(row), gold or ""))
    scores = list(read_lines(run / "prove" / "scores.jsonl"))
    if [row["item"] for row in scores] != [question.prompt_id for question, _ in items]:
        raise DataError(
            f"{run}: data/items.jsonl and prove/scores.jsonl name other items", fix="run `tutelage prove` again"
        )
    return ProofRecord(evidence, config["sampling"], items, scores, _answers(run, {row["item"] for row in scores}))


def _answers(run: Path, items: set[str]) -> dict[str, dict[str, Exchange]]:
    """By system and item. What judges said is left out: their prompts are no items."""
    found: dict[str, dict[str, Exchange]] = {}
    with Store(run / "store") as store:
        for row in read_lines(run / "prove" / "exchanges.jsonl"):
            if row["prompt"] in items:
                found.setdefault(row["system"], {}).setdefault(row["prompt"], store.get(row["address"]))
    return found
