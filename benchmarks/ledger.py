"""What the ledger costs and what it catches: `python benchmarks/ledger.py [--data FILE] [--run FOLDER] [--part PART]`.

Parts: `leaves` (leaf bytes to the root, 1,000,000 and 10,000,000), `exchanges` (stored exchanges to the source table's
roots, then proofs from that tree), `mutations` (a small run, changed byte by byte and line by line), `forgeries`
(consistent ones and malformed input), `overhead` (share of a finished demo run that is the ledger's). `--data` is a JSON
Lines file with a text in `question` or `instruction`; without it the film-review sentences that the demo fetches serve.
Each part runs in a process of its own; results are merged into `benchmarks/results/ledger.json`, and the last line printed
is that object.
"""

import argparse
import functools
import hashlib
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.hardware import describe

RESULT = Path(__file__).parent / "results" / "ledger.json"
PARTS = ("leaves", "exchanges", "mutations", "forgeries", "overhead")
RUN_KEY = bytes(range(32))


def rss_mb() -> float:
    """Peak resident memory of this process."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def leaves(chosen: argparse.Namespace) -> dict[str, Any]:
    """From leaf bytes (400 each) to the root, tree written to disk."""
    from tutelage.ledger.merkle import leaf_hash
    from tutelage.ledger.tiles import LevelWriter

    found: dict[str, Any] = {}
    filler = b"x" * 392
    for count in (chosen.leaves, 10 * chosen.leaves):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            with LevelWriter(Path(folder) / "tree") as tree:
                for number in range(count):
                    tree.append(leaf_hash(number.to_bytes(8, "big") + filler))
                root = tree.root
            seconds = time.perf_counter() - began
        found[f"leaves_{count}"] = {"seconds": round(seconds, 2), "root": root.hex(), "rss_mb": rss_mb()}
    first = found[f"leaves_{chosen.leaves}"]["seconds"]
    return {"leaves_to_root_s_per_million": round(first * 1e6 / chosen.leaves, 2), **found}


def texts(data: Path | None) -> list[str]:
    """Real prompts."""
    if data is not None:
        rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
        return [row.get("question") or row["instruction"] for row in rows]
    from tutelage.resources import FILM_REVIEWS, fetch

    return [line.split("\t")[-1] for line in fetch(FILM_REVIEWS).read_text(encoding="utf-8").splitlines()]


def make_store(folder: Path, count: int, prompts: list[str]) -> list[str]:
    """A store segment of that many exchanges as an endpoint gives them, with 20 log-probabilities each; their addresses."""
    top = [{"bytes_b64": "IGdvb2Q=", "token_id": at, "logprob_unats": -1000 * at} for at in range(20)]
    model = {
        "provider": "huggingface", "route": "embedded", "model_asked": "smollm2-135m-instruct", "model_reported": "smollm2",
        "weights_digest": "sha256:" + 64 * "a", "fingerprint": "", "tokenizer_digest": "", "template_digest": "",
        "probe_digest": "", "licence": "Apache-2.0",
    }  # fmt: skip
    addresses = []
    folder.mkdir(parents=True)
    with (folder / "000001.seg").open("wb", buffering=1 << 20) as file:
        for number in range(count):
            request = {
                "messages": [{"role": "user", "content": f"{number}: {prompts[number % len(prompts)]}"}],
                "params": {"max_tokens": 1, "temperature": "0", "logprobs": True, "top_logprobs": 20},
                "model_asked": "smollm2-135m-instruct", "route": "embedded", "purpose": "train", "draw": 0,
            }  # fmt: skip
            address, line = stored("request", request)
            exchange = {
                "request_digest": address, "model": model, "answer": " good", "reasoning": "", "tool_calls": [],
                "finish_reason": "length", "logprobs": [{"chosen": top[0], "top": top}],
                "usage": {"prompt_tokens": 190, "cached_tokens": 165, "completion_tokens": 1},
                "price": {"cost_nusd": 0, "source": "own", "dated": "2026-11-24"}, "latency_ms": 80, "attempts": 1,
                "request_id_hash": "", "raw_body_digest": "sha256:" + 64 * "b", "terms_digest": "sha256:" + 64 * "c",
                "twin": None, "origin": "asked", "role": "soft-target", "asked_at": "2026-11-24T00:00:00Z",
            }  # fmt: skip
            file.write(line + stored("exchange", exchange)[1])
            addresses.append(address)
    return addresses


def stored(kind: str, value: dict[str, Any]) -> tuple[str, bytes]:
    """A record's digest and line (`store.segment.encode` without its checks, which would take the benchmark's time)."""
    body = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    return digest, b"%s %s %s\n" % (digest.encode(), kind.encode(), body)


class Bench(NamedTuple):
    """What a proof is made from: the attributes of `ledger.disclose.Sealed` that it uses."""

    run: Path
    examples: Path
    key: bytes
    rows: list[dict[str, Any]]


def exchanges(chosen: argparse.Namespace) -> dict[str, Any]:
    """From stored exchanges to the roots of the source table: one target role and the prompt's author, so two records and
    four tree nodes an exchange. Then proofs of single examples out of the trees on disk."""
    from tutelage.ledger.examples import Taken, Tokens, source_table, write_examples
    from tutelage.pipeline.commit import SELECTION_TREE, commit_selection
    from tutelage.store.store import Store

    with tempfile.TemporaryDirectory(dir=chosen.scratch) as scratch:
        run = Path(scratch)
        addresses = make_store(run / "store", chosen.exchanges, texts(chosen.data))
        began = time.perf_counter()
        store = Store(run / "store")
        indexed = time.perf_counter() - began
        prompt = {"source": "prompts", "source_digest": "sha256:" + 64 * "d", "licence": "MIT"}
        tokens = {"soft-target": Tokens(3, 3)}

        def taken() -> Iterator[Taken]:
            for at, pair in enumerate(store.pairs(addresses)):
                yield Taken(at, pair.digest, pair.exchange, pair.request, prompt, tokens)

        began = time.perf_counter()
        rows = write_examples(RUN_KEY, taken(), [], run / "ledger" / "examples")
        table = source_table(RUN_KEY, rows)
        seconds = time.perf_counter() - began
        memory = rss_mb()
        selected = [{"exchange": pair.digest} for pair in store.pairs(addresses)]
        holder: Any = type("Holder", (), {"key": RUN_KEY, "folder": run})
        began = time.perf_counter()
        root = commit_selection(holder, selected)
        selection_s = time.perf_counter() - began
        store.close()
        bench = Bench(run, run / "ledger" / "examples", RUN_KEY, table["rows"])
        proofs = measure_proofs(bench, chosen.exchanges, root)
        assert (run / SELECTION_TREE / "0").exists()
    scale = 1e6 / chosen.exchanges
    return {
        "exchanges": chosen.exchanges,
        "exchanges_to_root_s_per_million": round(seconds * scale, 1),
        "index_s_per_million": round(indexed * scale, 1),
        "selection_s_per_million": round(selection_s * scale, 1),
        "build_rss_mb": memory,
        **proofs,
    }


def measure_proofs(bench: Bench, count: int, selection_root: str) -> dict[str, Any]:
    """Medians over 300 examples: making a proof, checking it without signatures, its bytes as compact JSON."""
    from tutelage.ledger import verify
    from tutelage.ledger.disclose import open_record
    from tutelage.ledger.examples import find_leaf

    number = next(at for at, entry in enumerate(bench.rows) if entry["row"]["role"] == "soft-target")
    row = bench.rows[number]["row"]
    made_ms, checked_ms, sizes, path_sizes = [], [], [], []
    checker = verify._Checker(Path(), verify.Trust())
    checker.statement = {"predicate": {"selection": {"root": selection_root, "examples": count}}}
    for step in range(300):
        position = (step * 7919 * 31) % count
        began = time.perf_counter()
        index = find_leaf(bench.examples, number, position)
        assert index is not None
        opened = open_record(bench, number, index)  # type: ignore[arg-type]
        made_ms.append(1000 * (time.perf_counter() - began))
        sizes.append(len(json.dumps(opened, separators=(",", ":"))))
        paths = {name: opened[name] for name in ("index", "salt", "proof", "selection_proof")}
        path_sizes.append(len(json.dumps(paths, separators=(",", ":"))))
        began = time.perf_counter()
        checker._opened(opened, row)
        checked_ms.append(1000 * (time.perf_counter() - began))
    return {
        "proof_ms": round(statistics.median(made_ms), 3),
        "check_ms": round(statistics.median(checked_ms), 3),
        "proof_bytes": max(sizes),
        "proof_bytes_without_record": max(path_sizes),
    }


def small_run(folder: Path, **overrides: Any) -> Any:
    """A finished, signed run on a loopback teacher and a tiny student (weights under 1 MB); returns its signer."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    from tests.loopback import Teacher, serving
    from tests.models.tiny import save_tiny
    from tests.pipeline.conftest import do, make_config
    from tutelage.ledger.keys import Signer

    signer = Signer("example.org/ada", ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1()))
    folder.mkdir(parents=True, exist_ok=True)
    base = save_tiny(folder / "tiny")
    small = {"data.train": 16, "data.held_out": 12, "data.validation": 4, "train.epochs": 3, "train.segment_steps": 4}
    with serving(Teacher()) as teacher:
        do(make_config(folder, teacher, base), folder / "run", signer, **small | overrides)
    return signer


