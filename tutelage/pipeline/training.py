"""Training on conversations: terms, data, student, signals, train, sources, ship. torch is imported when it runs."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tutelage.canon import canonical, digest_bytes, digest_file
from tutelage.collect.conversations import Author, read_talks, split
from tutelage.errors import ConfigError, DataError
from tutelage.jsonl import pretty, write_lines, write_whole
from tutelage.pipeline.gate import require_permitted
from tutelage.pipeline.gate_training import TrainingGate, base_in, may_train, teacher_in
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.session import today
from tutelage.pipeline.talks import (
    AUTHORS,
    BEFORE,
    SOURCES,
    TALKS,
    answers_in,
    digest_of_answers,
    is_recorded,
    sources,
    texts_in,
)
from tutelage.pipeline.teachers import authors_of, contexts
from tutelage.training_config import TrainingConfig

if TYPE_CHECKING:
    from tutelage.pipeline.teaching_plan import Method

STUDENT = "student"


class Trained(NamedTuple):
    """What came of it. Scores in micro-nats a token of held-out conversations: the objective (in words: `objective`), and
    cross-entropy of the text; `tokens` are loss tokens by role."""

    loss: str
    objective: str
    steps: int
    chosen_step: int
    examples: int
    taken: int  # of them, those that the steps came to
    validation_examples: int
    before_objective_unats: int
    objective_unats: int
    before_text_unats: int
    text_unats: int
    tokens: dict[str, int]
    parameters: int
    base_parameters: int
    calibration: dict[str, int]  # of the student's confidence, in millionths; empty where it was not measured


class Ready(NamedTuple):
    """A training whose inputs are there and whose method makes sense; `data` is the digest of what it learns from, `track` where
    the numbers are shown besides (empty: nowhere)."""

    config: TrainingConfig
    method: "Method"
    data: str
    track: str


def ready(config: TrainingConfig, track: str = "") -> Ready:
    """What can be judged before a run is opened. Raises `DataError`, `ConfigError`, `SignalError` and `ResourceError`."""
    data = _require_inputs(config)

    from tutelage.pipeline.plan_training import require_tokens
    from tutelage.pipeline.teaching_plan import method_of
    from tutelage.train.tracking import tracker

    if track:
        tracker(track)  # what is missing is told now
    require_tokens(config)
    return Ready(config, method_of(config), data, track)


def train_student(ready: Ready, run: Run) -> Trained:
    """Does what is not done yet. Raises what the stages raise; a stopped run goes on where it stood."""
    from tutelage.pipeline.keeping import tell_of_teachers
    from tutelage.pipeline.pairing import rejected
    from tutelage.pipeline.stepping import rollouts, signals, train

    config, method = ready.config, ready.method
    _require_own_folder(config, run.folder)
    _open(config, run)
    gate = _check(config, run)
    tell_of_teachers(config, run.progress.say)
    data = _data(config, run, ready.data)
    made = _student(config, run, data)
    before = next(
        filter(None, (stage(config, method, run, data, made) for stage in (signals, rejected, rollouts))), None
    )
    trained = train(config, method, run, data, made, before, ready.track)
    told = _sources(config, run, data, trained)
    _ship(config, gate, run, made, trained, told)
    since = {"calibration": {}, "taken": trained.facts["examples"], "objective": trained.facts["loss"]}
    facts: dict[str, Any] = {**since, **made.facts, **trained.facts}
    return Trained(*(facts[name] for name in Trained._fields))


def _require_own_folder(config: TrainingConfig, run: Path) -> None:
    """Raises `ConfigError` where the folder that a server reads weights from, which every step overwrites, holds others."""
    if config.method.engine_folder is None:
        return
    folder = Path(config.method.engine_folder).resolve()
    weights = [alone.teacher.path for alone in config.each_teacher().values() if alone.teacher is not None]
    held = {path: Path(path).resolve() == folder for path in (config.student.path, *weights) if path is not None}
    held |= {str(one): one.resolve() in (folder, *folder.parents) for one in (run / BEFORE, run / "student")}
    if found := [path for path, is_held in held.items() if is_held]:
        raise ConfigError(
            f"method.engine_folder = {config.method.engine_folder!r}: every step would write over what {found[0]} holds",
            fix="copy that folder, start the server from the copy, and name the copy",
        )


def _require_inputs(config: TrainingConfig) -> str:
    """The digest of the data. Raises `DataError`, `ConfigError` and `ResourceError` for what the run file names and is not there,
    before the licence of anything is judged; nothing is fetched."""
    table = config.data
    digest = _digest_of_data(Path(table.path or table.collected or ""), is_file=table.path is not None)
    contexts(config)
    taught = [one for one in config.each_teacher().values() if one.teacher is not None and not one.teacher.old_self]
    for one in (base_in(config), *map(teacher_in, taught)):
        if one.folder is not None:
            one.fetch()
    return digest


def _open(config: TrainingConfig, run: Run) -> None:
    """The resolved configuration into the log. A record does not tell where things lie on somebody's disk, nor a teacher's own
    prompt: its digest stands there."""
    run.require_kind("train", config.run.name)
    resolved = config.resolved()
    for table, key in (("data", "path"), ("data", "collected"), ("student", "path"), ("method", "engine_folder")):
        if resolved[table] and resolved[table][key]:
            resolved[table][key] = Path(resolved[table][key]).name
    for table in filter(None, (resolved["teacher"], *resolved["teachers"].values())):
        for key in ("path", "lineage", "system_file", "examples_file", "prices"):
            if table.get(key):
                table[key] = Path(table[key]).name
        if table.get("system"):
            table["system"] = digest_bytes(table["system"].encode())
    resolved["ship"]["licence_files"] = [Path(path).name for path in resolved["ship"]["licence_files"]]
    file = pretty(resolved)
    opened = {"origin": run.log.origin, "name": config.run.name, "seed": config.run.seed, "config": digest_bytes(file)}
    run.opened(opened, "train")
    write_whole(run.folder / "config.json", file)


def _check(config: TrainingConfig, run: Run) -> TrainingGate:
    """The terms stage: nothing is trained before it permits."""
    gate = may_train(config, today())
    require_permitted(gate.gate)
    together, verdicts = gate.gate.together, canonical(gate.to_json())
    name = f"terms/{today()}-{digest_bytes(verdicts).removeprefix('sha256:')[:12]}.json"

    def work(scratch: Path) -> Facts:
        write_whole(run.folder / name, verdicts + b"\n")
        return {"status": str(together.status), "warnings": list(together.warnings)}

    settings = {"purpose": config.run.purpose, "date": today(), "verdicts": digest_bytes(verdicts)}
    inputs = {"registry": gate.gate.standing, "risks": gate.gate.risks}
    done = run.stage("terms", 1, settings, inputs, (name,), work)
    for warning in done.facts["warnings"]:
        run.progress.say(f"terms: warning: {warning}")
    conditions = " ".join(dict.fromkeys(condition.words for condition in gate.gate.conditions))
    run.progress.say(f"terms: {together.status} for {config.run.purpose}{f', if: {conditions}' if conditions else ''}")
    return gate


def _data(config: TrainingConfig, run: Run, digest: str) -> Done:
    """The data stage: every conversation once, with the side of the split it is on, and whose words they are."""
    table = config.data
    path = Path(table.path or table.collected or "")
    scored = config.method.signal == "recorded"

    def work(scratch: Path) -> Facts:
        asked_by: Author | None = None  # of a file: whoever wrote the rest
        if table.path:
            found = read_talks(path, table, digest, list(config.teachers))
        else:
            found, asked_by = answers_in(path, table)
        authors = [*found.authors, *([asked_by] if asked_by else ())]
        whole = [at for at, talk in enumerate(found.talks) if not talk.cut] or list(range(len(found.talks)))
        parts = split([found.talks[at] for at in whole], table.validation, config.run.seed)
        # Of answers that were cut nothing is learnt, so there is nothing to judge by in them.
        aside = {whole[at] for at in parts.validation}
        rows = [
            {
                "id": talk.id,
                "kind": "validation" if at in aside else "train",
                "messages": list(talk.messages),
                "cut": talk.cut,
                "author": talk.author,
                "asked_by": len(authors) - 1 if asked_by else talk.author,
            }
            | ({"teacher": talk.teacher or table.teacher} if config.teachers else {})
            | ({"rationale": talk.rationale} if talk.rationale else {})
            | ({"said": [list(token) for token in talk.said]} if scored else {})
            for at, talk in enumerate(found.talks)
        ]
        write_lines(run.folder / TALKS, rows)
        write_whole(run.folder / AUTHORS, canonical({"authors": [author._asdict() for author in authors]}) + b"\n")
        if found.bad:
            first = f"at line {found.bad[0].line}" if table.path else found.bad[0].problem
            run.progress.say(f"data: {len(found.bad)} bad rows skipped, the first {first}")
        if scored and found.shaped:
            run.progress.say(
                f"warning: {found.shaped:,} of {len(rows):,} answers were drawn at another temperature than 1, or with top_p: "
                "where their endpoint reports log-probabilities after that (tutelage probe tells), another teacher is learnt"
            )
        if table.has_rationales:
            run.progress.say(f"data: {_with_rationales(rows):,} of {len(rows):,} conversations come with a rationale")
        if found.repeated:
            run.progress.say(f"data: {found.repeated} conversations repeat an earlier one and are taken once")
        counts = {"train": len(rows) - len(aside), "validation": len(aside), "groups": parts.groups}
        return {**counts, "repeated": found.repeated, "bad_rows": [row.line for row in found.bad]}

    left_out = {"path", "collected", "accepted_risk", "max_tokens", "route", "teacher", "rationale", "rationale_marker"}
    settings = table.model_dump(mode="json", exclude=left_out)
    if config.teachers:
        settings |= {"route": table.route, "teacher": table.teacher, "teachers": sorted(config.teachers)}
    if table.has_rationales:
        settings |= {"rationale": table.rationale, "rationale_marker": table.rationale_marker}
    settings |= {"seed": config.run.seed, "collected": table.collected is not None}
    if scored:
        settings["signal"] = config.method.signal
    if table.path or not is_recorded(path):
        settings["name"] = path.name  # an author's, in these cases
    outputs = (TALKS.as_posix(), AUTHORS.as_posix())
    done = run.stage("data", 2, settings, {"file": digest}, outputs, work)
    facts = done.facts
    run.progress.say(f"data: {facts['train']:,} conversations to train on, {facts['validation']:,} to judge by")
    return done


def _with_rationales(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many conversations have one. Raises `DataError` when none does that is trained on."""
    if not any("rationale" in row for row in rows if row["kind"] == "train"):
        raise DataError(
            "no conversation to train on comes with a rationale",
            fix="name the column (data.rationale), or what stands between reasoning and answer (data.rationale_marker)",
        )
    return sum("rationale" in row for row in rows)


