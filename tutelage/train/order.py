"""In which order examples are stepped on: seeded, every one once an epoch, like lengths together."""

import random
from collections.abc import Sequence

POOL_BATCHES = 16


def epoch_order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Batches of row numbers: shuffled, sorted by length inside pools of `POOL_BATCHES` batches, batches shuffled.

    Every row comes exactly once; the last batch may be smaller.
    """
    shuffle = random.Random(f"{seed}:{epoch}")
    order = list(range(len(lengths)))
    shuffle.shuffle(order)
    batches = []
    for start in range(0, len(order), batch_size * POOL_BATCHES):
        pool = sorted(order[start : start + batch_size * POOL_BATCHES], key=lambda at: (lengths[at], at))
        batches += [tuple(pool[at : at + batch_size]) for at in range(0, len(pool), batch_size)]
    shuffle.shuffle(batches)
    return batches
