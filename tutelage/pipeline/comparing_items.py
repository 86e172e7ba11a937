"""What compared teachers are asked: items of the part that a later run trains on, with their labels, and who is asked."""

from pathlib import Path
from typing import NamedTuple

from tutelage.canon import canonical, digest_of
from tutelage.collect.sources import Row, Rows
from tutelage.collect.split import Origin, gold_label, split_rows
from tutelage.collect.stages import open_data
from tutelage.compare_config import CandidateTable, CompareConfig
from tutelage.errors import DataError
from tutelage.jsonl import read_lines, write_lines, write_whole
from tutelage.pipeline.gate import Permission
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.records import TrainPrompt

COMPARED, CALIBRATION = "comparison", "calibration"
ITEMS, GOLD = Path("data") / "items.jsonl", Path("data") / "gold.json"
EXCHANGES = Path("collect") / "exchanges.jsonl"
RESULT = "comparison.json"


class Candidate(NamedTuple):
    """A teacher that the run file names, and the verdict on learning from it."""

    name: str
    table: CandidateTable
    permission: Permission


class Item(NamedTuple):
    """A question and what it is for: `COMPARED` or `CALIBRATION`."""

    kind: str
    prompt: TrainPrompt


def make_questions(config: CompareConfig, run: Run) -> Done:
    """The questions stage: items of the later run's training part, one of each group of near-duplicates."""
    table = config.data
    rows, origin = open_data(table)

    def work(scratch: Path) -> Facts:
        if rows.bad:
            run.progress.say(f"questions: {len(rows.bad)} bad rows skipped, the first at line {rows.bad[0].line}")
        return _write_items(config, rows, origin, run.folder)

    settings = {**table.model_dump(mode="json", exclude={"path", "accepted_risk"}), "labels": list(config.task.labels)}
    settings["seed"] = config.run.seed
    outputs = (ITEMS.as_posix(), GOLD.as_posix())
    done = run.stage("questions", 1, settings, {"file": origin.digest}, outputs, work)
    run.progress.say(
        f"questions: {done.facts['items']} items to compare on, {done.facts['calibration']} to calibrate on, all from the "
        "part that a later run with this seed and [data] trains on: none of them is in its held-out part"
    )
    return done


def _write_items(config: CompareConfig, rows: Rows, origin: Origin, folder: Path) -> Facts:
    """Comparison items from the front of the training order, calibration items from its end: each may grow without
    changing the other. Raises `DataError` for labels that are missing or all the same."""
    table, labels = config.data, config.task.labels
    _require_gold(rows.good, config, origin.source)
    split = split_rows(rows.good, table, labels, origin, config.run.seed)
    groups: dict[str, list[TrainPrompt]] = {}
    for prompt in split.train:
        groups.setdefault(prompt.group, []).append(prompt)
    said = {_id_of(row, origin): gold_label(row.gold, labels, table.gold_labels) for row in rows.good}
    order = list(groups.values())
    compared, used = _labelled(order, said, table.items)
    items = [Item(COMPARED, prompt) for prompt in compared]
    gold = {prompt.prompt_id: said[prompt.prompt_id] or "" for prompt in compared}
    if len(items) < table.items:
        raise DataError(
            f"{len(items)} training rows of {origin.source} that are no near-duplicates have a human label, "
            f"data.items = {table.items}",
            fix="lower data.items, label more rows, or raise data.train",
        )
    if len(set(gold.values())) == 1:
        raise DataError(
            f"all {len(items)} items to compare on are labelled {next(iter(gold.values()))!r}: whoever always says so wins",
            fix="bring labelled rows of at least two labels; check data.gold and data.gold_labels",
        )
    left = order[used:][::-1]
    if len(left) < table.calibration:
        raise DataError(
            f"{len(left)} groups of training rows are left for data.calibration = {table.calibration}",
            fix="lower data.calibration or data.items, or raise data.train",
        )
    items += [Item(CALIBRATION, members[0]) for members in left[: table.calibration]]
    write_lines(folder / ITEMS, ({"kind": item.kind, **item.prompt.to_json()} for item in items))
    write_whole(folder / GOLD, canonical(gold) + b"\n")
    counts = {label: list(gold.values()).count(label) for label in labels}
    bad = [row.line for row in rows.bad]
    return {"items": table.items, "calibration": table.calibration, "gold": counts, "bad_rows": bad}


def _labelled(
    groups: list[list[TrainPrompt]], said: dict[str, str | None], wanted: int
) -> tuple[list[TrainPrompt], int]:
    """The first prompt with a label of each group until there are enough, and how many groups were gone through."""
    found: list[TrainPrompt] = []
    for at, members in enumerate(groups):
        if len(found) == wanted:
            return found, at
        found += [prompt for prompt in members if said[prompt.prompt_id]][:1]
    return found, len(groups)


def _id_of(row: Row, origin: Origin) -> str:
    """As `collect.split` names a prompt."""
    return digest_of({"source": origin.digest, "line": row.line, "text": row.text})


def _require_gold(rows: tuple[Row, ...], config: CompareConfig, source: str) -> None:
    if not any(gold_label(row.gold, config.task.labels, config.data.gold_labels) for row in rows):
        raise DataError(
            f"no row of {source} has one of the labels {list(config.task.labels)} in column {config.data.gold!r}",
            fix="name the column with the human labels in data.gold; data.gold_labels says what its values mean",
        )


def read_items(folder: Path) -> list[Item]:
    """The items as the questions stage wrote them."""
    return [Item(value.pop("kind"), TrainPrompt.from_json(value)) for value in read_lines(folder / ITEMS)]
