"""Asking through an endpoint that fails in every way, killed again and again: `python benchmarks/chaos.py [--data FILE]`.

Parts, each merged into `benchmarks/results/chaos.json` (the last line printed is that object):

`kills` 10,000 prompts; `benchmarks/asking/faults.py` is what goes wrong at the server; `tutelage collect` is killed with SIGKILL
20 times at moments drawn from the seed, then its key is refused once, and each time the same command is started again. The server
counts what it bills and how many whole answers it sent for each prompt; a second reader of the segments counts what is stored.
`duplicated` are whole answers for one prompt beyond the first and beyond those under way at a kill.
`capped` the same without kills, and a cap of 30 % of what the first settled for all of it (its kills cost more, and no answer).
`disk` a file system too small for it: it must stop, and go on when there is room.
`key_found` counts the planted key in every file of the run and in all that was said on either stream, in any spelling.
"""

import argparse
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "chaos.json"
PARTS = ("kills", "capped", "disk")
KEY = "sk-proj-" + "".join(
    random.Random(4).choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789-_", k=56)
)
NUSD = 10**9
MOST_STARTS = 12  # without a kill, until it must have finished


class Chaos:
    """One faulty server, one run folder, and the collector started again and again."""

    def __init__(self, chosen: argparse.Namespace, here: Path, server: Any, prompts: list[str], **changes: Any) -> None:
        from benchmarks.asking.runs import write_run

        settings = {
            "sampling__max_tokens": 64,
            "teacher__timeout_s": chosen.timeout_s,
            "teacher__concurrency": chosen.concurrency,
        }
        self.run_file = write_run(here, server.port, prompts, **{**settings, **changes})
        self.here, self.server, self.prompts = here, server, prompts
        self.run, self.said = here / "run", here / "said"
        self.stops: list[dict[str, Any]] = []

    def start(self, **env: str) -> Any:
        from benchmarks.asking.runs import KEY_NAME, Collector

        return Collector(self.run_file, self.run, self.said, env={KEY_NAME: KEY, **env})

    def ended(self, collector: Any) -> int:
        """Waits for it; an end that is not success is noted with its last words. Returns the exit code."""
        code = collector.wait().code
        if code != 0:
            last = self.said.read_text()[collector.said_before :].strip().splitlines()
            self.stops.append({"code": code, "lines": len(last), "last": [line[:160] for line in last[-2:]]})
        return code

    def to_the_end(self) -> int:
        """Started again until all is answered. Returns the last exit code."""
        code = -1
        for _ in range(MOST_STARTS):
            if (code := self.ended(self.start())) == 0:
                break
        return code

    def killed_at(self, moment: float, draw: random.Random) -> bool:
        """Starts it, and kills it once so many answers are out and it has asked something; when it ends by itself before,
        it is started again. False when it had everything."""
        while True:
            collector, asked = self.start(), self.server.count()["asked"]
            while not collector.has_ended:
                counts = self.server.count()
                if counts["asked"] > asked and counts["answered"] >= moment:
                    time.sleep(draw.uniform(0, 0.1))
                    break
                time.sleep(0.01)
            if not collector.has_ended:
                collector.kill()
                return True
            if self.ended(collector) == 0:
                return False

    def checked(self) -> dict[str, Any]:
        """What the store, the server and the files say at the end."""
        from benchmarks.asking.audit import audit, index_agrees, key_found, wrong_answers, wrong_bills
        from tutelage.store.store import Store

        found, counts, dealt = audit(self.run / "store"), self.server.count(), self.server.prompts()
        with Store(self.run / "store") as store:
            spent = store.spent()
        answered = {found.prompts[address] for address in found.answers}
        unanswered = set(self.prompts) - answered
        failed = sum(address not in found.answers for address in found.failed)
        still_open = found.open_for()
        bought = sum(max(0, one.delivered - 1 - still_open[prompt]) for prompt, one in dealt.items())
        return {
            "prompts": len(self.prompts),
            "answered": len(answered & set(self.prompts)),
            "explained": min(failed, len(unanswered)),
            "lost": max(0, len(unanswered) - failed),
            "duplicated": bought,
            "stored_twice": found.doubled,
            "wrong_answers": wrong_answers(found),
            "delivered_not_stored": sum(
                one.delivered > 0 and prompt not in answered and not still_open[prompt] for prompt, one in dealt.items()
            ),
            "in_flight": sum(found.open_calls.values()),
            "settled_usd": spent.settled_nusd / NUSD,
            "unresolved_usd": spent.unresolved_nusd / NUSD,
            "server_usd": counts["billed_nusd"] / NUSD,
            "reader_agrees": (found.settled_nusd, found.unresolved_nusd) == (spent.settled_nusd, spent.unresolved_nusd),
            "money_adds_up": spent.settled_nusd <= counts["billed_nusd"] <= spent.settled_nusd + spent.unresolved_nusd,
            "wrong_bills": wrong_bills(found, {prompt: one.nusd for prompt, one in dealt.items()}),
            "damaged_lines": len(found.damaged),
            "index_agrees": index_agrees(self.run / "store", found.prompts),
            "calls": counts["asked"],
            "most_in_flight": counts["most_in_flight"],
            "faults": counts["faults"],
            "reasons": dict(found.reasons.most_common()),
            "key_found": len(key_found(self.here, KEY)),
        }


