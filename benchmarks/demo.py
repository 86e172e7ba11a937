"""How long a recipe takes, how much memory, and what it finds: `python benchmarks/demo.py [--size …] [--recipe …]`.

Runs the recipe in a fresh folder, watches the memory of its whole process tree, and writes one JSON file into
`benchmarks/results/`; the same is printed as one JSON line, last. With `--of FOLDER` a run that is finished is described
instead: its stages' own time, no memory.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from tutelage.hardware import describe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RECIPES = ROOT / "tutelage" / "recipes"
DEMO = "film_reviews"


def resident_mb(root: psutil.Process) -> float:
    """Resident memory of a process and all its descendants; what they share is counted once for each."""
    total = 0
    for process in (root, *root.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def matmul_gflops() -> dict[str, int]:
    """How fast this machine is right now: 1,024² matrix products on all cores."""
    import torch

    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
        left @ right
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < 1:
            left @ right
            count += 1
        found[str(dtype).removeprefix("torch.")] = round(2 * 1024**3 * count / (time.perf_counter() - began) / 1e9)
    return found


def result_file(recipe: str, size: str) -> Path:
    """`demo-SIZE.json` for the demo; for another recipe its run's name, with the size behind it where it is not the full."""
    if recipe == DEMO:
        return RESULTS / f"demo-{size}.json"
    name = tomllib.loads((RECIPES / recipe / "run.toml").read_text(encoding="utf-8"))["run"]["name"]
    return RESULTS / (f"{name}.json" if size == "full" else f"{name}-{size}.json")


def watched_run(recipe: str, size: str, folder: Path) -> dict[str, Any]:
    """Runs it; how fast the machine was before, wall seconds, and the most memory seen."""
    shutil.rmtree(folder, ignore_errors=True)
    speed = matmul_gflops()
    began = time.monotonic()
    command = ["run", str(RECIPES / recipe / "run.toml"), "--size", size, "--out", str(folder)]
    process = subprocess.Popen([sys.executable, "-m", "tutelage", *command])
    watched, peak = psutil.Process(process.pid), 0.0
    while process.poll() is None:
        try:
            peak = max(peak, resident_mb(watched))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.25)
    wall_s = time.monotonic() - began
    if process.wait() != 0:
        sys.exit(f"{recipe} ended with exit code {process.returncode}")
    return {"wall_s": round(wall_s, 1), "peak_rss_mb": round(peak), "matmul_gflops_before": speed}


def outcome(folder: Path) -> dict[str, Any]:
    """What a finished run found, out of its evidence."""
    evidence = json.loads((folder / "evidence.json").read_bytes())
    claim, cost = evidence["claims"][0], evidence["cost"]
    before = next((row["accuracy"] for row in evidence["systems"] if row["role"] == "before"), None)
    return {
        "teacher_accuracy": claim["teacher"],
        "student_accuracy": claim["student"],
        "before_accuracy": before,
        "difference": claim["difference"],
        "ci_low": claim["ci_low"],
        "ci_high": claim["ci_high"],
        "verdict": claim["verdict"],
        "n": claim["n"],
        "margin": claim["margin"],
        "power": claim["power"],
        "cpu_s_per_query_teacher": cost["teacher_cpu_s_per_query"],
        "cpu_s_per_query_student": cost["student_cpu_s_per_query"],
        "gap_recovered": claim["gap_recovered"],
        "break_even_queries": cost["break_even_queries"],
        "systems": evidence["systems"],
        "wall_s_by_stage": evidence["wall_s"],
        "versions": evidence["versions"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--recipe", choices=sorted(path.parent.name for path in RECIPES.glob("*/run.toml")), default=DEMO
    )
    parser.add_argument("--size", choices=("quick", "standard", "full"), default="standard")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/benchmark-<recipe>-<size>, made anew)")
    parser.add_argument("--of", type=Path, help="describe the finished run in this folder instead of running one")
    parser.add_argument("--note", default="", help="what a reader of the figures must know of the machine on that day")
    chosen = parser.parse_args()
    if chosen.of is None:
        folder = chosen.out or Path("runs") / f"benchmark-{chosen.recipe}-{chosen.size}"
        measured = watched_run(chosen.recipe, chosen.size, folder)
    else:
        folder = chosen.of
        measured = {"wall_s": None, "peak_rss_mb": None}
    result = {
        "recipe": chosen.recipe,
        "size": chosen.size,
        **measured,
        **outcome(folder),
        "hardware": describe(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "note": chosen.note,
    }
    RESULTS.mkdir(exist_ok=True)
    result_file(chosen.recipe, chosen.size).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
