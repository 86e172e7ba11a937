"""Judging open answers by another model: what it is asked, how it is read, whether it may be believed, what follows."""
