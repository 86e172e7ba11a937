"""Wire formats: answers of OpenAI-compatible endpoints, Anthropic and Gemini, whole and streamed; calls that others make
of them; requests that our server reads and bodies that it sends.

Everything parsed here comes from outside and may be hostile: only `WireError` leaves the `parse_` functions.
Source: OpenAI API reference, Chat Completions and Completions; the other vendors' in their files. llama.cpp and vLLM add a
token `id` to every log-probability entry.
"""
