"""A second reader of a store's segments, after docs/formats.md and without the product's code: what was bought, what is open,
whether every line is what its digest says; and a search for a key in everything a run wrote.
"""

import hashlib
import json
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.asking.faults import marker, spellings


@dataclass
class Audit:
    """What a store holds. Calls are (address, number of the attempt); money in nano-USD."""

    prompts: dict[str, str] = field(default_factory=dict)  # address -> last message of the question
    answers: dict[str, str] = field(default_factory=dict)  # address -> answer
    doubled: int = 0  # exchanges beyond the first under one address
    failed: dict[str, str] = field(default_factory=dict)  # address -> reason
    reserved: Counter[tuple[str, int]] = field(default_factory=Counter)
    closed: Counter[tuple[str, int]] = field(default_factory=Counter)
    bound: dict[tuple[str, int], int] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)  # of attempts without a usable answer
    settled: Counter[str] = field(default_factory=Counter)  # nano-USD by address
    may: Counter[str] = field(default_factory=Counter)  # nano-USD that attempts left open, by address
    torn: int = 0
    damaged: list[str] = field(default_factory=list)

    @property
    def open_calls(self) -> Counter[tuple[str, int]]:
        """Reserved, and nothing is known of what came: under way when the process was killed."""
        return self.reserved - self.closed

    @property
    def unresolved(self) -> Counter[str]:
        """Nano-USD by address: what attempts left open, and open calls."""
        found = Counter(self.may)
        for call, count in self.open_calls.items():
            found[call[0]] += self.bound[call] * count
        return found

    @property
    def settled_nusd(self) -> int:
        return self.settled.total()

    @property
    def unresolved_nusd(self) -> int:
        return self.unresolved.total()

    def open_for(self) -> Counter[str]:
        """Open calls by prompt."""
        found: Counter[str] = Counter()
        for (address, _), count in self.open_calls.items():
            found[self.prompts.get(address, address)] += count
        return found


def audit(store: Path) -> Audit:
    """Reads every line of every segment."""
    found = Audit()
    for path in sorted(store.glob("*.seg")):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    found.torn += 1  # the last line of a segment, by what iterating over lines is
                    continue
                digest, kind, value = line[:-1].split(b" ", 2)
                if digest.decode() != "sha256:" + hashlib.sha256(value).hexdigest():
                    found.damaged.append(f"{path.name} line {number}")
                    continue
                _take(found, digest.decode(), kind.decode(), json.loads(value))
    return found


def _take(found: Audit, digest: str, kind: str, value: dict[str, Any]) -> None:
    if kind == "request":
        found.prompts[digest] = value["messages"][-1]["content"]
    elif kind == "exchange":
        address = value["request_digest"]
        found.doubled += address in found.answers
        found.answers.setdefault(address, value["answer"])
        found.closed[address, value["attempts"]] += 1
        found.settled[address] += value["price"]["cost_nusd"]
    elif kind == "reservation":
        call = value["request_digest"], value["attempt"]
        found.reserved[call] += 1
        found.bound[call] = value["nusd"]
    elif kind == "attempt":
        address = value["request_digest"]
        found.closed[address, value["attempt"]] += value["attempt"] != 0
        found.settled[address] += value["nusd"]
        found.may[address] += value["open_nusd"]
        found.reasons[value["reason"].split(";")[0][:60]] += 1
    elif kind == "failure":
        found.failed[value["request_digest"]] = value["reason"]


def wrong_answers(found: Audit) -> int:
    """Answers that are not those of their question."""
    return sum(not answer.startswith(marker(found.prompts[address])) for address, answer in found.answers.items())


def wrong_bills(found: Audit, billed: Mapping[str, int]) -> int:
    """Answered prompts whose bill at the server is not between what is settled and that with what is unresolved."""
    unresolved = found.unresolved
    return sum(
        not found.settled[address]
        <= billed.get(found.prompts[address], 0)
        <= found.settled[address] + unresolved[address]
        for address in found.answers
    )


def index_agrees(store: Path, addresses: Iterable[str]) -> bool:
    """Whether the index as it stands says what one built anew from the segments says. Leaves the new one."""
    from tutelage.store.store import Store

    def said() -> tuple[Any, ...]:
        with Store(store) as opened:
            return opened.spent(), [(address, opened.digest_at(address)) for address in sorted(opened.known(asked))]

    asked = list(addresses)
    before = said()
    for path in store.glob("index.sqlite*"):
        path.unlink()
    return said() == before


def key_found(folder: Path, key: str) -> list[str]:
    """Where the key stands in the files under a folder: as it is, percent-encoded, escaped, in hexadecimal or in base64 at
    any place of a longer text."""
    forms = {form.encode() for form in (key, key[8:], urllib.parse.quote(key, safe=""), key.encode().hex())}
    forms |= {"".join(f"%{byte:{case}}" for byte in key.encode()).encode() for case in ("02X", "02x")}
    forms |= {"".join(f"\\u{byte:04x}" for byte in key.encode()).encode()}
    inner = {spelling[4:-8].encode() for spelling in spellings(key)[3:]}  # without what depends on the neighbours
    forms |= inner | {form.replace(b"+", b"-").replace(b"/", b"_") for form in inner}
    places = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            places += [f"{path.relative_to(folder)}: {form[:12].decode()}" for form in forms if form in data]
    return places
