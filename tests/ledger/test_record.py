"""A whole record under attack, file by file and byte by byte: everything covered is caught, and where is told."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledger.conftest import Record
from tests.ledger.made import Example, Maker, exchange_of, make, new_signer
from tutelage.canon import canonical, digest_bytes
from tutelage.cli.verify import COVERED, NOT_COVERED
from tutelage.ledger import verify
from tutelage.ledger.verify import NOT_LOCATED, Finding, Trust
from tutelage.pipeline.run import Run
from tutelage.progress import Quiet, Stop

pytestmark = pytest.mark.usefixtures("quick")


def covered(run: Path) -> list[Path]:
    """Every file of the record but those that NOT_COVERED names."""
    names = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    return [run / name for name in names if not name.startswith(NOT_LOCATED) or name == "ledger/locator.jsonl"]


def findings(path: Path) -> tuple[Finding, ...]:
    return verify.verify(path).findings


def mutated(path: Path, draw: random.Random) -> Iterator[int]:
    """The file with one byte changed, at the place that is given; it is put back afterwards."""
    data = path.read_bytes()
    at = draw.randrange(len(data))
    value = draw.choice([value for value in range(256) if value != data[at]])
    path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
    yield at
    path.write_bytes(data)


def test_what_is_covered_and_what_not_is_said(small: Record) -> None:
    names = {path.relative_to(small.run).as_posix() for path in covered(small.run)}
    left_out = {path.relative_to(small.run).as_posix() for path in small.run.rglob("*") if path.is_file()} - names
    assert left_out == {".lock", "environment.json", "store/index.sqlite"}
    assert any("store/index.sqlite" in line for line in NOT_COVERED)
    assert any("environment.json" in line for line in NOT_COVERED)
    for part in ("ledger/log.jsonl", "store/run.key", "config.json", "ledger/locator.jsonl", "provenance"):
        assert any(part in line for line in COVERED)


def test_every_single_byte_of_a_run_is_caught_and_located(copied: Record) -> None:
    """File first, then byte: in every covered file, without an exception."""
    draw = random.Random(5)
    assert findings(copied.run) == ()
    for path in covered(copied.run):
        name = path.relative_to(copied.run).as_posix()
        if not path.stat().st_size:
            continue
        for _ in range(2):
            for at in mutated(path, draw):
                where = [found.where for found in findings(copied.run)]
                assert any(place.startswith(name) and place.endswith(f" byte {at}") for place in where), (
                    name,
                    at,
                    where,
                )
    assert findings(copied.run) == ()


def test_every_single_byte_of_the_public_folder_is_caught(copied: Record) -> None:
    """Without the locator, and without the data: the file or what rests on it is named. Whose line a stranger signed is
    nobody's business, so a kept checkpoint may lose its signature that way: then nothing is claimed by it."""
    draw = random.Random(6)
    public = copied.run / "provenance"
    before = verify.verify(public)
    for path in [path for path in covered(copied.run) if path.is_relative_to(public)]:
        for _ in range(8):
            for at in mutated(path, draw):
                after = verify.verify(public)
                lost = any(line.startswith("L1 not claimed: ") for line in after.tier)
                signature = path.parent.name == "checkpoints" and b"\n\n" in path.read_bytes()[:at]
                assert after.findings or (lost and signature), (path.name, at)
                assert all(found.where.startswith(("provenance/", "student/")) for found in after.findings)
    assert verify.verify(public) == before


def test_files_dropped_and_swapped(copied: Record) -> None:
    files = [path for path in covered(copied.run) if path.stat().st_size]
    for path, other in zip(files, files[1:] + files[:1], strict=True):
        name, data = path.relative_to(copied.run).as_posix(), path.read_bytes()
        for changed in (None, other.read_bytes()):
            path.unlink() if changed is None else path.write_bytes(changed)
            told = findings(copied.run)
            path.write_bytes(data)
            grown = changed is not None and changed.startswith(data)
            if grown and name.startswith("store/"):
                continue  # a store only grows: whole records that were put there already change nothing
            assert told, (name, changed if changed is None else len(changed))
            assert any(name in found.where or path.name in found.what for found in told), (name, told[:3])
    assert findings(copied.run) == ()


