"""tutelage: distil a teacher behind an API into a student you own, and prove it. Nothing runs on import."""

__version__ = "0.1.0"
