import time

import numpy as np
import pytest

from tutelage.errors import DataError
from tutelage.prove import bag_of_words

GOOD, BAD, PLAIN = ["fine", "lovely", "warm"], ["awful", "dull", "cold"], ["film", "the", "a", "plot", "it", "was"]


def sentences(n, seed):
    """Texts with the teacher's two-label probabilities: sure where good or bad words are in the majority."""
    rng = np.random.default_rng(seed)
    texts, target = [], []
    for _ in range(n):
        mood = rng.choice([*GOOD, *BAD], size=3)
        words = [*mood, *rng.choice(PLAIN, size=5)]
        rng.shuffle(words)
        texts.append(" ".join(words).capitalize() + ".")
        share = 1 / (1 + np.exp(-2.0 * sum(1 if word in GOOD else -1 for word in mood)))
        target.append([1 - share, share])
    return texts, np.array(target)


def test_learns_the_teachers_probabilities_from_words():
    model = bag_of_words.fit(*sentences(1500, 0), *sentences(200, 1))
    texts, target = sentences(300, 2)
    logp = model.predict_logp(texts)
    assert logp.shape == (300, 2)
    assert np.exp(logp).sum(axis=1) == pytest.approx(np.ones(300))
    assert np.mean(logp.argmax(axis=1) == target.argmax(axis=1)) > 0.95
    assert np.abs(np.exp(logp) - target).mean() < 0.08
    assert model.validation_agreement > 0.95


def test_vocabulary_is_lower_cased_training_words_and_pairs_that_occur_in_two_texts():
    train = ["The dog DON'T bark", "the Dog sleeps, sleeps", "a cat sleeps"]
    model = bag_of_words.fit(train, [[1, 0], [1, 0], [0, 1]], ["zebra zebra", "zebra cat"], [[1, 0], [0, 1]])
    assert list(model.column_of) == ["dog", "sleeps", "the", "the dog"]  # "sleeps" counts once a text
    features = bag_of_words._features(["Sleeps the DOG the dog", "zebra"], model.column_of).toarray()
    assert features.tolist() == [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    assert model.predict_logp(["zebra"])[0] == pytest.approx(
        bag_of_words.logistic.log_softmax(model.model.bias_L[None])[0]
    )


def test_the_penalty_is_the_one_that_agrees_most_with_the_teacher():
    train, validation = sentences(60, 3), sentences(100, 4)
    model = bag_of_words.fit(*train, *validation)
    column_of = model.column_of
    seen = {}
    for l2 in bag_of_words.L2_CHOICES:
        other = bag_of_words.logistic.fit(bag_of_words._features(train[0], column_of), train[1], l2)
        logp = bag_of_words.logistic.predict_logp(other, bag_of_words._features(validation[0], column_of))
        seen[l2] = float(np.mean(logp.argmax(axis=1) == validation[1].argmax(axis=1)))
    assert len(set(seen.values())) > 1
    assert model.validation_agreement == max(seen.values())
    assert model.model.l2 == max(l2 for l2, agreement in seen.items() if agreement == max(seen.values()))


def test_of_penalties_that_agree_equally_the_largest_is_kept():
    texts, target = ["good film", "bad film"] * 20, [[0.1, 0.9], [0.9, 0.1]] * 20
    model = bag_of_words.fit(texts, target, texts[:2], target[:2])
    assert (model.validation_agreement, model.model.l2) == (1.0, max(bag_of_words.L2_CHOICES))


def test_six_thousand_sentences_take_seconds():
    """A Zipf vocabulary of 20,000 words; the bound leaves room for a busy machine."""
    rng = np.random.default_rng(5)
    share = 1 / np.arange(1, 20_001)
    tilt = rng.normal(size=20_000) * 0.8
    ids = rng.choice(20_000, size=(6500, 20), p=share / share.sum())
    texts = [" ".join(f"w{word}" for word in row) for row in ids.tolist()]
    positive = 1 / (1 + np.exp(-tilt[ids].sum(axis=1)))
    target = np.column_stack([1 - positive, positive])
    start = time.perf_counter()
    model = bag_of_words.fit(texts[:6000], target[:6000], texts[6000:], target[6000:])
    assert time.perf_counter() - start < 30
    assert model.validation_agreement > 0.75


@pytest.mark.parametrize(
    ("train", "target", "validation", "wanted", "words"),
    [
        (["a b", "a c"], [[1, 0]], ["a"], [[1, 0]], "2 texts for 1 targets"),
        (["a b", "a c"], [[1, 0], [0, 1]], ["a", "b"], [[1, 0]], "2 texts for 1 targets"),
        (["a b", "a c"], [[1, 0], [0, 1]], ["a"], [[1, 0, 0]], "2 labels in training, 3 in validation"),
        (["a b", "c d"], [[1, 0], [0, 1]], ["a"], [[1, 0]], "no word occurs in 2 of the 2 training texts"),
        ([], np.zeros((0, 2)), ["a"], [[1, 0]], "targets of shape"),
        (["a b", "a c"], [[1, 0], [0, 1]], [], np.zeros((0, 2)), "targets of shape"),
        (["a b", "a c"], [[1, 0], [0, 2]], ["a"], [[1, 0]], "target row 1"),
    ],
)
def test_refuses(train, target, validation, wanted, words):
    with pytest.raises(DataError, match=words):
        bag_of_words.fit(train, target, validation, wanted)


def test_predicting_nothing_is_refused():
    model = bag_of_words.fit(["a b", "a c"], [[1, 0], [0, 1]], ["a"], [[1, 0]])
    with pytest.raises(DataError, match="at least 1"):
        model.predict_logp([])
