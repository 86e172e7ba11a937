"""From the answers of compared teachers to `comparison.json`: accuracy, order, price, speed, supervision, terms.

Shape legend: N items, K calibration items, L labels.
"""

import json
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.compare_config import CompareConfig
from tutelage.config import TaskTable
from tutelage.errors import DataError
from tutelage.jsonl import read_lines, write_pretty
from tutelage.pipeline.comparing_items import COMPARED, EXCHANGES, GOLD, RESULT, Candidate, Item, read_items
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.run import Facts, Run
from tutelage.prove.observe import fix_offsets
from tutelage.prove.teachers import (
    Choice,
    Offer,
    Pair,
    Ranking,
    accuracy_interval,
    choose,
    items_to_order,
    items_within,
    rank,
)
from tutelage.records import NUSD_PER_USD, Exchange
from tutelage.stats.exact import paired_difference
from tutelage.stats.interval import Interval
from tutelage.stats.labels import decide
from tutelage.stats.paired import PairedTable
from tutelage.store.store import Store
from tutelage.tasks import LabelReading, read_or_nothing
from tutelage.terms.check import cited

RULES = ("argmax", "balanced")


class Answered(NamedTuple):
    """One candidate's answers: label log-probabilities, whether a label could be read, and the exchanges there are."""

    logp_NL: NDArray[np.float64]
    read_N: NDArray[np.bool_]
    calibration_KL: NDArray[np.float64]  # of those calibration items in whose answer a label could be read
    exchanges: tuple[Exchange, ...]  # of the compared items


def write_result(config: CompareConfig, run: Run, candidates: list[Candidate], facts: Facts) -> Facts:
    """Writes `comparison.json`; returns what the log keeps of it."""
    items = read_items(run.folder)
    gold = json.loads((run.folder / GOLD).read_bytes())
    labels = list(config.task.labels)
    gold_N = np.array([labels.index(gold[item.prompt.prompt_id]) for item in items if item.kind == COMPARED])
    addresses: dict[str, dict[str, str]] = {}
    for row in read_lines(run.folder / EXCHANGES):
        addresses.setdefault(row["teacher"], {})[row["prompt"]] = row["address"]
    rows, right, offers = [], {}, {}
    for one in candidates:
        row = _terms_of(one)
        if one.name in facts["candidates"]:
            task = config.task_of(one.name)
            said = _answered(run.store, task, one, items, addresses.get(one.name, {}))
            by_rule = {rule: _right(task, rule, said, gold_N) for rule in RULES}
            right[one.name] = _ranked(one.name, task.decision, by_rule)
            row |= _measured(one, task, said, by_rule, facts["candidates"][one.name], config.ranking.level)
            offers[one.name] = Offer(row["usd_per_thousand"], "top-logprobs" in row["offers"])
        rows.append(row)
    names = list(right)
    ranking = rank(names, np.stack([right[name] for name in names]), config.ranking.margin, config.ranking.level)
    choice = choose(ranking, offers)
    found = {
        "name": config.run.name,
        "purpose": config.run.purpose,
        "labels": labels,
        "items": len(gold_N),
        "gold": {label: int((gold_N == at).sum()) for at, label in enumerate(labels)},
        "calibration_items": config.data.calibration,
        "level": config.ranking.level,
        "margin": config.ranking.margin,
        "candidates": _in_order(rows, ranking),
        "pairs": [_pair(pair) for pair in ranking.pairs],
        "verdict": _verdict(ranking, choice, config),
        "spent_usd": facts["settled_nusd"] / NUSD_PER_USD,
    }
    write_pretty(run.folder / RESULT, found)
    return {
        "recommended": choice.name,
        "is_shown": choice.is_shown,
        "is_decided": ranking.is_decided,
        "leaders": list(ranking.leaders),
    }


def _answered(
    store: Store, task: TaskTable, one: Candidate, items: list[Item], addresses: Mapping[str, str]
) -> Answered:
    """A question that was refused counts as answered with no label: wrong."""
    readings: dict[str, list[LabelReading]] = {}
    exchanges = []
    for item in items:
        address = addresses.get(item.prompt.prompt_id)
        exchange = store.get(address) if address else None
        if exchange is not None and item.kind == COMPARED:
            exchanges.append(exchange)
        readings.setdefault(item.kind, []).append(read_or_nothing(task, exchange, one.table.signal))
    compared = readings.pop(COMPARED)
    tuned = [reading.logp_L for group in readings.values() for reading in group if reading.mass > 0]
    return Answered(
        np.array([reading.logp_L for reading in compared]),
        np.array([reading.mass > 0 for reading in compared]),
        np.array(tuned).reshape(len(tuned), len(task.labels)),
        tuple(exchanges),
    )


