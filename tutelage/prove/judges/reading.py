"""What a judge said, read from its last line alone. Pure, and blind to everything else in the text.

Only a last line in the agreed form with the prompt's nonce counts. Verdicts that the judge quotes, weighs or was told to
write stand elsewhere or lack the nonce; whatever is not read is UNREADABLE, which is never a tie and never a win.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from tutelage.errors import DataError
from tutelage.prove.judges.prompts import NONCE_DIGITS, Criterion, check_rubric

MOST_LINE = 4_000  # characters of a last line: a hundred criteria fit
_NONCE = re.compile(rf"[0-9a-f]{{{NONCE_DIGITS}}}")
_CUT = frozenset({"length", "content_filter", "refusal", "safety", "tool_calls"})


class Verdict(StrEnum):
    """What the judge's last line says."""

    A = "A"
    B = "B"
    TIE = "TIE"
    UNREADABLE = "UNREADABLE"


Scores = tuple[int, ...]


def read_verdict(text: str, nonce: str, finish_reason: str = "stop") -> Verdict:
    """The verdict of a pairwise judge, UNREADABLE unless its last line is `VERDICT <nonce>: A`, `B` or `TIE`.

    Blank lines after it, emphasis around it (`*`, `_`, backticks) and one full stop are let pass, nothing else: no other
    case, letter or code. An answer that was cut or refused (by `finish_reason`) is UNREADABLE, whatever it says. Raises
    `DataError` for a nonce that no prompt of ours has.
    """
    _check_nonce(nonce)
    if finish_reason in _CUT:
        return Verdict.UNREADABLE
    found = re.fullmatch(rf"VERDICT {nonce}: (A|B|TIE)\.?", _last_line(text))
    return Verdict(found[1]) if found else Verdict.UNREADABLE


def read_scores(
    text: str, nonce: str, criteria: Sequence[Criterion], points: int, finish_reason: str = "stop"
) -> Scores | Literal[Verdict.UNREADABLE]:
    """One mark a criterion, in their order; UNREADABLE unless the last line is `SCORES <nonce>: name=N …`, with every
    criterion once, in order, and every N a whole number in 1..points.

    Commas or spaces may stand between. Raises as `read_verdict`, and `ConfigError` for wrong criteria or scale.
    """
    _check_nonce(nonce)
    check_rubric(criteria, points)
    if finish_reason in _CUT:
        return Verdict.UNREADABLE
    form = "(?:, ?| )".join(f"{re.escape(one.name)}=([1-9][0-9]{{0,2}})" for one in criteria)
    found = re.fullmatch(rf"SCORES {nonce}: {form}\.?", _last_line(text))
    if found is None:
        return Verdict.UNREADABLE
    scores = tuple(int(digits) for digits in found.groups())
    return scores if max(scores) <= points else Verdict.UNREADABLE


def _last_line(text: str) -> str:
    """The last line that says something, without emphasis; empty when it is too long to be a verdict."""
    for line in reversed(text.splitlines()):
        bare = line.strip().strip("*_`").strip()
        if bare:
            return bare if len(bare) <= MOST_LINE else ""
    return ""


def _check_nonce(nonce: str) -> None:
    if not _NONCE.fullmatch(nonce):
        raise DataError(
            f"nonce {nonce[:40]!r} is none of ours", fix=f"give the prompt's nonce: {NONCE_DIGITS} hexadecimal digits"
        )
