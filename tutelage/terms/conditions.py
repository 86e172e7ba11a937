"""What the conditions of a verdict oblige a student to, and what of it a release does not meet. Pure.

Some of it is known before anything is asked (name, users, commercial use): `unmet_at_start`. The rest shows in what is
handed on (card, files): `unmet`. What no machine can tell is declared: it is stated in TERMS.md, and kept by people.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tutelage.records import Record
from tutelage.terms.model import Condition, Fact, Purpose, When

HANDED_ON = frozenset({Purpose.DISTRIBUTED, Purpose.COMPETING_PRODUCT})  # purposes for which weights leave the house
NOTICE, TERMS, LICENCES = "NOTICE", "TERMS.md", "licences"  # two files and a folder that `ship.notices` writes
_COPIED = (Fact.NOTICE_FILE, Fact.TERMS_PASSED_ON)


@dataclass(frozen=True, slots=True)
class Obligations(Record):
    """Conditions, by what meets them."""

    name_prefixes: tuple[Condition, ...]
    user_caps: tuple[Condition, ...]
    non_commercial: tuple[Condition, ...]
    not_distributed: tuple[Condition, ...]
    same_platform: tuple[Condition, ...]
    displays: tuple[Condition, ...]
    notices: tuple[Condition, ...]  # attributions too
    terms_passed_on: tuple[Condition, ...]
    declared: tuple[Condition, ...]

    @property
    def copies(self) -> tuple[str, ...]:
        """Ids of the entries whose text must go along."""
        asking = (*self.notices, *self.terms_passed_on)
        return tuple(dict.fromkeys(condition.entry for condition in asking if condition.id in _COPIED))


@dataclass(frozen=True, slots=True)
class Release(Record):
    """A student about to be used or handed on. `commercial` and `monthly_users` are None where nobody has said; `files`
    are paths relative to its folder."""

    name: str
    purpose: Purpose
    distributed: bool
    commercial: bool | None
    monthly_users: int | None
    card: str
    files: tuple[str, ...]


def bound(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Those that bind a student which only learnt from the material: nothing of it is in what is handed on."""
    return tuple(condition for condition in conditions if condition.when is When.ALWAYS)


def obligations(conditions: Iterable[Condition]) -> Obligations:
    """The conditions, each once, sorted by what meets them."""
    every = tuple(dict.fromkeys(conditions))

    def of(*facts: Fact) -> tuple[Condition, ...]:
        return tuple(condition for condition in every if condition.id in facts)

    checked = {
        "name_prefixes": of(Fact.NAME_PREFIX),
        "user_caps": of(Fact.USER_CAP),
        "non_commercial": of(Fact.NON_COMMERCIAL),
        "not_distributed": of(Fact.NOT_DISTRIBUTED),
        "same_platform": of(Fact.SAME_PLATFORM),
        "displays": of(Fact.DISPLAY),
        "notices": of(Fact.NOTICE_FILE, Fact.ATTRIBUTION),
        "terms_passed_on": of(Fact.TERMS_PASSED_ON),
    }
    rest = set(every).difference(*checked.values())
    return Obligations(**checked, declared=tuple(condition for condition in every if condition in rest))


def unmet_at_start(owed: Obligations, release: Release) -> tuple[str, ...]:
    """What the run file already breaks, each with the fix. Needs neither card nor files."""
    found = []
    for one in owed.name_prefixes:
        if not release.name.startswith(one.argument):
            found.append(
                f"{one.entry} asks for a name that begins with {one.argument!r}, not {release.name!r}: set "
                f'run.name = "{one.argument}-{release.name}"'
            )
    for one in owed.user_caps:
        if release.monthly_users is None:
            found.append(
                f"{one.entry} holds up to {int(one.argument):,} monthly users: say how many, ship.monthly_users"
            )
        elif release.monthly_users > int(one.argument):
            found.append(f"{one.entry} does not hold for {release.monthly_users:,} monthly users: {one.words}")
    for one in owed.non_commercial:
        if release.commercial is None:
            found.append(f"{one.entry} is for non-commercial use: say so if it is true, ship.commercial = false")
        elif release.commercial:
            found.append(f"{one.entry} is for non-commercial use and ship.commercial is true: use another source")
    for one in owed.not_distributed:
        if release.distributed:
            found.append(f"{one.entry} covers no student that is given to others ({release.purpose}): {one.words}")
    for one in owed.same_platform:
        found.append(
            f"{one.entry} covers only what is trained on its own platform ({one.argument}), and this student is trained "
            "here: set run.purpose to what is true"
        )
    return tuple(found)


def unmet(owed: Obligations, release: Release) -> tuple[str, ...]:
    """All that the release does not meet, each with the fix; empty when it may go."""
    found = list(unmet_at_start(owed, release))
    for one in owed.displays:
        texts = one.argument.split(" | ")
        if not any(text in release.card for text in texts):
            found.append(f"{one.entry} asks the model card to show {' or '.join(map(repr, texts))}: put it in the card")
    written = [(NOTICE, bool(owed.notices)), (TERMS, bool(owed.terms_passed_on))]
    found += [
        f"{name} is missing: write it with the notices" for name, need in written if need and name not in release.files
    ]
    for entry in owed.copies:
        if f"{LICENCES}/{entry}.txt" not in release.files:
            found.append(
                f"{LICENCES}/{entry}.txt is missing: name a copy of that text, {entry}.txt, in ship.licence_files"
            )
    return tuple(found)
