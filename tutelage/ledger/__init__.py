"""The ledger: statements in an append-only log under one Merkle root, salted commitments, and a verifier."""
