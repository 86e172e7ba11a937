"""`Run.stage`: what is remembered of a step that did not end well."""

import time
from pathlib import Path

import pytest

from tutelage.pipeline.run import Facts, Run
from tutelage.progress import Quiet, Stop

DIGEST = "sha256:" + "0" * 64


def test_a_resumed_stage_counts_the_time_of_its_earlier_tries(tmp_path: Path) -> None:
    outcomes = [KeyboardInterrupt, RuntimeError, None]

    def work(scratch: Path) -> Facts:
        time.sleep(0.05)
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        (tmp_path / "made").write_text("1")
        return {}

    with Run(tmp_path, Quiet(), Stop()) as run:
        for error in (KeyboardInterrupt, RuntimeError):
            with pytest.raises(error):
                run.stage("train", 1, {}, {"data": DIGEST}, ("made",), work)
        done = run.stage("train", 1, {}, {"data": DIGEST}, ("made",), work)
        assert done.facts["wall_ms"] >= 150
        assert run.intents("train") == 1
        again = run.stage("train", 1, {}, {"data": DIGEST}, ("made",), work)
        assert again.facts == done.facts
        assert list(run.log.statements())[-1].facts["wall_ms"] == done.facts["wall_ms"]


def test_a_large_store_without_its_index_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    heard = type("Heard", (Quiet,), {"say": lambda self, line: said.append(line)})()
    monkeypatch.setattr("tutelage.pipeline.run._SILENT_BYTES", 10)
    with Run(tmp_path, heard, Stop()) as run:
        run.store.put_record("probe", {"probe_version": 1})
    assert said == []
    (tmp_path / "store" / "index.sqlite").unlink()
    with Run(tmp_path, heard, Stop()):
        pass
    assert "made anew" in said[0]