def _digest_of_data(path: Path, *, is_file: bool) -> str:
    try:
        return digest_file(path) if is_file else digest_of_answers(path)
    except OSError as error:
        raise DataError(
            f"cannot read {path.absolute()}: {error.strerror}",
            fix="check data.path or data.collected: it counts from the folder that the command is given in",
        ) from None


def _student(config: TrainingConfig, run: Run, data: Done) -> Done:
    """The student as a folder of its own, before training."""
    base, table = base_in(config), config.student
    needs_text = (
        table.trim_vocabulary or table.keep == "importance" or bool({"hidden", "neurons", "heads"} & {*table.sizes})
    )

    prefixes = [config.method.rationale_prefix] if config.data.has_rationales else []

    def work(scratch: Path) -> Facts:
        from tutelage.pipeline.pupil import make_pupil

        run.progress.say(f"student: {_words(config)} {base.name}")
        return make_pupil(config, base.fetch(), [*texts_in(run.folder), *prefixes], run.folder / BEFORE)

    settings = {
        **table.model_dump(mode="json", exclude={"path", "accepted_risk", "lora", "licence"}),
        "seed": config.run.seed if table.start == "random" else 0,
        **({"prefixes": prefixes} if prefixes and needs_text else {}),
    }
    inputs = base.inputs("base") | ({"data": data.outputs_digest} if needs_text else {})
    return run.stage("student", 1, settings, inputs, (BEFORE,), work)


