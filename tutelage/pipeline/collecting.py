"""Asking a teacher about open questions: terms, questions, answers, in a run folder of their own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tutelage.canon import canonical, digest_bytes, digest_file
from tutelage.collect.gathering import (
    Forms,
    Written,
    draws,
    expected_nusd,
    noted,
    sayable,
    write_answers,
    write_questions,
    write_unanswered,
)
from tutelage.collect.questions import Questions, read_questions
from tutelage.config import CollectConfig, SamplingTable, TeacherTable
from tutelage.errors import ConfigError, DataError, TutelageError
from tutelage.jsonl import pretty, read_lines, write_whole
from tutelage.ledger.merkle import commitment
from tutelage.meter import Meter
from tutelage.models.base import Endpoint
from tutelage.models.exchange import Terms
from tutelage.models.questions import ask_all
from tutelage.models.teachers import BUILT_IN, api_of, dialect_of
from tutelage.pipeline.asking_systems import metered
from tutelage.pipeline.gate import Permission, may_ask, teacher_name
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.serving import remote, serve_teacher, weights_in
from tutelage.pipeline.session import asking, budget_of, today
from tutelage.records import NUSD_PER_USD, Question, Role
from tutelage.redact import Secrets
from tutelage.schema import compile_schema, tools_problem
from tutelage.terms.check import require

PURPOSE = "train"  # the namespace of answers that may be trained on
QUESTIONS = Path("data") / "questions.jsonl"
UNANSWERED = Path("logs") / "unanswered.jsonl"  # of a try that ended early: no part of the record
OUTPUTS = ("collect/exchanges.jsonl", "collect/refused.jsonl")


class Collected(NamedTuple):
    """What a collection came to; `cut` answers ended at `max_tokens`. Money in nano-USD; `expected_nusd` is what it was
    thought to cost beforehand."""

    questions: int
    draws: int
    answered: int
    refused: int
    cut: int
    expected_nusd: int
    settled_nusd: int
    unresolved_nusd: int


def collect(config: CollectConfig, run: Run) -> Collected:
    """Asks what is not answered yet. Raises what the stages raise; in each case what was answered is kept."""
    _open(config, run)
    permission = _check(config, run)
    questions = _questions(config, run)
    return _ask(config, run, permission, questions)


def _open(config: CollectConfig, run: Run) -> None:
    """The resolved configuration into the log before anything is asked. A record does not tell where things lie on
    somebody's disk."""
    resolved = config.resolved()
    for table, key in (("prompts", "path"), ("teacher", "path"), ("teacher", "prices"), ("teacher", "lineage"),
                       ("sampling", "tools_file"), ("sampling", "schema_file")):  # fmt: skip
        path = resolved[table][key]
        resolved[table][key] = Path(path).name if path else None
    file = pretty(resolved)
    digest = digest_bytes(file)
    opened = {"origin": run.log.origin, "name": config.run.name, "seed": config.run.seed, "config": digest}
    run.opened(opened, "collect")
    write_whole(run.folder / "config.json", file)


def _check(config: CollectConfig, run: Run) -> Permission:
    """The terms stage: nothing is asked before it permits."""
    permission = may_ask(config, today())
    require(permission.together)
    name = f"terms/{today()}-{permission.together.digest.removeprefix('sha256:')[:12]}.json"

    def work(scratch: Path) -> Facts:
        write_whole(run.folder / name, canonical(permission.to_json()) + b"\n")
        return {"status": str(permission.together.status), "warnings": list(permission.together.warnings)}

    settings = {"purpose": config.run.purpose, "date": today(), "teacher": permission.teacher.subject}
    done = run.stage("terms", 1, settings, {"registry": permission.standing}, (name,), work)
    for warning in done.facts["warnings"]:
        run.progress.say(f"terms: warning: {warning}")
    conditions = "; ".join(dict.fromkeys(condition.words for condition in permission.together.conditions))
    on = f", if: {conditions}" if conditions else ""
    run.progress.say(f"terms: {permission.together.status} for {config.run.purpose}{on}")
    return permission


def prepare(config: CollectConfig, found: Questions, out: Path) -> Written:
    """Writes the questions as they will be asked: with tools and schema of the run file where they bring none, and
    without any secret of this environment. Raises `ConfigError` for those files, `DataError` for what the API cannot
    say."""
    forms = _forms(config.sampling)
    secrets = Secrets.of_environment([config.teacher.api_key_env] if config.teacher.api_key_env else [])
    return write_questions(found, forms, secrets, _sayable(config.teacher, config.sampling), out)


def _forms(sampling: SamplingTable) -> Forms:
    forms = Forms(_json_of(sampling.tools_file, "tools_file"), _json_of(sampling.schema_file, "schema_file"))
    if forms.schema:
        compile_schema(forms.schema)  # what nothing can satisfy is told before anything is asked
    if forms.tools and (problem := tools_problem(forms.tools)):
        raise ConfigError(f"sampling.tools_file = {sampling.tools_file!r}: {problem}", fix="list OpenAI function tools")
    return forms


