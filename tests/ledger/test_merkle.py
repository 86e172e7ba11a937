"""The tree hash against the definition of RFC 6962 section 2.1, and the vectors of Certificate Transparency's own tests."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.ledger import merkle, verify

# Leaf data and roots of certificate-transparency's merkle tree tests, sizes 1 to 8.
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


def by_definition(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:split]) + by_definition(leaves[split:])).digest()


@pytest.mark.parametrize("size", range(1, 9))
def test_vectors(size: int) -> None:
    assert merkle.root(merkle.leaf_hash(leaf) for leaf in LEAVES[:size]).hex() == ROOTS[size - 1]


@given(st.lists(st.binary(max_size=4), max_size=70))
def test_both_implementations_follow_the_definition(leaves: list[bytes]) -> None:
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    assert merkle.root(hashes) == verify._root(hashes) == by_definition(leaves)


def test_salts_differ_by_place_and_key() -> None:
    key, other = bytes(32), bytes(31) + b"\x01"
    leaves = {merkle.salted_leaf(key, 0, b"x"), merkle.salted_leaf(key, 1, b"x"), merkle.salted_leaf(other, 0, b"x")}
    assert len(leaves) == 3
    assert merkle.leaf_hash(b"x") not in leaves
    assert merkle.salted_leaf(key, 5, b"x") == verify._salted_leaf(key, 5, b"x")


def test_commitment_depends_on_order_and_content() -> None:
    key = bytes(32)
    assert merkle.commitment(key, [b"a", b"b"]) != merkle.commitment(key, [b"b", b"a"])
    assert merkle.commitment(key, []) == "sha256:" + merkle.EMPTY_ROOT.hex()
