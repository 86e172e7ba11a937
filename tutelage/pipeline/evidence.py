"""The stages that prove and report: ask teacher, pruned and shipped student, judge the claim, write the page."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tutelage.canon import decimals, digest_of
from tutelage.jsonl import write_lines, write_pretty, write_whole
from tutelage.meter import Meter
from tutelage.models.questions import label_params
from tutelage.pipeline.assemble import assemble
from tutelage.pipeline.commit import commit_exchanges
from tutelage.pipeline.gate import Gate, teacher_name
from tutelage.pipeline.learning import BEFORE, read_selection
from tutelage.pipeline.run import Done, Facts
from tutelage.pipeline.serving import STUDENT_CONCURRENCY, serve_student, serve_teacher
from tutelage.pipeline.session import Session
from tutelage.prompts import Prompts, read_prompts
from tutelage.prove.controls import bag_of_words, majority
from tutelage.prove.observe import Answers, Questions, fix_offsets, observe
from tutelage.prove.results import UNREAD, System, describe, disagreements, judge, system
from tutelage.records import UNATS_PER_NAT, Claim, Role
from tutelage.tasks import read_answer, student_messages, teacher_messages

PAGE = "report.html"
OUTPUTS = ("prove/scores.jsonl", "prove/exchanges.jsonl", "prove/results.json")


class Inputs(NamedTuple):
    """The stages a proof rests on."""

    data: Done
    curated: Done
    shipped: Done
    before: Done


class Asked(NamedTuple):
    """A system that answered through its endpoint, and which exchange answers which prompt."""

    system: System
    rows: tuple[dict[str, str], ...]


def prove(arc: Session, gate: Gate, claim: Claim, made: Inputs) -> Done:
    """Every system answers the held-out prompts through its endpoint, in the claim's own namespace."""
    run, config = arc.run, arc.config

    def work(scratch: Path) -> Facts:
        prompts = read_prompts(run.folder / "data" / "prompts.jsonl")
        gold = json.loads((run.folder / "data" / "gold.json").read_bytes())
        labels = list(config.task.labels)
        gold_N = np.array([labels.index(gold[prompt.prompt_id]) for prompt in prompts.held_out])
        meters = run.folder / "work" / "meters"
        asked = [
            _teacher(arc, gate, claim, prompts, meters),
            _student(arc, gate, claim, prompts, ("student", "student", made.shipped), meters),
            _student(arc, gate, claim, prompts, (BEFORE, "before", made.before), meters),
        ]
        teacher, student, pruned = (one.system for one in asked)
        systems = [teacher, student, pruned, *_controls(arc, prompts)]
        write_lines(run.folder / "prove" / "scores.jsonl", _scores(prompts, gold_N, systems, labels))
        rows = [row for one in asked for row in one.rows]
        write_lines(run.folder / "prove" / "exchanges.jsonl", rows)
        level = config.claim.level
        rng = np.random.default_rng(config.run.seed)
        results = {
            "claim": judge(teacher, student, pruned, gold_N, config.claim.margin, level, rng),
            "systems": [describe(one, teacher, gold_N, level) for one in systems],
            "disagreements": disagreements(prompts.held_out, labels, gold_N, teacher, student),
            "tokens_per_question": {name: _tokens(meters, name) for name in ("teacher", "student")},
        }
        write_pretty(run.folder / "prove" / "results.json", results)
        committed = commit_exchanges(run, "prove", [row["address"] for row in rows])
        return {"verdict": results["claim"]["verdict"], "items": len(gold_N), "commitment": committed}

    inputs = {
        "claim": claim.digest,
        "data": made.data.outputs_digest,
        "curate": made.curated.outputs_digest,
        "student": made.shipped.outputs_digest,
        "before": made.before.outputs_digest,
    }
    table = {"task": config.task.model_dump(mode="json"), "claim": config.claim.model_dump(mode="json")}
    return run.stage("prove", 1, table, inputs, OUTPUTS, work)


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
    done = run.stage("report", 1, {}, inputs, ("evidence.json",), work)
    page = run.folder / PAGE
    if not page.exists():  # how it looks is no part of the record: it can be made again at any time
        from tutelage.report.build import write_report

        write_report(run.folder / "evidence.json", page)
    return done


