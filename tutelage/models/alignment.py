"""Two tokenizers on one text: what each spells, and the smallest pieces that both spell in whole tokens. No torch."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from tutelage.models.tokens import TokenBytes


class Chunk(NamedTuple):
    """Places of the tokens that spell the same bytes: `left_start` up to `left_stop` of one sequence, and of the other."""

    left_start: int
    left_stop: int
    right_start: int
    right_stop: int


def align(left: Sequence[bytes], right: Sequence[bytes]) -> tuple[Chunk, ...]:
    """The finest chunks of two token sequences, each token given by its bytes: a chunk ends wherever a token ends in both (the
    greedy alignment of Minixhofer et al. 2025, ALM, arXiv 2503.20083, §3.1).

    Where the bytes of both are the same, the chunks are a partition of both; otherwise they end with the last one before the
    first byte that differs. Tokens without bytes belong to the chunk before them, the first ones to the first.
    """
    said = b"".join(left), b"".join(right)
    same = next((at for at, (one, other) in enumerate(zip(*said, strict=False)) if one != other), min(map(len, said)))
    ends = [list(accumulate(map(len, tokens))) for tokens in (left, right)]
    found, at = list[Chunk](), (0, 0)
    for end in sorted({*ends[0]} & {*ends[1]} - {0}):
        if end > same:
            break
        stop = (bisect_right(ends[0], end), bisect_right(ends[1], end))
        found.append(Chunk(at[0], stop[0], at[1], stop[1]))
        at = stop
    return tuple(found)


class Spelled(NamedTuple):
    """A text as tokens and the bytes of each, up to the first special token (`whole`: there is none, and joined they are the
    text's bytes)."""

    ids: tuple[int, ...]
    pieces: tuple[bytes, ...]
    whole: bool


class Speller:
    """Text of a tokenizer's tokens and tokens of a text, both by their bytes.

    Special tokens have none, whatever they are called: `<eos>` in a text is five letters. Raises `ResourceError` when the
    tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._spelled = tokenizer, TokenBytes(tokenizer)
        added = tokenizer.added_tokens_decoder.items()
        self._special = frozenset(tokenizer.all_special_ids) | {at for at, token in added if token.special}

    def pieces(self, ids: Iterable[int]) -> tuple[bytes, ...]:
        """The bytes of each token, up to the first special one."""
        found = []
        for token in ids:
            if token in self._special:
                break
            found.append(self._spelled[token])
        return tuple(found)

    def spell(self, text: str) -> Spelled:
        """As it would stand after a prompt: without a token that begins a text. The space that some tokenizers put before a text
        is no part of its first token."""
        ids = tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        pieces = self.pieces(ids)
        said = text.encode()
        if self._spelled.strips_first_space and b"".join(pieces) != said and pieces[:1] and pieces[0][:1] == b" ":
            pieces = (pieces[0][1:], *pieces[1:])
        return Spelled(ids[: len(pieces)], pieces, len(pieces) == len(ids) and b"".join(pieces) == said)


def text_of(pieces: Sequence[bytes]) -> str:
    """The text of tokens as far as it is UTF-8: a character of which bytes are missing ends it."""
    said = b"".join(pieces)
    try:
        return said.decode()
    except UnicodeDecodeError as error:
        return said[: error.start].decode()
