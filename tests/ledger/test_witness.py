"""A witness sees one history of a log, says when, and is believed for that time alone."""

import json
import shutil
from pathlib import Path

import pytest

from tests.ledger.conftest import Record
from tests.ledger.made import Example, make, new_signer
from tests.ledger.test_keys import history_of, revocation
from tutelage.canon import canonical
from tutelage.errors import ConfigError, DataError
from tutelage.jsonl import pretty
from tutelage.ledger.statement import envelope
from tutelage.ledger.verify import Trust, cosigned_at, parse_key, parse_note, verify
from tutelage.ledger.witness import cosign

EVE = new_signer("example.org/eve")
EARLY = 1_000_000_000  # 2001: before any record here was sealed
LATE = 4_000_000_000


def kept(run: Path) -> Path:
    return next((run / "provenance" / "checkpoints").iterdir())


def test_a_cosigned_record_holds_and_says_when(copied: Record) -> None:
    before = kept(copied.run).read_text()
    done = cosign(copied.run, EVE, EARLY)
    assert (done.path, done.posix_s, done.witness_key) == (kept(copied.run), EARLY, EVE.witness_key)
    assert kept(copied.run).read_text().startswith(before)
    trust = Trust(key=copied.signer.verification_key, witness=EVE.witness_key)
    result = verify(copied.run, trust)
    assert result.findings == ()
    assert result.tier[1].startswith("L1: a witness you trust saw the selection committed at 2001-09-09T01:46:40Z; ")
    assert verify(copied.run / "provenance", trust).tier == result.tier
    assert verify(copied.run).findings == (), "whoever does not know the witness passes it over"


def test_a_witness_who_came_after_the_sealing_shows_nothing_about_before_training(copied: Record) -> None:
    cosign(copied.run, EVE, LATE)
    result = verify(copied.run, Trust(witness=EVE.witness_key))
    assert result.findings == ()
    assert result.tier[1].startswith("L1 not established: ")


def test_the_public_folder_is_enough(copied: Record, tmp_path: Path) -> None:
    shutil.copytree(copied.run / "provenance", tmp_path / "public")
    done = cosign(tmp_path / "public", EVE, EARLY)
    assert cosigned_at(parse_note(done.path.read_text()), parse_key(EVE.witness_key)) == EARLY


def test_a_witness_you_name_must_have_signed(copied: Record) -> None:
    cosign(copied.run, EVE, EARLY)
    findings = verify(copied.run, Trust(witness=new_signer("example.org/eve").witness_key)).findings
    assert [found.what for found in findings] == ["the witness you name did not cosign the one from before training"]
    assert verify(copied.run, Trust(witness=EVE.verification_key)).findings, "a key for notes cosigns nothing"


def test_the_time_is_signed(copied: Record) -> None:
    cosign(copied.run, EVE, LATE)
    text = kept(copied.run).read_text()
    earlier = text.replace(EVE.cosignature(parse_note(text).text, LATE), EVE.cosignature("x\n", EARLY))
    assert earlier != text
    kept(copied.run).write_text(earlier)
    assert verify(copied.run, Trust(witness=EVE.witness_key)).findings


def test_an_unsigned_run_can_be_witnessed(tmp_path: Path) -> None:
    run = make(tmp_path / "run", [Example()])
    cosign(run, EVE, EARLY)
    result = verify(run, Trust(witness=EVE.witness_key))
    assert result.findings == ()
    assert result.tier[0].startswith("no tier: not signed")


def test_two_histories_of_one_log_are_refused(tmp_path: Path) -> None:
    key = bytes(range(32))
    one = make(tmp_path / "one", [Example(), Example()], None, key)
    other = make(tmp_path / "other", [Example(), Example("elm")], None, key)
    cosign(one, EVE, 1)
    before = kept(other).read_bytes()
    with pytest.raises(DataError, match="another history"):
        cosign(other, EVE, 2)
    assert kept(other).read_bytes() == before
    cosign(one, EVE, 3)
    cosign(other, new_signer("example.org/ivy"), 4)
    assert len(list((tmp_path / "keys" / "witnessed").iterdir())) == 2, "one memory a witness and log"


def test_a_checkpoint_that_its_tiles_contradict_is_refused(copied: Record) -> None:
    path = kept(copied.run)
    path.write_text(path.read_text().replace(path.read_text().splitlines()[2], 43 * "A" + "="))
    with pytest.raises(DataError, match="another root"):
        cosign(copied.run, EVE, 1)


@pytest.mark.parametrize("damage", ["tile", "checkpoint", "kept"])
def test_a_damaged_folder_is_told(copied: Record, damage: str) -> None:
    path = {
        "tile": next(path for path in (copied.run / "provenance" / "tile").rglob("*") if path.is_file()),
        "checkpoint": copied.run / "provenance" / "checkpoint",
        "kept": kept(copied.run),
    }[damage]
    if damage == "tile":
        path.unlink()
    else:
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be cosigned"):
        cosign(copied.run, EVE, 1)


def test_nothing_to_cosign_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no checkpoint from before training"):
        cosign(tmp_path, EVE, 1)
    (tmp_path / "provenance" / "checkpoints").mkdir(parents=True)
    (tmp_path / "provenance" / "checkpoints" / "²").write_text("not a number\n")
    with pytest.raises(ConfigError, match="has no checkpoint from before training"):
        cosign(tmp_path, EVE, 1)


@pytest.mark.parametrize(("seen", "counts"), [(1_767_225_599, True), (1_767_225_600, False), (LATE, False)])
def test_what_a_revoked_key_signed_counts_if_it_was_seen_before(copied: Record, seen: int, counts: bool) -> None:
    """So does the statement: an entry of the log that was seen names what it says."""
    public = copied.run / "provenance"
    for path in (public / "checkpoint", kept(copied.run)):
        cosigned = path.read_text() + EVE.cosignature(parse_note(path.read_text()).text, seen)
        path.write_text(cosigned)
    history = history_of(revocation(copied.signer, "2026-01-01T00:00:00Z"))
    trust = Trust(copied.signer.verification_key, history, EVE.witness_key)
    told = {found.where for found in verify(copied.run / "provenance", trust).findings}
    refused = {
        "provenance/checkpoint",
        "provenance/statement.dsse.json",
        f"provenance/checkpoints/{kept(copied.run).name}",
    }
    assert told == (set() if counts else refused)
    if counts:  # what the thief of such a key states of the log that was seen is another thing
        path = public / "statement.json"
        value = json.loads(path.read_bytes())
        value["predicate"]["purpose"] = "anything"
        path.write_bytes(canonical(value) + b"\n")
        (public / "statement.dsse.json").write_bytes(pretty(envelope(canonical(value), copied.signer)))
        assert "provenance/sealed.json" in {found.where for found in verify(public, trust).findings}


def test_a_revoked_key_is_refused_by_its_own_published_history(copied: Record) -> None:
    history = history_of(revocation(copied.signer))
    for trust in (
        Trust(copied.signer.verification_key, history),
        Trust(copied.signer.verification_key, history, EVE.witness_key),
    ):
        findings = verify(copied.run, trust).findings
        assert {"provenance/checkpoint", "provenance/statement.dsse.json"} <= {found.where for found in findings}
        assert all("lost" in found.what for found in findings if found.where == "provenance/checkpoint")
