"""What may stand as gold: more than one class, not written by the teacher; and
gold out of a file of people's decisions, as the statistics take it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tutelage.canon import digest_file
from tutelage.errors import ConfigError, DataError
from tutelage.prove.gold_file import (
    TIE,
    Header,
    Kind,
    Mode,
    Row,
    Unit,
    contested_units,
    draw,
    frame_of,
    read_rows,
    standing,
)
from tutelage.stats.agreement import Kappa, cohen_kappa
from tutelage.stats.columns import Floats, finite_column
from tutelage.terms.lineage import Lineage, Tie


def require_classes(gold: Sequence[str]) -> None:
    """Raises `DataError` when every held-out item has the same label, or there is no item."""
    found = Counter(gold)
    if len(found) < 2:
        what = f"all {len(gold)} held-out items are {gold[0]!r:.60}: one class only" if gold else "no held-out item"
        raise DataError(
            what, fix="a model that always says this would be perfect: hold out items with other labels too"
        )


def require_other_author(teacher: str, lineages: Iterable[Lineage]) -> None:
    """Raises `DataError` when the lineage of the data file says that its answers are the teacher's own."""
    for lineage in lineages:
        if any(one.role is Tie.TEACHER and one.subject == teacher for one in lineage.ancestors):
            raise DataError(
                f"{lineage.artefact or 'the data file'} was answered by {teacher}, the teacher of this run, as its lineage "
                "says: its labels are no gold",
                fix="hold out items that people labelled; against its own labels the teacher is always right",
            )


class Agreed(NamedTuple):
    """How far two people agree on what both decided."""

    first: str
    second: str
    kappa: Kappa


class Columns(NamedTuple):
    """What `stats.ppi.ppi_mean` takes: N items with gold and cheap values, M others with cheap ones only."""

    gold_N: Floats
    cheap_N: Floats
    cheap_M: Floats


class GoldAnswers(NamedTuple):
    """Gold by item for a proof, what to say of it beside, and the digest of the file."""

    answers: dict[str, str]
    warnings: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Gold:
    """What people decided: the lines that count, by unit and person. `warnings` say what a reader must know of them."""

    header: Header
    decided: Mapping[Unit, Mapping[str, Row]]
    skipped: int  # units that somebody skipped and nobody decided
    warnings: tuple[str, ...]

    @property
    def people(self) -> list[str]:
        return sorted({who for rows in self.decided.values() for who in rows})

    def labels(self) -> dict[str, str]:
        """The label of every decided item: what most people said. Raises `DataError` where no label has most, and for
        another mode than labels."""
        self._require(Mode.LABELS)
        rows = [row for people in self.decided.values() for row in people.values()]
        if contested := sorted(unit.item for unit in contested_units(rows)):
            raise DataError(
                f"on {len(contested)} of {len(self.decided)} items people disagree, the first {contested[0]}",
                fix="let one more person decide them (tutelage label … --contested): without them it is no random sample",
            )
        return {unit.item: _most(people.values()) for unit, people in self.decided.items()}

    def preferences(self, system: str = "student") -> dict[str, float]:
        """How far `system`'s answer was preferred: 1, ½ for ties, 0; the mean over people. Raises `DataError` for
        another mode than pairs, `ConfigError` for an unknown system."""
        self._require(Mode.PAIRS)
        self._require_system(system)
        worth = dict.fromkeys(self.header.choices, 0.0) | {system: 1.0, TIE: 0.5}
        return {unit.item: _mean([worth[row.decision] for row in rows.values()]) for unit, rows in self.decided.items()}

    def scores(self, system: str) -> dict[str, float]:
        """The score of `system`'s answers, the mean over people. Raises as `preferences`."""
        self._require(Mode.SCORE)
        self._require_system(system)
        return {
            unit.item: _mean([float(row.decision) for row in rows.values()])
            for unit, rows in self.decided.items()
            if unit.system == system
        }

    def agreements(self, level: float = 0.95) -> list[Agreed]:
        """Cohen's kappa of every two people on the units that both decided; scores with quadratic weights. Decisions
        that were asked for because others disagreed are left out: on such units agreement is low by choice."""
        found = []
        for one, two in combinations(self.people, 2):
            both = [rows for rows in self.decided.values() if all(_is_free(rows.get(who)) for who in (one, two))]
            if both:
                first, second = ([rows[who].decision for rows in both] for who in (one, two))
                is_score = self.header.mode is Mode.SCORE
                kappa = cohen_kappa(first, second, self.header.choices, ordered=is_score, level=level)
                found.append(Agreed(one, two, kappa))
        return found

    def require_drawn_from(self, items: Sequence[str]) -> None:
        """Raises `DataError` unless the sample was drawn from exactly these items, and what is decided is among it."""
        header = self.header
        if len(set(items)) != header.items or frame_of(set(items)) != header.frame:
            raise DataError(
                f"the gold was drawn from {header.items} other items than these {len(set(items))}: it is no sample of them",
                fix="prove on the items that were labelled from, with the same columns, system message and limit",
            )
        drawn = set(draw(items, header.sampled, header.seed))
        if odd := sorted({unit.item for unit in self.decided} - drawn):
            raise DataError(
                f"{len(odd)} decided items were not drawn, the first {odd[0]}",
                fix="restore the file: gold that was picked is no random sample",
            )

    def _require(self, mode: Mode) -> None:
        if self.header.mode is not mode:
            raise DataError(f"the gold holds {self.header.mode}, not {mode}", fix=f"label with the mode {mode}")

    def _require_system(self, system: str) -> None:
        if system not in self.header.systems:
            known = ", ".join(self.header.systems)
            raise ConfigError(f"{system!r:.40} was not shown; {known} were", fix="name one of them")


