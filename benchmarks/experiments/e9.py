"""E9: speculative distillation: the student writes, and the teacher puts a token of its own where the student's is not among its
K likeliest. K = 1 is close to the teacher's text, all of the vocabulary is on-policy, and a weak student learns best in between.

Xu et al. 2024 (SKD, arXiv 2410.11325). Shape legend: B answers, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.experiments.counting import all_prompts, answered, counting, rightness
from benchmarks.experiments.oracle import (
    Criterion,
    Oracle,
    Setting,
    Taught,
    copy,
    divergence,
    fit,
    own_text,
    roller,
    table,
    tiny,
)  # fmt: skip
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.train.offpolicy import DataSource
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.rollout import Rollout
from tutelage.train.rollout_fast import FastDecoder, Weights
from tutelage.train.rollout_local import choose

BATCH = 16
TOKENS = 32
LOOKED_AT = 64  # tokens of the student's own answers that are judged
EVERY = counting().vocabulary


class Size(NamedTuple):
    """Steps from random weights, and the values of K that are tried."""

    steps: int
    kept: tuple[int, ...]


SETTING = Setting(Size(60, (1, 2, 8, EVERY)), Size(240, (1, 2, 3, 4, 6, 8, 16, EVERY)))


class Interleaved:
    """A roller whose every token is the student's where the teacher has it among its `k` likeliest, and else the teacher's."""

    def __init__(self, student: Causal, oracle: Oracle, k: int) -> None:
        self._model, self._oracle, self._k = student.model, oracle, k

    def refresh(self, model: Any) -> None:
        self._model = model

    def close(self) -> None:
        """Nothing was started."""

    @torch.inference_mode()
    def write(
        self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, temperature: float, seeds: Sequence[int]
    ) -> list[Rollout]:
        own_BT, other_BT = (uniform([seed + add for seed in seeds], max_new_tokens) for add in (0, 1))
        decoder = FastDecoder(Weights.of(self._model, "own"))
        ids_BT, logp = torch.tensor(prompts), []
        logits_BV = decoder.start(prompts, max_new_tokens)
        for at in range(max_new_tokens):
            proposed_B = choose(logits_BV, temperature, own_BT[:, at]).ids_B
            logp_BV = self._oracle.logp(ids_BT[:, -2], ids_BT[:, -1])
            fine_B = (logp_BV.topk(self._k).indices == proposed_B[:, None]).any(-1)
            ids_B = torch.where(fine_B, proposed_B, choose(logp_BV, 1.0, other_BT[:, at]).ids_B)
            logp.append(logits_BV.float().log_softmax(-1).gather(1, ids_B[:, None])[:, 0])
            ids_BT = torch.cat([ids_BT, ids_B[:, None]], 1)
            if at + 1 < max_new_tokens:
                logits_BV = decoder.step(ids_B)
        answers, scores = ids_BT[:, len(prompts[0]) :].tolist(), torch.stack(logp, 1).tolist()
        return [
            Rollout(prompt, tuple(ids), tuple(values), False)
            for prompt, ids, values in zip(prompts, answers, scores, strict=True)
        ]


def uniform(seeds: Sequence[int], count: int) -> torch.Tensor:
    """Numbers [B, T] as `LocalRoller` draws with."""
    return torch.stack(
        [torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    )


def run(seed: int, size: str) -> dict[str, Any]:
    """Of the students after as many steps by each way: the forward divergence on the teacher's text, the reverse one on the
    student's own, the share of right tokens there. `apart` is the largest difference of any weight from on-policy."""
    own: Size = SETTING.of(size)
    oracle, prompts, start = counting(), all_prompts(seed), tiny(EVERY, seed)
    held = answered(oracle, prompts, len(prompts), TOKENS, seed + 1)
    texts = answered(oracle, prompts, own.steps * BATCH, TOKENS, seed + 2)
    settings, teaching = table(own.steps, BATCH, len(texts)), Taught(oracle, make("reverse-kl"))

    def rolled(student: Causal, by: Any) -> RolloutSource:
        return RolloutSource(texts, student, by, teaching, settings, seed, max_new_tokens=TOKENS)

    students = {name: copy(start) for name in ("supervised", "on-policy", *map(str, own.kept))}
    for name, student in students.items():
        match name:
            case "supervised":
                source: Any = DataSource(texts, teaching, settings, seed)
            case "on-policy":
                source = rolled(student, roller(student))
            case _:
                source = rolled(student, Interleaved(student, oracle, int(name)))
        fit(student, source, settings, seed)
    found: dict[str, Any] = {}
    for name, student in students.items():
        text = own_text(student, prompts, LOOKED_AT, seed + 3)
        found[name] = {
            "forward_nats": divergence(student, oracle, held),
            "reverse_nats": divergence(student, oracle, text, "reverse-kl"),
            "right": rightness(student, prompts, (LOOKED_AT,), seed + 4)[0].share,
        }
    pairs = zip(*(students[name].model.parameters() for name in ("on-policy", str(EVERY))), strict=True)
    found["apart"] = max(float((one - other).detach().abs().max()) for one, other in pairs)
    return found


def both(arm: dict[str, float]) -> float:
    """Jeffreys' divergence: what a student lacks of the teacher's text, and what it writes that the teacher would not. The
    verdict hangs on this choice: the forward part alone is best at K = 1, the reverse part alone at K = V."""
    return arm["forward_nats"] + arm["reverse_nats"]


def judge(found: dict[str, Any]) -> list[Criterion]:
    kept = [name for name in found if name.isdigit()]
    sums = {name: both(found[name]) for name in kept}
    best = min(sums, key=sums.__getitem__)
    alone = {measure: min(kept, key=lambda name: found[name][measure]) for measure in ("forward_nats", "reverse_nats")}
    first, supervised = sums["1"], both(found["supervised"])
    return [
        Criterion(
            "K = 1 is like supervised: within 10 %",
            abs(first - supervised) <= 0.1 * supervised,
            f"forward and reverse KL together {first:.3f} and {supervised:.3f} nats",
        ),
        Criterion(
            "K = V is on-policy exactly",
            found["apart"] == 0,
            f"largest difference of any weight after training {found['apart']:g}",
        ),
        Criterion(
            "from random weights the best K lies between",
            best not in (kept[0], kept[-1]),
            "forward + reverse KL in nats by K: "
            + ", ".join(
                f"{name} {found[name]['forward_nats']:.2f} + {found[name]['reverse_nats']:.2f}" for name in kept
            )
            + f"; by the forward alone the best K is {alone['forward_nats']}, by the reverse alone {alone['reverse_nats']}",
        ),
    ]
