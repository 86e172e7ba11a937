"""The account stage: what was stepped on, example by example, and the table of what was taken from whom."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tutelage.canon import canonical
from tutelage.config import RunConfig
from tutelage.jsonl import read_lines, write_whole
from tutelage.ledger.examples import Lineage, Taken, Tokens, source_table, write_examples
from tutelage.pipeline.gate import base_of
from tutelage.pipeline.learning import read_selection
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.prompts import read_prompts

SOURCES = "provenance/sources.json"


def account(run: Run, config: RunConfig, curated: Done, trained: Done) -> Done:
    """Records, trees and source table, from the steps that were taken and the selection committed before them."""

    def work(scratch: Path) -> Facts:
        counted = consumed_tokens(read_lines(run.folder / "train" / "consumed.jsonl"))
        base = base_of(config)
        lineage = [Lineage(base.name, base.digest, base.licence)]
        rows = write_examples(run.key, _taken(run, config, counted), lineage, run.folder / "ledger" / "examples")
        table = source_table(run.key, rows)
        write_whole(run.folder / SOURCES, canonical(table) + b"\n")
        return {
            "sources": [row.to_json() for row in rows],
            "loss_tokens": table["loss_tokens"],
            "root": table["root"],
        }

    inputs = {"curate": curated.outputs_digest, "train": trained.outputs_digest}
    table = {"base": config.student.base or "", "decision": config.task.decision}
    return run.stage("account", 1, table, inputs, ("ledger/examples", SOURCES), work)


def consumed_tokens(steps: Iterable[dict[str, Any]]) -> dict[str, dict[str, Tokens]]:
    """Loss tokens by exchange and role, summed over the steps that were taken."""
    found: dict[str, dict[str, Tokens]] = {}
    same: dict[Tokens, Tokens] = {}  # most counts are alike: one object for all that are
    for step in steps:
        for exchange, by_role in zip(step["exchanges"], step["loss_tokens"], strict=True):
            so_far = found.setdefault(exchange, {})
            for role, count in by_role.items():
                before = so_far.get(role, Tokens(0, 0))
                tokens = Tokens(before.loss + count, before.passes + 1)
                so_far[role] = same.setdefault(tokens, tokens)
    return found


def _taken(run: Run, config: RunConfig, counted: dict[str, dict[str, Tokens]]) -> Iterator[Taken]:
    prompts = {prompt.prompt_id: prompt for prompt in read_prompts(run.folder / "data" / "prompts.jsonl").train}
    transforms = ("decision-offsets/1",) if config.task.decision == "balanced" else ()
    rows = [(at, row) for at, row in enumerate(read_selection(run.folder)["train"]) if row["exchange"] in counted]
    pairs = run.store.pairs(row["address"] for _, row in rows)
    for (position, row), pair in zip(rows, pairs, strict=True):
        prompt = prompts[row["prompt"]].to_json()
        yield Taken(position, pair.digest, pair.exchange, pair.request, prompt, counted[pair.digest], transforms)
