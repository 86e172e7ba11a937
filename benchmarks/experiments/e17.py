"""E17: rollouts written once by the student as it was after supervised training, with the teacher's scores kept: as good as
asking the teacher about fresh ones, if that training was on the same teacher's text.

Lightning OPD (arXiv 2604.13010). After another teacher's text the kept rollouts are not what the student comes to write.
"""

from typing import Any, NamedTuple

from benchmarks.experiments.oracle import (
    BEGIN,
    Criterion,
    Oracle,
    Scores,
    Setting,
    copy,
    fit,
    measured,
    roller,
    rollouts,
    table,
    tiny,
    zipf,
)  # fmt: skip
from tutelage.losses.catalogue import make
from tutelage.train.offpolicy import DataSource
from tutelage.train.onpolicy import RolloutSource, written
from tutelage.train.teaching import Words

VOCABULARY = 64
TOKENS = 24
RATE = 1e-3
APART = 0.8  # share of an unrelated language in the other teacher's log-probabilities


class Size(NamedTuple):
    """Steps on a teacher's text and texts a step, then steps on rollouts and rollouts a step."""

    warm: int
    texts: int
    steps: int
    rollouts: int


SETTING = Setting(Size(160, 16, 60, 32), Size(800, 16, 200, 64))


def run(seed: int, size: str) -> dict[str, Any]:
    """Distances to the teacher that scores, after supervised training on its own text (`same`) or on another's."""
    own: Size = SETTING.of(size)
    teacher, stranger = zipf(VOCABULARY, seed), zipf(VOCABULARY, seed + 50)
    other = Oracle(
        VOCABULARY, lambda before, last: (1 - APART) * teacher.logp(before, last) + APART * stranger.logp(before, last)
    )
    held = teacher.texts(256, TOKENS, seed + 2)
    return {name: arms(writer, teacher, held, own, seed) for name, writer in (("same", teacher), ("other", other))}


def arms(writer: Oracle, teacher: Oracle, held: list[Any], size: Size, seed: int) -> dict[str, dict[str, float]]:
    start = tiny(VOCABULARY, seed)
    texts = writer.texts(size.warm * size.texts, TOKENS, seed + 1)
    settings = table(size.warm, size.texts, len(texts))
    fit(start, DataSource(texts, Words(make("cross-entropy")), settings, seed), settings, seed)
    kept = rollouts(start, [(BEGIN,)] * size.steps * size.rollouts, TOKENS, seed + 3)
    examples = [written(rollout, "student") for rollout in kept]
    drawn = {example.key: rollout.logp for example, rollout in zip(examples, kept, strict=True)}
    settings = table(size.steps, size.rollouts, len(examples), RATE)
    whole, masked = make("sampled-reverse-kl", ratio_low=0.0, ratio_high=100.0), make("sampled-reverse-kl")
    students = {"start": start, "online": copy(start), "kept": copy(start), "kept, masked": copy(start)}
    online = students["online"]
    source = RolloutSource(
        examples, online, roller(online), Scores(teacher, whole), settings, seed, max_new_tokens=TOKENS
    )
    fit(online, source, settings, seed)
    for name, loss in (("kept", whole), ("kept, masked", masked)):
        fit(students[name], DataSource(examples, Scores(teacher, loss, drawn), settings, seed), settings, seed)
    return {name: measured(student, teacher, held, seed + 4) for name, student in students.items()}


def judge(found: dict[str, Any]) -> list[Criterion]:
    nats = {name: {arm: one["reverse_nats"] for arm, one in arms.items()} for name, arms in found.items()}

    def words(name: str) -> str:
        arms = nats[name]
        return (
            f"reverse KL {arms['start']:.3f} at the start, {arms['online']:.3f} online, {arms['kept']:.3f} with kept rollouts, "
            f"{arms['kept, masked']:.3f} where ratios beyond [0.5, 2] count as 0"
        )

    same, other = nats["same"], nats["other"]
    return [
        Criterion("same teacher: within 10 % of online", same["kept"] <= 1.1 * same["online"], words("same")),
        Criterion(
            "another teacher: at least 20 % behind online, and three times as far as with the same",
            other["kept"] >= 1.2 * other["online"] and other["kept"] > 3 * same["kept"],
            words("other"),
        ),
    ]
