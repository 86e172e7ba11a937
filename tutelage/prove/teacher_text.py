"""How likely the student finds what its teacher wrote, held against how likely the teacher finds it: estimates of a divergence.

For a text y that the teacher drew at temperature 1, log p_T(y) − log p_S(y) is an unbiased estimate of KL(p_T ‖ p_S) between
whole answers (Kullback & Leibler 1951, Ann. Math. Stat. 22:79, eq. 2.4, by Monte Carlo). Here it is divided by the text's tokens,
or its bytes, and its mean is taken over items. Everywhere the student's log-probability less the teacher's is "student minus
teacher", so that less than 0 is worse, as with scores; the estimate of the divergence is minus that.

Legend: N items, T tokens of one text, S systems. Nats a token, or bits a byte.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError, SignalError
from tutelage.prove.differences import Column, mean_interval
from tutelage.records import UNATS_PER_NAT, Position
from tutelage.stats.clusters import clustered_mean
from tutelage.stats.interval import Interval, bootstrap_of_means

Per = Literal["token", "byte"]
Floats = NDArray[np.float64]

FEWEST_TEXTS = 200  # fewer, and a lopsided divergence lies above its limit in up to 5.5 % for 2.5 % (docs/prove.md)
_LOPSIDED = (
    "the upper limit of a lopsided divergence misses in up to 4 % of proofs with 200 texts, for 2.5 % at level 0.95"
)
RESAMPLES = 10_000
UNITS = {"token": "nats a token", "byte": "bits a byte"}
_SAME_SPLIT = 0.5  # share of texts that both split alike, from which they are taken to have one tokenizer


def metric_of(per: Per) -> str:
    """What is compared, with its unit."""
    return f"log-probability of the teacher's text, {UNITS[per]}"


class Reading(NamedTuple):
    """What one model thinks of one text: nats of each token, its bytes, and the likeliest candidates there by their bytes (among
    them the token itself), empty where none are revealed. `has_end`: the last token says that the answer ends."""

    logp_T: Floats
    spelled_T: tuple[bytes, ...]
    top_T: tuple[Mapping[bytes, float], ...]
    has_end: bool

    def without_end(self) -> "Reading":
        return Reading(self.logp_T[:-1], self.spelled_T[:-1], self.top_T[:-1], False) if self.has_end else self


def reading(positions: Sequence[Position], *, has_end: bool) -> Reading:
    """From log-probabilities as they are recorded."""
    logp = np.array([one.chosen.logprob_unats / UNATS_PER_NAT for one in positions])
    return Reading(logp, tuple(one.chosen.token_bytes for one in positions), tuple(map(_revealed, positions)), has_end)


def own_reading(positions: Sequence[Position], text: str, *, ended: bool) -> Reading | None:
    """What a model thought of a text while it wrote it; None where its tokens are not the text. A token behind the text counts as
    its end where it `ended` by itself."""
    wanted, said, count = text.encode("utf-8", "surrogatepass"), b"", 0
    for one in positions:
        if said in (wanted, b" " + wanted):  # some tokenizers put a blank before a text that decoding takes away
            break
        said, count = said + one.chosen.token_bytes, count + 1
    if said not in (wanted, b" " + wanted) or not count:
        return None
    has_end = ended and len(positions) > count
    return reading(positions[: count + has_end], has_end=has_end)


class Pair(NamedTuple):
    """One text, by both: log-probability in the unit, of the teacher and of the other; shares of the tokens' places on which the
    likeliest token is the same, and of probability that both give to the same revealed tokens (at least), None where they cannot
    be compared; whether both split it into the same tokens."""

    teacher: float
    other: float
    agreement: float | None
    overlap: float | None
    is_split_alike: bool


def compare(teacher: Reading, other: Reading, size_bytes: int, per: Per) -> Pair:
    """The end counts where both give it. `size_bytes` of the text, more than 0; a token before the end at least in both."""
    if not (teacher.has_end and other.has_end):
        teacher, other = teacher.without_end(), other.without_end()
    scale = 1.0 / len(teacher.logp_T) if per == "token" else 1.0 / (size_bytes * math.log(2.0))
    alike = teacher.spelled_T == other.spelled_T
    agreement, overlap = _tops(teacher.top_T, other.top_T) if alike else (None, None)
    return Pair(scale * math.fsum(teacher.logp_T), scale * math.fsum(other.logp_T), agreement, overlap, alike)


def _tops(first_T: Sequence[Mapping[bytes, float]], second_T: Sequence[Mapping[bytes, float]]) -> tuple[Any, Any]:
    both = [pair for pair in zip(first_T, second_T, strict=True) if pair[0] and pair[1]]
    if not both:
        return None, None
    same = [_likeliest(first) == _likeliest(second) for first, second in both]
    shared = [
        math.fsum(math.exp(min(first[token], second[token])) for token in first.keys() & second.keys())
        for first, second in both
    ]
    return sum(same) / len(both), min(1.0, math.fsum(shared) / len(both))


def _likeliest(top: Mapping[bytes, float]) -> bytes:
    """Of equally likely ones the same for everybody."""
    return min(top, key=lambda token: (-top[token], token))


def _revealed(position: Position) -> dict[bytes, float]:
    """By bytes; of two that are spelled alike the likelier. Nothing where no candidate was revealed beside the token."""
    if not position.top:
        return {}
    found: dict[bytes, float] = {}
    for one in (*position.top, position.chosen):
        logp = one.logprob_unats / UNATS_PER_NAT
        found[one.token_bytes] = max(found.get(one.token_bytes, -math.inf), logp)
    return found


@dataclass(frozen=True, slots=True)
class Texts:
    """The teacher's texts by every system S that scores them: a `Pair` an item, None where there is none. `left_out` says how
    many items have no text that teacher and student scored, by the reason; `what` what the difference estimates."""

    per: Per
    what: str
    pairs: Mapping[str, tuple[Pair | None, ...]]
    session_N: NDArray[np.str_] | None
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        return UNITS[self.per]

    @property
    def metric(self) -> str:
        return metric_of(self.per)

    def at(self, name: str) -> NDArray[np.int64]:
        """Items whose text the system scored."""
        return np.flatnonzero([pair is not None for pair in self.pairs[name]])

    def found(self, name: str) -> list[Pair]:
        return [pair for pair in self.pairs[name] if pair is not None]

    def means(self, name: str) -> tuple[float, float]:
        """Of the system and of the teacher, on the system's texts."""
        found = self.found(name)
        return float(np.mean([one.other for one in found])), float(np.mean([one.teacher for one in found]))

    def problem(self, name: str, level: float, seed: int) -> str:
        """Why there is no interval; empty where there is one."""
        found = self.found(name)
        if self.session_N is None and len(found) < FEWEST_TEXTS:
            return f"{len(found)} texts: an interval of a divergence needs {FEWEST_TEXTS}"
        if len({one.other - one.teacher for one in found}) < 2:
            return "both find every text equally likely: nothing varies"
        try:
            self.interval(name, level, seed)
        except DataError as error:  # too few sessions, or texts too unlike to resample
            return error.message
        return ""

    def interval(self, name: str, level: float, seed: int) -> Interval:
        """Of the system minus the teacher: BCa bootstrap over items, cluster-robust where items come in sessions."""
        apart_N = np.array([one.other - one.teacher for one in self.found(name)])
        if self.session_N is not None:
            return clustered_mean(apart_N, self.session_N[self.at(name)], level).interval
        rng = np.random.default_rng(seed)
        found = bootstrap_of_means(apart_N[:, None], lambda mean: mean, rng, level, RESAMPLES)
        return replace(found, method=f"{found.method}; {_LOPSIDED}")