def read_gold(path: Path, who: str | None = None) -> Gold:
    """The decisions that count in a file of `tutelage label`; `who`: of one person alone.

    Raises `DataError` as `gold_file.read_rows`, and when nothing is decided. One class only, skipped and undecided
    units are no errors here: `warnings` name them.
    """
    header, rows = read_rows(path)
    kept = standing(row for row in rows if who is None or row.who == who)
    decided = {
        unit: {name: row for name, row in people.items() if row.kind is Kind.DECISION} for unit, people in kept.items()
    }
    skipped = sum(not people for people in decided.values())
    decided = {unit: people for unit, people in decided.items() if people}
    if not decided:
        of = f" by {who!r:.60}" if who else ""
        raise DataError(f"nothing is decided in {path}{of}", fix="go on with tutelage label")
    return Gold(header, decided, skipped, tuple(_warnings(header, decided, skipped)))


def _warnings(header: Header, decided: Mapping[Unit, Mapping[str, Row]], skipped: int) -> list[str]:
    found = []
    units = header.sampled * (len(header.systems) if header.mode is Mode.SCORE else 1)
    said = {row.decision for rows in decided.values() for row in rows.values()}
    if len(said) == 1:
        found.append(f"all {len(decided)} decisions are {next(iter(said))!r:.60}: one class only")
    if skipped:
        found.append(
            f"{skipped} of {units} were skipped: the rest is a random sample only if skipping has nothing to do with the answer"
        )
    if left := units - len(decided) - skipped:
        found.append(f"{left} of {units} are not decided yet: the first {len(decided) + skipped} of a random order are")
    return found


def gold_answers(path: Path, items: Sequence[str]) -> GoldAnswers:
    """Gold for a proof on `items` (their identifiers), from a file of labels that were drawn from exactly these.

    Raises `DataError` as `read_gold`, `Gold.labels` and `Gold.require_drawn_from`.
    """
    gold = read_gold(path)
    labels = gold.labels()
    gold.require_drawn_from(items)
    return GoldAnswers(labels, gold.warnings, digest_file(path))


def ppi_columns(gold: Gold, values: Mapping[str, float], cheap: Mapping[str, float]) -> Columns:
    """`values` of the decided items, made from `gold`'s decisions, beside the `cheap` values of all items.

    Raises `DataError` when a value is not finite, an item has gold and was not decided, or the cheap items are not
    those that the sample was drawn from.
    """
    gold.require_drawn_from(list(cheap))
    if odd := sorted(values.keys() - {unit.item for unit in gold.decided}):
        raise DataError(
            f"{len(odd)} values stand for items that nobody decided, the first {odd[0]}", fix="take them out"
        )
    rest = sorted(cheap.keys() - values.keys())
    known = sorted(values)
    return Columns(
        finite_column([values[item] for item in known], "gold values"),
        finite_column([cheap[item] for item in known], "cheap values of items with gold"),
        finite_column([cheap[item] for item in rest], "cheap values of the other items"),
    )


def _is_free(row: Row | None) -> bool:
    return row is not None and not row.adjudicates


def _most(rows: Iterable[Row]) -> str:
    return Counter(row.decision for row in rows).most_common(1)[0][0]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
