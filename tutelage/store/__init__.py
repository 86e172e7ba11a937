"""Append-only segments of exchanges, each named by its digest, and an index that can always be rebuilt."""
