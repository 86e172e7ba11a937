"""What a label proof is held against: the teacher again, the checkpoint beside the served student, what is missing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.prove.controls import FEWEST_AGAIN, ceiling, held_against, same_artefact
from tutelage.tasks import FLOOR_NATS

ZERO = np.zeros(2)
GAP = {"gap_recovered": 0.9, "gap_method": "BCa"}


def test_the_ceiling_is_the_share_of_equal_decisions() -> None:
    first = np.array([0, 1, 1, -1, 0, 1, 0, 0, 1, 1])
    second = first.copy()
    second[0] = 1
    found = ceiling(first, second, 0.95, "draw 1")
    assert (found["agreement"], found["n"], found["how"]) == (0.8, 10, "draw 1"), (
        "an answer unread twice agrees with nothing"
    )
    assert found["low"] < 0.8 < found["high"] < 1
    assert found["interval_method"] == "Wilson score, 95%"


def test_a_teacher_that_says_no_label_twice_does_not_agree_with_itself() -> None:
    first, second = np.array([0, 1, 1, -1, -1]), np.array([0, 1, 1, -1, 0])
    assert ceiling(first, second, 0.95, "draw 1")["agreement"] == 0.6


@pytest.mark.parametrize("second", [np.array([0, 1]), np.array([], dtype=np.int64)])
def test_every_item_must_be_asked_twice(second: np.ndarray) -> None:
    with pytest.raises(DataError, match="second answers"):
        ceiling(np.arange(len(second) + 1) % 2 if second.size else second, second, 0.95, "")


def test_the_artefact_is_compared_by_decisions_and_log_probabilities() -> None:
    trained = np.log([[0.9, 0.1], [0.4, 0.6], [0.51, 0.49], [0.2, 0.8]])
    served = np.log([[0.9, 0.1], [0.4, 0.6], [0.49, 0.51], [0.2, 0.8]])
    found = same_artefact(trained, served, ZERO, 0.95)
    assert (found["n"], found["decisions_differ"]) == (4, 1)
    assert found["largest_nats"] == pytest.approx(np.log(0.51 / 0.49))
    assert found["differ_high"] == pytest.approx(0.806, abs=0.001), "Clopper-Pearson, 1 of 4"
    assert same_artefact(trained, trained, ZERO, 0.95)["decisions_differ"] == 0
    shifted = same_artefact(trained, served, np.array([0.0, 5.0]), 0.95)
    assert shifted["decisions_differ"] == 0, "the decision rule is the one of the proof"


def test_a_label_that_only_one_of_them_reveals_is_no_distance() -> None:
    trained = np.array([[-0.1, -9.0], [-0.1, -3.0]])
    served = np.array([[-0.1, FLOOR_NATS], [-0.1, -3.0]])
    assert same_artefact(trained, served, ZERO, 0.95)["largest_nats"] == 0.0
    silent = np.full((2, 2), FLOOR_NATS)
    found = same_artefact(trained, silent, ZERO, 0.95)
    assert (found["decisions_differ"], found["largest_nats"]) == (2, None), "an unread answer decides nothing"


def test_an_artefact_is_compared_on_the_same_items_alone() -> None:
    scores = np.log([[0.9, 0.1], [0.4, 0.6]])
    with pytest.raises(DataError, match="shapes"):
        same_artefact(scores, scores[:1], ZERO, 0.95)
    with pytest.raises(DataError, match="nan"):
        same_artefact(np.full((2, 2), np.nan), scores, ZERO, 0.95)


def missing(roles: list[str], again: int, checkpoint: int, gap: dict = GAP) -> list[str]:
    rows = held_against(gap, roles, {"n": again} if again else None, {"n": checkpoint} if checkpoint else None)
    return [row["name"] for row in rows if not row["there"]]


def test_what_is_missing_is_named() -> None:
    every = ["teacher", "student", "plain", "before"]
    assert missing(every, FEWEST_AGAIN, 200) == []
    assert missing(["teacher", "student", "before"], FEWEST_AGAIN, 200) == ["plain"]
    assert missing(every, FEWEST_AGAIN - 1, 200) == ["again-500"]
    assert missing(["teacher", "student"], 0, 0) == ["before", "plain", "again", "checkpoint"]
    undefined = {"gap_recovered": None, "gap_method": "undefined: the teacher is no better"}
    assert missing(every, FEWEST_AGAIN, 1, undefined) == ["gap"]
    rows = held_against(undefined, every, {"n": 60}, None)
    words = "; ".join(row["words"] for row in rows if not row["there"])
    assert "undefined: the teacher is no better" in words
    assert "500 items (fewer: 60)" in words


@given(st.sets(st.sampled_from(["before", "plain"])), st.integers(0, 1200), st.integers(0, 300))
def test_a_control_is_there_or_missing_never_both(roles: set[str], again: int, checkpoint: int) -> None:
    rows = held_against(GAP, roles, {"n": again} if again else None, {"n": checkpoint} if checkpoint else None)
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names))
    assert {"before", "plain", "again", "gap", "checkpoint"} <= set(names)
    assert ("again-500" in names) == (0 < again < FEWEST_AGAIN)
    assert all(row["words"] for row in rows)
