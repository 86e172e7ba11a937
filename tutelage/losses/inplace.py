"""Derivatives by the logits in closed form, written over the logits a few rows at a time.

A loss over a large vocabulary is a handful of passes over [N, V], each bound by memory. Done on a few rows at a time, all but
the first of them find their numbers in the processor's cache, and the intermediate results share a few small buffers:
fresh memory costs more than the arithmetic.

Shape legend: N positions (of a block, inside a kernel), V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch

from tutelage.losses.base import WithGradient, at_least_float32

CACHE_BYTES = 1 << 20
"""Rows are taken until each core has this much of one buffer: few enough to stay near the core, many enough that the threads
seldom wait for each other."""

LOG_ZERO = -1e30
"""A finite stand-in for log 0: its exponential is exactly 0 and two of them differ by 0, so that 0 log 0 = 0 without a mask. A
logarithm that is NaN stays NaN."""

Kernel = Callable[[torch.Tensor, Any, list[torch.Tensor]], torch.Tensor]
"""`kernel(logits_NV, signal, buffers) -> nats_N`: overwrites the logits (float32 or float64) with the derivative of each row's
value by them, and may use the buffers, each as large as the logits, as it likes."""


def in_place(kernel: Kernel, buffers: int = 0) -> Callable[[torch.Tensor, Any], WithGradient]:
    """A `Loss.gradient` out of a kernel for a block of rows. Logits of float32 and float64 are overwritten, logits of a smaller
    type are copied to float32 first. On a processor, kernels with buffers work block by block; else all rows are taken at
    once."""

    @torch.no_grad()
    def gradient(logits_NV: torch.Tensor, signal: Any) -> WithGradient:
        work_NV = at_least_float32(logits_NV.detach())
        rows = block_rows(work_NV) if buffers else max(1, len(work_NV))
        scratch = [torch.empty_like(work_NV[:rows]) for _ in range(buffers)]
        nats_N = work_NV.new_empty(len(work_NV))
        for start in range(0, len(work_NV), rows):
            block_NV = work_NV[start : start + rows]
            fitting = [buffer_NV[: len(block_NV)] for buffer_NV in scratch]
            nats_N[start : start + rows] = kernel(block_NV, signal.rows(slice(start, start + rows)), fitting)
        return WithGradient(nats_N, work_NV)

    return gradient


def block_rows(work_NV: torch.Tensor) -> int:
    """How many rows a block has: a whole number for each thread."""
    if work_NV.device.type != "cpu":
        return max(1, len(work_NV))
    row_bytes = max(1, work_NV.shape[1] * work_NV.element_size())
    return max(1, CACHE_BYTES // row_bytes) * torch.get_num_threads()


def log_softmax_(logits_NV: torch.Tensor) -> torch.Tensor:
    """Logits become log-probabilities, in their own memory."""
    return torch.log_softmax(logits_NV, -1, out=logits_NV)