def kills(chosen: argparse.Namespace) -> dict[str, Any]:
    """The collector killed at random moments while at work."""
    from benchmarks.asking.runs import load_prompts

    draw = random.Random(chosen.seed)
    cap = chosen.cap * chosen.prompts / 10_000
    with scene(chosen) as (here, server):
        chaos = Chaos(chosen, here, server, load_prompts(chosen.data, chosen.prompts), budget__max_cost_usd=cap)
        moments = sorted(draw.uniform(0.01, 0.9) * chosen.prompts for _ in range(chosen.kills))
        began = time.monotonic()
        killed = sum(chaos.killed_at(moment, draw) for moment in moments)
        server.set(deny_at=server.count()["asked"] + 2)
        end = chaos.to_the_end()
        found = chaos.checked()
    return {
        **found,
        "kills": killed,
        "most_possible_in_flight": killed * min(chosen.concurrency, found["most_in_flight"]),
        "cap_usd": cap,
        "end_code": end,
        "other_stops": chaos.stops,
        "wall_s": round(time.monotonic() - began, 1),
        "seed": chosen.seed,
    }


def capped(chosen: argparse.Namespace) -> dict[str, Any]:
    """A budget that is not enough: 30 % of what all of it costs."""
    from benchmarks.asking.runs import load_prompts

    cost = chosen.cost
    if cost is None:
        cost = json.loads(chosen.out.read_bytes())["settled_usd"]
    cap = round(0.3 * cost, 6)
    with scene(chosen) as (here, server):
        chaos = Chaos(chosen, here, server, load_prompts(chosen.data, chosen.prompts), budget__max_cost_usd=cap)
        began = time.monotonic()
        code = chaos.start().wait().code
        wall_s = time.monotonic() - began
        last = chaos.said.read_text().strip().splitlines()[-2:]
        found = chaos.checked()
        again = chaos.start().wait().code  # the same command: nothing more to spend
        more = server.count()["billed_nusd"] / NUSD
    kept = ("answered", "settled_usd", "unresolved_usd", "server_usd", "reader_agrees", "money_adds_up", "wrong_bills",
            "duplicated", "damaged_lines", "index_agrees", "key_found")  # fmt: skip
    return {
        "capped": {
            "cap_usd": cap,
            "exit_code": code,
            "used_by_us": round((found["settled_usd"] + found["unresolved_usd"]) / cap, 4),
            "used_by_server": round(found["server_usd"] / cap, 4),
            "passed_cap": max(found["server_usd"], more) > cap,
            "exit_code_again": again,
            "last_lines": [line[:200] for line in last],
            "wall_s": round(wall_s, 1),
            **{name: found[name] for name in kept},
        }
    }


def disk(chosen: argparse.Namespace) -> dict[str, Any]:
    """A file system that is full before the questions are through, then has room."""
    from benchmarks.asking.audit import audit, wrong_answers
    from benchmarks.asking.runs import load_prompts

    count = min(max(chosen.prompts, 400), 3000)
    small, wide = f"{2 * count}k", "1g"  # about two thirds of what they need
    with scene(chosen, faults=False) as (here, server):
        chaos = Chaos(chosen, here, server, load_prompts(chosen.data, count))
        chaos.run.mkdir()
        if not mounted(chaos.run, small):
            return {"disk": {"skipped": "no file system could be mounted here; run it as root"}}
        try:
            full = [chaos.start().wait().code for _ in range(2)]  # the second start finds it full
            said = [line[:200] for line in chaos.said.read_text().strip().splitlines()[-3:]]
            half = audit(chaos.run / "store")
            subprocess.run(["mount", "-o", f"remount,size={wide}", chaos.run], check=True)
            code = chaos.to_the_end()
            found, whole = chaos.checked(), audit(chaos.run / "store")
        finally:
            subprocess.run(["umount", chaos.run], check=False)
    kept = (
        "prompts",
        "answered",
        "lost",
        "duplicated",
        "damaged_lines",
        "index_agrees",
        "reader_agrees",
        "money_adds_up",
    )
    return {
        "disk": {
            "file_system": small,
            "exit_codes_when_full": full,
            "said": said,
            "answered_when_full": len(half.answers),
            "damaged_when_full": len(half.damaged),
            "exit_code_with_room": code,
            "wrong_answers": wrong_answers(whole),
            **{name: found[name] for name in kept},
        }
    }


def mounted(folder: Path, size: str) -> bool:
    """A file system of that size in memory, where one may be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


@contextlib.contextmanager
def scene(chosen: argparse.Namespace, *, faults: bool = True) -> Iterator[tuple[Path, Any]]:
    """A folder to work in and the server; the folder is kept with `--keep`."""
    from benchmarks.asking.runs import Server

    here = Path(tempfile.mkdtemp(dir=chosen.work, prefix="chaos-"))
    with Server("--faults", str(chosen.seed)) as server:
        server.set(faulty=faults, latency_ms=chosen.latency_ms)
        yield here, server
    if chosen.keep:
        print(f"kept: {here}", file=sys.stderr)
    else:
        shutil.rmtree(here, ignore_errors=True)


def main() -> None:
    from benchmarks.asking.runs import about, write_result

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--disk", dest="part", action="append_const", const="disk", help="the same as --part disk")
    parser.add_argument("--data", type=Path, help="JSON Lines with a column prompt, question, instruction or text")
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--latency-ms", type=int, default=50)
    parser.add_argument("--timeout-s", type=float, default=5, help="how long the collector waits for an answer")
    parser.add_argument("--cap", type=float, default=12.0, help="dollars of the killed run, for 10,000 prompts")
    parser.add_argument("--cost", type=float, help="dollars that all costs (default: what the part kills found)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="where to work (default: the system's folder for temporary files)")
    parser.add_argument("--keep", action="store_true", help="leave the run folders")
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    if chosen.work is not None:
        chosen.work.mkdir(parents=True, exist_ok=True)
    known = about()
    for part in chosen.part or PARTS:
        print(part, file=sys.stderr)
        found = {"kills": kills, "capped": capped, "disk": disk}[part](chosen)
        write_result(chosen.out, {**found, **known})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
