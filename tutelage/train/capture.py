"""Filling the cache of teacher signals: every example once, thinned as its kind says, before the first step.

Shape legend: T tokens, N loss positions, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch

from tutelage.errors import ConfigError, Interrupted
from tutelage.losses.chunked import chunk_rows
from tutelage.models.causal import Causal
from tutelage.progress import Progress, Stop
from tutelage.signals import Dense, Head, Hidden, Signal
from tutelage.signals.joining import joined
from tutelage.signals.thin import expected, random_draws, seeded, threshold, top_k
from tutelage.store.signal_kinds import Draws, Full, HiddenStates, Kind, Threshold, TopKTail
from tutelage.store.signals import SignalWriter, estimate_bytes
from tutelage.train.batch import split, starts
from tutelage.train.examples import Example

PASS_TOKENS = 4096
LOOKED_AT = 256  # positions that the size is estimated from


def thinner(kind: Kind) -> Callable[[Dense, torch.Generator], Signal]:
    """What turns a distribution into the kind's signal."""
    if isinstance(kind, Threshold):
        return lambda dense, draw: threshold(dense.logp_NV, kind.c, draw)
    if isinstance(kind, Draws):
        return lambda dense, draw: random_draws(dense.logp_NV, kind.draws, draw)
    if isinstance(kind, TopKTail):
        return lambda dense, draw: top_k(dense.logp_NV, kind.k)
    if isinstance(kind, Full):
        return lambda dense, draw: dense
    raise ConfigError(
        f"{kind.name} signals are not captured from weights",
        fix="use threshold, top-k, random, dense or hidden",
    )


@torch.no_grad()
def capture(
    examples: Sequence[Example], teacher: Causal, columns: int, writer: SignalWriter, progress: Progress, seed: int = 0,
    stop: Stop | None = None,
) -> None:  # fmt: skip
    """Adds every example's signal that the cache does not hold. What is drawn depends on the sequence and `seed` alone, so
    that an interrupted capture ends in the same rows. `columns`: tokens of the tokenizer. Raises `Interrupted` when `stop`
    is set; what was captured is kept."""
    kind, head = writer.identity.kind, teacher.head(columns)
    missing = [at for at, example in enumerate(examples) if torch.tensor(example.ids) not in writer]
    progress.begin("asking the teacher for signals, sequences", len(examples), len(examples) - len(missing))
    tokens, done = {at: len(examples[at].ids) for at in missing}, len(examples) - len(missing)
    teacher.model.eval()
    for rows in split(missing, tokens, PASS_TOKENS):
        chosen = [examples[row] for row in rows]
        for example, hidden_TD in zip(chosen, _hidden(chosen, teacher), strict=True):
            at_N = torch.tensor(example.targets) - 1
            signal = _signal(kind, hidden_TD[at_N], head, seeded(example.key, seed))
            writer.add(torch.tensor(example.ids), at_N, signal)
        done += len(rows)
        progress.advance(done, tokens=sum(tokens[row] for row in rows))
        if stop:
            writer.flush()
            raise Interrupted
    writer.flush()
    progress.end()


@torch.no_grad()
def size_of(examples: Sequence[Example], teacher: Causal, columns: int, kind: Kind) -> int:
    """Bytes that a capture will take, from a look at the first examples: to be said before it begins."""
    positions = sum(len(example.targets) for example in examples)
    if isinstance(kind, Threshold | Draws):
        looked, found = 0, 0.0
        for example, hidden_TD in ((one, _hidden([one], teacher)[0]) for one in examples):
            logp_NV = Hidden(hidden_TD[torch.tensor(example.targets) - 1], teacher.head(columns)).dense().logp_NV
            c = kind.c if isinstance(kind, Threshold) else 1 / kind.draws
            found += float(expected(logp_NV, c).ids_N.sum())
            looked += len(logp_NV)
            if looked >= LOOKED_AT:
                break
        return estimate_bytes(kind, positions, columns, found / looked)
    ids = float(kind.k) if isinstance(kind, TopKTail) else None
    return estimate_bytes(kind, positions, columns, ids)


def _hidden(examples: Sequence[Example], teacher: Causal) -> list[torch.Tensor]:
    lengths = [len(example.ids) for example in examples]
    ids_T = torch.tensor([token for example in examples for token in example.ids], device=teacher.device)
    hidden_TD = teacher.hidden(ids_T, lengths)
    return [hidden_TD[at : at + length] for at, length in zip(starts(lengths), lengths, strict=True)]


def _signal(kind: Kind, hidden_ND: torch.Tensor, head: Head, draw: torch.Generator) -> Signal:
    if isinstance(kind, HiddenStates):
        return Hidden(hidden_ND, head)
    thin, rows = thinner(kind), chunk_rows(head.weight_VD.shape[0])
    pieces = [Hidden(part_ND, head).dense() for part_ND in hidden_ND.split(rows)]
    return joined([thin(piece, draw) for piece in pieces])
