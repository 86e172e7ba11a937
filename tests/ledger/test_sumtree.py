"""The Merkle-sum tree: sums are bound to leaves and to both children; what does not add up is refused."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.merkle_naive import split
from tutelage.ledger import merkle, sumtree, tiles, verify

values_of = st.lists(st.integers(0, 2**40), min_size=1, max_size=40)


def leaf_hashes(count: int) -> list[bytes]:
    return [merkle.leaf_hash(bytes([at])) for at in range(count)]


def naive(leaves: list[bytes], values: list[int]) -> tuple[bytes, int]:
    """Hash and sum by the definition: SHA-256(0x02 ‖ leaf ‖ v), SHA-256(0x03 ‖ h ‖ v ‖ h' ‖ v')."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x02" + leaves[0] + values[0].to_bytes(8, "big")).digest(), values[0]
    k = split(len(leaves))
    (left, a), (right, b) = naive(leaves[:k], values[:k]), naive(leaves[k:], values[k:])
    joined = left + a.to_bytes(8, "big") + right + b.to_bytes(8, "big")
    return hashlib.sha256(b"\x03" + joined).digest(), a + b


def nodes(values: list[int]) -> list[bytes]:
    return [sumtree.leaf_node(leaf, value) for leaf, value in zip(leaf_hashes(len(values)), values, strict=True)]


def top(values: list[int]) -> sumtree.Sum:
    return sumtree.taken_apart(merkle.root(nodes(values), sumtree.combine))


@given(values_of)
def test_root_and_total_follow_the_definition(values: list[int]) -> None:
    leaves = leaf_hashes(len(values))
    assert top(values) == naive(leaves, values) == (top(values).hash, sum(values))
    theirs = [verify.sum_leaf(leaf, value) for leaf, value in zip(leaves, values, strict=True)]
    assert verify.root_of(theirs, verify.sum_node) == merkle.root(nodes(values), sumtree.combine)


def test_value_moved_between_children_changes_the_root() -> None:
    """The flaw of trees that hash a node's total alone (Provisions, as mended by Hu et al.)."""
    assert top([3, 5, 7, 9]).total == top([4, 4, 7, 9]).total == top([3, 5, 9, 7]).total
    assert len({top(values).hash for values in ([3, 5, 7, 9], [4, 4, 7, 9], [3, 5, 9, 7], [8, 0, 7, 9])}) == 4
    left, right = sumtree.combine(*nodes([3, 5])), sumtree.combine(*nodes([7, 9]))
    shifted = [node[:32] + total.to_bytes(8, "big") for node, total in ((left, 9), (right, 15))]
    assert sumtree.combine(*shifted)[32:] == sumtree.combine(left, right)[32:], "the total stays"
    assert sumtree.combine(*shifted)[:32] != sumtree.combine(left, right)[:32], "and the hash tells"


@given(values_of, st.data())
@settings(max_examples=60)
def test_a_forged_sum_anywhere_on_a_path_leads_to_another_root(values: list[int], draw: st.DataObject) -> None:
    size, found = len(values), nodes(values)
    index = draw.draw(st.integers(0, size - 1))
    path = merkle.inclusion_proof(index, size, lambda a, b: merkle.root(found[a:b], sumtree.combine))
    root = merkle.root(found, sumtree.combine)
    assert verify.root_from_inclusion(found[index], index, size, path, verify.sum_node) == root
    wrong = verify.sum_leaf(leaf_hashes(size)[index], values[index] + 1)
    assert verify.root_from_inclusion(wrong, index, size, path, verify.sum_node) != root
    if path:
        at = draw.draw(st.integers(0, len(path) - 1))
        more = (int.from_bytes(path[at][32:], "big") + 1).to_bytes(8, "big")
        forged = [*path[:at], path[at][:32] + more, *path[at + 1 :]]
        assert verify.root_from_inclusion(found[index], index, size, forged, verify.sum_node) != root
        less = verify.sum_leaf(leaf_hashes(size)[index], values[index] - 1) if values[index] else wrong
        assert verify.root_from_inclusion(less, index, size, forged, verify.sum_node) != root, "even when totals agree"


@pytest.mark.parametrize("value", [-1, 2**63, 2**64])
def test_negative_and_oversized_leaves_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="holds integers"):
        sumtree.leaf_node(bytes(32), value)


def test_sums_never_wrap_around() -> None:
    half = sumtree.leaf_node(bytes(32), 2**62)
    with pytest.raises(ValueError, match="above"):
        sumtree.combine(half, half)
    most = bytes(32) + (2**64 - 1).to_bytes(8, "big")
    with pytest.raises(OverflowError):
        verify.sum_node(most, verify.sum_leaf(bytes(32), 1))
    for value in (-1, 2**64):
        with pytest.raises(OverflowError):
            verify.sum_leaf(bytes(32), value)


def test_a_leaf_is_neither_a_node_nor_a_leaf_of_the_plain_tree() -> None:
    left, right = nodes([1, 2])
    body = left + right
    prefixed = {hashlib.sha256(bytes([prefix]) + body).digest() for prefix in range(4)}
    assert len(prefixed) == 4
    assert sumtree.combine(left, right)[:32] == hashlib.sha256(b"\x03" + body).digest()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=700), st.data())
@settings(max_examples=25, deadline=None)
def test_a_place_falls_on_the_leaf_that_covers_it(
    tmp_path_factory: pytest.TempPathFactory, values: list[int], draw: st.DataObject
) -> None:
    folder: Path = tmp_path_factory.mktemp("sums")
    with tiles.LevelWriter(folder, sumtree.combine) as tree:
        for at, value in enumerate(values):
            tree.append(sumtree.leaf_node(merkle.leaf_hash(str(at).encode()), value))
    if not sum(values):
        return
    place = draw.draw(st.integers(0, sum(values) - 1))
    index = tiles.leaf_under(
        tiles.Levels(folder, sumtree.NODE_BYTES), len(values), place,
        lambda node: sumtree.taken_apart(node).total, sumtree.combine,
    )  # fmt: skip
    assert sum(values[:index]) <= place < sum(values[: index + 1])
