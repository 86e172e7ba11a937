"""The held-out loss that each kind of signal ends at, over several orders of the texts and drawings of the signal.

One seed is one order of the training texts, and for signals that are drawn one drawing. The whole distribution is trained on
in the same order, so that a gap compares students that differ in the signal alone; how much the whole one's loss moves from
order to order says which gaps are too small to mean anything.
"""

import statistics
import sys
from typing import Any

from benchmarks.signals.bench import Bench, source_of, whole


def spread(values: list[float]) -> float | None:
    """Standard deviation over seeds; None of one."""
    return statistics.stdev(values) if len(values) > 1 else None


class LossArms:
    """Held-out KL(teacher ‖ student) in nats a token, by signal, seed after seed."""

    def __init__(self, bench: Bench, names: tuple[str, ...]) -> None:
        self.bench, self.names = bench, names
        self.whole: list[float] = []
        self.gaps: dict[str, list[float]] = {name: [] for name in names}
        self.facts: dict[str, dict[str, Any]] = {}

    def take(self, seed: int, trained_on_whole: Any = None) -> None:
        """Trains one student a signal; `trained_on_whole` is the one of the whole distribution where it is there already."""
        bench = self.bench
        reached = bench.held_out_kl(trained_on_whole or bench.trained(whole, seed))
        self._tell("whole", seed, reached)
        for name in self.names:
            source, self.facts[name] = source_of(bench, name, seed)
            after = bench.held_out_kl(bench.trained(source, seed))
            self.gaps[name].append(after - reached)
            self._tell(name, seed, after)
        self.whole.append(reached)

    def _tell(self, name: str, seed: int, after: float) -> None:
        print(f"seed {seed}, {name}: {after:.4f} nats", file=sys.stderr, flush=True)

    def by_signal(self) -> dict[str, dict[str, Any]]:
        return {name: gap_fields(self.gaps[name]) for name in self.names}

    def together(self) -> dict[str, Any]:
        """What all arms share."""
        chosen = self.bench.chosen
        return {
            "seeds": list(range(chosen.seed, chosen.seed + len(self.whole))),
            "warm_steps": chosen.warm_steps,
            "steps": chosen.steps,
            "learning_rate": chosen.lr,
            "texts": len(self.bench.train),
            "held_positions": sum(len(example.positions_N) for example in self.bench.held),
            "start_nats": round(self.bench.held_out_kl(self.bench.student()), 4),
            "whole_nats": round(statistics.mean(self.whole), 4),
            "whole_by_seed_nats": [round(value, 4) for value in self.whole],
            "whole_sd_nats": rounded(spread(self.whole)),
        }


def gap_fields(gaps: list[float]) -> dict[str, Any]:
    """A signal's fields in the result."""
    return {
        "loss_gap_nats": round(statistics.mean(gaps), 4),
        "loss_gap_by_seed": [round(gap, 4) for gap in gaps],
        "loss_gap_sd": rounded(spread(gaps)),
    }


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def merged(result: dict[str, Any], arms: dict[str, dict[str, Any]], together: dict[str, Any]) -> dict[str, Any]:
    """A result whose losses are these and whose other fields are as they were; a signal whose losses are older than these
    says so by having no list of them."""
    signals = {name: dict(row) for name, row in result.get("signals", {}).items()}
    for name, fields in arms.items():
        signals[name] = signals.get(name, {}) | fields
    first = {name: value for name, value in signals.get("threshold", {}).items() if name.startswith("loss_gap")}
    return result | first | {"loss": together, "signals": signals}
