"""A training step beside TRL's: `python benchmarks/train_step.py [--data FILE] [--steps N] [--rounds N] [--part PART]`.

Same weights (SmolLM2-135M, a student of its first 10 layers), questions, answers, precision and batches of 4, tokens counted
without padding; every side runs in a process of its own, sides alternate, medians are taken over steps and rounds.
Parts: `live` (teacher computed in the step, against GKDTrainer off-policy), `cached` (signals of threshold sampling read from a
cache on the disk, against the same), `onpolicy` (rollouts of 128 tokens and reverse KL, against DistillationTrainer; once more
with a student that writes with weights rounded to 8 bits), `rollout` (`benchmarks/rollout.py`: as a fraction of llama.cpp's
own batched rate at float32), `bf16-loss` (one step of both in bfloat16, also where the CPU only emulates it: its first loss,
no times).

`--data` is a JSON Lines file with `question` and `answer`, for instance GSM8K's; without it film-review sentences are
continued. bfloat16 is measured where the CPU multiplies it natively, or when `--precision` asks for it. Results are merged
into `benchmarks/results/train_step.json`, whose first figures are of the precision that the CPU has; it is the last line.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tutelage.hardware import describe, has_native_bf16

RESULT = Path(__file__).parent / "results" / "train_step.json"
ROOT = Path(__file__).parent.parent
PARTS = ("live", "cached", "onpolicy", "rollout", "bf16-loss")
FIRST = (
    "live_ratio", "cached_ratio", "memory_ratio", "onpolicy_ratio", "trl_tokens_per_s", "ours_live_tokens_per_s", "mfu_live",
    "mfu_cached",
)  # fmt: skip
PARAMETERS = {"teacher": 134_515_008, "student": 63_707_904}


def side(module: str, what: str, precision: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """One process's figures."""
    command = [sys.executable, "-m", f"benchmarks.training.{module}", what, "--cache", str(chosen.cache)]
    command += ["--steps", str(chosen.steps), "--precision", precision]
    command += ["--data", str(chosen.data)] if chosen.data else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[2:])} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{precision} {module} {what}: {statistics.median(found['rates']):.0f} tokens/s, {found['peak_gb']} GB",
        flush=True,
    )
    return found


