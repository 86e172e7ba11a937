"""Several processes on one step: each takes some of the rows, and gradients are added up.

Nothing is wrapped: every rank divides by the step's own count of loss tokens, so the sum over ranks is the gradient of one
process, however uneven the shares (averaging over ranks would not be). Needs `torch.distributed` to be initialised, as
`torchrun` and `init_process_group` do; a single process otherwise.
"""

from collections.abc import Iterable, Mapping, Sequence

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


def total(*counts: float, device: torch.device | None = None) -> list[float]:
    """Each count summed over the ranks. `device`: where this rank's tensors are, as its backend wants them."""
    if world()[1] == 1:
        return list(counts)
    values = torch.tensor(counts, dtype=torch.float64, device=device)
    dist.all_reduce(values)
    return values.tolist()


def totals(counts: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Counts by name summed over the ranks, also of names that some ranks have not."""
    if world()[1] == 1:
        return dict(counts)
    named: list[list[str]] = [[] for _ in range(world()[1])]
    dist.all_gather_object(named, sorted(counts))
    names = sorted({name for one in named for name in one})
    return dict(zip(names, total(*(counts.get(name, 0) for name in names), device=device), strict=True))


def writes() -> bool:
    """Whether this rank is the one that writes files and the journal."""
    return world()[0] == 0


def wait() -> None:
    """Until all ranks are here: what one has written the others may read."""
    if world()[1] > 1:
        dist.barrier()
