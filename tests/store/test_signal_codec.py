"""Coding of signals: what comes out is what went in, whatever it is, and what it cost is said."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.signals_naive import read_naive
from tests.store.test_signals import IDENTITY, V, kept, logp, text
from tutelage.errors import SignalError
from tutelage.signals import Dense, Head, Hidden, Sparse, TopK
from tutelage.signals.thin import random_draws, sampled_top_k, seeded, threshold, top_k
from tutelage.store import signal_codec as codec
from tutelage.store.signal_codec import Bounds, Table
from tutelage.store.signal_kinds import Draws, Full, HiddenStates, Kind, Sampled, Threshold, TopKTail
from tutelage.store.signals import SignalCache, SignalWriter, estimate_bytes

HEAD = Head(torch.randn(V, 12, generator=seeded("head")))


@st.composite
def tables(draw: Any) -> tuple[Table, Bounds]:
    """Tables of any shape: empty rows, rows that pass their total, following tokens among them or not."""
    vocabulary = draw(st.sampled_from([1, 3, 40, 9000]))
    total = draw(st.sampled_from([0, 12, 500]))
    bounds = Bounds(vocabulary, draw(st.sampled_from([max(total, 1), 1000, 65535])), total, draw(st.integers(1, 4)))
    exact, bare, ids, values, following = [], [], [], [], []
    for _ in range(draw(st.integers(0, 12))):
        row = draw(st.lists(st.integers(0, vocabulary - 1), max_size=8, unique=True))
        cut = draw(st.integers(0, len(row)))
        exact.append(cut)
        bare.append(len(row) - cut)
        ids += row
        values += draw(st.lists(st.integers(0, bounds.most), min_size=cut, max_size=cut))
        following.append(draw(st.sampled_from([-1, *row]) | st.integers(0, vocabulary - 1)))
    tail = draw(st.lists(st.integers(0, 65535), min_size=len(exact), max_size=len(exact)) | st.just([]))
    return Table(*(np.array(part, np.int64) for part in (exact, bare, ids, values, following, tail))), bounds


def as_rows(table: Table, following_N: np.ndarray) -> list[tuple[dict[int, int], set[int]]]:
    found, at, value_at = [], 0, 0
    for exact, bare, following in zip(table.exact_N, table.bare_N, following_N, strict=True):
        ids = [int(following if token < 0 else token) for token in table.ids_M[at : at + exact + bare]]
        found.append(
            (
                dict(zip(ids[:exact], table.values_E[value_at : value_at + exact].tolist(), strict=True)),
                set(ids[exact:]),
            )
        )
        assert len(set(ids)) == exact + bare
        at, value_at = at + exact + bare, value_at + exact
    return found


@settings(max_examples=150, deadline=None)
@given(tables())
def test_tables_come_back(example: tuple[Table, Bounds]) -> None:
    table, bounds = example
    streams = codec.encode(table, bounds)
    for name, data in streams.items():
        for coding in ("lzma", "zlib", "none"):
            assert codec.expand(codec.compress(data, coding), coding, len(data)) == data, name
    found = codec.decode(streams, bounds)
    assert as_rows(found, table.following_N) == as_rows(table, table.following_N)
    assert found.tail_N.tolist() == table.tail_N.tolist()
    marked = sum(
        following in row or following in bare
        for (row, bare), following in zip(as_rows(table, table.following_N), table.following_N, strict=True)
    )
    assert (found.ids_M < 0).sum() == marked  # what the text says itself is never stored


def test_a_following_token_past_the_last_mark_is_stored() -> None:
    table = Table(*(np.array(part, np.int64) for part in ([300], [0], range(300), range(300, 0, -1), [270], [])))
    found = codec.decode(codec.encode(table, Bounds(400, 65535)), Bounds(400, 65535))
    assert (found.ids_M >= 0).all() and as_rows(found, table.following_N) == as_rows(table, table.following_N)


@given(st.lists(st.sampled_from([0, 207, 208, 8399, 8400, codec.LARGEST]) | st.integers(0, codec.LARGEST)))
def test_numbers_come_back(numbers: list[int]) -> None:
    assert codec.read_numbers("x", codec.write_numbers("x", np.array(numbers, np.int64))).tolist() == numbers


@pytest.mark.parametrize("coding", ["lzma", "zlib", "none"])
def test_bytes_that_are_not_what_they_should_be_are_refused(coding: str) -> None:
    data = codec.compress(b"abc" * 50, coding)
    for wrong, size in ((data, 149), (data, 151), (data[:8], 150), (b"\xff" + data[2:], 150)):
        with pytest.raises(ValueError):
            codec.expand(wrong, coding, size)


def captured(kind: Kind, thin: Any, folder: Path, numbers: range = range(3, 24)) -> SignalCache:
    with SignalWriter(folder, replace(IDENTITY, kind=kind)) as writer:
        for number in numbers:
            ids_T = text(number)
            writer.add(ids_T, torch.arange(len(ids_T)), thin(ids_T))
    return SignalCache(folder, replace(IDENTITY, kind=kind))


ROWS = {
    "threshold": (Threshold(0.05), lambda ids_T: threshold(logp(ids_T), 0.05, seeded("a"))),
    "threshold odd": (Threshold(0.03, 7), lambda ids_T: threshold(logp(ids_T), 0.03, seeded("a"))),
    "random": (Draws(50), lambda ids_T: random_draws(logp(ids_T), 50, seeded("a"))),
    "sampled": (Sampled(5), lambda ids_T: sampled_top_k(logp(ids_T), 5, seeded("a"))),
    "token alone": (Sampled(0), lambda ids_T: sampled_top_k(logp(ids_T), 0, seeded("a"))),
    "topk+tail": (TopKTail(9), lambda ids_T: top_k(logp(ids_T), 9)),
    "every id": (TopKTail(V), lambda ids_T: top_k(logp(ids_T), V)),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_second_reader_written_from_the_docs_reads_the_same(tmp_path: Path, name: str) -> None:
    kind, thin = ROWS[name]
    cache: Any = captured(kind, thin, tmp_path)
    for number in (3, 17, 23):
        ids_T = text(number)
        rows = read_naive(tmp_path, ids_T.tolist())
        signal = cache.read(ids_T).signal
        for t, row in rows.items():
            values = {token: np.array([-1 if value is None else value]) for token, value in row}
            if isinstance(signal, TopK):
                raw = np.array([(values[int(token)][0] - 65535) / 256 for token in signal.ids_NK[t]])
                tail = (values.pop(-1)[0] - 65535) / 256
                norm = math.log(math.fsum(np.exp(raw)) + (math.exp(tail) if tail > -250 else 0))
                assert np.allclose(signal.logp_NK[t].numpy(), raw - norm, atol=1e-5) and len(values) == len(raw)
            else:
                wanted = {token: float(np.float32(kind.weights(value)[0])) for token, value in values.items()}
                assert kept(signal.rows(slice(t, t + 1)))[0] == wanted


@pytest.mark.parametrize("name", ROWS)
def test_trap_d14_what_coding_cost_is_in_every_shard(tmp_path: Path, name: str) -> None:
    kind, thin = ROWS[name]
    cache = captured(kind, thin, tmp_path)
    (said,) = cache.errors()
    largest, total, count = 0.0, 0.0, 0
    for number in range(3, 24):
        before, after = thin(text(number)), cache.read(text(number)).signal
        count += len(before)
        if isinstance(before, TopK):
            p_NK, q_NK = (torch.cat([each.logp_NK, each.tail_N[:, None]], -1).double() for each in (before, after))
            gap_NK = torch.where(p_NK > -math.inf, p_NK - q_NK, 0.0)
            largest = max(largest, float(gap_NK.abs().max()))
            total += float((p_NK.exp() * gap_NK).sum())
            continue
        for one, other in zip(kept(before), kept(after), strict=True):
            assert one.keys() == other.keys()
            for token, p in one.items():
                largest = max(largest, abs(math.log(p / other[token])))
                total += p * math.log(p / other[token]) - p + other[token]
    assert said.log_nats == pytest.approx(largest, rel=0.02, abs=1e-5)
    assert said.kl_nats == pytest.approx(total / count, rel=0.02, abs=1e-6)
    limit = {"threshold": math.log(4 / 3), "threshold odd": math.log(8 / 7), "random": 0}.get(name, 1 / 128)
    assert said.log_nats <= limit * 1.001


@pytest.mark.parametrize("kind", [Full(), HiddenStates.of(HEAD), HiddenStates.of(HEAD, "float16")])
def test_trap_d14_full_rows(tmp_path: Path, kind: Kind) -> None:
    def thin(ids_T: torch.Tensor) -> Any:
        if isinstance(kind, Full):
            logp_NV = logp(ids_T)
            logp_NV[:, -5:] = -math.inf  # a padded vocabulary
            return Dense(logp_NV.log_softmax(-1))
        return Hidden(torch.randn(len(ids_T), 12, generator=seeded(str(len(ids_T)))) * 2, HEAD)

    cache = captured(kind, thin, tmp_path, range(3, 11))
    largest = 0.0
    for number in range(3, 11):
        before, after = thin(text(number)), cache.read(text(number)).signal
        assert type(before) is type(after)
        p_NV, q_NV = (each.dense().logp_NV if isinstance(each, Hidden) else each.logp_NV for each in (before, after))
        assert torch.equal(p_NV == -math.inf, q_NV == -math.inf)
        assert torch.allclose(q_NV.exp().sum(-1), torch.ones(len(q_NV)), atol=1e-5)
        largest = max(largest, float(torch.where(p_NV > -math.inf, p_NV - q_NV, 0.0).abs().max()))
    (said,) = cache.errors()
    assert said.log_nats == pytest.approx(largest, rel=0.02, abs=1e-4)
    assert 0 < said.kl_nats < 1e-2 and largest < (0.002 if isinstance(kind, Full) else 0.2)


@pytest.mark.parametrize(
    ("kind", "weights"),
    [(Threshold(0.05), [0.0537, 0.31, 0.4999, 0.99]), (Sampled(4), [1e-7, 0.001234, 0.31, 0.9991])],
)
def test_rounding_is_unbiased(kind: Any, weights: list[float]) -> None:
    """Over many sequences the mean of a weight is the weight."""
    count = 3000
    ids_NK = torch.arange(len(weights)).expand(count, -1).contiguous()
    signal = Sparse(ids_NK, torch.tensor(weights, dtype=torch.float64).expand(count, -1).contiguous())
    table = kind.pack(signal, np.full(count, -1), np.random.default_rng(1)).columns
    found = kind.weights(table.values_E.reshape(count, -1))
    assert len(np.unique(found[:, 1])) == 2
    error = np.maximum(found.std(0) / math.sqrt(count), 1e-9)
    assert (np.abs(found.mean(0) - weights) < 4 * error).all()
    assert (np.abs(np.log(found) - np.log(weights)) < (0.34 if isinstance(kind, Threshold) else 1 / 255)).all()


def test_ids_that_come_twice_are_added(tmp_path: Path) -> None:
    signal = Sparse(torch.tensor([[7, 7, 3]]), torch.tensor([[0.1, 0.1, 0.2]]))
    with SignalWriter(tmp_path, replace(IDENTITY, kind=Draws(10))) as writer:
        writer.add(torch.tensor([1, 7]), torch.tensor([0]), signal)
    found = SignalCache(tmp_path, replace(IDENTITY, kind=Draws(10))).read(torch.tensor([1, 7])).signal
    assert kept(found) == [{7: pytest.approx(0.2), 3: pytest.approx(0.2)}]


def test_counts_that_are_none_are_refused(tmp_path: Path) -> None:
    with (
        SignalWriter(tmp_path, replace(IDENTITY, kind=Draws(10))) as writer,
        pytest.raises(SignalError, match="10 draws"),
    ):
        writer.add(torch.tensor([1, 7]), torch.tensor([0]), Sparse(torch.tensor([[7]]), torch.tensor([[0.15]])))


def test_a_text_is_stored_in_few_bytes_and_the_estimate_is_near(tmp_path: Path) -> None:
    """Rows like a language model's: 20,000 ids, commoner the lower their number, entropy near 1.5 nats."""
    vocabulary, count, length = 20_000, 60, 100
    prior_V = -1.1 * torch.arange(1, vocabulary + 1).log()
    identity = replace(IDENTITY, kind=Threshold(1 / 50), vocabulary=vocabulary)
    ids = 0.0
    with SignalWriter(tmp_path, identity) as writer:
        for number in range(count):
            generator = seeded("text", number)
            noise_NV = torch.randn(length, vocabulary, generator=generator) * 3
            logp_NV = (1.2 * prior_V + 1.3 * noise_NV).log_softmax(-1)
            drawn_N = sampled_top_k(logp_NV, 0, generator).ids_NK[:, 0]
            ids_T = torch.cat([drawn_N.new_tensor([0]), drawn_N])
            signal = threshold(logp_NV, 1 / 50, generator)
            ids += float((signal.weights_NK > 0).sum()) / count / length
            writer.add(ids_T, torch.arange(length), signal)
    cache = SignalCache(tmp_path, identity)
    said = estimate_bytes(identity.kind, cache.positions, vocabulary, ids)
    assert 0.7 < said / cache.bytes < 1.4
    assert cache.bytes / cache.positions < 1.7 * ids


def test_sizes_are_said_before_capture() -> None:
    million = 10**6
    assert 9e6 < estimate_bytes(Threshold(1 / 50), million, 49_152, 7.5) < 12e6
    assert estimate_bytes(TopKTail(50), million, 49_152, 50) < 300 * million
    assert estimate_bytes(Full(), million, 49_152) > 50_000 * million
    assert 1000 * million < estimate_bytes(HiddenStates.of(HEAD, "float16"), million, V) / 12 * 576 < 2 * 576 * million
    with pytest.raises(ValueError, match="mean number of ids"):
        estimate_bytes(Threshold(1 / 50), million, 49_152)
