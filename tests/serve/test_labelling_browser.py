"""The labelling page in a real browser: keys decide, skip and undo; its policy is kept; nothing is asked of anybody
else."""

import asyncio
from pathlib import Path

import pytest

from tests.serve.labelled import header, labelling, pairs_of, proof_run
from tests.view.test_browser import CHROMIUM, tab
from tutelage.prove.gold_file import Kind, Mode, read_rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


def test_keys_in_a_browser(tmp_path: Path) -> None:
    run = proof_run(tmp_path / "run", [(f"q {at} <script>alert(1)</script>", f"t {at}", f"s {at}") for at in range(5)])
    matter, path = pairs_of(run), tmp_path / "gold.jsonl"

    async def work(base: str) -> None:
        async with tab(tmp_path / "browser") as page:
            await page.open(base)
            count = "document.querySelector('.count span').textContent.trim()"
            assert await page.value("getComputedStyle(document.body).fontFamily.includes('system-ui')")
            await page.press("x")
            await page.press("2")
            await page.until(f"{count} == '1 decided, 4 left'")
            await page.press("s")
            assert await page.value("document.activeElement.name") == "reason"
            await page.press("1")
            await page.press("u")
            assert await page.value("document.activeElement.value") == "1u", "keys are letters while one writes"
            await page.value("document.querySelector('.skip button').click()")
            await page.until(f"{count} == '1 decided, 1 skipped, 3 left'")
            await page.press("u")
            await page.until(f"{count} == '1 decided, 4 left'")
            await page.press("3")
            await page.until(f"{count} == '2 decided, 3 left'")
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert await page.value(wide) <= 0
            assert page.complaints == []
            assert [url for url in page.requests if not url.startswith((base, "data:,"))] == []

    with labelling(path, matter, header(Mode.PAIRS, matter, 5)) as served:
        asyncio.run(work(served.base))
    _, rows = read_rows(path)
    assert [row.kind for row in rows] == [Kind.DECISION, Kind.SKIP, Kind.UNDO, Kind.DECISION]
    assert rows[0].decision == rows[0].order[1] and rows[1].reason == "1u" and rows[3].decision == "tie"