def _questions(config: CollectConfig, run: Run) -> Done:
    """The questions stage: rows of the file as questions."""
    path = Path(config.prompts.path)

    def work(scratch: Path) -> Facts:
        found = read_questions(path, config.prompts)
        written = prepare(config, found, run.folder / QUESTIONS)
        if found.bad:
            run.progress.say(f"questions: {len(found.bad)} bad rows skipped, the first at line {found.bad[0].line}")
        if found.repeated:
            run.progress.say(f"questions: {found.repeated} rows repeat an earlier one and are asked once")
        bad = [row.line for row in found.bad]
        return {**written._asdict(), "bad_rows": bad, "repeated": found.repeated}

    settings = {
        "api": config.teacher.api or (api_of(config.teacher.url) if config.teacher.url else "openai"),
        "sampling": config.sampling.model_dump(mode="json", exclude={"tools_file", "schema_file"}),
        **config.prompts.model_dump(mode="json", exclude={"path", "accepted_risk"}),
        **{name: digest_bytes(text.encode()) for name, text in _forms(config.sampling)._asdict().items() if text},
    }
    try:
        digest = digest_file(path)
    except OSError as error:
        raise DataError(
            f"cannot read {path.absolute()}: {error.strerror}",
            fix="check prompts.path: it counts from the folder that the command is given in",
        ) from None
    return run.stage("questions", 1, settings, {"file": digest}, (QUESTIONS.as_posix(),), work)


def _sayable(teacher: TeacherTable, sampling: SamplingTable) -> Callable[[Question], None]:
    """Of an endpoint of somebody else's; our own speak OpenAI's API, and a plug-in looks for itself."""
    endpoint = remote(teacher) if teacher.url else Endpoint("http://127.0.0.1", "embedded", "", "", "")
    if endpoint.api not in BUILT_IN:
        return lambda question: None
    return sayable(endpoint, dialect_of(endpoint.api), teacher, sampling)


def _json_of(name: str | None, key: str) -> str:
    """The file's JSON as compact text; empty when none is named. Raises `ConfigError`."""
    if name is None:
        return ""
    try:
        return json.dumps(json.loads(Path(name).read_text("utf-8")), ensure_ascii=False, separators=(",", ":"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"sampling.{key} = {name!r}: {error}", fix="name a file that holds JSON") from None


class _Committed(NamedTuple):
    root: str
    cut: int


def _committed(run: Run) -> _Committed:
    """The root over the answers, and how many of them ended where `max_tokens` did."""
    cut = 0

    def answers() -> Iterator[bytes]:
        nonlocal cut
        for pair in run.store.pairs(row["address"] for row in read_lines(run.folder / OUTPUTS[0])):
            cut += pair.exchange["finish_reason"] == "length"
            yield canonical(pair.exchange)

    return _Committed(commitment(run.key, "collect", answers()), cut)


def _taken(meter: Meter) -> Facts:
    """Of our own server: CPU-seconds in ms, and millijoules of the machine's counters where it has such; nothing of others'."""
    cpu_ms, answered = meter.read()
    energy = meter.energy_mj()
    return ({"cpu_ms": cpu_ms} if answered else {}) | ({} if energy is None else {"energy_mj": energy})


def _ask(config: CollectConfig, run: Run, permission: Permission, questions: Done) -> Collected:
    """The collect stage: every draw of every question."""
    teacher, sampling, file = config.teacher, config.sampling, run.folder / QUESTIONS
    written = Written(questions.facts["questions"], questions.facts["prompt_bytes"])
    total = written.questions * sampling.samples
    role = Role.TEXT_TARGET if teacher.signal == "text" else Role.SOFT_TARGET

    def work(scratch: Path) -> Facts:
        budget = budget_of(config.budget, run.store)
        with serve_teacher(teacher, run.folder) as served:
            terms, warmth = (
                Terms(permission.standing, role),
                "1" if sampling.temperature is None else repr(sampling.temperature),
            )
            how = asking(run, served, teacher, terms, budget, config.run.seed, warmth)
            expected = expected_nusd(written, sampling, how.prices)
            run.progress.say(
                f"cost: about ${expected / NUSD_PER_USD:.4f} ({how.prices.source}); limit ${config.budget.max_cost_usd:g}"
                + ("" if expected <= config.budget.max_cost_usd * NUSD_PER_USD else ": it will not do for all of them")
                if how.prices.bound_nusd(1, 1)
                else f"cost: none ({how.prices.source})"
            )

            asked = draws(file, served.endpoint, teacher, sampling, PURPOSE)
            meter = Meter(scratch / "meter.json")
            what, note = f"asking {teacher_name(teacher)}", scratch / "asked.jsonl"
            try:
                with metered(served, meter, how):
                    ask_all(how, noted(asked, note), teacher.concurrency, what, total)
            except TutelageError:
                if unanswered := write_unanswered(how, note, run.folder / UNANSWERED):
                    run.progress.say(f"{unanswered} questions without an answer are named in {run.folder / UNANSWERED}")
                raise
            answered = write_answers(how, note, run.folder / "collect")
            committed = _committed(run)
        spent = run.store.spent()
        return {
            "questions": written.questions,
            "draws": total,
            "answered": answered,
            "refused": len(how.refusals),
            "commitment": committed.root,
            "cut": committed.cut,
            "expected_nusd": expected,
            **spent._asdict(),
            **_taken(meter),
            "teacher_weights": dict(served.weights),
        }

    named = {"resource", "url", "api", "model", "provider", "licence", "signal", "top_logprobs"}
    settings = {"sampling": sampling.model_dump(mode="json"), "teacher": teacher.model_dump(mode="json", include=named)}
    inputs = {"questions": questions.outputs_digest, "terms": permission.standing}
    if teacher.path is not None:
        inputs["weights"] = digest_file(weights_in(Path(teacher.path)))
    done = run.stage("collect", 1, settings, inputs, OUTPUTS, work)
    return Collected(*(done.facts[name] for name in Collected._fields))
