"""What may stand as gold, and what is refused."""

import pytest

from tutelage.errors import DataError
from tutelage.prove.gold import require_classes, require_other_author
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