def _right(task: TaskTable, rule: str, said: Answered, gold_N: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Which items are right under a decision rule; None where the rule has nothing to be fixed on."""
    offsets_L = np.zeros(len(task.labels))
    if rule == "balanced":
        if not len(said.calibration_KL):
            return None
        offsets_L = fix_offsets(task.model_copy(update={"decision": "balanced"}), said.calibration_KL)
    return said.read_N & (decide(said.logp_NL, offsets_L) == gold_N)


def _ranked(name: str, rule: str, by_rule: Mapping[str, NDArray[np.bool_] | None]) -> NDArray[np.bool_]:
    """Which items are right under the candidate's own rule."""
    right_N = by_rule[rule]
    if right_N is None:
        raise DataError(
            f"teachers.{name}: decision = {rule!r}, and none of its calibration answers holds a label that can be read",
            fix=f'look at its answers in the store, or set teachers.{name}.decision = "argmax"; what was answered is kept',
        )
    return right_N


def _terms_of(one: Candidate) -> dict[str, Any]:
    verdict = one.permission.together
    conditions = list(dict.fromkeys(condition.words for condition in verdict.conditions))
    return {
        "name": one.name,
        "teacher": teacher_name(one.table),
        "is_permitted": verdict.permits,
        "terms": str(verdict.status),
        "terms_say": cited(verdict.decisive),
        "conditions": conditions,
    }


def _measured(
    one: Candidate, task: TaskTable, said: Answered, by_rule: Mapping[str, NDArray[np.bool_] | None],
    facts: Mapping[str, Any], level: float,
) -> dict[str, Any]:  # fmt: skip
    """One candidate's figures, whatever the others are."""
    costs = [exchange.price.cost_nusd for exchange in said.exchanges]
    took_ms = [exchange.latency_ms for exchange in said.exchanges]
    is_timed = bool(took_ms) and not one.table.batch and sum(took_ms) > 0
    entries = [len(exchange.logprobs[0].top) for exchange in said.exchanges if exchange.logprobs]
    shown = one.table.signal == "top-logprobs" and bool(entries)
    offers = list(dict.fromkeys([*facts["supervision"]["offered"], *(["top-logprobs"] if shown else []), "text"]))
    tokens = [exchange.usage.prompt_tokens + exchange.usage.completion_tokens for exchange in said.exchanges]
    return {
        "decision": task.decision,
        "by_decision": {rule: _accuracy(right, level) for rule, right in by_rule.items() if right is not None},
        "calibration_gain": _gain(by_rule["balanced"], by_rule["argmax"], level),
        "unread": int((~said.read_N).sum()),
        "usd_per_thousand": 1000 * sum(costs) / NUSD_PER_USD / max(1, len(costs)),
        "price_source": facts["price_source"],
        "tokens_per_question": sum(tokens) / max(1, len(tokens)),
        "median_ms": statistics.median(took_ms) if is_timed else None,
        "questions_per_s": 1000 * one.table.concurrency * len(took_ms) / sum(took_ms) if is_timed else None,
        "concurrency": one.table.concurrency,
        "offers": offers,
        "candidates_revealed": min(entries) if entries else 0,
        "supervision": facts["supervision"]["words"],
        "refused": facts["refused"],
    }


def _accuracy(right_N: NDArray[np.bool_], level: float) -> dict[str, Any]:
    interval = accuracy_interval(int(right_N.sum()), right_N.size, level)
    return {"accuracy": float(right_N.mean()), "right": int(right_N.sum()), **_limits(interval)}


def _gain(
    balanced_N: NDArray[np.bool_] | None, argmax_N: NDArray[np.bool_] | None, level: float
) -> dict[str, Any] | None:
    """What the offsets change in accuracy, paired by item; an interval of its own, no part of the ranking's."""
    if balanced_N is None or argmax_N is None:
        return None
    table = PairedTable.from_correct(balanced_N, argmax_N)
    return {"difference": table.difference, **_limits(paired_difference(table, level))}


def _in_order(rows: list[dict[str, Any]], ranking: Ranking) -> list[dict[str, Any]]:
    """The ranked ones by accuracy, then those that were not asked."""
    known = {row["name"]: row for row in rows}
    ranked = [
        known[place.name]
        | {
            "accuracy": place.accuracy,
            **_limits(place.interval),
            "tier": place.tier,
            "ranks": [place.best_rank, place.worst_rank],
            "is_within_margin": place.is_within,
        }
        for place in ranking.places
    ]
    placed = {place.name for place in ranking.places}
    return [*ranked, *(row for row in rows if row["name"] not in placed)]


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "first": pair.first,
        "second": pair.second,
        "difference": pair.difference,
        "discordance": pair.discordance,
        **_limits(pair.interval),
        "p_holm": pair.p,
        "is_decided": pair.is_decided,
        "low_at_once": pair.at_once.low,
        "high_at_once": pair.at_once.high,
        "level_at_once": pair.at_once.level,
    }


def _limits(interval: Interval) -> dict[str, Any]:
    return {"low": interval.low, "high": interval.high, "level": interval.level, "method": interval.method}


def _verdict(ranking: Ranking, choice: Choice, config: CompareConfig) -> dict[str, Any]:
    """The choice, what is open, and how many items would decide between the first two."""
    top = ranking.pairs[0] if ranking.pairs else None
    is_open = top is not None and not top.is_decided
    power, margin = config.ranking.power, config.ranking.margin
    return {
        "recommended": choice.name,
        "is_shown": choice.is_shown,
        "why": choice.why,
        "is_decided": ranking.is_decided,
        "leaders": list(ranking.leaders),
        "open_pairs": sum(not pair.is_decided for pair in ranking.pairs),
        "power": power,
        "items_to_order_top_two": items_to_order(top, power) if top is not None and is_open else None,
        "items_to_show_within_margin": items_within(top, margin, power) if top is not None and is_open else None,
    }
