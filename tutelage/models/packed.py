"""Attention inside each document of a packed row, as an attention function of transformers' registry.

A packed row holds documents one after another without padding. Each attends to itself alone and causally, so that what is
packed beside it never matters. Legend: H heads, T tokens of the row, E width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "tutelage_packed"
_packing = ContextVar("packing", default=False)


def packed_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, *,
    document_lengths: tuple[int, ...] | None = None, scaling: float | None = None, dropout: float = 0.0,
    sliding_window: int | None = None, softcap: float | None = None, s_aux: Any = None, **others: Any,
) -> tuple[torch.Tensor, Any]:  # fmt: skip
    """`query` [1, H, T, E], `key` and `value` with as many or fewer heads; returns [1, T, H, E]. Without `document_lengths` the
    model is used as usual (to generate, for instance), and its usual attention computes it.

    Raises `NotImplementedError` for what it does not compute (a bounded score, attention sinks), so that the caller pads
    instead.
    """
    if document_lengths is None:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            sliding_window=sliding_window,
            **others,
        )
    if softcap or s_aux is not None:
        raise NotImplementedError("bounded attention scores or sinks")
    found, start = [], 0
    for length in document_lengths:
        part = slice(start, start + length)
        start += length
        found.append(
            torch.nn.functional.scaled_dot_product_attention(
                query[:, :, part],
                key[:, :, part],
                value[:, :, part],
                attn_mask=_window(length, sliding_window, query.device),
                dropout_p=dropout,
                is_causal=not sliding_window or length <= sliding_window,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat(found, dim=2).transpose(1, 2), None


def _window(length: int, size: int | None, device: torch.device) -> torch.Tensor | None:
    """True where a token may look: itself and the `size` − 1 before it."""
    if not size or length <= size:
        return None
    at_T = torch.arange(length, device=device)
    back_TT = at_T[:, None] - at_T[None, :]
    return (back_TT >= 0) & (back_TT < size)


@contextmanager
def packing() -> Iterator[None]:
    """Inside, no attention mask is made: the lengths of the documents say all."""
    token = _packing.set(True)
    try:
        yield
    finally:
        _packing.reset(token)


def _mask(*given: Any, **named: Any) -> torch.Tensor | None:
    return None if _packing.get() else sdpa_mask(*given, **named)


def register() -> str:
    """Makes both functions known to transformers; returns the name for `attn_implementation`."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _mask)
    return NAME
