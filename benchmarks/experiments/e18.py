"""E18: rollouts that are some steps old. Forward KL does not mind; reverse KL from drawn tokens does, unless it is corrected.

AsyncOPD (arXiv 2606.24143): the forward divergence of a position is exact whoever wrote the text before it, while the policy
gradient is an average over tokens that another student drew.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.experiments.oracle import (
    Criterion,
    Oracle,
    Scores,
    Setting,
    Taught,
    copy,
    fit,
    measured,
    roller,
    table,
    tiny,
    zipf,
)  # fmt: skip
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.signals import Scored
from tutelage.train.offpolicy import DataSource
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.rollout import Rollout

VOCABULARY = 64
BATCH = 16
TOKENS = 24
RATE = 5e-3


class Size(NamedTuple):
    """Steps on the language's own text first, steps on rollouts, how old these are."""

    warm: int
    steps: int
    lag: int


SETTING = Setting(Size(40, 48, 24), Size(100, 300, 32))


class Stale:
    """A roller that answers with the weights of `lag` steps ago."""

    def __init__(self, student: Causal, lag: int) -> None:
        self._then = copy(student)
        self._inner = roller(self._then)
        self._kept: deque[dict[str, torch.Tensor]] = deque(maxlen=lag + 1)

    def refresh(self, model: Any) -> None:
        self._kept.append({name: value.clone() for name, value in model.state_dict().items()})
        self._then.model.load_state_dict(self._kept[0])

    def write(
        self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, temperature: float, seeds: Sequence[int]
    ) -> list[Rollout]:
        return self._inner.write(prompts, max_new_tokens, temperature, seeds)

    def close(self) -> None:
        self._inner.close()


def uncorrected(logits_NV: torch.Tensor, signal: Scored) -> torch.Tensor:
    """The reward as it was when the token was drawn, times ∇ log q(y) of today, without the ratio of both students."""
    logq_N = logits_NV.log_softmax(-1).gather(-1, signal.ids_N[:, None])[:, 0]
    surplus_N = signal.drawn_logp_N - signal.logp_N
    return surplus_N + surplus_N * (logq_N - logq_N.detach())


def teachings(oracle: Oracle) -> dict[str, Any]:
    return {
        "forward-kl": Taught(oracle, make("forward-kl")),
        "reverse-kl": Taught(oracle, make("reverse-kl")),
        "sampled, corrected": Scores(oracle, make("sampled-reverse-kl", ratio_low=0.0, ratio_high=10.0)),
        "sampled, uncorrected": Scores(oracle, Loss("uncorrected", Scored, uncorrected)),
    }


def run(seed: int, size: str) -> dict[str, Any]:
    """Both divergences after training, by loss and by the age of the rollouts: the forward one on the oracle's text, the reverse
    one on the student's own."""
    own: Size = SETTING.of(size)
    oracle = zipf(VOCABULARY, seed)
    texts, start = oracle.texts(own.warm * BATCH, TOKENS, seed + 1), tiny(VOCABULARY, seed)
    settings = table(own.warm, BATCH, len(texts))
    fit(start, DataSource(texts, Taught(oracle, make("forward-kl")), settings, seed), settings, seed)
    held = oracle.texts(256, TOKENS, seed + 2)
    prompts = oracle.texts(own.steps * BATCH, TOKENS, seed + 3)
    settings = table(own.steps, BATCH, len(prompts), RATE)
    found = {"start": {"fresh": measured(start, oracle, held, seed + 4)}}
    for name, teaching in teachings(oracle).items():
        found[name] = {}
        for age, lag in (("fresh", 0), ("stale", own.lag)):
            student = copy(start)
            source = RolloutSource(
                prompts, student, Stale(student, lag), teaching, settings, seed, max_new_tokens=TOKENS
            )
            fit(student, source, settings, seed)
            found[name][age] = measured(student, oracle, held, seed + 4)
    return found


def judge(found: dict[str, Any]) -> list[Criterion]:
    def worse(name: str, measure: str) -> float:
        return found[name]["stale"][measure] / found[name]["fresh"][measure]

    def words(name: str, measure: str) -> str:
        return f"{name} {found[name]['fresh'][measure]:.3f} → {found[name]['stale'][measure]:.3f}"

    return [
        Criterion(
            "forward KL: flat, within 10 %",
            worse("forward-kl", "forward_nats") < 1.1,
            words("forward-kl", "forward_nats") + " nats",
        ),
        Criterion(
            "reverse KL from drawn tokens, uncorrected: at least a quarter worse, and worse than corrected",
            worse("sampled, uncorrected", "reverse_nats") > max(1.25, worse("sampled, corrected", "reverse_nats")),
            "; ".join(words(name, "reverse_nats") for name in found if name.startswith("sampled")) + " nats",
        ),
        Criterion(
            "reverse KL computed anew at each position: flat, within 10 %",
            worse("reverse-kl", "reverse_nats") < 1.1,
            words("reverse-kl", "reverse_nats") + " nats",
        ),
    ]
