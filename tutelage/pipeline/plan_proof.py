"""What a proof would ask, cost and be able to show, found out without asking anybody."""

from typing import Any

from tutelage.pipeline.gate_proof import may_prove
from tutelage.pipeline.proof_cost import Expected, expected_calls
from tutelage.pipeline.proof_opening import claim_sessions, look, planned_claims
from tutelage.proof_config import ProofConfig
from tutelage.prove.answers import asked_twice
from tutelage.prove.open_claims import TEXT, WANTED, assumption, beside, furthest_shown
from tutelage.records import NUSD_PER_USD


def plan_proof(config: ProofConfig, today: str) -> dict[str, Any]:
    """Terms, items, calls, tokens and money of every model (rough: four bytes a token, answers half as long as they may be), and
    of every claim its power. What a run folder has of it already is not taken off.

    Raises what `tutelage prove` would before its first question.
    """
    looked, gate = look(config), may_prove(config, today)
    items = looked.items.items
    again = asked_twice(looked.task, config.controls.again, len(items))
    expected = expected_calls(config, [item.question for item in items], again, looked.readers)
    cost = sum(one.nusd for one in expected) / NUSD_PER_USD
    tokens = sum(one.prompt_tokens + one.answer_tokens for one in expected)
    claims = []
    for claim, planned in zip(config.claims, planned_claims(config, looked), strict=True):
        n, sessions = planned.claim.planned_n, claim_sessions(claim, looked.items)
        strictest = beside(claim, len(config.claims))
        claims.append(
            {
                "comparison": claim.comparison, "judge": claim.judge, "metric": planned.claim.metric, "margin": claim.margin,
                "level": claim.level, "items": n, "sessions": sessions, "power": planned.power,
                "items_for_80": planned.needed, "assumption": assumption(claim, n, sessions, len(config.claims)),
                "shown_from": furthest_shown(looked.task, strictest, n, sessions),
                "unit": "" if claim.comparison == TEXT else "points",
            }
        )  # fmt: skip
    return {
        "terms": gate.to_json()["together"],
        "permitted": gate.together.permits,
        "items": len(items),
        "with_gold": sum(bool(item.gold) for item in items),
        "again": again,
        "sessions": len({item.question.group for item in items if item.question.group}),
        "bad_rows": len(looked.items.bad),
        "repeated": looked.items.repeated,
        "models": [_row(one) for one in expected],
        "cost_usd": round(cost, 6),
        "max_cost_usd": config.budget.max_cost_usd,
        "within_budget": cost <= config.budget.max_cost_usd and tokens <= config.budget.max_tokens,
        "claims": claims,
    }


def _row(one: Expected) -> dict[str, Any]:
    return {**one._asdict(), "cost_usd": round(one.nusd / NUSD_PER_USD, 6)}


def describe_proof(found: dict[str, Any]) -> str:
    """The plan in plain lines."""
    left = ", ".join(f"{found[key]:,} {key.replace('_', ' ')}" for key in ("bad_rows", "repeated") if found[key])
    sessions = f" in {found['sessions']:,} sessions" if found["sessions"] else ""
    lines = [
        f"terms    {found['terms']['status']} for {found['terms']['purpose']}"
        + ("" if found["permitted"] else "  (the proof would stop here; see `tutelage terms check`)"),
        f"items    {found['items']:,}{sessions}, {found['with_gold']:,} of them with gold"
        + (f"; the teacher answers {found['again']:,} of them twice" if found["again"] else "")
        + (f"; left out: {left}" if left else ""),
    ]
    for one in found["models"]:
        lines.append(
            f"ask      {one['name']} ({one['model']}): {one['calls']:,} calls, about {one['prompt_tokens']:,} tokens in, at most "
            f"{one['most_answer_tokens']:,} out; about ${one['cost_usd']:.4f} ({one['price_source']})"
        )
    lines.append(
        f"cost     about ${found['cost_usd']:.4f} in all; limit ${found['max_cost_usd']:g}"
        + (
            ""
            if found["within_budget"]
            else "  OVER THE BUDGET (max_cost_usd or max_tokens): the proof would stop early"
        )
    )
    for claim in found["claims"]:
        lines += _claim_lines(claim)
    return "\n".join(lines)


def _claim_lines(claim: dict[str, Any]) -> list[str]:
    scale, unit = (100, " points") if claim["unit"] else (1, "")
    needs = f"{claim['items_for_80']:,} items give 80 %" if claim["items_for_80"] else "no number of items gives 80 %"
    judge = f" (judge {claim['judge']})" if claim["judge"] else ""
    at = claim["shown_from"]
    if at is None:
        shown = f"nothing: with {claim['items']:,} items no difference is shown to be within this margin so often"
    elif at <= 0:
        shown = f"a student that is truly no more than {-scale * at:.2g}{unit} worse"
    else:
        shown = f"only a student that is truly {scale * at:.2g}{unit} better"
    return [
        f"claim    {claim['comparison']}{judge}, {claim['metric']}: not worse by {scale * claim['margin']:g}{unit} or more; "
        f"{claim['items']:,} items",
        f"power    {claim['power']:.2f}, assuming {claim['assumption']}; {needs}",
        f"shows    with a chance of {WANTED:.0%}: {shown}",
    ]
