"""What a proof begins with: its items, the task, and the claims in the log before anything is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tutelage.canon import digest_bytes, digest_file
from tutelage.collect.items import Items, read_items, require_provable
from tutelage.collect.unseen import Trained, asked_in, require_unseen, user_turns
from tutelage.config import PromptsTable
from tutelage.errors import ConfigError, DataError
from tutelage.jsonl import pretty, write_whole
from tutelage.models.prompt_ids import PromptIds
from tutelage.pipeline.asking_texts import readers
from tutelage.pipeline.forms import require_servable
from tutelage.pipeline.gate import teacher_name
from tutelage.pipeline.run import Run
from tutelage.pipeline.serving import remote
from tutelage.pipeline.session import today
from tutelage.proof_config import ItemsTable, ProofClaimTable, ProofConfig
from tutelage.prove.answers import answers_are_references
from tutelage.prove.gold import Gold, gold_answers, read_gold, require_other_author
from tutelage.prove.gold_file import Mode
from tutelage.prove.open_claims import Planned, declare, namespace_of, planned_items
from tutelage.prove.preferences import require_possible
from tutelage.prove.tasks.base import Task
from tutelage.prove.tasks.catalogue import task_of
from tutelage.records import Question
from tutelage.terms.lineage import of_file

FEW_SESSIONS = 20


class People(NamedTuple):
    """What people decided with `tutelage label`: which answer they prefer (None where the file holds labels, or there is none),
    what to say of it, the file's digest."""

    preferences: Gold | None
    warnings: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Work:
    """One proof at work."""

    config: ProofConfig
    run: Run
    task: Task
    items: Items
    planned: tuple[Planned, ...]
    people: People
    trained_on: int  # questions that no item was found among
    seen: str  # their digest
    readers: Mapping[str, PromptIds]  # of the systems that score the teacher's text

    @property
    def questions(self) -> list[Question]:
        return [item.question for item in self.items.items]

    @property
    def purpose(self) -> str:
        """The claims' own namespace; the page says how often one was proved on its answers."""
        return namespace_of(one.claim.to_json() for one in self.planned)


class Looked(NamedTuple):
    """What was found out without asking anybody, or writing anything."""

    task: Task
    items: Items
    people: People
    trained: Trained
    readers: Mapping[str, PromptIds]


def look(config: ProofConfig) -> Looked:
    """Task, items, gold and weights, before there is a run folder. Raises `ConfigError` and `DataError` for what cannot be
    proved, `ResourceError` for a folder without weights."""
    task = task_of(config.task.kind, config.task.options)
    _require_apart(config)
    for claim in config.claims:
        if claim.comparison == "teacher" and not answers_are_references(task):
            raise ConfigError(
                f"a claim against the teacher, of the task {config.task.kind!r}: its references are no answers",
                fix='claim against gold: comparison = "gold"',
            )
    for name, table in config.systems.items():
        require_servable(name, table)
    items, people, trained = _read(config, task)
    _require_gold_to_show(config, items)
    return Looked(task, items, people, trained, readers(config))


def claim_sessions(claim: ProofClaimTable, items: Items) -> int:
    """How many sessions the items of a claim are of; 0 where they name none."""
    rests_on = [item for item in items.items if item.gold or claim.comparison != "gold"]
    return len({item.question.group for item in rests_on if item.question.group})


def planned_claims(config: ProofConfig, looked: Looked) -> list[Planned]:
    """Every claim as it is declared today, with its power. Raises as `declare`."""
    items = looked.items
    with_gold = sum(bool(item.gold) for item in items.items)
    counts = [planned_items(claim, len(items.items), with_gold, config.controls.again) for claim in config.claims]
    return [
        declare(config, looked.task, claim, n, today(), claim_sessions(claim, items))
        for claim, n in zip(config.claims, counts, strict=True)
    ]


def opened_proof(config: ProofConfig, run: Run, looked: Looked) -> Work:
    """Configuration and claims into the log, before anything is asked."""
    task, items, people, trained, reading = looked
    planned = _as_declared(run, planned_claims(config, looked))
    resolved = config.resolved()
    for table in (resolved["items"], *resolved["systems"].values(), *resolved["judges"].values()):
        for key in (
            "path",
            "gold_file",
            "prices",
            "lineage",
            "tokenizer",
        ):  # a record does not tell where things lie on a disk
            if table.get(key):
                table[key] = Path(table[key]).name
    resolved["items"]["seen"] = [Path(name).name for name in config.items.seen]
    file = pretty(resolved)
    opened = {
        "origin": run.log.origin, "name": config.run.name, "seed": config.run.seed, "config": digest_bytes(file),
        "claims": [one.claim.to_json() for one in planned],
        "claim_digests": [one.claim.digest for one in planned],
        "power_ppm": [round(1e6 * one.power) for one in planned],
    }  # fmt: skip
    run.opened(opened, "prove")
    write_whole(run.folder / "config.json", file)
    if items.repeated:
        run.progress.say(f"items: {items.repeated} rows repeat a question: {len(items.items)} items")
    _tell_power(config, run, planned)
    sessions = {item.question.group for item in items.items if item.question.group}
    if 0 < len(sessions) < FEW_SESSIONS:
        run.progress.say(
            f"claim: limits that hold for {len(sessions)} sessions are wide; {FEW_SESSIONS} or more narrow them"
        )
    for warning in people.warnings:
        run.progress.say(f"gold: {warning}")
    return Work(config, run, task, items, tuple(planned), people, trained.questions, trained.digest, reading)


