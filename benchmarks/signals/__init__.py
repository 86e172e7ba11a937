"""The parts of `benchmarks/signal_store.py`."""
