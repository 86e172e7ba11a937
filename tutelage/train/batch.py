"""What one forward pass is trained on: documents packed into a row, and what is to be learnt at which positions.

Shape legend: T tokens of the packed row, N loss positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from tutelage.losses.chunked import Part


class Drawn(NamedTuple):
    """Tokens that the student drew, one a position, and the natural logs that its writer drew them with."""

    ids_N: torch.Tensor
    logp_N: torch.Tensor


class Focus(NamedTuple):
    """What share of each answer's positions is learnt (`train.focus`), and how many positions each answer has, in order."""

    share: float
    sizes: tuple[int, ...]


class Term(NamedTuple):
    """Losses on a set of positions. `positions_N` are places in the packed row whose output predicts what the parts' signals
    describe: the shift by one between what is read and what is predicted is made where batches are. `drawn` is what stands
    there, where the student wrote it. With a `focus` some of the positions are chosen once the student has read the batch."""

    positions_N: torch.Tensor
    parts: tuple[Part, ...]
    drawn: Drawn | None = None
    focus: Focus | None = None


class Batch(NamedTuple):
    """`ids_T` holds documents of `lengths` tokens one after another; `rows` says which examples they are.

    `loss_tokens` counts the positions that carry a loss by role. It is counted where the positions are made, and the same
    integers are the optimizer's denominator, the ledger's and the report's.
    """

    ids_T: torch.Tensor
    lengths: tuple[int, ...]
    terms: tuple[Term, ...]
    loss_tokens: Mapping[str, int]
    rows: tuple[int, ...]

    @property
    def positions(self) -> int:
        return sum(len(term.positions_N) for term in self.terms)


def starts(lengths: Sequence[int]) -> list[int]:
    """Where each document begins in the packed row."""
    found, at = [], 0
    for length in lengths:
        found.append(at)
        at += length
    return found


def split(rows: Sequence[int], tokens: Mapping[int, int], limit: int | None) -> Iterator[tuple[int, ...]]:
    """Rows in their order, in runs of at most `limit` tokens; a row that is longer stands alone. All at once for None."""
    run: list[int] = []
    held = 0
    for row in rows:
        if run and limit is not None and held + tokens[row] > limit:
            yield tuple(run)
            run, held = [], 0
        run.append(row)
        held += tokens[row]
    if run:
        yield tuple(run)
