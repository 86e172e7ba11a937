"""The loader refuses anything it was not told about, naming file and field; the shipped facts are complete."""

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.terms.model import Kind, Purpose, Status, TermsEntry, UnknownName
from tutelage.terms.registry import DATA, load_entry, load_registry

GOOD = """\
id: sample
name: A sample licence
kind: licence
versioned: true
spdx: ""
aliases: [sample-1, Sample One]
clauses:
  - number: "1"
    gist: Anything goes.
    source: https://example.org/licence
    effective: 2024-01
    checked_on: 2026-01-02
    text_digest: ""
conditions:
  - id: notice-file
    argument: ""
    when: handed-on
    words: Keep the notice.
purposes:
  internal: {status: allowed, clause: "1", conditions: []}
  distributed: {status: conditional, clause: "1", conditions: [notice-file]}
  classifier-only: {status: unknown, clause: "", conditions: []}
  competing-product: {status: forbidden-for-competing, clause: "1", conditions: []}
  research: {status: forbidden, clause: "1", conditions: []}
  same-platform: {status: allowed, clause: "1", conditions: []}
caveats: [Read it.]
"""
CLAUSE = GOOD[GOOD.index("  - number") : GOOD.index("conditions:")]


def written(folder: Path, text: str, name: str = "sample.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file_loads(tmp_path: Path) -> None:
    entry = load_entry(written(tmp_path, GOOD))
    assert entry.rule(Purpose.DISTRIBUTED).status is Status.CONDITIONAL
    (condition,) = entry.conditions_of(entry.rule(Purpose.DISTRIBUTED))
    assert (condition.id, condition.when, condition.entry) == ("notice-file", "handed-on", "sample")
    assert entry.clause("1").effective == "2024-01"
    assert entry.aliases == ("sample-1", "Sample One")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("name: A sample licence\n", "", "name: missing"),
        ("name: A sample licence", "nmae: A sample licence", "nmae: unknown key; did you mean name"),
        ("name: A sample licence", 'name: " "', "name: expected text"),
        ("name: A sample licence", "name: [a]", "name: expected text"),
        ("kind: licence", "kind: license", "kind: 'license' is not one of licence, provider"),
        ("kind: licence", "kind: provider", "versioned: a provider"),
        ("versioned: true", "versioned: yes", "versioned: 'yes' is neither"),
        ("versioned: true", "versioned: True", "versioned: 'True' is neither"),
        ("id: sample", "id: other", "id: 'other' must be the file's name"),
        ("aliases: [sample-1, Sample One]", "aliases: sample-1", "aliases: expected a list"),
        ("aliases: [sample-1, Sample One]", "aliases: [a, A]", r"aliases: \['a'\] given twice"),
        ('spdx: ""', 'spdx: ""\nspdx: ""', "spdx: given twice"),
        ("https://example.org/licence", "http://example.org/licence", r"clauses\[0\].source: .*https"),
        ("https://example.org/licence", "https://", r"clauses\[0\].source"),
        ("effective: 2024-01", "effective: 2024-13", r"clauses\[0\].effective: '2024-13' is not a date"),
        ("effective: 2024-01", 'effective: ""', r"clauses\[0\].effective: expected text"),
        ("effective: 2024-01", "effective: soon", r"clauses\[0\].effective: 'soon' is not a date"),
        ("checked_on: 2026-01-02", "checked_on: 2026-02-30", r"clauses\[0\].checked_on: '2026-02-30' is not a date"),
        ("checked_on: 2026-01-02", "checked_on: 2026-01", r"clauses\[0\].checked_on"),
        ("checked_on: 2026-01-02", "checked_on: 20260102", r"clauses\[0\].checked_on: .* YYYY-MM-DD"),
        ("checked_on: 2026-01-02", "checked_on: undated", r"clauses\[0\].checked_on"),
        ("    checked_on: 2026-01-02\n", "", r"clauses\[0\].checked_on: missing"),
        ('text_digest: ""', "text_digest: sha256:12", r"clauses\[0\].text_digest"),
        ('text_digest: ""', 'text_digest: ""\n    url: x', r"clauses\[0\].url: unknown key"),
        (CLAUSE, CLAUSE + CLAUSE, r"clauses: \['1'\] given twice"),
        ("when: handed-on", "when: sometimes", r"conditions\[0\].when: 'sometimes' is not one of always, handed-on"),
        ("    when: handed-on\n", "", r"conditions\[0\].when: missing"),
        ("id: notice-file", "id: user-cap", r"conditions\[0\].argument: '' is not a number of monthly users"),
        ("id: notice-file", "id: name-prefix", r"conditions\[0\].argument: name-prefix needs the text"),
        ("id: notice-file", "id: display", r"conditions\[0\].argument: display needs the text"),
        ("id: notice-file", "id: notice", r"conditions\[0\].id: 'notice' is not one of"),
        ("words: Keep the notice.", 'words: ""', r"conditions\[0\].words"),
        ("conditions: [notice-file]", "conditions: [display]", r"purposes.distributed.conditions"),
        ("conditional, clause", "allowed, clause", r"purposes.distributed.conditions: status allowed with 1"),
        ("[notice-file]}", "[]}", r"purposes.distributed.conditions: status conditional with 0"),
        ('conditional, clause: "1", conditions: [notice-file]', 'allowed, clause: "1", conditions: []', "conditions: "),
        ("status: forbidden, clause", "status: maybe, clause", "purposes.research.status: 'maybe' is not one of"),
        ('status: forbidden, clause: "1"', 'status: forbidden, clause: "2"', "purposes.research.clause: '2'"),
        ('status: forbidden, clause: "1"', 'status: forbidden, clause: ""', "purposes.research.clause: ''"),
        ('status: unknown, clause: ""', 'status: unknown, clause: "1"', "purposes.classifier-only.clause: '1' is"),
        ("  research:", "  reserach:", "purposes.reserach: unknown key; did you mean research"),
        ('  research: {status: forbidden, clause: "1", conditions: []}\n', "", "purposes.research: missing"),
        ("caveats: [Read it.]", "caveats: [[Read it.]]", "caveats: expected a list of texts"),
        ("caveats: [Read it.]", "caveats: [Read it.", "the file: not valid YAML"),
        ("caveats: [Read it.]", "caveats: !!python/name:os.system []", "the file: tag .* in line"),
        ("versioned: true", "versioned: !!bool true", "the file: tag"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_by_file_and_field(tmp_path: Path, old: str, new: str, field: str) -> None:
    assert old in GOOD
    with pytest.raises(DataError, match=f"sample.yaml: ({field})"):
        load_entry(written(tmp_path, GOOD.replace(old, new, 1)))


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n", "a: &x [*x]\n", "{" * 2000])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"sample\.yaml"):
        load_entry(written(tmp_path, text))


def test_bytes_that_are_no_text_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sample.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"sample\.yaml"):
        load_entry(tmp_path / "sample.yaml")
    with pytest.raises(DataError, match=r"gone\.yaml"):
        load_entry(tmp_path / "gone.yaml")
    with pytest.raises(DataError, match="no terms in"):
        load_registry(tmp_path / "empty")


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in pairs for found in [(*path, key), *_leaves(item, (*path, key))]]


TREE = yaml.load(GOOD, yaml.BaseLoader)


@settings(max_examples=150, deadline=None)
@given(where=st.sampled_from(_leaves(TREE)), what=st.sampled_from(["drop", "rename", "null", "list", "table"]))
def test_any_broken_place_is_a_data_error_or_still_strictly_valid(
    tmp_path_factory: pytest.TempPathFactory, where: tuple[Any, ...], what: str
) -> None:
    tree = yaml.load(GOOD, yaml.BaseLoader)
    parent = tree
    for key in where[:-1]:
        parent = parent[key]
    last = where[-1]
    if what == "rename" and isinstance(parent, dict):
        parent[f"{last}x"] = parent.pop(last)
    elif what in ("drop", "rename"):
        del parent[last]
    else:
        parent[last] = {"null": None, "list": [["x"]], "table": {"x": "y"}}[what]
    path = written(tmp_path_factory.mktemp("terms"), yaml.safe_dump(tree, allow_unicode=True))
    try:
        entry = load_entry(path)
    except DataError as error:
        assert error.message.startswith("sample.yaml: ")
        return
    # What may go is an item of a list of free words, or a text that may be empty or any word: never a key.
    assert not isinstance(parent, dict) or what == "null"
    assert len(entry.rules) == len(Purpose)


def test_names_must_be_unique_and_spdx_must_resolve(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    twin = written(tmp_path, GOOD.replace("id: sample", "id: twin"), "twin.yaml")
    with pytest.raises(DataError, match=r"twin\.yaml: aliases: 'sample-1' already names sample"):
        load_registry(tmp_path)
    twin.write_text(GOOD.replace("id: sample", "id: twin").replace("[sample-1, Sample One]", "[SAMPLE]"))
    with pytest.raises(DataError, match=r"twin\.yaml: aliases: 'sample'"):
        load_registry(tmp_path)
    twin.write_text(
        GOOD.replace("id: sample", "id: twin").replace("[sample-1, Sample One]", "[]").replace('spdx: ""', "spdx: X-1")
    )
    with pytest.raises(DataError, match=r"twin\.yaml: spdx: 'X-1' has no entry"):
        load_registry(tmp_path)


def test_find_ignores_case_and_says_what_is_near() -> None:
    registry = load_registry()
    found = registry.find("aPaChE-2.0")
    assert isinstance(found, TermsEntry)
    assert found.id == "apache-2.0"
    assert registry.find("apche-2.0") == UnknownName("apche-2.0", ("apache-2.0",))
    assert registry.find("zzzzzz") == UnknownName("zzzzzz", ())


@pytest.mark.parametrize("path", sorted(DATA.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file(path: Path) -> None:
    entry = load_entry(path)
    assert entry.clauses
    assert {rule.purpose for rule in entry.rules} == set(Purpose)
    for clause in entry.clauses:
        assert clause.source.startswith("https://")
        assert date.fromisoformat(clause.checked_on) <= date(2026, 11, 23)
        assert 20 < len(clause.gist) < 260
        assert not re.search("[“”]", clause.gist), "gists are our words, not quotations"
    assert entry.digest == load_entry(path).digest
    assert entry.kind is Kind.LICENCE or not entry.versioned
    for rule in entry.rules:
        assert rule.status is not Status.UNKNOWN or entry.caveats, "what was not read says what is known second-hand"


def test_the_licences_of_the_demo_are_known() -> None:
    registry = load_registry()
    assert all(isinstance(registry.find(name), TermsEntry) for name in ("Apache-2.0", "MIT", "own"))
