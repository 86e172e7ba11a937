"""A whole run made once: a loopback teacher, three labels, a tiny student, all stages."""

import csv
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.loopback import WORDS, Teacher, serving
from tests.models.tiny import save_tiny
from tutelage.config import RunConfig
from tutelage.jsonl import read_lines
from tutelage.ledger.keys import Signer
from tutelage.pipeline.distil import distil
from tutelage.pipeline.run import Run
from tutelage.progress import Quiet, Stop
from tutelage.records import Statement
from tutelage.run_file import load_config

RUN_FILE = """
[run]
name = "topics"
seed = 3
purpose = "internal"

[task]
kind = "labels"
labels = ["sport", "food", "weather"]
instruction = "Name the topic."

[data]
path = "{data}"
text = "text"
gold = "topic"
licence = "own"
train = 120
held_out = 60
validation = 20

[teacher]
url = "{url}"
model = "word-counter"
licence = "MIT"
attempts = 2

[student]
path = "{base}"
licence = "Apache-2.0"
layers = 1

[train]
epochs = 6
batch_size = 8
learning_rate = 0.01
segment_steps = 30

[claim]
margin = 0.1
"""


class Made(NamedTuple):
    """A finished run, its run file, its teacher, and who signed it."""

    folder: Path
    run_file: Path
    teacher: Teacher
    signer: Signer


def write_data(path: Path, count: int = 220) -> Path:
    """Sentences with one topic word among others; the topic is the human label."""
    draw = random.Random(1)
    filler = ["the", "very", "old", "new", "we", "saw", "a", "long", "short", "fine", "odd", "in", "of", "my", "your"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "topic"])
        for at in range(count):
            topic = draw.choice(list(WORDS))
            words = [*draw.choices(filler, k=6), draw.choice(WORDS[topic]), str(at)]
            draw.shuffle(words)
            writer.writerow([" ".join(words), topic])
    return path


def make_config(folder: Path, teacher: Teacher, base: Path) -> Path:
    data = write_data(folder / "topics.csv")
    run_file = folder / "run.toml"
    run_file.write_text(RUN_FILE.format(data=data, url=teacher.base_url, base=base))
    return run_file


def do(run_file: Path, folder: Path, signer: Signer | None = None, **overrides: object) -> RunConfig:
    config = load_config(run_file, None, overrides)
    with Run(folder, Quiet(), Stop(), signer) as run:
        distil(config, run)
    return config


def entries_of(folder: Path) -> list[Statement]:
    """The log of a run."""
    return [Statement.from_json(entry) for entry in read_lines(folder / "ledger" / "log.jsonl")]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def teacher() -> Iterator[Teacher]:
    with serving(Teacher()) as running:
        yield running


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer("example.org/ada", ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, teacher: Teacher, base: Path, signer: Signer) -> Made:
    folder = tmp_path_factory.mktemp("whole")
    run_file = make_config(folder, teacher, base)
    do(run_file, folder / "run", signer)
    return Made(folder / "run", run_file, teacher, signer)


@pytest.fixture
def copied(finished: Made, tmp_path: Path) -> Made:
    """The finished run in a folder of one's own."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return finished._replace(folder=tmp_path / "run")
