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
from tutelage.prove.differences import (
    NOTHING_SHOWN,
    Column,
    difference_interval,
    held_together,
    mean_interval,
    shown,
)
from tutelage.prove.judges.calls import Items, JudgeCalls, majority
from tutelage.prove.judges.evidence import Claimed, claim_of
from tutelage.prove.judges.family import Kin
from tutelage.prove.open_claims import COMPARISONS
from tutelage.prove.tasks.base import Answer, Task
from tutelage.prove.teacher_text import Texts
from tutelage.records import NUSD_PER_USD, Decision
from tutelage.stats.clusters import FEWEST_SESSIONS, session_sums
from tutelage.stats.equivalence import verdict
from tutelage.stats.interval import Interval, bootstrap_of_means

RESAMPLES = 10_000
SHOWN = 12  # of the worst and the best disagreements each
CONTROLS = {
    "before": "the student before training",
    "plain": "the same student fine-tuned plainly on the same prompts' text",
    "again": "the teacher asked again",
    "gap": "the share of the gap recovered",
    "checkpoint": "the training checkpoint beside the served student",
    "unseen": "the questions that were trained on, held against the items (items.seen)",
}


@dataclass(frozen=True, slots=True)
class Proof:
    """Everything a proof rests on, asked and read. `again` holds the teacher's second answers by item; `gold_N` None where an
    item has none; `session_N` where items come in sessions; `bench` the judges and `texts` the teacher's texts as others score
    them, where there are any."""

    task: Task
    gold_N: tuple[str | None, ...]
    session_N: NDArray[np.str_] | None
    systems: Mapping[str, Answered]
    again: Mapping[int, Answer | None]
    level: float
    seed: int
    bench: "Bench | None" = None
    texts: Texts | None = None
    trained_on: int = 0  # questions that the items were held against

    @property
    def with_gold_G(self) -> NDArray[np.int64]:
        """Items with gold that the teacher answered: what it refused says nothing of the difference, and is left out."""
        taught = self.systems["teacher"].answers
        return np.flatnonzero(
            [gold is not None and answer is not None for gold, answer in zip(self.gold_N, taught, strict=True)]
        )


@dataclass(frozen=True, slots=True)
class Bench:
    """The judges: what their figures need of the items, what each called, and by its name whether it is kin to those compared."""

    items: Items
    calls: tuple[JudgeCalls, ...]
    kin: Mapping[str, Kin]

    def judge(self, name: str | None) -> JudgeCalls:
        """The one of that name; without a name the only one, or the majority of several."""
        if name is not None:
            return next(one for one in self.calls if one.name.partition(":")[0] == name)
        return self.calls[0] if len(self.calls) == 1 else majority(self.calls)


@dataclass(frozen=True, slots=True)
class Scores:
    """`gold`: each system's scores against the gold (0 where an item has none: look at `Proof.with_gold_G`). `teacher`: against
    the teacher's own answers, where the task can read those (`read_R`). `again`: the teacher's second answers against its
    first, on `again_at`: what it refused the second time is left out, like what cannot be read as a reference."""

    gold: Mapping[str, Scored]
    teacher: Mapping[str, Scored]
    again: Scored | None
    again_at: NDArray[np.int64]
    read_R: NDArray[np.int64]


def score_all(proof: Proof) -> Scores:
    """Raises `DataError` for gold that the task cannot read, naming the item."""
    for at in proof.with_gold_G:
        try:
            proof.task.require_reference(proof.gold_N[at] or "")
        except DataError as error:
            raise DataError(f"gold of item {at + 1}: {error.message}", fix=error.fix) from None
    references = as_references(proof.task, proof.systems["teacher"].answers)
    gold = {name: scored(proof.task, one.answers, proof.gold_N) for name, one in proof.systems.items()}
    teacher = {
        name: scored(proof.task, one.answers, references) for name, one in proof.systems.items() if name != "teacher"
    }
    again_at = np.array(
        [at for at in sorted(proof.again) if references[at] is not None and proof.again[at] is not None], dtype=np.int64
    )
    again = None
    if again_at.size:
        again = scored(proof.task, [proof.again[at] for at in again_at], [references[at] for at in again_at])
    return Scores(gold, teacher, again, again_at, np.flatnonzero([one is not None for one in references]))


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
        "latency_s": one.latency_s, "cpu_s_per_query": one.cpu_s, "energy_j_per_query": one.energy_j,
    }  # fmt: skip
    if with_gold.size:
        mine = column(proof, scores.gold[name].value_N, with_gold)
        between = mean_interval(mine, proof.level, proof.seed)
        row |= {"score": float(mine.score_N.mean()), "ci_low": between.low, "ci_high": between.high}
        row |= {
            "interval_method": between.method,
            "unread": sum(not scores.gold[name].scores[at].is_read for at in with_gold),
        }
        row["parts"] = scores.gold[name].parts()
        if name != "teacher":
            theirs = column(proof, scores.gold["teacher"].value_N, with_gold)
            apart = difference_interval(mine, theirs, proof.level, proof.seed)
            row |= {"difference": float(mine.score_N.mean() - theirs.score_N.mean())}
            row |= {"difference_low": apart.low, "difference_high": apart.high}
    if name != "teacher" and scores.read_R.size:
        alike = column(proof, scores.teacher[name].value_N, scores.read_R)
        between = mean_interval(alike, proof.level, proof.seed)
        row |= {"agreement": float(alike.score_N.mean()), "agreement_low": between.low, "agreement_high": between.high}
    return row


