"""E4: what a student writes itself drifts off as it grows longer, unless it was trained on its own text.

Agarwal et al. 2023 (GKD, arXiv 2306.13649): λ is the share of steps on the student's own answers, after supervised training; the
advantage of on-policy steps grows with the length, quality rises with λ above a quarter, and a twentieth of the prompts is
enough on-policy to do as well as all of them off-policy.
"""

from itertools import pairwise
from typing import Any, NamedTuple

from benchmarks.experiments.counting import all_prompts, answered, counting, rightness
from benchmarks.experiments.oracle import Criterion, Setting, Taught, copy, divergence, fit, roller, table, tiny
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.train.examples import Example
from tutelage.train.offpolicy import DataSource
from tutelage.train.onpolicy import RolloutSource

BATCH = 16
RATE = 1e-3
LENGTHS = (8, 16, 32, 64, 128)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FEW = 20  # one prompt in so many


class Size(NamedTuple):
    """Supervised steps, steps at each λ, tokens of an answer in training."""

    warm: int
    steps: int
    tokens: int


SETTING = Setting(Size(60, 60, 48), Size(60, 240, 48))


def run(seed: int, size: str) -> dict[str, Any]:
    """Rightness of the student's own answers by length, and the forward divergence on the teacher's, of each arm."""
    own: Size = SETTING.of(size)
    oracle, prompts, start = counting(), all_prompts(seed), tiny(counting().vocabulary, seed)
    texts = answered(oracle, prompts, own.warm * BATCH, own.tokens, seed + 1)
    settings = table(own.warm, BATCH, len(texts))
    fit(start, DataSource(texts, Taught(oracle, make("forward-kl")), settings, seed), settings, seed)
    held = answered(oracle, prompts, len(prompts), own.tokens, seed + 2)
    given = {name: answered(oracle, prompts[:: FEW if name == "few" else 1], own.steps * BATCH, own.tokens, seed + 3)
             for name in ("all", "few")}  # fmt: skip
    arms = {"start": start} | {str(share): mixed(start, given["all"], share, own, seed) for share in SHARES}
    arms["few prompts"] = mixed(start, given["few"], 1.0, own, seed)
    found = {}
    for name, student in arms.items():
        right = rightness(student, prompts * 2, LENGTHS, seed + 4)
        found[name] = {
            "right": [one.share for one in right], "error": [one.error for one in right],
            "forward_nats": divergence(student, oracle, held),
        }  # fmt: skip
    return found


def mixed(start: Causal, examples: list[Example], share: float, size: Size, seed: int) -> Causal:
    """The student after the steps of one arm, `share` of them on its own text."""
    student, settings = copy(start), table(size.steps, BATCH, len(examples), RATE)
    teaching = Taught(counting(), make("reverse-kl"))
    if not share:
        fit(student, DataSource(examples, teaching, settings, seed), settings, seed)
        return student
    source = RolloutSource(
        examples, student, roller(student), teaching, settings, seed, max_new_tokens=size.tokens, student_share=share
    )
    fit(student, source, settings, seed)
    return student


def judge(found: dict[str, Any]) -> list[Criterion]:
    off, on = (found[str(share)]["right"] for share in (0.0, 1.0))
    gaps = [mine - other for mine, other in zip(on, off, strict=True)]
    longest = {name: arm["right"][-1] for name, arm in found.items()}
    errors = {name: arm["error"][-1] for name, arm in found.items()}
    rising = [longest[str(share)] for share in SHARES if share >= 0.25]
    few = longest["few prompts"]
    return [
        Criterion(
            "on-policy less off-policy grows with length",
            all(one < other for one, other in pairwise(gaps)) and gaps[-1] > 0,
            "share of right tokens, on-policy less off-policy: "
            + ", ".join(f"{gap:+.3f} in {length} tokens" for gap, length in zip(gaps, LENGTHS, strict=True)),
        ),
        Criterion(
            "rises with λ from a quarter on",
            all(one <= other for one, other in pairwise(rising)),
            f"right of {LENGTHS[-1]} tokens by λ: "
            + ", ".join(f"{share:g} {longest[str(share)]:.3f} ± {errors[str(share)]:.3f}" for share in SHARES)
            + f"; forward KL on the teacher's text {found['0.0']['forward_nats']:.3f} nats with λ 0, "
            f"{found['1.0']['forward_nats']:.3f} with 1",
        ),
        Criterion(
            f"on-policy with 1 prompt of {FEW} at least as good as off-policy with all",
            few >= longest["0.0"],
            f"right of {LENGTHS[-1]} tokens: {few:.3f} ± {errors['few prompts']:.3f} and {longest['0.0']:.3f}",
        ),
    ]
