"""NOTICE, TERMS.md and licences/: what must go along with a student under the terms of what it was made from.

A notice-file condition (Apache-2.0 §4, MIT, BSD) is met by NOTICE and a copy of the licence; an address is no copy. The
text of Apache-2.0 is the same for everybody and comes from this package. Any other copy names a holder or a version, so
the run file must name it: `ship.licence_files`.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from tutelage.canon import digest_bytes
from tutelage.errors import ConfigError, DataError, TermsError
from tutelage.jsonl import write_whole
from tutelage.ship.words import link, plain
from tutelage.terms.conditions import LICENCES, NOTICE, TERMS, Obligations, obligations
from tutelage.terms.model import Condition, Fact, Reason, TermsEntry, Verdict
from tutelage.terms.registry import Registry, load_registry

MAX_BYTES = 1_000_000  # of a copy of a licence
APACHE = "Apache-2.0"
_FLOWS_DOWN = (Fact.PROHIBITED_USES, Fact.OUTPUT_IS_DERIVATIVE)


def write_notices(
    folder: Path, together: Verdict, conditions: Iterable[Condition], licence_files: Iterable[str]
) -> tuple[str, ...]:
    """Writes the files into the student's folder; returns the lines its card must show, such as "Built with Llama".

    `conditions` are those that bind (`pipeline.gate`). Raises `TermsError` when a copy of a licence is missing,
    `DataError` for a copy that cannot be read as text, `ConfigError` for two copies of one, `StorageError`.
    """
    owed = obligations(conditions)
    copies = licence_copies(owed.copies, licence_files, load_registry())
    write_whole(folder / NOTICE, _notice(together, owed, bool(copies)).encode())
    write_whole(folder / TERMS, _terms(together, owed).encode())
    for name, text in copies.items():
        write_whole(folder / LICENCES / name, text)
    return tuple(dict.fromkeys(one.argument.split(" | ")[0] for one in owed.displays))


def licence_copies(wanted: Iterable[str], given: Iterable[str], registry: Registry) -> Mapping[str, bytes]:
    """File name in `licences/` to text, for the entries `wanted` and every file given. A file is the copy of the entry it
    is named after. Raises as `write_notices` does, so that a missing copy is told before anything is paid for.
    """
    found: dict[str, bytes] = {}
    for path in map(Path, given):
        entry = registry.find(path.name.removesuffix(".txt").removesuffix(".md"))
        name = f"{entry.id}.txt" if isinstance(entry, TermsEntry) else path.name
        if name in found:
            raise ConfigError(
                f"ship.licence_files has two files for {name}: {path}", fix="put both texts into one file"
            )
        found[name] = _read(path)
    for entry_id in wanted:
        name, entry = f"{entry_id}.txt", registry.find(entry_id)
        if name in found:
            continue
        own = _apache(registry) if isinstance(entry, TermsEntry) and entry.spdx == APACHE else b""
        if not own:
            where = entry.clauses[-1].source if isinstance(entry, TermsEntry) else "the holder"
            raise TermsError(
                f"{entry_id} asks for a copy of its text with what is handed on, and there is none",
                fix=f"save the text that came with the material (see {where}) as {name} and add it to ship.licence_files",
            )
        found[name] = own
    return found


def _apache(registry: Registry) -> bytes:
    """The licence text this package is installed with, if it is the very text the registry knows; else nothing."""
    entry = registry.find(APACHE)
    known = {clause.text_digest for clause in entry.clauses} if isinstance(entry, TermsEntry) else set()
    try:
        listed = [item for item in files("tutelage") or () if item.name == "LICENSE"]
        texts = [Path(str(item.locate())).read_bytes() for item in listed]
    except (OSError, PackageNotFoundError):
        return b""
    return next((text for text in texts if digest_bytes(text) in known), b"")


def _read(path: Path) -> bytes:
    fix = "give a text file with the whole licence in UTF-8"
    try:
        if not path.is_file():
            raise DataError(f"ship.licence_files: {path} is not a file", fix=fix)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"ship.licence_files: {path} cannot be read: {error}", fix=fix) from None
    if len(data) > MAX_BYTES or not text.strip() or "\0" in text:
        raise DataError(f"ship.licence_files: {path} is empty, over {MAX_BYTES:,} bytes, or no text", fix=fix)
    return data


def _notice(together: Verdict, owed: Obligations, has_copies: bool) -> str:
    lines = [
        "NOTICE",
        "",
        "These weights were made by changing and training others: the files differ from their sources.",
    ]
    lines += ["", "Sources, and the texts that apply to them:", ""]
    for subject, reasons in _by_subject(together).items():
        lines.append(f"- {_shown(subject)}")
        named = (
            f"  {_shown(one.entry_name or one.asked or 'no text is known')} {one.source}".rstrip() for one in reasons
        )
        lines += dict.fromkeys(named)
    if asked := (*owed.notices, *owed.terms_passed_on, *owed.displays):
        lines += ["", "What these texts ask of whoever hands the weights on:", ""]
        lines += [f"- {one.entry}: {_shown(one.words)}" for one in asked]
    copies = f"; {LICENCES}/ has the copies that go along" if has_copies else ""
    return "\n".join([*lines, "", f"{TERMS} has the terms{copies}.", ""])


def _terms(together: Verdict, owed: Obligations) -> str:
    lines = ["# Terms that come with these weights", "", f"Judged for the purpose `{together.purpose}`.", ""]
    for one in {reason.entry_digest or reason.subject: reason for reason in together.reasons}.values():
        name = f"{one.entry_name or one.asked or one.subject} {one.number}".strip()
        checked = f", checked on {one.checked_on}" if one.checked_on else ""
        lines += [f"## {link(name, one.source)}", "", f"{plain(one.gist)} ({one.status}{checked})", ""]
    policies = tuple(one for one in owed.declared if one.id in _FLOWS_DOWN)
    kept = (*owed.terms_passed_on, *owed.user_caps, *owed.non_commercial, *owed.not_distributed, *policies)
    if kept:
        lines += ["## Use restrictions", "", "They bind whoever receives these weights too.", ""]
        lines += [f"- **{plain(one.entry)}**: {plain(one.words)}{_policy(one)}" for one in kept] + [""]
    if declared := [one for one in owed.declared if one not in policies]:
        lines += ["## Conditions that no machine checked", ""]
        lines += [f"- **{plain(one.entry)}**: {plain(one.words)}" for one in declared] + [""]
    if together.accepted_risks:
        lines += ["## Risks that a named person accepted", ""]
        lines += [f"- {plain(f'{one.who}: {one.reason} (for {one.scope})')}" for one in together.accepted_risks] + [""]
    return "\n".join(lines)


def _policy(one: Condition) -> str:
    return f" {link(one.argument, one.argument)}" if one.id is Fact.PROHIBITED_USES and one.argument else ""


def _by_subject(together: Verdict) -> dict[str, list[Reason]]:
    found: dict[str, list[Reason]] = {}
    for reason in together.reasons:
        found.setdefault(reason.subject, []).append(reason)
    return found


def _shown(text: str) -> str:
    """One line of plain text; what cannot be seen is written out."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else f"⟨U+{ord(letter):04X}⟩" for letter in line)
