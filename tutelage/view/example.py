"""One example as a page shows it: the question, the answer token by token, its price, its terms, and where it went."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.canon import digest_of
from tutelage.errors import DataError
from tutelage.prove.open_claims import namespace_of
from tutelage.records import NUSD_PER_USD, UNATS_PER_NAT, Exchange, Request, Statement, TokenLogprob
from tutelage.view.index import Place, ViewIndex
from tutelage.view.runs import Run, read_json

SHOWN_POSITIONS = 300
SHOWN_CANDIDATES = 5
SHOWN_BODY = 64 * 1024


class Candidate(NamedTuple):
    """A token the model might have said, with its probability and log-probability in nats."""

    text: str
    probability: float
    nats: float
    is_chosen: bool


class Step(NamedTuple):
    """One generated token: the chosen one first, then the likeliest others; `tail` is what the shown ones leave."""

    number: int
    candidates: tuple[Candidate, ...]
    tail: float


class Example(NamedTuple):
    """All of one page. Money in USD; `facts` are plain values, `terms` the verdicts it was asked under."""

    place: Place
    request: Request
    exchange: Exchange
    digest: str
    steps: tuple[Step, ...]
    positions: int
    cost_usd: float
    lineage: dict[str, Any]
    asked_by: dict[str, str]
    terms: dict[str, str]
    proof: str
    raw: str
    body: str
    body_bytes: int


def read_example(run: Run, index: ViewIndex, place: Place, lineage: dict[str, Any]) -> Example:
    """Reads the records anew from their segment. Raises `StorageError` for a damaged line, `DataError` for a record that is
    not in this version's shape."""
    asked = index.line_at(place.segment, lineage["request_offset"])
    answered = index.line_at(place.segment, place.offset)
    try:
        request, exchange = Request.from_json(asked.value), Exchange.from_json(answered.value)
        steps = tuple(_step(number, position) for number, position in enumerate(exchange.logprobs[:SHOWN_POSITIONS], 1))
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"example {place} of {run.name} is not in this version's shape: {str(error)[:200]}",
            fix="look at it with the version that wrote it",
        ) from error
    body, size = _body(index, place, lineage["body_offset"])
    entries = run.statements()
    raw = {"request": asked.value, "exchange": {**answered.value, "logprobs": f"{len(exchange.logprobs)} positions"}}
    return Example(
        place, request, exchange, answered.digest, steps, len(exchange.logprobs),
        exchange.price.cost_nusd / NUSD_PER_USD, lineage, _asked_by(entries, lineage["stage"]),
        terms_of(run.folder, exchange.terms_digest), _proof(entries, request.purpose),
        json.dumps(raw, indent=1, ensure_ascii=False, sort_keys=True), body, size,
    )  # fmt: skip


def token_text(token: TokenLogprob) -> str:
    """The token as text; bytes that are no UTF-8 by themselves as `\\xe2`, spaces and newlines as signs."""
    try:
        text = base64.b64decode(token.bytes_b64).decode("utf-8", "backslashreplace")
    except ValueError:
        return "(no bytes)"
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or "(empty)"


def terms_of(folder: Path, digest: str) -> dict[str, str]:
    """The verdict under which something was asked: file, status, day, and the clause behind it. Without a status when no
    file says it, and without a digest when none is named."""
    if not digest:
        return {"status": "", "digest": ""}
    for path in sorted((folder / "terms").glob("*.json")):
        found = read_json(path)
        for together in _verdicts(found):
            reasons = together["reasons"]
            if digest_of([[one["entry_digest"], one["status"]] for one in reasons]) == digest:
                said = [f"{one['subject']}: {one['status']} ({one['entry_name'] or one['asked']}, {one['number']})"
                        for one in reasons]  # fmt: skip
                status = together.get("status", "")
                return {
                    "file": path.name,
                    "status": str(status),
                    "date": str(together["date"]),
                    "said": "; ".join(said),
                }
    return {"status": "", "digest": digest}


def _verdicts(found: Any) -> list[Mapping[str, Any]]:
    """The verdict on everything together, or what it is made of: teacher, data, base and the inherited ones, in this order."""
    if not isinstance(found, Mapping):
        return []
    try:
        if "together" in found:
            return [found["together"]]
        if several := [one["together"] for one in found.values() if isinstance(one, Mapping) and "together" in one]:
            return several  # of compared teachers, one each
        parts: Sequence[Any] = [found[name] for name in ("teacher", "data", "base") if name in found]
        parts = [*parts, *found.get("inherited", ())]
        reasons = [reason for part in parts for reason in part["reasons"]]
        statuses = ", ".join(dict.fromkeys(str(part["status"]) for part in parts))
        return [{"reasons": reasons, "status": statuses, "date": parts[0]["date"]}] if parts else []
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"a file of terms is not in this version's shape: {error!r:.200}", fix="run `tutelage verify`"
        ) from error


def _step(number: int, position: Any) -> Step:
    others = [one for one in position.top if one != position.chosen]
    others.sort(key=lambda one: -one.logprob_unats)
    shown = [position.chosen, *others[: SHOWN_CANDIDATES - 1]]
    candidates = tuple(
        Candidate(
            token_text(one),
            min(1.0, math.exp(one.logprob_unats / UNATS_PER_NAT)),
            one.logprob_unats / UNATS_PER_NAT,
            at == 0,
        )
        for at, one in enumerate(shown)
    )
    return Step(number, candidates, max(0.0, 1.0 - sum(one.probability for one in candidates)))


def _body(index: ViewIndex, place: Place, offset: int) -> tuple[str, int]:
    """The raw response's beginning, and its size in bytes; empty where none is stored before the answer."""
    if offset < 0:
        return "", 0
    value = index.line_at(place.segment, offset).value
    text = str(value.get("text", ""))
    return text[:SHOWN_BODY], len(text.encode(str(value.get("encoding", "utf-8")), "replace"))


def _asked_by(entries: Sequence[Statement], stage: str) -> dict[str, str]:
    """The last entry of the stage that asked: its kind, its digest's beginning and time; empty when no stage did."""
    for entry in reversed(entries):
        if stage and entry.stage == stage:
            return {"stage": stage, "kind": entry.kind, "stage_digest": entry.stage_digest, "at": entry.ended_at}
    return {}


def _proof(entries: Sequence[Statement], purpose: str) -> str:
    """The claims that an exchange was asked for, in words; empty when it was not."""
    for entry in entries:
        if entry.kind != "opened":
            continue
        if entry.facts.get("claim_digest") == purpose:
            return _claimed(entry.facts.get("claim", {}))
        claims = entry.facts.get("claims", [])
        if claims and namespace_of(claims) == purpose:
            return "; ".join(map(_claimed, claims))
    return ""


def _claimed(claim: Mapping[str, Any]) -> str:
    return f"{claim.get('comparison', '')}, declared {claim.get('declared_on', '')}"
