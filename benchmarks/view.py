"""How fast the viewer is with a large run: `python benchmarks/view.py [--exchanges N]`.

Writes N synthetic exchanges (100,000 by default) through the store, with the rows that the stages collect, curate and
train leave of them, and starts `tutelage view` on that folder. Each figure is the time from sending a request to its
last byte, on loopback: the first page of examples without an index (`cold`: fresh process, no cache), the same in a new
process with the index there (`warm`), searches, filters, the last page, one example. Best and worst of several tries
where it says so. Results go to `benchmarks/results/view.json`; the last line printed is that object.
"""

import argparse
import contextlib
import http.client
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tutelage.canon import canonical
from tutelage.hardware import describe
from tutelage.jsonl import write_lines, write_whole
from tutelage.records import Exchange, Message, ModelId, Origin, Position, Price, Request, Role, TokenLogprob, Usage
from tutelage.store.store import Store

RESULT = Path(__file__).parent / "results" / "view.json"
WORDS = [f"word{number}" for number in range(5000)]
RARE = "needle"
STEP_ROWS = 32
MODEL = ModelId("example", "api.example.com", "large", "large-1", "", "", "", "", "", "MIT")
TOKENS = tuple(
    Position(TokenLogprob("d29yZA==", -1, -1000), tuple(TokenLogprob("b3RoZXI=", -1, -5000 - at) for at in range(5)))
    for _ in range(4)
)


def exchange_of(request: Request, answer: str, body: str, reason: str) -> Exchange:
    return Exchange(
        request.digest, MODEL, answer, "", (), reason, TOKENS, Usage(80, 0, 40), Price(12_000, "list", "2026-11-01"), 300,
        1, "", body, "", None, Origin.ASKED, Role.SOFT_TARGET, "2026-11-28T00:00:00Z",
    )  # fmt: skip


def fill(run: Path, count: int) -> float:
    """Writes the run; returns seconds. Every thousandth answer holds the rare word, 1 in 50 is cut, 1 in 20 dropped."""
    from tutelage.canon import digest_bytes

    draw, rows = random.Random(1), []
    began = time.perf_counter()
    with Store(run / "store") as store:
        for number in range(count):
            asked = " ".join(draw.choices(WORDS, k=30))
            said = " ".join(draw.choices(WORDS, k=40)) + (f" {RARE}" if number % 1000 == 0 else "")
            messages = (Message("system", "Answer the question."), Message("user", f"{number} {asked}"))
            request = Request(messages, {"max_tokens": 64}, "large", "api.example.com", "train", 0)
            body = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
            exchange = exchange_of(request, said, digest_bytes(body), "length" if number % 50 == 7 else "stop")
            digest = store.put(request, exchange, body)
            rows.append({"address": request.digest, "exchange": digest, "prompt": digest_bytes(asked.encode())})
    took = time.perf_counter() - began
    write_lines(run / "collect" / "exchanges.jsonl", rows)
    kept = [{**row, "group": f"g{at}"} for at, row in enumerate(rows) if at % 20]
    drops = [{"exchange": row["exchange"], "filter": "literal", "filter_version": 1, "reason": "no label", "evidence": ""}
             for row in rows[::20]]  # fmt: skip
    aside = len(kept) // 50
    selection = {"shuffle_seed": 1, "drops": "", "train": kept[aside:], "validation": kept[:aside]}
    write_whole(run / "curate" / "selection.json", canonical(selection) + b"\n")
    write_lines(run / "curate" / "drops.jsonl", drops)
    steps = [kept[at : at + STEP_ROWS] for at in range(aside, len(kept), STEP_ROWS)]
    consumed = (
        {"step": at, "exchanges": [row["exchange"] for row in step], "loss_tokens": [{"soft-target": 40}] * len(step)}
        for at, step in enumerate(steps, 1)
    )
    write_lines(run / "train" / "consumed.jsonl", consumed)
    return took


class Client:
    """Asks one server; `get` gives seconds and the page."""

    def __init__(self, address: str) -> None:
        host, self.base = address.removeprefix("http://").split("/", 1)
        self.connection = http.client.HTTPConnection(host, timeout=120)

    def get(self, path: str) -> tuple[float, str]:
        began = time.perf_counter()
        self.connection.request("GET", f"/{self.base}{path}")
        response = self.connection.getresponse()
        page = response.read().decode()
        took = time.perf_counter() - began
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {page[:200]}")
        return took, page

    def seconds(self, path: str, tries: int = 5) -> dict[str, float]:
        each = [self.get(path)[0] for _ in range(tries)]
        return {"median": round(statistics.median(each), 3), "worst": round(max(each), 3)}


@contextlib.contextmanager
def viewing(run: Path, cache: Path) -> Iterator[Client]:
    command = [sys.executable, "-m", "tutelage.cli.main", "view", str(run), "--cache", str(cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Client(process.stdout.readline().split()[-1])
        finally:
            process.terminate()


def measure(run: Path, cache: Path, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with viewing(run, cache) as client:
        began = time.perf_counter()
        found["first_page_cold_s"], page = client.get("run/1/examples")
        found["first_page_cold_rows"] = page.count("<tr>") - 1
        while "still being read" in page or f"{count:,} exchanges" not in page or "trained on" not in page:
            time.sleep(0.1)
            found["worst_page_while_indexing_s"] = max(found.get("worst_page_while_indexing_s", 0.0), (
                one := client.get("run/1/examples"))[0])  # fmt: skip
            page = one[1]
        found["index_whole_s"] = time.perf_counter() - began
    found["index_bytes"] = sum(path.stat().st_size for path in cache.iterdir())
    with viewing(run, cache) as client:
        found["first_page_warm_s"], page = client.get("run/1/examples")
        place = page.split("/example/", 1)[1].split('"', 1)[0]
        asked = {
            "page": "",
            "last_page": urlencode({"page": count // 50}),
            "search_rare": urlencode({"q": RARE}),
            "search_common": urlencode({"q": "word1"}),
            "search_phrase": urlencode({"q": '"word17 word1"'}),
            "filter": urlencode({"finish": "length", "fate": "trained on"}),
        }
        found["requests_s"] = {name: client.seconds(f"run/1/examples?{query}") for name, query in asked.items()}
        found["requests_s"]["example"] = client.seconds(f"run/1/example/{place}")
        found["requests_s"]["run"] = client.seconds("run/1")
        found["found_rare"] = int(
            client.get(f"run/1/examples?{asked['search_rare']}")[1].split(" exchanges of")[0].split(">")[-1]
        )
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--exchanges", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "large"
        written_s = fill(run, chosen.exchanges)
        store_bytes = sum(path.stat().st_size for path in (run / "store").glob("*.seg"))
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        found = {"exchanges": chosen.exchanges, "store_bytes": store_bytes, "written_s": round(written_s, 1)}
        found |= measure(run, Path(scratch) / "cache", chosen.exchanges)
        found["wrote_into_run"] = {path: path.stat().st_mtime_ns for path in run.rglob("*")} != before
    found |= {
        "hardware": describe(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("tutelage", "starlette", "uvicorn", "jinja2")},
        "date": datetime.now(UTC).date().isoformat(),
    }
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
