"""What teachers reveal: the types, how label questions become signals, and how a distribution is thinned without bias."""

from tutelage.signals.types import NO_TAIL, Dense, Head, Hidden, Scored, Signal, Sparse, Text, TopK

__all__ = ["NO_TAIL", "Dense", "Head", "Hidden", "Scored", "Signal", "Sparse", "Text", "TopK"]
