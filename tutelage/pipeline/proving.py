"""`tutelage prove`: the claims, then the answers, then what they show. Terms, items, prove, report."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tutelage.canon import canonical, decimals, digest_of
from tutelage.collect.items import Item, words_of
from tutelage.energy import counters
from tutelage.errors import DataError
from tutelage.jsonl import write_lines, write_pretty, write_whole
from tutelage.pipeline.asking_judges import ask_judge, items_of, judge_label, kin_of, pairs_of
from tutelage.pipeline.asking_systems import Asker, Said, Turn, ask_open
from tutelage.pipeline.asking_texts import ask_texts
from tutelage.pipeline.commit import commit_exchanges
from tutelage.pipeline.forms import system_label, weights_digest
from tutelage.pipeline.gate_proof import ProofGate, may_prove
from tutelage.pipeline.making import made_in
from tutelage.pipeline.naming import named
from tutelage.pipeline.proof_cost import expected_calls
from tutelage.pipeline.proof_evidence import assemble_proof, write_page
from tutelage.pipeline.proof_opening import Looked, Work, claim_sessions, opened_proof
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.session import budget_of, today
from tutelage.proof_config import ProofConfig
from tutelage.prove.answers import Answered, Scored, asked_twice
from tutelage.prove.artefact import CHECKPOINT, against_checkpoint, read_otherwise
from tutelage.prove.judged import judge_rows
from tutelage.prove.lengths import length_row
from tutelage.prove.measure import (
    Bench,
    Proof,
    Scores,
    ceiling,
    claim_rows,
    controls,
    disagreements,
    gap,
    score_all,
    system_row,
)
from tutelage.prove.open_claims import assumption
from tutelage.prove.preferences import preferences_of
from tutelage.prove.shown import SYSTEMS
from tutelage.prove.tasks.base import Answer
from tutelage.prove.teacher_text import item_rows, text_evidence
from tutelage.records import NUSD_PER_USD, Exchange, Role
from tutelage.terms.check import require

ITEMS = Path("data") / "items.jsonl"
COUNTED = ("items", "with_gold", "preferred", "trained_on", "gold_warnings")  # facts of the items that the page tells
OUTPUTS = ("prove/scores.jsonl", "prove/exchanges.jsonl", "prove/results.json")
TEXTS = "prove/teacher_text.jsonl"
PAGE = "report.html"


class Proved(NamedTuple):
    """What `tutelage prove` says: each claim as in evidence.json, the controls that were missing, the money spent, and how often
    a proof was begun in its folder."""

    claims: list[dict[str, Any]]
    systems: list[dict[str, Any]]
    missing_controls: list[str]
    spent_usd: float
    page: str
    proofs: int


def prove(config: ProofConfig, run: Run, looked: Looked) -> Proved:
    """Runs every stage that is not done; `looked` is what `look` found of this configuration. Raises what the stages raise; what
    was answered is kept."""
    work = opened_proof(config, run, looked)
    gate = _check(work)
    items = _items(work)
    proved = _prove(work, gate, items)
    evidence = _report(work, gate, items, proved)
    return Proved(
        evidence["claims"], evidence["systems"], evidence["missing_controls"], evidence["cost"]["spent_usd"],
        str(run.folder / PAGE), evidence["looks"]["proofs"],
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
        preferences = work.people.preferences
        bad = [row.line for row in work.items.bad]
        return {
            "items": len(work.items.items),
            "with_gold": with_gold,
            "preferred": len(preferences.decided) if preferences else 0,
            "repeated": work.items.repeated,
            "bad_rows": bad,
            "trained_on": work.trained_on,
            "gold_warnings": list(work.people.warnings),
        }

    table = work.config.items.model_dump(mode="json", exclude={"path", "gold_file", "seen", "accepted_risk"})
    inputs = {"file": work.items.digest, "seen": work.seen} | (
        {"gold": work.people.digest} if work.people.digest else {}
    )
    return work.run.stage("items", 2, table, inputs, (ITEMS.as_posix(),), stage)


def _item_row(item: Item) -> dict[str, Any]:
    return {**item.question.to_json(), "gold": item.gold}


def _prove(work: Work, gate: ProofGate, items: Done) -> Done:
    """The prove stage: every model answers through its endpoint, every answer is scored, every claim judged."""
    config, run = work.config, work.run

    def stage(scratch: Path) -> Facts:
        asker = Asker(run, budget_of(config.budget, run.store), _standing(gate), work.purpose, config.run.seed)
        _tell_cost(work)
        systems, said, at = {}, dict[str, Said](), _asked_again(work)
        again: dict[int, Answer | None] = {}
        for name, table in config.systems.items():
            turns = [Turn(name, work.questions)]
            if name == "teacher" and at:
                turns.append(Turn("teacher again", [work.questions[item] for item in at], [1] * len(at)))
            with named(f"systems.{name}"):
                said[name], *more = ask_open(asker, table, turns, config.sampling, Role.EVALUATION)
            for one in more:
                said["teacher again"] = one  # a name that no system can have
                again = {item: _answer(exchange) for item, exchange in zip(at, one.exchanges, strict=True)}
            systems[name] = _answered(name, system_label(table), said[name])
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
        texts = None
        if work.readers:
            texts = ask_texts(asker, config, work.readers, work.questions, said["teacher"].exchanges)
            names = [question.prompt_id for question in work.questions]
            write_lines(run.folder / TEXTS, item_rows(texts.texts, names))
        proof = replace(proof, bench=bench, texts=texts.texts if texts else None)
        results = _results(work, proof, scores) | {
            "lengths": [length_row(name, said[name].exchanges) for name in systems],
            "energy": {"told": bool(counters().counters), "counted": counters().words()},
        }
        if (checkpoint := results["checkpoint"]) is not None:
            checkpoint["prompts_differ"] = read_otherwise(said["student"].exchanges, said[CHECKPOINT].exchanges)
        weights = {name: dict(said[name].weights) for name in systems if said[name].weights}
        results["weights"] = weights
        rows = [row for one in (*said.values(), *judging, *([texts] if texts else [])) for row in one.rows]
        write_lines(run.folder / "prove" / "scores.jsonl", _score_rows(work, proof, scores))
        write_lines(run.folder / "prove" / "exchanges.jsonl", rows)
        write_pretty(run.folder / "prove" / "results.json", results)
        committed = commit_exchanges(run, "prove", [row["address"] for row in rows])
        verdicts = [claim["verdict"] for claim in results["claims"]]
        return {"verdicts": verdicts, "items": len(work.items.items), "weights": weights, "commitment": committed}

    tables = config.model_dump(mode="json", include={"task", "sampling", "systems", "judges", "claims", "controls"})
    tables |= config.model_dump(mode="json", include={"teacher_text"}, exclude_none=True)
    inputs = {"items": items.outputs_digest, "claims": work.purpose, "terms": _standing(gate)}
    inputs |= {"people": work.people.digest} if work.people.digest else {}
    inputs |= {"seen": work.seen} if work.trained_on else {}
    inputs |= {
        f"weights {name}": weights_digest(Path(table.path)) for name, table in config.systems.items() if table.path
    }
    inputs |= {f"tokenizer {name}": digest_of(one.identity) for name, one in work.readers.items()}
    outputs = (*OUTPUTS, TEXTS) if work.readers else OUTPUTS
    return run.stage("prove", 3, tables | {"seed": config.run.seed}, inputs, outputs, stage)


def _asked_again(work: Work) -> list[int]:
    """Which items the teacher is asked twice: drawn by the run's seed."""
    rng, there = np.random.default_rng(work.config.run.seed), len(work.items.items)
    return sorted(int(at) for at in rng.permutation(there)[: asked_twice(work.task, work.config.controls.again, there)])


