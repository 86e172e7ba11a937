"""`tutelage export --format inspect` of a proof that was made over real HTTP."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import serving
from tests.loopback_sums import Adder
from tests.pipeline.test_proving import Models, evidence_of, prove, rows, write
from tutelage.cli.main import main
from tutelage.wire.inspect_logs import read_log, rows_of_log


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("proof")
    with ExitStack() as stack:
        models = Models(*(stack.enter_context(serving(Adder(share))) for share in (0.9, 0.6, 0.3)))
        assert prove(write(folder, models, rows(20)), "--out", folder / "run") == 0
    yield folder / "run"


def export(run: Path, out: Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), "--format", "inspect", "--out", str(out)])
    return int(ended.value.code or 0)


def test_one_log_a_system_with_the_figures_of_the_proof(proved: Path, tmp_path: Path, capsys: Any) -> None:
    assert export(proved, tmp_path / "logs") == 0
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    evidence = evidence_of(proved)
    assert len(paths) == 3 and len(set(paths)) == 3
    scored = [json.loads(line) for line in (proved / "prove" / "scores.jsonl").read_text().splitlines()]
    for path, system in zip(paths, evidence["systems"], strict=True):
        data = path.read_bytes()
        assert str(proved).encode() not in data and b"127.0.0.1" not in data
        log, found = json.loads(data), rows_of_log(data)
        assert log["eval"]["metadata"]["role"] == system["role"]
        assert log["eval"]["metadata"]["claims"] == evidence["claims"]
        assert read_log(data).model == f"loopback/{system['label'].split()[0]}"
        assert [row.item for row in found] == [row["item"] for row in scored]
        assert [row.input for row in found] == [row["prompt"] for row in rows(20)]
        assert all(row.answer.startswith("The answer is") for row in found)
        values = [row.scores["number"] for row in found]
        assert values == [row["scores"][system["role"]]["gold_ppm"] / 1e6 for row in scored]
        assert sum(values) / len(values) == pytest.approx(system["score"])
        assert log["results"]["scores"][0]["metrics"]["accuracy"]["value"] == system["score"]
    before = [path.read_bytes() for path in paths]
    assert export(proved, tmp_path / "logs") == 0
    assert [path.read_bytes() for path in paths] == before


def test_other_folders_are_refused_by_name(proved: Path, tmp_path: Path, capsys: Any) -> None:
    assert export(tmp_path, tmp_path / "logs") == 2
    assert "has no evidence.json" in capsys.readouterr().err
    copy = tmp_path / "copy"
    for name in ("config.json", "data/items.jsonl", "prove/scores.jsonl", "prove/exchanges.jsonl"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((proved / name).read_bytes())
    (copy / "store").mkdir()
    (copy / "evidence.json").write_text(json.dumps({"schema_version": 2}))
    assert export(copy, tmp_path / "logs") == 2
    assert "another command" in capsys.readouterr().err
    (copy / "evidence.json").write_bytes((proved / "evidence.json").read_bytes())
    lines = (copy / "prove/scores.jsonl").read_text().splitlines(keepends=True)
    (copy / "prove/scores.jsonl").write_text("".join(lines[1:]))
    assert export(copy, tmp_path / "logs") == 2
    assert "name other items" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()
