"""E10: on-policy distillation needs a student that has begun. From random weights its own text says little; after supervised
training both soon name the same tokens, and these carry nearly all of the mass.

Rethinking OPD (arXiv 2604.13016): the method where the teacher scores the student's own tokens; the 16 likeliest tokens that
student and teacher share. Shape legend: N positions, V vocabulary, K likeliest tokens.
"""

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
    own_text,
    roller,
    table,
    tiny,
    zipf,
)  # fmt: skip
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.train.offpolicy import DataSource, passage_of
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.watch import LIKELIEST

VOCABULARY = 256
SHARPNESS, RANK, EXPONENT = 4.0, 4, 2.0  # the 16 likeliest hold nearly all of the mass, as a language model's do
BATCH = 16
TOKENS = 24
RATE = 1e-3
LOOKS = 4


class Size(NamedTuple):
    """Supervised steps of the student that has begun, and steps on rollouts of both."""

    warm: int
    steps: int


SETTING = Setting(Size(120, 100), Size(400, 600))


def run(seed: int, size: str) -> dict[str, Any]:
    """Of both students, at the start and at each look: the divergences, and the mass of the shared tokens on the student's own
    text under each. The student from random weights takes the steps of the supervised training on rollouts as well."""
    own: Size = SETTING.of(size)
    oracle, blank = zipf(VOCABULARY, seed, SHARPNESS, RANK, EXPONENT), tiny(VOCABULARY, seed)
    begun, texts = copy(blank), oracle.texts(own.warm * BATCH, TOKENS, seed + 1)
    settings = table(own.warm, BATCH, len(texts))
    fit(begun, DataSource(texts, Taught(oracle, make("forward-kl")), settings, seed), settings, seed)
    return {
        "begun": distilled(begun, oracle, own.steps, seed),
        "random": distilled(blank, oracle, own.warm + own.steps, seed),
    }


def distilled(student: Causal, oracle: Oracle, steps: int, seed: int) -> list[dict[str, float]]:
    held = oracle.texts(64, TOKENS, seed + 2)

    def look(student: Causal) -> dict[str, float]:
        return measured(student, oracle, held, seed + 3) | shared(student, oracle, seed + 4)

    prompts = oracle.texts(steps * BATCH, TOKENS, seed + 5)
    settings = table(steps, BATCH, len(prompts), RATE, validate_per_epoch=LOOKS)
    teaching = Scores(oracle, make("sampled-reverse-kl"))
    source = RolloutSource(prompts, student, roller(student), teaching, settings, seed, max_new_tokens=TOKENS)
    first = look(student)
    log = fit(student, source, settings, seed, look)
    return [first, *({name: entry[name] for name in first} for entry in log if "shared_student" in entry)]


def shared(student: Causal, oracle: Oracle, seed: int) -> dict[str, float]:
    """The mass, under each, of the tokens that are among the likeliest of both, on the student's own text; the teacher's on all
    of its own likeliest; and how many are shared."""
    passage = passage_of(own_text(student, [(BEGIN,)] * 64, TOKENS, seed))
    q_NV, p_NV = (logp_of(model, passage)[passage.positions_N].exp() for model in (student, oracle))
    both_NV = likeliest(q_NV) & likeliest(p_NV)
    return {
        "shared_student": float((q_NV * both_NV).sum(-1).mean()),
        "shared_teacher": float((p_NV * both_NV).sum(-1).mean()),
        "teacher_top": float(p_NV.topk(LIKELIEST).values.sum(-1).mean()),
        "overlap": float(both_NV.sum(-1).float().mean()) / LIKELIEST,
    }


def likeliest(p_NV: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(p_NV, dtype=torch.bool).scatter_(-1, p_NV.topk(LIKELIEST).indices, True)


def judge(found: dict[str, Any]) -> list[Criterion]:
    begun, blank = found["begun"], found["random"]

    def words(name: str, measure: str) -> str:
        return f"{found[name][0][measure]:.3f} → {found[name][-1][measure]:.3f}"

    return [
        Criterion(
            "from random weights it fails: further off at the end than the supervised student at the start",
            blank[-1]["reverse_nats"] > begun[0]["reverse_nats"]
            and blank[-1]["forward_nats"] > begun[0]["forward_nats"],
            f"reverse KL {words('random', 'reverse_nats')}, forward {words('random', 'forward_nats')} nats",
        ),
        Criterion(
            "after supervised training it works: the reverse KL falls by half",
            begun[-1]["reverse_nats"] < 0.5 * begun[0]["reverse_nats"],
            f"reverse KL {words('begun', 'reverse_nats')}, forward {words('begun', 'forward_nats')} nats",
        ),
        Criterion(
            f"the shared of the {LIKELIEST} likeliest rise to more than 0.95 of the mass",
            begun[-1]["shared_student"] > max(0.95, begun[0]["shared_student"])
            and begun[-1]["shared_teacher"] > max(0.95, begun[0]["shared_teacher"]),
            f"student's {words('begun', 'shared_student')}, teacher's {words('begun', 'shared_teacher')}, share of tokens "
            f"{words('begun', 'overlap')}; on all the teacher's likeliest {begun[-1]['teacher_top']:.3f}; from random weights "
            f"{words('random', 'shared_student')} and {words('random', 'shared_teacher')}",
        ),
    ]
