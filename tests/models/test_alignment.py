"""Chunks partition both spellings of a text, and none could be finer; what a tokenizer changes ends them."""

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.tokenizers_for_tests import byte_tokenizer, metaspace, small_bpe
from tutelage.models.alignment import Chunk, Speller, align, text_of
from tutelage.models.tokens import TokenBytes
from tutelage.resources import GEMMA3, SMOLLM2, fetch

TOKENIZERS = {
    "bytes": byte_tokenizer(),
    "bpe": small_bpe(),
    "across spaces": small_bpe(330, split=False),
    "metaspace": metaspace(),
}
SPELLERS = {name: Speller(tokenizer) for name, tokenizer in TOKENIZERS.items()}
PIECES = st.sampled_from(
    ["the", " the", " cat", "s", "\n\n", "é", "日本", "🙂\u200d🔥", " 12", "<|im_end|>", "</turn>", "  ", "\t"]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(max_size=20).filter(lambda text: "▁" not in text))
SPELLINGS = st.lists(st.integers(0, 12), max_size=6)


def cut(said: bytes, places: list[int]) -> list[bytes]:
    """Tokens that end at these places; a place named twice makes a token without bytes."""
    ends = [0, *sorted(min(at, len(said)) for at in places), len(said)]
    return [said[start:stop] for start, stop in pairwise(ends)]


def require_finest(left: Any, right: Any, chunks: tuple[Chunk, ...]) -> None:
    for one in chunks:
        mine, other = left[one.left_start : one.left_stop], right[one.right_start : one.right_stop]
        assert b"".join(mine) == b"".join(other) != b""
        inner = [{len(b"".join(side[:at])) for at in range(1, len(side))} for side in (mine, other)]
        whole = len(b"".join(mine))
        assert not (inner[0] & inner[1]) - {0, whole}, "a finer chunk is there"
    for before, after in pairwise([Chunk(0, 0, 0, 0), *chunks]):
        assert (before.left_stop, before.right_stop) == (after.left_start, after.right_start)


@given(st.binary(min_size=1, max_size=12), SPELLINGS, SPELLINGS)
def test_chunks_partition_both_and_are_the_finest(said: bytes, one: list[int], other: list[int]) -> None:
    left, right = cut(said, one), cut(said, other)
    chunks = align(left, right)
    require_finest(left, right, chunks)
    assert (chunks[-1].left_stop, chunks[-1].right_stop) == (len(left), len(right))


@given(st.binary(max_size=8), st.binary(max_size=8), st.binary(max_size=8), SPELLINGS, SPELLINGS)
def test_chunks_end_before_the_first_byte_that_differs(
    same: bytes, mine: bytes, yours: bytes, one: list[int], other: list[int]
) -> None:
    left, right = cut(same + b"\x00" + mine, one), cut(same + b"\x01" + yours, other)
    chunks = align(left, right)
    require_finest(left, right, chunks)
    assert sum(len(piece) for piece in left[: chunks[-1].left_stop if chunks else 0]) <= len(same)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_texts_keep_their_bytes(name: str, text: str) -> None:
    spelled = SPELLERS[name].spell(text)
    assert spelled.whole, (text, spelled)
    assert text_of(spelled.pieces) == text
    same = align(spelled.pieces, spelled.pieces)
    if all(spelled.pieces):
        assert [tuple(one) for one in same] == [(at, at + 1, at, at + 1) for at in range(len(spelled.pieces))]


@pytest.mark.parametrize("pair", [("bytes", "bpe"), ("bpe", "metaspace"), ("metaspace", "across spaces")])
@given(TEXTS.filter(bool))
@settings(max_examples=60, deadline=None)
def test_any_two_tokenizers_are_aligned_on_any_text(pair: tuple[str, str], text: str) -> None:
    left, right = (SPELLERS[name].spell(text).pieces for name in pair)
    chunks = align(left, right)
    require_finest(left, right, chunks)
    assert (chunks[-1].left_stop, chunks[-1].right_stop) == (len(left), len(right))


def test_a_tokenizer_that_changes_text_is_told_from_one_that_does_not() -> None:
    spelled = Speller(metaspace(lowercase=True)).spell("the Cat")
    assert not spelled.whole
    assert [one.left_stop for one in align([b"the", b" ", b"C", b"at"], spelled.pieces)] == [1, 2]
    assert not Speller(metaspace()).spell("▁x").whole  # SentencePiece cannot tell its sign for a space from a space


def test_special_tokens_end_what_is_spelled_and_their_names_are_text() -> None:
    speller, tokenizer = SPELLERS["bpe"], TOKENIZERS["bpe"]
    ids = tokenizer("a</turn>b")["input_ids"]
    assert tokenizer.convert_tokens_to_ids("</turn>") in ids
    assert b"".join(speller.pieces(ids)) == b"a"
    spelled = speller.spell("a</turn>b")
    assert spelled.whole
    assert tokenizer.convert_tokens_to_ids("</turn>") not in spelled.ids


def test_half_a_character_ends_a_text() -> None:
    assert text_of([b"caf", b"\xc3"]) == "caf"
    assert text_of([b"\xff", b"x"]) == ""


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(TEXTS.filter(bool))
def test_real_tokenizers(text: str) -> None:
    """SmolLM2 has no token for some bytes (0x06, 0xf1); a text with one of them is told from what is spelled of it."""
    (left_speller, left_bytes), (right_speller, right_bytes) = _real()
    left, right = left_speller.spell(text), right_speller.spell(text)
    assert left.whole == left_bytes.issuperset(text.encode())
    assert right.whole == right_bytes.issuperset(text.encode())
    chunks = align(left.pieces, right.pieces)
    require_finest(left.pieces, right.pieces, chunks)
    if left.whole and right.whole:
        assert (chunks[-1].left_stop, chunks[-1].right_stop) == (len(left.pieces), len(right.pieces))


@cache
def _real() -> list[tuple[Speller, frozenset[int]]]:
    """Spellers, and the bytes that each has a token for; it takes minutes."""
    from transformers import AutoTokenizer

    found = []
    for path in (fetch(SMOLLM2), fetch(GEMMA3)):
        tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        spelled = TokenBytes(tokenizer)
        single = {spelled[at] for at in tokenizer.get_vocab().values() if len(spelled[at]) == 1}
        found.append((Speller(tokenizer), frozenset(data[0] for data in single)))
    return found
