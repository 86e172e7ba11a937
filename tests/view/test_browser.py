"""The pages in a real browser: no error on the console, no request to anywhere else, keys and live progress work."""

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.view.conftest import KEY, Served, fill, hostile_run
from tests.view.test_bundle import bundle

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


class Tab:
    """One page, over Chromium's own protocol; collects what it asks for and complains of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._loaded = False

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            said = await self._socket.receive_json(timeout=60)
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]
            self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        what, params = said.get("method"), said.get("params", {})
        if what == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif what in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            self.complaints.append(json.dumps(params)[:400])
        elif what == "Page.loadEventFired":
            self._loaded = True

    async def open(self, url: str) -> None:
        self._loaded = False
        await self.call("Page.navigate", url=url)
        for _ in range(200):
            if self._loaded:
                return
            await asyncio.sleep(0.05)
            await self.call("Runtime.evaluate", expression="1")
        raise TimeoutError(url)

    async def value(self, script: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    async def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")

    async def until(self, script: str) -> None:
        for _ in range(200):
            if await self.value(script):
                return
            await asyncio.sleep(0.1)
        raise TimeoutError(script)


@asynccontextmanager
async def tab(folder: Path) -> AsyncIterator[Tab]:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
               f"--user-data-dir={folder}", "about:blank"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ})
    try:
        ports = folder / "DevToolsActivePort"
        for _ in range(600):
            if ports.exists() and ports.read_text().count("\n"):
                break
            await asyncio.sleep(0.1)
        port = ports.read_text().splitlines()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [one for one in await answer.json(content_type=None) if one["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=1 << 26) as socket:
                made = Tab(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await made.call(f"{domain}.enable")
                yield made
    finally:
        process.terminate()
        process.wait(20)


def test_pages_in_a_browser(run: Path, tmp_path: Path, view: Callable[..., Served]) -> None:
    hostile = hostile_run(tmp_path / "runs" / "<img src=x onerror=alert(1)>")
    served = view(run, hostile)

    async def look() -> None:
        async with tab(tmp_path / "browser") as page:
            for path in ("", "run/1", "run/2", "run/1/proof/5", "run/2/proof/1", "compare?a=1&b=2", "run/2/examples"):
                await page.open(served.base + path)
                assert await page.value("getComputedStyle(document.body).fontFamily.includes('system-ui')"), path
                wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert await page.value(wide) <= 0, path
            await page.open(served.base + "run/1/examples")
            await page.press("j")
            await page.press("j")
            first = await page.value("document.activeElement.getAttribute('href')")
            await page.press("k")
            assert await page.value("document.activeElement.getAttribute('href')") != first
            await page.press("/")
            assert await page.value("document.activeElement.name") == "q"
            await page.press("j")
            assert await page.value("document.activeElement.value") == "j"
            await page.open(served.base + "run/1/examples")
            await page.press("n")
            await page.until("location.search == '?page=2'")
            assert page.complaints == []
            assert [url for url in page.requests if not url.startswith((served.base, "data:,"))] == []

    asyncio.run(look())


def test_a_run_under_way_in_a_browser(run: Path, tmp_path: Path, view: Callable[..., Served]) -> None:
    log = run / "ledger" / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    begun = next(at for at, line in enumerate(lines) if b'"intent"' in line and b'"stage":"collect"' in line)
    log.write_bytes(b"".join(lines[: begun + 1]))
    served = view(run)

    async def look() -> None:
        async with tab(tmp_path / "browser") as page:
            with (run / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                await page.open(served.base + "run/1")
                field = "document.querySelector('[data-field={}]').textContent"
                await page.until(field.format("state") + " == 'at work'")
                fill(run, [("new", "one")])
                await page.until(field.format("answers") + ".startsWith('85')")
                log.write_bytes(b"".join(lines[: begun + 2]))  # collect ends
                await page.until("document.body.textContent.includes('no stage is begun')")
            assert page.complaints == []

    asyncio.run(look())


def test_a_bundle_in_a_browser(run: Path, tmp_path: Path) -> None:
    bundle(tmp_path / "out", run, private=True, limit=50)

    async def look() -> None:
        async with tab(tmp_path / "browser") as page:
            for name in ("index.html", "run-1.html", "run-1-examples-1.html", "run-1-item-5.html"):
                await page.open((tmp_path / "out" / name).as_uri())
                assert await page.value("getComputedStyle(document.body).fontFamily.includes('system-ui')"), name
            assert page.complaints == []
            assert [url for url in page.requests if not url.startswith(("file://", "data:,"))] == []
            assert KEY not in "".join(page.requests)

    asyncio.run(look())
