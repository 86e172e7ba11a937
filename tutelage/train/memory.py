"""Steps that fit into memory: a step that does not is taken again in smaller passes, with the same result."""

import gc
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

from tutelage.errors import ResourceError

T = TypeVar("T")

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "defaultcpuallocator")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


class Fit:
    """How many tokens one forward pass may read: `limit`, None for as many as a step has."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit

    def run(self, attempt: Callable[[int | None], T], undo: Callable[[], None], row_tokens: Iterable[int]) -> T:
        """`attempt(limit)`, again with half the tokens for as long as memory runs out; `undo` clears what a failed one left.

        Raises `ResourceError` when the longest row does not fit alone.
        """
        row_tokens = list(row_tokens)
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
