"""E2: a cache of the renormalised top-k is biased, an unbiased sparse estimate is not.

Anshumann et al. 2025 (RS-KD, arXiv 2503.16870): angle and norm of the gradient beside that of the whole distribution, loss and
calibration after training. Threshold sampling and the API's top candidates with the sampled token are ours to confirm. Shape
legend: N positions, V vocabulary, K kept ids.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from benchmarks.experiments.oracle import (
    Criterion,
    Oracle,
    Setting,
    Taught,
    copy,
    divergence,
    fit,
    logp_of,
    table,
    tiny,
    zipf,
)  # fmt: skip
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.signals import Dense, Sparse
from tutelage.signals.thin import expected, random_draws, sampled_top_k, threshold
from tutelage.train.examples import Example
from tutelage.train.loop import precision
from tutelage.train.offpolicy import DataSource, batch_of, passage_of
from tutelage.train.step import clear, train_step

DRAWS = 50
BATCH = 32
C = 1 / 50
SHARPNESS, RANK = 2.5, 4  # rows of 0.8 to 4.2 nats, 2.7 on average
ENTROPY_BINS = (0.0, 1.0, 2.0, 3.0, 4.0, math.inf)
CALIBRATION_BINS = 15
FULL = "full"


class Size(NamedTuple):
    """Vocabulary, training texts of `tokens`, steps to reach the fixed student, steps under each signal, which are trained."""

    vocabulary: int
    texts: int
    tokens: int
    warm: int
    steps: int
    trained: tuple[str, ...]


SETTING = Setting(
    Size(256, 4096, 32, 160, 60, (FULL, "top-12", "draws", "threshold")),
    Size(512, 4096, 48, 200, 800, (FULL, "top-12", "top-50", "draws", "threshold", "top-20+sampled")),
)


def renormalised(k: int) -> Callable[[Dense, torch.Generator], Sparse]:
    """The `k` likeliest made to sum to 1: what a cache should not hold."""

    def thin(dense: Dense, draw: torch.Generator) -> Sparse:
        best = dense.logp_NV.topk(k)
        return Sparse(best.indices, best.values.softmax(-1))

    return thin


THINNED: dict[str, Callable[[Dense, torch.Generator], Sparse]] = {
    "top-12": renormalised(12),
    "top-50": renormalised(50),
    "draws": lambda dense, draw: random_draws(dense.logp_NV, DRAWS, draw),
    "threshold": lambda dense, draw: threshold(dense.logp_NV, C, draw),
    "top-20+sampled": lambda dense, draw: sampled_top_k(dense.logp_NV, 20, draw),
}


def taught(oracle: Oracle, name: str) -> Taught:
    if name == FULL:
        return Taught(oracle, make("forward-kl"))
    return Taught(oracle, make("sparse-forward-kl"), THINNED[name])


def run(seed: int, size: str) -> dict[str, Any]:
    own: Size = SETTING.of(size)
    oracle = zipf(own.vocabulary, seed, SHARPNESS, RANK)
    texts, held = oracle.texts(own.texts, own.tokens, seed + 1), oracle.texts(64, own.tokens, seed + 2)
    start = tiny(own.vocabulary, seed)
    teach(start, oracle, FULL, texts, own.warm, seed)
    found: dict[str, Any] = {name: {} for name in (FULL, *THINNED)}
    whole_P = gradient(start, oracle, FULL, held)
    for name in THINNED:
        other_P = gradient(start, oracle, name, held)
        cosine = float(whole_P @ other_P / (whole_P.norm() * other_P.norm()))
        found[name] |= {
            "angle_deg": math.degrees(math.acos(cosine)),
            "norm_ratio": float(other_P.norm() / whole_P.norm()),
        }
    for name in own.trained:
        student = copy(start)
        teach(student, oracle, name, texts, own.steps, seed)
        found[name] |= {"kl_nats": divergence(student, oracle, held), "ece": calibration_error(student, oracle, held)}
    passage = passage_of(held)
    return {"signals": found, "by_entropy": variances(logp_of(oracle, passage)[passage.positions_N])}


def teach(student: Causal, oracle: Oracle, name: str, texts: Sequence[Example], steps: int, seed: int) -> None:
    settings = table(steps, BATCH, len(texts))
    fit(student, DataSource(texts, taught(oracle, name), settings, seed), settings, seed)


def gradient(student: Causal, oracle: Oracle, name: str, texts: Sequence[Example]) -> torch.Tensor:
    """The mean gradient over all positions of these texts, every parameter in one vector."""
    batch = batch_of(texts, taught(oracle, name), range(len(texts)), "cpu")
    train_step(student, [batch], batch.positions, math.inf, precision("float32"))
    found_P = torch.cat([parameter.grad.flatten().clone() for parameter in student.model.parameters()])
    clear(student)
    return found_P


def calibration_error(student: Causal, oracle: Oracle, texts: Sequence[Example]) -> float:
    """Expected calibration error of the likeliest token, its chance of being right taken from the language itself."""
    passage = passage_of(texts)
    q_NV, p_NV = (logp_of(model, passage)[passage.positions_N].exp() for model in (student, oracle))
    claimed = q_NV.max(-1)
    right_N = p_NV.gather(-1, claimed.indices[:, None])[:, 0]
    bin_N = (claimed.values * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    gaps = [(claimed.values - right_N)[bin_N == at].sum().abs() for at in range(CALIBRATION_BINS)]
    return float(sum(gaps)) / len(right_N)


def variances(logp_NV: torch.Tensor) -> list[dict[str, float]]:
    """E ‖t − p‖² of random draws and of threshold sampling that keeps as many ids on average, by the entropy of the rows."""
    p_NV = logp_NV.double().exp()
    entropy_N = -(p_NV * logp_NV).sum(-1)
    found = []
    for low, high in pairwise(ENTROPY_BINS):
        inside_N = (entropy_N >= low) & (entropy_N < high)
        if int(inside_N.sum()) < 16:
            continue
        mine_NV = p_NV[inside_N]
        ids = float((1 - (1 - mine_NV) ** DRAWS).sum(-1).mean())
        c_low, c_high = 1e-6, 1.0
        for _ in range(40):  # a larger c keeps fewer ids
            middle = math.sqrt(c_low * c_high)
            fewer = float(expected(logp_NV[inside_N], middle).ids_N.mean()) < ids
            c_low, c_high = (c_low, middle) if fewer else (middle, c_high)
        kept = expected(logp_NV[inside_N], c_high)
        draws = float((mine_NV * (1 - mine_NV)).sum(-1).mean()) / DRAWS
        found.append({
            "from_nats": low, "positions": int(inside_N.sum()), "ids": ids, "threshold_ids": float(kept.ids_N.mean()),
            "draws_mse": draws, "threshold_mse": float(kept.mse_N.mean()),
        })  # fmt: skip
    return found


def judge(found: dict[str, Any]) -> list[Criterion]:
    signals, rows = found["signals"], found["by_entropy"]
    angle = {name: signals[name]["angle_deg"] for name in THINNED}
    sampled = max(angle["draws"], angle["threshold"])
    loss = {name: one["kl_nats"] for name, one in signals.items() if "kl_nats" in one}
    error = {name: one["ece"] for name, one in signals.items() if "ece" in one}
    ratios = [row["draws_mse"] / row["threshold_mse"] for row in rows]
    ids = all(row["threshold_ids"] <= row["ids"] * 1.001 for row in rows)
    return [
        Criterion(
            "angle to the whole gradient: top-12 > top-50 ≫ draws, threshold",
            angle["top-12"] > angle["top-50"] > 2 * sampled,
            "degrees: " + ", ".join(f"{name} {value:.1f}" for name, value in angle.items()),
        ),
        Criterion(
            "loss with draws within 0.01 nat of the whole distribution's",
            abs(loss["draws"] - loss[FULL]) <= 0.01,
            "held-out KL in nats: " + ", ".join(f"{name} {value:.4f}" for name, value in loss.items()),
        ),
        Criterion(
            "calibration error with top-12 at least 5 times that with draws",
            error["top-12"] >= 5 * error["draws"],
            "ECE: " + ", ".join(f"{name} {value:.4f}" for name, value in error.items()),
        ),
        Criterion(
            "threshold's variance at most that of draws at equal ids, in every bin of entropy",
            ids and min(ratios) >= 1,
            "draws over threshold: " + ", ".join(
                f"{ratio:.1f} (from {row['from_nats']:g} nats)" for ratio, row in zip(ratios, rows, strict=True)
            ),
        ),
    ]  # fmt: skip
