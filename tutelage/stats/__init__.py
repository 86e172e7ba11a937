"""Pure statistics: no I/O; randomness arrives as a `numpy.random.Generator`; empty or degenerate input raises."""
