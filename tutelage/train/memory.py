"""Steps that fit into memory: a step that does not is taken again in smaller passes, with the same result."""

import gc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch

from tutelage.errors import ResourceError
from tutelage.hardware import free_memory
from tutelage.jsonl import writing
from tutelage.models.causal import Causal

T = TypeVar("T")

TRIED = 64  # tokens of the pass that is measured
SHARE = 0.7  # of free memory that one step may take
ROOM = "room"  # the file's name, before the number of the rank

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "defaultcpuallocator")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


class Fit:
    """How many tokens one forward pass may read: `limit`, None for as many as a step has. `room`: tokens for which there is
    memory; a step of more sets the limit to it beforehand, since a CPU's system kills instead of refusing."""

    def __init__(self, limit: int | None, room: int | None = None) -> None:
        self.limit, self._room = limit, room

    def run(self, attempt: Callable[[int | None], T], undo: Callable[[], None], row_tokens: Iterable[int]) -> T:
        """`attempt(limit)`, again with half the tokens for as long as memory runs out; `undo` clears what a failed one left.

        Raises `ResourceError` when the longest row does not fit alone.
        """
        row_tokens = list(row_tokens)
        if self.limit is None and self._room is not None and sum(row_tokens) > self._room:
            self.limit = max(self._room, *row_tokens)
        while True:
            try:
                return attempt(self.limit)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            undo()  # outside the handler: the error holds on to the tensors of its frames
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            held = min(self.limit or sum(row_tokens), sum(row_tokens))
            if held <= max(row_tokens):
                raise ResourceError(
                    f"memory runs out on one row of {max(row_tokens)} tokens",
                    fix="lower the longest row, choose a smaller student, or train adapters (student.lora)",
                )
            self.limit = max(held // 2, *row_tokens)


def kept_bytes(student: Causal) -> float:
    """What one token of a forward pass keeps until its gradient is taken, in bytes: counted on a short pass, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in student.model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    size = min(TRIED, student.limit)
    held = []  # nothing is freed, so no address is counted twice
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: held.append(tensor) or count(tensor), lambda tensor: tensor
    ):
        student.hidden(torch.zeros(size, dtype=torch.long, device=student.device), [size])
    return sum(kept.values()) / size


def kept_room(path: Path, student: Causal) -> int:
    """`room_tokens` when training began, measured once and kept at `path`: what is gone on with splits its steps alike, and ends
    at the same bits. Measured anew where that is more than all that is free now; then both are kept."""
    now, before = room_tokens(student), _rooms(path)
    if before and SHARE * before[0] <= now:
        return before[0]
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(str, [*before, now])))
    return now


def room_in(work: Path) -> int:
    """What `kept_room` keeps in the loop's folder; 0 where nothing was measured, or steps were split in more ways than one."""
    rooms = _rooms(work / f"{ROOM}-0")
    return rooms[0] if len(rooms) == 1 else 0


def _rooms(path: Path) -> list[int]:
    try:
        return [int(line) for line in path.read_text().split()]
    except (OSError, ValueError):
        return []


def room_tokens(student: Causal) -> int:
    """Tokens of a forward pass for which there is memory beside gradients and AdamW's two moments."""
    trained = sum(parameter.numel() for parameter in student.model.parameters() if parameter.requires_grad)
    on_card = student.device.type == "cuda"
    free = torch.cuda.mem_get_info(student.device)[0] if on_card else free_memory()
    return max(1, int((SHARE * free - 12 * trained) / max(1.0, kept_bytes(student))))
