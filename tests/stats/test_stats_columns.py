import numpy as np
import pytest

from tutelage.errors import DataError
from tutelage.stats.clusters import clustered_mean
from tutelage.stats.columns import finite_column, paired_columns
from tutelage.stats.multiple import holm
from tutelage.stats.permutation import paired_permutation
from tutelage.stats.ppi import ppi_mean
from tutelage.stats.sequences import confidence_sequence

BAD = [
    ([], "shape"),
    (0.5, "shape"),
    ([[0.5, 0.5]], "shape"),
    ([0.5, float("nan")], "item 1 is nan"),
    ([0.5, float("inf")], "item 1 is inf"),
    ([None, 0.5], "item 0 is nan"),
    (["0.5", "half"], "could not convert"),
    ([[0.5], [0.5, 0.5]], "values"),
    ([{}, 0.5], "values"),
]


@pytest.mark.parametrize(("values", "words"), BAD, ids=str)
def test_what_is_no_column_of_numbers_is_named(values, words):
    with pytest.raises(DataError, match=words):
        finite_column(values, "values")


@pytest.mark.parametrize("values", [values for values, _ in BAD], ids=str)
@pytest.mark.parametrize(
    "use",
    [
        lambda values: clustered_mean(values, ["a", "b"]),
        holm,
        lambda values: paired_permutation(values, np.random.default_rng(0)),
        lambda values: ppi_mean(values, values, values),
        confidence_sequence,
        lambda values: paired_columns(values, [0.5, 0.5]),
        lambda values: paired_columns([0.5, 0.5], values),
    ],
    ids=["clusters", "multiple", "permutation", "ppi", "sequence", "first", "second"],
)
def test_everything_that_takes_a_column_says_so(use, values):
    with pytest.raises(DataError):
        use(values)
