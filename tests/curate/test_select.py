"""Curation: every answer is kept or dropped with a reason, and the counts add up."""

import base64
import json
import math
from pathlib import Path

from tests.test_records import exchange
from tutelage.canon import digest_bytes
from tutelage.config import TaskTable
from tutelage.curate.select import curate
from tutelage.jsonl import read_lines, write_lines
from tutelage.prompts import Prompts, read_prompts, write_prompts
from tutelage.records import (
    Exchange,
    HeldOutPrompt,
    Message,
    Position,
    Request,
    TokenLogprob,
    TrainPrompt,
    ValidationPrompt,
)
from tutelage.store.store import Store

TASK = TaskTable(labels=("no", "yes"), instruction="?", decision="balanced")


def stored(store: Store, at: int, p_yes: float, *, finish: str = "stop", mass: float = 1.0) -> dict[str, str]:
    pairs = ((b"yes", p_yes * mass), (b"no", (1 - p_yes) * mass))
    top = tuple(TokenLogprob(base64.b64encode(text).decode(), -1, round(1e6 * math.log(p))) for text, p in pairs)
    request = Request((Message("user", str(at)),), {}, "m", "embedded", "train", 0)
    body = b"{}"
    value = {
        **exchange(request).to_json(), "logprobs": [Position(top[0], top).to_json()], "finish_reason": finish,
        "answer": "yes" if p_yes > 0.5 else "no", "raw_body_digest": digest_bytes(body),
    }  # fmt: skip
    digest = store.put(request, Exchange.from_json(value), body)
    return {"prompt": f"p{at}", "address": request.digest, "exchange": digest}


def prompt(kind: type, at: int) -> TrainPrompt:
    return kind(f"p{at}", f"text {at}", f"g{at}", "s", "d", "own")


def test_trap_e4_kept_and_dropped_add_up(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        rows = [stored(store, at, 0.6 + 0.03 * at) for at in range(10)]
        rows += [stored(store, 10, 0.7, finish="content_filter"), stored(store, 11, 0.7, mass=0.001)]
        rows += [{**rows[0], "prompt": "p12"}]
        write_lines(tmp_path / "collected.jsonl", rows)
        train = tuple(prompt(TrainPrompt, at) for at in (0, 1, 2, 3, 4, 5, 6, 10, 11, 12))
        validation = tuple(prompt(ValidationPrompt, at) for at in (7, 8, 9))
        prompts = Prompts(train, validation, ())  # type: ignore[arg-type]
        facts = curate(TASK, "top-logprobs", prompts, tmp_path / "collected.jsonl", store, 5, tmp_path / "out")
    drops = list(read_lines(tmp_path / "out" / "drops.jsonl"))
    assert (facts["kept"], facts["validation"], len(drops)) == (7, 3, 3)
    assert [drop["filter"] for drop in drops] == ["finished", "names-a-label", "asked-once"]
    decision = json.loads((tmp_path / "out" / "decision.json").read_text())
    assert decision["shares_ppm"] == [500_000, 500_000], "balanced on the kept training answers"
    assert sum(decision["offsets_unats"]) == 0


def test_prompts_keep_their_kind_on_disk(tmp_path: Path) -> None:
    made = Prompts(
        (prompt(TrainPrompt, 1),), (prompt(ValidationPrompt, 2),), (HeldOutPrompt("p3", "t", "g", "s", "d", "own"),)
    )  # type: ignore[arg-type]
    write_prompts(tmp_path / "prompts.jsonl", made)
    assert read_prompts(tmp_path / "prompts.jsonl") == made
    assert type(read_prompts(tmp_path / "prompts.jsonl").validation[0]) is ValidationPrompt
