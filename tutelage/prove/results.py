"""From answers and human labels to evidence: every figure with its interval, every control, the verdict.

Shape legend: N held-out items, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.prove.claims import verdict
from tutelage.prove.observe import Answers
from tutelage.records import Prompt
from tutelage.stats.calibration import expected_calibration_error, reliability
from tutelage.stats.interval import bootstrap_of_means, wilson
from tutelage.stats.labels import decide, kl_rows, log_softmax
from tutelage.stats.paired import PairedTable, tango

RESAMPLES = 10_000
UNREAD = "(none of the labels)"
SHOWN_DISAGREEMENTS = 24


@dataclass(frozen=True, slots=True)
class System:
    """One system's answers to the held-out items: `logp_NL` with its offsets already added (None for one that gives no
    probabilities), its decisions [N], and the label each answer says literally (None when it has no text)."""

    role: str  # teacher | student | before | majority | bag-of-words
    label: str
    logp_NL: NDArray[np.float64] | None
    decided_N: NDArray[np.int64]
    literal_N: NDArray[np.int64] | None
    cpu_s_per_query: float | None


def system(
    role: str, label: str, answers: Answers, offsets_L: NDArray[np.float64], cpu_s: float | None, *,
    unread_is_wrong: bool = True,
) -> System:  # fmt: skip
    """A system that gives label probabilities, under the common decision rule. An answer in which no label could be read
    decides nothing (−1) and is wrong."""
    decided_N = decide(answers.logp_NL, offsets_L)
    if unread_is_wrong:
        decided_N = np.where(answers.read_N, decided_N, -1)
    return System(role, label, answers.logp_NL + offsets_L, decided_N, answers.literal_N, cpu_s)


def describe(one: System, teacher: System, gold_N: NDArray[np.int64], level: float) -> dict[str, Any]:
    """One row of the systems table. Raises `DataError` for empty or unequal item sets."""
    if len(gold_N) == 0 or len(one.decided_N) != len(gold_N):
        raise DataError(
            f"{one.role} answered {len(one.decided_N)} of {len(gold_N)} held-out items",
            fix="run again; every system must answer the same items",
        )
    n = len(gold_N)
    correct_N = one.decided_N == gold_N
    interval = wilson(int(correct_N.sum()), n, level)
    row: dict[str, Any] = {
        "role": one.role,
        "label": one.label,
        "n": n,
        "accuracy": float(correct_N.mean()),
        "ci_low": interval.low,
        "ci_high": interval.high,
        "interval_method": f"{interval.method}, {interval.level:.0%}",
        "plain_accuracy": None if one.literal_N is None else float((one.literal_N == gold_N).mean()),
        "cpu_s_per_query": one.cpu_s_per_query,
        "agreement": None, "agreement_low": None, "agreement_high": None, "kl_nats": None,
        "difference": None, "difference_low": None, "difference_high": None, "ece": None, "reliability": [],
    }  # fmt: skip
    if one.logp_NL is not None:
        confidence_N = np.exp(log_softmax(one.logp_NL).max(-1))
        row["ece"] = expected_calibration_error(confidence_N, correct_N)
        row["reliability"] = [
            {"low": bin.low, "high": bin.high, "n": bin.n, "confidence": bin.confidence, "accuracy": bin.accuracy}
            for bin in reliability(confidence_N, correct_N)
            if bin.n
        ]
    if one.role != "teacher":
        agreed = int((one.decided_N == teacher.decided_N).sum())
        between = wilson(agreed, n, level)
        row |= {"agreement": agreed / n, "agreement_low": between.low, "agreement_high": between.high}
        if one.logp_NL is not None and teacher.logp_NL is not None:
            row["kl_nats"] = float(kl_rows(teacher.logp_NL, one.logp_NL).mean())
        paired = tango(PairedTable.from_correct(correct_N, teacher.decided_N == gold_N), level)
        difference = float(correct_N.mean() - (teacher.decided_N == gold_N).mean())
        row |= {"difference": difference, "difference_low": paired.low, "difference_high": paired.high}
    return row


def judge(
    teacher: System, student: System, before: System, gold_N: NDArray[np.int64], margin: float, level: float,
    rng: np.random.Generator,
) -> dict[str, Any]:  # fmt: skip
    """The claim's evidence: student − teacher with Tango's interval and its verdict; the share of the gap
    (student − before)/(teacher − before) with a BCa interval over items."""
    right = np.stack([one.decided_N == gold_N for one in (student, before, teacher)], axis=1).astype(float)
    table = PairedTable.from_correct(right[:, 0] == 1, right[:, 2] == 1)
    student_mean, before_mean, teacher_mean = right.mean(0)
    found = {
        "metric": "accuracy",
        "comparison": "student minus teacher, both against the human labels of held-out items",
        "teacher": float(teacher_mean),
        "student": float(student_mean),
        "before": float(before_mean),
        "difference": float(student_mean - teacher_mean),
        **verdict(tango(table, level), margin),
    }
    try:
        gap = bootstrap_of_means(right, _gap, rng, level, RESAMPLES)
        share = {
            "gap_recovered": float(_gap(student_mean, before_mean, teacher_mean)),
            "gap_low": gap.low,
            "gap_high": gap.high,
        }
        return found | share | {"gap_method": gap.method}
    except ValueError as error:  # the teacher is no better than the pruned model: the share means nothing
        return found | {"gap_recovered": None, "gap_low": None, "gap_high": None, "gap_method": f"undefined: {error}"}


def disagreements(
    prompts: Sequence[Prompt], labels: Sequence[str], gold_N: NDArray[np.int64], teacher: System, student: System
) -> list[dict[str, Any]]:
    """Items where teacher and student differ, the most confident student first."""
    assert teacher.logp_NL is not None
    assert student.logp_NL is not None
    p_teacher, p_student = np.exp(log_softmax(teacher.logp_NL)), np.exp(log_softmax(student.logp_NL))
    named = [*labels, UNREAD]
    rows = [int(at) for at in np.flatnonzero(teacher.decided_N != student.decided_N)]
    rows = sorted(rows, key=lambda at: (-p_student[at].max(), at))[:SHOWN_DISAGREEMENTS]
    return [
        {
            "prompt_id": prompts[at].prompt_id,
            "text": prompts[at].text,
            "gold": labels[gold_N[at]],
            "teacher": named[teacher.decided_N[at]],
            "student": named[student.decided_N[at]],
            "teacher_probability": float(p_teacher[at].max()),
            "student_probability": float(p_student[at].max()),
        }
        for at in rows
    ]


def _gap(student: Any, before: Any, teacher: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return (student - before) / (teacher - before)
