"""The embedded server: as many threads as cores it may use, and a common beginning that is read once."""

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter, TokenType

from tutelage.models.llamacpp import embedded_server, usable_cores

WIDTH, HEADS, VALUES, INNER, LAYERS = 32, 2, 16, 64, 6
BEGINNING = "Review: it is what it is.\nSentiment: good\n###\n" * 6


def tiny_gemma(path: Path) -> Path:
    """Gemma 3 in small, random: layers with a sliding window wider than the prompt, every sixth without; a
    token a byte."""
    rng = np.random.default_rng(0)
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [TokenType.CONTROL] * 3 + [TokenType.UNKNOWN] + [TokenType.BYTE] * 256
    writer = GGUFWriter(path, "gemma3")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(VALUES)
    writer.add_value_length(VALUES)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_sliding_window(512)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)

    def add(name: str, *shape: int) -> None:
        drawn = rng.normal(scale=0.2, size=shape) if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(f"{name}.weight", drawn.astype(np.float32))

    add("token_embd", len(tokens), WIDTH)
    add("output_norm", WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            add(block + norm, WIDTH)
        for norm in ("attn_q_norm", "attn_k_norm"):
            add(block + norm, VALUES)
        add(block + "attn_q", HEADS * VALUES, WIDTH)
        add(block + "attn_k", VALUES, WIDTH)
        add(block + "attn_v", VALUES, WIDTH)
        add(block + "attn_output", WIDTH, HEADS * VALUES)
        add(block + "ffn_gate", INNER, WIDTH)
        add(block + "ffn_up", INNER, WIDTH)
        add(block + "ffn_down", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def answer(base_url: str, prompt: str) -> dict[str, Any]:
    body = json.dumps({"prompt": prompt, "max_tokens": 1, "temperature": 0}).encode()
    request = urllib.request.Request(f"{base_url}/completions", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.loads(reply.read())


def test_a_common_beginning_is_read_once_even_with_a_sliding_window(tmp_path: Path) -> None:
    with embedded_server(tiny_gemma(tmp_path / "tiny.gguf"), 1, tmp_path / "log") as server:
        first = answer(server.base_url, BEGINNING + "Review: slow\nSentiment:")["timings"]
        second = answer(server.base_url, BEGINNING + "Review: warm\nSentiment:")["timings"]
    assert first["prompt_n"] > len(BEGINNING), "a token a byte"
    assert second["prompt_n"] < 40, "only what differs is read"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_no_more_threads_than_cores_it_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)
