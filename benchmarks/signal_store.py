"""What a cached signal costs and loses: `python benchmarks/signal_store.py [--data FILE] [--only loss] [--seeds N]`.

Teacher: SmolLM2-135M-Instruct. Student: 10 of its 30 layers. Texts: questions and answers of `--data` (JSON Lines with
`question` and `answer`) in the teacher's own turn format; loss on the answers. Without it the film-review sentences that the demo
fetches serve. Every kind of signal is written to a cache and read back before anything is measured:

- `bytes_per_token`: bytes of all its files for each position;
- `variance_ratio_vs_rskd`: E ‖t − p‖² of 50 random draws (exact) over the mean ‖t − p‖² of what was read back;
- `angle_deg`: between the student's parameter gradients with this signal and with the whole distribution, over
  `--angle-positions` positions, the larger of before and after training on the whole distribution;
- `loss_gap_nats`: held-out KL(teacher ‖ student) after `--steps` steps on this signal, less that after as many on the whole one
  in the same order of the texts; the mean over `--seeds` orders, each with a drawing of its own (`loss_gap_by_seed`,
  `loss_gap_sd`). `loss.whole_sd_nats` is how much the whole one's own loss moves from order to order.

`--only loss` trains the loss arms alone and merges their fields into the result, with a date and a machine of their own. With
`--warm-steps` all arms begin as one student that has learnt the whole distribution for so long; `loss_after_warm_start` has them.

Beside it: 50 draws (RS-KD), the 12 likeliest renormalised, the 50 likeliest as DistillKit's smaller recommended setting
keeps them (1 exact, the others by a fit in 1, t and √t, missing ones taken as 0). The last line printed is the result.
"""

import argparse
import json
import math
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.signals.bench import DISTILLKIT, Bench, Source, kinds_of, names_of, source_of, whole
from benchmarks.signals.loss import LossArms, merged
from tutelage.hardware import describe

RESULT = Path(__file__).parent / "results" / "signal_store.json"


def errors(bench: Bench, source: Source) -> dict[str, float]:
    """Mean ids, mean ‖t − p‖², and how many times less that is than what 50 random draws would have."""
    squared = draws = 0.0
    ids = count = 0
    for example in bench.train:
        p_NV = bench.logp(example).exp()
        draws += float((p_NV * (1 - p_NV)).sum(dtype=torch.float64)) / 50
        row = source(example)
        assert row is not None
        ids += int((row.weights_NK > 0).sum())
        count += len(p_NV)
        squared += float(p_NV.scatter_add_(1, row.ids_NK, -row.weights_NK).square().sum(dtype=torch.float64))
    return {
        "ids": round(ids / count, 2),
        "mse": squared / count,
        "variance_ratio_vs_rskd": round(draws / squared, 2),
    }


def angle(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one.double(), other.double()
    return math.degrees(math.acos(min(1.0, float(one @ other / (one.norm() * other.norm())))))


def measure(bench: Bench) -> dict[str, Any]:
    """Everything: the losses too, over all seeds."""
    chosen = bench.chosen
    start, trained = bench.student(), bench.trained(whole, chosen.seed)
    wanted = [bench.gradient(student, whole) for student in (start, trained)]
    arms, rows = LossArms(bench, names_of(chosen)), {}
    for name in arms.names:
        source, facts = source_of(bench, name, chosen.seed)
        gradients = [bench.gradient(student, source) for student in (start, trained)]
        angles = [angle(found, right) for found, right in zip(gradients, wanted, strict=True)]
        rows[name] = {
            **facts,
            **errors(bench, source),
            "angle_deg": round(max(angles), 2),
            "angle_deg_before_after_training": [round(each, 2) for each in angles],
            "norm_ratio": round(float(gradients[1].norm() / wanted[1].norm()), 3),
        }
        print(name, rows[name], file=sys.stderr, flush=True)
    for seed in range(chosen.seed, chosen.seed + chosen.seeds):
        arms.take(seed, trained if seed == chosen.seed else None)
    entropy = [-(logp_NV.exp() * logp_NV).sum(-1) for logp_NV in map(bench.logp, bench.train)]
    found = {
        **{
            name: rows.get("threshold", {}).get(name)
            for name in ("bytes_per_token", "variance_ratio_vs_rskd", "angle_deg")
        },
        "c": f"1/{1 / chosen.c[0]:g}",
        "positions": sum(len(example.positions_N) for example in bench.train),
        "held_positions": sum(len(example.positions_N) for example in bench.held),
        "entropy_nats": round(float(torch.cat(entropy).mean()), 3),
        "angle_positions": chosen.angle_positions,
        "signals": rows,
    }
    return merged(found | made_on(), arms.by_signal(), arms.together() | made_on())


def losses_alone(bench: Bench, result: Path) -> dict[str, Any]:
    """The loss arms, merged into the result after every seed. What a signal that the result lacks costs is measured too."""
    chosen, arms = bench.chosen, LossArms(bench, names_of(bench.chosen))
    before: dict[str, Any] = json.loads(result.read_bytes()) if result.exists() else {}
    found, costs = before, {}
    for seed in range(chosen.seed, chosen.seed + chosen.seeds):
        arms.take(seed)
        for name in arms.names:
            if name not in before.get("signals", {}) and name not in costs:
                costs[name] = arms.facts[name] | errors(bench, source_of(bench, name, seed)[0])
        if chosen.warm_steps:
            found = before | {"loss_after_warm_start": arms.together() | {"signals": arms.by_signal()} | made_on()}
        else:
            rows = {name: costs.get(name, {}) | fields for name, fields in arms.by_signal().items()}
            found = merged(before, rows, arms.together() | made_on())
        write(result, found)
    return found


def made_on() -> dict[str, Any]:
    """The machine, the versions and the day."""
    return {
        "hardware": describe(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("tutelage", "torch", "transformers", "numpy")},
        "date": datetime.now(UTC).date().isoformat(),
    }


def write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--texts", type=int, default=130, help="texts to capture and train on")
    parser.add_argument("--held", type=int, default=24, help="texts held out, from the end of the file")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm-steps", type=int, default=0, help="on the whole distribution before every arm begins")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--angle-positions", type=int, default=2048)
    parser.add_argument("--c", type=float, nargs="+", default=[1 / 50], help="of threshold sampling; the first is ours")
    parser.add_argument("--signals", nargs="+", help="only these (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=3, help="orders and drawings of the loss arms")
    parser.add_argument("--only", choices=("loss",), help="the loss arms alone, merged into --out")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--work", type=Path, help="where to keep models and caches (default: a temporary folder)")
    chosen = parser.parse_args()
    if chosen.warm_steps and not chosen.only:
        parser.error("--warm-steps is for --only loss")
    if unknown := {*(chosen.signals or ())} - {*kinds_of(chosen), DISTILLKIT}:
        parser.error(
            f"no signals: {', '.join(sorted(unknown))}; there are {', '.join((*kinds_of(chosen), DISTILLKIT))}"
        )
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(chosen, chosen.work or Path(scratch))
        found = losses_alone(bench, chosen.out) if chosen.only else measure(bench)
    write(chosen.out, found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
