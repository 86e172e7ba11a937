"""Disclosures: each kind holds, says what is so and no more, and none of its fields can be changed to say something else."""

import copy
import functools
import gzip
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.conftest import EXAMPLES, Record
from tests.ledger.made import Example, make, new_signer
from tutelage.canon import canonical, digest_bytes
from tutelage.errors import ConfigError, DataError
from tutelage.jsonl import pretty
from tutelage.ledger import disclose, examples, verify
from tutelage.ledger.statement import envelope
from tutelage.ledger.verify import Result, Trust
from tutelage.pipeline.opening import blinded_values, position_of

Disclosure = dict[str, Any]
TOTAL = sum(count for example in EXAMPLES for step in example.steps for count in step.values())


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Result]:
    def work(value: Disclosure | bytes, trust: Trust | None = None) -> Result:
        path = tmp_path / "disclosure.json"
        path.write_bytes(value if isinstance(value, bytes) else pretty(value))
        return verify.verify(path, trust)

    return work


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same signatures are checked over and over: once is enough."""
    monkeypatch.setattr(verify, "ed25519_verify", functools.lru_cache(maxsize=None)(verify.ed25519_verify))


def sealed(record: Record) -> disclose.Sealed:
    return disclose.Sealed(record.run)


def kept(record: Record) -> str:
    return next((record.run / "provenance" / "checkpoints").iterdir()).read_text()


def kinds(record: Record) -> dict[str, Disclosure]:
    one = sealed(record)
    return {
        "share": disclose.share(one, "elm", "MIT"),
        "blinded share": disclose.share(one, "elm", None, [0, 3]),
        "absence": disclose.absence(one, "gpt-9"),
        "example": disclose.example(one, 2, None, blinded_values(record.run, 2, ("answer", "prompt", "exchange"))),
        "audit": disclose.audit(one, "round 1", 2),
        "consistency": disclose.consistency(one, kept(record)),
    }


def holds(result: Result) -> bool:
    return not result.findings


def test_every_kind_holds_under_the_key_and_under_the_root(record: Record, check: Callable[..., Result]) -> None:
    root = verify.verify(record.run).root
    for value in kinds(record).values():
        for trust in (None, Trust(key=record.signer.verification_key), Trust(root=root)):
            assert holds(check(value, trust)), value["about"]
        assert check(value).tier[0].startswith("L0 signed by example.org/ada+")
        assert check(value, Trust(key=record.signer.verification_key)).tier[0].startswith("L0 signed claim: ")
        assert check(value, Trust(root=root)).tier[-1].startswith("what is stated is in the log whose root you trust")
        for trust in (Trust(key=new_signer().verification_key), Trust(root="sha256:" + 64 * "0")):
            assert not holds(check(value, trust)), value["about"]


def test_shares_are_exact(record: Record, check: Callable[..., Result]) -> None:
    one = sealed(record)
    for teacher, licence in (("oak", "MIT"), ("elm", "MIT"), ("elm", None), ("elm", "Apache-2.0")):
        mine = sum(
            count for example in EXAMPLES for step in example.steps for count in step.values()
            if example.teacher == teacher and licence in (None, example.licence)
        )  # fmt: skip
        said = check(disclose.share(one, teacher, licence)).shares[0]
        percent = float(said.split(" %")[0])
        assert f" of the {TOTAL:,} loss tokens came from {teacher!r}" in said
        assert f": {mine:,}, of " in said
        assert 0 <= 100 * mine / TOTAL - percent < 1e-4


@pytest.mark.parametrize(("part", "whole", "down", "up"), [
    (1, 3, "33.3333 %", "33.3334 %"), (2, 3, "66.6666 %", "66.6667 %"), (1, 1, "100 %", "100 %"), (0, 7, "0 %", "0 %"),
    (10**9 - 1, 10**9, "99.9999 %", "100 %"), (1, 10**9, "0 %", "0.0001 %"), (1, 4, "25 %", "25 %"),
])  # fmt: skip
def test_percentages_never_say_more_than_is_so(part: int, whole: int, down: str, up: str) -> None:
    assert (verify._percent(part, whole), verify._percent(part, whole, up=True)) == (down, up)


@pytest.mark.parametrize("number", range(8))
def test_bounds_of_a_blinded_table_contain_the_truth_and_are_called_bounds(
    record: Record, check: Callable[..., Result], number: int
) -> None:
    one = sealed(record)
    for blind in ([number], [number, (number + 3) % 8], [at for at in range(8) if at != number], list(range(8))):
        for teacher in ("elm", "oak"):
            value = disclose.share(one, teacher, None, blind)
            said = check(value).shares[0]
            low, high = re.match(r"at least ([\d.]+) %, at most ([\d.]+) % of the ", said).groups()  # type: ignore[union-attr]
            mine = sum(
                entry["row"]["loss_tokens"] for entry in one.rows
                if entry["row"]["teacher"] == teacher and entry["row"]["role"] in verify.TARGETS
            )  # fmt: skip
            assert float(low) <= 100 * mine / TOTAL <= float(high)
            assert "exact" not in said
            shown = pretty({"table": value["table"]})
            assert not [at for at in blind if one.rows[at]["salt"].encode() in shown]
            assert not [at for at in blind if one.rows[at]["row"]["leaves"].encode() in shown]


def test_a_blinded_row_is_no_guess_away(record: Record) -> None:
    """Whoever knows the row but not its salt cannot tell that it is the one."""
    one = sealed(record)
    hidden = disclose.share(one, "oak", None, [0])["table"][0]["hash"]
    row = canonical(one.rows[0]["row"])
    assert hidden not in {digest_bytes(row), digest_bytes(b"\x00" + row), digest_bytes(b"\x00" + bytes(32) + row)}


def test_names_are_shown_for_what_they_are(record: Record, check: Callable[..., Result]) -> None:
    one = sealed(record)
    said = check(disclose.share(one, "elm", None) | {"question": {"teacher": "elm under MIT"}}).shares[0]
    assert said.startswith("0 % of the ")
    assert "came from 'elm under MIT'" in said
    cyrillic = check(disclose.absence(one, "о\u0430k")).shares[0]  # o and a of another alphabet
    assert "\\u043e\\u0430k" in cyrillic
    for question in ({}, {"licence": "MIT"}, {"teacher": ["elm"]}, {"teacher": "elm", "role": "x"}, {"teacher": None}):
        value = disclose.share(one, "elm", None)
        value["question"] = question
        assert not holds(check(value)), question


@pytest.mark.parametrize("teacher", ["elm", "ELM", " elm", "e l m", "elm\u00a0", "tiny", "topics.csv"])
def test_absence_is_never_shown_of_somebody_who_is_there(
    record: Record, check: Callable[..., Result], teacher: str
) -> None:
    value = disclose.absence(sealed(record), "gpt-9")
    assert holds(check(value))
    value["question"] = {"teacher": teacher}
    assert not holds(check(value))


def test_a_share_of_somebody_who_has_no_row_is_not_disclosed(record: Record) -> None:
    with pytest.raises(ConfigError, match="no loss token came from 'oka'") as told:
        disclose.share(sealed(record), "oka", None)
    assert "elm or oak" in told.value.fix


def test_absence_needs_the_whole_table(record: Record, check: Callable[..., Result]) -> None:
    one = sealed(record)
    value = disclose.absence(one, "gpt-9")
    value["table"] = disclose.share(one, "oak", None, [4])["table"]
    assert not holds(check(value))
    value = disclose.absence(one, "gpt-9")
    del value["table"][4]
    assert not holds(check(value))


def test_an_example_shows_its_record_and_what_is_opened(record: Record, check: Callable[..., Result]) -> None:
    one = sealed(record)
    values = blinded_values(record.run, 301, ("answer", "prompt"))
    value = disclose.example(one, 301, "text-target", values)
    result = check(value)
    assert result.shares[0] == "this example was used as text-target: 1 loss tokens, from elm under Apache-2.0"
    assert result.shares[1:] == ("answer: no", 'prompt: [{"content":"question 301","role":"user"}]')
    closed = pretty(disclose.example(one, 301, "text-target", {}))
    assert b"question 301" not in closed
    assert b"open_" not in closed
    for name in disclose.OPENABLE:
        assert examples.field_salt(record.key, name, 301).hex().encode() not in closed, "a salt is shown with its value"
    assert position_of(record.run, f"sha256:{_prompt_id(301)}", None) == 301


def _prompt_id(at: int) -> str:
    return digest_bytes(b"prompt %d" % at).removeprefix("sha256:")


def test_an_example_that_was_not_used_has_no_proof(record: Record) -> None:
    one = sealed(record)
    for position, role in ((323, None), (320, "soft-target"), (0, "judge"), (10**6, None)):
        with pytest.raises(DataError, match="was not trained on"):
            disclose.example(one, position, role, {})


@pytest.mark.parametrize("position", [0, 255, 256, 299, 300, 322])
def test_examples_at_the_edges_of_tiles(record: Record, check: Callable[..., Result], position: int) -> None:
    assert holds(check(disclose.example(sealed(record), position, None, {})))
    assert holds(check(disclose.example(sealed(record), position, "prompt-author", {})))


def test_a_salt_with_blanks_does_not_move_a_byte_into_the_value(record: Record, check: Callable[..., Result]) -> None:
    """bytes.fromhex skips blanks: 31 bytes of salt and a value one letter longer would have the same hash."""
    for position in range(300):
        salt = examples.field_salt(record.key, "answer", position)
        if 32 < salt[-1] < 127:
            break
    value = disclose.example(sealed(record), position, None, blinded_values(record.run, position, ("answer",)))
    assert holds(check(value))
    opening = value["open"]["answer"]
    assert bytes.fromhex(opening["salt"][:62] + "  ") + (chr(salt[-1]) + opening["value"]).encode() == (
        salt + opening["value"].encode()
    )
    value["open"]["answer"] = {"salt": opening["salt"][:62] + "  ", "value": chr(salt[-1]) + opening["value"]}
    assert not holds(check(value))


def test_an_audit_opens_what_the_beacon_draws(record: Record, check: Callable[..., Result]) -> None:
    one = sealed(record)
    value = disclose.audit(one, "round 1", 60)
    result = check(value)
    assert holds(result)
    assert result.shares[0].startswith("drawn by the beacon 'round 1': proof only if you know that nobody knew it when")
    assert result.shares[1].startswith("had 4.9 % of the ")
    places = verify.audit_places(one.predicate["sources"]["root"], "round 1", 60, TOTAL)
    spans, so_far = [], 0
    for number, entry in enumerate(one.rows):
        for index in range(entry["row"]["examples"]):
            tokens = json.loads(examples.open_leaf(one.examples, number, index).line)["tokens"]["loss"]
            spans.append((so_far, so_far + tokens, number, index))
            so_far += tokens
    wanted = {(number, index) for place in places for start, end, number, index in spans if start <= place < end}
    assert {(opening["row"], opening["index"]) for opening in value["openings"]} == wanted


@pytest.fixture(scope="module")
def audited(record: Record) -> Disclosure:
    return disclose.audit(sealed(record), "round 1", 60)


@pytest.mark.parametrize("change", [
    {"beacon": "round 2"}, {"beacon": ""}, {"beacon": " "}, {"beacon": 5}, {"draws": 0}, {"draws": 61}, {"draws": -1},
    {"draws": 10_001}, {"draws": True}, {"draws": "60"}, {"openings": []}, {"openings": {}},
], ids=str)  # fmt: skip
def test_an_audit_of_another_draw_is_refused(
    audited: Disclosure, check: Callable[..., Result], change: Disclosure
) -> None:
    assert not holds(check(audited | change))


def test_an_audit_with_one_example_kept_back_is_refused(record: Record, check: Callable[..., Result]) -> None:
    value = disclose.audit(sealed(record), "round 1", 30)
    for at in range(len(value["openings"])):
        less = value | {"openings": value["openings"][:at] + value["openings"][at + 1 :]}
        assert not holds(check(less))


def test_an_audit_of_a_blinded_table_is_refused(record: Record, check: Callable[..., Result]) -> None:
    one = sealed(record)
    table = disclose.share(one, "oak", None, [0])["table"]
    assert not holds(check(disclose.audit(one, "round 1", 5) | {"table": table}))


@pytest.mark.parametrize(("beacon", "draws"), [("", 5), ("  ", 5), ("x", 0), ("x", -3), ("x", 10_001)])
def test_an_audit_needs_a_beacon_and_draws(record: Record, beacon: str, draws: int) -> None:
    with pytest.raises(ConfigError, match="an audit needs a beacon"):
        disclose.audit(sealed(record), beacon, draws)


def test_consistency_names_the_older_root(record: Record, check: Callable[..., Result]) -> None:
    value = disclose.consistency(sealed(record), kept(record))
    old = verify.parse_checkpoint(verify.parse_note(kept(record)).text)
    assert f"sha256:{old.root.hex()}" in check(value).shares[0]
    assert holds(check(value, Trust(root=f"sha256:{old.root.hex()}"))), "whoever trusts the older log can use it"
    assert len(check(value, Trust(root=f"sha256:{old.root.hex()}")).tier) == 2, "and trusts no more by it"


@pytest.mark.parametrize("old", ["", "nonsense\n", "other/log\n5\n" + 43 * "A" + "=\n"])
def test_consistency_with_something_else_is_not_disclosed(record: Record, old: str) -> None:
    with pytest.raises(DataError, match="no older checkpoint of this run"):
        disclose.consistency(sealed(record), old)
    future = kept(record).replace("\n10\n", "\n800\n", 1)
    with pytest.raises(DataError, match="no older checkpoint of this run"):
        disclose.consistency(sealed(record), future)


def test_a_rewritten_history_is_not_consistent(record: Record, check: Callable[..., Result], tmp_path: Path) -> None:
    """The same run key and signer, other examples before the older checkpoint."""
    other = make(tmp_path / "other", EXAMPLES[:5], record.signer, record.key)
    value = disclose.consistency(disclose.Sealed(other), kept(record._replace(run=other)))
    assert holds(check(value))
    value["old"] = kept(record)
    assert not holds(check(value))


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


def test_a_value_of_another_field_is_not_taken(record: Record, check: Callable[..., Result]) -> None:
    value = disclose.example(sealed(record), 3, None, blinded_values(record.run, 3, ("answer", "prompt")))
    value["open"]["answer"], value["open"]["prompt"] = value["open"]["prompt"], value["open"]["answer"]
    assert not holds(check(value))
    value = disclose.example(sealed(record), 3, None, {})
    value["open"] = {"licence": {"salt": 64 * "0", "value": "CC0-1.0"}}
    assert not holds(check(value))


def test_a_record_in_the_row_of_another_teacher_is_refused(
    tmp_path: Path, check: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prover signs a table that lays elm's answers into oak's row: the record itself says whose it is."""
    real = examples.records

    def moved(run_key: bytes, taken: examples.Taken) -> Iterator[tuple[examples.Key, dict[str, Any]]]:
        for key, record in real(run_key, taken):
            yield (("oak", *key[1:]) if key[0] == "elm" else key), record

    monkeypatch.setattr(examples, "records", moved)
    run = make(tmp_path / "run", [Example("elm"), Example("oak"), Example("elm")], new_signer())
    assert any("came from" in found.what for found in verify.verify(run).findings)
    one = disclose.Sealed(run)
    assert holds(check(disclose.example(one, 1, None, {})))
    result = check(disclose.example(one, 0, None, {}))
    assert "not from the source its row names" in result.findings[0].what
    assert result.shares == ()


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
