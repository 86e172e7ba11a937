"""The planned power of a claim on the teacher's text: none where no interval is made of so few texts or sessions."""

import pytest

from tutelage.proof_config import ProofClaimTable, ProofConfig
from tutelage.prove.open_claims import declare, furthest_shown, power_of
from tutelage.prove.tasks.catalogue import task_of
from tutelage.prove.teacher_text import FEWEST_TEXTS
from tutelage.stats.clusters import FEWEST_SESSIONS

TASK = task_of("exact", {})
CLAIM = ProofClaimTable.model_validate({"comparison": "teacher-text", "margin": 0.5})


def config() -> ProofConfig:
    return ProofConfig.model_validate(
        {
            "run": {"name": "texts", "seed": 1, "purpose": "internal", "question": "?"},
            "items": {"path": "items.jsonl", "licence": "own"},
            "task": {"kind": "exact"},
            "systems": {"teacher": {"path": "a", "licence": "own"}, "student": {"path": "b", "licence": "own"}},
            "teacher_text": {},
            "claims": [CLAIM.model_dump()],
        }
    )


def test_too_few_texts_have_no_power() -> None:
    assert power_of(TASK, CLAIM, FEWEST_TEXTS - 1) == 0.0 and power_of(TASK, CLAIM, FEWEST_TEXTS) > 0.99
    assert furthest_shown(TASK, CLAIM, FEWEST_TEXTS - 1) is None
    planned = declare(config(), TASK, CLAIM, FEWEST_TEXTS - 1, "2026-11-29")
    assert (planned.power, planned.needed) == (0.0, FEWEST_TEXTS)


@pytest.mark.parametrize("correlation", [None, 0.1])
def test_too_few_sessions_have_no_power(correlation: float | None) -> None:
    claim = CLAIM.model_copy(update={"expected_correlation": correlation})
    few, enough = (
        declare(config(), TASK, claim, 400, "2026-11-29", at) for at in (FEWEST_SESSIONS - 1, FEWEST_SESSIONS)
    )
    assert few.power == 0.0 and few.needed >= 10 * 400 / 9 and enough.power > 0.9 and enough.needed == 400
    assert furthest_shown(TASK, claim, 400, FEWEST_SESSIONS - 1) is None
