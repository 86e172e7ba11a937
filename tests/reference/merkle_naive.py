"""The trees of RFC 6962 §2.1 (RFC 9162 §2.1) word by word, by recursion over the leaves: slow, and nothing shared.

Proofs are checked by walking down the same definition, which is another algorithm than the bit arithmetic of
RFC 9162 §2.1.3.2 and §2.1.4.2. `Bad` is what a proof of another shape raises.
"""

import hashlib


class Bad(ValueError):
    """The proof has another shape than its tree."""


def split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


def joined(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def mth(leaves: list[bytes]) -> bytes:
    """MTH(D[n]) over leaf data."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return joined(mth(leaves[:k]), mth(leaves[k:]))


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]), RFC 6962 §2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return [*path(index, leaves[:k]), mth(leaves[k:])]
    return [*path(index - k, leaves[k:]), mth(leaves[:k])]


def proof(old: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """PROOF(m, D[n]) and SUBPROOF, RFC 6962 §2.1.2."""
    if old == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if old <= k:
        return [*proof(old, leaves[:k], whole), mth(leaves[k:])]
    return [*proof(old - k, leaves[k:], False), mth(leaves[:k])]


def root_by_path(leaf_hash: bytes, index: int, size: int, found: list[bytes]) -> bytes:
    """The root that a path leads to, by the definition of PATH."""
    if not 0 <= index < size or (size == 1 and found) or (size > 1 and not found):
        raise Bad("index or length")
    if size == 1:
        return leaf_hash
    k = split(size)
    if index < k:
        return joined(root_by_path(leaf_hash, index, k, found[:-1]), found[-1])
    return joined(found[-1], root_by_path(leaf_hash, index - k, size - k, found[:-1]))


def roots_by_proof(old: int, size: int, old_root: bytes, found: list[bytes], whole: bool = True) -> tuple[bytes, bytes]:
    """Old and new root as a consistency proof gives them, by the definition of SUBPROOF."""
    if not 0 < old <= size:
        raise Bad("sizes")
    if old == size:
        if len(found) != (0 if whole else 1):
            raise Bad("length")
        return (old_root, old_root) if whole else (found[0], found[0])
    if not found:
        raise Bad("length")
    k = split(size)
    if old <= k:
        first, second = roots_by_proof(old, k, old_root, found[:-1], whole)
        return first, joined(second, found[-1])
    first, second = roots_by_proof(old - k, size - k, old_root, found[:-1], False)
    return joined(found[-1], first), joined(found[-1], second)
