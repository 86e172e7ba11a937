"""What asking is compared with, each in a process of its own: the official `openai` client, and bytes over sockets.

`python -m benchmarks.asking.clients {sdk,sdk-keepalive,sdk-aiohttp,raw} --port N --prompts FILE [--count N]`; one JSON line.
"""

import argparse
import asyncio
import importlib
import json
import os
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

Ask = Callable[[str], Awaitable[None]]
LOGPROBS = {"logprobs": True, "top_logprobs": 20}


async def all_asked(ask: Ask, prompts: list[str], concurrency: int) -> float:
    """Seconds until all are answered, with so many in flight."""
    queue: Iterator[str] = iter(prompts)

    async def worker() -> None:
        for prompt in queue:
            await ask(prompt)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return time.perf_counter() - began


async def sdk(kind: str, chosen: argparse.Namespace, prompts: list[str]) -> float:
    """The official client, storing nothing. `sdk` is as it comes; `sdk-keepalive` may keep as many connections as are in
    flight (it keeps 100 by itself); `sdk-aiohttp` is its own aiohttp transport."""
    import openai

    transport: Any = None
    if kind == "sdk-aiohttp":
        transport = openai.DefaultAioHttpClient()
    elif kind == "sdk-keepalive":
        limits: Any = openai.DEFAULT_CONNECTION_LIMITS
        wide = type(limits)(max_connections=chosen.concurrency, max_keepalive_connections=chosen.concurrency)
        transport = openai.DefaultAsyncHttpxClient(limits=wide)
    client = openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{chosen.port}/v1", api_key="none", max_retries=0, timeout=60, http_client=transport
    )
    extra: Any = LOGPROBS if chosen.logprobs else {}

    async def ask(prompt: str) -> None:
        answer = await client.chat.completions.create(
            model="loop", messages=[{"role": "user", "content": prompt}], max_tokens=300, temperature=0.7, **extra
        )
        assert answer.choices[0].message.content

    async with client:
        return await all_asked(ask, prompts, chosen.concurrency)


async def raw(chosen: argparse.Namespace, prompts: list[str]) -> float:
    """Prebuilt bytes over sockets and nothing else: what the server itself can do."""
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(prompt: str) -> None:
        connection = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", chosen.port, limit=1 << 20)
        reader, writer = connection
        body = json.dumps({"model": "loop", "messages": [{"role": "user", "content": prompt}]}).encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head[head.index(b"Content-Length:") + 15 :].split(b"\r\n", 1)[0]))
        idle.append(connection)

    return await all_asked(ask, prompts, chosen.concurrency)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("kind", choices=("sdk", "sdk-keepalive", "sdk-aiohttp", "raw"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--logprobs", action="store_true")
    chosen = parser.parse_args()
    prompts = [json.loads(line)["prompt"] for line in chosen.prompts.read_text(encoding="utf-8").splitlines()]
    if chosen.kind != "raw":
        importlib.import_module("openai.resources.chat")  # what it costs to begin with is not what a request costs
    before = resource.getrusage(resource.RUSAGE_SELF)
    seconds = asyncio.run(raw(chosen, prompts) if chosen.kind == "raw" else sdk(chosen.kind, chosen, prompts))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cores = len(os.sched_getaffinity(0))
    print(json.dumps({"rps": len(prompts) / seconds, "cpu_ms": 1000 * cpu_s / len(prompts), "cores": cores}))


if __name__ == "__main__":
    main()
