import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serve.proxied import Running, Upstream, in_thread, running


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    one = Upstream()

    async def main(stop: asyncio.Event, tell: Callable[[int], None]) -> None:
        server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
        tell(server.sockets[0].getsockname()[1])
        await stop.wait()
        server.close()

    with in_thread(main) as one.port:
        yield one


@pytest.fixture
def proxied(upstream: Upstream, tmp_path: Path) -> Iterator[Running]:
    with running(upstream, tmp_path / "capture") as one:
        yield one
