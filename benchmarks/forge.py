"""Forgeries for `benchmarks/ledger.py`: records that agree with themselves, and input made to confuse a verifier.

Each function makes one in a fresh copy of a finished, signed run and says whether the verifier refused it, given the
true signer's key or the true root. "Consistent" means that whoever forges has everything but the private key.
"""

import base64
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tutelage.canon import canonical, digest_bytes, digest_file, digest_of
from tutelage.jsonl import pretty
from tutelage.ledger import disclose, verify
from tutelage.ledger.examples import table_root
from tutelage.ledger.keys import Signer
from tutelage.ledger.log import Log
from tutelage.ledger.sources import SourceRow
from tutelage.ledger.statement import envelope
from tutelage.pipeline.sealing import publish

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519 (RFC 8032 section 5.1)
Made = Callable[..., Any]


def all_forgeries(scratch: Path, small_run: Made) -> dict[str, bool]:
    """Name of each forgery, and whether it was refused."""
    signer = small_run(scratch / "true")
    true = scratch / "true" / "run"
    trust = verify.Trust(key=signer.verification_key)
    root = verify.Trust(root=verify.verify(true).root)
    assert not verify.verify(true, trust).findings
    assert not verify.verify(true, root).findings
    outcomes: dict[str, bool] = {}
    for name, forged in consistent(scratch, true, small_run):
        alone = verify.verify(forged)
        assert not alone.findings, (name, alone.findings[:3])  # it agrees with itself, or it would prove nothing
        for how, brought in (("key", trust), ("root", root)):
            outcomes[f"{name}, against a trusted {how}"] = bool(verify.verify(forged, brought).findings)
    for name, forged in inconsistent(scratch, true):
        outcomes[name] = bool(verify.verify(forged, trust).findings)
    for name, value in disclosures(true, signer):
        path = scratch / "disclosure.json"
        path.write_bytes(value if isinstance(value, bytes) else pretty(value))
        outcomes[name] = bool(verify.verify(path, trust).findings)
    return outcomes | signatures(signer)


def stranger() -> Signer:
    return Signer("example.org/ada", ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1()))


def consistent(scratch: Path, true: Path, small_run: Made) -> Iterator[tuple[str, Path]]:
    """Whole records that agree with themselves: other licence, other teacher (the run done again under the same run key),
    and the log, the table or the accepted risks rewritten with every digest made anew."""
    for name, key, value in (
        ("licence edited everywhere", "teacher.licence", "Apache-2.0"),
        ("teacher edited everywhere", "teacher.model", "an-open-model"),
    ):
        folder = scratch / name.replace(" ", "-")
        (folder / "run" / "store").mkdir(parents=True)
        shutil.copy(true / "store" / "run.key", folder / "run" / "store" / "run.key")
        small_run(folder, **{key: value})
        yield name, folder / "run"

    def unsign(entry: dict[str, Any]) -> None:
        entry["started_at"] = entry["ended_at"] = "2020-01-01T00:00:00Z"

    yield "log backdated and signed by a stranger", reseal(copied(scratch, true), unsign)


def copied(scratch: Path, true: Path) -> Path:
    folder = scratch / f"copy-{len(list(scratch.iterdir()))}"
    shutil.copytree(true, folder)
    return folder


