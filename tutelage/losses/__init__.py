"""Losses: pure functions, one value a position, in nats; reducing them is the caller's."""
