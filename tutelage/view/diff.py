"""Which words two texts share."""

import difflib
import re
from typing import NamedTuple

MOST_WORDS = 2000  # of either text: the comparison's time grows with their product


class Piece(NamedTuple):
    """A stretch of one text; `is_shared` when the other has it in the same place."""

    text: str
    is_shared: bool


class Diff(NamedTuple):
    """Both texts, whole, in stretches. `is_compared` is False for texts of more than `MOST_WORDS` words."""

    left: tuple[Piece, ...]
    right: tuple[Piece, ...]
    is_compared: bool


def word_diff(left: str, right: str) -> Diff:
    """The texts cut at white space and punctuation; joined again, the pieces of each side are the text itself."""
    a, b = _words(left), _words(right)
    if max(len(a), len(b)) > MOST_WORDS:
        return Diff((Piece(left, False),), (Piece(right, False),), False)
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    for tag, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        for side, words in zip(pieces, (a[a0:a1], b[b0:b1]), strict=True):
            if words:
                side.append(Piece("".join(words), tag == "equal"))
    return Diff(tuple(pieces[0]), tuple(pieces[1]), True)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|\s+|[^\w\s]", text)
