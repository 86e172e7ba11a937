"""Runs experiments: `python -m benchmarks.experiments [E5 ...] [--size ci|full] [--seed N ...] [--out FILE]`.

Each prints its criteria as PASS or FAIL with the figures. What is run replaces what the results held of the same experiment and
size; everything else there stays. The last line printed is the results in JSON.
"""

import argparse
import importlib
import json
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tutelage.hardware import describe

NAMES = ("E2", "E4", "E5", "E6", "E7", "E8", "E9", "E10", "E11", "E12", "E13", "E14", "E15", "E17", "E18", "E19", "E22")
RESULT = Path(__file__).parents[1] / "results" / "experiments.json"


def experiment(name: str, seed: int, size: str) -> dict[str, Any]:
    """Figures and criteria of one experiment, and the seconds it took."""
    module = importlib.import_module(f"benchmarks.experiments.{name.lower()}")
    began, used = time.perf_counter(), time.process_time()
    figures = module.run(seed, size)
    criteria = module.judge(figures)
    for one in criteria:
        print(f"{name} seed {seed}  {'PASS' if one.passed else 'FAIL'}  {one.name}: {one.words}", flush=True)
    return {
        "claim": module.__doc__.split("\n\n")[0].replace("\n", " "),
        "criteria": [one._asdict() for one in criteria],
        "figures": rounded(figures),
        "wall_s": round(time.perf_counter() - began, 1),
        "cpu_s": round(time.process_time() - used, 1),
    }


def rounded(value: Any) -> Any:
    """The same with five significant digits."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", choices=[*NAMES, []], metavar="E5", help="which (default: all)")
    parser.add_argument("--size", choices=("ci", "full"), default="ci")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    found: dict[str, Any] = json.loads(chosen.out.read_bytes()) if chosen.out.exists() else {}
    for name in chosen.name or NAMES:
        runs = {str(seed): experiment(name, seed, chosen.size) for seed in chosen.seed}
        found.setdefault(chosen.size, {})[name] = {
            "claim": next(iter(runs.values()))["claim"],
            "seeds": {seed: {key: value for key, value in one.items() if key != "claim"} for seed, one in runs.items()},
            "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        found |= {
            "machine": describe(),
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in ("tutelage", "torch", "transformers")},
        }
        chosen.out.parent.mkdir(exist_ok=True)
        chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
