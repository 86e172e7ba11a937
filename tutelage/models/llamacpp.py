"""The embedded teacher: llama.cpp's own OpenAI-compatible server (through xllamacpp) over a GGUF file, on loopback.

Run as `python -m tutelage.models.llamacpp GGUF SLOTS TOKENS_PER_SLOT`; it prints its address and serves until its
standard input closes.
"""

import os
import sys
import threading
from pathlib import Path

from tutelage.models.process import ServedProcess, announce, exit_with_parent

TOKENS_PER_SLOT = 2048


def embedded_server(gguf: Path, slots: int, log: Path) -> ServedProcess:
    """The server for these weights, with prompt caching and `slots` questions in flight; not started yet."""
    return ServedProcess("tutelage.models.llamacpp", [str(gguf), str(slots), str(TOKENS_PER_SLOT)], log)


def usable_cores() -> int:
    """Cores that this process may run on: fewer than the machine has under `taskset` or in a container. More threads than
    that wait for each other, and burn the time they wait."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main(arguments: list[str]) -> None:
    """Serves until standard input closes."""
    gguf, slots, tokens_per_slot = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    exit_with_parent()
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_parallel = slots
    params.n_ctx = slots * tokens_per_slot
    params.n_gpu_layers = 0
    threads = min(usable_cores(), 8)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    # Prompts are short and mostly cached: without flash attention a question takes about a tenth less CPU time here.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    # The slots keep the common beginning; the extra cache of whole prompts in memory (8 GiB by default) gains nothing.
    params.cache_ram_mib = 0
    params.n_ctx_checkpoints = 0
    # Layers with a sliding window (Gemma) keep the whole context: without it nothing of the common beginning is reused.
    params.swa_full = True
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.endpoint_slots = False
    params.model_alias = {gguf.stem}
    server = xllamacpp.Server(params)
    announce(server.listening_address)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
