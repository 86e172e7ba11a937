"""Several processes on one step: each takes some of the rows, and gradients are added up.

Nothing is wrapped: every rank divides by the step's own count of loss tokens, so the sum over ranks is the gradient of one
process, however uneven the shares (averaging over ranks would not be). Needs `torch.distributed` to be initialised, as
`torchrun` and `init_process_group` do; a single process otherwise.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist


def world() -> tuple[int, int]:
    """This process's rank and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def share(rows: Sequence[int]) -> tuple[int, ...]:
    """This rank's rows: every n-th, so that rows sorted by length are dealt evenly."""
    rank, size = world()
    return tuple(rows[rank::size])


def add_up(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Sums each gradient over the ranks, in place; a rank without one takes part with zeros."""
    if world()[1] == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


def total(*counts: float) -> list[float]:
    """Each count summed over the ranks."""
    if world()[1] == 1:
        return list(counts)
    values = torch.tensor(counts, dtype=torch.float64)
    dist.all_reduce(values)
    return values.tolist()
