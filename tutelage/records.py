"""The nouns: frozen records that the store and the ledger keep. Read this first.

Money is integer nano-USD (`_nusd`), probabilities are integer micro-nats (`_unats`: 1e-6 nat), times are UTC
RFC 3339 strings, durations are integer milliseconds: no record holds a float, so canonical JSON names it exactly.
"""

import base64
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from tutelage.canon import LEAVES, digest_of

UNATS_PER_NAT, NUSD_PER_USD = 1_000_000, 1_000_000_000


class Role(StrEnum):
    """What an answer is used for; the ledger counts tokens by it."""

    TEXT_TARGET = "text-target"
    SOFT_TARGET = "soft-target"
    OWN_TEXT = "own-text"  # written by the student itself, and learnt not to be said
    SCORER = "scorer"
    JUDGE = "judge"
    PROMPT_AUTHOR = "prompt-author"
    PARAPHRASER = "paraphraser"
    RATER = "rater"
    BASE_LINEAGE = "base-lineage"  # whose weights the student starts from: no loss tokens, but taken all the same
    EVALUATION = "evaluation"


class Origin(StrEnum):
    """How an exchange came to us."""

    ASKED = "asked"
    CAPTURED = "captured"
    IMPORTED = "imported: declared, unverified"


class Decision(StrEnum):
    """The words of a claim's verdict."""

    NON_INFERIOR = "NON-INFERIOR"
    EQUIVALENT = "EQUIVALENT"
    INFERIOR = "INFERIOR"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class Record:
    """Base of all records: conversion to and from plain JSON values, and a name that is a digest.

    A field with a default came later than the record: it is written only where it says something else, so that records
    from before keep their names.
    """

    def to_json(self) -> dict[str, Any]:
        made = {}
        for name, default in _defaults(type(self)).items():
            value = getattr(self, name)
            if default is MISSING or value != default:
                made[name] = value if type(value) in LEAVES else _plain(value)
        return made

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises `ValueError` when a field is missing, unknown or of another type."""
        return _build(cls, value, cls.__name__)

    @property
    def digest(self) -> str:
        return digest_of(self.to_json())


RAW = "raw"  # the role of a text that is sent as it stands, to be continued: no chat template, no other message
GIVEN, SCORED = "given", "scored"  # roles of token ids in decimal: what is read, and what is to be scored after it


@dataclass(frozen=True, slots=True)
class Message(Record):
    """One turn. Roles are `system`, `user`, `assistant`, `tool`, or `RAW` alone.

    `tool_calls` of an assistant are `{"id", "type": "function", "function": {"name", "arguments"}}`, all strings
    (`arguments` is JSON text); `tool_call_id` says which of them a `tool` message answers.
    """

    role: str
    content: str
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Prompt(Record):
    """A question before rendering. The split is a type, fixed at birth: see `TrainPrompt` and `HeldOutPrompt`."""

    prompt_id: str
    text: str
    group: str  # near-duplicate cluster; a group never straddles the split
    source: str  # resource or file it came from
    source_digest: str
    licence: str


@dataclass(frozen=True, slots=True)
class TrainPrompt(Prompt):
    """A prompt that may be trained on. It carries no gold label: none was read."""


@dataclass(frozen=True, slots=True)
class ValidationPrompt(TrainPrompt):
    """A training prompt set aside to tune by (agreement with the teacher); its answers are not stepped on."""


@dataclass(frozen=True, slots=True)
class HeldOutPrompt(Prompt):
    """A prompt kept for the proof; training code accepts no such value."""


@dataclass(frozen=True, slots=True)
class Question(Record):
    """What is to be asked of a teacher in an open task, and where it comes from; `tools` and `schema` as in `Request`."""

    prompt_id: str  # digest of messages, tools and schema: the same question twice is one
    messages: tuple[Message, ...]
    source: str  # resource or file it came from
    source_digest: str
    licence: str
    tools: str = ""
    schema: str = ""
    group: str = ""  # session or near-duplicate cluster, where the file names one


@dataclass(frozen=True, slots=True)
class Request(Record):
    """What is sent, and why. Its digest is the address of the answer, known before asking.

    `params` are the other fields by their OpenAI names, as canonical values (temperatures are decimal strings); each
    dialect says them in its own words. `tools` (a list of OpenAI function tools), `schema` (the JSON Schema the answer
    must satisfy) and `extra` (fields sent as they are, for what only one vendor knows) are JSON text, empty when there is
    none: they may hold floats and any key. A single message of role `RAW` makes it a plain completion, one of role `GIVEN`
    and one of role `SCORED` a text to be scored (`models.scores`).
    """

    messages: tuple[Message, ...]
    params: dict[str, Any]
    model_asked: str
    route: str
    purpose: str  # the run's purpose id, or the digest of a claim or an audit plan: a namespace for resuming
    draw: int
    tools: str = ""
    schema: str = ""
    extra: str = ""

    @property
    def is_completion(self) -> bool:
        return len(self.messages) == 1 and self.messages[0].role == RAW


@dataclass(frozen=True, slots=True)
class ModelId(Record):
    """Which model answered, as far as anybody can tell. Empty strings say 'the endpoint did not tell'."""

    provider: str
    route: str
    model_asked: str
    model_reported: str
    weights_digest: str
    fingerprint: str
    tokenizer_digest: str
    template_digest: str
    probe_digest: str
    licence: str


@dataclass(frozen=True, slots=True)
class TokenLogprob(Record):
    """One candidate token: its bytes (base64), the endpoint's id for it (−1 when it gives none), and log-probability."""

    bytes_b64: str
    token_id: int
    logprob_unats: int

    def to_json(self) -> dict[str, Any]:
        """As every record's; written out, because one answer holds thousands of these."""
        return {"bytes_b64": self.bytes_b64, "token_id": self.token_id, "logprob_unats": self.logprob_unats}

    @property
    def token_bytes(self) -> bytes:
        return base64.b64decode(self.bytes_b64)


