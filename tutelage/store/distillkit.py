"""Reading DistillKit's captured top-k log-probabilities (arcee-ai/DistillKit, `distillkit/compression`) as `TopK` rows.

A row of its parquet files is a text: `input_ids` [T], `compressed_logprobs` [T−1, bytes] and `bytepacked_indices` [T−1, bytes].
Row t speaks of the token at t + 1. What the bytes mean stands in the settings it was captured with (`Layout`), not in the file.

Slots it never filled hold whatever memory held: an id that means nothing at −inf, which its curve fit can spread over the
whole row as NaN. Such slots go, and so do ids beyond the vocabulary and ids that come twice; their mass goes into the tail.

Shape legend: N positions, K slots, P terms, B bytes.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutelage.errors import ConfigError, DataError
from tutelage.signals import TopK

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
_OVER_ONE = 0.05  # nats above 0 that rounding may leave; beyond, a slot is garbage


class Bin(NamedTuple):
    """Residuals of some slots: `elements` integers of `bits` bits, and their scale in `scale_dtype`."""

    scale_dtype: torch.dtype
    bits: int
    elements: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The settings of `logprob_compressor` that say how a capture is laid out: vocabulary `d`, `k` slots of which `exact_k` are
    stored in `exact_dtype`, the others as a sum of `terms` over their number with coefficients in `term_dtype`, plus residuals.
    """

    d: int
    k: int
    exact_k: int
    exact_dtype: torch.dtype
    terms: tuple[int | str, ...]
    term_dtype: torch.dtype
    bins: tuple[Bin, ...]
    delta_encoding: bool
    normalize_t: bool

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Layout":
        """From the mapping in a DistillKit YAML file, with its defaults. Raises `ConfigError` for what it cannot be."""
        try:
            found = cls(
                settings["d"],
                settings["k"],
                settings["exact_k"],
                _DTYPES[settings.get("exact_dtype", "float32")],
                tuple(settings.get("polynomial_terms") or ()),
                _DTYPES[settings.get("term_dtype", "float32")],
                tuple(
                    Bin(_DTYPES[each["scale_dtype"]], each["element_bits"], each["num_elements"])
                    for each in settings["residual_bins"]
                ),
                settings.get("delta_encoding", True),
                settings.get("normalize_t", False),
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"logprob_compressor has no usable {error}", fix="copy the settings from the capture's own YAML file"
            ) from error
        fitted = found.k - found.exact_k
        if not 0 <= found.exact_k <= found.k or sum(each.elements for each in found.bins) > fitted:
            raise ConfigError(
                f"logprob_compressor: exact_k {found.exact_k} and {len(found.bins)} residual bins do not fit k {found.k}",
                fix="copy the settings from the capture's own YAML file",
            )
        return found

    @property
    def index_bits(self) -> int:
        """Bits of a packed id."""
        return max(1, math.ceil(math.log2(self.d)))

    @property
    def logprob_bytes(self) -> int:
        """Bytes of a position's log-probabilities."""
        size = self.exact_k * self.exact_dtype.itemsize + len(self.terms) * self.term_dtype.itemsize
        return size + sum(each.scale_dtype.itemsize + -(-each.bits * each.elements // 8) for each in self.bins)

    @property
    def index_bytes(self) -> int:
        """Bytes of a position's ids."""
        return -(-self.k * self.index_bits // 8)


class Imported(NamedTuple):
    """One text: its ids, the positions that have rows, the rows, and how many slots were dropped as garbage."""

    ids_T: torch.Tensor
    positions_N: torch.Tensor
    signal: TopK
    dropped_slots: int


def read(path: Path, layout: Layout, vocabulary: int) -> Iterator[Imported]:
    """The texts of one parquet file, ids at or above `vocabulary` (the tokenizer's) dropped. Needs pyarrow.

    Raises `DataError`, naming the row, when its bytes do not fit the layout.
    """
    import pyarrow.parquet as parquet

    file, number = parquet.ParquetFile(path), 0
    absent = {"input_ids", "compressed_logprobs", "bytepacked_indices"} - set(file.schema_arrow.names)
    if absent:
        raise DataError(
            f"{path} has no column {', '.join(sorted(absent))}: not DistillKit's compressed log-probabilities",
            fix="capture with its sample_logits_vllm; its older formats are not read",
        )
    for batch in file.iter_batches(batch_size=16, columns=["input_ids", "compressed_logprobs", "bytepacked_indices"]):
        for row in batch.to_pylist():
            ids_T = torch.tensor(row["input_ids"], dtype=torch.int64)
            values, indices = row["compressed_logprobs"], row["bytepacked_indices"]
            sizes = {*map(len, values)} | {-size for size in map(len, indices)}
            rows = len(ids_T) - 1
            if sizes - {layout.logprob_bytes, -layout.index_bytes} or (len(values), len(indices)) != (rows, rows):
                raise DataError(
                    f"{path}, row {number}: {len(values)} positions of {sorted(map(abs, sizes))} bytes; {rows} of "
                    f"{layout.logprob_bytes} and {layout.index_bytes} expected",
                    fix="give the logprob_compressor settings that it was captured with",
                )
            logp_NK = log_probabilities(torch.tensor(values, dtype=torch.uint8).view(-1, layout.logprob_bytes), layout)
            packed_NB = torch.tensor(indices, dtype=torch.uint8).view(-1, layout.index_bytes)
            ids_NK = unpacked(packed_NB, layout.index_bits, layout.k)
            cleaned = clean(ids_NK, logp_NK, min(vocabulary, layout.d))
            dropped = int((cleaned.logp_NK == -math.inf).sum())
            yield Imported(ids_T, torch.arange(rows), cleaned, dropped)
            number += 1


def clean(ids_NK: torch.Tensor, logp_NK: torch.Tensor, vocabulary: int) -> TopK:
    """Slots that mean something, the others padded; what their mass lacks to 1 is the tail.

    Where rounding leaves the kept slots with more than 1 they are scaled to 1 and the tail is empty; a row without any
    slot is all tail.
    """
    good_NK = logp_NK.isfinite() & (logp_NK <= _OVER_ONE) & (ids_NK >= 0) & (ids_NK < vocabulary)
    order_NK = torch.where(good_NK, ids_NK, vocabulary).sort(dim=-1, stable=True).indices
    sorted_NK = ids_NK.gather(-1, order_NK)
    again_NK = torch.zeros_like(good_NK)
    again_NK[:, 1:] = (sorted_NK[:, 1:] == sorted_NK[:, :-1]) & good_NK.gather(-1, order_NK)[:, :-1]
    good_NK &= ~torch.zeros_like(good_NK).scatter(-1, order_NK, again_NK)
    p_NK = torch.where(good_NK, logp_NK.double(), -math.inf).exp()
    sum_N = p_NK.sum(-1)
    p_NK = p_NK / sum_N.clamp(min=1)[:, None]
    tail_N = (1 - sum_N).clamp(min=0).log()
    return TopK(torch.where(good_NK, ids_NK, 0), p_NK.log().float(), tail_N.float())


def log_probabilities(bytes_NB: torch.Tensor, layout: Layout) -> torch.Tensor:
    """[N, K] float32 natural logs of `compressed_logprobs`, as they stand: NaN and infinities where the capture has them."""
    at = 0

    def take(dtype: torch.dtype, count: int) -> torch.Tensor:
        nonlocal at
        part = bytes_NB[:, at : at + dtype.itemsize * count].clone(memory_format=torch.contiguous_format)  # aligned
        at += dtype.itemsize * count
        return part.view(dtype)

    exact_NK = take(layout.exact_dtype, layout.exact_k).float()
    fitted = layout.k - layout.exact_k
    rest_NK = torch.zeros(len(bytes_NB), fitted)
    if layout.terms:
        coefficients_NP = take(layout.term_dtype, len(layout.terms))
        terms_KP = _terms(layout, fitted)
        rest_NK += (
            (terms_KP * coefficients_NP[:, None, :]).sum(-1).float()
        )  # in their type: residuals were taken from that
    first = 0
    for each in layout.bins:
        scale_N1 = take(each.scale_dtype, 1).float()
        size = -(-each.bits * each.elements // 8)
        codes_NK = unpacked(bytes_NB[:, at : at + size], each.bits, each.elements)
        at += size
        levels_NK = 2 * codes_NK - 1 if each.bits == 1 else codes_NK - (1 << (each.bits - 1))
        rest_NK[:, first : first + each.elements] += levels_NK.float() * scale_N1
        first += each.elements
    logp_NK = torch.cat([exact_NK, rest_NK], -1)
    return logp_NK.cumsum(-1) if layout.delta_encoding else logp_NK


def unpacked(bytes_NB: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """`count` integers of `bits` bits, most significant bit first, without gaps; int64 [N, count]."""
    bits_NB8 = (bytes_NB[..., None].long() >> torch.arange(7, -1, -1)) & 1
    bits_NKb = bits_NB8.flatten(1)[:, : bits * count].reshape(len(bytes_NB), count, bits)
    return (bits_NKb << torch.arange(bits - 1, -1, -1)).sum(-1)


def _terms(layout: Layout, count: int) -> torch.Tensor:
    points = torch.linspace(0, 1, count) if layout.normalize_t else torch.arange(count)
    points = points.to(layout.term_dtype)
    named = {"sqrt": torch.sqrt, "exp": torch.exp}
    return torch.stack([points**term if isinstance(term, int) else named[term](points) for term in layout.terms], -1)
