"""From answers and human labels to evidence: every figure with its interval, every control, the verdict.

Shape legend: N held-out items, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.prove.claims import verdict
from tutelage.prove.observe import Answers
from tutelage.records import Prompt
from tutelage.stats.calibration import expected_calibration_error, fit_temperature, recalibrate, reliability
from tutelage.stats.exact import paired_difference
from tutelage.stats.interval import bootstrap_of_means, wilson
from tutelage.stats.labels import decide, kl_rows, log_softmax
from tutelage.stats.paired import PairedTable, mcnemar_exact

RESAMPLES = 10_000
UNREAD = "(none of the labels)"
SHOWN_DISAGREEMENTS = 24


class Recalibration(NamedTuple):
    """The temperature that mends a system's confidence, or in words why there is none."""

    temperature: float | None
    why_not: str


NOT_FITTED = Recalibration(None, "it was not asked the validation questions")


@dataclass(frozen=True, slots=True)
class System:
    """One system's answers to the held-out items: `logp_NL` with its offsets already added (None for one that gives no
    probabilities), its decisions [N], and the label each answer says literally (None when it has no text)."""

    role: str  # teacher | student | plain | before | majority | bag-of-words
    label: str
    logp_NL: NDArray[np.float64] | None
    decided_N: NDArray[np.int64]
    literal_N: NDArray[np.int64] | None
    cpu_s_per_query: float | None
    recalibration: Recalibration = NOT_FITTED


def system(
    role: str, label: str, answers: Answers, offsets_L: NDArray[np.float64], cpu_s: float | None, *,
    unread_is_wrong: bool = True, recalibration: Recalibration = NOT_FITTED,
) -> System:  # fmt: skip
    """A system that gives label probabilities, under the common decision rule. An answer in which no label could be read
    decides nothing (−1) and is wrong. Raises `DataError` for scores that are not finite."""
    decided_N = decide(answers.logp_NL, offsets_L)
    if unread_is_wrong:
        decided_N = np.where(answers.read_N, decided_N, -1)
    return System(role, label, answers.logp_NL + offsets_L, decided_N, answers.literal_N, cpu_s, recalibration)


def recalibration(logp_NL: NDArray[np.float64], teacher_N: NDArray[np.int64]) -> Recalibration:
    """Fitted on validation items with the teacher's labels: gold is for the proof alone. `logp_NL`: with the offsets added."""
    try:
        return Recalibration(fit_temperature(logp_NL, teacher_N), "")
    except DataError as error:
        return Recalibration(None, error.message)


def describe(one: System, teacher: System, gold_N: NDArray[np.int64], level: float) -> dict[str, Any]:
    """One row of the systems table. Raises `DataError` for empty or unequal item sets and for scores that are not finite."""
    _require_same_items(gold_N, one, teacher)
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
        "difference": None, "difference_low": None, "difference_high": None, "difference_method": None,
        "mcnemar_p": None,
    } | _confidence(one, correct_N)  # fmt: skip
    if one.role != "teacher":
        agreed = int(agree(one.decided_N, teacher.decided_N).sum())
        between = wilson(agreed, n, level)
        row |= {"agreement": agreed / n, "agreement_low": between.low, "agreement_high": between.high}
        if one.logp_NL is not None and teacher.logp_NL is not None:
            row["kl_nats"] = float(kl_rows(teacher.logp_NL, one.logp_NL).mean())
        table = PairedTable.from_correct(correct_N, teacher.decided_N == gold_N)
        paired = paired_difference(table, level)
        row |= {"difference": table.difference, "difference_low": paired.low, "difference_high": paired.high}
        row |= {"difference_method": paired.method, "mcnemar_p": mcnemar_exact(table)}
    return row


def agree(one_N: NDArray[np.int64], other_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where both decided for the same label: two answers in which none could be read (−1) agree on nothing."""
    return (one_N == other_N) & (one_N >= 0)


def _require_same_items(gold_N: NDArray[np.int64], *systems: System) -> None:
    for one in systems:
        scored = len(gold_N) if one.logp_NL is None else len(one.logp_NL)
        if len(gold_N) == 0 or len(one.decided_N) != len(gold_N) or scored != len(gold_N):
            raise DataError(
                f"{one.role} answered {len(one.decided_N)} of {len(gold_N)} held-out items",
                fix="run again; every system must answer the same items",
            )


def _confidence(one: System, correct_N: NDArray[np.bool_]) -> dict[str, Any]:
    """How far stated confidence is from accuracy, as it stands and recalibrated by one temperature."""
    row: dict[str, Any] = {
        "ece": None, "reliability": [], "temperature": None, "ece_recalibrated": None, "recalibration": "",
    }  # fmt: skip
    if one.logp_NL is None:
        return row
    confidence_N = np.exp(log_softmax(one.logp_NL).max(-1))
    row["ece"] = expected_calibration_error(confidence_N, correct_N)
    row["reliability"] = [
        {"low": bin.low, "high": bin.high, "n": bin.n, "confidence": bin.confidence, "accuracy": bin.accuracy}
        for bin in reliability(confidence_N, correct_N)
        if bin.n
    ]
    temperature, row["recalibration"] = one.recalibration
    if temperature is not None:
        mended_N = np.exp(recalibrate(one.logp_NL, temperature).max(-1))
        row |= {"temperature": temperature, "ece_recalibrated": expected_calibration_error(mended_N, correct_N)}
    return row


def judge(
    teacher: System, student: System, before: System, gold_N: NDArray[np.int64], margin: float, level: float,
    rng: np.random.Generator,
) -> dict[str, Any]:  # fmt: skip
    """The claim's evidence: student − teacher with its paired interval (Tango's, or exact where few items differ), the
    verdict and McNemar's exact p; the share of the gap (student − before)/(teacher − before) with a BCa interval over items.

    Raises `DataError` for empty or unequal item sets, `ConfigError` for a margin or level that is none."""
    _require_same_items(gold_N, teacher, student, before)
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
        "mcnemar_p": mcnemar_exact(table),
        **verdict(paired_difference(table, level), margin),
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
