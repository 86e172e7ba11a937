"""Numbers as they are written, exactly; near misses by one in the last place."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import ConfigError, DataError
from tutelage.prove.tasks.base import Answer
from tutelage.prove.tasks.catalogue import task_of
from tutelage.prove.tasks.numbers import NumberOptions, as_text, read_number


def value(answer: str, gold: str, **options: object) -> float:
    return task_of("number", options).score(Answer(answer), gold).value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("First 3, then 4.\n#### 72 apples in 3 boxes", "72"),
        ("so 1,234.50 dollars.", "1234.5"),
        ("-$5", "-5"),
        ("US$-1,200.75 in all", "-1200.75"),
        ("$5-$3", "3"),
        ("pages 10-12", "12"),
        ("−7", "-7"),
        ("x = -3.", "-3"),
        ("1 3/4", "1.75"),
        ("3/4", "0.75"),
        ("3 / 4", "0.75"),
        ("½", "0.5"),
        ("2½ cups", "2.5"),
        ("1e3", "1000"),
        ("1.5 × 10^3", "1500"),
        ("10^6", "1000000"),
        ("2^{10}", "1024"),
        ("2^-1", "0.5"),
        ("**5**-10 days", "-10"),
        ("2^0.5", "0.5"),
        ("2^3/4", "0.75"),
        ("10^6/2", "3"),
        ("Total: 5\n\\frac{1}{2}", "0.5"),
        ("-2^2", "-4"),
        (r"$3\frac{1}{2}$", "3.5"),
        (r"-2 \frac{1}{2}", "-2.5"),
        ("**42**", "42"),
        (r"1.5\times 10^{-3}", "0.0015"),
        ("25%", "25"),
        ("1{,}000", "1000"),
        (r"1\,000", "1000"),
        ("1\u202f000\u202f000", "1000000"),
        ("5 10/2", "5"),
        (".5", "0.5"),
        (r"-\frac{3}{4}", "-0.75"),
        ("1,2345", "2345"),
        ("1/3", "1/3"),
        ("5/0", None),
        ("1e401", None),
        ("9" * 401, None),
        ("4 and then 5/0", None),
        ("no number", None),
    ],
)
def test_what_is_read(text: str, number: str | None) -> None:
    found = read_number(text, NumberOptions())
    assert (None if found is None else as_text(found)) == number


def test_the_marker_may_be_required() -> None:
    assert value("it is 5", "5") == 1
    assert value("it is 5", "5", marker_required=True, marker="ANSWER:") == 0
    assert not task_of("number", {"marker_required": True}).score(Answer("it is 5"), "5").is_read
    assert value("6 ANSWER: 5 of 7", "ANSWER: 5", marker_required=True, marker="ANSWER:") == 1


@pytest.mark.parametrize(
    ("answer", "gold", "options", "is_right"),
    [
        ("1000000000000", "1000000000001", {}, 0),
        ("0.1", "0.10000000000000000001", {}, 0),
        ("0.30", "0.3", {}, 1),
        ("5", "-5", {}, 0),
        ("10.01", "10", {"tolerance": 0.01}, 1),
        ("10.0100001", "10", {"tolerance": 0.01}, 0),
        ("101", "100", {"relative_tolerance": 0.01}, 1),
        ("101.0001", "100", {"relative_tolerance": 0.01}, 0),
        ("25%", "25", {}, 1),
        ("25%", "0.25", {}, 0),
        ("25%", "0.25", {"percent": "hundredths"}, 1),
        ("25 per cent", "25", {"percent": "hundredths"}, 0),
        ("0.333", "1/3", {}, 0),
        ("2/6", "1/3", {}, 1),
    ],
)
def test_equal_within_what_was_allowed_and_no_further(answer: str, gold: str, options: dict, is_right: int) -> None:
    assert value(answer, gold, **options) == is_right


@settings(derandomize=True, deadline=None)
@given(st.integers(), st.integers(min_value=1, max_value=10**6))
def test_every_fraction_is_read_back(above: int, below: int) -> None:
    assert read_number(f"so {above}/{below}.", NumberOptions()) == Fraction(above, below)


@settings(derandomize=True, deadline=None)
@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_thousands_change_nothing_and_one_more_does(number: int) -> None:
    assert value(f"it is {number:,}", str(number)) == 1
    assert value(f"it is {number + 1:,}", str(number)) == 0


@pytest.mark.parametrize("gold", ["NaN", "", "many", "inf"])
def test_gold_without_a_number_is_refused(gold: str) -> None:
    with pytest.raises(DataError, match="has no number") as caught:
        task_of("number", {}).require_reference(gold)
    assert repr(gold) in caught.value.message


@pytest.mark.parametrize("options", [{"tolerance": -1}, {"tolerance": float("nan")}, {"relative_tolerance": 1}])
def test_tolerances_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match="tolerance"):
        task_of("number", options)


@pytest.mark.parametrize("gold", ["1 000 000", "about 12 500 people", "sum #### 1 000"])
def test_gold_that_is_one_number_or_several_is_refused(gold: str) -> None:
    with pytest.raises(DataError, match="one number or several"):
        task_of("number", {}).require_reference(gold)
    task_of("number", {}).require_reference("in 2020 150 people")


@pytest.mark.parametrize("text", ["9" * 300 + "^9", "7^801", "0^-1", "2^" + "9" * 399])
def test_powers_too_long_to_write_are_no_numbers(text: str) -> None:
    assert read_number(text, NumberOptions()) is None