def ceiling(proof: Proof, scores: Scores) -> dict[str, Any] | None:
    """How far the teacher agrees with itself when asked again: no student can be expected to agree more."""
    if scores.again is None:
        return None
    mine = Column(scores.again.value_N, proof.task.is_binary, _sessions_at(proof, scores.again_at))
    between = mean_interval(mine, proof.level, proof.seed)
    return {"agreement": float(mine.score_N.mean()), "low": between.low, "high": between.high, "n": between.n}


def gap(proof: Proof, scores: Scores) -> dict[str, Any] | None:
    """(student − before)/(teacher − before) in score against the gold, with a BCa interval over items, or over sessions: of
    these the sums are resampled, whose share is that of the means. A reason where it has no meaning."""
    at = proof.with_gold_G
    if "before" not in proof.systems:
        return None
    if not at.size:
        return {"recovered": None, "low": None, "high": None, "method": "not known without gold"}
    rows_N3 = np.stack([scores.gold[name].value_N[at] for name in ("student", "before", "teacher")], 1)
    share, over = _gap(*rows_N3.mean(0)), ""
    session = _sessions_at(proof, at)
    try:
        if session is not None:
            rows_N3, over = session_sums(rows_N3, session), " of sessions"
            if len(rows_N3) < FEWEST_SESSIONS:
                raise DataError(f"{len(rows_N3)} sessions are too few to resample", fix="add sessions")
        found = bootstrap_of_means(rows_N3, _gap, np.random.default_rng(proof.seed), proof.level, RESAMPLES)
    except ValueError as error:  # the teacher is no better than the student before training: the share means nothing
        return {"recovered": None, "low": None, "high": None, "method": f"undefined: {error}"}
    return {"recovered": float(share), "low": found.low, "high": found.high, "method": found.method + over}


def controls(proof: Proof, scores: Scores) -> list[dict[str, Any]]:
    """Every control that belongs to a proof: whether it is there, and in which words."""
    again, teacher = len(proof.again), len(proof.gold_N)
    there = {name: name in proof.systems for name in ("before", "plain", "checkpoint")}
    found = gap(proof, scores)
    there |= {"unseen": proof.trained_on > 0}
    there |= {"again": again >= min(FEWEST_AGAIN, teacher) > 0 and scores.again is not None}
    there |= {"gap": bool(found and found["recovered"] is not None)}
    rows = [{"name": name, "words": words, "there": there[name]} for name, words in CONTROLS.items()]
    if there["again"] and again < FEWEST_AGAIN:
        fewer = f"the teacher asked again on {FEWEST_AGAIN} items (fewer: {again})"
        rows.append({"name": "again-500", "words": fewer, "there": False})
    return rows


def claim_rows(
    proof: Proof, scores: Scores, claims: Sequence[ProofClaimTable], missing: Sequence[str]
) -> list[dict[str, Any]]:
    """Every claim with its estimate, interval and verdict. Several are held against their level together
    (Holm): what is not shown beside the others falls back to what is."""
    found = [_Estimate(proof, scores, claim) for claim in claims]
    rows = [one.row() | {"p_adjusted": None, "missing_controls": list(missing)} for one in found]
    if len(claims) == 1:
        return rows
    alone = [Decision(row["verdict"]) for row in rows]
    shown_M = [NOTHING_SHOWN if one.unusable else shown(one.interval, one.claim.margin) for one in found]
    together = held_together(shown_M, claims[0].level)
    for row, decision, (stands, p) in zip(rows, alone, together, strict=True):
        row |= {"verdict": str(stands), "p_adjusted": p}
        if stands is not decision:
            row["why"] = f"{decision} alone, but {stands} beside the other claims (Holm, adjusted p {p:.3g})"
    return rows