def _require_apart(config: ProofConfig) -> None:
    """An answer's name holds model and route, not the address: two addresses must not share one name. Raises `ConfigError`."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for name, table in {**config.systems, **config.judges}.items():
        if table.url is not None:
            endpoint = remote(table)
            other, url = seen.setdefault((endpoint.route, endpoint.model), (name, endpoint.base_url))
            if url != endpoint.base_url:
                raise ConfigError(
                    f"{other} and {name} are both {endpoint.model!r} at {endpoint.route}, at two addresses",
                    fix="give each a model name, or a provider, of its own",
                )


def _read(config: ProofConfig, task: Task) -> tuple[Items, People, Trained]:
    table = config.items
    known = {"path", "format", "text", "system", "licence", "limit", "bad_rows"}
    prompts = PromptsTable(**table.model_dump(include=known))
    found, people = _by_people(table, read_items(Path(table.path), prompts, table.gold))
    for at, item in enumerate(found.items, 1):
        if item.gold:
            try:
                task.require_reference(item.gold)
            except DataError as error:
                raise DataError(f"{table.path}: gold of item {at}: {error.message}", fix=error.fix) from None
    require_provable(found.items, is_binary=task.is_binary)
    require_other_author(teacher_name(config.systems["teacher"]), of_file(Path(table.path)))
    asked = [user_turns(item.question) for item in found.items]
    return found, people, require_unseen(asked, asked_in([*table.seen, *_trained_in(config)]))


def _require_gold_to_show(config: ProofConfig, items: Items) -> None:
    """A judge that sees a reference on some items alone is another judge on the others: how it errs where there is gold then says
    nothing of the rest, and PPI++ rests on that. Raises `ConfigError`."""
    with_gold = sum(bool(item.gold) for item in items.items)
    for name, table in config.judges.items():
        if table.shows_gold and with_gold < len(items.items):
            raise ConfigError(
                f"judges.{name}.shows_gold = true, and {with_gold} of {len(items.items)} items have a gold answer to show",
                fix=f"set judges.{name}.shows_gold = false, or give every item a gold answer (items.gold)",
            )


def _by_people(table: ItemsTable, found: Items) -> tuple[Items, People]:
    """The items with the labels of `gold_file`, or what people prefer where it holds that."""
    if table.gold_file is None:
        return found, People(None, (), "")
    path, names = Path(table.gold_file), [item.question.prompt_id for item in found.items]
    gold = read_gold(path)
    if gold.header.mode is Mode.PAIRS:
        require_possible(gold, names)
        return found, People(gold, gold.warnings, digest_file(path))
    labels = gold_answers(path, names)
    with_gold = tuple(replace(item, gold=labels.answers.get(item.question.prompt_id, "")) for item in found.items)
    return replace(found, items=with_gold), People(None, labels.warnings, labels.digest)


def _trained_in(config: ProofConfig) -> list[str]:
    """The run folders around the students' weights: what is in them was trained on."""
    folders = [Path(table.path).parent for table in config.systems.values() if table.path]
    return sorted({str(folder) for folder in folders if (folder / "ledger").is_dir() and (folder / "data").is_dir()})


def _as_declared(run: Run, planned: Sequence[Planned]) -> list[Planned]:
    """A resumed run keeps the day on which its claims were said."""
    core = [{**one.claim.to_json(), "declared_on": ""} for one in planned]
    for entry in run.log.statements():
        if entry.kind == "opened" and [{**one, "declared_on": ""} for one in entry.facts.get("claims", [])] == core:
            days = [one["declared_on"] for one in entry.facts["claims"]]
            return [
                one._replace(claim=type(one.claim).from_json({**one.claim.to_json(), "declared_on": day}))
                for one, day in zip(planned, days, strict=True)
            ]
    return list(planned)


def _tell_power(config: ProofConfig, run: Run, planned: Sequence[Planned]) -> None:
    """The chance of each claim, and what a chance of 80 % would take."""
    for claim, one in zip(config.claims, planned, strict=True):
        needs = f"{one.needed:,} items give 80 %" if one.needed else "no number of items gives 80 %: expect less loss"
        power = f"power {one.power:.0%} with {one.claim.planned_n:,} items"
        run.progress.say(f"claim: {claim.comparison}, margin {claim.margin:g}: {power}; {needs}")
