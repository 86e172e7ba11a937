"""ROUGE-L and chrF against stored values of the reference implementations, and their edges."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.prove.tasks.base import Answer
from tutelage.prove.tasks.catalogue import task_of
from tutelage.prove.tasks.overlap import longest_common_subsequence

ROWS = json.loads(Path(__file__).with_name("overlap_values.json").read_text())["rows"]
CHRF = {"chrf": {}, "chrf++": {"words": 2}, "chrf_4_beta1": {"characters": 4, "beta": 1}}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["answer"][:20])
def test_agrees_with_rouge_score_and_sacrebleu(row: dict) -> None:
    found = task_of("rouge_l", {}).score(Answer(row["answer"]), row["reference"])
    precision, recall, f1 = row["rouge_l"]
    assert found.value == pytest.approx(f1, abs=1e-6)
    assert dict(found.parts) == pytest.approx({"precision": precision, "recall": recall}, abs=1e-6)
    for name, options in CHRF.items():
        assert task_of("chrf", options).score(Answer(row["answer"]), row["reference"]).value == pytest.approx(
            row[name], abs=1e-6
        )


def naive_lcs(first: Sequence[int], second: Sequence[int]) -> int:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, one in enumerate(first, 1):
        for j, other in enumerate(second, 1):
            same = table[i - 1][j - 1] + 1 if one == other else 0
            table[i][j] = max(table[i - 1][j], table[i][j - 1], same)
    return table[-1][-1]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=80), st.lists(st.integers(0, 4), max_size=80))
def test_the_subsequence_is_the_longest(first: list[int], second: list[int]) -> None:
    assert longest_common_subsequence(first, second) == naive_lcs(first, second)


def test_gold_that_no_word_or_character_is_in_is_refused() -> None:
    with pytest.raises(DataError, match="chrf"):
        task_of("rouge_l", {}).require_reference("北京是中国的首都")
    task_of("chrf", {}).require_reference("北京是中国的首都")
    with pytest.raises(DataError, match="is empty"):
        task_of("chrf", {}).require_reference(" \n")
