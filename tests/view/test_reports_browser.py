"""The pages that are handed on, in a real browser: a label report, a proof in an open task, pages of the viewer. No complaint, no
request to anywhere else, every control by Tab, small, and nothing wider than the window."""

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.loopback import serving
from tests.loopback_sums import Adder
from tests.pipeline.test_proving import Models, prove, rows, write
from tests.view.conftest import Served
from tests.view.test_browser import CHROMIUM, Tab, tab
from tutelage.report.build import write_report

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]
SAMPLE = Path(__file__).parents[1] / "report" / "sample_evidence.json"
LONG = "w" * 400
TOTAL, MOST_BYTES = 60, 2_000_000
CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex='0']"
VISIBLE = f'[...document.querySelectorAll("{CONTROLS}")].filter(e => e.checkVisibility() && !e.disabled)'
PRICES = """
[systems.{name}.price]
input_usd_per_mtok = {price}
output_usd_per_mtok = {price}
dated = "2026-01-01"
"""


class Talker(Adder):
    """Adds words to its sums, one of which no line can break."""

    def reply(self, text: str) -> str:
        said = super().reply(text)
        return f"{'I add and add. ' * (len(said) % 5 + int(self.share * 10))}{LONG if '+ 7?' in text else ''} {said}"


def proof_page(folder: Path) -> Path:
    with ExitStack() as stack:
        models = Models(*(stack.enter_context(serving(Talker(share))) for share in (0.9, 0.8, 0.3)))
        prices = [
            PRICES.format(name=name, price=price) for name, price in zip(Models._fields, (10, 1, 0.9), strict=True)
        ]
        items = [
            {**row, "prompt": f"{row['prompt']} {LONG if at % 9 == 0 else ''}"} for at, row in enumerate(rows(TOTAL))
        ]
        run_file = write(folder, models, items)
        text = run_file.read_text()
        for name, price in zip(("[systems.student]", "[systems.before]", "[[claims]]"), prices, strict=True):
            text = text.replace(name, price + name, 1)
        run_file.write_text(text.replace("Does the small one", f"Does {LONG} the small one"))
        assert prove(run_file, "--out", folder / "proof") == 0
    return folder / "proof" / "report.html"


def pages(folder: Path, served: Served) -> dict[str, str]:
    """The address of every page, by name."""
    write_report(SAMPLE, folder / "sample.html")
    return {
        "label": (folder / "sample.html").as_uri(),
        "proof": proof_page(folder).as_uri(),
        "runs": served.base,
        "viewer": served.base + "run/1",
        "examples": served.base + "run/1/examples",
    }


async def out_of_reach(page: Tab) -> list[str]:
    """The controls that can be seen and that Tab does not come to."""
    count = await page.value(f"{VISIBLE}.forEach((e, at) => e.dataset.at = at), {VISIBLE}.length")
    await page.value("document.activeElement.blur(), window.scrollTo(0, 0)")
    met = set()
    for _ in range(count + 5):
        for kind in ("keyDown", "keyUp"):
            await page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        met.add(await page.value("document.activeElement.dataset.at ?? ''"))
    assert count > 1
    missed = sorted({str(at) for at in range(count)} - met)
    return [await page.value(f"document.querySelector('[data-at=\"{at}\"]').outerHTML.slice(0, 200)") for at in missed]


async def look(page: Tab, name: str, url: str) -> None:
    page.complaints.clear()
    page.requests.clear()
    for width in (1280, 500):
        await page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        await page.open(url)
        wide = await page.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, (name, width, wide)
    size = await page.value("document.documentElement.outerHTML.length")
    assert 1_000 < size < MOST_BYTES, (name, size)
    assert await out_of_reach(page) == [], name
    assert page.complaints == [], name
    own = url.rsplit("/run/", 1)[0]
    assert [asked for asked in page.requests if not asked.startswith((own, "data:,"))] == [], name


def test_pages_that_are_handed_on(run: Path, tmp_path: Path, view: Callable[..., Served]) -> None:
    found = pages(tmp_path, view(run))

    async def work() -> None:
        async with tab(tmp_path / "browser") as page:
            for name, url in found.items():
                await look(page, name, url)

    asyncio.run(work())
    evidence = json.loads((tmp_path / "proof" / "evidence.json").read_bytes())
    assert evidence["cost"]["price"] == "usd_per_1000" and len(evidence["lengths"]) == 3
    page = (tmp_path / "proof" / "report.html").read_text()
    assert page.count('class="ring"') == 3 and "US dollars per 1,000 questions" in page
