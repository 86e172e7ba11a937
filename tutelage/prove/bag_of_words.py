"""The cheap control: what a bag of words learns from the same teacher labels.

A student that does not beat it has learnt no more than word counts (Wang & Manning (2012), ACL, P12-2018: presence of
uni- and bigrams in a linear model is a strong baseline for sentences).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.errors import DataError
from tutelage.stats import logistic

MIN_TEXTS = 2
L2_CHOICES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True, slots=True, eq=False)
class BagOfWords:
    """A fitted bag of words: `column_of` each uni- and bigram, the model, and the share of the validation texts that it
    decides as the teacher does."""

    column_of: Mapping[str, int]
    model: logistic.Logistic
    validation_agreement: float

    def predict_logp(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Label log-probabilities in nats, (N, L). Words never seen in training say nothing. Raises `DataError` when
        there is no text."""
        return logistic.predict_logp(self.model, _features(texts, self.column_of))


def fit(
    train_texts: Sequence[str],
    train_target_NL: ArrayLike,
    validation_texts: Sequence[str],
    validation_target_NL: ArrayLike,
) -> BagOfWords:
    """Fit to the teacher's label probabilities (rows summing to 1); choose the penalty by agreement with the teacher.

    Features: presence of each lower-cased word and pair of neighbouring words that occurs in at least two training
    texts. Of the penalties `L2_CHOICES` it keeps the one whose decisions agree most with the teacher's on the
    validation texts, the larger one when equal. Gold labels are not asked for. Raises `DataError` when texts and
    targets do not match, or no feature occurs in two training texts.
    """
    train_target = _target_of(train_texts, train_target_NL)
    validation_target = _target_of(validation_texts, validation_target_NL)
    if train_target.shape[1] != validation_target.shape[1]:
        raise DataError(
            f"{train_target.shape[1]} labels in training, {validation_target.shape[1]} in validation",
            fix="use the same labels in the same order",
        )
    texts_with = Counter(feature for text in train_texts for feature in _grams(text))
    column_of = {
        feature: column
        for column, feature in enumerate(sorted(feature for feature, texts in texts_with.items() if texts >= MIN_TEXTS))
    }
    if not column_of:
        raise DataError(
            f"no word occurs in {MIN_TEXTS} of the {len(train_texts)} training texts", fix="give more training texts"
        )
    train, validation = _features(train_texts, column_of), _features(validation_texts, column_of)
    wanted = validation_target.argmax(axis=1)
    best: BagOfWords | None = None
    for l2 in L2_CHOICES:
        model = logistic.fit(train, train_target, l2)
        agreement = float(np.mean(logistic.predict_logp(model, validation).argmax(axis=1) == wanted))
        if best is None or agreement > best.validation_agreement:
            best = BagOfWords(column_of, model, agreement)
    assert best is not None
    return best


def _target_of(texts: Sequence[str], target_NL: ArrayLike) -> NDArray[np.float64]:
    target = logistic.check_target(target_NL)
    if len(texts) != len(target):
        raise DataError(f"{len(texts)} texts for {len(target)} targets", fix="give one row of targets for every text")
    return target


def _grams(text: str) -> set[str]:
    words = _WORD.findall(text.lower())
    return {*words, *(f"{left} {right}" for left, right in pairwise(words))}


def _features(texts: Sequence[str], column_of: Mapping[str, int]) -> logistic.Sparse:
    from scipy.sparse import csr_array

    columns, ends = [], [0]
    for text in texts:
        columns += sorted(column_of[feature] for feature in _grams(text) if feature in column_of)
        ends.append(len(columns))
    ones = np.ones(len(columns))
    return csr_array((ones, np.array(columns, dtype=np.int32), np.array(ends)), shape=(len(texts), len(column_of)))