@dataclass(frozen=True, slots=True)
class Position(Record):
    """One generated token and the most likely candidates there."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Usage(Record):
    """Tokens of one call. Cached tokens (read from, or written to, the provider's cache) are among the prompt's,
    reasoning tokens among the completion's."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Price(Record):
    """What one exchange cost, where the prices come from, and their date."""

    cost_nusd: int
    source: str
    dated: str
    tier: str = ""  # "batch" for answers from a batch API, else empty


@dataclass(frozen=True, slots=True)
class Exchange(Record):
    """One question and its answer."""

    request_digest: str
    model: ModelId
    answer: str
    reasoning: str
    tool_calls: tuple[dict[str, Any], ...]
    finish_reason: str
    logprobs: tuple[Position, ...]
    usage: Usage
    price: Price
    latency_ms: int
    attempts: int
    request_id_hash: str
    raw_body_digest: str
    terms_digest: str
    twin: str | None
    origin: Origin
    role: Role
    asked_at: str


@dataclass(frozen=True, slots=True)
class Reservation(Record):
    """What a call may cost, written before it is made: if nothing follows, it may have been made and charged for."""

    request_digest: str
    attempt: int
    nusd: int
    tokens: int
    reserved_at: str


@dataclass(frozen=True, slots=True)
class Attempt(Record):
    """A call that gave no usable answer. `nusd` and `tokens` are known to have been charged; `open_nusd` and
    `open_tokens` may have been on top, and nobody told."""

    request_digest: str
    attempt: int
    reason: str
    nusd: int
    tokens: int
    open_nusd: int
    open_tokens: int
    raw_body_digest: str  # empty when nothing came
    ended_at: str


@dataclass(frozen=True, slots=True)
class Failure(Record):
    """A question that got no usable answer after every retry, or was `refused`; asked again when the stage is resumed."""

    request_digest: str
    reason: str
    attempts: int
    failed_at: str
    refused: bool  # the endpoint will not answer this question, whatever others it answers


@dataclass(frozen=True, slots=True)
class Drop(Record):
    """An exchange that is not trained on, and why."""

    exchange: str
    filter: str
    filter_version: int
    reason: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Claim(Record):
    """Said before looking: student against teacher on held-out prompts. Proportions are in parts per million."""

    metric: str
    comparison: str
    margin_ppm: int
    level_ppm: int
    test: str
    planned_n: int
    decision_rule: str
    declared_on: str


@dataclass(frozen=True, slots=True)
class Checkpoint(Record):
    """Weights at a step, and exactly what they have consumed."""

    weights: str
    parent: str
    config: str
    state: str  # digest of the whole state at the end: weights, average, optimizer, random state
    chain: str  # digest of the last line of the chain over all boundaries, which names each line before
    step: int
    data_position: int
    loss_tokens: dict[str, int]  # by "<role>"; counted from the batches stepped
    consumed: str  # digest of the ordered list of exchange digests with their loss tokens


@dataclass(frozen=True, slots=True)
class Statement(Record):
    """One ledger entry: a stage ran on these inputs with this configuration and made these outputs."""

    kind: str  # "opened" | "intent" | "statement"
    stage: str
    stage_version: int
    stage_digest: str
    config: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    facts: dict[str, Any]
    code: str
    environment: str
    hardware: str
    started_at: str
    ended_at: str
    signer: str  # verification key of whoever signs the checkpoint over this; empty when nobody does
    salt: str  # 32 bytes in hexadecimal: the entry's hash is public, and must not let anybody guess the entry
    previous: str  # digest of the entry before; locates a change that the root only detects


@cache
def _defaults(kind: type) -> dict[str, Any]:
    return {field.name: field.default for field in fields(kind)}


@cache
def _types(kind: type) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if name in _defaults(kind)}


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, list | tuple):
        return [item.to_json() if isinstance(item, Record) else _plain(item) for item in value]
    if isinstance(value, dict):
        return {key: item if type(item) in LEAVES else _plain(item) for key, item in value.items()}
    return value.value if isinstance(value, StrEnum) else value


def _build(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected an object, got {type(value).__name__}")
        types = _types(kind)
        if not value.keys() <= types.keys():
            raise ValueError(f"{where}: unknown fields {sorted(value.keys() - types.keys())}")
        if missing := [name for name in types.keys() - value.keys() if _defaults(kind)[name] is MISSING]:
            raise ValueError(f"{where}: missing fields {sorted(missing)}")
        made = {}
        for name, item in value.items():
            made[name] = item if type(item) is types[name] else _build(types[name], item, f"{where}.{name}")
        return kind(**made)
    origin = get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where}: expected a list, got {type(value).__name__}")
        item_kind = get_args(kind)[0]
        return tuple(_build(item_kind, item, f"{where}[{at}]") for at, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected an object, got {type(value).__name__}")
        return dict(value)
    if origin in (Union, UnionType):
        return None if value is None else _build(get_args(kind)[0], value, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ValueError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value
