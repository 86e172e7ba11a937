"""E6: estimators of the on-policy reverse KL's gradient: which are unbiased, how much they vary, what training with each gives.

Over one fixed student and many batches of its own text, the gradient by all parameters. vOPD (arXiv 2605.07865) subtracts a
baseline in closed form; top-k forms differ in what they make of the mass outside (arXiv 2603.25562 renormalises it away,
2605.11182 finds the truncated sum biased and holds the weights fixed). Shape legend: N positions, V vocabulary, K kept ids,
P parameters.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.experiments.oracle import (
    BEGIN,
    Criterion,
    Oracle,
    Scores,
    Setting,
    Taught,
    copy,
    fit,
    logp_of,
    measured,
    roller,
    rollouts,
    table,
    tiny,
    zipf,
)  # fmt: skip
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part
from tutelage.losses.sampled import Baselined, closed_form_baseline, least_variance_baseline
from tutelage.losses.topk import reverse_kl_top_k
from tutelage.models.causal import Causal
from tutelage.records import Role
from tutelage.signals import Dense, TopK
from tutelage.train.loop import precision
from tutelage.train.offpolicy import DataSource, batch_of, passage_of
from tutelage.train.onpolicy import RolloutSource, written
from tutelage.train.step import clear, train_step
from tutelage.train.teaching import Passage, Teaching

VOCABULARY = 64
TOKENS = 24
SHARPNESS = 2.5  # rows of 1.6 nats on average
BATCH = 8
K = 16
DIRECTIONS = 20
UNBIASED = ("sampled", "vopd", "least-variance")


class Size(NamedTuple):
    """Steps that make the student, batches that the gradient is taken over, steps trained with each estimator."""

    warm: int
    batches: int
    steps: int


SETTING = Setting(Size(60, 48, 0), Size(60, 512, 200))


class Based:
    """The score of the drawn token with a baseline that the student's own distribution gives."""

    role = Role.SOFT_TARGET

    def __init__(
        self, oracle: Oracle, student: Causal, baseline: Callable[[torch.Tensor, Dense], torch.Tensor]
    ) -> None:
        self._oracle, self._student, self._baseline = oracle, student, baseline
        self._scores = Scores(oracle, make("sampled-reverse-kl"))

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        (part,) = self._scores.parts(passage)
        logq_NV, logp_NV = (logp_of(one, passage)[passage.positions_N] for one in (self._student, self._oracle))
        scored: Any = part.signal
        baseline_N = self._baseline(logq_NV, Dense(logp_NV))
        return (part._replace(signal=Baselined(scored.ids_N, scored.logp_N, scored.drawn_logp_N, baseline_N)),)


class Likeliest(NamedTuple):
    """The student's `K` likeliest ids: its logs there, and the teacher's."""

    ids_NK: torch.Tensor
    logq_NK: torch.Tensor
    logp_NK: torch.Tensor


def likeliest(logits_NV: torch.Tensor, signal: Dense) -> Likeliest:
    ids_NK = logits_NV.detach().topk(K).indices
    return Likeliest(ids_NK, logits_NV.log_softmax(-1).gather(-1, ids_NK), signal.logp_NV.gather(-1, ids_NK))


def renormalised(logits_NV: torch.Tensor, signal: Dense) -> torch.Tensor:
    """Both made to sum to 1 on the kept ids."""
    top = likeliest(logits_NV, signal)
    logq_NK = top.logq_NK.log_softmax(-1)
    return (logq_NK.exp() * (logq_NK - top.logp_NK.log_softmax(-1))).sum(-1)


def truncated(logits_NV: torch.Tensor, signal: Dense) -> torch.Tensor:
    """Σ q log q/p over the kept ids alone."""
    top = likeliest(logits_NV, signal)
    return (top.logq_NK.exp() * (top.logq_NK - top.logp_NK)).sum(-1)


def held(logits_NV: torch.Tensor, signal: Dense) -> torch.Tensor:
    """The truncated sum with its weights q log q/p held fixed: gradient Σ q (log q/p) ∇ log q."""
    top = likeliest(logits_NV, signal)
    weight_NK = (top.logq_NK.exp() * (top.logq_NK - top.logp_NK)).detach()
    return weight_NK.sum(-1) + (weight_NK * (top.logq_NK - top.logq_NK.detach())).sum(-1)


def bucketed(logits_NV: torch.Tensor, signal: Dense) -> torch.Tensor:
    """The kept ids and one bucket for the rest."""
    top = likeliest(logits_NV, signal)
    rest_NV = signal.logp_NV.scatter(-1, top.ids_NK, -math.inf)
    return reverse_kl_top_k(logits_NV, TopK(top.ids_NK, top.logp_NK, rest_NV.logsumexp(-1)))


FORMS = {"renormalised": renormalised, "truncated": truncated, "weights held": held, "tail bucket": bucketed}


def teachings(oracle: Oracle, student: Causal) -> dict[str, Teaching]:
    """By name; the first is what the others estimate."""
    found: dict[str, Teaching] = {
        "full": Taught(oracle, make("reverse-kl")),
        "sampled": Scores(oracle, make("sampled-reverse-kl")),
        "vopd": Based(oracle, student, closed_form_baseline),
        "least-variance": Based(oracle, student, least_variance_baseline),
    }
    return found | {
        f"top-{K} {name}": Taught(oracle, Loss(f"top-{K} {name}", Dense, form)) for name, form in FORMS.items()
    }


