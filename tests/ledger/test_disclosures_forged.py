"""Disclosures made by somebody else: fields changed, tables forged, and input that is made to confuse a reader."""

import copy
import gzip
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.conftest import Record
from tests.ledger.made import new_signer
from tests.ledger.test_disclose import Disclosure, holds, kinds, sealed
from tutelage.canon import canonical, digest_bytes
from tutelage.jsonl import pretty
from tutelage.ledger import disclose, verify
from tutelage.ledger.statement import envelope
from tutelage.ledger.verify import Result, Trust


def mutations(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place in a JSON value with what may be put there instead; `...` takes it away."""
    if path:
        yield path, ...
    if isinstance(value, dict):
        for name, item in value.items():
            yield from mutations(item, (*path, name))
    elif isinstance(value, list):
        if value != value[::-1]:
            yield path, value[::-1]
        yield path, [*value, value[0]] if value else ["x"]
        for at, item in enumerate(value):
            yield from mutations(item, (*path, at))
    elif isinstance(value, str):
        middle = len(value) // 2
        other = "A" if value[middle : middle + 1] != "A" else "B"
        yield path, value[:middle] + other + value[middle + 1 :]
        yield path, value + " "
        if value:
            yield path, ""
    elif value is None:
        yield path, "x"
    elif not isinstance(value, bool):
        for other in (value + 1, value - 1, -value - 1, 2**63, str(value), float(value)):
            yield path, other


def changed(value: Disclosure, path: tuple[Any, ...], to: Any) -> Disclosure:
    result = copy.deepcopy(value)
    at = result
    for step in path[:-1]:
        at = at[step]
    if to is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return result


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["share", "blinded share", "absence", "example", "audit", "consistency"])
def test_no_field_can_be_changed_to_say_something_else(small: Record, check: Callable[..., Result], kind: str) -> None:
    """What still verifies says nothing that the disclosure did not say. What it is asked is no field of the proof."""
    value = kinds(small)[kind]
    trust = Trust(key=small.signer.verification_key)
    before = check(value, trust)
    assert holds(before)
    accepted = []
    for path, to in mutations(
        {name: item for name, item in value.items() if name not in ("question", "beacon", "draws")}
    ):
        after = check(changed(value, path, to), trust)
        if holds(after):
            accepted.append((path, to))
            assert set(after.shares) <= set(before.shares), (path, to)
            assert after.root == before.root, (path, to)
            assert after.tier[0] == before.tier[0], (path, to)
            assert after.tier[1] == before.tier[1] or after.tier[1].startswith("L1 not claimed: ")
    # A key of one's own is at hand, a signature before training may be lost (L1 then is), less may be opened, or twice.
    harmless = {"signer", "before_training", "old", "open", "openings"}
    assert {path[0] for path, _ in accepted} <= harmless, accepted


def forged(record: Record, change: Callable[[list[Disclosure]], None]) -> Disclosure:
    """A share by somebody who has everything but the key: table, root, totals and statement agree, and are signed."""
    one = sealed(record)
    value = disclose.share(one, "elm", None)
    change(value["table"])
    rows = [entry["row"] for entry in value["table"]]
    hashes = [verify.leaf(bytes.fromhex(entry["salt"]) + canonical(entry["row"])) for entry in value["table"]]
    stated = json.loads(one.payload)
    stated["predicate"]["sources"] = {
        "root": "sha256:" + verify.root_of(hashes).hex(),
        "rows": len(rows),
        "loss_tokens": sum(row["loss_tokens"] for row in rows),
    }
    thief = new_signer()
    sealing = json.loads(value["sealed"])
    names = {name: stated["predicate"][name] for name in verify.STATED}
    terms = [{name: item for name, item in term.items() if name != "date"} for term in stated["predicate"]["terms"]]
    sealing["config"] = {"statement": digest_bytes(canonical({**names, "terms": terms, "subject": stated["subject"]}))}
    head = verify.parse_note(value["checkpoint"]).text
    return value | {
        "envelope": envelope(canonical(stated), thief),
        "checkpoint": thief.note(head),
        "before_training": thief.note(verify.parse_note(value["before_training"]).text),
        "signer": thief.verification_key,
        "sealed": canonical(sealing).decode(),
    }


@pytest.mark.parametrize("field", ["licence", "teacher", "loss_tokens"])
def test_a_forged_table_fails_under_the_key_and_under_the_root(
    record: Record, check: Callable[..., Result], field: str
) -> None:
    def edit(table: list[Disclosure]) -> None:
        row = next(entry["row"] for entry in table if entry["row"]["teacher"] == "oak")
        row[field] = {"licence": "CC0-1.0", "teacher": "oaken", "loss_tokens": 1}[field]

    value = forged(record, edit)
    root = verify.verify(record.run).root
    for trust in (Trust(key=record.signer.verification_key), Trust(root=root), None):
        result = check(value, trust)
        assert not holds(result)
        assert result.shares == ()
        assert result.tier == ()
    unchanged = forged(record, lambda table: None)
    assert not holds(check(unchanged, Trust(key=record.signer.verification_key)))
    assert holds(check(unchanged, Trust(root=root))), "it says what the record says, whoever signs"


@pytest.mark.parametrize("data", [
    b"", b"{}", b"[]", b"5", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b'{"kind": NaN}',
    b'{"kind": 1e5}', b'{"kind": ' + b"9" * 10_000 + b"}", b'{"kind": "tutelage-disclosure", "kind": "x"}',
    b'{"kind": "tutelage-disclosure", "schema_version": 2}', b'{"kind": "tutelage-disclosure", "schema_version": 1}',
    b'{"kind": "\\ud800", "schema_version": 1}',
], ids=lambda data: repr(data[:30]))  # fmt: skip
def test_hostile_json_is_a_finding(check: Callable[..., Result], data: bytes) -> None:
    result = check(data)
    assert len(result.findings) == 1
    assert result.findings[0].where == "disclosure.json"


def test_archives_are_not_unpacked(check: Callable[..., Result], small: Record, tmp_path: Path) -> None:
    data = pretty(disclose.share(sealed(small), "elm", None))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("disclosure.json", bytes(50_000_000))
    for packed in (gzip.compress(data), gzip.compress(bytes(50_000_000)), (tmp_path / "bomb.zip").read_bytes(),
                   b"BZh9" + data, b"\x28\xb5\x2f\xfd" + data, b"\xfd7zXZ" + data):  # fmt: skip
        result = check(packed)
        assert "is an archive or compressed" in result.findings[0].what


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert "not a regular file of at most" in verify.verify(path).findings[0].what


def test_what_is_shown_obeys_no_terminal(check: Callable[..., Result], small: Record) -> None:
    value = disclose.example(sealed(small), 2, None, {}) | {"about": "\x1b[2J\x1b[31mOK"}
    lines = verify.told(check(value))
    assert lines[-1].startswith("FAILED")
    assert not [line for line in lines if not line.isprintable()]
    value = disclose.share(sealed(small), "elm", None) | {"question": {"teacher": "elm\x1b[8m\u202e"}}
    assert not [line for line in verify.told(check(value)) if not line.isprintable()]
