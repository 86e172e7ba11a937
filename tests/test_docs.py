"""Documents that cannot lie: generated pages are current, named files exist, the README's figures are the committed ones."""

import json
import re
from pathlib import Path

from tutelage.cli.reference import reference
from tutelage.config import CollectConfig, RunConfig
from tutelage.training_config import TrainingConfig

ROOT = Path(__file__).parents[1]


def test_cli_page_is_current() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run `make docs`"


def test_every_key_of_the_run_file_is_described() -> None:
    page = (ROOT / "docs" / "run-file.md").read_text()
    kinds = (RunConfig, CollectConfig, TrainingConfig)
    for table, field in [item for kind in kinds for item in kind.model_fields.items()]:
        if table == "sizes":
            continue
        table = {"scorer": "teacher", "teachers": "teacher"}.get(table, table)  # as people write it, and what is alike
        arguments = getattr(field.annotation, "__args__", ())
        model = next(one for one in (field.annotation, *arguments) if hasattr(one, "model_fields"))
        for key in model.model_fields:  # type: ignore[union-attr]
            assert re.search(rf"`(?:{table}\.)?{key}`", page), f"docs/run-file.md does not describe {table}.{key}"


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readmes_table_is_the_committed_result() -> None:
    readme = (ROOT / "README.md").read_text()
    result = json.loads((ROOT / "benchmarks" / "results" / "demo-full.json").read_text())
    assert result["verdict"] in readme
    for key in ("teacher_accuracy", "student_accuracy"):
        assert f"{100 * result[key]:.1f}" in readme, key
    assert f"{result['n']:,}" in readme


def test_architecture_page_is_short() -> None:
    assert len((ROOT / "docs" / "architecture.md").read_text().splitlines()) <= 80
