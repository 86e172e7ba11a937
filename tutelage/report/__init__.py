"""Prints evidence: one self-contained page, terminal and Markdown tables. Computes nothing."""
