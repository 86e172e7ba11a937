"""What became of each exchange, from the files that stages wrote: asked by whom, kept or dropped, stepped on, proved with."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.errors import DataError
from tutelage.view.runs import read_json, read_rows
from tutelage.view.scores import scored
from tutelage.view.slices import SPAN
from tutelage.view.talks import TO_TRAIN, TRAINED

_PROMPTS, _QUESTIONS, _ITEMS = "data/prompts.jsonl", "data/questions.jsonl", "data/items.jsonl"
_COLLECTED, _PROVED = "collect/exchanges.jsonl", "prove/exchanges.jsonl"
_SELECTION, _DROPS = "curate/selection.json", "curate/drops.jsonl"
_CONSUMED, _SCORES = "train/consumed.jsonl", "prove/scores.jsonl"
FILES = (_PROMPTS, _QUESTIONS, _ITEMS, _COLLECTED, _PROVED, _SELECTION, _DROPS, _CONSUMED, _SCORES)


class Lineage:
    """The files of one run folder that tell where its exchanges went."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of each that is there."""
        found = {}
        for name in FILES:
            try:
                stat = (self.folder / name).stat()
            except OSError:
                continue
            found[name] = stat.st_size, stat.st_mtime_ns
        return found

    def load(self, database: sqlite3.Connection, stop: threading.Event) -> bool:
        """Reads them into the index in one transaction, unless they and the exchanges are as they were; whether it did. Raises
        `DataError`."""
        files = self.files()
        known = {name: (size, at) for name, size, at in database.execute("SELECT * FROM file").fetchall()}
        examples = database.execute("SELECT coalesce(sum(examples), 0) FROM segment").fetchone()[0]
        if known == files | {"examples": (examples, 0)}:
            return False
        database.execute("BEGIN IMMEDIATE")
        try:
            for table in ("file", "prompt", "taken", "proved", "judged", "score"):
                database.execute(f"DELETE FROM {table}")
            database.execute(
                f"""UPDATE example SET who = maker, stage = '', prompt = '', fate = '', why = '', place = -1, correct = '',
                    differs = '' WHERE id >= {SPAN} AND (stage != '' OR prompt != '' OR fate != '')"""
            )
            database.execute(f"UPDATE example SET fate = ? WHERE id < {SPAN} AND fate = ?", (TO_TRAIN, TRAINED))
            for step in (self._prompts, self._asked, self._kept, self._taken, self._scored):
                if stop.is_set():
                    break
                step(database)
            if stop.is_set():
                database.execute("ROLLBACK")
                return False
            rows = [(name, size, at) for name, (size, at) in (files | {"examples": (examples, 0)}).items()]
            database.executemany("INSERT INTO file VALUES (?, ?, ?)", rows)
            database.execute("COMMIT")
            return True
        except BaseException as error:
            database.execute("ROLLBACK")
            if isinstance(error, KeyError | TypeError | ValueError | AttributeError) and not isinstance(
                error, DataError
            ):
                raise DataError(
                    f"what the stages of {self.folder} wrote is not in this version's shape: {error!r:.200}",
                    fix="`tutelage verify` on the folder tells what differs",
                ) from error
            raise

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        yield from read_rows(self.folder / name)

    def _prompts(self, database: sqlite3.Connection) -> None:
        rows = ((row["prompt_id"], row["kind"], row["source"], row["licence"]) for row in self._rows(_PROMPTS))
        database.executemany("INSERT OR IGNORE INTO prompt VALUES (?, ?, ?, ?)", rows)
        rows = ((row["prompt_id"], "train", row["source"], row["licence"]) for row in self._rows(_QUESTIONS))
        database.executemany("INSERT OR IGNORE INTO prompt VALUES (?, ?, ?, ?)", rows)
        items = (
            (row["prompt_id"], row.get("kind", "held out"), row["source"], row["licence"]) for row in self._rows(_ITEMS)
        )
        database.executemany("INSERT OR IGNORE INTO prompt VALUES (?, ?, ?, ?)", items)

    def _asked(self, database: sqlite3.Connection) -> None:
        """Who was asked what: where a stage names its systems or candidates, their names; one answer may be of several."""
        change = """UPDATE example SET prompt = :prompt, stage = :stage, who = CASE
                      WHEN :who = '' OR (stage = :stage AND who = :who) THEN who
                      WHEN stage = :stage THEN who || ', ' || :who ELSE :who END
                    WHERE address = :address"""
        for stage, name in (("collect", _COLLECTED), ("prove", _PROVED)):
            database.executemany(change, (_asked_row(stage, row) for row in self._rows(name)))
        judged = ((_key(row["address"]), row["item"], row["system"]) for row in self._rows(_PROVED) if "item" in row)
        database.executemany("INSERT OR IGNORE INTO judged VALUES (?, ?, ?)", judged)
        # "student scores" is a call that scored a text: it answers nothing. No system's name holds a blank.
        named = (
            _asked_row("prove", row)
            for row in self._rows(_PROVED)
            if "system" in row and not row["system"].endswith(" scores")
        )
        if database.executemany("INSERT OR IGNORE INTO proved VALUES (:prompt, :who, :address)", named).rowcount < 1:
            database.execute(
                """INSERT OR IGNORE INTO proved SELECT prompt, who, address FROM example WHERE stage = 'prove'
                   ORDER BY id"""
            )

    def _kept(self, database: sqlite3.Connection) -> None:
        selection = read_json(self.folder / _SELECTION)
        if selection is None:
            return
        change = "UPDATE example SET fate = ?, why = ?, place = ? WHERE digest = ?"
        for kind, fate in (("train", "trained on"), ("validation", "tuned by")):
            rows = ((fate, "", place, _key(row["exchange"])) for place, row in enumerate(selection[kind]))
            database.executemany(change, rows)
        drops = (
            ("dropped", f"{row['filter']} {row['filter_version']}: {row['reason']}"[:500], -1, _key(row["exchange"]))
            for row in self._rows(_DROPS)
        )
        # The same answer may serve two prompts: where one of them was kept, the exchange was.
        database.executemany(change + " AND fate = ''", drops)

    def _taken(self, database: sqlite3.Connection) -> None:
        taken: dict[tuple[str, str], list[int]] = {}
        for step in self._rows(_CONSUMED):
            names = step.get("exchanges", step.get("examples", ()))
            for exchange, by_role in zip(names, step["loss_tokens"], strict=False):
                for role, tokens in by_role.items():
                    one = taken.setdefault((exchange, role), [0, 0])
                    one[0] += tokens
                    one[1] += 1
        rows = ((_key(exchange), role, tokens, steps) for (exchange, role), (tokens, steps) in taken.items())
        database.executemany("INSERT INTO taken VALUES (?, ?, ?, ?)", rows)
        database.execute(
            f"UPDATE example SET fate = ? WHERE id < {SPAN} AND digest IN (SELECT digest FROM taken)", (TRAINED,)
        )

    def _scored(self, database: sqlite3.Connection) -> None:
        verdicts, scores = [], []
        for place, row in enumerate(self._rows(_SCORES)):
            found = scored(row)
            if found is None:
                continue  # another kind of proof
            ppm = {one.who: one.gold_ppm for one in found.outcomes}
            outcomes = json.dumps(found.outcomes)
            scores.append((place, found.prompt, found.gold, outcomes, ppm["teacher"], ppm["student"], found.differs))
            said = "differs" if found.differs else "agrees"
            verdicts += [(one.mark, said, found.prompt, one.who) for one in found.outcomes]
        database.executemany("INSERT OR IGNORE INTO score VALUES (?, ?, ?, ?, ?, ?, ?)", scores)
        change = """UPDATE example SET correct = ?, differs = ? WHERE stage = 'prove'
                    AND address = (SELECT address FROM proved WHERE prompt = ? AND who = ?)"""
        database.executemany(change, verdicts)


def _asked_row(stage: str, row: dict[str, Any]) -> dict[str, Any]:
    who = str(row.get("system", row.get("teacher", "")))
    return {"stage": stage, "prompt": row["prompt"], "who": who, "address": _key(row["address"])}


def _key(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))
