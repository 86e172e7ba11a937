"""What every proof is held against: cheap alternatives (the majority class, a bag of words on the teacher's labels), the
teacher's agreement with itself, the training checkpoint beside the served student; and which of them are missing.

Shape legend: N items, L labels.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.prove.bag_of_words import fit
from tutelage.prove.results import System, agree
from tutelage.stats.exact import clopper_pearson
from tutelage.stats.interval import wilson
from tutelage.stats.labels import balance_offsets, decide
from tutelage.tasks import FLOOR_NATS

FEWEST_AGAIN = 500  # items from which a teacher's agreement with itself is known well enough to be a ceiling


def majority(teacher_train_N: NDArray[np.int64], num_labels: int, held_out: int) -> System:
    """Always the label the teacher gives most often to training items."""
    most = int(np.bincount(teacher_train_N, minlength=num_labels).argmax())
    return System("majority", "the teacher's most frequent label", None, np.full(held_out, most), None, None)


def bag_of_words(
    train_texts: Sequence[str], train_NL: NDArray[np.float64], validation_texts: Sequence[str],
    validation_NL: NDArray[np.float64], held_out_texts: Sequence[str], shares_L: NDArray[np.float64] | None,
) -> System:  # fmt: skip
    """Logistic regression on words and word pairs, fitted to the same teacher labels as the student, under the same
    decision rule (offsets fixed on training items when `shares_L` is given)."""
    model = fit(train_texts, train_NL, validation_texts, validation_NL)
    logp_NL = model.predict_logp(held_out_texts)
    offsets_L = np.zeros(train_NL.shape[1])
    if shares_L is not None:
        offsets_L = balance_offsets(model.predict_logp(validation_texts), shares_L)
    name = "logistic regression on words, same teacher labels"
    return System("bag-of-words", name, logp_NL + offsets_L, decide(logp_NL, offsets_L), None, None)


def ceiling(first_N: NDArray[np.int64], second_N: NDArray[np.int64], level: float, how: str) -> dict[str, Any]:
    """How far the teacher agrees with itself when asked again, a proportion with Wilson's interval: no student can be
    expected to agree with it more. Decisions on the same items (−1, no label read, agrees with nothing); `how` they were
    drawn. Raises `DataError` for unequal sets."""
    if first_N.shape != second_N.shape or first_N.size == 0:
        raise DataError(
            f"{second_N.size} second answers to {first_N.size} items", fix="run again; every item must be asked twice"
        )
    agreed = int(agree(first_N, second_N).sum())
    between = wilson(agreed, first_N.size, level)
    return {
        "agreement": agreed / first_N.size,
        "low": between.low,
        "high": between.high,
        "n": first_N.size,
        "interval_method": f"{between.method}, {level:.0%}",
        "how": how,
    }


class Apart(NamedTuple):
    """How many of `n` items differ, and the exact upper limit of their share."""

    n: int
    differ: int
    high: float


def share_apart(differ_N: NDArray[np.bool_], level: float) -> Apart:
    """What is served against the checkpoint it was made of, item by item: Clopper-Pearson's limit. Raises `DataError` without an
    item."""
    n, differ = len(differ_N), int(differ_N.sum())
    if n == 0:
        raise DataError("no item was answered by the served student or its checkpoint", fix="look into store and logs")
    return Apart(n, differ, clopper_pearson(differ, n, level).high)


def same_artefact(
    checkpoint_NL: NDArray[np.float64], served_NL: NDArray[np.float64], offsets_L: NDArray[np.float64], level: float
) -> dict[str, Any]:
    """The training checkpoint against the shipped and served student, on the same items: decisions that differ, with the
    exact upper limit of their share, and the largest difference of a label's log-probability (nats) among those that both
    reveal (None when there is none). Raises `DataError` for unequal sets and scores that are not finite."""
    if checkpoint_NL.shape != served_NL.shape:
        raise DataError(
            f"scores of shapes {checkpoint_NL.shape} and {served_NL.shape}", fix="score the same items with both"
        )
    differ_N = _decided(checkpoint_NL, offsets_L) != _decided(served_NL, offsets_L)
    revealed_NL = (checkpoint_NL > FLOOR_NATS) & (served_NL > FLOOR_NATS)
    apart = np.abs(checkpoint_NL - served_NL)[revealed_NL]
    n, differ, high = share_apart(differ_N, level)
    return {
        "n": n,
        "decisions_differ": differ,
        "differ_high": high,
        "largest_nats": float(apart.max()) if apart.size else None,
    }


def _decided(logp_NL: NDArray[np.float64], offsets_L: NDArray[np.float64]) -> NDArray[np.int64]:
    """As `results.system` decides: −1 where no label could be read."""
    return np.where((logp_NL > FLOOR_NATS).any(1), decide(logp_NL, offsets_L), -1)


def held_against(
    claim: Mapping[str, Any],
    roles: Collection[str],
    again: Mapping[str, Any] | None,
    artefact: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """Every control that belongs to a proof, whether it is there, and in words; those that are not are named in the verdict."""
    gap = "the share of the gap recovered"
    if claim["gap_recovered"] is None:
        gap += f" ({claim['gap_method']})"
    rows = [
        ("before", "the student before training", "before" in roles),
        ("plain", "the same student fine-tuned plainly on the teacher's words", "plain" in roles),
        ("again", "the teacher asked again", again is not None),
        ("gap", gap, claim["gap_recovered"] is not None),
        ("checkpoint", "the training checkpoint beside the served student", artefact is not None),
    ]
    if again is not None and again["n"] < FEWEST_AGAIN:
        rows.append(("again-500", f"the teacher asked again on {FEWEST_AGAIN} items (fewer: {again['n']})", False))
    return [{"name": name, "words": words, "there": there} for name, words, there in rows]
