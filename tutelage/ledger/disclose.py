"""Disclosures: one JSON file that shows one thing about a record, and nothing of the data that is not asked for.

`ledger.verify` checks them; docs/formats.md has their fields. All rest on the signed statement: a table of sources with
rows open or blinded, a record with its paths, records drawn by a beacon, or two checkpoints of one log.
"""

import base64
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from tutelage.canon import canonical
from tutelage.errors import ConfigError, DataError
from tutelage.ledger import sumtree, tiles
from tutelage.ledger.examples import field_salt, find_leaf, leaf_salt, leaf_tree, open_leaf, sum_tree
from tutelage.ledger.log import BEFORE_TRAINING
from tutelage.ledger.merkle import consistency_proof, inclusion_proof, leaf_hash
from tutelage.ledger.sources import TARGETS
from tutelage.ledger.statement import PAYLOAD_TYPE
from tutelage.ledger.verify import MAX_DRAWS, audit_places, folded, parse_checkpoint, parse_note

OPENABLE = ("exchange", "prompt", "answer", "logprobs")


class Sealed:
    """A sealed run whose data lie at hand: what disclosures are made from."""

    def __init__(self, run: Path) -> None:
        """Raises `ConfigError` when the run is not sealed, or its private part is not here."""
        self.run = run
        self.public = run / "provenance"
        self.examples = run / "ledger" / "examples"
        for path in (self.public / "statement.json", run / "store" / "run.key", self.examples):
            if not path.exists():
                raise ConfigError(f"{run} has no {path.relative_to(run)}", fix="give a run folder that ran to its end")
        self.key = bytes.fromhex((run / "store" / "run.key").read_text().strip())
        self.payload = (self.public / "statement.json").read_bytes()[:-1]
        self.predicate: dict[str, Any] = json.loads(self.payload)["predicate"]
        head = parse_checkpoint(parse_note((self.public / "checkpoint").read_text(encoding="utf-8")).text)
        if head.size != self.predicate["log"]["size"]:
            raise ConfigError(
                f"the log of {run} has grown since it was sealed ({head.size} entries, sealed with "
                f"{self.predicate['log']['size']})",
                fix="let the run end first: the same tutelage command again",
            )
        self.rows: list[dict[str, Any]] = json.loads((self.public / "sources.json").read_bytes())["rows"]

    def opening(self, about: str, **fields: Any) -> dict[str, Any]:
        """A disclosure: the statement with its signature, its checkpoint and the one from before training, how the two hang
        together, the entry that commits to the selection and the one that names what is stated; then `fields`."""
        sealed = self.public / "statement.dsse.json"
        unsigned = {"payload": _text(self.payload), "payloadType": PAYLOAD_TYPE, "signatures": []}
        log, size = self.predicate["log"], self.predicate["before_training"]["size"]
        kept = self.public / "checkpoints" / str(size)
        stored = tiles.Tiles(self.public / "tile", log["size"])
        line = (self.public / "sealed.json").read_bytes()[:-1]

        def subtree(start: int, end: int) -> bytes:
            return tiles.subtree(stored, start, end)

        found = {
            "kind": "tutelage-disclosure",
            "schema_version": 1,
            "about": about,
            "envelope": json.loads(sealed.read_bytes()) if sealed.exists() else unsigned,
            "checkpoint": (self.public / "checkpoint").read_text(encoding="utf-8"),
            "before_training": kept.read_text(encoding="utf-8"),
            "committed": (self.public / BEFORE_TRAINING).read_text(encoding="utf-8").rstrip("\n"),
            "committed_proof": _texts(inclusion_proof(size - 1, size, subtree)),
            "consistency_proof": _texts(consistency_proof(size, log["size"], subtree)),
            "sealed": line.decode(),
            "sealed_index": (index := stored.read(0, 0, log["size"]).index(leaf_hash(line))),
            "sealed_proof": _texts(inclusion_proof(index, log["size"], subtree)),
        }
        for name, field in (("signer.vkey", "signer"), ("signer.history.json", "history")):
            if (self.public / name).exists():
                found[field] = (self.public / name).read_text(encoding="utf-8").rstrip("\n")
        return found | fields


def share(sealed: Sealed, teacher: str, licence: str | None, blind: Collection[int] = ()) -> dict[str, Any]:
    """The source table, rows whose numbers are in `blind` as hashes alone: shows the share of one teacher, exactly when
    no row is blinded, else between bounds. Raises `ConfigError` for a row or a teacher that is not there."""
    if strangers := set(blind) - set(range(len(sealed.rows))):
        raise ConfigError(
            f"the source table has no row {min(strangers)}", fix=f"its rows are 0 to {len(sealed.rows) - 1}"
        )
    targets = [entry["row"] for entry in sealed.rows if entry["row"]["role"] in TARGETS]
    names = {(row["teacher"], row["licence"]) for row in targets}
    if not any(name == teacher and licence in (None, under) for name, under in names):
        known = " or ".join(sorted(f"{name} under {under or 'the terms of its route'}" for name, under in names))
        raise ConfigError(
            f"no loss token came from {teacher!r}" + (f" under {licence!r}" if licence is not None else ""),
            fix=f"name {known}, or disclose its absence",
        )
    question = {"teacher": teacher, **({} if licence is None else {"licence": licence})}
    table = [_blinded(entry) if at in blind else entry for at, entry in enumerate(sealed.rows)]
    return sealed.opening("share", question=question, table=table)


