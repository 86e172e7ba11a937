"""Reading DistillKit's captures: written here byte by byte from its documentation, garbage included."""

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

from tests.store.test_signals import IDENTITY
from tutelage.errors import ConfigError, DataError
from tutelage.signals.thin import seeded
from tutelage.store.distillkit import Imported, Layout, clean, log_probabilities, read, unpacked
from tutelage.store.signal_kinds import TopKTail
from tutelage.store.signals import Identity, SignalCache, SignalWriter

D = 1000  # ids of 10 bits
EXACT = {"d": D, "k": 6, "exact_k": 6, "exact_dtype": "float32", "residual_bins": [], "delta_encoding": False}
NAN = math.nan


def bits_of(values: Sequence[int], bits: int) -> bytes:
    text = "".join(format(value % 2**bits, f"0{bits}b") for value in values)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


def bfloat16(values: Sequence[float]) -> bytes:
    return b"".join(struct.pack("<f", value)[2:] for value in values)


def decoded(data: bytes, settings: dict[str, Any]) -> list[float]:
    layout = Layout.of(settings)
    assert len(data) == layout.logprob_bytes
    return log_probabilities(torch.tensor([list(data)], dtype=torch.uint8), layout)[0].tolist()


def write(path: Path, rows: list[tuple[list[int], list[bytes], list[bytes]]]) -> Path:
    names = ("input_ids", "compressed_logprobs", "bytepacked_indices")
    lists = pyarrow.list_(pyarrow.list_(pyarrow.uint8()))
    columns = [
        pyarrow.array([row[0] for row in rows], pyarrow.list_(pyarrow.uint64())),
        *(pyarrow.array([list(map(list, row[at])) for row in rows], lists) for at in (1, 2)),
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=names), path)
    return path


def test_ids_are_packed_highest_bit_first() -> None:
    values = [0, 999, 512, 3, 77, 1]
    packed = torch.tensor([list(bits_of(values, 10))], dtype=torch.uint8)
    assert unpacked(packed, 10, 6).tolist() == [values]
    assert packed[0, 1] == 0b00111110  # 2 bits of 0000000000, 6 of 1111100111


def test_exact_values_with_and_without_differences() -> None:
    logp = [-0.5, -1.5, -2.25, -4.0, -8.0, -8.5]
    assert decoded(struct.pack("<6f", *logp), EXACT) == logp
    steps = [-0.5, -1.0, -0.75, -1.75, -4.0, -0.5]
    assert decoded(bfloat16(steps), {**EXACT, "exact_dtype": "bfloat16", "delta_encoding": True}) == logp


@pytest.mark.parametrize("normalize", [False, True])
def test_a_fitted_tail_with_residuals(normalize: bool) -> None:
    """1 exact value, then a + b t + c √t and residuals: 3 of 4 bits at scale 1/8, 2 of 1 bit at scale 1/4."""
    settings = {
        "d": D, "k": 7, "exact_k": 1, "exact_dtype": "bfloat16", "polynomial_terms": [0, 1, "sqrt"], "term_dtype": "float32",
        "residual_bins": [{"scale_dtype": "float16", "element_bits": 4, "num_elements": 3},
                          {"scale_dtype": "float32", "element_bits": 1, "num_elements": 2}],
        "delta_encoding": False, "normalize_t": normalize,
    }  # fmt: skip
    data = bfloat16([-0.25]) + struct.pack("<3f", -3.0, -0.5, -0.125)
    data += struct.pack("<e", 0.125) + bits_of([8 - 2, 8 + 3, 8 + 0], 4)
    data += struct.pack("<f", 0.25) + bits_of([1, 0], 1)
    residuals = [-2 / 8, 3 / 8, 0, 1 / 4, -1 / 4, 0]
    points = [at / 5 if normalize else at for at in range(6)]
    wanted = [-0.25] + [-3 - t / 2 - math.sqrt(t) / 8 + r for t, r in zip(points, residuals, strict=True)]
    assert decoded(data, settings) == pytest.approx(wanted, abs=1e-6)


