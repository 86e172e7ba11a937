"""The Merkle tree hash of RFC 6962 §2.1 (unchanged in RFC 9162 §2.1.1), over SHA-256."""

import hashlib
import hmac
from collections.abc import Iterable

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data): 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right): 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """Root of the tree over leaf hashes in order, in one pass with O(log n) memory. Of no leaves: SHA-256 of nothing.

    Keeps the roots of the complete subtrees on the left, as RFC 9162 §2.1.2 describes for a growing tree.
    """
    peaks: list[tuple[int, bytes]] = []  # (height, root), heights strictly falling
    for hashed in leaf_hashes:
        height, node = 0, hashed
        while peaks and peaks[-1][0] == height:
            node = node_hash(peaks.pop()[1], node)
            height += 1
        peaks.append((height, node))
    if not peaks:
        return EMPTY_ROOT
    node = peaks.pop()[1]
    while peaks:
        node = node_hash(peaks.pop()[1], node)
    return node


def salted_leaf(run_key: bytes, sequence: int, record: bytes) -> bytes:
    """Leaf hash of a record under its own salt: SHA-256(0x00 ‖ HMAC-SHA-256(run key, sequence) ‖ record).

    `sequence` is 8 bytes, big-endian. A label answer can be guessed, so an unsalted digest of one never leaves the
    private store; whoever holds the run key can open any leaf.
    """
    salt = hmac.digest(run_key, sequence.to_bytes(8, "big"), "sha256")
    return leaf_hash(salt + record)


def commitment(run_key: bytes, records: Iterable[bytes]) -> str:
    """Tagged root over the salted leaves of records in order."""
    return "sha256:" + root(salted_leaf(run_key, at, record) for at, record in enumerate(records)).hex()
