import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.reference import stats_naive as naive
from tutelage.errors import ConfigError, DataError
from tutelage.stats import labels
from tutelage.stats.labels import balance_offsets, decide, kl_rows, log_softmax, shares_of

shapes = st.tuples(st.integers(1, 12), st.integers(2, 5))
scores = shapes.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(-40, 40)))
tied_scores = st.tuples(st.integers(2, 25), st.integers(2, 4)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.integers(-2, 2).map(float))
)


def drawn(n, size, seed, spread=3.0, tilt=3.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, size)) * spread + rng.normal(size=size) * tilt, rng.dirichlet(np.ones(size) * 3)


def misses(logp, offsets, shares):
    """Counts decided minus counts wished for."""
    return np.bincount(decide(logp, offsets), minlength=len(shares)) - np.asarray(shares) * len(logp)


@given(scores)
def test_log_softmax_is_its_naive_twin(logits):
    got = log_softmax(logits)
    assert got == pytest.approx(np.array([naive.log_softmax(row) for row in logits.tolist()]), abs=1e-12)
    assert np.exp(got).sum(axis=1) == pytest.approx(np.ones(len(logits)))


def test_log_softmax_of_large_logits_is_exact():
    assert log_softmax([[1e6, 1e6], [-1e6, 0.0]]).tolist() == [[-math.log(2), -math.log(2)], [-1e6, 0.0]]


@given(scores, st.integers(0, 2**32 - 1))
def test_kl_is_its_naive_twin(p_logits, seed):
    q_logits = np.random.default_rng(seed).normal(size=p_logits.shape) * 5
    got = kl_rows(p_logits, q_logits)
    wanted = [naive.kl(p, q) for p, q in zip(p_logits.tolist(), q_logits.tolist(), strict=True)]
    assert got == pytest.approx(np.array(wanted), abs=1e-10)
    assert (got >= 0).all()
    assert (kl_rows(p_logits, p_logits + 7.0) < 1e-12).all()


def test_kl_worked_example():
    got = kl_rows(np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]]))
    assert got == pytest.approx([0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)])


def test_decide_and_shares():
    decisions = decide([[0.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]], [0.0, 0.0])
    assert decisions.tolist() == [0, 1, 0, 1]  # the first label wins a tie
    assert decide([[0.0, 0.0]], [-0.1, 0.1]).tolist() == [1]
    assert shares_of(np.array([0, 2, 2, 0, 2]), 4).tolist() == [0.4, 0.0, 0.6, 0.0]


@given(st.integers(2, 60), st.integers(0, 2**32 - 1))
def test_two_labels_half_and_half_is_the_median(n, seed):
    logp = np.random.default_rng(seed).normal(size=(n, 2)) * 4
    offsets = balance_offsets(logp, [0.5, 0.5])
    assert offsets[1] - offsets[0] == pytest.approx(np.median(logp[:, 0] - logp[:, 1]), abs=1e-12)
    assert offsets.sum() == 0.0
    assert np.abs(misses(logp, offsets, [0.5, 0.5])).max() <= 0.5


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_two_labels_meet_any_share(n, share, seed):
    logp = np.random.default_rng(seed).normal(size=(n, 2)) * 4
    offsets = balance_offsets(logp, [share, 1 - share])
    assert np.abs(misses(logp, offsets, [share, 1 - share])).max() <= 0.5 + 1e-9


@given(tied_scores.filter(lambda x: x.shape[1] == 2 and np.ptp(x[:, 0] - x[:, 1]) > 0), st.floats(0.05, 0.95))
def test_two_labels_with_ties_come_as_near_as_any_cut(logp, share):
    offsets = balance_offsets(logp, [share, 1 - share])
    wanted = naive.nearest_two_label_miss((logp[:, 0] - logp[:, 1]).tolist(), share)
    assert abs(misses(logp, offsets, [share, 1 - share])[0]) <= wanted + 1e-6


