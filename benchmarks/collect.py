"""How fast asking is, against the official client: `python benchmarks/collect.py [--data FILE] [--part PART] [--work DIR]`.

Parts, each merged into `benchmarks/results/collect.json` (the last line printed is that object):

`rate` `tutelage collect` as a user runs it, everything stored, and `openai.AsyncOpenAI`, which stores nothing, in turn
against one loopback server (50 ms latency, 1 kB answers), each alone on a core, the server on another. `ours_rps` takes the
whole process, less the time of one that asks a single question; `cpu_ms_per_request` likewise. `asking_rps` is between the
server's first and last. `ratio` is of medians over the rounds.
`logprobs` the same with 100 tokens and 20 candidates for each.
`resume` a store of a million exchanges and a file of 10,000 prompts, half of them answered: from the start of the process to
the first new request at the server, with the index there and without, and the process's peak memory to the end.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "collect.json"
RIVALS = ("sdk", "sdk-keepalive", "sdk-aiohttp")
PARTS = ("rate", "logprobs", "resume")
SERVER_CORE, CLIENT_CORE = 0, 1


def rate(chosen: argparse.Namespace) -> dict[str, Any]:
    """Requests a second and processor time a request, text alone."""
    found = measured(chosen, chosen.requests, chosen.sdk_requests, chosen.rivals, {})
    ours, theirs = found["ours"], found.get("sdk", {"rps": None})
    return {
        "requests": chosen.requests,
        "in_flight": chosen.concurrency,
        "rounds": chosen.rounds,
        "ours_rps": ours["rps"],
        "sdk_rps": theirs["rps"],
        "ratio": ratio(found),
        "cpu_ms_per_request": ours["cpu_ms"],
        "asking_rps": ours["asking_rps"],
        "rate": found,
    }


def logprobs(chosen: argparse.Namespace) -> dict[str, Any]:
    """The same with 2,000 log-probabilities an answer, which are stored twice: as they came, and as records."""
    changes = {"teacher__signal": "top-logprobs"}
    count = chosen.logprob_requests
    rivals = [name for name in chosen.rivals if name != "sdk-keepalive"]
    found = measured(chosen, count, max(1, count // 4), rivals, changes)
    return {"logprobs": {"requests": count, "ratio": ratio(found), **found}}


def ratio(found: dict[str, dict[str, float]]) -> float | None:
    """Our rate against that of the official client as it comes; None where that was not measured."""
    return round(found["ours"]["rps"] / found["sdk"]["rps"], 2) if "sdk" in found else None


def measured(
    chosen: argparse.Namespace, count: int, rival_count: int, rivals: Sequence[str], changes: dict[str, Any]
) -> dict[str, Any]:
    """Ours and the rivals in turn, each round; medians of each number."""
    from benchmarks.asking.runs import Server, load_prompts, write_run

    prompts = load_prompts(chosen.data, count)
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in ("ours", *rivals, "raw")}
    with tempfile.TemporaryDirectory(dir=chosen.work) as scratch, Server(core=SERVER_CORE) as server:
        here = Path(scratch)
        server.set(logprobs=bool(changes))
        settings = {"teacher__concurrency": chosen.concurrency, **changes}
        many = write_run(here / "many", server.port, prompts, **settings)
        one = write_run(here / "one", server.port, prompts[:1], **settings)
        write_run(here / "rivals", server.port, prompts[:rival_count])
        for _ in range(chosen.rounds):
            seen["ours"].append(ours(server, one, many, here, count))
            for name in rivals:
                seen[name].append(rival(name, chosen, server.port, here / "rivals" / "prompts.jsonl", bool(changes)))
        seen["raw"].append(rival("raw", chosen, server.port, here / "rivals" / "prompts.jsonl", False))
    return {name: medians(rounds) for name, rounds in seen.items()}


def ours(server: Any, one: Path, many: Path, here: Path, count: int) -> dict[str, float]:
    """A process that asks one question, then one that asks all: the difference is what the others took."""
    from benchmarks.asking.runs import Collector

    ends = []
    for run_file in (one, many):
        server.reset()
        folder = here / "run"
        shutil.rmtree(folder, ignore_errors=True)
        ended = Collector(run_file, folder, here / "said", "--quiet", core=CLIENT_CORE).wait()
        if ended.code != 0:
            sys.exit(f"tutelage collect ended with {ended.code}:\n{(here / 'said').read_text()[-2000:]}")
        ends.append(ended)
    counts = server.count()
    assert counts["answered"] == count, counts
    stored = sum(path.stat().st_size for path in (here / "run" / "store").glob("*.seg"))
    start, all_of_it = ends
    others = max(1, count - 1)
    return {
        "rps": others / (all_of_it.wall_s - start.wall_s),
        "asking_rps": count / (counts["last_at"] - counts["first_at"]),
        "cpu_ms": 1000 * (all_of_it.cpu_s - start.cpu_s) / others,
        "wall_s": all_of_it.wall_s,
        "start_wall_s": start.wall_s,
        "rss_mb": all_of_it.rss_mb,
        "most_in_flight": counts["most_in_flight"],
        "stored_bytes_a_request": stored / count,
    }


def rival(name: str, chosen: argparse.Namespace, port: int, prompts: Path, shown: bool) -> dict[str, float]:
    """Another client, on the same core as ours."""
    from benchmarks.asking.runs import ROOT

    command = ["taskset", "--cpu-list", str(CLIENT_CORE), sys.executable, "-m", "benchmarks.asking.clients", name,
               "--port", str(port), "--prompts", str(prompts), "--concurrency", str(chosen.concurrency)]  # fmt: skip
    command += ["--logprobs"] if shown else []
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return json.loads(said.splitlines()[-1])


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each number, and of the rates also the least and the most."""
    found = {name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]}
    rates = [one["rps"] for one in rounds]
    return {**found, "rps_least": round(min(rates), 1), "rps_most": round(max(rates), 1)}


