"""Exchanges -> Selection: filters in order, repeated questions once, the decision rule fixed on training answers.

The selection is committed in the ledger before training starts.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.canon import canonical, digest_of
from tutelage.config import TaskTable
from tutelage.curate.filters import FILTERS, Reason
from tutelage.errors import SignalError
from tutelage.jsonl import read_lines, write_lines, write_whole
from tutelage.prompts import Prompts
from tutelage.records import UNATS_PER_NAT, Drop
from tutelage.stats.labels import balance_offsets, decide, shares_of
from tutelage.store.store import Store
from tutelage.tasks import read_answer


def curate(
    task: TaskTable, signal: str, prompts: Prompts, collected: Path, store: Store, seed: int, out: Path
) -> dict[str, Any]:
    """Writes `selection.json`, `drops.jsonl` and `decision.json`; returns facts.

    `decision.json` holds the teacher's offsets per label (micro-nats), fixed on its answers to training prompts.
    """
    rows = {row["prompt"]: row for row in read_lines(collected)}
    kept: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    drops: list[Drop] = []
    seen: set[str] = set()
    readings = []
    for kind, members in (("train", prompts.train), ("validation", prompts.validation)):
        for prompt in members:
            row = rows.get(prompt.prompt_id)
            if row is None:  # refused by the endpoint: see collect/refused.jsonl
                continue
            exchange = store.get(row["address"])
            reason = next((found for check in FILTERS if (found := check(task, exchange)) is not None), None)
            if reason is None and row["address"] in seen:
                reason = Reason("asked-once", 1, "the same question as an earlier prompt", prompt.prompt_id)
            seen.add(row["address"])
            if reason is not None:
                drops.append(Drop(row["exchange"], reason.filter, reason.version, reason.reason, reason.evidence))
                continue
            kept[kind].append({**row, "group": prompt.group})
            readings.append(read_answer(task, exchange, signal).logp_L)
    write_lines(out / "drops.jsonl", (drop.to_json() for drop in drops))
    if not readings:
        raise SignalError(
            f"every one of {len(drops)} answers was dropped, the first because {drops[0].reason if drops else 'none came'}",
            fix=f"see {out / 'drops.jsonl'}; does the instruction make the teacher answer with a label?",
        )
    offsets_L = _offsets(task, np.array(readings))
    decisions = decide(np.array(readings), offsets_L)
    selection = {"shuffle_seed": seed, "drops": digest_of([drop.to_json() for drop in drops]), **kept}
    write_whole(out / "selection.json", canonical(selection) + b"\n")
    decision = {
        "rule": task.decision,
        "labels": list(task.labels),
        "offsets_unats": [round(float(value) * UNATS_PER_NAT) for value in offsets_L],
        "fixed_on": len(readings),
        "shares_ppm": [round(1e6 * float(share)) for share in shares_of(decisions, len(task.labels))],
    }
    write_whole(out / "decision.json", canonical(decision) + b"\n")
    reasons = Counter(f"{drop.filter}: {drop.reason.split(' 0.')[0]}" for drop in drops)
    return {"kept": len(kept["train"]), "validation": len(kept["validation"]), "dropped": dict(reasons)}


def _offsets(task: TaskTable, logp_NL: np.ndarray) -> np.ndarray:
    if task.decision == "argmax":
        return np.zeros(len(task.labels))
    return balance_offsets(logp_NL, np.array(task.declared_shares))
