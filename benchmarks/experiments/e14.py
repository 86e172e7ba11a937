"""E14: a teacher that scores every token is worth many times the steps of one reward an answer.

Lu et al. 2025 (Thinking Machines, On-policy distillation): 7 to 10 times fewer steps than reinforcement learning to the same
quality, since an answer brings a signal for each of its tokens and not one for all of them. Both arms begin with the same
student, write as many answers a step, and use the same estimator with the mean of the step's other answers for a baseline: the
teacher's log ratio of each token on one side, the share of right tokens of the whole answer on the other.
"""

from typing import Any, NamedTuple

import torch

from benchmarks.experiments.counting import all_prompts, answered, counting, right_after, rightness
from benchmarks.experiments.oracle import Criterion, Scores, Setting, Taught, copy, fit, roller, table, tiny
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part
from tutelage.losses.sampled import Baselined, leave_one_out
from tutelage.models.causal import Causal
from tutelage.records import Role
from tutelage.signals import Scored
from tutelage.train.examples import Example
from tutelage.train.offpolicy import DataSource
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.teaching import Passage

BATCH = 32
LENGTH = 16
RATES = {"distilled": (3e-3, 6e-3), "reinforced": (1e-3, 2e-3)}  # larger ones undo what rewards taught
GOAL = 0.9  # of the teacher's share of right tokens
FEWER = 7


class Size(NamedTuple):
    """Supervised steps; of each arm most steps, and steps between looks."""

    warm: int
    distilled: tuple[int, int]
    reinforced: tuple[int, int]


SETTING = Setting(Size(30, (40, 4), (240, 20)), Size(30, (100, 4), (2000, 20)))


class Compared(Scores):
    """The teacher's scores, less the mean of the step's other answers."""

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        (part,) = super().parts(passage)
        scored = part.signal
        assert isinstance(scored, Scored)
        answer_N = torch.arange(len(passage.examples)).repeat_interleave(LENGTH)
        base_N = leave_one_out(scored, answer_N)
        return (part._replace(signal=Baselined(scored.ids_N, scored.logp_N, scored.drawn_logp_N, base_N)),)


class Reward:
    """One number an answer: the share of its tokens that go on rightly, less the mean of the step's other answers, in units of
    the step's spread."""

    role = Role.SOFT_TARGET

    def __init__(self) -> None:
        self._loss = make("sampled-reverse-kl")

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        assert passage.drawn_logp_N is not None
        ids_BT = torch.tensor([example.ids for example in passage.examples])
        reward_B = (ids_BT[:, 3:] == right_after(ids_BT[:, 1:-2], ids_BT[:, 2:-1])).float().mean(1)
        others_B = (reward_B.sum() - reward_B) / max(1, len(reward_B) - 1)
        advantage_N = ((reward_B - others_B) / (reward_B.std() + 1e-3)).repeat_interleave(ids_BT.shape[1] - 3)
        drawn_N = passage.drawn_logp_N
        nothing_N = torch.zeros_like(drawn_N)
        return (Part(self._loss, Baselined(passage.target_ids_N, drawn_N + advantage_N, drawn_N, nothing_N)),)


def run(seed: int, size: str) -> dict[str, Any]:
    """Share of right tokens at each look, by steps, of the arms at each rate; and the first look at the goal."""
    own: Size = SETTING.of(size)
    oracle, prompts, start = counting(), all_prompts(seed), tiny(counting().vocabulary, seed)
    texts = answered(oracle, prompts, own.warm * BATCH, LENGTH, seed + 1)
    settings = table(own.warm, BATCH, len(texts))
    fit(start, DataSource(texts, Taught(oracle, make("forward-kl")), settings, seed), settings, seed)
    scored = Compared(oracle, make("sampled-reverse-kl"))
    arms = {"distilled": (scored, own.distilled), "reinforced": (Reward(), own.reinforced)}
    found: dict[str, Any] = {"start": _right(start, seed)}
    for name, (teaching, (steps, between)) in arms.items():
        curves = [_curve(start, teaching, steps, between, rate, seed) for rate in RATES[name]]
        reached = [[(at + 1) * between for at, one in enumerate(curve) if one >= GOAL] for curve in curves]
        first = min((one[0] for one in reached if one), default=None)
        found[name] = {"curves": curves, "steps_allowed": steps, "steps": first}
    return found


def _curve(start: Causal, teaching: Any, steps: int, between: int, rate: float, seed: int) -> list[float]:
    student, prompts = copy(start), all_prompts(seed)
    examples = [Example((*prompts[at % len(prompts)], 1), (3,), "prompt") for at in range(steps * BATCH)]
    settings = table(steps, BATCH, len(examples), rate, validate_per_epoch=steps // between, warmup=0.0)
    source = RolloutSource(examples, student, roller(student), teaching, settings, seed, max_new_tokens=LENGTH)
    log = fit(student, source, settings, seed, lambda student: {"right": _right(student, seed)})
    return [entry["right"] for entry in log if "right" in entry]


def _right(student: Causal, seed: int) -> float:
    return rightness(student, all_prompts(seed), [LENGTH], seed + 4)[0].share


def judge(found: dict[str, Any]) -> list[Criterion]:
    fast, slow = found["distilled"], found["reinforced"]
    at_least = slow["steps"] or slow["steps_allowed"]
    best = max(curve[-1] for curve in slow["curves"])
    took = f"{slow['steps']} steps" if slow["steps"] else f"not reached in {slow['steps_allowed']} ({best:.3f})"
    return [
        Criterion(
            f"distillation needs at least {FEWER} times fewer steps than one reward an answer",
            fast["steps"] is not None and at_least >= FEWER * fast["steps"],
            f"to {GOAL} of right tokens from {found['start']:.3f}: {fast['steps']} steps; with rewards {took}",
        )
    ]
