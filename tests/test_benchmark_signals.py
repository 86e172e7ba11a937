"""The loss arms of the signal benchmark: what is averaged over, and what a partial run leaves as it was."""

from typing import Any

import pytest

from benchmarks.signals import loss
from benchmarks.signals.loss import LossArms, gap_fields, merged


class Bench:
    """Students are numbers: what they were trained on, and in which order."""

    class chosen:
        seed, steps, warm_steps, lr = 5, 60, 0, 0.1

    train, held = (), ()

    def student(self) -> float:
        return 9.0

    def trained(self, source: Any, seed: int) -> float:
        return seed + source(None)

    def held_out_kl(self, student: float) -> float:
        return student


def test_gaps_are_to_the_whole_distribution_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def source_of(bench: Any, name: str, seed: int) -> tuple[Any, dict[str, Any]]:
        drawn.append(seed)
        return (lambda _: 0.25 + seed / 8), {}

    monkeypatch.setattr(loss, "source_of", source_of)
    monkeypatch.setattr(loss, "whole", lambda _: 0.0)
    arms = LossArms(Bench(), ("threshold",))  # pyrefly: ignore
    for seed in (5, 6, 7):
        arms.take(seed)
    assert drawn == [5, 6, 7], "each order has a drawing of its own"
    assert arms.by_signal()["threshold"] == {
        "loss_gap_nats": 1.0, "loss_gap_by_seed": [0.875, 1.0, 1.125], "loss_gap_sd": 0.125
    }  # fmt: skip
    shared = arms.together()
    assert (shared["seeds"], shared["whole_by_seed_nats"], shared["whole_sd_nats"]) == ([5, 6, 7], [5, 6, 7], 1.0)


def test_one_seed_has_no_spread() -> None:
    assert gap_fields([0.5]) == {"loss_gap_nats": 0.5, "loss_gap_by_seed": [0.5], "loss_gap_sd": None}


def test_a_partial_run_changes_losses_alone() -> None:
    before = {
        "bytes_per_token": 10.7, "loss_gap_nats": 0.06, "date": "then",
        "signals": {"threshold": {"ids": 7.5, "loss_gap_nats": 0.06}, "top": {"loss_gap_nats": 0.1}},
    }  # fmt: skip
    found = merged(before, {"threshold": gap_fields([0.1, 0.3]), "new": {"ids": 9.0}}, {"date": "now"})
    assert (found["bytes_per_token"], found["date"], found["loss"]) == (10.7, "then", {"date": "now"})
    assert (found["loss_gap_nats"], found["loss_gap_by_seed"]) == (0.2, [0.1, 0.3])
    assert found["signals"]["threshold"]["ids"] == 7.5 and found["signals"]["new"] == {"ids": 9.0}
    assert found["signals"]["top"] == {"loss_gap_nats": 0.1}
    assert before["signals"]["threshold"] == {"ids": 7.5, "loss_gap_nats": 0.06}
