"""From scores to evidence in an open task: every system's row, every claim with its verdict, what was missing.

Shape legend: N items, G of them with gold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.proof_config import FEWEST_AGAIN, ProofClaimTable
from tutelage.prove.answers import Answered, Scored, as_references, scored
from tutelage.prove.differences import Column, adjusted, difference_interval, mean_interval, p_of
from tutelage.prove.judges.calls import Items, JudgeCalls, majority
from tutelage.prove.judges.evidence import Claimed, claim_of, panel_evidence
from tutelage.prove.open_claims import COMPARISONS
from tutelage.prove.tasks.base import Answer, Task
from tutelage.records import NUSD_PER_USD, Decision
from tutelage.stats.equivalence import verdict
from tutelage.stats.interval import Interval, bootstrap_of_means
from tutelage.stats.ppi import FEWEST_GOLD, ppi_difference

RESAMPLES = 10_000
SHOWN = 12  # of the worst and the best disagreements each
CONTROLS = {
    "before": "the student before training",
    "plain": "the same student fine-tuned plainly on the same prompts' text",
    "again": f"the teacher asked again on {FEWEST_AGAIN} items",
    "gap": "the share of the gap recovered",
    "checkpoint": "the training checkpoint beside the served student",
}


@dataclass(frozen=True, slots=True)
class Proof:
    """Everything a proof rests on, asked and read. `again` holds the teacher's second answers by item; `gold_N` None where an
    item has none; `session_N` where items come in sessions; `bench` the judges, where there are any."""

    task: Task
    gold_N: tuple[str | None, ...]
    session_N: NDArray[np.str_] | None
    systems: Mapping[str, Answered]
    again: Mapping[int, Answer | None]
    level: float
    seed: int
    bench: "Bench | None" = None

    @property
    def with_gold_G(self) -> NDArray[np.int64]:
        return np.flatnonzero([gold is not None for gold in self.gold_N])


@dataclass(frozen=True, slots=True)
class Bench:
    """The judges: what their figures need of the items, what each called, and what models the roles are."""

    items: Items
    calls: tuple[JudgeCalls, ...]
    models: Mapping[str, str]

    def judge(self, name: str | None) -> JudgeCalls:
        """The one of that name; without a name the only one, or the majority of several."""
        if name is not None:
            return next(one for one in self.calls if one.name.partition(":")[0] == name)
        return self.calls[0] if len(self.calls) == 1 else majority(self.calls)


@dataclass(frozen=True, slots=True)
class Scores:
    """`gold`: each system's scores against the gold (0 where an item has none: look at `Proof.with_gold_G`). `teacher`: against
    the teacher's own answers. `again`: the teacher's second answers against its first, on `again_at`."""

    gold: Mapping[str, Scored]
    teacher: Mapping[str, Scored]
    again: Scored | None
    again_at: NDArray[np.int64]
    read_references: int  # of the teacher's answers; without one nothing can agree with it


def score_all(proof: Proof) -> Scores:
    """Raises `DataError` for gold that the task cannot read, naming the item, and for one class only."""
    for at in proof.with_gold_G:
        try:
            proof.task.require_reference(proof.gold_N[at] or "")
        except DataError as error:
            raise DataError(f"gold of item {at + 1}: {error.message}", fix=error.fix) from None
    _require_two_classes(proof)
    references = as_references(proof.task, proof.systems["teacher"].answers)
    gold = {name: scored(proof.task, one.answers, proof.gold_N) for name, one in proof.systems.items()}
    teacher = {
        name: scored(proof.task, one.answers, references) for name, one in proof.systems.items() if name != "teacher"
    }
    again_at = np.array(sorted(proof.again), dtype=np.int64)
    again = None
    if again_at.size:
        again = scored(proof.task, [proof.again[at] for at in again_at], [references[at] for at in again_at])
    return Scores(gold, teacher, again, again_at, sum(reference is not None for reference in references))


def _require_two_classes(proof: Proof) -> None:
    gold = {proof.gold_N[at] for at in proof.with_gold_G}
    if len(gold) == 1 and proof.with_gold_G.size > 1 and proof.task.is_binary:
        raise DataError(
            f"all {proof.with_gold_G.size} gold answers are {next(iter(gold))!r:.60}: one class only",
            fix="a model that always says this would be perfect: add items with other answers",
        )


def column(proof: Proof, value_N: NDArray[np.float64], at: NDArray[np.int64] | None = None) -> Column:
    """The scores of the items `at` (default: all) with what the interval must know."""
    session = proof.session_N
    if at is not None:
        value_N, session = value_N[at], None if session is None else session[at]
    return Column(value_N, proof.task.is_binary, session)


def system_row(proof: Proof, scores: Scores, name: str) -> dict[str, Any]:
    """One row of the systems table; docs/formats.md has its keys."""
    one, with_gold = proof.systems[name], proof.with_gold_G
    lengths = [len(answer.text.split()) for answer in one.answers if answer is not None]
    row: dict[str, Any] = {
        "role": name, "label": one.label, "n": int(with_gold.size), "items": len(one.answers),
        "score": None, "ci_low": None, "ci_high": None, "interval_method": "", "unread": None, "parts": {},
        "difference": None, "difference_low": None, "difference_high": None,
        "agreement": None, "agreement_low": None, "agreement_high": None,
        "refused": sum(answer is None for answer in one.answers),
        "words": float(np.mean(lengths)) if lengths else 0.0, "ended": one.ended,
        "prompt_tokens": one.prompt_tokens, "completion_tokens": one.completion_tokens,
        "usd_per_1000": 1000 * one.cost_nusd / NUSD_PER_USD,
        "latency_s": one.latency_s, "cpu_s_per_query": one.cpu_s,
    }  # fmt: skip
    if with_gold.size:
        mine = column(proof, scores.gold[name].value_N, with_gold)
        between = mean_interval(mine, proof.level, proof.seed)
        row |= {"score": float(mine.score_N.mean()), "ci_low": between.low, "ci_high": between.high}
        row |= {
            "interval_method": between.method,
            "unread": scores.gold[name].unread - (len(proof.gold_N) - mine.score_N.size),
        }
        row["parts"] = scores.gold[name].parts()
        if name != "teacher":
            theirs = column(proof, scores.gold["teacher"].value_N, with_gold)
            apart = difference_interval(mine, theirs, proof.level, proof.seed)
            row |= {"difference": float(mine.score_N.mean() - theirs.score_N.mean())}
            row |= {"difference_low": apart.low, "difference_high": apart.high}
    if name != "teacher" and scores.read_references:
        alike = column(proof, scores.teacher[name].value_N)
        between = mean_interval(alike, proof.level, proof.seed)
        row |= {"agreement": float(alike.score_N.mean()), "agreement_low": between.low, "agreement_high": between.high}
    return row


def ceiling(proof: Proof, scores: Scores) -> dict[str, Any] | None:
    """How far the teacher agrees with itself when asked again: no student can be expected to agree more."""
    if scores.again is None or not scores.read_references:
        return None
    mine = Column(scores.again.value_N, proof.task.is_binary, _sessions_at(proof, scores.again_at))
    between = mean_interval(mine, proof.level, proof.seed)
    return {"agreement": float(mine.score_N.mean()), "low": between.low, "high": between.high, "n": between.n}


def gap(proof: Proof, scores: Scores) -> dict[str, Any] | None:
    """(student − before)/(teacher − before) in score against the gold, with a BCa interval over items; a reason where it has
    no meaning."""
    at = proof.with_gold_G
    if "before" not in proof.systems or not at.size:
        return None
    three = [scores.gold[name].value_N[at] for name in ("student", "before", "teacher")]
    means = [float(values.mean()) for values in three]
    try:
        found = bootstrap_of_means(np.stack(three, 1), _gap, np.random.default_rng(proof.seed), proof.level, RESAMPLES)
    except ValueError as error:  # the teacher is no better than the student before training: the share means nothing
        return {"recovered": None, "low": None, "high": None, "method": f"undefined: {error}"}
    return {"recovered": float(_gap(*means)), "low": found.low, "high": found.high, "method": found.method}


def controls(proof: Proof, scores: Scores) -> list[dict[str, Any]]:
    """Every control that belongs to a proof: whether it is there, and in which words."""
    again, teacher = len(proof.again), len(proof.gold_N)
    there = {name: name in proof.systems for name in ("before", "plain", "checkpoint")}
    found = gap(proof, scores)
    there |= {"again": again >= min(FEWEST_AGAIN, teacher) > 0, "gap": bool(found and found["recovered"] is not None)}
    rows = [{"name": name, "words": words, "there": there[name]} for name, words in CONTROLS.items()]
    if there["again"] and again < FEWEST_AGAIN:
        rows.append({"name": "again-500", "words": f"500 items asked again ({again} there are)", "there": False})
    return rows


def claim_rows(
    proof: Proof, scores: Scores, claims: Sequence[ProofClaimTable], missing: Sequence[str]
) -> list[dict[str, Any]]:
    """Every claim with its estimate, interval and verdict. Several are held against their levels together (Holm)."""
    found = [_Estimate(proof, scores, claim) for claim in claims]
    rows = [one.row() | {"p_adjusted": None, "missing_controls": list(missing)} for one in found]
    if len(claims) == 1:
        return rows
    alone = [Decision(row["verdict"]) for row in rows]
    p_M = [p_of(decision, one.interval, one.claim.margin) for decision, one in zip(alone, found, strict=True)]
    together = adjusted(alone, p_M, [claim.level for claim in claims])
    for row, decision, (stands, p) in zip(rows, alone, together, strict=True):
        row |= {"verdict": str(stands), "p_adjusted": p}
        if stands is not decision:
            row["why"] = f"{decision} alone, but not beside the other claims (Holm, adjusted p {p:.3g})"
    return rows


def judge_rows(proof: Proof, claims: Sequence[ProofClaimTable]) -> list[dict[str, Any]]:
    """Every judge alone and their majority, at the margin of the first claim on judges, else of the first claim."""
    if proof.bench is None:
        return []
    claim = next((claim for claim in claims if claim.comparison == "judge"), claims[0])
    found = panel_evidence(proof.bench.items, proof.bench.calls, claim.margin, claim.level, proof.bench.models)
    return [*found["judges"], *([found["majority"]] if found["majority"] else [])]


class _Estimate:
    """What one claim compares, at any level."""

    def __init__(self, proof: Proof, scores: Scores, claim: ProofClaimTable) -> None:
        self.proof, self.claim, self.scores = proof, claim, scores
        self.judged: Claimed | None = None
        if claim.comparison == "teacher" and not scores.read_references:
            raise DataError(
                f"none of the teacher's answers can be read as a reference by the task {proof.task.name}",
                fix="claim against gold, or by a judge; or look at what the teacher answers",
            )
        if claim.comparison == "judge":
            assert proof.bench is not None
            self.judged = claim_of(proof.bench.items, proof.bench.judge(claim.judge), claim.margin, claim.level)

    @property
    def unusable(self) -> str:
        """Why there is no verdict whatever the figures; empty where there may be one."""
        return "; ".join(self.judged.evidence["reasons"]) if self.judged and self.judged.interval_at is None else ""

    def interval(self, level: float) -> Interval:
        """Of student minus what it is held against."""
        proof, scores = self.proof, self.scores
        if self.judged is not None:
            assert self.judged.interval_at is not None
            return self.judged.interval_at(level)
        if self.claim.comparison == "teacher":
            assert scores.again is not None
            at = scores.again_at
            mine = column(proof, scores.teacher["student"].value_N, at)
            theirs = Column(scores.again.value_N, proof.task.is_binary, mine.session_N)
            return difference_interval(mine, theirs, level, proof.seed)
        at = proof.with_gold_G
        if FEWEST_GOLD <= at.size < len(proof.gold_N) - 1 and proof.session_N is None:
            return self._powered(at, level)
        mine, theirs = (column(proof, scores.gold[name].value_N, at) for name in ("student", "teacher"))
        return difference_interval(mine, theirs, level, proof.seed)

    def _powered(self, at: NDArray[np.int64], level: float) -> Interval:
        """Gold on some items, agreement with the teacher on all: PPI++. The teacher agrees with itself everywhere."""
        scores = self.scores
        rest = np.setdiff1d(np.arange(len(self.proof.gold_N)), at)
        cheap = scores.teacher["student"].value_N
        return ppi_difference(
            scores.gold["student"].value_N[at], scores.gold["teacher"].value_N[at],
            cheap[at], np.ones(at.size), cheap[rest], np.ones(rest.size), level,
        ).interval  # fmt: skip

    def row(self) -> dict[str, Any]:
        """The claim as evidence, its verdict alone."""
        claim, proof, reason = self.claim, self.proof, self.unusable
        found = None if reason else self.interval(claim.level)
        student, teacher = self._means()
        difference = None if student is None else student - teacher
        if found is not None and found.method.startswith("PPI++"):
            difference = (found.low + found.high) / 2  # the sample's plain difference is not what the interval is of
        return {
            "metric": proof.task.metric if self.judged is None else "win rate",
            "comparison": COMPARISONS[claim.comparison], "kind": claim.comparison, "judge": claim.judge,
            "student": student, "teacher": teacher, "difference": difference,
            "ci_low": found and found.low, "ci_high": found and found.high, "level": claim.level,
            "method": found.method if found else "none", "n": found.n if found else self._items(), "margin": claim.margin,
            "verdict": str(Decision.INCONCLUSIVE if found is None else verdict(found, claim.margin)), "why": reason,
        }  # fmt: skip

    def _means(self) -> tuple[float | None, float]:
        scores = self.scores
        if self.judged is not None:
            return self.judged.evidence["win_rate"], 0.5
        if self.claim.comparison == "teacher":
            assert scores.again is not None
            return float(scores.teacher["student"].value_N[scores.again_at].mean()), float(scores.again.value_N.mean())
        student, teacher = (scores.gold[name].value_N[self.proof.with_gold_G] for name in ("student", "teacher"))
        return float(student.mean()), float(teacher.mean())

    def _items(self) -> int:
        return len(self.proof.gold_N)


def disagreements(proof: Proof, scores: Scores, questions: Sequence[str]) -> list[dict[str, Any]]:
    """Items on which student and teacher differ most: the worst for the student first, then the best. Against the gold where
    there is any, else by agreement."""
    student, teacher = proof.systems["student"], proof.systems["teacher"]
    at = proof.with_gold_G
    if at.size:
        apart = scores.gold["student"].value_N - scores.gold["teacher"].value_N
    else:
        at, apart = np.arange(len(proof.gold_N)), scores.teacher["student"].value_N - 1.0
    order = sorted((int(item) for item in at if apart[item] != 0.0), key=lambda item: (apart[item], item))
    worst = [item for item in order if apart[item] < 0][:SHOWN]
    best = [item for item in reversed(order) if apart[item] > 0][:SHOWN]
    taught = scores.gold["teacher"].value_N if proof.with_gold_G.size else np.ones(len(proof.gold_N))
    return [
        {
            "item": item + 1,
            "question": questions[item],
            "gold": proof.gold_N[item],
            "teacher": _text(teacher.answers[item]),
            "student": _text(student.answers[item]),
            "teacher_score": float(taught[item]),
            "student_score": float(taught[item] + apart[item]),
        }
        for item in (*worst, *best)
    ]


def _text(answer: Answer | None) -> str:
    return "(refused)" if answer is None else answer.text or "(calls a tool)" if answer.tool_calls else answer.text


def _sessions_at(proof: Proof, at: NDArray[np.int64]) -> NDArray[np.str_] | None:
    return None if proof.session_N is None else proof.session_N[at]


def _gap(student: Any, before: Any, teacher: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return (student - before) / (teacher - before)