def absence(sealed: Sealed, teacher: str) -> dict[str, Any]:
    """The whole source table: shows that a teacher has no row in it. Raises `DataError` when it has one."""
    if rows := [entry["row"]["role"] for entry in sealed.rows if folded(entry["row"]["teacher"]) == folded(teacher)]:
        raise DataError(f"{teacher!r} is in the source table, as {', '.join(rows)}", fix="disclose its share instead")
    return sealed.opening("absence", question={"teacher": teacher}, table=sealed.rows)


def example(sealed: Sealed, position: int, role: str | None, values: dict[str, str]) -> dict[str, Any]:
    """The record of the example at a position of the selection, with its paths into its source's tree and into the
    selection; `values` are fields to open with it (`OPENABLE`), by their text. Raises `DataError` when it was not used.
    """
    for number, entry in enumerate(sealed.rows):
        row = entry["row"]
        if row["role"] == role or (role is None and row["role"] in TARGETS):
            index = find_leaf(sealed.examples, number, position)
            if index is not None:
                opened = open_record(sealed, number, index)
                opened["open"] = {
                    name: {"salt": field_salt(sealed.key, name, position).hex(), "value": value}
                    for name, value in values.items()
                }
                return sealed.opening("example", table=sealed.rows, **opened)
    raise DataError(f"example {position} was not trained on as {role or 'a target'}", fix="see curate/selection.json")


def audit(sealed: Sealed, beacon: str, draws: int) -> dict[str, Any]:
    """Opens the examples on which `draws` loss tokens fall that the beacon picks. For an auditor: sums are shown.

    Raises `ConfigError` for an empty beacon or a number of draws outside 1 to 10,000.
    """
    if not beacon.strip() or not 0 < draws <= MAX_DRAWS:
        raise ConfigError(
            f"an audit needs a beacon and 1 to {MAX_DRAWS:,} draws, not {beacon!r} and {draws}",
            fix="take a public value that nobody knew when the record was sealed, for instance a drand round",
        )
    stated = sealed.predicate["sources"]
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for place in audit_places(stated["root"], beacon, draws, stated["loss_tokens"]):
        number, rest = _row_under(sealed.rows, place)
        tree = sum_tree(sealed.examples, number)
        index = tiles.leaf_under(tree, tree.size, rest, _total, sumtree.combine)
        if (number, index) not in found:
            proof = inclusion_proof(
                index, tree.size, lambda a, b, tree=tree: tiles.subtree(tree, a, b, sumtree.combine)
            )
            found[number, index] = open_record(sealed, number, index) | {"sum_proof": _texts(proof)}
    openings = [found[key] for key in sorted(found)]
    return sealed.opening("audit", beacon=beacon, draws=draws, table=sealed.rows, openings=openings)


def consistency(sealed: Sealed, old: str) -> dict[str, Any]:
    """Shows that the log at an older checkpoint (its text) is a beginning of the log now. Raises `DataError` when it is
    not a checkpoint of this log."""
    try:
        before = parse_checkpoint(parse_note(old).text)
        now = sealed.predicate["log"]
        if before.origin != now["origin"]:
            raise ValueError(f"it is of the log {before.origin!r}")
        stored = tiles.Tiles(sealed.public / "tile", now["size"])
        proof = consistency_proof(before.size, now["size"], lambda start, end: tiles.subtree(stored, start, end))
    except ValueError as error:
        raise DataError(f"that is no older checkpoint of this run: {error}", fix="see provenance/checkpoints") from None
    return sealed.opening("consistency", old=old, proof=_texts(proof))


def open_record(sealed: Sealed, number: int, index: int) -> dict[str, Any]:
    """Leaf `index` of row `number`: record, salt, and its paths (base64) in the row's tree and in the selection."""
    opened = open_leaf(sealed.examples, number, index)
    tree = leaf_tree(sealed.examples, number)
    selection = tiles.Levels(sealed.run / "ledger" / "selection")
    role = sealed.rows[number]["row"]["role"]
    proof = inclusion_proof(index, tree.size, lambda start, end: tiles.subtree(tree, start, end))
    chosen = inclusion_proof(opened.position, selection.size, lambda start, end: tiles.subtree(selection, start, end))
    return {
        "row": number,
        "index": index,
        "record": json.loads(opened.line),
        "salt": leaf_salt(sealed.key, role, opened.position).hex(),
        "proof": _texts(proof),
        "selection_proof": _texts(chosen),
    }


def _blinded(entry: dict[str, Any]) -> dict[str, str]:
    return {"hash": "sha256:" + leaf_hash(bytes.fromhex(entry["salt"]) + canonical(entry["row"])).hex()}


def _row_under(rows: Sequence[dict[str, Any]], place: int) -> tuple[int, int]:
    """The row on which a loss token falls, and the rest within it."""
    for number, entry in enumerate(rows):
        tokens = entry["row"]["loss_tokens"]
        if place < tokens:
            return number, place
        place -= tokens
    raise ValueError(f"no row has loss token {place}")


def _total(node: bytes) -> int:
    return sumtree.taken_apart(node).total


def _texts(nodes: Iterable[bytes]) -> list[str]:
    return [_text(node) for node in nodes]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
