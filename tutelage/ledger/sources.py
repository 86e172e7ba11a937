"""The source table: what was taken from whom, in which role, under which licence. Unique keys, sorted, whole."""

from dataclasses import dataclass

from tutelage.records import Record, Role

TARGETS = (Role.TEXT_TARGET, Role.SOFT_TARGET)  # the headline share counts these
UNKNOWN_UPSTREAM = "unknown-upstream"  # nobody says whose output a teacher or a base was itself trained on: never zero


@dataclass(frozen=True, slots=True)
class SourceRow(Record):
    """One source in one role. Its key is every field before `upstream`; keys are unique and rows sorted by them.

    `examples` counts distinct examples, `loss_tokens` those that were stepped on: tokens of an example × times it was
    stepped on × its weight, as integers. `leaves` is the root over the salted records of the examples (RFC 6962),
    `sums` the root of the Merkle-sum tree over the same leaves with their loss tokens: its openings are for an auditor
    alone, since a sibling's sum tells its neighbour's length.
    """

    teacher: str  # the model or data asked or taken from, by name
    weights: str  # digest of its weights or file; empty where they are not public
    provider: str
    route: str
    licence: str
    role: Role
    upstream: str
    examples: int
    loss_tokens: int
    leaves: str
    sums: str

    @property
    def key(self) -> tuple[str, str, str, str, str, str]:
        return (self.teacher, self.weights, self.provider, self.route, self.licence, self.role)
