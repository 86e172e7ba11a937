"""Merkle trees of RFC 6962 §2.1 (unchanged in RFC 9162 §2.1) over SHA-256: leaves, nodes, roots and proofs.

A proof is made from a function `subtree(start, end)` that gives the node over leaves start … end − 1, so it needs no more
of the tree than it touches (see `tiles`). The same shape carries sums (`sumtree`): there a node is a hash and a sum.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator

EMPTY_ROOT = hashlib.sha256(b"").digest()

Subtree = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data): 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right): 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Iterable[bytes], combine: Callable[[bytes, bytes], bytes] = node_hash) -> bytes:
    """Root of the tree over leaf hashes in order, in one pass with O(log n) memory. Of no leaves: SHA-256 of nothing.

    Keeps the roots of the complete subtrees on the left, as RFC 9162 §2.1.2 describes for a growing tree.
    """
    peaks: list[tuple[int, bytes]] = []  # (height, root), heights strictly falling
    for hashed in leaf_hashes:
        height, node = 0, hashed
        while peaks and peaks[-1][0] == height:
            node = combine(peaks.pop()[1], node)
            height += 1
        peaks.append((height, node))
    if not peaks:
        return EMPTY_ROOT
    node = peaks.pop()[1]
    while peaks:
        node = combine(peaks.pop()[1], node)
    return node


def split(size: int) -> int:
    """The largest power of two smaller than `size` (RFC 6962 §2.1); `size` is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """The audit path PATH(index, D[size]) of RFC 6962 §2.1.1, from the leaf upwards. Raises `ValueError` outside the tree."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + split(end - start)
        if index < middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    return path[::-1]


def consistency_proof(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """PROOF(old, D[new]) of RFC 6962 §2.1.2. Raises `ValueError` unless 0 < old <= new."""
    if not 0 < old <= new:
        raise ValueError(f"no consistency proof between sizes {old} and {new}")
    proof: list[bytes] = []
    start, end, whole = 0, new, True  # `whole`: the old tree is a subtree on the way down, known to whoever checks
    while old - start != end - start:
        middle = start + split(end - start)
        if old <= middle:
            proof.append(subtree(middle, end))
            end = middle
        else:
            proof.append(subtree(start, middle))
            start, whole = middle, False
    if not whole:
        proof.append(subtree(start, end))
    return proof[::-1]


def salt(run_key: bytes, tree: str, sequence: int) -> bytes:
    """32 bytes: HMAC-SHA-256(run key, tree ‖ 0x00 ‖ sequence as 8 bytes, big-endian).

    `tree` names what is salted, so that a salt handed out with one opened leaf opens no leaf of another tree. A label
    answer can be guessed: an unsalted digest of one never leaves the private store.
    """
    return hmac.digest(run_key, tree.encode() + b"\x00" + sequence.to_bytes(8, "big"), "sha256")


def salted_leaves(run_key: bytes, tree: str, records: Iterable[bytes]) -> Iterator[bytes]:
    """Leaf hashes of records in order, each under its own salt: SHA-256(0x00 ‖ salt ‖ record)."""
    for at, record in enumerate(records):
        yield leaf_hash(salt(run_key, tree, at) + record)


def commitment(run_key: bytes, tree: str, records: Iterable[bytes]) -> str:
    """Tagged root over the salted leaves of records in order."""
    return "sha256:" + root(salted_leaves(run_key, tree, records)).hex()