def require_one_tokenizer(texts: Texts) -> None:
    """Raises `SignalError` where nats a token are asked for and teacher and student split texts differently, `DataError` where
    there is no text at all."""
    found = texts.found("student")
    if not found:
        why = "; ".join(f"{count} {reason}" for reason, count in texts.left_out.items())
        raise DataError(f"no text of the teacher was scored by both: {why}", fix="look into store and logs")
    alike = sum(one.is_split_alike for one in found)
    if texts.per == "token" and alike < _SAME_SPLIT * len(found):
        raise SignalError(
            f"teacher and student split {len(found) - alike} of {len(found)} texts differently: they have two tokenizers",
            fix='set teacher_text.per = "byte"; the margin is then in bits a byte',
        )


def text_evidence(texts: Texts, level: float, seed: int) -> dict[str, Any]:
    """The part of `evidence.json`; docs/formats.md has the keys. Divergence, agreement and overlap with intervals at `level`."""
    return {
        "unit": texts.unit,
        "what": texts.what,
        "left_out": dict(texts.left_out),
        "systems": [_row(texts, name, level, seed) for name in texts.pairs],
    }


def _row(texts: Texts, name: str, level: float, seed: int) -> dict[str, Any]:
    found = texts.found(name)
    row: dict[str, Any] = {
        "role": name, "n": len(found), "split_alike": sum(one.is_split_alike for one in found), "system": None, "teacher": None,
        "divergence": None, "divergence_low": None, "divergence_high": None, "method": "", "why": "no text was scored",
    }  # fmt: skip
    if found:
        row["system"], row["teacher"] = texts.means(name)
        row["divergence"], row["why"] = row["teacher"] - row["system"], texts.problem(name, level, seed)
        if not row["why"]:
            between = texts.interval(name, level, seed)
            row |= {"divergence_low": -between.high, "divergence_high": -between.low, "method": between.method}
    return row | _share(texts, name, "agreement", level, seed) | _share(texts, name, "overlap", level, seed)


def _share(texts: Texts, name: str, what: str, level: float, seed: int) -> dict[str, Any]:
    """Mean over the texts on which it can be compared, with its interval."""
    pairs = texts.pairs[name]
    at = np.flatnonzero([pair is not None and getattr(pair, what) is not None for pair in pairs])
    if at.size < 2:
        return {what: None, f"{what}_low": None, f"{what}_high": None}
    share_N = np.array([getattr(pairs[item], what) for item in at])
    sessions = None if texts.session_N is None else texts.session_N[at]
    between = mean_interval(Column(share_N, False, sessions), level, seed)
    return {what: float(share_N.mean()), f"{what}_low": between.low, f"{what}_high": between.high}


def item_rows(texts: Texts, names: Sequence[str]) -> list[dict[str, Any]]:
    """A line an item; whole numbers of 1e-6, as no line of a record holds a float."""
    return [
        {
            "item": item,
            "unit": texts.unit,
            "systems": {name: _numbers(pairs[at]) for name, pairs in texts.pairs.items() if pairs[at] is not None},
        }
        for at, item in enumerate(names)
    ]


def _numbers(pair: Pair | None) -> dict[str, int | None]:
    assert pair is not None
    values = {
        "micro": pair.other,
        "teacher_micro": pair.teacher,
        "agreement_ppm": pair.agreement,
        "overlap_ppm": pair.overlap,
    }
    return {name: None if value is None else round(1e6 * value) for name, value in values.items()}