class _Estimate:
    """What one claim compares, at any level."""

    def __init__(self, proof: Proof, scores: Scores, claim: ProofClaimTable) -> None:
        self.proof, self.claim, self.scores = proof, claim, scores
        self.judged: Claimed | None = None
        self.texts = proof.texts if claim.comparison == "teacher-text" else None
        if claim.comparison == "teacher" and not scores.again_at.size:
            raise DataError(
                f"the task {proof.task.name} can read none of the teacher's answers as a reference",
                fix="claim against gold, or by a judge; or look at what the teacher answers",
            )
        if claim.comparison == "judge":
            assert proof.bench is not None
            self.judged = claim_of(proof.bench.items, proof.bench.judge(claim.judge), claim.margin, claim.level)

    @property
    def unusable(self) -> str:
        """Why there is no verdict whatever the figures; empty where there may be one."""
        if self.judged is not None:
            return "; ".join(self.judged.evidence["reasons"]) if self.judged.interval_at is None else ""
        if self.texts is not None:
            return self.texts.problem("student", self.claim.level, self.proof.seed)
        return self._without_teacher() if self.claim.comparison == "gold" else ""

    def _without_teacher(self) -> str:
        """A teacher that says nothing readable, or nothing right, is no measure: everybody is as good."""
        at, taught = self.proof.with_gold_G, self.scores.gold["teacher"]
        if not at.size:
            return "the teacher refused every item with gold: there is nothing to be held against"
        unread = sum(not taught.scores[item].is_read for item in at)
        if 2 * unread > at.size:
            return f"nothing can be read in {unread} of the teacher's {at.size} answers: look at what it says"
        if not taught.value_N[at].any():
            return f"the teacher is right on none of {at.size} items: nobody can be worse"
        return ""

    def interval(self, level: float) -> Interval:
        """Of student minus what it is held against."""
        proof, scores = self.proof, self.scores
        if self.judged is not None:
            assert self.judged.interval_at is not None
            return self.judged.interval_at(level)
        if self.texts is not None:
            return self.texts.interval("student", level, proof.seed)
        if self.claim.comparison == "teacher":
            assert scores.again is not None
            at = scores.again_at
            mine = column(proof, scores.teacher["student"].value_N, at)
            theirs = Column(scores.again.value_N, proof.task.is_binary, mine.session_N)
            return difference_interval(mine, theirs, level, proof.seed)
        # On items without gold the student's agreement with the teacher says how often they differ, not who is right. PPI++ with
        # it gains a few per cent of width and errs with 3.5 % on a side for 2.5 % where one kind of difference is rare, however
        # many of either are asked for first (docs/prove.md): the items with gold stand alone.
        at = proof.with_gold_G
        mine, theirs = (column(proof, scores.gold[name].value_N, at) for name in ("student", "teacher"))
        return difference_interval(mine, theirs, level, proof.seed)

    def row(self) -> dict[str, Any]:
        """The claim as evidence, its verdict alone."""
        claim, proof, reason = self.claim, self.proof, self.unusable
        found = None if reason else self.interval(claim.level)
        student, teacher = self._means()
        difference = None if student is None or teacher is None else student - teacher
        return {
            "metric": self.texts.metric if self.texts else proof.task.metric if self.judged is None else "win rate",
            "unit": self.texts.unit if self.texts else "points",
            "comparison": self._compared(), "kind": claim.comparison, "judge": claim.judge,
            "student": student, "teacher": teacher, "difference": difference,
            "ci_low": found and found.low, "ci_high": found and found.high, "level": claim.level,
            "method": found.method if found else "none", "n": found.n if found else self._items(), "margin": claim.margin,
            "verdict": str(Decision.INCONCLUSIVE if found is None else verdict(found, claim.margin)), "why": reason,
            "left_out": self.left_out(),
        }  # fmt: skip

    def _compared(self) -> str:
        """In words; of a judge also whose preference it is, and what may make it a poor one."""
        words = COMPARISONS[self.claim.comparison]
        if self.judged is None:
            return words
        assert self.proof.bench is not None
        name, kin = self.judged.evidence["judge"], self.proof.bench.kin
        asked = [name] if name in kin else list(kin)  # the majority is all of them
        favours = [f"{one}: {words}" for one in asked for words in kin[one].warnings if "may prefer" in words]
        return "; ".join([f"{words} (judge {name}): {self.judged.evidence['estimand']}", *favours])

    def _means(self) -> tuple[float | None, float | None]:
        scores = self.scores
        if self.judged is not None:
            return self.judged.evidence["claimed_rate"], 0.5
        if self.texts is not None:
            return self.texts.means("student")
        if self.claim.comparison == "teacher":
            assert scores.again is not None
            return float(scores.teacher["student"].value_N[scores.again_at].mean()), float(scores.again.value_N.mean())
        at = self.proof.with_gold_G
        if not at.size:
            return None, None
        student, teacher = (scores.gold[name].value_N[at] for name in ("student", "teacher"))
        return float(student.mean()), float(teacher.mean())

    def _items(self) -> int:
        return len(self.proof.gold_N) if self.texts is None else len(self.texts.found("student"))

    def left_out(self) -> int:
        """Items of the claim that say nothing: the teacher refused them, or its answer cannot be read as a reference."""
        proof = self.proof
        if self.judged is not None:
            assert proof.bench is not None
            return len(proof.gold_N) - proof.bench.items.n
        if self.texts is not None:
            return sum(self.texts.left_out.values())
        if self.claim.comparison == "teacher":
            return len(proof.again) - int(self.scores.again_at.size)
        return sum(gold is not None for gold in proof.gold_N) - int(proof.with_gold_G.size)


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
