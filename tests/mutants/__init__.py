"""Planted mistakes: each known trap put into the code, and the test that must notice."""
