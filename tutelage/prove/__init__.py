"""Proof: teacher, controls and the shipped student on held-out prompts, against a claim stated before."""
