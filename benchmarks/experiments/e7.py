"""E7: DistiLLM-2 before DistiLLM, before GKD, before sequence-level distillation, before word-level distillation.

Ko et al. 2025 (arXiv 2503.07067, tables 1 to 3): the order of win rates. Here a student of little capacity learns to count from
a warm start, as many steps of as many answers in each arm; how good it is is the share of right tokens in its own answers. Word
level is forward KL on the data's text, sequence level cross-entropy on it; GKD and DistiLLM take half of the steps on the
student's own text, with the generalised Jensen–Shannon divergence and skew reverse KL.
"""

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.experiments.counting import all_prompts, answered, counting, rightness
from benchmarks.experiments.oracle import Criterion, Setting, copy, fit, roller, table, tiny
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.train.contrast import ContrastSource, ContrastTeacher
from tutelage.train.examples import Example
from tutelage.train.offpolicy import DataSource
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.teaching import LiveTeacher, Teaching, Words

ORDER = ("distillm-2", "distillm", "gkd", "seq-kd", "kd")  # as published, best first
BATCH, RATE = 16, 1e-3
LENGTH = 64


class Size(NamedTuple):
    """Steps of the teacher, of the warm start, of each arm, its epochs, and tokens of an answer."""

    teacher: int
    warm: int
    steps: int
    epochs: int
    tokens: int


SETTING = Setting(Size(250, 40, 64, 4, 32), Size(600, 60, 240, 4, 48))


def run(seed: int, size: str) -> dict[str, Any]:
    """Share of right tokens of each arm, the start and the teacher, with its standard error."""
    own: Size = SETTING.of(size)
    oracle, prompts = counting(), all_prompts(seed)
    teacher, start = tiny(oracle.vocabulary, seed, 96), tiny(oracle.vocabulary, seed + 9, 32, 1)
    for model, steps, at in ((teacher, own.teacher, 1), (start, own.warm, 2)):
        texts = answered(oracle, prompts, steps * BATCH, own.tokens, seed + at)
        settings = table(steps, BATCH, len(texts))
        fit(model, DataSource(texts, Words(make("cross-entropy")), settings, seed), settings, seed)
    texts = answered(oracle, prompts, own.steps * BATCH // own.epochs, own.tokens, seed + 3)
    arms = {"start": start, "teacher": teacher} | {
        name: _taught(name, start, teacher, texts, own, seed) for name in ORDER
    }
    right = {name: rightness(student, prompts * 2, [LENGTH], seed + 4)[0] for name, student in arms.items()}
    return {name: {"right": one.share, "error": one.error} for name, one in right.items()}


def _taught(name: str, start: Causal, teacher: Causal, texts: list[Example], own: Size, seed: int) -> Causal:
    student, settings = copy(start), table(own.steps, BATCH, len(texts), RATE)
    with tempfile.TemporaryDirectory() as folder:
        if name == "distillm-2":
            half = table(
                own.steps, BATCH // 2, len(texts) // 2, RATE
            )  # a step is as many answers, half of them its own
            source: Any = ContrastSource(
                texts[: len(texts) // 2], student, roller(student), ContrastTeacher(teacher, make("distillm-2")), half,
                seed, Path(folder), max_new_tokens=own.tokens,
            )  # fmt: skip
            settings = half
        elif name in ("distillm", "gkd"):
            loss = make("skew-reverse-kl") if name == "distillm" else make("jsd", beta=0.9)
            source = RolloutSource(
                texts, student, roller(student), LiveTeacher(teacher, loss), settings, seed, max_new_tokens=own.tokens,
                student_share=0.5,
            )  # fmt: skip
        else:
            teaching: Teaching = (
                Words(make("cross-entropy")) if name == "seq-kd" else LiveTeacher(teacher, make("forward-kl"))
            )
            source = DataSource(texts, teaching, settings, seed)
        fit(student, source, settings, seed)
    return student


def judge(found: dict[str, Any]) -> list[Criterion]:
    right = {name: one["right"] for name, one in found.items()}
    words = ", ".join(f"{name} {right[name]:.3f} ± {found[name]['error']:.3f}" for name in ("teacher", *ORDER, "start"))
    return [
        Criterion(
            "the order is DistiLLM-2, DistiLLM, GKD, SeqKD, KD",
            all(right[one] >= right[other] for one, other in pairwise(ORDER)),
            f"right of {LENGTH} tokens: {words}",
        ),
        Criterion(
            "DistiLLM-2 beats both that never see the student's own text",
            right["distillm-2"] > max(right["seq-kd"], right["kd"]),
            f"{right['distillm-2']:.3f} against {right['seq-kd']:.3f} and {right['kd']:.3f}",
        ),
    ]
