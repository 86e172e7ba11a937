"""Disclosures: each kind holds, says what is so and no more, and none of its fields can be changed to say something else."""

import json
import re
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
from tutelage.ledger.verify import Result, Trust
from tutelage.pipeline.opening import blinded_values, position_of
from tutelage.pipeline.run import Run
from tutelage.progress import Quiet, Stop

Disclosure = dict[str, Any]
TOTAL = sum(count for example in EXAMPLES for step in example.steps for count in step.values())


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
    assert "elm under MIT or oak under MIT" in told.value.fix
    with pytest.raises(ConfigError, match="no loss token came from 'elm'"):
        disclose.share(sealed(record), "elm", "MTI")


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


def test_a_log_that_grew_since_it_was_sealed_is_told(copied: Record) -> None:
    with Run(copied.run, Quiet(), Stop(), copied.signer) as run:
        run.stage("later", 1, {}, {}, (), lambda scratch: {})
    with pytest.raises(ConfigError, match="has grown since it was sealed"):
        disclose.Sealed(copied.run)


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