def reseal(run: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Edits log entries and makes every digest anew: outputs, inputs, chain, tiles, checkpoints, statement, signatures."""
    forger = stranger()
    entries = [json.loads(line) for line in (run / "ledger" / "log.jsonl").read_bytes().splitlines()]
    origin = json.loads((run / "provenance" / "statement.json").read_bytes())["predicate"]["log"]["origin"]
    lines, previous, latest = [], "sha256:" + 64 * "0", {}
    for entry in entries:
        edit(entry)
        if entry["kind"] == "statement":
            entry["outputs"] = {name: digest_file(run / name) for name in entry["outputs"] if (run / name).exists()}
            latest[entry["stage"]] = digest_of(entry["outputs"])
            for (stage, name), maker in verify.MADE_BY.items():
                if stage == entry["stage"] and maker in latest:
                    entry["inputs"][name] = latest[maker]
        entry["previous"] = previous
        lines.append(canonical(entry))
        previous = digest_bytes(lines[-1])
    (run / "ledger" / "log.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    kept = next(at + 1 for at, entry in enumerate(entries) if entry["kind"] == "committed")
    for name in ("tile", "checkpoints"):
        shutil.rmtree(run / "provenance" / name)
    (run / "provenance" / "checkpoint").unlink()
    log = Log(run, origin, forger)
    log.keep_checkpoint(kept)
    publish(run, log, forger)
    return run


def inconsistent(scratch: Path, true: Path) -> Iterator[tuple[str, Path]]:
    """Edits that leave the true signature in place, and folders made to lead a reader astray."""

    def edited(name: str, change: Callable[[Path], None]) -> tuple[str, Path]:
        run = copied(scratch, true)
        change(run)
        return name, run

    def table(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
        def work(run: Path) -> None:
            path = run / "provenance" / "sources.json"
            value = json.loads(path.read_bytes())
            change(value["rows"])
            rows = [SourceRow.from_json(entry["row"]) for entry in value["rows"]]
            key = bytes.fromhex((run / "store" / "run.key").read_text().strip())
            value["root"] = "sha256:" + table_root(key, rows).hex()
            value["loss_tokens"] = sum(row.loss_tokens for row in rows)
            path.write_bytes(canonical(value) + b"\n")

        return work

    def statement(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
        def work(run: Path) -> None:
            path = run / "provenance" / "statement.json"
            value = json.loads(path.read_bytes())
            change(value)
            path.write_bytes(canonical(value) + b"\n")

        return work

    def in_log(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
        def work(run: Path) -> None:
            reseal(run, change)

        return work

    def outside(entry: dict[str, Any]) -> None:
        if entry["stage"] == "report":
            entry["outputs"]["../../../etc/hostname"] = digest_bytes(b"")

    def document(value: dict[str, Any]) -> None:
        value["predicate"]["documents"]["../run/config.json"] = "sha256:" + 64 * "0"

    def linked(run: Path) -> None:
        (run / "evidence.json").rename(run / "elsewhere.json")
        (run / "evidence.json").symlink_to(run / "elsewhere.json")

    def piped(run: Path) -> None:
        (run / "provenance" / "statement.json").unlink()
        os.mkfifo(run / "provenance" / "statement.json")

    def unsigned(run: Path) -> None:
        note = (run / "provenance" / "checkpoint").read_text()
        (run / "provenance" / "checkpoint").write_text(note.split("\n\n")[0] + "\n")

    def foreign(run: Path) -> None:
        payload = (run / "provenance" / "statement.json").read_bytes()[:-1]
        (run / "provenance" / "statement.dsse.json").write_bytes(pretty(envelope(payload, stranger())))

    yield edited("sums of the table moved between rows", table(_move))
    yield edited("a row of the table dropped", table(lambda rows: rows.pop()))
    yield edited("a row of the table doubled", table(lambda rows: rows.insert(0, rows[0])))
    yield edited("rows of the table reordered", table(lambda rows: rows.reverse()))
    yield edited(
        "statement: an accepted risk removed", statement(lambda value: value["predicate"].update(accepted_risks=[{}]))
    )
    yield edited(
        "statement: other weights", statement(lambda value: value["subject"][0]["digest"].update(sha256=64 * "0"))
    )
    yield edited("statement signed by a stranger of the same name", foreign)
    yield edited("checkpoint unsigned", unsigned)
    yield edited("path traversal in the log", in_log(outside))
    yield edited("path traversal in the documents", statement(document))
    yield edited("a file replaced by a link", linked)
    yield edited("a file replaced by a pipe", piped)


def _move(rows: list[dict[str, Any]]) -> None:
    """From the row with most loss tokens to the one with fewest: the total stays."""
    ordered = sorted(rows, key=lambda entry: entry["row"]["loss_tokens"])
    ordered[-1]["row"]["loss_tokens"] -= 1
    ordered[0]["row"]["loss_tokens"] += 1


def disclosures(true: Path, signer: Signer) -> Iterator[tuple[str, Any]]:
    """What a prover might hand out."""
    sealed = disclose.Sealed(true)
    whole = disclose.share(sealed, "word-counter", "MIT")
    shown = disclose.example(sealed, 3, None, {})
    audited = disclose.audit(sealed, "a public beacon", 40)
    grown = disclose.consistency(sealed, _kept(true))
    assert not any(_findings(true, value, signer) for value in (whole, shown, audited, grown))

    def changed(value: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
        copy = json.loads(json.dumps(value))
        at = copy
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = to(at[path[-1]]) if callable(to) else to
        return copy

    table = whole["table"]
    yield "share: a row of another licence", changed(whole, "table", -1, "row", "licence", to="CC0-1.0")
    yield "share: a row left out", changed(whole, "table", to=table[:-1])
    yield "share: forged sums", changed(whole, "table", -1, "row", "loss_tokens", to=lambda count: count + 1)
    yield "share: negative sums", changed(whole, "table", 0, "row", "loss_tokens", to=-5)
    yield "share: a blinded row that is no hash", changed(whole, "table", 0, to={"hash": "sha256:00"})
    yield (
        "absence with a blinded row",
        changed(disclose.absence(sealed, "nobody"), "table", 0, to=disclose._blinded(table[0])),
    )
    yield (
        "absence of a teacher that has rows",
        changed(disclose.absence(sealed, "nobody"), "question", "teacher", to="word-counter"),
    )
    yield "example: other loss tokens", changed(shown, "record", "tokens", "loss", to=1)
    yield "example: other teacher", changed(shown, "record", "teacher", "model_asked", to="somebody-else")
    yield "example: index out of the tree", changed(shown, "index", to=10**6)
    yield "example: path too short", changed(shown, "proof", to=lambda path: path[:-1])
    yield "example: path too long", changed(shown, "proof", to=lambda path: [*path, path[0]])
    yield "example: second preimage, a node shown as a leaf", changed(shown, "proof", to=lambda path: path[1:])
    yield "example: not the one selected", changed(shown, "selection_proof", to=lambda path: path[::-1])
    moved = base64.b64encode(bytes(32) + (5).to_bytes(8, "big")).decode()
    yield "audit: value moved between siblings", changed(audited, "openings", 0, "sum_proof", 0, to=moved)
    yield "audit: another beacon", changed(audited, "beacon", to="a beacon of my own")
    yield "audit: openings kept back", changed(audited, "openings", to=lambda openings: openings[:-3])
    yield "audit: fewer draws than promised", changed(audited, "draws", to=0)
    yield (
        "consistency: another older root",
        changed(grown, "old", to=lambda note: note.replace(note.splitlines()[2], base64.b64encode(bytes(32)).decode())),
    )
    yield "consistency: another proof", changed(grown, "proof", to=lambda proof: proof[::-1])
    yield (
        "statement of another run",
        changed(whole, "checkpoint", to=lambda note: note.replace("tutelage/run/", "tutelage/run/0")),
    )
    yield "algorithm confusion: the payload type", changed(whole, "envelope", "payloadType", to="application/json")
    yield "wrong key", changed(whole, "envelope", to=envelope(sealed.payload, stranger()))
    yield "no signature", changed(whole, "envelope", "signatures", to=[])
    yield "archive instead of JSON", gzip.compress(b"[" * 10_000_000)
    yield (
        "nested a hundred thousand deep",
        b'{"kind": "tutelage-disclosure", "schema_version": 1, "about": ' + b"[" * 100_000,
    )
    yield "the same key twice", pretty(whole).replace(b'"about": "share",', b'"about": "absence", "about": "share",')
    yield "a number too large", pretty(whole).replace(b'"schema_version": 1', b'"schema_version": ' + b"9" * 5000)
    yield "not a number", pretty(whole).replace(b'"schema_version": 1', b'"schema_version": NaN')


def _kept(run: Path) -> str:
    return next(path for path in (run / "provenance" / "checkpoints").iterdir()).read_text()


def _findings(run: Path, value: dict[str, Any], signer: Signer) -> tuple[verify.Finding, ...]:
    path = run.parent / "true-disclosure.json"
    path.write_bytes(pretty(value))
    return verify.verify(path, verify.Trust(key=signer.verification_key)).findings


def signatures(signer: Signer) -> dict[str, bool]:
    """Ed25519 signatures and keys that a lax verifier takes."""
    message, public = b"a message", signer.public
    good = signer.sign(message)
    assert verify.ed25519_verify(public, message, good)
    scalar = int.from_bytes(good[32:], "little") + GROUP_ORDER
    small = (1).to_bytes(32, "little")  # the neutral element: any signature with S = 0 would hold for it
    noncanonical = (2**255 - 19 + 1).to_bytes(32, "little")
    forged = {
        "S + L (malleable)": (public, good[:32] + scalar.to_bytes(32, "little")),
        "key of small order": (small, small + bytes(32)),
        "key whose y is not below p": (noncanonical, small + bytes(32)),
        "signature one byte short": (public, good[:-1]),
        "signature of another message": (public, signer.sign(b"another")),
    }
    found = {f"Ed25519: {name}": not verify.ed25519_verify(key, message, sig) for name, (key, sig) in forged.items()}
    cosigning = signer.witness_key
    note = verify.parse_note(signer.note("origin\n1\nAAAA\n"))
    found["algorithm confusion: a cosignature key for a note"] = not verify.note_signed_by(
        note, verify.parse_key(cosigning)
    )
    return found
