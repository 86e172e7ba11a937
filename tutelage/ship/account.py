"""`Account`: everything the documents about a student say, as one plain value. No files, no torch, no floats.

The pipeline fills it from the log, the source table, the verdicts and the evidence; `bom`, `croissant`, `card` and
`summary` are pure functions of it, so the documents cannot tell different stories.
"""

from dataclasses import dataclass

from tutelage.ledger.sources import TARGETS, SourceRow
from tutelage.records import Record
from tutelage.terms.model import Verdict

FROM_FILE = "file"  # the route of what was read rather than asked: data, and the weights the student starts from


@dataclass(frozen=True, slots=True)
class Part(Record):
    """Something the student was made from. Empty strings say 'not known'."""

    name: str
    file_digest: str  # of the weights or of the data file, `sha256:…`
    licence: str  # SPDX id where there is one
    url: str


@dataclass(frozen=True, slots=True)
class Metric(Record):
    """One measured figure with its interval; numbers are decimal strings."""

    name: str  # for instance "accuracy"
    of: str  # the system: "student", "teacher", …
    value: str
    low: str
    high: str
    level: str
    n: int


@dataclass(frozen=True, slots=True)
class LogHead(Record):
    """The event log the documents rest on."""

    origin: str
    size: int
    root: str


@dataclass(frozen=True, slots=True)
class Account(Record):
    """The student, what it was made from, under which terms, and how good it is."""

    name: str
    version: str  # of tutelage
    created_at: str  # RFC 3339, UTC
    purpose: str
    task: str  # what the student does, in a sentence
    question: str  # the user message it expects, with {text}
    labels: tuple[str, ...]
    method: str  # how it was trained, in a sentence
    architecture: str  # for instance "LlamaForCausalLM"
    parameters: int
    layers: int
    base_layers: int
    weights: str  # digest of model.safetensors; empty where it is not written yet
    files: dict[str, str]  # the student's folder: name -> digest; empty where they are not written yet
    base: Part
    data: Part
    sources: tuple[SourceRow, ...]
    examples: dict[str, str]  # private records, path (see `examples_path`) -> digest; rows without records have none
    terms: tuple[Verdict, ...]  # teacher, data, base, and whatever was inherited
    hyperparameters: dict[str, str]
    metrics: tuple[Metric, ...]  # empty before the proof
    verdict: str  # the claim's sentence; empty before the proof
    log: LogHead
    code: str
    environment: str
    upstream: str  # what is known of the models that taught the teacher and the base

    @property
    def target_tokens(self) -> int:
        """Loss tokens of text and soft targets: what every share is a share of."""
        return sum(row.loss_tokens for row in self.sources if row.role in TARGETS)

    def share(self, row: SourceRow) -> str:
        """`a of b` loss tokens, exact; empty for a role that the headline share does not count."""
        return f"{row.loss_tokens} of {self.target_tokens}" if row.role in TARGETS else ""

    @property
    def teachers(self) -> tuple[tuple[SourceRow, ...], ...]:
        """The rows of each model that was asked, by model; what was read from a file is no teacher."""
        found: dict[tuple[str, ...], list[SourceRow]] = {}
        for row in self.sources:
            if row.route != FROM_FILE:
                found.setdefault(row.key[:-1], []).append(row)
        return tuple(tuple(rows) for rows in found.values())

    def verdicts_on(self, row: SourceRow) -> tuple[Verdict, ...]:
        """The verdicts on what was reached by this row's route under its licence; a loopback route carries its port."""
        reached = (row.route.split(":")[0], row.licence)
        return tuple(verdict for verdict in self.terms if (verdict.route, verdict.licence) == reached)


def examples_path(number: int) -> str:
    """Where in the run folder the records of this row of the source table lie (`ledger.examples`)."""
    return f"ledger/examples/{number}.jsonl"
