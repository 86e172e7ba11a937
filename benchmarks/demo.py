"""How long the demo takes, how much memory, and what it finds: `python benchmarks/demo.py [--size quick|standard|full]`.

Runs the demo in a fresh folder, watches the memory of its whole process tree, and writes
`benchmarks/results/demo-<size>.json`; the same is printed as one JSON line, last.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from tutelage.hardware import describe

RESULTS = Path(__file__).parent / "results"


def resident_mb(root: psutil.Process) -> float:
    """Resident memory of a process and all its descendants; what they share is counted once for each."""
    total = 0
    for process in (root, *root.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def matmul_gflops() -> dict[str, float]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("quick", "standard", "full"), default="standard")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/benchmark-<size>, made anew)")
    chosen = parser.parse_args()
    folder = chosen.out or Path("runs") / f"benchmark-{chosen.size}"
    shutil.rmtree(folder, ignore_errors=True)
    speed = matmul_gflops()
    flags = [] if chosen.size == "standard" else [f"--{chosen.size}"]
    began = time.monotonic()
    demo = subprocess.Popen([sys.executable, "-m", "tutelage", "demo", *flags, "--out", str(folder)])
    watched, peak = psutil.Process(demo.pid), 0.0
    while demo.poll() is None:
        try:
            peak = max(peak, resident_mb(watched))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.25)
    wall_s = time.monotonic() - began
    if demo.wait() != 0:
        sys.exit(f"the demo ended with exit code {demo.returncode}")
    evidence = json.loads((folder / "evidence.json").read_bytes())
    claim, cost = evidence["claims"][0], evidence["cost"]
    result = {
        "size": chosen.size,
        "wall_s": round(wall_s, 1),
        "peak_rss_mb": round(peak),
        "teacher_accuracy": claim["teacher"],
        "student_accuracy": claim["student"],
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
        "wall_s_by_stage": evidence["wall_s"],
        "matmul_gflops_before": speed,
        "hardware": describe(),
        "versions": evidence["versions"],
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"demo-{chosen.size}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
