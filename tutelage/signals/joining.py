"""Rows of one type of signal, one after another: wider lists of ids decide the width."""

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TypeVar

import torch

from tutelage.signals.types import Hidden, Signal

S = TypeVar("S", bound=Signal)
_PADDING = {"logp_NK": -math.inf}


def joined(signals: Sequence[S]) -> S:
    """All rows in order, at least one signal. Hidden states must come from one head."""
    first = signals[0]
    if isinstance(first, Hidden):
        assert all(isinstance(one, Hidden) and one.head is first.head for one in signals)
    columns = {}
    for field in fields(first):
        parts = [getattr(one, field.name) for one in signals]
        if not isinstance(parts[0], torch.Tensor):
            continue
        if field.name.endswith("NK"):
            width = max(part.shape[1] for part in parts)
            fill = _PADDING.get(field.name, 0)
            parts = [torch.nn.functional.pad(part, (0, width - part.shape[1]), value=fill) for part in parts]
        columns[field.name] = torch.cat(parts)
    return replace(first, **columns)
