"""What may stand as gold, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.prove.gold import require_classes, require_other_author, require_unseen
from tutelage.terms.lineage import Ancestor, Lineage, Made, Tie, Upstream
from tutelage.terms.model import Purpose, Status


def lineage(subject: str, role: Tie) -> Lineage:
    ancestor = Ancestor(
        subject, role, "mit", "local", Purpose.INTERNAL, "2026-11-01", Status.ALLOWED, (), (), Upstream.UNKNOWN
    )
    return Lineage(1, "answers.csv", Made.DATASET, (ancestor,))


def test_gold_of_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="all 3 held-out items are 'yes': one class only"):
        require_classes(["yes"] * 3)
    with pytest.raises(DataError, match="no held-out item"):
        require_classes([])
    require_classes(["yes", "no", "yes"])


def test_gold_that_the_teacher_wrote_is_refused() -> None:
    with pytest.raises(DataError, match=r"answers.csv was answered by big-model, the teacher of this run"):
        require_other_author("big-model", [lineage("someone", Tie.TEACHER), lineage("big-model", Tie.TEACHER)])
    require_other_author("big-model", [lineage("another-model", Tie.TEACHER), lineage("big-model", Tie.BASE)])
    require_other_author("big-model", [])


def test_an_item_that_is_trained_on_is_refused_with_the_overlap() -> None:
    trained = ["A warm, witty film!", "Slow and clumsy."]
    assert require_unseen(["A cold film.", "Fast."], trained) == 2
    with pytest.raises(DataError, match="1 of 2 held-out items are trained on too: 'a  WARM witty film'"):
        require_unseen(["a  WARM witty film", "Fast."], trained)
    assert require_unseen(["!!!"], ["???"]) == 1, "texts without words are told apart as they stand"
    with pytest.raises(DataError):
        require_unseen(["\ufb01lm \uff21"], ["Film A"])


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20))
def test_a_copy_is_always_found(texts: list[str]) -> None:
    with pytest.raises(DataError, match=f"{len(texts)} of {len(texts)}"):
        require_unseen([f" {text}\n" for text in texts], texts)
