"""The cheap alternatives every proof is compared with: the majority class, and a bag of words on the teacher's labels.

Shape legend: N items, L labels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.prove.bag_of_words import fit
from tutelage.prove.results import System
from tutelage.stats.labels import balance_offsets, decide


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
