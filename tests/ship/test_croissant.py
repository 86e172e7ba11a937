"""Croissant 1.1 by hand, since `mlcroissant` needs a package that has no wheel: what the specification requires, and the
columns against the records that are really written."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ship.sample import HOSTILE, account
from tests.ship.test_bom import walk
from tests.test_records import exchange
from tutelage.ledger.examples import Taken, Tokens, records
from tutelage.ship.croissant import ANSWERS, CONTEXT, PROMPTS, croissant

REQUIRED = {"@context", "@type", "conformsTo", "description", "license", "name", "url", "creator", "datePublished"}


def check(made: dict) -> None:
    """The specification's rules that a machine can check."""
    assert made.keys() >= REQUIRED and made["@type"] == "sc:Dataset"
    assert "http://mlcommons.org/croissant/1.1" in made["conformsTo"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", made["version"])
    ids = [one["@id"] for one in walk(made) if "@id" in one and "@type" in one and one["@type"].startswith("cr:")]
    assert len(ids) == len(set(ids))
    for one in made["distribution"]:
        assert one["encodingFormat"] and (one["@type"] == "cr:FileSet" or one["contentUrl"])
        assert one["@type"] == "cr:FileSet" or re.fullmatch(r"[0-9a-f]{64}", one["sha256"])
    for one in made["recordSet"]:
        fields = [field["@id"] for field in one["field"]]
        assert all(field.startswith(one["@id"] + "/") for field in fields)
        assert all(field["dataType"].startswith("sc:") for field in one["field"])
        assert {key["@id"] for key in one["key"]} <= set(fields)
        assert all(set(line) == set(fields) for line in one.get("data", ()))
        assert ("data" in one) != any("source" in field for field in one["field"])
    body = {key: value for key, value in made.items() if key != "@context"}
    assert {one["fileSet"]["@id"] for one in walk(body) if "fileSet" in one} <= set(ids)
    assert {key.partition(":")[0] for one in walk(body) for key in one if ":" in key} <= CONTEXT.keys()


def test_meets_the_specification() -> None:
    check(croissant(account()))


def test_answers_are_attributed_row_by_row() -> None:
    made = croissant(account())
    answers, prompts, sources = made["recordSet"]
    said = {field["equivalentProperty"]: field["source"] for field in answers["field"] if "equivalentProperty" in field}
    assert answers["dataType"] == "prov:Entity"
    assert said["prov:wasAttributedTo"]["transform"] == {"jsonPath": "$.model_asked"}
    assert said.keys() >= {"prov:wasDerivedFrom", "prov:wasGeneratedBy"}
    files = {one["@id"]: one["includes"] for one in made["distribution"] if one["@type"] == "cr:FileSet"}
    assert files["answers-files"] == [f"ledger/examples/{number}.jsonl" for number in (1, 2, 3)]
    assert files["prompts-files"] == ["ledger/examples/0.jsonl"]
    assert [line["sources/loss_tokens"] for line in sources["data"]] == [0, 700, 70, 230, 0]
    assert not any(field.get("equivalentProperty") == "prov:wasAttributedTo" for field in prompts["field"])


def test_terms_give_permission_only_where_the_texts_do() -> None:
    withheld, allowed, forbidden, unknown = croissant(account())["usageInfo"]
    assert withheld["name"] == "not handed out" and croissant(account())["isAccessibleForFree"] is False
    assert allowed["odrl:permission"]["odrl:duty"][0]["name"] == "notice-file"
    assert "odrl:permission" not in forbidden and "accepted the risk" in forbidden["description"]
    assert not unknown.keys() & {"odrl:permission", "odrl:prohibition"}


def test_columns_are_those_of_the_records() -> None:
    one = exchange().to_json()
    request = {"messages": [{"role": "user", "content": "?"}], "params": {}, "draw": 0, "purpose": "train"}
    prompt = {"source": "reviews.csv", "source_digest": "sha256:" + "d" * 64, "licence": "MIT"}
    taken = Taken(3, "sha256:" + "0" * 64, one, request, prompt, {"soft-target": Tokens(5, 2)})
    found = {key[-1]: record for key, record in records(b"k" * 32, taken)}
    for columns, record in ((ANSWERS, found["soft-target"]), (PROMPTS, found["prompt-author"])):
        for name, column, path, kind, _, _ in columns:
            value = record[column][path.removeprefix("$.")] if path else record[column]
            assert isinstance(value, int if kind == "sc:Integer" else str), name


def test_without_records_there_is_the_table_alone() -> None:
    made = croissant(type(account()).from_json(account().to_json() | {"examples": {}}))
    check(made)
    assert [one["@id"] for one in made["recordSet"]] == ["sources"] and made["distribution"] == []


@settings(deadline=None)
@given(st.sampled_from(HOSTILE) | st.text())
def test_hostile_words_name_nothing(word: str) -> None:
    made, plain = croissant(account(lambda _: word)), croissant(account())
    check(made)
    assert {one["@id"] for one in walk(made) if "@id" in one} == {one["@id"] for one in walk(plain) if "@id" in one}


@pytest.mark.parametrize("licence, said", [("mit", "https://spdx.org/licenses/MIT.html"), ("", "licence not public")])
def test_licences(licence: str, said: str) -> None:
    made = croissant(account(lambda word: licence if word == "CC-BY-4.0" else word))["license"][0]
    assert (made if isinstance(made, str) else made["name"]) == said