def _words(config: TrainingConfig) -> str:
    table = config.student
    sizes = ", ".join(f"{getattr(table, name)} {name}" for name in table.sizes)
    kept = f" ({table.keep})" if table.layers else ""
    return {"whole": "all of", "pruned": f"{sizes}{kept} of", "random": f"at random, {sizes or 'as large as'}"}[
        table.start
    ]


def _sources(config: TrainingConfig, run: Run, data: Done, trained: Done) -> Done:
    """Whose words and weights the steps took: a stage of its own, so that a licence is set right without training again."""
    base, taught = base_in(config), authors_of(config, run.folder)
    start = Author(base.name, base.digest, "", "file", base.licence)

    def work(scratch: Path) -> Facts:
        rows = sources(run.folder, taught, start)
        write_whole(run.folder / SOURCES, canonical({"rows": rows}) + b"\n")
        return {"rows": len(rows)}

    settings: dict[str, Any] = {"base": start._asdict(), "teacher": taught[""]._asdict() if "" in taught else {}}
    if config.teachers:
        settings["teachers"] = {name: author._asdict() for name, author in taught.items()}
    inputs = {"data": data.outputs_digest, "train": trained.outputs_digest}
    return run.stage("sources", 1, settings, inputs, (SOURCES.as_posix(),), work)


def _ship(config: TrainingConfig, gate: TrainingGate, run: Run, made: Done, trained: Done, told: Done) -> Done:
    """The student's folder, with the notices, the lineage and a card. Raises `TermsError` when a condition is not met."""
    folder = run.folder

    def work(scratch: Path) -> Facts:
        from tutelage.pipeline.pupil import ship_pupil

        extras = scratch / "extras"
        shutil.rmtree(extras, ignore_errors=True)
        return ship_pupil(config, gate, folder, extras, made.facts | trained.facts, run.progress.say)

    table = {
        "name": config.run.name,
        "purpose": config.run.purpose,
        "commercial": config.ship.commercial,
        "monthly_users": config.ship.monthly_users,
        "licence_files": [digest_file(Path(name)) for name in config.ship.licence_files],
        "subjects": gate.subjects,
    }
    inputs = {"train": trained.outputs_digest, "student": made.outputs_digest, "sources": told.outputs_digest}
    inputs |= {"terms": gate.gate.standing, "risks": gate.gate.risks}
    return run.stage("ship", 1, table, inputs, (STUDENT,), work)
