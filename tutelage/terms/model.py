"""The nouns of the terms gate: what a licence or a provider's terms say, and the verdict that follows. All frozen.

Gists are our own words, never quotations, and nothing here is legal advice. Dates are ISO 8601 strings.
"""

from dataclasses import dataclass
from enum import StrEnum

from tutelage.records import Record

UNDATED = "undated"  # the text states no effective date


class Purpose(StrEnum):
    """What the student is for. `competing-product` is anything that competes with the teacher's provider."""

    INTERNAL = "internal"  # used inside one's own organisation
    DISTRIBUTED = "distributed"  # weights, or a service running them, made available to others
    CLASSIFIER_ONLY = "classifier-only"  # classifies, embeds or organises; neither distributed nor sold
    COMPETING_PRODUCT = "competing-product"
    RESEARCH = "research"  # studied, not used; publishing the weights is `distributed`
    SAME_PLATFORM = "same-platform"  # a model the provider itself offers for fine-tuning, on its own platform


class Status(StrEnum):
    """What the terms say, from mildest to strictest. Unknown is never allowed, but a known ban outranks it."""

    ALLOWED = "allowed"
    CONDITIONAL = "conditional"
    UNKNOWN = "unknown"
    FORBIDDEN_FOR_COMPETING = "forbidden-for-competing"
    FORBIDDEN = "forbidden"

    @property
    def severity(self) -> int:
        return list(Status).index(self)

    @property
    def permits(self) -> bool:
        return self in (Status.ALLOWED, Status.CONDITIONAL)


class Kind(StrEnum):
    """A licence travels with weights or data; a provider's terms bind whoever has access by that route."""

    LICENCE = "licence"
    PROVIDER = "provider"


class Fact(StrEnum):
    """The facts a release or a run can be checked for by machine; a `Condition` names one."""

    NOTICE_FILE = "notice-file"  # a file with the licence text and the notices lies beside the weights
    ATTRIBUTION = "attribution"  # creator, source, licence and changes are named
    NAME_PREFIX = "name-prefix"  # the student's name begins with `argument`
    DISPLAY = "display"  # card or page shows `argument`, or one of several texts with ` | ` between them
    TERMS_PASSED_ON = "terms-passed-on"  # recipients get the terms and are bound by the use restrictions
    PROHIBITED_USES = "prohibited-uses"  # a named use policy is kept
    NON_COMMERCIAL = "non-commercial"
    NO_COMPETING_MODELS = "no-competing-models"
    MODEL_LICENCE = "model-licence"  # a host of other people's models: the model's licence must be named and permit
    NOT_DISTRIBUTED = "not-distributed"  # neither weights nor access are given or sold to others
    CLASSIFIER = "classifier"  # the student classifies, embeds or organises
    SAME_PLATFORM = "same-platform"  # the student is the provider's own fine-tuning offer
    OUTPUT_IS_DERIVATIVE = "output-is-derivative"  # a student of the outputs counts as a derivative of the teacher
    TEXT_ONLY = "text-only"  # no image output is trained on
    USER_CAP = "user-cap"  # at most `argument` monthly users
    RIGHTS_HELD = "rights-held"  # whoever runs this declares to hold the rights


@dataclass(frozen=True, slots=True)
class Clause(Record):
    """One passage of a text. `effective` is a day, a month or `undated`; `text_digest` is of the copy that was read
    (for web pages the Open Terms Archive's Markdown), empty where none was kept."""

    number: str
    gist: str
    source: str
    effective: str
    checked_on: str
    text_digest: str


class When(StrEnum):
    """What a condition takes to bind: outputs may be learnt from without anything of the material being handed on."""

    ALWAYS = "always"
    HANDED_ON = "handed-on"  # only if the material itself, or weights made from it, is in what is handed on


@dataclass(frozen=True, slots=True)
class Condition(Record):
    """Something that must be true for the use to be covered. `argument` is what a checker compares with, or empty;
    `entry` is the id of the text that asks for it."""

    id: Fact
    argument: str
    when: When
    words: str
    entry: str


@dataclass(frozen=True, slots=True)
class Rule(Record):
    """What an entry says about one purpose: `clause` is the number of the deciding clause, `conditions` their ids."""

    purpose: Purpose
    status: Status
    clause: str
    conditions: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class TermsEntry(Record):
    """A licence or a provider's terms. `versioned` texts never change and so do not age; `caveats` become warnings."""

    id: str
    name: str
    kind: Kind
    versioned: bool
    spdx: str  # SPDX id, or that of the licence the entry applies; empty where there is none
    aliases: tuple[str, ...]
    clauses: tuple[Clause, ...]
    conditions: tuple[Condition, ...]
    rules: tuple[Rule, ...]  # one a purpose
    caveats: tuple[str, ...]

    def rule(self, purpose: Purpose) -> Rule:
        return next(rule for rule in self.rules if rule.purpose is purpose)

    def clause(self, number: str) -> Clause:
        return next(clause for clause in self.clauses if clause.number == number)

    def conditions_of(self, rule: Rule) -> tuple[Condition, ...]:
        return tuple(condition for condition in self.conditions if condition.id in rule.conditions)


@dataclass(frozen=True, slots=True)
class UnknownName(Record):
    """A name the registry does not hold, and the nearest names it does."""

    name: str
    near: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AcceptedRisk(Record):
    """A named person takes a risk that the terms do not cover: who, why, and for what."""

    who: str
    reason: str
    scope: str


@dataclass(frozen=True, slots=True)
class Reason(Record):
    """One text's say in a verdict. Empty strings say 'no such text is known'; `accepted_by` names who took the risk."""

    subject: str
    asked: str  # the name looked up: a licence or a route
    entry: str
    entry_name: str
    entry_digest: str
    status: Status
    number: str
    gist: str
    source: str
    effective: str
    checked_on: str
    text_digest: str
    accepted_by: str

    @property
    def permits(self) -> bool:
        return self.status.permits or bool(self.accepted_by)


@dataclass(frozen=True, slots=True)
class Verdict(Record):
    """May `subject` be used for `purpose` by `route` on `date`? `status` is what the texts say, the strictest of all
    reasons, and an accepted risk never changes it. The strictest reason comes first.
    """

    subject: str
    licence: str
    route: str
    purpose: Purpose
    date: str
    status: Status
    reasons: tuple[Reason, ...]
    conditions: tuple[Condition, ...]
    warnings: tuple[str, ...]
    accepted_risks: tuple[AcceptedRisk, ...]
    permitted_purposes: tuple[Purpose, ...]  # purposes the same texts would permit, conditions included

    @property
    def permits(self) -> bool:
        """Every text allows the use, perhaps on conditions, or a named person accepted the risk."""
        return bool(self.reasons) and all(reason.permits for reason in self.reasons)

    @property
    def decisive(self) -> Reason:
        """The reason that decides: the first that stands in the way, else the strictest."""
        return next((reason for reason in self.reasons if not reason.permits), self.reasons[0])