def covered(run: Path) -> list[Path]:
    """The files that the record covers, by the verifier's own list of what it does not."""
    left_out = ("store/index.sqlite", "report.html", "logs/", "work/", "run.toml", "environment.json", ".lock")
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.stat().st_size]
    return [path for path in files if not path.relative_to(run).as_posix().startswith(left_out)]


def mutations(chosen: argparse.Namespace) -> dict[str, Any]:
    """Single bytes over all covered files, files in turn; then lines swapped, dropped, doubled, moved, cut. Two processes."""
    halves = [
        subprocess.Popen(
            [sys.executable, __file__, "--part", "mutated-half", "--mutations", str(chosen.mutations // 2), "--seed", str(seed)],
            stdout=subprocess.PIPE, text=True,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    counted = [json.loads(half.communicate()[0].splitlines()[-1]) for half in halves]
    total = {name: sum(half[name] for half in counted) for name in counted[0] if name != "examples"}
    return {**total, "mutation_examples": [example for half in counted for example in half["examples"]][:10]}


def mutated_half(chosen: argparse.Namespace) -> dict[str, Any]:
    """One process's share, on a run of its own."""
    import random

    from tutelage.ledger import verify as verifier
    from tutelage.ledger.verify import Trust, verify

    # Most changes leave the signatures alone: the same key, message and signature are worked out once.
    verifier.ed25519_verify = functools.lru_cache(4096)(verifier.ed25519_verify)
    draw = random.Random(chosen.seed)
    counts = dict.fromkeys(
        ("mutations", "missed", "not_located_file", "not_located_byte", "lines_changed", "lines_missed"), 0
    )
    examples: list[str] = []
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as scratch:
        signer = small_run(Path(scratch))
        run, trust = Path(scratch) / "run", Trust(signer.verification_key)
        assert not verify(run, trust).findings, verify(run, trust).findings
        files = covered(run)
        for number in range(chosen.mutations):
            path = files[number % len(files)]
            name, original = path.relative_to(run).as_posix(), path.read_bytes()
            at = draw.randrange(len(original))
            changed = bytes([original[at] ^ draw.randrange(1, 256)])
            path.write_bytes(original[:at] + changed + original[at + 1 :])
            findings = verify(run, trust).findings
            path.write_bytes(original)
            counts["mutations"] += 1
            counts["missed"] += not findings
            in_file = [finding for finding in findings if finding.where.startswith(name)]
            at_byte = any(
                f" byte {at}" == finding.where[len(name) :].rstrip() or finding.where.endswith(f" byte {at}")
                for finding in in_file
            )
            counts["not_located_file"] += not in_file
            counts["not_located_byte"] += not at_byte
            if not at_byte and len(examples) < 10:
                examples.append(f"{name} byte {at}: {[finding.where for finding in findings][:3]}")
        for path in files:
            lines = path.read_bytes().splitlines(keepends=True)
            if len(lines) < 4 or path.suffix in (".safetensors", ".new"):
                continue
            original = path.read_bytes()
            for how in (swapped, dropped, doubled, moved, cut):
                path.write_bytes(changed := b"".join(how(list(lines), draw)))
                if changed != original:
                    counts["lines_changed"] += 1
                    counts["lines_missed"] += not verify(run, trust).findings
                path.write_bytes(original)
    return {**counts, "examples": examples}


def swapped(lines: list[bytes], draw: Any) -> list[bytes]:
    at = draw.randrange(len(lines) - 1)
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    return lines


def dropped(lines: list[bytes], draw: Any) -> list[bytes]:
    del lines[draw.randrange(len(lines))]
    return lines


def doubled(lines: list[bytes], draw: Any) -> list[bytes]:
    at = draw.randrange(len(lines))
    return [*lines[: at + 1], *lines[at:]]


def moved(lines: list[bytes], draw: Any) -> list[bytes]:
    lines.insert(draw.randrange(len(lines)), lines.pop(draw.randrange(len(lines))))
    return lines


def cut(lines: list[bytes], draw: Any) -> list[bytes]:
    return lines[: draw.randrange(1, len(lines))]


def forgeries(chosen: argparse.Namespace) -> dict[str, Any]:
    """Forgeries that agree with themselves, and input made to confuse a verifier; each must be refused."""
    from benchmarks import forge

    with tempfile.TemporaryDirectory(dir=chosen.scratch) as scratch:
        outcomes = forge.all_forgeries(Path(scratch), small_run)
    missed = [name for name, refused in outcomes.items() if not refused]
    return {
        "forgeries": len(outcomes),
        "forgeries_missed": len(missed),
        "forgeries_tried": sorted(outcomes),
        "missed_names": missed,
    }


def overhead(chosen: argparse.Namespace) -> dict[str, Any]:
    """The ledger's share of a finished run: its two stages as recorded, what runs outside stages timed again on the folder."""
    from tutelage.ledger.locator import write_locator
    from tutelage.ledger.merkle import leaf_hash, root
    from tutelage.pipeline.commit import commit_exchanges, commit_selection
    from tutelage.pipeline.learning import read_selection
    from tutelage.pipeline.run import Run
    from tutelage.pipeline.sealing import located
    from tutelage.progress import Quiet, Stop

    if chosen.run is None or not (chosen.run / "provenance" / "statement.json").exists():
        return {"overhead_fraction": None, "overhead_why_not": "give a finished run: --run runs/demo"}
    lines = (chosen.run / "ledger" / "log.jsonl").read_bytes().splitlines()
    latest = {entry["stage"]: entry["facts"] for entry in map(json.loads, lines) if entry["kind"] == "statement"}
    wall_s = {name: facts["wall_ms"] / 1000 for name, facts in latest.items()}
    with Run(chosen.run, Quiet(), Stop()) as run:

        def rows(name: str) -> list[str]:
            return [
                json.loads(line)["address"]
                for line in (chosen.run / name / "exchanges.jsonl").read_bytes().splitlines()
            ]

        timed = {
            "locator": seconds_of(lambda: write_locator(run.folder, located(run.folder))),
            "commit collect": seconds_of(lambda: commit_exchanges(run, "collect", rows("collect"))),
            "commit curate": seconds_of(lambda: commit_selection(run, read_selection(run.folder)["train"])),
            "commit prove": seconds_of(lambda: commit_exchanges(run, "prove", rows("prove"))),
            "log": seconds_of(lambda: [root(map(leaf_hash, lines[:at])) for at in range(1, len(lines))]),
        }
    inside = {"account": wall_s["account"], "seal": wall_s["seal"]}
    total = sum(wall_s.values()) + timed["locator"]
    spent = sum(inside.values()) + sum(timed.values())
    return {
        "overhead_fraction": round(spent / total, 5),
        "overhead_s": {name: round(value, 3) for name, value in (inside | timed).items()},
        "overhead_run": {"name": chosen.run.name, "wall_s": round(total, 1), "train_s": round(wall_s["train"], 1)},
        "overhead_fraction_of_training": round(spent / wall_s["train"], 5),
    }


def seconds_of(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--part", choices=(*PARTS, "mutated-half"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--run", type=Path, help="a finished run, for its overhead")
    parser.add_argument("--leaves", type=int, default=1_000_000)
    parser.add_argument("--exchanges", type=int, default=1_000_000)
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scratch", type=Path, help="where to work (default: the system's folder for temporary files)")
    chosen = parser.parse_args()
    if chosen.part is not None:
        work = {"leaves": leaves, "exchanges": exchanges, "mutations": mutations, "mutated-half": mutated_half,
                "forgeries": forgeries, "overhead": overhead}[chosen.part]  # fmt: skip
        found = work(chosen)
        if chosen.part in PARTS:
            merge(found)
        print(json.dumps(found))
        return
    for part in PARTS:
        print(part, file=sys.stderr)
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--part", part], check=True, stdout=subprocess.DEVNULL)
    print(json.dumps(json.loads(RESULT.read_bytes())))


def merge(found: dict[str, Any]) -> None:
    """Adds to the result file; what another part measured stays."""
    before = json.loads(RESULT.read_bytes()) if RESULT.exists() else {}
    versions = {name: version(name) for name in ("tutelage", "cryptography", "orjson", "numpy")}
    about = {"hardware": describe(), "python": platform.python_version(), "versions": versions}
    about["date"] = datetime.now(UTC).date().isoformat()
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(before | found | about, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