def test_trap_d4_garbage_slots_go_and_their_mass_is_kept() -> None:
    """Unfilled slots (any id at −inf or NaN), ids beyond the vocabulary, an id twice, more mass than 1, nothing at all."""
    half, tenth = math.log(0.5), math.log(0.1)
    ids_NK = torch.tensor([[5, 123456789, 2**40], [-7, 5, 6], [5, 5, 7], [1, 2, 3], [4, 5, 6], [5, 950, 6]])
    logp_NK = torch.tensor(
        [
            [half, -math.inf, -math.inf],
            [tenth, half, NAN],
            [half, tenth, tenth],
            [half, half, half],
            [NAN] * 3,
            [half] * 3,
        ]
    )
    logp_NK[5, 2] = 40.0
    signal = clean(ids_NK, logp_NK, 900)
    rows = [
        {int(token): round(math.exp(value), 5) for token, value in zip(ids, logp, strict=True) if value > -math.inf}
        for ids, logp in zip(signal.ids_NK, signal.logp_NK.tolist(), strict=True)
    ]
    third = round(1 / 3, 5)
    assert rows == [{5: 0.5}, {5: 0.5}, {5: 0.5, 7: 0.1}, {1: third, 2: third, 3: third}, {}, {5: 0.5}]
    assert signal.tail_N.exp().tolist() == pytest.approx([0.5, 0.5, 0.4, 0, 1, 0.5])
    assert ((signal.ids_NK >= 0) & (signal.ids_NK < 900)).all() and not signal.logp_NK.isnan().any()
    total_N = torch.cat([signal.logp_NK, signal.tail_N[:, None]], -1).exp().sum(-1)
    assert torch.allclose(total_N, torch.ones(6), atol=1e-6)


def capture(path: Path, texts: int = 5) -> list[tuple[list[int], list[dict[int, float]]]]:
    """A capture whose last slots were not filled in odd rows; what each row holds."""
    rows, truth = [], []
    for number in range(texts):
        generator = seeded("distillkit", number)
        ids = torch.randint(D, (6 + number,), generator=generator).tolist()
        values, indices, held = [], [], []
        for position in range(len(ids) - 1):
            logp_V = (torch.randn(D, generator=generator) * 3).log_softmax(-1)
            best = logp_V.topk(6)
            filled = 4 if position % 2 else 6
            logp = best.values.tolist()[:filled] + [-math.inf] * (6 - filled)
            slots = best.indices.tolist()[:filled] + [1023, 7][: 6 - filled]
            values.append(struct.pack("<6f", *logp))
            indices.append(bits_of(slots, 10))
            held.append(dict(zip(slots[:filled], logp[:filled], strict=True)))
        rows.append((ids, values, indices))
        truth.append((ids, held))
    write(path, rows)
    return truth


def test_trap_d4_a_capture_becomes_a_cache_found_by_content(tmp_path: Path) -> None:
    truth = capture(tmp_path / "data_0.parquet")
    identity = Identity(TopKTail(6), **{name: "x" for name in IDENTITY.described() if name not in ("kind", "vocabulary")},
                        vocabulary=D)  # fmt: skip
    with SignalWriter(tmp_path / "cache", identity) as writer:
        found = list(read(tmp_path / "data_0.parquet", Layout.of(EXACT), D))
        for each in found:
            assert isinstance(each, Imported) and each.dropped_slots == 2 * ((len(each.ids_T) - 1) // 2)
            writer.add(each.ids_T, each.positions_N, each.signal)
    cache = SignalCache(tmp_path / "cache", identity)
    for ids, held in reversed(truth):
        rows = cache.read(torch.tensor(ids))
        signal: Any = rows.signal
        assert rows.positions_N.tolist() == list(range(len(ids) - 1))
        for t, wanted in enumerate(held):
            used = signal.logp_NK[t] > -math.inf
            row = dict(zip(signal.ids_NK[t, used].tolist(), signal.logp_NK[t, used].tolist(), strict=True))
            assert row == pytest.approx(wanted, abs=1 / 256)
            lacking = 1 - math.fsum(map(math.exp, wanted.values()))
            assert math.exp(signal.tail_N[t]) == pytest.approx(lacking, rel=0.01)


def test_other_settings_and_other_files_are_refused(tmp_path: Path) -> None:
    capture(tmp_path / "a.parquet")
    for changed in ({"k": 7, "exact_k": 7}, {"exact_dtype": "bfloat16"}, {"d": 5000}):
        with pytest.raises(DataError, match=r"a.parquet, row 0: 5 positions of \[8, 24\] bytes"):
            list(read(tmp_path / "a.parquet", Layout.of({**EXACT, **changed}), D))
    write(tmp_path / "b.parquet", [([1, 2, 3], [bytes(24)], [bytes(8)])])
    with pytest.raises(DataError, match="1 positions"):
        list(read(tmp_path / "b.parquet", Layout.of(EXACT), D))
    pyarrow.parquet.write_table(pyarrow.table({"input_ids": [[1]], "coeffs": [[1.0]]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="bytepacked_indices, compressed_logprobs"):
        list(read(tmp_path / "c.parquet", Layout.of(EXACT), D))
    for wrong in ({"d": D}, {**EXACT, "exact_k": 7}, {**EXACT, "exact_dtype": "int8"}):
        with pytest.raises(ConfigError, match="logprob_compressor"):
            Layout.of(wrong)
