"""Formulas by value: equal however they are written, and different by as little as one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.prove.tasks.base import Answer, Score
from tutelage.prove.tasks.catalogue import task_of
from tutelage.prove.tasks.maths import extracted


def score(answer: str, gold: str) -> Score:
    return task_of("maths", {}).score(Answer(answer), gold)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\frac{3}{4}", "0.75"),
        (r"\frac12", "1/2"),
        (r"\dfrac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        (r"2\sqrt{2}", r"\sqrt{8}"),
        ("x=5", "5"),
        ("(1,2)", r"\left(1, 2\right)"),
        (r"\{2,1\}", r"\{1,2\}"),
        ("2, 1", "1,2"),
        ("1,000", "1000.0"),
        (r"10\,000", "10000"),
        (r"50\%", "50"),
        (r"90^\circ", "90"),
        (r"5\text{ cm}", "5"),
        (r"\text{Monday}", "monday"),
        (r"1\frac{1}{2}", r"\frac32"),
        ("1 1/2", "3/2"),
        ("x^2+2x+1", "(x+1)^2"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        ("2^{10}", "1024"),
        (r"3\pm\sqrt{2}", r"3-\sqrt2,3+\sqrt2"),
        (r"[0,\infty)", r"[0, \infty)"),
        (r"(-\infty,1)\cup(2,3]", r"(2,3] \cup (-\infty,1)"),
        (r"\pi/2", r"\frac{\pi}{2}"),
        (r"\log_2 8", "3"),
        ("5!", "120"),
        (r"\binom{5}{2}", "10"),
        ("-0.5", r"-\frac{1}{2}"),
        (r"\sin 2x", r"\sin(x+x)"),
        ("e^{2}", r"e\cdot e"),
        (r"\sqrt[3]{27}", "3"),
        ("2x", "x*2"),
        ("y = 2x+1", "1+2x"),
        ("√2", r"\sqrt{2}"),
        ("-3^2", "-9"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"x^2 + y^2 = 1", "x^2+y^2=1"),
        (r"a_1 + a_{2}", "a_2+a_{1}"),
    ],
)
def test_equal(one: str, other: str) -> None:
    assert score(rf"We get \boxed{{{one}}}.", other).value == score(other, one).value == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\frac{3}{4}", "0.7500001"),
        ("1000000000000", "1000000000001"),
        (r"\sqrt{2}\cdot 10^{12}+1", r"\sqrt{2}\cdot 10^{12}"),
        ("10^{100}", "10^{100}+1"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "[1,2]"),
        ("[0,1)", "[0,1]"),
        ("x+1", "x+2"),
        ("5", "-5"),
        (r"\{1,2\}", r"\{1,2,2\}"),
        (r"2\sqrt{3}", r"3\sqrt{2}"),
        ("Monday", "Tuesday"),
        ("nomad", "monad"),
        (r"\sin x", r"\cos x"),
        ("A", "B"),
        ("x^2", "x^3"),
        (r"3\frac12", "3/2"),
        (r"\pi", "3.14159265358979"),
        ("x < 3", r"x \le 3"),
        ("1,2", "1,3"),
    ],
)
def test_different(one: str, other: str) -> None:
    assert score(rf"\boxed{{{one}}}", other).value == score(rf"\boxed{{{other}}}", one).value == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("so\n#### 42", "42"),
        ("The answer is 42.", "42"),
        (r"The answer is **$\frac{1}{3}$**.", r"\frac{1}{3}"),
        ("I get $x$ and then $y$.", "y"),
        (r"hence \(x+1\)", "x+1"),
        ("First 3.\nThen 7 apples are left.", "7"),
        ("Monday", "Monday"),
        (r"\boxed{1 + ", ""),
        ("", ""),
        ("$$", ""),
        (r"cut: \boxed{3} and \boxed{\frac{1}{", ""),
    ],
)
def test_what_is_the_result(text: str, found: str) -> None:
    assert extracted(text) == found
    assert score(text, "1").is_read == bool(found)


@settings(derandomize=True, deadline=None)
@given(st.integers(-(10**20), 10**20), st.integers(1, 10**9), st.integers(-50, 50), st.integers(1, 9))
def test_every_way_to_write_a_ratio(above: int, below: int, shift: int, factor: int) -> None:
    gold = f"{above}/{below}"
    assert score(rf"\boxed{{\frac{{{above * factor}}}{{{below * factor}}}}}", gold).value == 1
    assert score(rf"$\frac{{{above + shift * below}}}{{{below}}} - {shift}$".replace("- -", "+ "), gold).value == 1
    assert score(rf"\boxed{{\frac{{{above + 1}}}{{{below}}}}}", gold).value == 0


@pytest.mark.parametrize("gold", ["", "$$", "9" * 501, r"\boxed{"])
def test_gold_without_a_formula_is_refused(gold: str) -> None:
    with pytest.raises(DataError, match="has no formula"):
        task_of("maths", {}).require_reference(gold)


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("The answer is: 42", "42"),
        ("The final answer is: 42.", "42"),
        ("The final answer is:\n\n42", "42"),
        ("The answer is: \n$$42$$", "42"),
        ("The answer is `42`.", "42"),
        ("The **answer is: .5**.", "1/2"),
        ("The answer is therefore 5.", "5"),
        (r"\boxed{5\text{ cm}^2}", "5"),
        (r"\boxed{4\text{ m}^{3}}", "4"),
        ("5 cm", "5"),
        ("The answer is 72 clips.", "72"),
        ("#### 72 clips", "72"),
        ("Answer: 5 dollars", "5"),
        ("The answer is 5 km/h", "5"),
        ("1 1/2 cups", "3/2"),
        ("5.5 ft^2", "5.5"),
    ],
)
def test_ways_to_end_an_answer(text: str, gold: str) -> None:
    assert score(text, gold).value == 1.0
    assert score(text, f"{gold}+1").value == 0.0
    assert score(gold, text).value == 1.0, "also as gold"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"5\text{ cm}^2", "25"), ("2 pi", "2"), ("2 ab", "2"), ("3 sqrt(4)", "3"), (r"\arccos 0", "0"),
        (r"\text{x}^2", r"\text{x}^3"), ("2xyz", "2"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_unit_counts(one: str, other: str) -> None:
    assert score(one, other).value == 0.0
    assert score(one, one).value == 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 million", "3 thousand"), ("2 hundred", "2 million"), ("3 million", "3"), ("3 millions", "3"), ("5 dozen", "5"),
        ("3 quarters", "3"), ("7 tenths", "7"), ("2 halves", "2"), ("5 factorial", "5"), ("3 cubed", "3"), ("3 squared", "3"),
        ("12 May", "12 June"), ("3 lambda", "3 gamma"), ("2 arctan", "2"), ("2 pairs", "2"), ("3 plus", "3"),
    ],
)  # fmt: skip
def test_words_that_change_a_number_are_no_units(one: str, other: str) -> None:
    assert score(one, other).value == score(other, one).value == 0.0