LINES = (
    "ledger/log.jsonl", "store/000001.seg", "train/consumed.jsonl", "collect/exchanges.jsonl", "prove/exchanges.jsonl",
    "data/prompts.jsonl", "ledger/examples/4.jsonl", "ledger/locator.jsonl",
)  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_lines_dropped_doubled_moved_and_cut(copied: Record, name: str) -> None:
    path = copied.run / name
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    assert len(lines) > 1
    for at in random.Random(7).sample(range(len(lines)), min(len(lines), 3)):
        rest = lines[:at] + lines[at + 1 :]
        for how, changed in {
            "dropped": rest,
            "doubled": lines[:at] + [lines[at]] * 2 + lines[at + 1 :],
            "moved to the end": [*rest, lines[at]],
            "cut": lines[:at],
        }.items():
            path.write_bytes(b"".join(changed))
            same = path.read_bytes() == data
            grown = name.endswith(".seg") and path.read_bytes().startswith(data)  # the store is a set of records
            assert same or grown or findings(copied.run), (at, how)
    path.write_bytes(data)
    assert findings(copied.run) == ()


@pytest.mark.parametrize("name", [
    "student/adapter.json", "train/extra", "curate/.hidden", "provenance/note.txt", "provenance/tile/0/001",
    "provenance/checkpoints/9", "ledger/examples/99.jsonl", "student/sub/deep", "prove/x", "before/x", "data/x", "terms/x",
])  # fmt: skip
def test_an_added_file_is_named(copied: Record, name: str) -> None:
    (copied.run / name).parent.mkdir(parents=True, exist_ok=True)
    (copied.run / name).write_text("{}")
    told = findings(copied.run)
    assert name in {found.where for found in told}, told


@pytest.mark.parametrize("name", ["student", "provenance/tile", "curate", "ledger/examples", "provenance/checkpoints"])
def test_a_linked_folder_is_not_walked(copied: Record, name: str) -> None:
    """A link to the whole disk would be walked for hours, and what lies there is not of the record."""
    folder = copied.run / name
    shutil.move(folder, copied.run.parent / "elsewhere")
    folder.symlink_to(copied.run.parent / "elsewhere")
    assert findings(copied.run)
    folder.unlink()
    folder.symlink_to("/")
    assert findings(copied.run)


def test_a_linked_folder_beside_the_files_of_a_stage_is_named(copied: Record, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (copied.run / "student" / "more").symlink_to(tmp_path / "more")
    assert {found.where for found in findings(copied.run)} == {"student/more"}


SPECIAL = (
    "ledger/log.jsonl", "ledger/locator.jsonl", "store/000001.seg", "store/run.key", "config.json",
    "provenance/checkpoint", "provenance/statement.json", "provenance/statement.dsse.json", "provenance/sources.json",
    "provenance/sealed.json", "provenance/before-training.json", "provenance/signer.vkey", "provenance/terms.json",
    "curate/selection.json", "train/consumed.jsonl", "data/prompts.jsonl", "ledger/examples/4.jsonl",
    "train/checkpoint.json",
)  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", SPECIAL)
def test_links_pipes_and_folders_are_refused(copied: Record, name: str) -> None:
    """A link to the very same bytes, a pipe that nobody writes to, and a folder."""
    path = copied.run / name
    path.rename(copied.run.parent / "moved")
    path.symlink_to(copied.run.parent / "moved")
    assert findings(copied.run), "link"
    path.unlink()
    os.mkfifo(path)
    assert findings(copied.run), "pipe"
    path.unlink()
    path.mkdir()
    assert findings(copied.run), "folder"
    path.rmdir()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [
    "ledger/log.jsonl", "config.json", "store/run.key", "provenance/checkpoint", "provenance/statement.json",
    "provenance/tile/0/000.p/24", "provenance/sealed.json",
])  # fmt: skip
def test_a_file_of_a_tebibyte_is_not_read(copied: Record, name: str) -> None:
    with (copied.run / name).open("wb") as file:
        file.truncate(1 << 40)
    (copied.run / "ledger" / "locator.jsonl").unlink()
    assert any(found.where == name and "not a regular file of at most" in found.what for found in findings(copied.run))


@pytest.mark.timeout(20)
def test_a_line_of_a_gibibyte_is_not_read(copied: Record) -> None:
    path = copied.run / "store" / "000001.seg"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size + (1 << 30))
    assert f"has a line of more than {1 << 26} bytes at byte {size}" in findings(copied.run)[0].what


HOSTILE = (
    b"", b"null\n", b"[]\n", b"{}\n", b"\x00\xff\n" * 50, b"[" * 100_000 + b"\n", b'{"previous": [1, 2], "kind": {}}\n',
    b'{"kind": NaN}\n', b'{"kind": 1.5}\n', b'{"kind": "x", "kind": "y"}\n', b'{"kind": ' + b"9" * 9_999 + b"}\n",
    b'{"x": "\\ud800"}\n', b'{"predicate": 5, "subject": 5, "_type": 5, "predicateType": 5, "rows": 5, "train": 5}\n',
)  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL[:-5])
def test_hostile_content_is_a_finding_and_never_a_crash(copied: Record, name: str) -> None:
    for content in HOSTILE:
        (copied.run / name).write_bytes(content)
        assert verify.told(verify.verify(copied.run))[-1].startswith("FAILED"), content[:40]


