"""The Merkle-sum tree: the shape of RFC 6962 with an integer in every node; both children's sums are hashed.

A node is 40 bytes: a hash and the sum below it (8 bytes, big-endian). Hashing only the total of a node, as the first such
trees did, lets a prover move value between the children; hashing both closes that (Dagher et al. 2015, "Provisions", as
corrected by Hu et al., eprint 2018/1139). A proof shows the sums of siblings, and a sibling of a leaf is one
neighbour's length: such proofs are for an auditor, not for the public.
"""

import hashlib
from typing import NamedTuple

from tutelage.ledger.merkle import EMPTY_ROOT

NODE_BYTES = 40
MAX_SUM = 2**63 - 1


class Sum(NamedTuple):
    """A node taken apart: 32 bytes of hash, and the sum of all leaves below it."""

    hash: bytes
    total: int


def leaf_node(leaf_hash: bytes, value: int) -> bytes:
    """SHA-256(0x02 ‖ leaf hash ‖ value) ‖ value. Raises `ValueError` for a value that is negative or above 2^63 − 1."""
    if not 0 <= value <= MAX_SUM:
        raise ValueError(f"a sum tree holds integers from 0 to 2^63 - 1, not {value}")
    number = value.to_bytes(8, "big")
    return hashlib.sha256(b"\x02" + leaf_hash + number).digest() + number


def combine(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x03 ‖ left node ‖ right node) ‖ sum of both. Raises `ValueError` when the sum is above 2^63 − 1."""
    total = int.from_bytes(left[32:], "big") + int.from_bytes(right[32:], "big")
    if total > MAX_SUM:
        raise ValueError(f"the sum {total} is above 2^63 - 1")
    return hashlib.sha256(b"\x03" + left + right).digest() + total.to_bytes(8, "big")


def taken_apart(node: bytes) -> Sum:
    """A root of no leaves is the hash of nothing, with sum 0."""
    return Sum(EMPTY_ROOT, 0) if node == EMPTY_ROOT else Sum(node[:32], int.from_bytes(node[32:], "big"))
