import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.reference import stats_naive as naive
from tutelage.errors import ConfigError, DataError
from tutelage.stats import logistic


def problem(n=40, size=4, labels=3, seed=0, density=0.5):
    rng = np.random.default_rng(seed)
    features = (rng.random((n, size)) < density) * rng.normal(1.0, 0.3, size=(n, size))
    target = np.exp(rng.normal(size=(n, labels)))
    return features, target / target.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("l2", [0.001, 0.1])
def test_reaches_the_minimum_of_the_naive_twin(labels, l2):
    features, target = problem(labels=labels)
    model = logistic.fit(csr_array(features), target, l2)
    here = naive.logistic_loss(model.weights_FL, model.bias_L, features, target, l2)
    assert model.loss_nats == pytest.approx(here, abs=1e-12)
    assert here <= naive.logistic_minimum(features, target, l2) + 1e-9


def test_at_the_minimum_residuals_balance_the_penalty():
    features, target = problem(n=200, size=30, seed=1, density=0.1)
    model = logistic.fit(csr_array(features), target, 0.01)
    error = np.exp(logistic.predict_logp(model, csr_array(features))) - target
    assert features.T @ error / 200 == pytest.approx(-0.01 * model.weights_FL, abs=2e-6)
    assert error.mean(axis=0) == pytest.approx(np.zeros(3), abs=2e-6)  # mean prediction = mean target


def test_recovers_the_model_that_made_the_targets():
    rng = np.random.default_rng(2)
    features = csr_array((rng.random((3000, 20)) < 0.3).astype(float))
    weights = rng.normal(size=(20, 4))
    logp = logistic.log_softmax(features @ weights)
    model = logistic.fit(features, np.exp(logp), 1e-6)
    assert logistic.predict_logp(model, features) == pytest.approx(logp, abs=0.02)
    wanted = weights - weights.mean(axis=1, keepdims=True)
    assert model.weights_FL == pytest.approx(wanted, abs=0.02)


def test_a_heavy_penalty_leaves_the_mean_target():
    features, target = problem()
    model = logistic.fit(csr_array(features), target, 1e6)
    assert np.exp(logistic.predict_logp(model, csr_array(features))) == pytest.approx(
        np.tile(target.mean(axis=0), (40, 1)), abs=1e-4
    )


def test_is_deterministic():
    features, target = problem(n=100, size=10)
    one, two = (logistic.fit(csr_array(features), target, 0.01) for _ in range(2))
    assert (one.weights_FL == two.weights_FL).all()
    assert (one.bias_L == two.bias_L).all()


def test_a_step_that_overshoots_is_halved():
    """exp(x) − x from −5 with a first step of 1,000, where exp overflows; the minimum is at 0."""

    def objective(at):
        with np.errstate(over="ignore"):
            power = np.exp(at)
        return float((power - at).sum()), power - 1

    found = logistic._minimise(objective, np.full((1, 1), -5.0), np.full((1, 1), 1000.0))
    assert found.at == pytest.approx(np.zeros((1, 1)), abs=1e-5)
    assert found.iterations < 30


def test_says_when_the_minimum_is_not_reached(monkeypatch):
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 2)
    features, target = problem()
    with pytest.raises(DataError, match=r"stopped after 2 iterations[\s\S]*raise l2"):
        logistic.fit(csr_array(features), target, 1e-6)


@pytest.mark.parametrize(
    ("features", "target", "words"),
    [
        (np.ones((2, 3)), [[0.5, 0.5]], r"features of shape \(2, 3\)"),
        (np.full((1, 3), np.nan), [[0.5, 0.5]], "finite features"),
        (np.ones((1, 3)), [[0.5, 0.6]], r"target row 0 is \[0.5, 0.6\]"),
        (np.ones((2, 3)), [[0.5, 0.5], [-0.5, 1.5]], "target row 1"),
        (np.ones((1, 3)), [[np.nan, 0.5]], "target row 0"),
        (np.ones((1, 3)), [[1.0]], "at least two"),
        (np.ones((0, 3)), np.zeros((0, 2)), "at least one"),
        (np.ones((1, 3)), [0.5, 0.5], "targets of shape"),
    ],
)
def test_refuses(features, target, words):
    with pytest.raises(DataError, match=words):
        logistic.fit(csr_array(features), target, 0.1)


def test_refuses_no_penalty_and_other_features():
    features, target = problem()
    for l2 in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="positive penalty"):
            logistic.fit(csr_array(features), target, l2)
    model = logistic.fit(csr_array(features), target, 0.1)
    with pytest.raises(DataError, match="3 features for a model of 4"):
        logistic.predict_logp(model, csr_array(features[:, :3]))
    with pytest.raises(DataError, match="at least 1"):
        logistic.predict_logp(model, csr_array(features[:0]))
