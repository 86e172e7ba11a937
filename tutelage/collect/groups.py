"""Near-duplicate groups of texts: MinHash candidates (rensa), checked by exact Jaccard, joined into clusters."""

import re
from collections.abc import Sequence
from itertools import pairwise

THRESHOLD = 0.6  # Jaccard of word and word-pair sets at which two texts count as the same
_PERMUTATIONS, _BANDS = 128, 32


def features(text: str) -> set[str]:
    """Lower-case words and neighbouring word pairs."""
    words = re.findall(r"\w+", text.casefold())
    return {*words, *(f"{first} {second}" for first, second in pairwise(words))} or {text}


def jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)


def group_of_each(texts: Sequence[str]) -> list[int]:
    """For each text the position of the first text of its group. Texts whose features overlap by at least
    `THRESHOLD` share a group, directly or through others."""
    from rensa import RMinHash, RMinHashLSH

    sets = [features(text) for text in texts]
    lsh = RMinHashLSH(threshold=THRESHOLD, num_perm=_PERMUTATIONS, num_bands=_BANDS)
    parent = list(range(len(texts)))

    def find(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for at, found in enumerate(sets):
        sketch = RMinHash(num_perm=_PERMUTATIONS, seed=1)
        sketch.update(sorted(found))
        for other in lsh.query(sketch):
            if jaccard(found, sets[other]) >= THRESHOLD:
                first, second = sorted((find(at), find(other)))
                parent[second] = first
        lsh.insert(at, sketch)
    return [find(at) for at in range(len(texts))]