def resume(chosen: argparse.Namespace) -> dict[str, Any]:
    """From process start to the first new request, out of a store of a million exchanges."""
    from benchmarks.asking.runs import Collector, Server, load_prompts, write_run

    half = chosen.prompts // 2
    with tempfile.TemporaryDirectory(dir=chosen.work) as scratch, Server(core=SERVER_CORE) as server:
        here = Path(scratch)
        prompts = load_prompts(chosen.data, chosen.prompts)
        run_file = write_run(here, server.port, prompts, teacher__concurrency=min(100, half))
        out, said = here / "run", here / "said"
        server.set(stop_after=half)
        first = Collector(run_file, out, said, "--quiet", core=CLIENT_CORE)
        wait_for(first, server, "answered", half, said)
        time.sleep(1)  # what was sent is stored by now
        first.kill()
        print(f"writing {chosen.exchanges - half} exchanges", file=sys.stderr)
        grow_store(out / "store", chosen.exchanges - half)
        server.set(stop_after=0, silent=True)
        for leftover in (out / "store").glob("index.sqlite*"):
            leftover.unlink()

        def to_first_request() -> float:
            server.reset()
            collector = Collector(run_file, out, said, "--quiet", core=CLIENT_CORE)
            wait_for(collector, server, "asked", 1, said)
            seconds = server.count()["first_at"] - collector.began_at
            ended = collector.kill()
            peaks.append(ended.rss_mb)
            cpu_s.append(round(ended.cpu_s, 2))
            return seconds

        peaks: list[float] = []
        cpu_s: list[float] = []
        cold = to_first_request()
        warm = [to_first_request() for _ in range(chosen.rounds)]
        server.set(silent=False)
        server.reset()
        last = Collector(run_file, out, said, "--quiet", core=CLIENT_CORE).wait()
        counts = server.count()
        assert (last.code, counts["answered"]) == (0, chosen.prompts - half), (last, counts, said.read_text()[-2000:])
        size = sum(path.stat().st_size for path in (out / "store").glob("*.seg"))
    return {
        "resume_first_request_s": round(statistics.median(warm), 2),
        "resume_first_request_without_index_s": round(cold, 2),
        "resume_rss_mb": round(max(last.rss_mb, *peaks[1:]), 1),
        "resume": {
            "exchanges": chosen.exchanges,
            "prompts": chosen.prompts,
            "answered_before": half,
            "store_gb": round(size / 1e9, 2),
            "first_request_s": [round(seconds, 2) for seconds in warm],
            "first_request_cpu_s": statistics.median(cpu_s[1:]),
            "first_request_without_index_cpu_s": cpu_s[0],
            "rss_mb_without_index": round(peaks[0], 1),
            "whole_run_s": round(last.wall_s, 1),
        },
    }


def grow_store(store: Path, count: int) -> None:
    from benchmarks.asking.bulk import grow

    grow(store, count)


def wait_for(collector: Any, server: Any, name: str, number: int, said: Path) -> None:
    """Until the server counts so many. Ends the benchmark when the collector ends before."""
    while server.count()[name] < number:
        if collector.has_ended:
            sys.exit(f"tutelage collect ended early:\n{said.read_text()[-2000:]}")
        time.sleep(0.005)


def main() -> None:
    from benchmarks.asking.runs import about, write_result

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--data", type=Path, help="JSON Lines with a column prompt, question, instruction or text")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--sdk-requests", type=int, default=5_000, help="asked of the other clients in each round")
    parser.add_argument("--logprob-requests", type=int, default=2_000)
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=RIVALS, help="clients to compare with")
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--exchanges", type=int, default=1_000_000)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--work", type=Path, help="where to work (default: the system's folder for temporary files)")
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    if chosen.work is not None:
        chosen.work.mkdir(parents=True, exist_ok=True)
    known = about()
    for part in chosen.part or PARTS:
        print(part, file=sys.stderr)
        found = {"rate": rate, "logprobs": logprobs, "resume": resume}[part](chosen)
        write_result(chosen.out, {**found, **known})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
