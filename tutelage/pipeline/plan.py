"""What a run would do and cost, found out without asking anybody anything."""

from pathlib import Path
from typing import Any

from tutelage.collect.sources import read_rows
from tutelage.collect.split import Origin, split_rows
from tutelage.config import RunConfig
from tutelage.pipeline.estimate import BAND, label_questions, tokens_of
from tutelage.pipeline.gate import check_terms, teacher_name
from tutelage.pipeline.held_out import require_gold
from tutelage.pipeline.supervision import Probing, prices_of, supervision_of
from tutelage.prompts import Prompts
from tutelage.prove.claims import power
from tutelage.records import NUSD_PER_USD
from tutelage.resources import cache_folder, fetch, resource
from tutelage.tasks import student_messages

# Rough figures of a 2-core CPU with native bf16, from benchmarks/results; they make an estimate, not a promise.
TEACHER_QUESTIONS_PER_S = 9.0
STUDENT_QUESTIONS_PER_S = 50.0
TRAIN_TOKENS_PER_S_8_LAYERS = 1500.0
STORE_BYTES_PER_QUESTION = 9_000
STUDENT_BYTES = 250_000_000


def plan(config: RunConfig, today: str, probing: Probing = Probing.NEVER) -> dict[str, Any]:
    """Terms, questions, tokens (±25 %), money, time, disk, memory, power. Raises what a run would for bad input.

    Fetches pinned data if it is not in the cache (free of charge); asks no model, unless `probing` says so.
    """
    gate = check_terms(config, today)
    table = config.data
    if table.resource:
        pinned = resource(table.resource)
        path, origin = fetch(pinned), Origin(pinned.name, f"sha256:{pinned.sha256}", pinned.licence)
    else:
        path, origin = Path(table.path or ""), Origin(Path(table.path or "").name, "", table.licence or "")
    split = split_rows(read_rows(path, table).good, table, config.task.labels, origin, config.run.seed)
    require_gold(config, Prompts(split.train, split.validation, split.held_out), split.gold)
    asked = [*split.train, *split.validation, *split.held_out, *split.held_out[: config.controls.again]]
    embedded = config.teacher.url is None
    prices = prices_of(config.teacher)
    expected = label_questions(config, [prompt.text for prompt in asked], prices)
    student_tokens = sum(tokens_of(student_messages(config.task, prompt.text)) + 2 for prompt in split.train)
    students = 2 if config.controls.plain else 1
    trained = student_tokens * config.train.epochs * students
    seconds = {
        "asking the teacher": len(asked) / TEACHER_QUESTIONS_PER_S if embedded else None,
        "training": trained / (TRAIN_TOKENS_PER_S_8_LAYERS * 8 / config.student.layers),
        "asking the student": (1 + students) * (len(split.validation) + len(split.held_out)) / STUDENT_QUESTIONS_PER_S,
    }
    return {
        "terms": gate.together.to_json(),
        "permitted": gate.permits,
        "teacher": teacher_name(config.teacher),
        "supervision": supervision_of(config.teacher, today, probing),
        "questions": {
            "train": len(split.train),
            "validation": len(split.validation),
            "held_out": len(split.held_out),
            "again": min(config.controls.again, len(split.held_out)),
        },
        "teacher_tokens": {"prompt": expected.prompt_tokens, "answer": expected.answer_tokens, "band": BAND},
        "training_tokens": round(trained),
        "cost_usd": round(expected.nusd / NUSD_PER_USD, 6),
        "price_source": prices.source,
        "max_cost_usd": config.budget.max_cost_usd,
        "within_budget": expected.nusd / NUSD_PER_USD <= config.budget.max_cost_usd
        and expected.prompt_tokens + expected.answer_tokens <= config.budget.max_tokens,
        "seconds": seconds,
        "disk_bytes": len(asked) * STORE_BYTES_PER_QUESTION + 4 * STUDENT_BYTES,
        "memory_bytes": 2_500_000_000,
        "claim": {
            "metric": config.claim.metric,
            "margin": config.claim.margin,
            "level": config.claim.level,
            "held_out": config.data.held_out,
            "power": power(config),
            "if_true_difference": config.claim.expected_difference,
            "if_discordance": config.claim.expected_discordance,
        },
        "cache": str(cache_folder()),
    }


def describe(found: dict[str, Any]) -> str:
    """The plan in plain lines."""
    questions, tokens, claim = found["questions"], found["teacher_tokens"], found["claim"]
    known = [seconds for seconds in found["seconds"].values() if seconds is not None]
    waiting = "" if len(known) == len(found["seconds"]) else " and the teacher's own pace"
    return "\n".join(
        [
            f"teacher    {found['teacher']}",
            f"supervision {found['supervision']['words']}",
            f"terms      {found['terms']['status']} for {found['terms']['purpose']}"
            + ("" if found["permitted"] else "  (the run would stop here; see `tutelage terms check`)"),
            f"questions  {questions['train'] + questions['validation']:,} to learn from "
            f"({questions['validation']:,} of them to tune by), {questions['held_out']:,} held out"
            f"{', ' + format(questions['again'], ',') + ' of them asked again' if questions['again'] else ''}",
            f"tokens     {tokens['prompt']:,} in, {tokens['answer']:,} out at the teacher (estimate, ±25 %); "
            f"{found['training_tokens']:,} in training",
            f"cost       ${found['cost_usd']:.4f} ({found['price_source']}); limit ${found['max_cost_usd']:g}"
            + ("" if found["within_budget"] else "  OVER THE BUDGET: the run would stop early"),
            f"time       about {sum(known) / 60:.1f} min on 2 cores{waiting}",
            f"disk       about {found['disk_bytes'] / 1e9:.1f} GB; memory about {found['memory_bytes'] / 1e9:.1f} GB",
            f"claim      {claim['metric']}: student not worse than teacher by {100 * claim['margin']:g} points or more; "
            f"{claim['held_out']:,} items",
            f"power      {claim['power']:.2f} if the student is truly {100 * claim['if_true_difference']:+g} points off and "
            f"{claim['if_discordance']:.0%} of the items are answered differently",
        ]
    )
