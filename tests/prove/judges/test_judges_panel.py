"""A judge's figures, counted by hand; kappa and Fisher's test against statsmodels and scipy; families."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact
from statsmodels.stats.inter_rater import cohens_kappa

from tutelage.errors import DataError
from tutelage.prove.judges.agreement import agreement, fisher_p
from tutelage.prove.judges.calls import Call, Item, Items, JudgeCalls, call_of, call_of_scores, gold_of
from tutelage.prove.judges.family import families_of, self_preference
from tutelage.prove.judges.panel import figures, length_sides, outcomes, settled_calls, tally
from tutelage.prove.judges.reading import Verdict
from tutelage.stats.paired import PairedTable

S, T, E, U = Call.STUDENT, Call.TEACHER, Call.TIE, Call.UNREADABLE
# (student shown first, teacher shown first), outcome of the settled call
EACH = [
    ((S, S), 1.0), ((T, T), 0.0), ((E, E), 0.5), ((S, T), 0.5), ((T, S), 0.5), ((S, E), 0.5), ((E, T), 0.5),
    ((U, S), None), ((T, U), None), ((U, U), None),
]  # fmt: skip


def hand() -> tuple[Items, JudgeCalls]:
    items = [Item(str(at), 10 + at % 2, 10, gold=S if at < 2 else None) for at in range(len(EACH))]
    items.append(Item("same", 5, 5, is_identical=True))
    return Items.of(items), JudgeCalls.of("hand", [*(calls for calls, _ in EACH), (S, S)])


def test_the_tally_names_every_kind_apart() -> None:
    items, judge = hand()
    found = tally(items, judge)
    assert found == (1, 1, 1, 1, 1, 2, 3, 1)
    assert (found.same, found.inconsistent, found.named, found.read, found.n) == (2, 4, 6, 7, 11)


@pytest.mark.parametrize("unreadable", [0.0, 1.0])
def test_outcomes(unreadable: float) -> None:
    items, judge = hand()
    expected = [unreadable if outcome is None else outcome for _, outcome in EACH]
    assert outcomes(items, judge, unreadable).tolist() == [*expected, 0.5]
    assert settled_calls(items, judge)[-1] == Call.TIE, "identical answers are a tie, whatever was called"


def test_figures_by_hand() -> None:
    items, judge = hand()
    found = figures(items, judge, 0.95)
    assert found["swap_consistency"]["share"] == pytest.approx(2 / 6)
    assert found["first_shown"]["share"] == 0.5
    assert found["first_shown"]["n"] == 2
    assert found["gold_items"] == 2
    assert found["gold_agreement"]["share"] == 0.5
    assert found["outcomes"]["unreadable"] == 3


def test_length_by_hand() -> None:
    calls = [(S, S), (T, T), (S, S), (T, T), (S, T), (E, E)]
    lengths = [(9, 5), (9, 5), (5, 9), (5, 5), (9, 5), (9, 5)]
    items = Items.of([Item(str(at), *pair) for at, pair in enumerate(lengths)])
    judge = JudgeCalls.of("hand", calls)
    assert length_sides(items, judge) == (1, 2, 1)
    assert length_sides(items, judge, S) == (1, 3, 1)


def test_both_orders_become_one_language() -> None:
    for verdict, student_is_a, call in (
        (Verdict.A, True, S), (Verdict.A, False, T), (Verdict.B, True, T), (Verdict.B, False, S),
        (Verdict.TIE, True, E), (Verdict.TIE, False, E), (Verdict.UNREADABLE, True, U), (Verdict.UNREADABLE, False, U),
    ):  # fmt: skip
        assert call_of(verdict, student_is_a=student_is_a) is call


def test_marks_become_calls() -> None:
    assert call_of_scores((5, 3), (4, 4)) is E
    assert call_of_scores((5, 4), (4, 4)) is S
    assert call_of_scores((1, 1), (4, 4)) is T
    assert call_of_scores(Verdict.UNREADABLE, (4, 4)) is U
    assert gold_of(0.2, 0.7) is T
    with pytest.raises(DataError, match="2 marks for the student, 1"):
        call_of_scores((5, 4), (4,))
    with pytest.raises(DataError, match="nan"):
        gold_of(float("nan"), 0.7)


def test_sessions_count_only_where_two_items_share_one() -> None:
    alone = Items.of([Item("a", 1, 2, session="x"), Item("b", 1, 2), Item("c", 1, 2)])
    assert alone.session_N is None
    shared = Items.of([Item("a", 1, 2, session="x"), Item("b", 1, 2), Item("c", 1, 2, session="x")])
    assert shared.session_N is not None
    assert shared.session_N.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="2 items of 1 names"):
        Items.of([Item("a", 1, 2), Item("a", 1, 2)])


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any))
def test_kappa_and_p_are_those_of_others(cells: tuple[int, int, int, int]) -> None:
    table = PairedTable(*cells)
    found = agreement(table)
    square = np.array([[table.both, table.only_first], [table.only_second, table.neither]])
    assert fisher_p(table) == pytest.approx(fisher_exact(square, alternative="greater").pvalue, rel=1e-9)
    if found.kappa is None:
        assert found.p == 1.0
        return
    with np.errstate(all="ignore"):  # its own test statistic is 0/0 where one rater always says the same
        theirs = cohens_kappa(square, return_results=True)
    assert found.kappa == pytest.approx(theirs.kappa, abs=1e-12)
    if found.low is None:  # no spread: their variance is nought but for rounding, which may fall below it
        assert np.isnan(theirs.std_kappa) or theirs.std_kappa < 1e-4
    elif table.only_first + table.only_second:
        limits = max(-1.0, theirs.kappa_low), min(1.0, theirs.kappa_upp)
        assert (found.low, found.high) == pytest.approx(limits, abs=1e-9)


def test_kappa_of_raters_who_never_differ_is_not_certain() -> None:
    found = agreement(PairedTable(6, 0, 0, 6))
    assert found.kappa == 1.0
    assert found.low is not None
    assert 0.3 < found.low < 0.6


@pytest.mark.parametrize(
    ("name", "families"),
    [
        ("gpt-4o-2024-11-20", {"OpenAI"}), ("openai/gpt-oss-20b", {"OpenAI"}), ("o3-mini", {"OpenAI"}),
        ("anthropic/claude-sonnet-5", {"Claude"}), ("google/gemma-3-27b-it", {"Gemini and Gemma"}),
        ("models/gemini-3.1-pro", {"Gemini and Gemma"}), ("Qwen/Qwen2.5-0.5B-Instruct", {"Qwen"}),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", {"DeepSeek", "Llama"}), ("meta-llama/Llama-3.3-70B", {"Llama"}),
        ("mistralai/Ministral-8B", {"Mistral"}), ("microsoft/phi-4", {"Phi"}), ("my-model-7b", set()),
        ("dolphin-2.9", set()), ("sapphire", set()), ("yield-1", set()), ("", set()),
    ],
)  # fmt: skip
def test_families(name: str, families: set[str]) -> None:
    assert families_of(name) == families


def test_self_preference_in_words() -> None:
    warned = self_preference("gpt-5", {"teacher": "openai/gpt-5-mini", "student": "Qwen/Qwen3-0.6B"})
    assert len(warned) == 1
    assert "judge and teacher are of one family (OpenAI)" in warned[0]
    assert "the teacher itself" in self_preference("GPT-5", {"teacher": "gpt-5"})[0]
    assert "'in-house-7b' is not known" in self_preference("gpt-5", {"student": "in-house-7b"})[0]
    assert self_preference("claude-opus-5", {"teacher": "gpt-5", "student": "Qwen3-0.6B"}) == ()
