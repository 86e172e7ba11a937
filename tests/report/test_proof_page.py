"""The page of a proof in an open task, from the evidence of a small one: what it says of scores, price and what was left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.report.proof import build_proof_page


@pytest.fixture
def evidence() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "sample_proof.json").read_bytes())


def test_scores_have_the_tasks_metric_whatever_is_claimed_first(evidence: dict[str, Any]) -> None:
    evidence["run"]["metric"] = "ROUGE-L"
    evidence["claims"][0] |= {"kind": "judge", "judge": "strict", "metric": "win rate"}
    page = build_proof_page(evidence)
    assert "ROUGE-L of every system" in page and "percentage points of win rate" in page
    assert "Win rate of every system" not in page and "points of accuracy" not in page


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(1.03, "about the same"), (0.97, "about the same"), (2.0, "less a question"), (0.5, "not cheaper")],
)
def test_prices_that_are_alike_are_called_so(evidence: dict[str, Any], ratio: float, words: str) -> None:
    evidence["cost"]["teacher_over_student"] = ratio
    page = build_proof_page(evidence)
    assert [one for one in ("about the same", "less a question", "not cheaper") if one in page] == [words]


def test_a_claim_on_the_teachers_text_says_why_texts_were_left_out(evidence: dict[str, Any]) -> None:
    evidence["claims"][0] |= {"kind": "teacher-text", "unit": "nats a token", "left_out": 5}
    left_out = {"the teacher refused": 2, "empty": 3}
    evidence["teacher_text"] = {"unit": "nats a token", "what": "an estimate", "left_out": left_out, "systems": []}
    page = build_proof_page(evidence)
    assert "5 items left out: empty (3), the teacher refused (2)<" in page
    assert "cannot be read as a reference" not in page
