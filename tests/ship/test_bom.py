"""The ML-BOM against the standard's own strict schema, its references, and what it may claim."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ship.sample import HOSTILE, account
from tutelage.ship import words
from tutelage.ship.bom import ml_bom
from tutelage.ship.words import SPDX

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_7)


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


def properties(component: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["name"].removeprefix("tutelage:"), one["value"]) for one in component["properties"]]


@pytest.mark.parametrize("proved", [True, False])
def test_valid_and_every_reference_resolves(proved: bool) -> None:
    bom = ml_bom(account(proved=proved))
    assert VALIDATOR.validate_str(json.dumps(bom)) is None
    refs = [one["bom-ref"] for one in walk(bom) if "bom-ref" in one]
    assert len(refs) == len(set(refs))
    used = {one["ref"] for one in walk(bom) if "ref" in one}
    for one in walk(bom):
        used |= {*one.get("dependsOn", ()), *one.get("assemblies", ())}
        used |= {item for item in one.get("evidence", ()) if isinstance(item, str)} | {
            *filter(None, [one.get("target")])
        }
    assert used <= set(refs)
    assert bom["version"] == (2 if proved else 1)
    kinds = [one["type"] for one in bom["externalReferences"]]
    assert kinds == ["log", "evidence", "attestation"]


def test_the_validator_objects() -> None:
    bom = ml_bom(account())
    bom["metadata"]["component"]["hashes"][0]["content"] = "none"
    assert VALIDATOR.validate_str(json.dumps(bom)) is not None


def test_teachers_base_and_data_say_what_was_taken() -> None:
    bom = ml_bom(account())
    smol, closed, data, examples = bom["components"]
    assert {("role", "soft-target"), ("share:soft-target", "700 of 1000"), ("terms", "conditional")} <= {
        *properties(smol)
    }
    assert smol["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert "licenses" not in closed and ("licence", "not public") in properties(closed) and "hashes" not in closed
    assert "modelCard" not in smol and "modelCard" not in closed, "with two teachers nobody says whose the figure is"
    assert data["data"][0]["contents"]["url"] == "https://huggingface.co/datasets/example/reviews"
    assert ("prompt-author", "reviews.csv (Apache-2.0): 90 examples") in properties(data)
    files = examples["data"][0]["contents"]["properties"]
    assert {"name": "tutelage:file:ledger/examples/0.jsonl", "value": "sha256:" + "4" * 64} in files
    student = bom["metadata"]["component"]
    assert [one["name"] for one in student["pedigree"]["ancestors"]] == ["smol-base"]
    metric = student["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert [(one["value"], one["confidenceInterval"]["lowerBound"]) for one in metric] == [("0.82", "0.808")]


def test_upstream_is_unknown_never_complete() -> None:
    aggregates = {ref: one["aggregate"] for one in ml_bom(account())["compositions"] for ref in one["assemblies"]}
    assert {aggregates[ref] for ref in ("base", "teacher-1", "teacher-2", "data")} == {"unknown"}
    assert aggregates["student"] == "complete"


def test_serial_number_follows_the_weights() -> None:
    one, again = ml_bom(account()), ml_bom(account(proved=False))
    assert one["serialNumber"] == again["serialNumber"]
    assert one["serialNumber"] == "urn:uuid:" + one["serialNumber"][9:].lower()


@settings(deadline=None)
@given(st.sampled_from(HOSTILE) | st.text() | st.from_regex(words._WEB, fullmatch=True))
def test_hostile_words_stay_words(word: str) -> None:
    bom = ml_bom(account(lambda _: word))
    assert VALIDATOR.validate_str(json.dumps(bom)) is None
    assert bom["metadata"]["component"]["name"] == word


def test_a_digest_that_is_none_is_refused() -> None:
    broken = account().to_json() | {"weights": "sha256:beef"}
    with pytest.raises(ValueError, match="beef"):
        ml_bom(type(account()).from_json(broken))


def test_every_licence_id_is_one_of_spdx() -> None:
    bom = ml_bom(account())
    bom["metadata"]["licenses"] = [{"license": {"id": licence}} for licence in SPDX.values()]
    assert VALIDATOR.validate_str(json.dumps(bom)) is None


@pytest.mark.parametrize("licence, said", [("mit", {"id": "MIT"}), ("llama-3.1", {"name": "llama-3.1"})])
def test_licence_by_id_or_by_name(licence: str, said: dict[str, str]) -> None:
    bom = ml_bom(account(lambda word: licence if word == "Apache-2.0" else word))
    assert bom["metadata"]["component"]["licenses"] == [{"license": said}]
