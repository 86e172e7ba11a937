import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from tests.reference import inference_naive as naive
from tutelage.errors import DataError
from tutelage.stats.multiple import benjamini_hochberg, holm

# Benjamini & Hochberg (1995), section 4.1: thrombolysis in 15 comparisons
THROMBOLYSIS = (
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0,
)  # fmt: skip
some = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.02, 1.0])), min_size=1, max_size=30)


def test_published_rejections():
    """The first four by the false discovery rate, the first three where any wrong rejection counts."""
    assert (benjamini_hochberg(THROMBOLYSIS) <= 0.05).sum() == 4
    assert (holm(THROMBOLYSIS) <= 0.05).sum() == 3
    assert benjamini_hochberg(THROMBOLYSIS)[3] == pytest.approx(15 / 4 * 0.0095)
    assert holm(THROMBOLYSIS)[2] == pytest.approx(13 * 0.0019)


@settings(max_examples=10)  # its Holm takes 60 ms
@given(some)
def test_agree_with_statsmodels(p):
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-9)
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1], abs=1e-9)


@given(st.lists(st.sampled_from([0.001, 0.01, 0.02, 0.3, 0.5]), min_size=1, max_size=5))
def test_adjusted_p_is_the_least_level_that_rejects(p):
    assert holm(p) == pytest.approx(naive.adjusted(p, "holm"), abs=1e-12)
    assert benjamini_hochberg(p) == pytest.approx(naive.adjusted(p, "bh"), abs=1e-12)


@given(some)
def test_order_and_sizes(p):
    strict, mild = holm(p), benjamini_hochberg(p)
    assert (np.asarray(p) <= mild + 1e-15).all()
    assert (mild <= strict + 1e-15).all()
    assert (strict <= 1.0).all()
    back = np.random.default_rng(0).permutation(len(p))
    assert holm(np.asarray(p)[back]) == pytest.approx(strict[back], abs=1e-15)
    assert benjamini_hochberg(np.asarray(p)[back]) == pytest.approx(mild[back], abs=1e-15)


@pytest.mark.parametrize(
    ("p", "words"), [([], "shape"), ([0.1, 1.2], "1.2"), ([-0.1], "-0.1"), ([float("nan")], "nan")]
)
@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_bad_input_is_named(adjust, p, words):
    with pytest.raises(DataError, match=words):
        adjust(p)
