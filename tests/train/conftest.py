"""A tiny student, data whose labels can be learnt from it, and the loop's settings."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.tiny import save_tiny
from tutelage.config import TrainTable
from tutelage.models.causal import Causal
from tutelage.progress import Quiet, Stop
from tutelage.signals.labels import pack_top_k
from tutelage.train.labels import Data, Example, LabelJudge, LabelSource
from tutelage.train.loop import Loop, advance, train
from tutelage.train.student import load_student, make_student

LABEL_IDS = (70, 71)
END = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = save_tiny(tmp_path_factory.mktemp("base"))
    out = tmp_path_factory.mktemp("student") / "one-layer"
    facts = make_student(base, 1, None, ("the", "film"), out)
    assert facts["base_layers"] == 2
    assert facts["parameters"] < facts["base_parameters"]
    return out


def data(count: int, seed: int = 0, *, soft: bool = True) -> Data:
    """Prompts whose first token decides the label; the teacher is sure to 90 %."""
    draw = torch.Generator().manual_seed(seed)
    examples, rows, targets = [], [], []
    for at in range(count):
        length = 3 + int(torch.randint(0, 6, (1,), generator=draw))
        ids = torch.randint(75, 300, (length,), generator=draw).tolist()
        label = at % 2
        ids[0] = 72 + label
        examples.append(Example(f"sha256:{at}", tuple(ids), (LABEL_IDS[label], END), soft))
        p = [0.08, 0.08]
        p[label] = 0.9
        rows.append(({LABEL_IDS[0]: math.log(p[0]), LABEL_IDS[1]: math.log(p[1])}, math.log(0.02)))
        targets.append([math.log(value) for value in p])
    packed = pack_top_k(rows) if soft else None
    return Data(tuple(examples), packed, torch.tensor(targets).log_softmax(-1), LABEL_IDS)


def loop(work: Path, stop: Stop | None = None, log: list | None = None, **changes: Any) -> Loop:
    settings: dict = {
        "epochs": 3.0,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "checkpoint_every_s": 1e-9,
        "precision": "float32",
    } | changes
    taken = log if log is not None else []
    return Loop(TrainTable(**settings), 5, work, Quiet(), Stop() if stop is None else stop, taken.append)


def school(folder: Path, examples: Data, table: TrainTable | None = None) -> tuple[Causal, LabelSource]:
    """The tiny student and a source of those examples."""
    model, _ = load_student(folder)
    return Causal(model), LabelSource(examples, table or TrainTable(epochs=1.0), 5)


def train_on(folder: Path, examples: Data, held: Data, settings: Loop, *, whole: bool = True) -> Causal:
    """A fresh tiny student after training (`whole`) or after stepping as far as the settings say."""
    student, source = school(folder, examples, settings.table)
    (train if whole else advance)(student, source, LabelJudge(held), settings)
    return student