def together(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Median rate over all steps, largest peak, and what does not vary."""
    rates = [rate for one in rounds for rate in one["rates"]]
    return {
        **rounds[0], "rates": rates, "tokens_per_s": statistics.median(rates), "peak_gb": max(one["peak_gb"] for one in rounds),
    }  # fmt: skip


def measure(precision: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """All sides, alternating, as often as `--rounds` says."""
    sides = {
        "live": (("trl_side", "live"), ("ours", "live")),
        "cached": (("ours", "cached"),),
        "onpolicy": (("trl_side", "onpolicy"), ("ours", "onpolicy"), ("ours", "onpolicy-int8")),
    }
    taken: dict[str, list[dict[str, Any]]] = {}
    if "cached" in chosen.part:
        side("ours", "capture", precision, chosen)
    for _ in range(chosen.rounds):
        for module, what in (one for part in chosen.part for one in sides.get(part, ())):
            taken.setdefault(f"{module}:{what}", []).append(side(module, what, precision, chosen))
    found = {name: together(rounds) for name, rounds in taken.items()}
    figures: dict[str, Any] = {}
    if "live" in chosen.part:
        trl, ours = found["trl_side:live"], found["ours:live"]
        figures |= {
            "trl_tokens_per_s": trl["tokens_per_s"],
            "ours_live_tokens_per_s": ours["tokens_per_s"],
            "live_ratio": round(ours["tokens_per_s"] / trl["tokens_per_s"], 2),
            "memory_ratio": round(ours["peak_gb"] / trl["peak_gb"], 2),
            "loss_rel_diff": abs(ours["first_loss"] / trl["first_loss"] - 1),
        }
        if "cached" in chosen.part:
            figures["cached_ratio"] = round(found["ours:cached"]["tokens_per_s"] / trl["tokens_per_s"], 2)
            figures["ours_cached_tokens_per_s"] = found["ours:cached"]["tokens_per_s"]
    if "onpolicy" in chosen.part:
        trl, ours = found["trl_side:onpolicy"], found["ours:onpolicy"]
        figures |= {
            "trl_onpolicy_tokens_per_s": trl["tokens_per_s"],
            "ours_onpolicy_tokens_per_s": ours["tokens_per_s"],
            "onpolicy_ratio": round(ours["tokens_per_s"] / trl["tokens_per_s"], 2),
            "onpolicy_int8_ratio": round(found["ours:onpolicy-int8"]["tokens_per_s"] / trl["tokens_per_s"], 2),
            "onpolicy_memory_ratio": round(ours["peak_gb"] / trl["peak_gb"], 2),
            "rollout_time_share": ours["rollout_time_share"],
            "rollout_tokens_per_s": ours["rollout_tokens_per_s"],
        }
    return figures | {"sides": found}


def first_loss_apart(precision: str, chosen: argparse.Namespace) -> float:
    """How far our first loss lies from TRL's, as a share of it."""
    one_step = argparse.Namespace(**{**vars(chosen), "steps": 1})
    theirs, ours = (side(module, "live", precision, one_step)["first_loss"] for module in ("trl_side", "ours"))
    return abs(ours / theirs - 1)


def rollout_fraction(chosen: argparse.Namespace) -> float:
    """Our rollouts' rate, refresh included, over llama.cpp's own at the same precision."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "rollout.json"
        command = [sys.executable, "benchmarks/rollout.py", "--kinds", "F32", "--rounds", "3", "--out", str(out)]
        command += ["--data", str(chosen.data)] if chosen.data else []
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        return json.loads(out.read_bytes())["ratio_same_precision"]


def matmul_gflops(precision: str) -> float:
    """What the machine multiplies at its best just now, at the shapes of the student's blocks."""
    import torch

    dtype = getattr(torch, precision)
    one, other = torch.randn(1024, 576, dtype=dtype), torch.randn(1536, 576, dtype=dtype)
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        torch.nn.functional.linear(one, other)
        best = min(best, time.perf_counter() - began)
    return round(2 * 1024 * 576 * 1536 / best / 1e9, 1)


def utilisation(figures: dict[str, Any], peak_gflops: float) -> dict[str, float]:
    """Model FLOPs utilisation: 2 a parameter and token for the teacher, 6 for the student, of the measured peak."""
    cost = {"cached": 6 * PARAMETERS["student"], "live": 6 * PARAMETERS["student"] + 2 * PARAMETERS["teacher"]}
    return {
        f"mfu_{what}": round(figures[f"ours_{what}_tokens_per_s"] * flops / (1e9 * peak_gflops), 2)
        for what, flops in cost.items()
        if f"ours_{what}_tokens_per_s" in figures
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs") / "bench-train")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--precision", nargs="+", choices=("float32", "bfloat16"))
    chosen = parser.parse_args()
    chosen.data, chosen.cache = chosen.data and chosen.data.resolve(), chosen.cache.resolve()
    found: dict[str, Any] = json.loads(RESULT.read_bytes()) if RESULT.exists() else {}
    precisions = chosen.precision or ["float32", *(["bfloat16"] if has_native_bf16() else [])]
    for precision in precisions if {"live", "cached", "onpolicy"} & {*chosen.part} else ():
        peak = matmul_gflops(precision)
        figures = measure(precision, chosen)
        figures |= utilisation(figures, peak) | {"matmul_gflops": peak}
        found[precision] = found.get(precision, {}) | figures
        found[precision]["at"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if "rollout" in chosen.part:
        found["rollout_fraction"] = rollout_fraction(chosen)
    if "bf16-loss" in chosen.part:
        found["loss_rel_diff_bf16"] = first_loss_apart("bfloat16", chosen)
    if "loss_rel_diff" in found.get("float32", {}):
        found["loss_rel_diff_fp32"] = found["float32"]["loss_rel_diff"]
    found["precision"] = "bfloat16" if "bfloat16" in found else "float32"
    found |= {name: found[found["precision"]].get(name) for name in FIRST}
    found["machine"] = describe()
    packages = ("tutelage", "torch", "transformers", "trl")
    found["versions"] = {"python": platform.python_version()} | {name: version(name) for name in packages}
    found["data"] = chosen.data.name if chosen.data else "film-review-sentences"
    found = {name: found[name] for name in sorted(found, key=lambda name: isinstance(found[name], dict))}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
