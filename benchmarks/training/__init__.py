"""The sides of `benchmarks/train_step.py`: each runs in a process of its own and prints one JSON line."""