def _teacher(arc: Session, gate: Gate, claim: Claim, prompts: Prompts, meters: Path) -> Asked:
    config = arc.config
    with serve_teacher(config.teacher, arc.folder) as served:
        how = Questions(
            teacher_messages,
            label_params(config.teacher, config.task),
            config.teacher.signal,
            config.teacher.concurrency,
            served.cpu_s,
        )
        asking = arc.asking(served, gate, Role.EVALUATION)
        way = digest_of(decimals([config.task.model_dump(mode="json"), config.teacher.model_dump(mode="json")]))
        meter = Meter(meters / f"teacher-{way.removeprefix('sha256:')[:16]}.json")
        answers = observe(
            asking, config.task, prompts.held_out, how, claim.digest, "asking the teacher, held out", meter
        )
    _keep_tokens(meters, "teacher", answers)
    decision = json.loads((arc.folder / "curate" / "decision.json").read_bytes())
    offsets_L = np.array(decision["offsets_unats"]) / UNATS_PER_NAT
    label = f"{teacher_name(config.teacher)}, {len(config.task.examples)} examples in its prompt"
    one = system("teacher", label, answers, offsets_L, meter.cpu_s_each())
    return Asked(one, answers.rows)


def _student(
    arc: Session, gate: Gate, claim: Claim, prompts: Prompts, which: tuple[str, str, Done], meters: Path
) -> Asked:
    """Validation prompts fix the decision rule; held-out prompts are then decided by it. `which`: the folder, the role,
    and the stage that made it."""
    folder, role, made = which
    config = arc.config
    weights = next(
        entry.outputs[f"{folder}/model.safetensors"]
        for entry in reversed(list(arc.run.log.statements()))
        if f"{folder}/model.safetensors" in entry.outputs
    )
    params = {"max_tokens": 1, "temperature": "0", "logprobs": True, "top_logprobs": 20}
    name = f"{config.run.name}-{role}"
    with serve_student(
        arc.folder / folder, name, made.outputs_digest, weights, arc.folder / "logs" / f"{role}.log"
    ) as served:
        how = Questions(student_messages, params, "top-logprobs", STUDENT_CONCURRENCY, served.cpu_s)
        meter = Meter(meters / f"{role}-{made.outputs_digest.removeprefix('sha256:')[:16]}.json")
        said = {}
        for kind, items in (("validation", prompts.validation), ("held out", prompts.held_out)):
            asking = arc.asking(served, gate, Role.EVALUATION)
            what = f"asking the {'student' if role == 'student' else 'pruned model'}, {kind}"
            said[kind] = observe(asking, config.task, items, how, claim.digest, what, meter)
    if role == "student":
        _keep_tokens(meters, "student", said["held out"])
    offsets_L = fix_offsets(config.task, said["validation"].logp_NL)
    label = "the shipped student" if role == "student" else "the pruned model before training"
    answers = said["held out"]
    # The pruned model says next to nothing; counting that as wrong would flatter the gap, so chance is left to it.
    one = system(role, label, answers, offsets_L, meter.cpu_s_each(), unread_is_wrong=role == "student")
    return Asked(one, (*said["validation"].rows, *answers.rows))


def _controls(arc: Session, prompts: Prompts) -> list[System]:
    config, run = arc.config, arc.run
    texts = {prompt.prompt_id: prompt.text for prompt in (*prompts.train, *prompts.validation)}
    decision = json.loads((run.folder / "curate" / "decision.json").read_bytes())
    offsets_L = np.array(decision["offsets_unats"]) / UNATS_PER_NAT
    selection = read_selection(run.folder)
    texts_of, targets = {}, {}
    for kind in ("train", "validation"):
        rows = selection[kind]
        texts_of[kind] = [texts[row["prompt"]] for row in rows]
        readings = [read_answer(config.task, run.store.get(row["address"]), config.teacher.signal) for row in rows]
        targets[kind] = np.array([reading.logp_L for reading in readings]) + offsets_L
    held = [prompt.text for prompt in prompts.held_out]
    shares_L = np.array(config.task.declared_shares) if config.task.decision == "balanced" else None
    words = bag_of_words(
        texts_of["train"],
        _softmax(targets["train"]),
        texts_of["validation"],
        _softmax(targets["validation"]),
        held,
        shares_L,
    )
    return [majority(targets["train"].argmax(-1), len(config.task.labels), len(held)), words]


def _softmax(logits_NL: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits_NL - logits_NL.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


def _scores(prompts: Prompts, gold_N: np.ndarray, systems: list[System], labels: list[str]) -> Any:
    """One row a held-out item: what each system decided."""
    for at, prompt in enumerate(prompts.held_out):
        decided = {one.role: [*labels, UNREAD][one.decided_N[at]] for one in systems}
        yield {"prompt": prompt.prompt_id, "gold": labels[gold_N[at]], "decided": decided}


def _keep_tokens(meters: Path, name: str, answers: Answers) -> None:
    write_whole(meters / f"tokens-{name}.json", json.dumps(answers.tokens_per_question).encode())


def _tokens(meters: Path, name: str) -> float:
    return json.loads((meters / f"tokens-{name}.json").read_bytes())
