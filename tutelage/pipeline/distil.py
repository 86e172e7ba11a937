"""The whole arc, in order: terms, data, student, collect, curate, train, account, ship, plain, prove, report, seal."""

from pathlib import Path
from typing import Any

from tutelage.collect.stages import collect, make_prompts, open_data
from tutelage.config import RunConfig
from tutelage.curate.select import curate
from tutelage.jsonl import read_lines
from tutelage.meter import Meter
from tutelage.models.questions import label_params
from tutelage.pipeline import controls, evidence, learning
from tutelage.pipeline.accounting import account
from tutelage.pipeline.commit import SELECTION_TREE, commit_exchanges, commit_selection
from tutelage.pipeline.estimate import label_questions
from tutelage.pipeline.gate import Gate, check_terms, require_permitted, require_terms
from tutelage.pipeline.held_out import read_gold, require_gold
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.sealing import seal
from tutelage.pipeline.serving import serve_teacher
from tutelage.pipeline.session import Session, today
from tutelage.prompts import read_prompts
from tutelage.records import Role

COLLECT_PURPOSE = "train"  # the namespace of answers that may be trained on


def distil(config: RunConfig, run: Run) -> Path:
    """Runs every stage that is not done; returns the report's path. Raises what the stages raise."""
    session = Session(config, run)
    claim = session.open()
    gate = check(session)
    data = split(session)
    require_gold(config, *read_gold(session.folder))
    student = learning.student(run, config)  # before the teacher is paid: what cannot be trained is told now
    collected = ask(session, data, gate)
    curated = select(session, data, collected)
    trained = learning.train(run, config, curated, student)
    accounted = account(run, config, curated, trained)
    shipped = learning.ship(session, gate, trained, student, accounted)
    plain = controls.plain(run, config, curated, student) if config.controls.plain else None
    rests_on = evidence.Inputs(data, curated, trained, shipped, student, plain)
    proved = evidence.prove(session, gate, claim, rests_on)
    reported = evidence.report(session, gate, claim, proved)
    seal(session, gate, shipped, reported)
    return session.folder / evidence.PAGE


def check(session: Session) -> Gate:
    """The terms stage: nothing is asked before it permits."""
    gate = check_terms(session.config, today())
    require_permitted(gate)
    name = f"terms/{today()}-{gate.together.digest.removeprefix('sha256:')[:12]}.json"
    out = session.folder / name

    def work(scratch: Path) -> Facts:
        require_terms(gate, out)
        return {"status": str(gate.together.status), "warnings": list(gate.together.warnings)}

    inputs = {"registry": gate.standing, "risks": gate.risks}
    config = {"purpose": session.config.run.purpose, "date": today(), "teacher": gate.teacher.subject}
    done = session.run.stage("terms", 1, config, inputs, (name,), work)
    for warning in done.facts["warnings"]:
        session.run.progress.say(f"terms: warning: {warning}")
    session.run.progress.say(f"terms: {gate.together.status} for {session.config.run.purpose}")
    return gate


def split(session: Session) -> Done:
    """The data stage: prompts of three kinds, gold for the held-out ones alone."""
    table = session.config.data
    rows, origin = open_data(table)

    def work(scratch: Path) -> Facts:
        if rows.bad:
            session.run.progress.say(f"data: {len(rows.bad)} bad rows skipped, the first at line {rows.bad[0].line}")
        seed = session.config.run.seed
        return make_prompts(rows, table, session.config.task.labels, origin, seed, session.folder / "data")

    config = {
        **table.model_dump(mode="json", exclude={"path", "accepted_risk"}),
        "labels": list(session.config.task.labels),
    }
    config["seed"] = session.config.run.seed
    outputs = ("data/prompts.jsonl", "data/gold.json")
    return session.run.stage("data", 1, config, {"file": origin.digest}, outputs, work)


def ask(session: Session, data: Done, gate: Gate) -> Done:
    """The collect stage: the teacher's answers to training and validation prompts."""
    prompts = read_prompts(session.folder / "data" / "prompts.jsonl")
    teacher, task = session.config.teacher, session.config.task

    def work(scratch: Path) -> Facts:
        meter = Meter(scratch / "meter.json")
        with serve_teacher(session.config.teacher, session.folder) as served:
            asking = session.asking(served, gate, Role.TEXT_TARGET if teacher.signal == "text" else Role.SOFT_TARGET)
            began = served.cpu_s() if served.cpu_s else 0.0
            try:
                facts = collect(
                    asking, task, prompts, label_params(teacher, task), COLLECT_PURPOSE, teacher.concurrency,
                    session.folder / "collect",
                )  # fmt: skip
            finally:
                meter.add(served.cpu_s() - began if served.cpu_s else 0.0, asking.answered)
        rows = list(read_lines(session.folder / "collect" / "exchanges.jsonl"))
        cpu_ms, asked = meter.read()
        facts |= {"commitment": commit_exchanges(session.run, "collect", [row["address"] for row in rows])}
        origin = {"teacher_weights": dict(served.weights)}
        again = prompts.held_out[: session.config.controls.again]
        texts = [prompt.text for kind in (*prompts, again) for prompt in kind]  # the proof asks it too
        expected = label_questions(session.config, texts, asking.prices).nusd
        meters = {"cpu_ms": cpu_ms, "cpu_questions": asked, "expected_nusd": expected}
        return facts | origin | meters | _bought(session.run, rows)

    inputs = {"data": data.outputs_digest, "terms": gate.standing}
    config = {"task": task.model_dump(mode="json"), "teacher": _asked_of(session.config)}
    return session.run.stage("collect", 1, config, inputs, ("collect/exchanges.jsonl", "collect/refused.jsonl"), work)


def select(session: Session, data: Done, collected: Done) -> Done:
    """The curate stage: the selection, committed before training starts."""

    def work(scratch: Path) -> Facts:
        prompts = read_prompts(session.folder / "data" / "prompts.jsonl")
        out = session.folder / "curate"
        facts = curate(
            session.config.task, session.config.teacher.signal, prompts, session.folder / "collect" / "exchanges.jsonl",
            session.run.store, session.config.run.seed, out,
        )  # fmt: skip
        rows = learning.read_selection(session.folder)["train"]
        # Committed before training starts: what is stepped on can be compared with it.
        return facts | {"commitment": commit_selection(session.run, rows)}

    config = {"task": session.config.task.model_dump(mode="json"), "seed": session.config.run.seed}
    outputs = ("curate/selection.json", "curate/drops.jsonl", "curate/decision.json", SELECTION_TREE.as_posix())
    inputs = {"data": data.outputs_digest, "collect": collected.outputs_digest}
    done = session.run.stage("curate", 2, config, inputs, outputs, work)
    session.run.commit({"root": done.facts["commitment"], "examples": done.facts["kept"]})
    return done


def _bought(run: Run, rows: list[dict[str, Any]]) -> Facts:
    exchanges = [run.store.get(address) for address in {row["address"] for row in rows}]
    return {
        "cost_nusd": sum(exchange.price.cost_nusd for exchange in exchanges),
        "prompt_tokens": sum(exchange.usage.prompt_tokens for exchange in exchanges),
        "completion_tokens": sum(exchange.usage.completion_tokens for exchange in exchanges),
    }


def _asked_of(config: RunConfig) -> dict[str, Any]:
    """What of the teacher's table changes its answers (not speed, price or key)."""
    return config.teacher.model_dump(mode="json", include={"resource", "url", "model", "signal", "top_logprobs"})
