"""The OpenAI wire format, both ways: answers read from any endpoint, requests read by our server, bodies it sends.

Everything parsed here comes from outside and may be hostile: only `WireError` leaves the `parse_` functions.
Source: OpenAI API reference, Chat Completions and Completions; llama.cpp and vLLM add a token `id` to every
log-probability entry.
"""
