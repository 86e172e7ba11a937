"""Comparing teachers: terms, questions, answers of every candidate that may be asked, ranking, in a folder of their own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.canon import canonical, digest_bytes, digest_file
from tutelage.compare_config import CompareConfig
from tutelage.errors import ConfigError, PartialError, SignalError, TeacherError, TermsError
from tutelage.jsonl import pretty, write_lines, write_whole
from tutelage.models.budget import Budget
from tutelage.models.exchange import Terms
from tutelage.models.questions import ask_all, exchange_rows, label_params, label_request
from tutelage.pipeline.commit import commit_exchanges
from tutelage.pipeline.comparing_items import COMPARED, EXCHANGES, RESULT, Candidate, Item, make_questions, read_items
from tutelage.pipeline.comparing_result import write_result
from tutelage.pipeline.estimate import tokens_of
from tutelage.pipeline.gate import Permission, judge_teacher, lineages_of, risk_of, teacher_name
from tutelage.pipeline.naming import named
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.serving import remote, serve_teacher, weights_in
from tutelage.pipeline.session import asking, budget_of, today
from tutelage.pipeline.supervision import Probing, prices_of, supervision_of
from tutelage.records import NUSD_PER_USD, Message, Prompt, Role, Usage
from tutelage.resources import resource
from tutelage.tasks import teacher_messages
from tutelage.terms.check import check, cited, combine, require, way_out
from tutelage.terms.lineage import Tie, inherited
from tutelage.terms.model import Verdict
from tutelage.terms.registry import load_registry

PURPOSE = "compare"  # the namespace of these answers: none is trained on, and a later run asks its own
_ASKED = {"resource", "url", "api", "model", "provider", "licence", "signal", "top_logprobs"}


def compare(config: CompareConfig, run: Run, probing: Probing = Probing.FREE) -> dict[str, Any]:
    """Asks every permitted candidate what is not answered yet; returns what `comparison.json` holds.

    Raises `TermsError` when no candidate may be asked, `PartialError` when one could not be asked to the end, and what
    the stages raise; in each case what was answered is kept.
    """
    _open(config, run)
    candidates = _check(config, run)
    permitted = [one for one in candidates if one.permission.together.permits]
    _require_apart(permitted)
    questions = make_questions(config, run)
    collected = _ask(config, run, permitted, questions, probing)

    def work(scratch: Path) -> Facts:
        return write_result(config, run, candidates, collected.facts)

    settings = {
        "ranking": config.ranking.model_dump(mode="json"),
        "tasks": {one.name: config.task_of(one.name).model_dump(mode="json") for one in candidates},
    }
    standings = {f"terms of {one.name}": one.permission.standing for one in candidates}
    inputs = {"collect": collected.outputs_digest, "questions": questions.outputs_digest, **standings}
    run.stage("compare", 1, settings, inputs, (RESULT,), work)
    found: dict[str, Any] = json.loads((run.folder / RESULT).read_bytes())
    return found


def _open(config: CompareConfig, run: Run) -> None:
    """The configuration and the rule of the comparison into the log, before anybody is asked. A record does not tell where
    things lie on somebody's disk."""
    resolved = config.resolved()
    tables = [(resolved["data"], "path"), *((one, key) for one in resolved["teachers"].values()
                                            for key in ("path", "prices", "lineage"))]  # fmt: skip
    for table, key in tables:
        table[key] = Path(table[key]).name if table[key] else None
    file = pretty(resolved)
    comparison = {
        "margin_ppm": round(1e6 * config.ranking.margin),
        "level_ppm": round(1e6 * config.ranking.level),
        "items": config.data.items,
        "candidates": list(config.teachers),
    }
    digest = digest_bytes(file)
    opened = {"origin": run.log.origin, "name": config.run.name, "seed": config.run.seed, "config": digest}
    run.opened({**opened, "comparison": comparison}, "compare-teachers")
    write_whole(run.folder / "config.json", file)


