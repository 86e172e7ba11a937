"""Losses by name, as run files write them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from tutelage.errors import ConfigError
from tutelage.losses import adaptive, alm, contrast, divergence, preference, sampled, sparse, supervised, topk
from tutelage.losses.base import Loss
from tutelage.losses.inplace import in_place
from tutelage.losses.joint import on_logits
from tutelage.losses.ranked import Matched, Ranked, gold, uld
from tutelage.signals import Dense, Scored, Signal, Sparse, Text, TopK


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number a loss may be given: between `low` and `high`, which themselves are refused where `open_ends`. `fix` says what
    to do about another."""

    low: float
    high: float
    default: float
    fix: str
    open_ends: bool = False

    def holds(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            return False
        return self.low < value < self.high if self.open_ends else self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Entry:
    """A loss with its parameters open: `value`, `kernel` and `joint` take them by name; `buffers` is what the kernel works in.
    `joint` is of a loss that ties positions together (`Loss.joint`)."""

    takes: type[Signal]
    value: Callable[..., torch.Tensor]
    kernel: Callable[..., torch.Tensor] | None = None
    buffers: int = 0
    parameters: dict[str, Parameter] = field(default_factory=dict)
    joint: Callable[..., torch.Tensor] | None = None


BETA = Parameter(
    0.0,
    1.0,
    0.5,
    "give 0 < beta < 1; the ends are other losses on another scale: forward-kl for 0, reverse-kl for 1",
    True,
)
SKEW = Parameter(0.0, 1.0, 0.1, "give 0 < alpha < 1, 0.1 as published; for 0 use forward-kl", True)
SKEW_REVERSE = Parameter(0.0, 1.0, 0.1, "give 0 < alpha < 1, 0.1 as published; for 0 use reverse-kl", True)
CONTRAST = Parameter(
    1.0, 2.0, 1.5, "give 1 ≤ beta ≤ 2, 1.5 as published: what the student's own text weighs in the end"
)
HEAD = Parameter(0.0, 1.0, 0.5, "give 0 < head < 1, 0.5 as published: the mass of the teacher's likeliest tokens", True)
SURE = Parameter(0.0, 100.0, 0.8, "give threshold_nats from 0, where both divergences count everywhere")
INTERPOLATION = Parameter(0.0, 1.0, 0.4, "give 0 ≤ t ≤ 1: 0 is the student itself, 1 the teacher")
LEAST_TAIL = Parameter(0.0, 1.0, topk.LEAST_TAIL, "give 0 < least_tail < 1, the smallest tail mass to believe", True)
BASELINE = Parameter(-1e6, 1e6, 0.0, "give the mean of log p − log q, or 0 for none")
DPO_BETA = Parameter(0.0, 1e3, 0.1, "give beta above 0: how far the student may go from where it began", True)
TAU = Parameter(
    0.0, 1e6, 100.0, "give tau above 0, 100 as published: probabilities of chunks are taken to the power 1/tau", True
)
RATIO_LOW = Parameter(0.0, 1.0, 0.5, "give 0 ≤ ratio_low ≤ 1; 0 keeps every position")
RATIO_HIGH = Parameter(1.0, math.inf, 2.0, "give ratio_high ≥ 1; inf keeps every position")

ENTRIES = {
    "forward-kl": Entry(Dense, divergence.forward_kl, divergence.forward_kl_kernel, 2),
    "reverse-kl": Entry(Dense, divergence.reverse_kl, divergence.reverse_kl_kernel, 2),
    "jsd": Entry(Dense, divergence.jsd, divergence.jsd_kernel, 4, {"beta": BETA}),
    "skew-kl": Entry(Dense, divergence.skew_kl, parameters={"alpha": SKEW}),
    "skew-reverse-kl": Entry(Dense, divergence.skew_reverse_kl, parameters={"alpha": SKEW_REVERSE}),
    "distillm-2": Entry(Dense, contrast.distillm_2, parameters={"alpha": SKEW, "beta": CONTRAST}),
    "adaptive-kl": Entry(Dense, adaptive.adaptive_kl, parameters={"head": HEAD}),
    "entropy-aware-kl": Entry(Dense, adaptive.entropy_aware_kl, parameters={"threshold_nats": SURE}),
    "taid": Entry(Dense, adaptive.taid, parameters={"t": INTERPOLATION}),
    "total-variation": Entry(Dense, divergence.total_variation),
    "top-k-forward-kl": Entry(TopK, topk.forward_kl_top_k, topk.forward_kl_top_k_kernel),
    "top-k-reverse-kl": Entry(
        TopK, topk.reverse_kl_top_k, topk.reverse_kl_top_k_kernel, parameters={"least_tail": LEAST_TAIL}
    ),
    "sparse-forward-kl": Entry(Sparse, sparse.sparse_forward_kl, sparse.sparse_forward_kl_kernel),
    "cross-entropy": Entry(Text, supervised.cross_entropy, supervised.cross_entropy_kernel),
    "sampled-reverse-kl": Entry(
        Scored,
        sampled.sampled_reverse_kl,
        sampled.sampled_reverse_kl_kernel,
        parameters={"baseline": BASELINE, "ratio_low": RATIO_LOW, "ratio_high": RATIO_HIGH},
    ),
    "alm": Entry(alm.Chunks, on_logits(alm.alm), joint=alm.alm, parameters={"tau": TAU}),
    "uld": Entry(Ranked, uld),
    "gold": Entry(Matched, gold, parameters={"beta": BETA}),
    "dpo": Entry(preference.Pairs, on_logits(preference.dpo), joint=preference.dpo, parameters={"beta": DPO_BETA}),
}


def names() -> tuple[str, ...]:
    """All losses, in the order of the catalogue."""
    return tuple(ENTRIES)


def make(name: str, **parameters: float) -> Loss:
    """The loss of that name, with the parameters that were left out at their published values. Its own name says them:
    `jsd(beta=0.5)`.

    Raises `ConfigError` for an unknown name or parameter, and for a value out of range.
    """
    entry = ENTRIES.get(name)
    if entry is None:
        raise ConfigError(f"there is no loss called {name!r}", fix=f"choose one of {', '.join(names())}")
    for key, value in parameters.items():
        known = entry.parameters.get(key)
        if known is None:
            takes = f"takes {', '.join(entry.parameters)}" if entry.parameters else "takes no parameters"
            raise ConfigError(f"{name} has no parameter {key!r} (given {value!r})", fix=f"leave it out: {name} {takes}")
        if not known.holds(value):
            raise ConfigError(f"{name}: {key} = {value!r} is out of range", fix=known.fix)
    given = {key: parameters.get(key, known.default) for key, known in entry.parameters.items()}
    kernel = entry.kernel
    if kernel is not None and given:
        kernel = partial(kernel, **given)
    written = f"({', '.join(f'{key}={value:g}' for key, value in given.items())})" if given else ""
    return Loss(
        name + written,
        entry.takes,
        partial(entry.value, **given) if given else entry.value,
        None if kernel is None else in_place(kernel, entry.buffers),
        partial(entry.joint, **given) if entry.joint and given else entry.joint,
    )