def _tell_cost(work: Work) -> None:
    """About what the answers will cost, by the price lists; nothing is said of models that cost nothing."""
    total = sum(one.nusd for one in expected_calls(work.config, work.questions, len(_asked_again(work)), work.readers))
    if total:
        limit = work.config.budget.max_cost_usd
        enough = "" if total <= limit * NUSD_PER_USD else ": it will not do for all of them"
        work.run.progress.say(f"cost: about ${total / NUSD_PER_USD:.4f}; limit ${limit:g}{enough}")


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
        energy_j=said.energy_j,
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
    for row, planned, claim in zip(rows, work.planned, work.config.claims, strict=True):
        row |= {
            "power": planned.power, "items_for_80": planned.needed, "declared_at": planned.claim.declared_on,
            "digest": planned.claim.digest,
            "power_assumption": assumption(
                claim, planned.claim.planned_n, claim_sessions(claim, work.items), len(work.planned)
            ),
        }  # fmt: skip
    return {
        "claims": rows,
        "systems": [system_row(proof, scores, name) for name in proof.systems],
        "ceiling": ceiling(proof, scores),
        "gap": gap(proof, scores),
        "checkpoint": against_checkpoint(proof, scores, work.config.sampling.temperature),
        "controls": held,
        "missing_controls": missing,
        "judges": judge_rows(proof, work.config.claims, rows),
        "teacher_text": text_evidence(proof.texts, proof.level, proof.seed) if proof.texts else None,
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


def _report(work: Work, gate: ProofGate, items: Done, proved: Done) -> dict[str, Any]:
    """`evidence.json` and the page; computes no statistic."""
    run = work.run
    made = made_in(work.config.systems["student"].path, work.config.items.seen)

    def stage(scratch: Path) -> Facts:
        evidence = assemble_proof(work.config, run, gate, work.task, items.facts, made)
        write_pretty(run.folder / "evidence.json", evidence)
        return {}

    inputs = {
        "prove": proved.outputs_digest,
        "counted": digest_of({name: value for name, value in items.facts.items() if name in COUNTED}),
        "terms": gate.together.digest,
        "made": digest_of(decimals(made._asdict())),
    }
    said = work.config.model_dump(mode="json", include={"run": True, "items": {"gold_by"}})
    signer = run.signer.verification_key if run.signer else ""
    run.stage("report", 2, said | {"signer": signer}, inputs, ("evidence.json",), stage)
    return write_page(run.folder, PAGE)
