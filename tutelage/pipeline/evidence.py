"""The stages that prove and report: ask every system, judge the claim, name the missing controls, write the page."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.config import RunConfig
from tutelage.jsonl import write_lines, write_pretty
from tutelage.pipeline.assemble import assemble
from tutelage.pipeline.commit import commit_exchanges
from tutelage.pipeline.controls import checkpoint_logp
from tutelage.pipeline.gate import Gate
from tutelage.pipeline.held_out import read_gold, require_gold
from tutelage.pipeline.run import Done, Facts
from tutelage.pipeline.session import Session
from tutelage.pipeline.systems import (
    PLAINLY,
    PRUNED,
    SHIPPED,
    Again,
    Asked,
    ask_student,
    ask_teacher,
    cheap_controls,
    some_of,
    tokens_kept,
)
from tutelage.prompts import Prompts
from tutelage.prove.controls import ceiling, held_against, same_artefact
from tutelage.prove.results import UNREAD, System, describe, disagreements, judge
from tutelage.records import Claim

PAGE = "report.html"
OUTPUTS = ("prove/scores.jsonl", "prove/exchanges.jsonl", "prove/results.json")


class Inputs(NamedTuple):
    """The stages a proof rests on; `plain` is None where the control is turned off."""

    data: Done
    curated: Done
    trained: Done
    shipped: Done
    before: Done
    plain: Done | None


def prove(arc: Session, gate: Gate, claim: Claim, made: Inputs) -> Done:
    """Every system answers the held-out prompts through its endpoint, in the claim's own namespace."""
    run, config = arc.run, arc.config

    def work(scratch: Path) -> Facts:
        prompts, gold = read_gold(run.folder)
        unseen = require_gold(config, prompts, gold)
        labels = list(config.task.labels)
        gold_N = np.array([labels.index(gold[prompt.prompt_id]) for prompt in prompts.held_out])
        meters = run.folder / "work" / "meters"
        teacher, again = ask_teacher(arc, gate, claim, prompts, meters)
        student, *others = (
            ask_student(arc, gate, claim, prompts, which, done, meters)
            for which, done in ((SHIPPED, made.shipped), (PLAINLY, made.plain), (PRUNED, made.before))
            if done is not None
        )
        systems = [one.system for one in (teacher, student, *others)] + cheap_controls(arc, prompts)
        results = _judged(config, systems, gold_N) | _beside(arc, prompts, teacher, student, again)
        results["controls"] = held_against(
            results["claim"], [one.role for one in systems], results["ceiling"], results["checkpoint"]
        )
        missing = [control["words"] for control in results["controls"] if not control["there"]]
        results["claim"]["missing_controls"] = results["missing_controls"] = missing
        results |= {
            "unseen": unseen,
            "disagreements": disagreements(prompts.held_out, labels, gold_N, teacher.system, student.system),
            "tokens_per_question": {name: tokens_kept(meters, name) for name in ("teacher", "student")},
        }
        write_lines(run.folder / "prove" / "scores.jsonl", _scores(prompts, gold_N, systems, labels, again))
        rows = [row for one in (teacher, student, *others) for row in one.rows] + list(again.rows if again else ())
        write_lines(run.folder / "prove" / "exchanges.jsonl", rows)
        write_pretty(run.folder / "prove" / "results.json", results)
        committed = commit_exchanges(run, "prove", [row["address"] for row in rows])
        verdict = results["claim"]["verdict"]
        return {"verdict": verdict, "missing_controls": missing, "items": len(gold_N), "commitment": committed}

    inputs = {
        "claim": claim.digest,
        "data": made.data.outputs_digest,
        "curate": made.curated.outputs_digest,
        "student": made.shipped.outputs_digest,
        "before": made.before.outputs_digest,
    }
    if made.plain is not None:
        inputs["plain"] = made.plain.outputs_digest
    if config.controls.checkpoint:
        inputs["train"] = made.trained.outputs_digest
    table = {name: getattr(config, name).model_dump(mode="json") for name in ("task", "claim", "controls")}
    return run.stage("prove", 2, table, inputs, OUTPUTS, work)


def _judged(config: RunConfig, systems: list[System], gold_N: NDArray[np.int64]) -> dict[str, Any]:
    by_role, claim = {one.role: one for one in systems}, config.claim
    teacher, student, before = (by_role[role] for role in ("teacher", "student", "before"))
    rng = np.random.default_rng(config.run.seed)
    return {
        "claim": judge(teacher, student, before, gold_N, claim.margin, claim.level, rng),
        "systems": [describe(one, teacher, gold_N, claim.level) for one in systems],
    }


def _beside(arc: Session, prompts: Prompts, teacher: Asked, student: Asked, again: Again | None) -> dict[str, Any]:
    """The teacher against itself, and the training checkpoint against what was shipped and served."""
    config, level = arc.config, arc.config.claim.level
    found = None if again is None else ceiling(teacher.system.decided_N[again.at], again.decided_N, level, again.how)
    artefact = None
    if config.controls.checkpoint:
        at = some_of(len(prompts.held_out), config.controls.checkpoint, config.run.seed)
        arc.run.progress.say(f"prove: the training checkpoint answers {len(at)} items itself")
        scored_NL = checkpoint_logp(arc.folder, config, [prompts.held_out[item].text for item in at])
        artefact = same_artefact(scored_NL, student.answers.logp_NL[at], student.offsets_L, level)
    return {"ceiling": found, "checkpoint": artefact}


def report(arc: Session, gate: Gate, claim: Claim, proved: Done) -> Done:
    """`evidence.json` and `report.html`, from the log and the results; computes no statistic."""
    run = arc.run

    def work(scratch: Path) -> Facts:
        from tutelage.report.build import write_report

        found = assemble(arc, gate, claim)
        write_pretty(run.folder / "evidence.json", found)
        write_report(run.folder / "evidence.json", run.folder / PAGE)
        return {}

    inputs = {"prove": proved.outputs_digest, "claim": claim.digest, "risks": gate.risks}
    done = run.stage("report", 2, {}, inputs, ("evidence.json",), work)
    page = run.folder / PAGE
    if not page.exists():  # how it looks is no part of the record: it can be made again at any time
        from tutelage.report.build import write_report

        write_report(run.folder / "evidence.json", page)
    return done


def _scores(
    prompts: Prompts, gold_N: NDArray[np.int64], systems: list[System], labels: list[str], again: Again | None
) -> Any:
    """One row a held-out item: what each system decided, and the teacher when asked again."""
    named = [*labels, UNREAD]
    second = {} if again is None else dict(zip(again.at.tolist(), again.decided_N.tolist(), strict=True))
    for at, prompt in enumerate(prompts.held_out):
        decided = {one.role: named[one.decided_N[at]] for one in systems}
        if at in second:
            decided["teacher again"] = named[second[at]]
        yield {"prompt": prompt.prompt_id, "gold": labels[gold_N[at]], "decided": decided}
