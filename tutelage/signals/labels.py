"""Label questions: what a teacher revealed at the answer's first token, as rows of `TopK`.

Shape legend: N positions, K kept ids.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from tutelage.errors import SignalError
from tutelage.records import UNATS_PER_NAT, Position
from tutelage.signals.types import NO_TAIL, TopK
from tutelage.tasks import label_of_each, logaddexp


def label_distribution(
    position: Position, labels: Sequence[str], label_ids: Sequence[int], token_ids: Mapping[bytes, int]
) -> dict[int, float]:
    """Natural log-probability by student id. The candidates that begin a label count for the student's own first
    token of that label; other candidates are matched by their bytes; what matches nothing is left to the tail."""
    found: dict[int, float] = {}
    for candidate, label in zip(position.top, label_of_each(tuple(labels), position), strict=True):
        student_id = label_ids[label] if label >= 0 else token_ids.get(candidate.token_bytes)
        if student_id is not None:
            logp = candidate.logprob_unats / UNATS_PER_NAT
            found[student_id] = logaddexp(found[student_id], logp) if student_id in found else logp
    return found


def shifted(logp: Mapping[int, float], offsets: Mapping[int, float]) -> tuple[dict[int, float], float]:
    """Adds offsets to some ids' log-probabilities and restores the total, tail included, to 1.

    Returns the new log-probabilities and the log of the tail mass. Raises `SignalError` when the candidates hold more
    than all probability (an endpoint that reports processed or wrong log-probabilities).
    """
    total = math.fsum(math.exp(value) for value in logp.values())
    if total > 1.005:
        raise SignalError(
            f"the revealed probabilities sum to {total:.4f}",
            fix="the endpoint must report raw log-probabilities (temperature 1, before top-p)",
        )
    tail = max(0.0, 1.0 - total)
    moved = {token: value + offsets.get(token, 0.0) for token, value in logp.items()}
    norm = math.log(tail + math.fsum(math.exp(value) for value in moved.values()))
    return {token: value - norm for token, value in moved.items()}, (math.log(tail) - norm if tail > 0 else NO_TAIL)


def pack_top_k(rows: Sequence[tuple[Mapping[int, float], float]]) -> TopK:
    """Rows of (log-probability by id, log tail) as padded tensors. Raises `SignalError` for no rows."""
    if not rows:
        raise SignalError("no teacher signal at all", fix="curation dropped everything; see curate/drops.jsonl")
    width = max(1, *(len(logp) for logp, _ in rows))
    ids_NK = torch.zeros(len(rows), width, dtype=torch.long)
    logp_NK = torch.full((len(rows), width), -math.inf)
    for at, (logp, _) in enumerate(rows):
        ids_NK[at, : len(logp)] = torch.tensor(list(logp), dtype=torch.long)
        logp_NK[at, : len(logp)] = torch.tensor(list(logp.values()))
    return TopK(ids_NK, logp_NK, torch.tensor([tail for _, tail in rows]))
