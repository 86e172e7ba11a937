"""The chat recipe, measured: `python -m benchmarks.chat`."""