@pytest.mark.parametrize("line", [
    b"no spaces\n", b"a b\n", b"sha256:00 body {}\n", b'sha256:00 exchange {"raw_body_digest": 5}\n', b"\xff\xfe\n",
    b"x" * 100 + b" body 5\n", b" \n",
    *(digest_bytes(body).encode() + b" body " + body + b"\n" for body in (
        canonical({"digest": digest_bytes(b"x"), "encoding": encoding, "text": "x"})
        for encoding in ("rot13", "punycode", "undefined", "zip", "utf-16", "no such")
    )),
])  # fmt: skip
def test_hostile_lines_of_the_store(copied: Record, line: bytes) -> None:
    with (copied.run / "store" / "000001.seg").open("ab") as file:
        file.write(line)
    told = findings(copied.run)
    assert told
    assert all(found.where.startswith("store/") for found in told), told


def test_a_store_that_grew_holds(copied: Record) -> None:
    with Run(copied.run, Quiet(), Stop(), copied.signer) as run:
        run.store.put(*exchange_of(Example("later"), 7))
    assert findings(copied.run) == ()


@pytest.mark.parametrize(
    "gone", [("ledger/log.jsonl",), ("ledger",), ("store",), ("config.json",), ("ledger", "store")]
)
def test_a_run_without_its_private_part_is_not_taken_for_a_public_folder(copied: Record, gone: tuple[str, ...]) -> None:
    for name in gone:
        path = copied.run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert findings(copied.run)


def test_the_public_folder_alone_is_checked_without_the_data(copied: Record, tmp_path: Path) -> None:
    shutil.copytree(copied.run / "provenance", tmp_path / "public")
    result = verify.verify(tmp_path / "public", Trust(key=copied.signer.verification_key))
    assert result.findings == ()
    assert any(check.startswith("not checked: the student's files") for check in result.checks)
    assert result.shares == verify.verify(copied.run).shares
    assert result.tier[0].startswith("L0 signed claim: ")
    shutil.copytree(copied.run / "student", tmp_path / "student")
    assert findings(tmp_path / "public") == ()
    (tmp_path / "student" / "model.safetensors").write_bytes(b"other weights")
    assert [found.where for found in findings(tmp_path / "public")] == ["student/model.safetensors"]


@pytest.mark.parametrize("path", ["nothing", "empty", "file"])
def test_what_is_no_record_is_a_finding(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    assert findings(tmp_path / path)


def test_a_log_of_many_tiles(tmp_path: Path) -> None:
    """Every node above the lowest level is recomputed, and the one that differs is named."""
    with Run(tmp_path, Quiet(), Stop(), new_signer()) as run:
        for number in range(240):
            run._append("opened", "run", 1, str(number), {}, {}, {}, {"config": "", "number": number}, "")
        Maker(run, [Example(), Example()]).seal()
    assert findings(tmp_path) == ()
    tile = tmp_path / "provenance" / "tile" / "1" / "000.p" / "1"
    data = tile.read_bytes()
    for at in (0, 31):
        tile.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        for path in (tmp_path, tmp_path / "provenance"):
            assert any(found.where.startswith("provenance/tile/1/000.p/1 byte ") for found in findings(path))


def test_no_examples_at_all(tmp_path: Path) -> None:
    run = make(tmp_path / "run", [Example(steps=())], new_signer())
    result = verify.verify(run)
    assert result.findings == ()
    assert result.shares == ()


def test_the_verifier_prints_clauses_shares_tier_and_what_it_does_not_prove(
    small: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    key = small.signer.verification_key
    assert verify.main([str(small.run), "--key", key]) == 0
    said = capsys.readouterr().out
    for clause in (
        "RFC 6962 section 2.1",
        "DSSE v1",
        "in-toto Statement v1",
        "FIPS 180-4",
        "RFC 6962 section 2.1, C2SP tlog-tiles",
    ):
        assert f"checked  {clause}" in said
    assert "% of the 41 loss tokens came from oak under MIT" in said
    assert "tier  L0 signed claim: signed by example.org/ada+" in said
    assert "does not prove that nothing outside the record was trained on" in said
    assert said.splitlines()[-1].startswith("OK  log root sha256:")
    assert verify.main([str(small.run), "--key", new_signer().verification_key]) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("FAILED: ")
    assert "tier" not in said
    assert "came from" not in said