def judge(config: CompareConfig, day: str) -> list[Candidate]:
    """The verdict on each candidate with the data and its own ancestors. Raises `ConfigError` and `DataError` as
    `pipeline.gate.may_ask` does."""
    registry, purpose, table = load_registry(), config.run.purpose, config.data
    pinned = resource(table.resource) if table.resource else None
    data = check(
        registry,
        subject=pinned.name if pinned else Path(table.path or "").name,
        licence=pinned.licence if pinned else table.licence or "",
        route="local",
        purpose=purpose,
        today=day,
        accepted_risk=risk_of(table.accepted_risk),
    )
    found = []
    for name, teacher in config.teachers.items():
        with named(f"teachers.{name}"):
            verdict = judge_teacher(registry, teacher, purpose, day)
        lineages = lineages_of(teacher.path, teacher.lineage)
        passed_on = tuple(
            dict.fromkeys(one for each in lineages for one in inherited(each, registry, purpose, day, Tie.TEACHER))
        )
        together = combine([verdict, data, *passed_on])
        found.append(Candidate(name, teacher, Permission(verdict, data, passed_on, together)))
    return found


def _check(config: CompareConfig, run: Run) -> list[Candidate]:
    """The terms stage: who may not be learnt from is not asked, and listed with the clause."""
    candidates = judge(config, today())
    require(candidates[0].permission.data)
    verdicts = {one.name: one.permission.to_json() for one in candidates}
    digest = digest_bytes(canonical(verdicts)).removeprefix("sha256:")[:12]
    name = f"terms/{today()}-{digest}.json"

    def work(scratch: Path) -> Facts:
        write_whole(run.folder / name, canonical(verdicts) + b"\n")
        return {"status": {one.name: str(one.permission.together.status) for one in candidates}}

    settings = {"purpose": config.run.purpose, "date": today(), "teachers": [one.name for one in candidates]}
    run.stage("terms", 1, settings, {f"registry of {o.name}": o.permission.standing for o in candidates}, (name,), work)
    for one in candidates:
        verdict: Verdict = one.permission.together
        run.progress.say(f"terms: {one.name}: {verdict.status} for {config.run.purpose}"
                         + ("" if verdict.permits else f"; it is not asked: {cited(verdict.decisive)}"))  # fmt: skip
    warned: dict[str, list[str]] = {}
    for one in candidates:
        for warning in one.permission.together.warnings:
            warned.setdefault(warning, []).append(one.name)
    for warning, names in warned.items():
        run.progress.say(f"terms: warning: {', '.join(names)}: {warning}")
    if not any(one.permission.together.permits for one in candidates):
        raise TermsError(
            f"none of the {len(candidates)} candidates may be asked for {config.run.purpose}: "
            + "; ".join(f"{one.name}: {cited(one.permission.together.decisive)}" for one in candidates),
            fix=way_out(candidates[0].permission.together),
        )
    return candidates


def _require_apart(candidates: list[Candidate]) -> None:
    """An answer's name holds the model and the route, not the address: two addresses must not share one name."""
    seen: dict[tuple[str, str], Candidate] = {}
    for one in candidates:
        if one.table.url is None:
            continue
        endpoint = remote(one.table)
        other = seen.setdefault((endpoint.route, endpoint.model), one)
        if (other.table.url or "").rstrip("/") != endpoint.base_url:
            raise ConfigError(
                f"teachers.{other.name} and teachers.{one.name} are {endpoint.model!r} at {endpoint.route}, at two addresses",
                fix="give each a provider of its own, or compare them in two folders",
            )


