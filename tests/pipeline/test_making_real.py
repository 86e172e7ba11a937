"""A real training measures itself, so that a proof of its student knows what it took."""

from pathlib import Path

import pytest

from tests.pipeline.test_training import do, run_file, teacher
from tutelage.energy import Counter, Told
from tutelage.ledger.verify import verify
from tutelage.pipeline.making import made_in

__all__ = ["run_file", "teacher"]


def test_a_training_measures_itself(tmp_path: Path, run_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(0, 10**12, 1_000_000))
    monkeypatch.setattr("tutelage.meter.counters", lambda: Told((Counter("c", lambda: next(steps)),), ()))
    do(run_file, tmp_path / "run", method__loss="top-k-forward-kl", method__signal="top-k")
    made = made_in(str(tmp_path / "run" / "student"), [])
    assert made.cpu_s is not None and made.cpu_s > 0.01 and made.counted.startswith("training")
    assert made.energy_j is not None and made.energy_j >= 2.0, "a joule at least of signals, and of the steps"
    assert not verify(tmp_path / "run").findings