def run(seed: int, size: str) -> dict[str, Any]:
    """Gradients for a student that has begun to learn, and for the same one made over-confident (logits times 2)."""
    own: Size = SETTING.of(size)
    oracle, student = zipf(VOCABULARY, seed, SHARPNESS), tiny(VOCABULARY, seed)
    texts = oracle.texts(own.warm * 16, TOKENS, seed + 1)
    settings = table(own.warm, 16, len(texts))
    fit(student, DataSource(texts, Taught(oracle, make("forward-kl")), settings, seed), settings, seed)
    certain = copy(student)
    with torch.no_grad():
        certain.head().weight_VD.mul_(2)
    found = {
        "gradients": gradients(oracle, student, teachings(oracle, student), own.batches, seed),
        "over-confident": gradients(
            oracle, certain, {name: one for name, one in teachings(oracle, certain).items() if name in ("full", *UNBIASED)},
            own.batches, seed,
        ),
    }  # fmt: skip
    text = [written(answer, "student") for answer in rollouts(student, [(BEGIN,)] * 64, TOKENS, seed + 5)]
    passage = passage_of(text)
    inside = logp_of(student, passage)[passage.positions_N].exp().topk(K).values.sum(-1).mean()
    found["student"] = {"mass_outside": 1 - float(inside)} | measured(
        student, oracle, oracle.texts(64, TOKENS, seed + 3), seed
    )
    return found | ({"trained": trained(oracle, student, own.steps, seed)} if own.steps else {})


def gradients(
    oracle: Oracle, student: Causal, teachings: dict[str, Teaching], batches: int, seed: int
) -> dict[str, dict[str, float]]:
    """Of each estimator: bias against `full` on the same text (as a share of its norm, and as z along its direction and over
    random directions), and the variance over batches, as a multiple of the squared norm of the mean gradient."""
    taken: dict[str, list[torch.Tensor]] = {name: [] for name in teachings}
    for number in range(batches):
        answers = rollouts(student, [(BEGIN,)] * BATCH, TOKENS, 1000 * seed + number)
        for name, teaching in teachings.items():
            examples = [written(answer, "student") for answer in answers]
            batch = batch_of(examples, teaching, range(BATCH), "cpu", [answer.logp for answer in answers])
            train_step(student, [batch], batch.positions, math.inf, precision("float32"))
            taken[name].append(torch.cat([one.grad.flatten().clone() for one in student.model.parameters()]))
            clear(student)
    stacked = {name: torch.stack(rows) for name, rows in taken.items()}  # [batches, P]
    mean_P = stacked["full"].mean(0)
    draw = torch.Generator().manual_seed(seed)
    ways_PD = torch.randn(len(mean_P), DIRECTIONS, generator=draw)
    return {name: against(rows, stacked["full"], mean_P, ways_PD) for name, rows in stacked.items()}


def against(rows: torch.Tensor, full: torch.Tensor, mean_P: torch.Tensor, ways_PD: torch.Tensor) -> dict[str, float]:
    size = float(mean_P @ mean_P)
    found = {"variance": float(rows.var(0).sum()) / size}
    gap = rows - full
    if not gap.any():
        return found
    along = gap @ torch.cat([mean_P[:, None] / math.sqrt(size), ways_PD], -1)
    z = along.mean(0) / (along.std(0) / math.sqrt(len(gap)))
    spread = float((z[1:] ** 2).sum() - DIRECTIONS) / math.sqrt(2 * DIRECTIONS)
    return found | {
        "bias": float(gap.mean(0).norm()) / math.sqrt(size),
        "z_along": float(z[0]),
        "z_across": spread,
        "draw_variance": float(gap.var(0).sum()) / size,
    }


def trained(oracle: Oracle, start: Causal, steps: int, seed: int) -> dict[str, dict[str, float]]:
    """The same training with each estimator, everything else equal."""
    texts: Sequence[Any] = oracle.texts(steps * 16, TOKENS, seed + 2)
    held_out, settings = oracle.texts(128, TOKENS, seed + 3), table(steps, 16, len(texts), 1e-3)
    found = {"start": measured(start, oracle, held_out, seed + 4)}
    for name in teachings(oracle, start):
        student = copy(start)
        teaching = teachings(oracle, student)[name]
        fit(
            student, RolloutSource(texts, student, roller(student), teaching, settings, seed, max_new_tokens=TOKENS),
            settings, seed,
        )  # fmt: skip
        found[name] = measured(student, oracle, held_out, seed + 4)
    return found


def judge(found: dict[str, Any]) -> list[Criterion]:
    usual, certain = found["gradients"], found["over-confident"]
    z = {name: (usual[name]["z_along"], usual[name]["z_across"]) for name in UNBIASED}
    forms = {name: one["z_along"] for name, one in usual.items() if name.startswith(f"top-{K}")}
    variance = {name: usual[name]["variance"] for name in ("full", *UNBIASED)}
    confident = {name: certain[name]["variance"] for name in ("full", *UNBIASED)}

    def listed(figures: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:.3g}" for name, value in figures.items())

    return [
        Criterion(
            "drawn tokens, with any baseline: the mean is that of the whole distribution (z < 3)",
            max(abs(z[name][0]) for name in UNBIASED) < 3 and max(z[name][1] for name in UNBIASED) < 3,
            "z along the gradient and over random directions: "
            + ", ".join(f"{name} {one:.1f}, {other:.1f}" for name, (one, other) in z.items()),
        ),
        Criterion(
            "variance: full < vOPD < sampled, for a student that is not over-confident",
            variance["full"] < variance["vopd"] < variance["sampled"],
            f"of a batch, in squared gradients: {listed(variance)}; over-confident student: {listed(confident)}",
        ),
        Criterion(
            f"top-{K} renormalised is biased (z > 3)",
            abs(forms[f"top-{K} renormalised"]) > 3,
            f"z along the gradient: {listed(forms)}; bias as a share of the gradient: "
            + listed({name: usual[name]["bias"] for name in forms}),
        ),
    ]
