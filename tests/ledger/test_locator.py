"""The locator: it says where one byte changed, exactly, and never more than it knows."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger.conftest import Record
from tutelage.ledger import locator, verify
from tutelage.ledger.verify import Trust, _Checker

BLOCK = 4096


def located(run: Path) -> _Checker:
    checker = _Checker(run, Trust())
    checker.locator()
    return checker


def written(run: Path, data: bytes) -> Path:
    (run / "ledger").mkdir(exist_ok=True)
    path = run / "file"
    path.write_bytes(data)
    locator.write_locator(run, ["file"])
    return path


@given(st.binary(min_size=1, max_size=300), st.integers(0, 40), st.data())
@settings(max_examples=150, deadline=None)
def test_every_single_byte_change_is_placed_exactly(
    tmp_path_factory: pytest.TempPathFactory, piece: bytes, times: int, draw: st.DataObject
) -> None:
    data = piece * (1 + times)
    run = tmp_path_factory.mktemp("run")
    path = written(run, data)
    checker = located(run)
    assert checker.findings == []
    assert checker._place("file") is None
    at = draw.draw(st.integers(0, len(data) - 1))
    value = draw.draw(st.integers(0, 255).filter(lambda value: value != data[at]))
    path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
    assert checker._place("file") == (f"byte {at}", f"{value:#04x} where the record has {data[at]:#04x}")


@given(st.binary(min_size=2, max_size=9000), st.data())
@settings(max_examples=60, deadline=None)
def test_any_other_change_is_placed_in_its_block(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, draw: st.DataObject
) -> None:
    run = tmp_path_factory.mktemp("run")
    path = written(run, data)
    checker = located(run)
    at = draw.draw(st.integers(0, len(data) - 1))
    kind = draw.draw(st.sampled_from(["cut", "inserted", "swapped"]))
    other = {
        "cut": data[:at],
        "inserted": data[:at] + b"\x07" + data[at:],
        "swapped": data[:at] + data[at:][::-1],
    }[kind]
    path.write_bytes(other)
    place = checker._place("file")
    if other == data:
        assert place is None
        return
    first = next((i for i, (a, b) in enumerate(zip(data, other, strict=False)) if a != b), min(len(data), len(other)))
    assert place is not None
    where = int(place[0].removeprefix("byte "))
    assert where // BLOCK == first // BLOCK or where == len(data)
    assert where <= first or where // BLOCK == first // BLOCK


def test_two_changed_bytes_are_not_taken_for_one(tmp_path: Path) -> None:
    """Their sums may look like one change elsewhere: the hash of the block as it would have been says no."""
    data = bytes(range(100))
    path = written(tmp_path, data)
    checker = located(tmp_path)
    changed = bytearray(data)
    changed[10] += 1
    changed[30] += 1  # the same sums as +2 at byte 20
    path.write_bytes(bytes(changed))
    assert checker._place("file") == ("byte 0", "it differs from there on, within 100 bytes")


def test_both_implementations_write_the_same_line(tmp_path: Path) -> None:
    for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK):
        written(tmp_path, bytes(at % 251 for at in range(size)))
        line = (tmp_path / "ledger" / "locator.jsonl").read_bytes().splitlines()[0]
        assert verify._canonical(verify._located(tmp_path, "file")) == line


def test_a_large_file_has_large_blocks(tmp_path: Path) -> None:
    path = written(tmp_path, bytes((1 << 24) + 5))
    line = json.loads((tmp_path / "ledger" / "locator.jsonl").read_bytes().splitlines()[0])
    assert (line["block"], len(line["blocks"])) == (1 << 20, 17)
    with path.open("r+b") as file:
        file.seek(9_999_999)
        file.write(b"x")
    assert located(tmp_path)._place("file") == ("byte 9999999", "0x78 where the record has 0x00")


def test_growth_and_loss_at_the_end_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, b"0123456789")
    checker = located(tmp_path)
    path.write_bytes(b"0123456789more")
    assert checker._place("file") == ("byte 10", "something was added after the end that is recorded")
    path.write_bytes(b"01234")
    assert checker._place("file") is not None
    path.unlink()
    assert checker._place("file") is None, "that it is missing is told by others"


@pytest.mark.parametrize("at", [0, 40, -2, -1, -40])
def test_damage_to_the_locator_itself_is_known_and_placed(copied: Record, at: int) -> None:
    path = copied.run / "ledger" / "locator.jsonl"
    data = path.read_bytes()
    at %= len(data)
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert [(found.where, found.what) for found in verify.verify(copied.run).findings] == [
        (f"ledger/locator.jsonl byte {at}", "the locator itself is damaged")
    ]


def test_a_missing_locator_is_a_finding(copied: Record) -> None:
    (copied.run / "ledger" / "locator.jsonl").unlink()
    assert [found.where for found in verify.verify(copied.run).findings] == ["ledger/locator.jsonl"]


def resealed(run: Path, lines: list[object]) -> None:
    body = b"".join(verify._canonical(line) + b"\n" for line in lines)
    end = verify._canonical({"digest": verify._digest(body)})
    (run / "ledger" / "locator.jsonl").write_bytes(body + end + b"\n")


@pytest.mark.parametrize("line", [
    {"file": "../../outside", "bytes": 1, "block": BLOCK, "blocks": [["00", 1, 1]]},
    {"file": "/etc/hostname", "bytes": 1, "block": BLOCK, "blocks": [["00", 1, 1]]},
    {"file": "config.json", "bytes": 10**15, "block": 10**15, "blocks": [["00", 1, 1]]},
    {"file": "config.json", "bytes": 5, "block": -1, "blocks": [["00", 1, 1]]},
    {"file": "config.json", "bytes": "x", "block": BLOCK, "blocks": [["00", 1, 1]]},
    {"file": "config.json", "bytes": 5, "block": BLOCK, "blocks": [5]},
    {"file": 5, "bytes": 5, "block": BLOCK, "blocks": []}, {}, [], 7,
])  # fmt: skip
def test_a_hostile_locator_is_a_finding_and_reads_nothing_outside(copied: Record, line: object) -> None:
    resealed(copied.run, [line])
    findings = verify.verify(copied.run).findings
    assert findings
    assert not any("0x" in found.what for found in findings), "no byte of a file outside is told"
