"""`tutelage prove`: the claims, then the answers, then what they show. Terms, items, prove, report."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tutelage.canon import canonical, digest_of
from tutelage.collect.items import Item, words_of
from tutelage.config import TeacherTable
from tutelage.errors import DataError
from tutelage.jsonl import write_lines, write_pretty, write_whole
from tutelage.pipeline.asking_judges import ask_judge, items_of, judge_label, kin_of, pairs_of
from tutelage.pipeline.asking_systems import Asker, Said, ask_open
from tutelage.pipeline.commit import commit_exchanges
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.gate_proof import ProofGate, may_prove
from tutelage.pipeline.proof_evidence import assemble_proof, write_page
from tutelage.pipeline.proof_opening import Looked, Work, opened_proof
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.serving import remote
from tutelage.pipeline.session import budget_of, today
from tutelage.pipeline.supervision import prices_of
from tutelage.proof_config import ProofConfig
from tutelage.prove.answers import Answered, Scored
from tutelage.prove.measure import (
    Bench,
    Proof,
    Scores,
    ceiling,
    claim_rows,
    controls,
    disagreements,
    gap,
    judge_rows,
    score_all,
    system_row,
)
from tutelage.prove.preferences import preferences_of
from tutelage.prove.shown import SYSTEMS
from tutelage.prove.tasks.base import Answer
from tutelage.records import NUSD_PER_USD, Exchange, Role, Usage
from tutelage.terms.check import require

ITEMS = Path("data") / "items.jsonl"
OUTPUTS = ("prove/scores.jsonl", "prove/exchanges.jsonl", "prove/results.json")
PAGE = "report.html"
BYTES_A_TOKEN = 4  # of prose, roughly; for estimates alone
JUDGE_TOKENS = 250  # of what a judge is told beside question and answers


class Proved(NamedTuple):
    """What `tutelage prove` says: each claim as in evidence.json, the controls that were missing, the money spent."""

    claims: list[dict[str, Any]]
    systems: list[dict[str, Any]]
    missing_controls: list[str]
    spent_usd: float
    page: str


def prove(config: ProofConfig, run: Run, looked: Looked) -> Proved:
    """Runs every stage that is not done; `looked` is what `look` found of this configuration. Raises what the stages raise; what
    was answered is kept."""
    work = opened_proof(config, run, looked)
    gate = _check(work)
    items = _items(work)
    proved = _prove(work, gate, items)
    evidence = _report(work, gate, proved)
    return Proved(
        evidence["claims"], evidence["systems"], evidence["missing_controls"], evidence["cost"]["spent_usd"],
        str(run.folder / PAGE),
    )  # fmt: skip


def _check(work: Work) -> ProofGate:
    """The terms stage: nobody is asked before it permits."""
    gate = may_prove(work.config, today())
    require(gate.together)
    name = f"terms/{today()}-{gate.together.digest.removeprefix('sha256:')[:12]}.json"

    def stage(scratch: Path) -> Facts:
        write_whole(work.run.folder / name, canonical(gate.to_json()) + b"\n")
        return {"status": str(gate.together.status), "warnings": list(gate.together.warnings)}

    settings = {"purpose": work.config.run.purpose, "date": today(), "subjects": sorted(gate.judged)}
    done = work.run.stage("terms", 1, settings, {"registry": _standing(gate)}, (name,), stage)
    for warning in done.facts["warnings"]:
        work.run.progress.say(f"terms: warning: {warning}")
    work.run.progress.say(f"terms: {gate.together.status} for {work.config.run.purpose}")
    return gate


def _standing(gate: ProofGate) -> str:
    return digest_of([[reason.entry_digest, str(reason.status)] for reason in gate.together.reasons])


def _items(work: Work) -> Done:
    """The items stage: questions and gold, as they are asked and scored."""

    def stage(scratch: Path) -> Facts:
        write_lines(work.run.folder / ITEMS, [_item_row(item) for item in work.items.items])
        if work.items.bad:
            work.run.progress.say(
                f"items: {len(work.items.bad)} bad rows skipped, the first at line {work.items.bad[0].line}"
            )
        with_gold = sum(bool(item.gold) for item in work.items.items)
        bad = [row.line for row in work.items.bad]
        return {
            "items": len(work.items.items),
            "with_gold": with_gold,
            "repeated": work.items.repeated,
            "bad_rows": bad,
            "trained_on": work.trained_on,
            "gold_warnings": list(work.people.warnings),
        }

    table = work.config.items.model_dump(mode="json", exclude={"path", "gold_file", "seen", "accepted_risk"})
    inputs = {"file": work.items.digest, "seen": work.seen} | (
        {"gold": work.people.digest} if work.people.digest else {}
    )
    return work.run.stage("items", 1, table, inputs, (ITEMS.as_posix(),), stage)


def _item_row(item: Item) -> dict[str, Any]:
    return {**item.question.to_json(), "gold": item.gold}


def _prove(work: Work, gate: ProofGate, items: Done) -> Done:
    """The prove stage: every model answers through its endpoint, every answer is scored, every claim judged."""
    config, run = work.config, work.run

    def stage(scratch: Path) -> Facts:
        asker = Asker(run, budget_of(config.budget, run.store), _standing(gate), work.purpose, config.run.seed)
        _tell_cost(work)
        systems, said = {}, dict[str, Said]()
        for name, table in config.systems.items():
            said[name] = ask_open(asker, name, table, work.questions, config.sampling, Role.EVALUATION)
            systems[name] = _answered(name, teacher_name(table), said[name])
        at = _asked_again(work)
        if at:
            chosen = [work.questions[item] for item in at]
            said["again"] = ask_open(
                asker,
                "teacher again",
                config.systems["teacher"],
                chosen,
                config.sampling,
                Role.EVALUATION,
                [1] * len(at),
            )
        again = (
            {item: _answer(exchange) for item, exchange in zip(at, said["again"].exchanges, strict=True)} if at else {}
        )
        sessions = [item.question.group for item in work.items.items]
        proof = Proof(
            task=work.task,
            gold_N=tuple(item.gold or None for item in work.items.items),
            session_N=np.array(sessions) if all(sessions) else None,
            systems=systems,
            again=again,
            level=config.claims[0].level,
            seed=config.run.seed,
            trained_on=work.trained_on,
        )
        scores = score_all(proof)
        bench, judging = _bench(work, asker, proof, scores)
        proof = replace(proof, bench=bench)
        results = _results(work, proof, scores)
        rows = [row for one in (*said.values(), *judging) for row in one.rows]
        write_lines(run.folder / "prove" / "scores.jsonl", _score_rows(work, proof, scores))
        write_lines(run.folder / "prove" / "exchanges.jsonl", rows)
        write_pretty(run.folder / "prove" / "results.json", results)
        committed = commit_exchanges(run, "prove", [row["address"] for row in rows])
        verdicts = [claim["verdict"] for claim in results["claims"]]
        return {"verdicts": verdicts, "items": len(work.items.items), "commitment": committed}

    tables = config.model_dump(mode="json", include={"task", "sampling", "systems", "judges", "claims", "controls"})
    inputs = {"items": items.outputs_digest, "claims": work.purpose, "terms": _standing(gate)}
    inputs |= {"people": work.people.digest} if work.people.digest else {}
    inputs |= {f"weights {name}": _weights(table.path) for name, table in config.systems.items() if table.path}
    return run.stage("prove", 1, tables | {"seed": config.run.seed}, inputs, OUTPUTS, stage)


def _weights(path: str) -> str:
    """Of every file of a student's folder that changes its answers."""
    from tutelage.pipeline.gate import Base

    found = Base.of(None, path, "own").inputs("weights")
    return digest_of(found)