def _ask(
    config: CompareConfig, run: Run, candidates: list[Candidate], questions: Done, probing: Probing
) -> Done:  # fmt: skip
    """The collect stage: every item to every permitted candidate, one candidate after another. One that fails does not
    keep the others from being asked."""

    def work(scratch: Path) -> Facts:
        items = read_items(run.folder)
        _say_cost(config, run, candidates, items)
        budget = budget_of(config.budget, run.store)
        known: dict[str, Any] = {}
        rows: list[dict[str, str]] = []
        failed: dict[str, str] = {}
        for one in candidates:
            try:
                with named(f"teachers.{one.name}"):
                    facts, answered = _ask_one(config, run, one, _of_candidate(items, one), budget, probing)
            except (TeacherError, SignalError, PartialError) as error:
                failed[one.name] = error.message
                run.progress.say(f"{one.name}: {error.message}")
                continue
            known[one.name] = facts
            rows += answered
        if failed:
            raise PartialError(
                f"{len(failed)} of {len(candidates)} candidates gave no answer to all questions: "
                + "; ".join(f"{name}: {why}" for name, why in failed.items()),
                fix="mend it and run the same command again, or delete its table [teachers.NAME]; all answers are kept",
            )
        write_lines(run.folder / EXCHANGES, rows)
        return {
            "candidates": known,
            "answered": len(rows),
            "commitment": commit_exchanges(run, "collect", [row["address"] for row in rows]),
            **run.store.spent()._asdict(),
        }

    settings = {
        one.name: {
            "teacher": one.table.model_dump(mode="json", include=_ASKED),
            "task": config.task_of(one.name).model_dump(mode="json", exclude={"decision", "shares"}),
        }
        for one in candidates
    }
    inputs = {"questions": questions.outputs_digest}
    for one in candidates:
        inputs[f"terms of {one.name}"] = one.permission.standing
        if one.table.path is not None:
            inputs[f"weights of {one.name}"] = digest_file(weights_in(Path(one.table.path)))
    return run.stage("collect", 1, settings, inputs, (EXCHANGES.as_posix(),), work)


def _of_candidate(items: list[Item], one: Candidate) -> list[Item]:
    """Offsets are fixed on label probabilities: who answers in words alone is not asked the calibration items."""
    return items if one.table.signal == "top-logprobs" else [item for item in items if item.kind == COMPARED]


def _ask_one(
    config: CompareConfig, run: Run, one: Candidate, items: list[Item], budget: Budget, probing: Probing
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """What is known of one candidate, and which exchange answers which item."""
    task, teacher = config.task_of(one.name), one.table
    supervision = supervision_of(teacher, today(), probing)
    with serve_teacher(teacher, run.folder / "logs" / one.name) as served:
        how = asking(run, served, teacher, Terms(one.permission.standing, Role.EVALUATION), budget, config.run.seed)
        params = label_params(teacher, task)
        requests = [
            label_request(how.model.endpoint, teacher_messages(task, item.prompt.text), params, PURPOSE)
            for item in items
        ]
        ask_all(how, requests, teacher.concurrency, f"asking {one.name}")
        prompts: list[Prompt] = [item.prompt for item in items]
        kinds = {item.prompt.prompt_id: item.kind for item in items}
        rows = [
            {"teacher": one.name, "kind": kinds[row["prompt"]], **row} for row in exchange_rows(how, prompts, requests)
        ]
        facts = {
            "teacher": teacher_name(teacher),
            "route": how.model.endpoint.route,
            "price_source": how.prices.source,
            "supervision": {"words": _supervision_words(supervision), "offered": supervision["offered"]},
            "refused": len(items) - len(rows),
            "weights": dict(served.weights),
        }
    return facts, rows


def _supervision_words(supervision: dict[str, Any]) -> str:
    words: str = supervision["words"]
    return "not probed: run with --probe" if words.startswith("not probed") else words


def _say_cost(config: CompareConfig, run: Run, candidates: list[Candidate], items: list[Item]) -> None:
    """What it will come to, before anybody is asked. Raises `ConfigError` when nobody knows what one costs."""
    expected, asked = 0, set[tuple[Any, ...]]()
    for one in candidates:
        with named(f"teachers.{one.name}"):
            prices = prices_of(one.table)
        for messages in _conversations(config, one, items):
            question = (one.table.resource, one.table.path, one.table.url, one.table.model, messages)
            answer = 1 if one.table.signal == "top-logprobs" else 4
            expected += 0 if question in asked else prices.of(Usage(tokens_of(messages), 0, answer)).cost_nusd
            asked.add(question)
    if expected:
        over = "" if expected <= config.budget.max_cost_usd * NUSD_PER_USD else ": it will not do for all of them"
        run.progress.say(
            f"cost: about ${expected / NUSD_PER_USD:.4f} for all; limit ${config.budget.max_cost_usd:g}{over}"
        )


def _conversations(config: CompareConfig, one: Candidate, items: list[Item]) -> Iterator[tuple[Message, ...]]:
    task = config.task_of(one.name)
    return (teacher_messages(task, item.prompt.text) for item in _of_candidate(items, one))
