"""Extraction by field: what counts as found, as missing and as made up."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.prove.tasks.base import Answer, Score
from tutelage.prove.tasks.catalogue import task_of
from tutelage.prove.tasks.json_fields import MAX_PAIRS, Budget, micro

GOLD = {"name": "Ada Lovelace", "born": 1815, "tags": ["maths", "code"], "address": {"city": "London", "zip": None}}


def score(answer: Any, gold: Any, **options: Any) -> Score:
    said, right = (value if isinstance(value, str) else json.dumps(value) for value in (answer, gold))
    return task_of("json", options).score(Answer(said), right)


@pytest.mark.parametrize(
    ("changes", "matched", "answered"),
    [
        ({}, 5, 5),
        ({"name": "ada  lovelace."}, 5, 5),
        ({"name": "Ada Byron"}, 4, 5),
        ({"born": 1816}, 4, 5),
        ({"born": 1815.0}, 5, 5),
        ({"born": None}, 4, 4),
        ({"died": 1852}, 5, 6),
        ({"tags": ["code", "maths"]}, 5, 5),
        ({"tags": ["code"]}, 4, 4),
        ({"tags": ["code", "code", "maths"]}, 5, 6),
        ({"address": {"city": "London", "zip": "N1"}}, 5, 6),
        ({"address": "London"}, 4, 5),
        ({"born": True}, 4, 5),
        ({"born": "1815"}, 5, 5),
        ({"name": 5}, 4, 5),
        ({"tags": "maths"}, 4, 4),
        ({"died": []}, 5, 5),
    ],
)
def test_leaves_are_counted(changes: dict, matched: int, answered: int) -> None:
    found = score(GOLD | changes, GOLD)
    assert (found.parts["matched"], found.parts["answered"], found.parts["expected"]) == (matched, answered, 5)
    assert found.value == pytest.approx(2 * matched / (answered + 5))
    assert score(GOLD | changes, GOLD, score="all").value == float(matched == answered == 5)


def test_parts_by_field_and_micro_average() -> None:
    found = score(GOLD | {"tags": ["code"]}, GOLD)
    assert found.parts["field tags"] == pytest.approx(2 / 3)
    assert found.parts["field name"] == 1
    both = micro([found.parts, score({}, {"a": 1, "b": 2}).parts])
    assert (both.precision, both.recall, both.f1) == (1.0, 4 / 7, 8 / 11)


@pytest.mark.parametrize(
    "text",
    [
        'Here: ```json\n{"a": 1}\n``` and {"a": 2}',
        'As in [1] and {this}: {"a": 1}.',
        ' {"a": 1} ',
        '{"b": {"a": 1}',
        '```\n{"a": 1}\n```',
        'NaN {"a": NaN} {"a": 1}',
    ],
)
def test_the_first_value_of_the_reference_s_kind_is_read(text: str) -> None:
    assert score(text, {"a": 1}).value == 1


@pytest.mark.parametrize(
    "text", ["", "none", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": Infinity}', "[" * 100_000, '{"a": 1e99999}']
)
def test_what_is_no_json_is_not_read_and_refused_as_gold(text: str) -> None:
    found = score(text, {"a": 1})
    assert (found.value, found.is_read) == (0, False)
    with pytest.raises(DataError, match="is no JSON"):
        task_of("json", {}).require_reference(text)


@pytest.mark.parametrize(
    ("answer", "gold", "options", "value"),
    [
        ([1, 2], [2, 1], {}, 1),
        ([1, 2], [2, 1], {"lists": "sequence"}, 0),
        ([1, 2], [1, 2, 3], {"lists": "sequence"}, 0.8),
        ({"p": 10.01}, {"p": 10}, {"tolerance": 0.01}, 1),
        ({"p": 10.011}, {"p": 10}, {"tolerance": 0.01}, 0),
        ([1.0, 1.1], [1.1, 1.2], {"tolerance": 0.1}, 1),
        ({"p": "EUR 12.50"}, {"p": "12.5 €"}, {"fields": {"p": "number"}}, 1),
        ({"p": "EUR 12.51"}, {"p": "12.5 €"}, {"fields": {"p": "number"}}, 0),
        ({"a": "X"}, {"a": "x"}, {"texts": "exact"}, 0),
        ({"v": "3.5"}, {"v": "35"}, {}, 0),
        ({"v": "-5"}, {"v": "5"}, {}, 0),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 2}, {"b": 1}]}, {}, 1),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 2}, {"b": 1}]}, {"fields": {"a": "sequence"}}, 0),
        ({"a": [{"b": "x"}]}, {"a": [{"b": "X"}]}, {"lists": "sequence", "fields": {"a.b": "exact"}}, 0),
        ({}, {}, {}, 1),
        (7, 7, {}, 1),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, {"fields": {"a": "exact"}}, 0),
    ],
)
def test_options(answer: Any, gold: Any, options: dict, value: float) -> None:
    assert score(answer, gold, **options).value == pytest.approx(value)


def test_a_number_field_needs_a_number_in_the_gold() -> None:
    with pytest.raises(DataError, match="agree with itself"):
        task_of("json", {"fields": {"p": "number"}}).require_reference('{"p": "cheap"}')


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES, VALUES, st.sampled_from(["set", "sequence"]), st.sampled_from(["exact", "text"]))
def test_a_value_agrees_with_itself_and_no_more_is_found_than_given(
    one: Any, other: Any, lists: str, texts: str
) -> None:
    options = {"lists": lists, "texts": texts}
    assert score(json.dumps(one), json.dumps(one), **options).value == 1
    found = score(json.dumps(one), json.dumps(other), **options)
    assert 0 <= found.value <= 1
    assert found.parts["matched"] <= min(found.parts["answered"], found.parts["expected"])


def test_what_says_nothing_does_not_count_inside_a_list_either() -> None:
    gold = {"lines": [{"sku": "a", "qty": 2, "note": None, "tags": []}, {"sku": "b", "qty": 1}]}
    said = {"lines": [{"sku": "b", "qty": 1, "note": None}, {"sku": "a", "qty": 2}]}
    for lists in ("set", "sequence"):
        ordered = said if lists == "set" else {"lines": said["lines"][::-1]}
        assert score(ordered, gold, lists=lists).value == 1.0
    assert score({"lines": [{"sku": "a"}, {"sku": "b", "qty": 1}]}, gold).parts["matched"] == 2


def test_rules_and_tolerances_hold_inside_a_list_in_any_order() -> None:
    gold = {"lines": [{"sku": "a", "price": 10.0}, {"sku": "b", "price": 12}]}
    said = {"lines": [{"sku": "b", "price": "12 EUR"}, {"sku": "a", "price": 9.99}]}
    assert score(said, gold).parts["matched"] == 2, "12 EUR is 12, as outside of lists"
    assert score(said, gold, tolerance=0.5).value == 1.0
    assert score(said, gold, tolerance=0.001).parts["matched"] == 2
    assert score(said, gold, tolerance=0.5, fields={"lines.price": "exact"}).parts["matched"] == 0
    assert score(said, gold, tolerance=0.5, fields={"lines": "set"}).value == 1.0
    twice = {"lines": [said["lines"][1]] * 2}
    assert score(twice, gold, tolerance=0.5).parts["matched"] == 2, "one twin each"


def test_a_list_in_another_order_is_the_same_whatever_the_tolerance() -> None:
    gold = {"lines": [{"p": 11}, {"p": 12}, {"p": 10}]}
    assert score({"lines": [{"p": 10}, {"p": 11}, {"p": 12}]}, gold, tolerance=1).value == 1.0
    near = {"lines": [{"p": 10.75}, {"p": 11.75}, {"p": 9.75}]}  # greedy by place would pair 11 with 11.75
    assert score({"lines": [{"p": 11}, {"p": 12}, {"p": 10}]}, near, tolerance=1).value == 1.0
    assert score({"lines": [{"p": 11}, {"p": 13}, {"p": 10}]}, gold, tolerance=0.5).parts["matched"] == 2


def test_lists_within_lists_are_compared_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    real = Budget.take
    monkeypatch.setattr(Budget, "take", lambda self: taken.append(real(self)) or taken[-1])
    rows = [{"id": at, "in": [{"k": inner, "v": at * inner + 1} for inner in range(20)]} for at in range(20)]
    other = [{"id": at, "in": [{"k": inner, "v": at * inner} for inner in range(20)]} for at in range(20)]
    assert score({"r": rows[::-1]}, {"r": rows}).value == 1.0 and not taken, "twins need no comparison"
    assert score({"r": other}, {"r": rows}, tolerance=0.5).value == 0.0
    assert sum(taken) <= MAX_PAIRS
    many = [{"p": at + 0.25} for at in range(400)]
    assert 0 < score({"r": many}, {"r": [{"p": at} for at in range(400)]}, tolerance=1).value <= 1.0
