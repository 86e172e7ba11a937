"""The event log: what a kill at any point leaves, what signing later says, and a checkpoint that nobody rewrites."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ledger.made import new_signer
from tests.reference import merkle_naive as naive
from tutelage.canon import canonical, digest_bytes
from tutelage.errors import ConfigError
from tutelage.ledger.keys import Signer, new_key, rotate_key
from tutelage.ledger.log import BEFORE_TRAINING, NOTHING_BEFORE, Log
from tutelage.ledger.verify import cosigned_at, note_signed_by, parse_checkpoint, parse_key, parse_note
from tutelage.records import Statement

ADA, EVE = new_signer(), new_signer("example.org/eve")


def entry(log: Log, **facts: int) -> Statement:
    return Statement(
        kind="statement", stage="data", stage_version=1, stage_digest="", config={}, inputs={}, outputs={}, facts=facts,
        code="", environment="", hardware="", started_at="", ended_at="", signer="", salt="", previous=log.last_digest,
    )  # fmt: skip


def opened(run: Path, signer: Signer | None = None, entries: int = 0) -> Log:
    log = Log(run, "example.org/log", signer)
    for number in range(entries):
        log.append(entry(log, number=number))
    return log


def is_whole(run: Path, entries: int, signer: Signer | None = None) -> bool:
    """Lines, chain, tiles and checkpoint of the log all say the same."""
    lines = (run / "ledger" / "log.jsonl").read_bytes().splitlines()
    assert [canonical(json.loads(line)) for line in lines] == lines
    note = parse_note((run / "provenance" / "checkpoint").read_text())
    head = parse_checkpoint(note.text)
    level = run / "provenance" / "tile" / "0"
    tiles = b"".join(path.read_bytes() for path in sorted(level.rglob("*")) if path.is_file())
    leaves = [naive.mth([line]) for line in lines]
    signed = None if signer is None else note_signed_by(note, parse_key(signer.verification_key))
    assert signed is (None if signer is None else True)
    return (len(lines), head.size, head.root, tiles) == (entries, entries, naive.mth(lines), b"".join(leaves))


@pytest.mark.parametrize("signer", [None, ADA])
def test_every_append_publishes_tiles_and_checkpoint(tmp_path: Path, signer: Signer | None) -> None:
    log = opened(tmp_path, signer)
    assert log.last_digest == NOTHING_BEFORE
    assert not (tmp_path / "provenance").exists()
    for number in range(5):
        log.append(entry(log, number=number))
        assert is_whole(tmp_path, number + 1, signer)
    assert [found.facts["number"] for found in opened(tmp_path, signer).statements()] == list(range(5))


def test_more_than_one_tile(tmp_path: Path) -> None:
    lines, previous = [], NOTHING_BEFORE
    for number in range(257):
        statement = replace(entry(Log(tmp_path / "empty", "o", None), number=number), previous=previous)
        lines.append(canonical(statement.to_json()))
        previous = digest_bytes(lines[-1])
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "log.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    log = opened(tmp_path)
    log.append(entry(log, number=257))
    assert is_whole(tmp_path, 258)
    names = sorted(path.relative_to(tmp_path / "provenance" / "tile").as_posix()
                   for path in (tmp_path / "provenance" / "tile").rglob("*") if path.is_file())  # fmt: skip
    assert names == ["0/000", "0/001.p/2", "1/000.p/1"]


def test_an_entry_names_the_one_before(tmp_path: Path) -> None:
    log = opened(tmp_path)
    late = entry(log)
    log.append(late)
    with pytest.raises(ValueError, match="the log ends with"):
        log.append(late)
    assert is_whole(tmp_path, 1)


@pytest.mark.parametrize("torn", [b'{"kind"', b"\x00", b"{}"])
def test_a_torn_tail_is_cut_off_by_the_next_append(tmp_path: Path, torn: bytes) -> None:
    opened(tmp_path, entries=3)
    with (tmp_path / "ledger" / "log.jsonl").open("ab") as file:
        file.write(torn)
    log = opened(tmp_path)
    assert log.size == 3
    log.append(entry(log, number=3))
    assert is_whole(tmp_path, 4)


@pytest.mark.parametrize("lost", ["checkpoint", "tile"])
def test_a_kill_between_the_line_and_its_checkpoint(tmp_path: Path, lost: str) -> None:
    log = opened(tmp_path, ADA, entries=3)
    before = (tmp_path / "provenance" / "checkpoint").read_bytes()
    log.append(entry(log, number=3))
    if lost == "checkpoint":
        (tmp_path / "provenance" / "checkpoint").write_bytes(before)
    else:
        (tmp_path / "provenance" / "tile" / "0" / "000.p" / "4").unlink()
    assert opened(tmp_path, ADA).size == 4
    assert is_whole(tmp_path, 4, ADA)


def test_signing_later_signs_the_checkpoint_and_not_the_one_that_was_kept(tmp_path: Path) -> None:
    log = opened(tmp_path, entries=3)
    log.keep_checkpoint(3)
    log.append(entry(log, number=3))
    opened(tmp_path, ADA)
    assert is_whole(tmp_path, 4, ADA)
    kept = parse_note((tmp_path / "provenance" / "checkpoints" / "3").read_text())
    assert kept.signatures == ()
    assert parse_checkpoint(kept.text).size == 3
    opened(tmp_path, ADA).keep_checkpoint(3)
    assert (tmp_path / "provenance" / "checkpoints" / "3").read_text() == kept.text, "it says what was known then"


def test_a_kept_checkpoint_is_the_signed_one_of_that_time(tmp_path: Path) -> None:
    log = opened(tmp_path, ADA, entries=2)
    then = (tmp_path / "provenance" / "checkpoint").read_bytes()
    log.keep_checkpoint(2)
    log.append(entry(log, number=2))
    assert (tmp_path / "provenance" / "checkpoints" / "2").read_bytes() == then
    lines = (tmp_path / "ledger" / "log.jsonl").read_bytes().splitlines()
    assert (tmp_path / "provenance" / BEFORE_TRAINING).read_bytes() == lines[1] + b"\n"


def test_a_witness_on_a_kept_checkpoint_stays(tmp_path: Path) -> None:
    log = opened(tmp_path, ADA, entries=2)
    log.keep_checkpoint(2)
    path = tmp_path / "provenance" / "checkpoints" / "2"
    text = parse_note(path.read_text()).text
    path.write_text(path.read_text() + EVE.cosignature(text, 7))
    log.keep_checkpoint(2)
    assert cosigned_at(parse_note(path.read_text()), parse_key(EVE.witness_key)) == 7


def test_an_earlier_checkpoint_kept_late_is_not_signed(tmp_path: Path) -> None:
    log = opened(tmp_path, ADA, entries=4)
    log.keep_checkpoint(2)
    kept = parse_note((tmp_path / "provenance" / "checkpoints" / "2").read_text())
    assert kept.signatures == ()
    assert parse_checkpoint(kept.text).root == naive.mth(
        (tmp_path / "ledger" / "log.jsonl").read_bytes().splitlines()[:2]
    )


@pytest.mark.parametrize("signer", [None, EVE])
def test_what_is_added_to_a_signed_log_is_signed_by_the_same(tmp_path: Path, signer: Signer | None) -> None:
    opened(tmp_path, ADA, entries=2)
    log = opened(tmp_path, signer)
    assert is_whole(tmp_path, 2, ADA), "opening alone takes nobody's signature away"
    with pytest.raises(ConfigError, match=r"is signed by example\.org/ada"):
        log.append(entry(log, number=2))
    assert is_whole(tmp_path, 2, ADA)


def test_the_same_name_is_not_the_same_key_and_a_successor_is(tmp_path: Path) -> None:
    old = new_key("example.org/ada")
    log = opened(tmp_path, old, entries=2)
    with pytest.raises(ConfigError, match="is signed by"):
        twin = opened(tmp_path, new_signer("example.org/ada"))
        twin.append(entry(twin, number=2))
    new = rotate_key("example.org/ada")
    log = opened(tmp_path, new)
    log.append(entry(log, number=2))
    assert is_whole(tmp_path, 3, new)


def test_a_signed_log_opened_without_the_key_stays_signed(tmp_path: Path) -> None:
    """Even when its last line has no checkpoint yet: the next start with the key catches up."""
    log = opened(tmp_path, ADA, entries=2)
    before = (tmp_path / "provenance" / "checkpoint").read_bytes()
    log.append(entry(log, number=2))
    (tmp_path / "provenance" / "checkpoint").write_bytes(before)
    opened(tmp_path)
    assert (tmp_path / "provenance" / "checkpoint").read_bytes() == before
    opened(tmp_path, ADA)
    assert is_whole(tmp_path, 3, ADA)


def test_signing_in_place_of_somebody_else_is_an_act_of_its_own(tmp_path: Path) -> None:
    opened(tmp_path, ADA, entries=2)
    opened(tmp_path, EVE).sign()
    assert is_whole(tmp_path, 2, EVE)
    before = (tmp_path / "provenance" / "checkpoint").stat().st_mtime_ns
    opened(tmp_path, EVE).sign()
    assert (tmp_path / "provenance" / "checkpoint").stat().st_mtime_ns == before
    opened(tmp_path).sign()
    assert is_whole(tmp_path, 2, EVE)
