"""Answering as an OpenAI-compatible endpoint."""
