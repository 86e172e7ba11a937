"""The two stages of collecting: making the prompts, and asking the teacher about the training prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.canon import canonical, digest_file
from tutelage.collect.sources import Rows, read_rows
from tutelage.collect.split import Origin, split_rows
from tutelage.config import DataTable, TaskTable
from tutelage.jsonl import write_lines, write_whole
from tutelage.models.ask import Asking
from tutelage.models.questions import ask_all, exchange_rows, label_request
from tutelage.prompts import Prompts, write_prompts
from tutelage.resources import fetch, resource
from tutelage.tasks import teacher_messages


class Opened(NamedTuple):
    """The rows of a data table and where they come from, its digest included."""

    rows: Rows
    origin: Origin


def open_data(table: DataTable) -> Opened:
    """Fetches a pinned file, or reads one's own. Raises as `fetch` and `read_rows`."""
    if table.resource:
        pinned = resource(table.resource)
        path, origin = fetch(pinned), Origin(pinned.name, "", pinned.licence)
    else:
        path = Path(table.path or "")
        origin = Origin(path.name, "", table.licence or "")
    rows = read_rows(path, table)
    return Opened(rows, origin._replace(digest=digest_file(path)))


def make_prompts(
    rows: Rows, table: DataTable, labels: Sequence[str], origin: Origin, seed: int, out: Path
) -> dict[str, Any]:
    """Writes `prompts.jsonl` and `gold.json` (held-out only) into `out`; returns facts. Raises `DataError`."""
    split = split_rows(rows.good, table, labels, origin, seed)
    write_prompts(out / "prompts.jsonl", Prompts(split.train, split.validation, split.held_out))
    write_whole(out / "gold.json", canonical(split.gold) + b"\n")
    return {
        "train": len(split.train),
        "validation": len(split.validation),
        "held_out": len(split.held_out),
        "near_duplicate_groups": split.num_groups,
        "rows": len(rows.good) + len(rows.bad),
        "bad_rows": [row.line for row in rows.bad],
        "held_out_without_gold": list(split.without_gold),
    }


def collect(
    asking: Asking, task: TaskTable, prompts: Prompts, params: dict[str, Any], purpose: str, concurrency: int, out: Path
) -> dict[str, Any]:
    """Asks the teacher about every training and validation prompt; writes `exchanges.jsonl` in prompt order, and
    `refused.jsonl` with the prompts that the endpoint would not take, and why.

    Returns facts. Raises what `ask` raises. Held-out prompts are not looked at.
    """
    asked = [*prompts.train, *prompts.validation]
    endpoint = asking.model.endpoint
    requests = [label_request(endpoint, teacher_messages(task, prompt.text), params, purpose) for prompt in asked]
    ask_all(asking, requests, concurrency, "asking the teacher")
    write_lines(out / "exchanges.jsonl", exchange_rows(asking, asked, requests))
    reasons = {refusal.request_digest: refusal.reason for refusal in asking.refusals}
    asked_of = zip(asked, requests, strict=True)
    refused = [{"prompt": p.prompt_id, "reason": reasons[r.digest]} for p, r in asked_of if r.digest in reasons]
    write_lines(out / "refused.jsonl", refused)
    return {"questions": len({request.digest for request in requests}), "refused": len(refused)}
