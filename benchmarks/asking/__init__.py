"""What the benchmarks of asking share: a fast loopback server, its faults, run folders, and a second reader of the store."""