@pytest.mark.parametrize(("n", "size"), [(30, 3), (500, 4), (2000, 20), (21, 20), (3, 5)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_many_labels_meet_their_shares_to_the_example(n, size, seed):
    logp, shares = drawn(n, size, seed)
    offsets = balance_offsets(logp, shares)
    assert np.abs(misses(logp, offsets, shares)).max() < 1.0
    assert abs(offsets.sum()) < 1e-9
    assert np.abs(np.bincount(decide(logp, np.zeros(size)), minlength=size) - shares * n).max() > 1.0  # there was work


@pytest.mark.parametrize("seed", range(8))
def test_offsets_give_the_best_assignment_with_these_counts(seed):
    logp, _ = drawn(7, 3, seed)
    decisions = decide(logp, balance_offsets(logp, [3 / 7, 2 / 7, 2 / 7]))
    assert np.bincount(decisions, minlength=3).tolist() == [3, 2, 2]
    total = logp[np.arange(7), decisions].sum()
    assert total == pytest.approx(naive.best_assignment_total(logp.tolist(), [3, 2, 2]), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_paths_alone_reach_the_same_decisions_as_a_good_start(seed):
    logp, shares = drawn(300, 6, seed)
    counts = labels._whole_counts(shares, 300)
    cold = labels._transport(logp, counts, np.zeros(6))
    warm = labels._transport(logp, counts, labels._sweep(logp, counts))
    assert (decide(logp, cold) == decide(logp, warm)).all()
    assert cold - cold.mean() == pytest.approx(warm - warm.mean(), abs=1e-9)


def test_two_labels_are_the_same_problem_as_many():
    logp, _ = drawn(40, 2, 0)
    offsets = labels._transport(logp, np.array([10, 30]), np.zeros(2))
    assert offsets - offsets.mean() == pytest.approx(balance_offsets(logp, [0.25, 0.75]), abs=1e-9)


@given(tied_scores.filter(lambda x: np.ptp(x - x[:, :1], axis=0).max() > 0))
def test_ties_end_and_never_cost_more_than_the_tied(logp):
    size = logp.shape[1]
    shares = np.full(size, 1 / size)
    offsets = balance_offsets(logp, shares)
    moved = logp + offsets
    tied = (moved >= moved.max(axis=1, keepdims=True) - 1e-9).sum(axis=1) > 1
    same = max(np.unique(logp - logp[:, :1], axis=0, return_counts=True)[1])
    assert np.abs(misses(logp, offsets, shares)).max() < 1.0 + tied.sum() + (same if size == 2 else 0)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.floats(-50, 50))
def test_offsets_see_only_differences_and_undo_a_bias(seed, size, shift):
    rng = np.random.default_rng(seed)
    logp = rng.normal(size=(60, size)) * 2
    shares, bias = rng.dirichlet(np.ones(size) * 5), rng.normal(size=size) * 3
    offsets = balance_offsets(logp, shares)
    assert balance_offsets(logp + shift * rng.random((60, 1)), shares) == pytest.approx(offsets, abs=1e-7)
    assert balance_offsets(logp + bias, shares) == pytest.approx(offsets - (bias - bias.mean()), abs=1e-7)


def test_whole_counts_are_the_largest_remainders():
    assert labels._whole_counts(np.array([1 / 3, 1 / 3, 1 / 3]), 10).tolist() == [4, 3, 3]
    assert labels._whole_counts(np.array([0.55, 0.35, 0.10]), 5).tolist() == [3, 2, 0]
    assert labels._whole_counts(np.array([0.1, 0.2, 0.7]), 10).tolist() == [1, 2, 7]


@pytest.mark.parametrize(
    ("logp", "words"),
    [
        (np.zeros((0, 2)), "at least 1"),
        (np.zeros(4), "label scores of shape"),
        (np.zeros((3, 1)), "2 to 20"),
        (np.zeros((3, 21)), "2 to 20"),
        ([[0.0, -np.inf]], r"-inf at \(0, 1\)"),
        ([[np.nan, 0.0]], "nan at"),
    ],
)
def test_scores_are_finite_and_of_a_few_labels(logp, words):
    for function in (
        log_softmax,
        lambda x: kl_rows(x, x),
        lambda x: decide(x, [0.0, 0.0]),
        lambda x: balance_offsets(x, [0.5, 0.5]),
    ):
        with pytest.raises(DataError, match=words):
            function(logp)


@pytest.mark.parametrize("logp", [[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0, 2.0]] * 5])
def test_balance_refuses_examples_it_cannot_tell_apart(logp):
    with pytest.raises(DataError, match="same label scores"):
        balance_offsets(logp, np.full(len(logp[0]), 1 / len(logp[0])))


@pytest.mark.parametrize("shares", [[0.5, 0.6], [1.0, 0.0], [1.2, -0.2], [1 / 3] * 3, [math.nan, 0.5]])
def test_balance_refuses_wrong_shares(shares):
    with pytest.raises(ConfigError, match="one positive share a label"):
        balance_offsets([[0.0, 1.0], [1.0, 0.0]], shares)


@pytest.mark.parametrize(
    ("decisions", "words"),
    [([], "at least one"), ([0.0, 1.0], "label indices"), ([0, 3], "label index 3 of 3"), ([0, -1], "label index -1")],
)
def test_shares_refuse(decisions, words):
    with pytest.raises(DataError, match=words):
        shares_of(decisions, 3)


def test_decide_refuses_wrong_offsets():
    for offsets in ([0.0], [0.0, math.inf]):
        with pytest.raises(DataError, match="one finite offset a label"):
            decide([[0.0, 1.0]], offsets)
    with pytest.raises(DataError, match="differ"):
        kl_rows([[0.0, 1.0]], [[0.0, 1.0, 2.0]])
