"""E15: a student cut narrower ends nearer its teacher than one cut shallower, and both nearer than one drawn at random.

Muralidharan et al. 2024 (Minitron, arXiv 2407.14679, best practices 3 to 5): at equal size width beats depth after distillation,
and a network drawn at random needs many times the tokens. A teacher of four layers learns a language whose distribution is known;
students with a quarter of its products in the layers learn from it, on a few tokens and on ten times as many.
"""

from typing import Any, NamedTuple

import torch
from transformers import LlamaForCausalLM

from benchmarks.experiments.oracle import Criterion, Setting, Taught, copy, divergence, fit, table, tiny, zipf
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.train.offpolicy import DataSource
from tutelage.train.prune import choose_cut, choose_layers, importance, narrowed
from tutelage.train.teaching import LiveTeacher

VOCABULARY, TOKENS, BATCH = 96, 24, 16
WIDTH, LAYERS, HEADS = 64, 4, 4
NARROW, NEURONS, FEW_HEADS = 32, 64, 2  # as many products in four layers as the whole width in one
MORE = 10


class Size(NamedTuple):
    """Steps of the teacher and of the students."""

    teacher: int
    student: int


SETTING = Setting(Size(300, 12), Size(3000, 120))


def run(seed: int, size: str) -> dict[str, Any]:
    """Forward KL to the teacher, on held-out text, of each student: as it begins, taught, and taught ten times as long."""
    own: Size = SETTING.of(size)
    oracle = zipf(VOCABULARY, seed, 3.0)
    teacher, held = tiny(VOCABULARY, seed, WIDTH, LAYERS), oracle.texts(64, TOKENS, seed + 2)
    texts, settings = (
        oracle.texts(own.teacher * BATCH, TOKENS, seed + 1),
        table(own.teacher, BATCH, own.teacher * BATCH),
    )
    fit(teacher, DataSource(texts, Taught(oracle, make("forward-kl")), settings, seed), settings, seed)
    found: dict[str, Any] = {"teacher": divergence(teacher, oracle, held)}
    for name, start in students(teacher, [list(text.ids) for text in texts[:32]], seed).items():
        found[name] = {"products": products(start), "start": divergence(start, teacher, held)}
        for times in (1, MORE):
            steps = times * own.student
            given, lesson = oracle.texts(steps * BATCH, TOKENS, seed + 3), table(steps, BATCH, steps * BATCH)
            student = copy(start)
            fit(student, DataSource(given, LiveTeacher(teacher, make("forward-kl")), lesson, seed), lesson, seed)
            found[name][f"taught_{times}"] = divergence(student, teacher, held)
    return found


def students(teacher: Causal, documents: list[list[int]], seed: int) -> dict[str, Causal]:
    """Cut by importance on some of the text; and the same shapes at random."""
    model = teacher.model
    found = importance(model, documents)
    one = choose_layers(LAYERS, 1, "importance", found.blocks_L)
    every = choose_layers(LAYERS, LAYERS, "first", None)
    cut = {
        "width": narrowed(model, choose_cut(model, found, every, NARROW, NEURONS, FEW_HEADS)),
        "depth": narrowed(model, choose_cut(model, found, one, None, None, None)),
    }
    made = {name: Causal(one.eval()) for name, one in cut.items()}
    for name, like in cut.items():
        with torch.random.fork_rng():
            torch.manual_seed(seed + 9)
            made[f"random, {name}"] = Causal(LlamaForCausalLM(like.config).eval())
    return made


def products(student: Causal) -> int:
    """Multiplications a token in the layers."""
    return sum(
        weight.numel() for name, weight in student.model.named_parameters() if "layers" in name and weight.ndim == 2
    )


def judge(found: dict[str, Any]) -> list[Criterion]:
    once, long = (
        {name: one[f"taught_{times}"] for name, one in found.items() if name != "teacher"} for times in (1, MORE)
    )

    def words(figures: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())

    return [
        Criterion(
            "after long training width is nearer the teacher than depth",
            long["width"] < long["depth"] and found["width"]["products"] == found["depth"]["products"],
            f"{long['width']:.4f} and {long['depth']:.4f} nats after {MORE} times the tokens, {once['width']:.4f} and "
            f"{once['depth']:.4f} before; {found['width']['products']:,} products a token in the layers of either",
        ),
        Criterion(
            "each is nearer than the same shape at random, after few tokens and after many",
            all(one[name] < one[f"random, {name}"] for one in (once, long) for name in ("width", "depth")),
            f"few: {words(once)}; many: {words(long)} nats",
        ),
        Criterion(
            f"at random the narrow shape needs more than {MORE} times the tokens",
            long["random, width"] > once["width"],
            f"{long['random, width']:.4f} nats with them, {once['width']:.4f} without; the shallow shape "
            f"{long['random, depth']:.4f} and {once['depth']:.4f}",
        ),
    ]
