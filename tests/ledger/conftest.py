"""A sealed run made once, and a key folder of the tests' own: nobody's real keys are read or written here."""

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.ledger.made import Example, make, new_signer
from tutelage.jsonl import pretty
from tutelage.ledger import verify
from tutelage.ledger.keys import Signer
from tutelage.ledger.verify import Result, Trust
from tutelage.pipeline import run

ONCE = {"soft-target": 1, "text-target": 3}
EXAMPLES = [
    *(Example(steps=(ONCE,) * (1 + at % 3)) for at in range(300)),  # more than one tile of leaves
    *(Example("elm", "Apache-2.0", ({"soft-target": 2, "text-target": at % 5},)) for at in range(20)),
    *(Example("elm", "MIT", ({"text-target": 4},), data="more.csv") for _ in range(3)),
    Example("ash", "", ()),  # selected, never stepped on
]


class Record(NamedTuple):
    """A sealed run, who signed it, and the key under its salts."""

    run: Path
    signer: Signer
    key: bytes


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUTELAGE_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture(scope="session", autouse=True)
def versions() -> Iterator[None]:
    """What is installed stays so: it is read once, not for each of a hundred runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "installed_versions", functools.cache(run.installed_versions))
        yield


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    signer, key = new_signer(), bytes(range(32))
    return Record(make(tmp_path_factory.mktemp("record") / "run", EXAMPLES, signer, key), signer, key)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Nine examples: quick to check many times."""
    signer, key = new_signer(), bytes(reversed(range(32)))
    examples = [*EXAMPLES[:4], *EXAMPLES[300:303], *EXAMPLES[-2:]]
    return Record(make(tmp_path_factory.mktemp("small") / "run", examples, signer, key), signer, key)


@pytest.fixture
def copied(small: Record, tmp_path: Path) -> Record:
    """The small run in a folder of one's own."""
    shutil.copytree(small.run, tmp_path / "run")
    return small._replace(run=tmp_path / "run")


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Result]:
    def work(value: dict[str, Any] | bytes, trust: Trust | None = None) -> Result:
        path = tmp_path / "disclosure.json"
        path.write_bytes(value if isinstance(value, bytes) else pretty(value))
        return verify.verify(path, trust)

    return work


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same signatures are checked over and over: once is enough."""
    monkeypatch.setattr(verify, "ed25519_verify", functools.lru_cache(maxsize=None)(verify.ed25519_verify))
