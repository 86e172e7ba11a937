"""Signs that a student trained on its own text is going bad, each with the threshold that says so.

Length inflation and truncation come together and feed each other (Stable-OPD, arXiv 2604.08527): repeated text is cheap in
reverse KL, answers grow until they are cut, and cut answers never teach an end. What is done about a finding is the
loop's business.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tutelage.train.rollout import Rollout

START_STEPS = 5  # that tell what is usual


class Limits(NamedTuple):
    """What is still healthy. `length_ratio`: mean length against the start's; `cut_share`: answers cut at their limit;
    `entropy_share`: entropy against the start's; `repeated_share`: mean share of an answer's n-grams of `gram_tokens`
    tokens that stood in it before; `drift_nats`: mean distance between the log-probabilities that the engine drew with and
    the trainer's; `masked_share`: tokens that the loss leaves out, because their importance ratio is out of its bounds."""

    length_ratio: float = 2.0
    cut_share: float = 0.5
    entropy_share: float = 0.2
    repeated_share: float = 0.5
    gram_tokens: int = 4
    drift_nats: float = 0.1
    masked_share: float = 0.05


class Start(NamedTuple):
    """What was usual when training began: means over the first `START_STEPS` batches."""

    batches: int = 0
    length_tokens: float = 0.0
    entropy_nats: float = 0.0

    @classmethod
    def of(cls, journal: Iterable[Mapping[str, Any]]) -> "Start":
        """That of a run which is gone on with, from its journal: a line a step, in their order."""
        start = cls()
        for line in journal:
            if "rollout/length_tokens" in line:
                start = start.add(line["rollout/length_tokens"], line["rollout/entropy_nats"])
        return start

    def add(self, length_tokens: float, entropy_nats: float) -> "Start":
        """The running mean with one more batch, while training begins."""
        if self.batches == START_STEPS:
            return self
        count = self.batches + 1
        length = self.length_tokens + (length_tokens - self.length_tokens) / count
        return Start(count, length, self.entropy_nats + (entropy_nats - self.entropy_nats) / count)


class Finding(NamedTuple):
    """One sign beyond its threshold, in words for people."""

    name: str
    value: float
    limit: float
    words: str


class Health(NamedTuple):
    """`metrics` for the journal, whatever they are; `findings` only what is beyond a threshold."""

    metrics: dict[str, float]
    findings: tuple[Finding, ...]


def health(
    rollouts: Sequence[Rollout],
    entropy_nats: float,
    start: Start,
    limits: Limits | None = None,
    drift_nats: float = 0.0,
    masked_share: float | None = None,
) -> Health:
    """Judges one batch of at least one rollout. `entropy_nats` is the student's mean entropy at its own tokens;
    `masked_share` None where the loss leaves nothing out. Nothing is held against a start of no batches."""
    assert rollouts
    limits = limits or Limits()
    length, cut = mean_length(rollouts), cut_share(rollouts)
    repeated = sum(repeated_share(rollout.ids, limits.gram_tokens) for rollout in rollouts) / len(rollouts)
    metrics = {
        "rollout/length_tokens": length,
        "rollout/cut_share": cut,
        "rollout/stop_rate": 1 - cut,
        "rollout/entropy_nats": entropy_nats,
        "rollout/repeated_share": repeated,
        "rollout/drift_nats": drift_nats,
    } | ({} if masked_share is None else {"rollout/masked_share": masked_share})
    found = []
    if start.batches:
        longest, least = limits.length_ratio * start.length_tokens, limits.entropy_share * start.entropy_nats
        if length > longest:
            words = f"answers have {length:.0f} tokens on average, at the start {start.length_tokens:.0f}"
            found.append(Finding("length_inflation", length, longest, words))
        if entropy_nats < least:
            words = f"entropy fell to {entropy_nats:.3g} nats a token, at the start {start.entropy_nats:.3g}"
            found.append(Finding("entropy_collapse", entropy_nats, least, words))
    if cut > limits.cut_share:
        words = f"{cut:.0%} of the answers were cut before they ended: with a higher method.max_new_tokens they might"
        found.append(Finding("truncation", cut, limits.cut_share, words))
    if repeated > limits.repeated_share:
        words = f"{repeated:.0%} of an answer's runs of {limits.gram_tokens} tokens repeat earlier ones"
        found.append(Finding("repetition", repeated, limits.repeated_share, words))
    if drift_nats > limits.drift_nats:
        found.append(Finding("engine_drift", drift_nats, limits.drift_nats, drift_in_words(drift_nats)))
    if masked_share is not None and masked_share > limits.masked_share:
        words = f"{masked_share:.1%} of the tokens drawn are left out: the student is too far from what drew them"
        found.append(Finding("masked", masked_share, limits.masked_share, words))
    return Health(metrics, tuple(found))


def drift_in_words(drift_nats: float) -> str:
    """What another engine's log-probabilities that are so far off may mean."""
    return (
        f"the engine's log-probabilities are {drift_nats:.3g} nats off the trainer's: its weights are stale or coarse"
    )


def mean_length(rollouts: Sequence[Rollout]) -> float:
    """New tokens an answer, the end token counted."""
    return sum(len(rollout.ids) for rollout in rollouts) / len(rollouts)


def cut_share(rollouts: Sequence[Rollout]) -> float:
    """Share of the answers without an end."""
    return sum(not rollout.finished for rollout in rollouts) / len(rollouts)


def repeated_share(ids: Sequence[int], gram_tokens: int) -> float:
    """Share of the runs of `gram_tokens` tokens that are the same as an earlier one; 0 for an answer too short to have two."""
    runs = [tuple(ids[at : at + gram_tokens]) for at in range(len(ids) - gram_tokens + 1)]
    return 1 - len(set(runs)) / len(runs) if len(runs) > 1 else 0.0
