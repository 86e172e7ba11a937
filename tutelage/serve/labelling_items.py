"""What a person is shown to decide about: texts of a file, or answers of a proof, without who gave them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.collect.items import read_items
from tutelage.config import PromptsTable
from tutelage.errors import ConfigError, DataError, StorageError
from tutelage.jsonl import read_lines
from tutelage.prove.gold_file import Header, Mode, Unit, draw, lot
from tutelage.prove.shown import SYSTEMS, Shown, turns_of, with_calls
from tutelage.records import Exchange, Question
from tutelage.store.store import Store

_ITEMS = Path("data") / "items.jsonl"
_EXCHANGES = Path("prove") / "exchanges.jsonl"


@dataclass(frozen=True, slots=True)
class Matter:
    """All items of a file or run with their questions, and the answers of a run by system and item; `left_out` items
    have not been answered by every system that is shown."""

    questions: dict[str, Question]
    answers: dict[str, dict[str, str]]
    left_out: int


def of_file(path: Path, table: PromptsTable) -> Matter:
    """Every item of a file of questions. Raises as `collect.items.read_items`."""
    found = read_items(path, table, None)
    return Matter({item.question.prompt_id: item.question for item in found.items}, {}, 0)


def of_run(folder: Path, mode: Mode) -> Matter:
    """The items of a proof's run folder; for pairs and scores those that teacher and student both answered.

    Raises `ConfigError` for a folder without a proof, `DataError` for one that is damaged or where nothing can be
    shown.
    """
    needed = [_ITEMS] if mode is Mode.LABELS else [_ITEMS, _EXCHANGES]
    if missing := [name.as_posix() for name in needed if not (folder / name).is_file()]:
        raise ConfigError(
            f"{folder} has no {missing[0]}",
            fix="give the run folder of a finished tutelage prove, or for labels a file of items",
        )
    try:
        questions = [
            Question.from_json({key: value for key, value in row.items() if key != "gold"})
            for row in read_lines(folder / _ITEMS)
        ]
        rows = list(read_lines(folder / _EXCHANGES)) if mode is not Mode.LABELS else []
        addresses = {(row["system"], row["prompt"]): row["address"] for row in rows if row["system"] in SYSTEMS}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the proof in {folder} cannot be read: {error}", fix="run tutelage prove again") from None
    by_id = {question.prompt_id: question for question in questions}
    if mode is Mode.LABELS:
        return Matter(by_id, {}, 0)
    both = {item: question for item, question in by_id.items() if all((name, item) in addresses for name in SYSTEMS)}
    if not both:
        raise DataError(f"no item of {folder} was answered by both teacher and student", fix="look into its report")
    if not (folder / "store").is_dir():
        raise StorageError(f"{folder} has no store: its answers are gone", fix="give the whole run folder")
    with Store(folder / "store") as store:
        answers = {name: {item: _said(store.get(addresses[name, item])) for item in both} for name in SYSTEMS}
    return Matter(both, answers, len(by_id) - len(both))


def deal(matter: Matter, header: Header) -> list[Shown]:
    """What is shown, in the order in which it is shown: the drawn items, and for each, by lot, whose answer comes
    first.

    Scores: both systems' answers to an item come, each at its own place in one random order.
    """
    drawn = draw(list(matter.questions), header.sampled, header.seed)
    if header.mode is Mode.SCORE:
        units = [Unit(item, name) for item in drawn for name in header.systems]
        units.sort(key=lambda unit: lot(header.seed, "shown", *unit))
        return [_shown(matter, unit, (), (unit.system,)) for unit in units]
    if header.mode is Mode.LABELS:
        return [_shown(matter, Unit(item), (), ()) for item in drawn]
    dealt = []
    for item in drawn:
        turned = lot(header.seed, "first", item)[0] & 1
        order = header.systems[::-1] if turned else header.systems
        dealt.append(_shown(matter, Unit(item), order, order))
    return dealt


def _shown(matter: Matter, unit: Unit, order: tuple[str, ...], whose: Sequence[str]) -> Shown:
    answers = tuple(matter.answers[name][unit.item] for name in whose)
    return Shown(unit, turns_of(matter.questions[unit.item]), answers, order)


def _said(exchange: Exchange) -> str:
    return with_calls(exchange.answer, exchange.tool_calls)