def _asked_again(work: Work) -> list[int]:
    """Which items the teacher is asked twice: drawn by the run's seed."""
    wanted, there = work.config.controls.again, len(work.items.items)
    rng = np.random.default_rng(work.config.run.seed)
    return sorted(int(at) for at in rng.permutation(there)[: min(wanted, there)])


def _tell_cost(work: Work) -> None:
    """About what the answers will cost, by the price lists; nothing is said of models that cost nothing."""
    config, count = work.config, len(work.questions)
    asked = sum(len(turn.content.encode()) for question in work.questions for turn in question.messages)
    asked += sum(len(question.tools.encode()) + len(question.schema.encode()) for question in work.questions)
    asked_tokens, said_tokens = asked // BYTES_A_TOKEN, config.sampling.max_tokens // 2 * count
    again = min(config.controls.again, count) / count
    total = 0
    for name, table in config.systems.items():
        times = 1 + again if name == "teacher" else 1
        total += _price(table, times * asked_tokens, times * said_tokens)
    for judge in config.judges.values():  # both answers in both orders, or each answer by itself twice
        calls = 2 if judge.form == "pairwise" else 4
        shown = asked_tokens + said_tokens * (2 if judge.form == "pairwise" else 1) + JUDGE_TOKENS * count
        total += _price(judge, calls * shown, calls * judge.max_tokens // 2 * count)
    if total:
        limit = config.budget.max_cost_usd
        enough = "" if total <= limit * NUSD_PER_USD else ": it will not do for all of them"
        work.run.progress.say(f"cost: about ${total / NUSD_PER_USD:.4f}; limit ${limit:g}{enough}")


def _price(table: TeacherTable, prompt_tokens: float, completion_tokens: float) -> int:
    """In nano-USD; 0 for what is served here."""
    if table.url is None:
        return 0
    return prices_of(table, remote(table)).of(Usage(round(prompt_tokens), 0, round(completion_tokens))).cost_nusd


def _answer(exchange: Exchange | None) -> Answer | None:
    return None if exchange is None else Answer(exchange.answer, exchange.tool_calls)


def _answered(name: str, label: str, said: Said) -> Answered:
    """What a system said, and the means of what it took."""
    there = [exchange for exchange in said.exchanges if exchange is not None]
    if not there:
        raise DataError(
            f"{name} refused all {len(said.exchanges)} items", fix="look into store and logs; ask another way"
        )
    each = 1.0 / len(there)
    return Answered(
        role=name,
        label=label,
        answers=tuple(_answer(exchange) for exchange in said.exchanges),
        prompt_tokens=each * sum(exchange.usage.prompt_tokens for exchange in there),
        completion_tokens=each * sum(exchange.usage.completion_tokens for exchange in there),
        cost_nusd=each * sum(exchange.price.cost_nusd for exchange in there),
        latency_s=each * sum(exchange.latency_ms for exchange in there) / 1000,
        cpu_s=said.cpu_s,
        ended=each * sum(exchange.finish_reason != "length" for exchange in there),
    )


def _bench(work: Work, asker: Asker, proof: Proof, scores: Scores) -> tuple[Bench | None, list[Said]]:
    """What every judge called, and what it said; None without judges."""
    tables = work.config.judges
    if not tables:
        return None, []
    student, teacher = proof.systems["student"], proof.systems["teacher"]
    preferred = _preferred(work, proof)
    pairs = pairs_of(work.questions, student.answers, teacher.answers, proof.gold_N)
    found = [ask_judge(asker, name, table, pairs) for name, table in tables.items()]
    gold = (scores.gold["student"], scores.gold["teacher"]) if proof.with_gold_G.size else None
    items = items_of(pairs, gold, preferred)
    named = [replace(calls, name=judge_label(calls.name, tables[calls.name])) for calls, _ in found]
    kin = {judge_label(name, table): kin_of(table, work.config.systems) for name, table in tables.items()}
    return Bench(items, tuple(named), kin), [said for _, said in found]


def _preferred(work: Work, proof: Proof) -> dict[str, float]:
    """What people prefer, by item, held against the answers they were shown."""
    gold = work.people.preferences
    if gold is None:
        return {}
    return preferences_of(gold, work.questions, {name: proof.systems[name].answers for name in SYSTEMS})


def _results(work: Work, proof: Proof, scores: Scores) -> dict[str, Any]:
    """`prove/results.json`."""
    held = controls(proof, scores)
    missing = [row["words"] for row in held if not row["there"]]
    rows = claim_rows(proof, scores, work.config.claims, missing)
    independent = "" if proof.session_N is None else ", if items of a session were independent"
    for row, planned, claim in zip(rows, work.planned, work.config.claims, strict=True):
        row |= {
            "power": planned.power, "items_for_80": planned.needed, "declared_at": planned.claim.declared_on,
            "digest": planned.claim.digest,
            "power_assumption": f"true difference {claim.expected_difference:+.3f}, discordance {claim.expected_discordance}"
            + independent,
        }  # fmt: skip
    return {
        "claims": rows,
        "systems": [system_row(proof, scores, name) for name in proof.systems],
        "ceiling": ceiling(proof, scores),
        "gap": gap(proof, scores),
        "controls": held,
        "missing_controls": missing,
        "judges": judge_rows(proof, work.config.claims),
        "disagreements": disagreements(proof, scores, [words_of(question) for question in work.questions]),
    }


def _score_rows(work: Work, proof: Proof, scores: Scores) -> list[dict[str, Any]]:
    """`prove/scores.jsonl`: every score of every item; null where there is nothing to score against."""
    read = set(scores.read_R.tolist())
    return [
        {
            "item": item.question.prompt_id,
            "session": item.question.group,
            "gold": item.gold or None,
            "scores": {
                name: {
                    "gold_ppm": _ppm(scores.gold[name], at) if item.gold else None,
                    "teacher_ppm": _ppm(scores.teacher[name], at) if name in scores.teacher and at in read else None,
                    "read": scores.gold[name].scores[at].read,
                }
                for name in proof.systems
            },
        }
        for at, item in enumerate(work.items.items)
    ]


def _ppm(found: Scored, at: int) -> int:
    """A score in parts per million: no line of a record holds a float."""
    return round(1e6 * found.scores[at].value)


def _report(work: Work, gate: ProofGate, proved: Done) -> dict[str, Any]:
    """`evidence.json` and the page; computes no statistic."""
    run = work.run

    def stage(scratch: Path) -> Facts:
        write_pretty(run.folder / "evidence.json", assemble_proof(work.config, run, gate, len(work.questions)))
        return {}

    inputs = {"prove": proved.outputs_digest, "terms": gate.together.digest}
    said = work.config.model_dump(mode="json", include={"run": True, "items": {"gold_by"}})
    signer = run.signer.verification_key if run.signer else ""
    run.stage("report", 1, said | {"signer": signer}, inputs, ("evidence.json",), stage)
    return write_page(run.folder, PAGE)
