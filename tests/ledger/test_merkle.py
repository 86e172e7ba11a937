"""Three implementations of one tree: the streaming one, the verifier's, and the definition; and proofs that must fail."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import merkle_naive as naive
from tutelage.ledger import merkle, verify

# Leaf data, roots and proofs of the tests of Certificate Transparency, sizes 1 to 8.
LEAVES = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
N01, N23 = ROOTS[1], "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
N45, N67 = (
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
)
L1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
L4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
N4567 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
INCLUSION = {
    (0, 1): [], (0, 8): [L1, N23, N4567], (5, 8): [L4, N67, ROOTS[3]], (2, 3): [N01], (1, 5): [ROOTS[0], N23, L4],
}  # fmt: skip
CONSISTENCY = {(1, 1): [], (1, 8): [L1, N23, N4567], (6, 8): [N45, N67, ROOTS[3]], (2, 5): [N23, L4]}

sizes = st.integers(1, 300)


def data(size: int) -> list[bytes]:
    return [at.to_bytes(2, "big") for at in range(size)]


def hashes(leaves: list[bytes]) -> list[bytes]:
    return [merkle.leaf_hash(leaf) for leaf in leaves]


def subtree_of(leaves: list[bytes]) -> merkle.Subtree:
    return lambda start, end: naive.mth(leaves[start:end])


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_of_the_vectors(size: int) -> None:
    leaves = hashes(LEAVES[:size])
    roots = (merkle.root(leaves), verify.root_of(leaves), naive.mth(LEAVES[:size]))
    assert {root.hex() for root in roots} == {ROOTS[size - 1]}


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_of_the_vectors(index: int, size: int) -> None:
    leaves = LEAVES[:size]
    path = merkle.inclusion_proof(index, size, subtree_of(leaves))
    assert [node.hex() for node in path] == INCLUSION[index, size]
    assert path == naive.path(index, leaves)
    leaf = merkle.leaf_hash(leaves[index])
    assert verify.root_from_inclusion(leaf, index, size, path).hex() == ROOTS[size - 1]


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_consistency_proofs_of_the_vectors(old: int, new: int) -> None:
    proof = merkle.consistency_proof(old, new, subtree_of(LEAVES[:new]))
    assert [node.hex() for node in proof] == CONSISTENCY[old, new]
    assert verify.consistent(old, new, bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1]), proof)


@given(st.lists(st.binary(max_size=4), max_size=70))
def test_all_three_roots_agree(leaves: list[bytes]) -> None:
    found = hashes(leaves)
    assert merkle.root(iter(found)) == verify.root_of(found) == naive.mth(leaves)


@given(sizes, st.data())
@settings(max_examples=60)
def test_inclusion_is_proven_for_its_index_size_and_path_alone(size: int, draw: st.DataObject) -> None:
    leaves = data(size)
    index = draw.draw(st.integers(0, size - 1))
    leaf, root = merkle.leaf_hash(leaves[index]), naive.mth(leaves)
    path = merkle.inclusion_proof(index, size, subtree_of(leaves))
    assert path == naive.path(index, leaves)
    assert verify.root_from_inclusion(leaf, index, size, path) == root == naive.root_by_path(leaf, index, size, path)
    other = draw.draw(st.integers(0, size - 1))
    wrong = [
        (other, size, path) if other != index else (index + size, size, path),
        (-1, size, path),
        (index, size, [*path, root]),
        (index, size, path[:-1]) if path else (index, size, [root]),
        (index, size, path[::-1]) if path != path[::-1] else (size, size, path),
        (index, size, [bytes(32), *path[1:]]) if path else (1, size, path),
    ]
    for at, of, given_path in wrong:
        try:
            assert verify.root_from_inclusion(leaf, at, of, given_path) != root, (at, of)
        except verify.Bad:
            with pytest.raises(naive.Bad):
                naive.root_by_path(leaf, at, of, given_path)


@given(sizes, sizes, st.data())
@settings(max_examples=60)
def test_consistency_is_proven_for_its_two_roots_alone(one: int, two: int, draw: st.DataObject) -> None:
    old, new = sorted((one, two))
    leaves = data(new)
    first, second = naive.mth(leaves[:old]), naive.mth(leaves)
    proof = merkle.consistency_proof(old, new, subtree_of(leaves))
    assert proof == naive.proof(old, leaves)
    assert naive.roots_by_proof(old, new, first, proof) == (first, second)
    assert verify.consistent(old, new, first, second, proof)
    assert not verify.consistent(old, new, first, second, [*proof, second])
    assert not verify.consistent(0, new, first, second, proof)
    assert not verify.consistent(new + 1, new, first, second, proof)
    if old == new:
        assert not verify.consistent(old, new, first, bytes(32), proof)
        return
    assert not verify.consistent(new, old, second, first, proof)
    assert not verify.consistent(old, new, first, second, proof[:-1])
    assert not verify.consistent(old, new, bytes(32), second, proof)
    assert not verify.consistent(old, new, first, bytes(32), proof)
    at = draw.draw(st.integers(0, len(proof) - 1))
    flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
    assert not verify.consistent(old, new, first, second, [*proof[:at], flipped, *proof[at + 1 :]])


def test_a_history_that_was_rewritten_has_no_proof() -> None:
    before, after = data(6), [b"rewritten", *data(9)[1:]]
    proof = merkle.consistency_proof(6, 9, subtree_of(after))
    assert not verify.consistent(6, 9, naive.mth(before), naive.mth(after), proof)


def test_a_node_is_no_leaf_and_a_leaf_no_node() -> None:
    """Second preimage: the children of a node, given as the data of one leaf, make another tree (RFC 6962 §2.1)."""
    left, right = hashes([b"a", b"b"])
    root = merkle.node_hash(left, right)
    assert merkle.leaf_hash(left + right) != root
    assert verify.leaf(left + right) != verify.node(left, right)
    four = hashes(data(4))
    inner = [merkle.node_hash(*four[:2]), merkle.node_hash(*four[2:])]
    assert merkle.root(inner) == merkle.root(four), (
        "inner nodes taken for leaf hashes give the root: sizes must be bound"
    )
    with pytest.raises(verify.Bad, match="too short"):
        verify.root_from_inclusion(inner[0], 0, 4, [inner[1]])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_no_proof_is_made_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="not in a tree"):
        merkle.inclusion_proof(index, size, subtree_of(data(max(size, 1))))
    with pytest.raises(verify.Bad, match="not in a tree"):
        verify.root_from_inclusion(bytes(32), index, size, [])


@pytest.mark.parametrize(("old", "new"), [(0, 3), (4, 3), (-1, 3)])
def test_no_consistency_is_made_of_sizes_out_of_order(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="no consistency proof"):
        merkle.consistency_proof(old, new, subtree_of(data(3)))


def test_salts_differ_by_place_tree_and_key() -> None:
    key, other = bytes(32), bytes(31) + b"\x01"
    made = [merkle.salt(key, "a", 0), merkle.salt(key, "a", 1), merkle.salt(key, "b", 0), merkle.salt(other, "a", 0)]
    assert len({*made, merkle.salt(key, "a\x00", 0)}) == 5
    assert made[1] == verify.salt_of(key, "a", 1)
    assert len(made[0]) == 32


def test_a_commitment_depends_on_order_content_place_and_tree() -> None:
    key = bytes(32)
    made = [merkle.commitment(key, *args) for args in (("t", [b"a", b"b"]), ("t", [b"b", b"a"]), ("u", [b"a", b"b"]))]
    assert len(set(made)) == 3
    assert merkle.commitment(key, "t", []) == "sha256:" + merkle.EMPTY_ROOT.hex()
    salted = list(merkle.salted_leaves(key, "t", [b"x", b"x"]))
    assert salted[0] != salted[1], "equal records cannot be told to be equal"
    assert merkle.leaf_hash(b"x") not in salted
