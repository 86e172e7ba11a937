"""What answers say about an endpoint's log-probabilities: pure functions of positions, all in integers."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from tutelage.models.probe import (
    NO,
    PROCESSED_BOTH,
    PROCESSED_TEMPERATURE,
    PROCESSED_TOP_P,
    RAW,
    UNKNOWN,
    YES,
    Item,
)  # fmt: skip
from tutelage.records import UNATS_PER_NAT, Position, TokenLogprob
from tutelage.wire.answers import ChatAnswer

COOLER = "0.5"  # the temperature at which processed log-probabilities double their distances
NUCLEUS = "0.5"  # the top-p at which processed ones lose their tail
_SAME_UNATS = 50_000  # differences that servers show between two calls of one model
_LIKELY_UNATS = -3 * UNATS_PER_NAT  # a twentieth; below, a difference says little
_ENOUGH_DRAWS = 4
_NOWHERE = -100 * UNATS_PER_NAT
_SPREAD_UNATS = 200_000  # candidates as close as this to each other would hide a scaling


class Processing(NamedTuple):
    """Whether log-probabilities are the model's own or those after sampling parameters, and the numbers behind it."""

    verdict: str
    evidence: dict[str, int]


def processing(plain: Position, cooler: Position | None, nucleus: Position | None) -> Processing:
    """From the first position of one question, asked at temperature 1, at `COOLER`, and at top-p `NUCLEUS`.

    Raw ones are the same each time. After temperature T, differences between candidates are 1/T times as large; after
    top-p, candidates beyond the nucleus are gone and the others hold all probability.
    """
    evidence: dict[str, int] = {}
    by_temperature = _by_temperature(plain, cooler, evidence)
    by_top_p = _by_top_p(plain, nucleus, evidence)
    if by_temperature and by_top_p:
        return Processing(PROCESSED_BOTH, evidence)
    if by_temperature:
        return Processing(PROCESSED_TEMPERATURE, evidence)
    if by_top_p:
        return Processing(PROCESSED_TOP_P, evidence)
    known = by_temperature is False and by_top_p is False
    return Processing(RAW if known else UNKNOWN, evidence)


def _by_temperature(plain: Position, cooler: Position | None, evidence: dict[str, int]) -> bool | None:
    pairs = _pairs(plain, cooler)
    if not pairs:
        return None
    moved = max((abs(after - before) for before, after in pairs if before >= _LIKELY_UNATS), default=0)
    evidence["temperature_moves_unats"] = moved
    top_before, top_after = pairs[0]
    apart = [(before - top_before, after - top_after) for before, after in pairs[1:]]
    square = sum(before * before for before, _ in apart)
    if square < _SPREAD_UNATS**2:
        informative = len(pairs) == 1 and top_before < -_SPREAD_UNATS  # one candidate: its own value must have moved
        return moved > _SAME_UNATS if informative else None
    slope_ppm = sum(before * after for before, after in apart) * 1_000_000 // square
    evidence["temperature_slope_ppm"] = slope_ppm
    wanted = round(1_000_000 / float(COOLER))
    if moved <= _SAME_UNATS or abs(slope_ppm - 1_000_000) <= 100_000:
        return False
    return True if abs(slope_ppm - wanted) <= 200_000 else None


def _by_top_p(plain: Position, nucleus: Position | None, evidence: dict[str, int]) -> bool | None:
    pairs = _pairs(plain, nucleus)
    if not pairs:
        return None
    lost = len(_candidates(plain)) - len(pairs)
    moved = abs(pairs[0][1] - pairs[0][0])
    evidence |= {"top_p_moves_unats": moved, "top_p_loses": lost}
    return 2 * lost > len(_candidates(plain)) or moved > 2 * _SAME_UNATS


def _pairs(first: Position, second: Position | None) -> list[tuple[int, int]]:
    """Log-probabilities before and after, of candidates in both, the likeliest first."""
    if second is None:
        return []
    before, after = _candidates(first), _candidates(second)
    both = sorted((token for token in before if token in after), key=lambda token: -before[token])
    return [(before[token], after[token]) for token in both]


def _candidates(position: Position) -> dict[bytes, int]:
    """The candidates, or the token itself where none came with it."""
    return {token.token_bytes: token.logprob_unats for token in position.top or (position.chosen,)}


def _logprob(token: TokenLogprob) -> int:
    return token.logprob_unats


def mass_ppm(position: Position) -> int:
    """What the candidates hold together, in millionths."""
    return round(1e6 * math.fsum(_probability(token.logprob_unats) for token in position.top))


class Apart(NamedTuple):
    """The most that two answers to one question differ at a position: probability that lies elsewhere (half the sum of
    the differences, in millionths), and the log-probability of a likely candidate (unats)."""

    ppm: int
    unats: int


def apart(first: ChatAnswer, second: ChatAnswer) -> Apart | None:
    """As far as their tokens agree, and at the first position where they do not; None without log-probabilities."""
    worst: Apart | None = None
    for one, other in zip(first.positions, second.positions, strict=False):
        before, after = _candidates(one), _candidates(other)
        pairs = [(before.get(token, _NOWHERE), after.get(token, _NOWHERE)) for token in before | after]
        ppm = round(5e5 * math.fsum(abs(_probability(a) - _probability(b)) for a, b in pairs))
        likely = (abs(a - b) for a, b in pairs if min(a, b) >= _LIKELY_UNATS)
        found = Apart(ppm, max(likely, default=0))
        worst = found if worst is None else Apart(max(worst.ppm, found.ppm), max(worst.unats, found.unats))
        if one.chosen.bytes_b64 != other.chosen.bytes_b64:
            break
    return worst


def _probability(unats: int) -> float:
    return math.exp(unats / UNATS_PER_NAT)


def sampled_listed(positions: Sequence[Position], k: int) -> Item:
    """Whether the token drawn is always among the candidates, asked for with a small k. Only draws that are not the
    likeliest token tell, and a few of them may be among k anyway."""
    off = [at for at in positions if at.top and at.chosen.token_bytes != max(at.top, key=_logprob).token_bytes]
    listed = sum(at.chosen.token_bytes in _candidates(at) for at in off)
    words = f"of {len(positions)} tokens drawn {len(off)} were not the likeliest; {listed} of these listed (k = {k})"
    if listed < len(off):
        return Item("sampled_listed", NO, words)
    return Item("sampled_listed", YES if len(off) >= _ENOUGH_DRAWS else UNKNOWN, words)
