"""What asking open questions would do and cost, found out without asking them."""

import tempfile
from pathlib import Path
from typing import Any

from tutelage.collect.gathering import BYTES_A_TOKEN, expected_nusd
from tutelage.collect.questions import read_questions
from tutelage.config import CollectConfig
from tutelage.pipeline.collecting import prepare
from tutelage.pipeline.gate import may_ask, teacher_name
from tutelage.pipeline.supervision import Probing, prices_of, supervision_of
from tutelage.records import NUSD_PER_USD


def plan_collect(config: CollectConfig, today: str, probing: Probing = Probing.NEVER) -> dict[str, Any]:
    """Terms, questions, tokens and money (both rough: four bytes a token, answers half as long as they may be).

    Raises what `tutelage collect` would for bad input: the whole file is looked through.
    """
    permission = may_ask(config, today)
    found = read_questions(Path(config.prompts.path), config.prompts)
    with tempfile.TemporaryDirectory() as folder:
        written = prepare(config, found, Path(folder) / "questions.jsonl")
    prices, samples = prices_of(config.teacher), config.sampling.samples
    cost = expected_nusd(written, config.sampling, prices) / NUSD_PER_USD
    return {
        "terms": permission.together.to_json(),
        "permitted": permission.together.permits,
        "teacher": teacher_name(config.teacher),
        "supervision": supervision_of(config.teacher, today, probing),
        "questions": written.questions,
        "bad_rows": len(found.bad),
        "repeated": found.repeated,
        "answers": written.questions * samples,
        "prompt_tokens": written.prompt_bytes * samples // BYTES_A_TOKEN,
        "most_answer_tokens": written.questions * samples * config.sampling.max_tokens,
        "cost_usd": round(cost, 6),
        "price_source": prices.source,
        "max_cost_usd": config.budget.max_cost_usd,
        "within_budget": cost <= config.budget.max_cost_usd,
    }


def describe_collect(found: dict[str, Any]) -> str:
    """The plan in plain lines."""
    left = ", ".join(
        [f"{found[key]:,} {words}" for key, words in (("bad_rows", "bad rows"), ("repeated", "repeated")) if found[key]]
    )
    return "\n".join(
        [
            f"teacher     {found['teacher']}",
            f"supervision {found['supervision']['words']}",
            f"terms       {found['terms']['status']} for {found['terms']['purpose']}"
            + ("" if found["permitted"] else "  (collecting would stop here; see `tutelage terms explain`)"),
            f"questions   {found['questions']:,}, {found['answers']:,} answers"
            + (f"; left out: {left}" if left else ""),
            f"tokens      about {found['prompt_tokens']:,} in, at most {found['most_answer_tokens']:,} out",
            f"cost        about ${found['cost_usd']:.4f} ({found['price_source']}); limit ${found['max_cost_usd']:g}"
            + ("" if found["within_budget"] else "  OVER THE BUDGET: collecting would stop early"),
        ]
    )
