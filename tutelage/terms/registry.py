"""Loads the facts in `data/*.yaml`, one file an entry, and finds them by id, SPDX id or alias.

Every key is required and no other is known, because a misspelt key in a file of permissions must not pass as silence:

    id, name, kind (licence | provider), versioned, spdx, aliases, caveats
    clauses      list of number, gist, source (https), effective (day, month or undated), checked_on (day), text_digest
    conditions   list of id (a `Fact`), argument, when (always | handed-on), words
    purposes     each `Purpose`: status, clause (a number above; empty for unknown), conditions (ids above)
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from tutelage.errors import DataError
from tutelage.terms.model import (
    UNDATED,
    Clause,
    Condition,
    Fact,
    Kind,
    Purpose,
    Rule,
    Status,
    TermsEntry,
    UnknownName,
    When,
)

DATA = Path(__file__).with_name("data")

_Word = TypeVar("_Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Registry:
    """All entries, and the entry under each folded name."""

    entries: tuple[TermsEntry, ...]
    by_name: Mapping[str, TermsEntry]

    @classmethod
    def of(cls, entries: Iterable[TermsEntry]) -> "Registry":
        """Raises `DataError` when two entries share a name, or one cites an SPDX licence that has no entry."""
        every = tuple(sorted(entries, key=lambda entry: entry.id))
        by_name: dict[str, TermsEntry] = {}
        for entry in every:
            for name in dict.fromkeys(fold(name) for name in (entry.id, *entry.aliases)):
                other = by_name.setdefault(name, entry)
                if other is not entry:
                    raise _wrong(f"{entry.id}.yaml", "aliases", f"{name!r} already names {other.id}")
        for entry in every:
            if entry.spdx and fold(entry.spdx) not in by_name:
                raise _wrong(f"{entry.id}.yaml", "spdx", f"{entry.spdx!r} has no entry of its own")
        return cls(every, by_name)

    def find(self, name: str) -> TermsEntry | UnknownName:
        """The entry with this id, SPDX id or alias, upper and lower case alike; else the nearest names there are."""
        found = self.by_name.get(fold(name))
        if found is not None:
            return found
        near = difflib.get_close_matches(fold(name), self.by_name, n=3, cutoff=0.6)
        return UnknownName(name, tuple(dict.fromkeys(self.by_name[match].id for match in near)))


def fold(name: str) -> str:
    """A name as it is compared: case folded, runs of blanks made one."""
    return " ".join(name.split()).casefold()


def load_registry(folder: Path = DATA) -> Registry:
    """Every `*.yaml` in the folder. Raises `DataError` naming file and field."""
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise DataError(f"no terms in {folder}", fix="reinstall tutelage, or name a folder with *.yaml files of terms")
    return Registry.of(load_entry(path) for path in paths)


def load_entry(path: Path) -> TermsEntry:
    """One file. Raises `DataError` naming file and field."""
    top = _Table(path.name, "", _read(path))
    top.keys(
        "id", "name", "kind", "versioned", "spdx", "aliases", "clauses", "conditions", "purposes", "caveats"
    )  # fmt: skip
    kind = top.word("kind", Kind)
    clauses = tuple(_clause(table) for table in top.tables("clauses"))
    conditions = tuple(_condition(table, path.stem) for table in top.tables("conditions"))
    top.distinct("clauses", [clause.number for clause in clauses])
    top.distinct("conditions", [condition.id for condition in conditions])
    purposes = top.table("purposes")
    purposes.keys(*Purpose)
    rules = tuple(_rule(purposes.table(purpose), purpose, clauses, conditions) for purpose in Purpose)
    if unused := {condition.id for condition in conditions} - {fact for rule in rules for fact in rule.conditions}:
        raise top.wrong("conditions", f"no purpose uses {sorted(unused)}")
    if top.text("id") != path.stem:
        raise top.wrong("id", f"{top.text('id')!r} must be the file's name without .yaml")
    versioned = top.flag("versioned")
    spdx = top.text("spdx", empty=True)
    if kind is Kind.PROVIDER and (versioned or spdx):
        raise top.wrong("versioned" if versioned else "spdx", "a provider's terms move and have no SPDX id")
    return TermsEntry(
        id=top.text("id"),
        name=top.text("name"),
        kind=kind,
        versioned=versioned,
        spdx=spdx,
        aliases=top.texts("aliases"),
        clauses=clauses,
        conditions=conditions,
        rules=rules,
        caveats=top.texts("caveats"),
    )


def _clause(table: "_Table") -> Clause:
    table.keys("number", "gist", "source", "effective", "checked_on", "text_digest")
    source = table.text("source")
    if not re.fullmatch(r"https://[^\s/]+\.[^\s/]+(/\S*)?", source):
        raise table.wrong("source", f"{source!r} is not an https address")
    digest = table.text("text_digest", empty=True)
    if digest and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise table.wrong("text_digest", f"{digest!r} is neither empty nor sha256: and 64 hexadecimal digits")
    return Clause(
        number=table.text("number"),
        gist=table.text("gist"),
        source=source,
        effective=table.day("effective", month=True),
        checked_on=table.day("checked_on"),
        text_digest=digest,
    )


def _condition(table: "_Table", entry: str) -> Condition:
    table.keys("id", "argument", "when", "words")
    argument, fact = table.text("argument", empty=True), table.word("id", Fact)
    if fact is Fact.USER_CAP and not argument.isdecimal():
        raise table.wrong("argument", f"{argument!r} is not a number of monthly users")
    if fact in (Fact.NAME_PREFIX, Fact.DISPLAY) and not argument:
        raise table.wrong("argument", f"{fact} needs the text that is compared with")
    return Condition(fact, argument, table.word("when", When), table.text("words"), entry)


def _rule(table: "_Table", purpose: Purpose, clauses: tuple[Clause, ...], conditions: tuple[Condition, ...]) -> Rule:
    table.keys("status", "clause", "conditions")
    status = table.word("status", Status)
    number = table.text("clause", empty=True)
    if status is Status.UNKNOWN:
        if number:
            raise table.wrong("clause", f"{number!r} is cited, but the status is unknown")
    elif number not in {clause.number for clause in clauses}:
        raise table.wrong("clause", f"{number!r} is not the number of a clause in this file")
    named = tuple(table.as_word("conditions", text, Fact) for text in table.texts("conditions"))
    if unknown := set(named) - {condition.id for condition in conditions}:
        raise table.wrong("conditions", f"{sorted(unknown)} are not in this file's conditions")
    if bool(named) != (status is Status.CONDITIONAL):
        raise table.wrong("conditions", f"status {status} with {len(named)} conditions; only conditional has any")
    return Rule(purpose, status, number, named)


@dataclass(frozen=True, slots=True)
class _Table:
    """A mapping from a file, with the path to it for messages. All scalars are text: nothing is guessed by YAML."""

    file: str
    where: str
    value: Any

    def wrong(self, key: str, problem: str) -> DataError:
        return _wrong(self.file, f"{self.where}.{key}" if self.where else key, problem)

    def keys(self, *known: str) -> None:
        """Exactly these keys, or an error."""
        if not isinstance(self.value, dict):
            raise _wrong(self.file, self.where or "the file", f"expected a table of keys, found {self.value!r:.60}")
        for key in self.value:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                raise self.wrong(str(key), "unknown key" + (f"; did you mean {near[0]}?" if near else ""))
        for key in known:
            if key not in self.value:
                raise self.wrong(key, "missing")

    def text(self, key: str, *, empty: bool = False) -> str:
        value = self.value[key]
        if not isinstance(value, str) or not (empty or value.strip()):
            raise self.wrong(key, f"expected {'text' if empty else 'text that is not empty'}, found {value!r:.60}")
        return " ".join(value.split())

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.value[key]
        if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
            raise self.wrong(key, f"expected a list of texts, found {values!r:.60}")
        self.distinct(key, [fold(value) for value in values])
        return tuple(" ".join(value.split()) for value in values)

    def table(self, key: str) -> "_Table":
        return _Table(self.file, f"{self.where}.{key}" if self.where else key, self.value[key])

    def tables(self, key: str) -> "list[_Table]":
        values = self.value[key]
        if not isinstance(values, list):
            raise self.wrong(key, f"expected a list of tables, found {values!r:.60}")
        return [_Table(self.file, f"{key}[{at}]", value) for at, value in enumerate(values)]

    def flag(self, key: str) -> bool:
        if self.value[key] not in ("true", "false"):
            raise self.wrong(key, f"{self.value[key]!r:.60} is neither true nor false")
        return self.value[key] == "true"

    def word(self, key: str, kind: type[_Word]) -> _Word:
        return self.as_word(key, self.text(key), kind)

    def as_word(self, key: str, text: str, kind: type[_Word]) -> _Word:
        try:
            return kind(text)
        except ValueError:
            raise self.wrong(key, f"{text!r} is not one of {', '.join(kind)}") from None

    def day(self, key: str, *, month: bool = False) -> str:
        """An ISO day; with `month`, a month or `undated` as well."""
        text = self.text(key)
        if month and text == UNDATED:
            return text
        full = f"{text}-01" if month and re.fullmatch(r"\d{4}-\d{2}", text) else text
        try:
            parsed = date.fromisoformat(full)
        except ValueError as error:
            raise self.wrong(key, f"{text!r} is not a date: {error}") from None
        if parsed.isoformat() != full:
            raise self.wrong(key, f"{text!r} is not written YYYY-MM-DD")
        return text

    def distinct(self, key: str, values: list[str]) -> None:
        if repeated := sorted({value for value in values if values.count(value) > 1}):
            raise self.wrong(key, f"{repeated} given twice")


def _wrong(file: str, field: str, problem: str) -> DataError:
    return DataError(f"{file}: {field}: {problem}", fix=f"mend {field} in {file}; terms/registry.py lists the keys")


def _read(path: Path) -> Any:
    """YAML with text for every scalar (dates and booleans are checked above, by name), no tags, no key given twice."""
    import yaml  # here, because importing the gate must stay fast

    base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # libyaml where PyYAML was built with it

    class Loader(base):
        def construct_object(self, node: Any, deep: bool = False) -> Any:
            if node.tag.removeprefix("tag:yaml.org,2002:") not in ("str", "seq", "map"):
                raise _wrong(path.name, "the file", f"tag {node.tag} in line {node.start_mark.line + 1}")
            return super().construct_object(node, deep)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            if repeated := sorted({str(key) for key in keys if keys.count(key) > 1}):
                raise _wrong(path.name, repeated[0], "given twice")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(path.name, "the file", f"not valid YAML in UTF-8: {error}") from None
    except OSError as error:
        raise _wrong(path.name, "the file", f"cannot be read: {error.strerror}") from None
