"""The run files that come with the package: every size of each is valid, and the terms of each are known."""

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

import tutelage.recipes
from tutelage.pipeline.gate import Gate, check_terms, require_permitted
from tutelage.run_file import load_config
from tutelage.terms.model import Fact, Status

TODAY = "2026-11-28"
RECIPES = Path(tutelage.recipes.__file__).parent
EACH = [
    (folder.name, size)
    for folder in sorted(path.parent for path in RECIPES.glob("*/run.toml"))
    for size in (None, *tomllib.loads((folder / "run.toml").read_text())["sizes"])
]
GEMMA = RECIPES / "film_reviews_gemma" / "run.toml"


def gate_of(purpose: str) -> Gate:
    return check_terms(load_config(GEMMA, None, {"run.purpose": purpose}), TODAY)


@pytest.mark.parametrize(("name", "size"), EACH)
def test_every_size_is_valid_and_permitted(name: str, size: str | None) -> None:
    config = load_config(RECIPES / name / "run.toml", size)
    assert config.data.validation < config.data.train
    require_permitted(check_terms(config, TODAY))


@pytest.mark.parametrize("folder", sorted({name for name, _ in EACH}))
def test_a_recipe_comes_with_its_page(folder: str) -> None:
    assert "tutelage" in (files("tutelage.recipes") / folder / "README.md").read_text()


def test_the_student_of_another_family_has_ten_layers_at_most() -> None:
    config = load_config(GEMMA)
    assert config.teacher.resource == "gemma-3-270m"
    assert config.task.completion, "a base model has no chat template"
    assert config.student.base == "smollm2-135m-instruct"
    assert config.student.layers <= 10


def test_terms_of_gemma_are_conditional_and_bind_the_student() -> None:
    gate = gate_of("internal")
    assert (gate.teacher.status, gate.data.status, gate.base.status) == (
        Status.CONDITIONAL,
        Status.ALLOWED,
        Status.ALLOWED,
    )
    assert gate.together.status is Status.CONDITIONAL
    assert gate.permits
    assert {condition.id for condition in gate.conditions} >= {Fact.OUTPUT_IS_DERIVATIVE, Fact.PROHIBITED_USES}


def test_handing_the_student_on_needs_a_copy_of_the_terms() -> None:
    gate = gate_of("distributed")
    assert {condition.id for condition in gate.conditions} >= {Fact.TERMS_PASSED_ON, Fact.NOTICE_FILE}
    assert not gate.permits
    assert any("gemma.txt" in line for line in gate.unmet)
