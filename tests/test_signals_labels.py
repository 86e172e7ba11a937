"""Label questions as signals: which candidate counts for which label, and that totals stay 1."""

import base64
import math

import pytest

from tutelage.errors import SignalError
from tutelage.records import Position, TokenLogprob
from tutelage.signals.labels import label_distribution, pack_top_k, shifted


def position(*candidates: tuple[bytes, float]) -> Position:
    top = tuple(TokenLogprob(base64.b64encode(text).decode(), -1, round(1e6 * math.log(p))) for text, p in candidates)
    return Position(top[0], top)


def test_trap_d12_labels_are_found_by_bytes_and_the_rest_goes_to_the_tail() -> None:
    found = label_distribution(
        position((b" positive", 0.5), (b"neg", 0.2), (b"n", 0.05), (b"other", 0.1), (b"unknown", 0.1)),
        ["negative", "positive"], [7, 8], {b"other": 3, b"neg": 4, b"n": 5},
    )  # fmt: skip
    assert {token: round(math.exp(value), 6) for token, value in found.items()} == {8: 0.5, 7: 0.2, 5: 0.05, 3: 0.1}


def test_shift_keeps_the_total() -> None:
    moved, tail = shifted({1: math.log(0.6), 2: math.log(0.3)}, {1: -1.0, 2: 1.0})
    assert sum(map(math.exp, moved.values())) + math.exp(tail) == pytest.approx(1)
    odds = math.exp(moved[2] - moved[1])
    assert odds == pytest.approx(0.5 * math.exp(2))
    assert shifted({1: 0.0}, {})[1] == -math.inf


def test_trap_d10_processed_logprobs_are_refused() -> None:
    with pytest.raises(SignalError, match="sum to"):
        shifted({1: math.log(0.7), 2: math.log(0.5)}, {})


def test_packed_rows_are_padded_and_no_rows_are_refused() -> None:
    signal = pack_top_k([({7: -1.0, 3: -2.0}, -0.7), ({}, 0.0)])
    assert signal.ids_NK.tolist() == [[7, 3], [0, 0]]
    assert signal.logp_NK.tolist() == [[-1.0, -2.0], [-math.inf, -math.inf]]
    with pytest.raises(SignalError, match="no teacher signal"):
        pack_top_k([])
