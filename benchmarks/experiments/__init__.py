"""Small experiments that reproduce published behaviour: `python -m benchmarks.experiments [E5 ...]`."""
