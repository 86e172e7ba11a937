"""Checks a record and what is disclosed of it: standard library only, one file, reads nothing but what it is given.

Run alone it is `python verify.py PATH [--key VKEY] [--history FILE] [--witness VKEY] [--root sha256:…]`. PATH is a run
folder (everything is checked), the public folder `provenance` (nothing of the data is needed), or a disclosure (one JSON
file). Each check names the clause it rests on; docs/formats.md describes every byte. Nothing that is read is trusted: what
cannot be read is a finding, never a crash.
"""

import argparse
import base64
import bisect
import functools
import hashlib
import hmac
import json
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

MAX_JSON_BYTES = 256 << 20  # a JSON file above this is not read
MAX_LINE_BYTES = 64 << 20  # nor a longer line
MAX_DRAWS = 10_000  # of an audit: what they open stays below 64 MiB
EMPTY = hashlib.sha256(b"").digest()
NOT_PROVEN = (
    "that nothing outside the record was trained on: L2, `tutelage replay`, re-trains segments to find out",
    "that an answer came from the model its record names: the endpoint said so",
    "whose output the teacher and the base were themselves trained on: unknown-upstream, never zero",
    "that an example was not used: salts would let it hide, so no such proof is offered",
    "L3, a statistical tie of the weights to the answers: not offered yet",
)
# Which stage made an input, by stage and the input's name: each must be that stage's latest outputs.
MADE_BY = {
    ("collect", "data"): "data", ("curate", "collect"): "collect", ("train", "curate"): "curate",
    ("train", "student"): "student", ("account", "curate"): "curate", ("account", "train"): "train",
    ("ship", "train"): "train", ("ship", "student"): "student", ("ship", "account"): "account",
    ("prove", "data"): "data", ("prove", "curate"): "curate", ("prove", "student"): "ship",
    ("prove", "before"): "student", ("report", "prove"): "prove", ("seal", "report"): "report", ("seal", "ship"): "ship",
    ("sources", "data"): "data", ("sources", "train"): "train", ("ship", "sources"): "sources", ("prove", "items"): "items",
    ("compare", "collect"): "collect", ("compare", "questions"): "questions", ("plain", "curate"): "curate",
    ("plain", "student"): "student", ("prove", "plain"): "plain", ("prove", "train"): "train", ("curate", "data"): "data",
}  # fmt: skip
# Of a control turned off, or of an earlier version.
OPTIONAL = (("prove", "plain"), ("prove", "train"), ("curate", "data"))
TRAINED_FROM = ("student data", "signals data", "signals student", "train data", "train signals",
                "rejected data", "rejected student", "train rejected", "rollouts data", "rollouts student",
                "train rollouts")  # fmt: skip
ASKING = {"run", "terms", "questions", "collect", "compare", "items", "prove", "report"}  # stages that make no student
BEFOREHAND = {"signals", "rejected", "rollouts"}  # made once, before training, by some methods
TRAINING = {"run", "terms", "data", "student", *BEFOREHAND, "train", "sources", "ship"}  # of `tutelage train`
STAGE_FOLDERS = (
    "data", "terms", "collect", "curate", "before", "train", "student", "prove", "ledger/examples", "ledger/selection",
    "signals", "rejected", "rollouts", "plain",
)  # fmt: skip
NOT_LOCATED = ("store/index.sqlite", "logs/", "work/", ".lock", "report.html", "ledger/locator.jsonl", "environment.json",
               "run.toml")  # fmt: skip
PRIVATE = ("ledger", "store", "config.json")  # a folder with one of them is a run, and all of it is checked
KINDS = {
    "body": "encoding", "request": "messages", "exchange": "raw_body_digest", "failure": "reason",
    "reservation": "reserved_at", "attempt": "open_nusd", "batch": "token", "probe": "probe_version",
}  # fmt: skip
ROW_KEY = ("teacher", "weights", "provider", "route", "licence", "role")
MODEL_KEY = ("model_asked", "weights_digest", "provider", "route", "licence")  # the same, as an exchange names them
TARGETS, PROMPT_AUTHOR = ("soft-target", "text-target"), "prompt-author"
BASE_LINEAGE, OWN_TEXT = "base-lineage", "own-text"  # both the base's
PUBLIC = {
    "statement.json", "statement.dsse.json", "checkpoint", "signer.vkey", "before-training.json", "sealed.json", "tile",
    "checkpoints",
}  # fmt: skip
# What of a statement the log names when sealing begins: all but the log itself, the documents, and dates.
STATED = (
    "schema_version", "name", "purpose", "selection", "sources", "conditions", "accepted_risks", "upstream", "run",
)  # fmt: skip
PAYLOAD_TYPE = "application/vnd.in-toto+json"


class Finding(NamedTuple):
    """Something that is not as recorded: where (file, and line or byte), and what."""

    where: str
    what: str


class Trust(NamedTuple):
    """What whoever checks brings along: a verification key, its published history, a witness's key, a root."""

    key: str = ""
    history: str = ""  # the text of a history file
    witness: str = ""
    root: str = ""


class Result(NamedTuple):
    """`findings` is empty when the record holds. `checks` say what was checked and by which clause, `shares` what was taken
    from whom, `tier` how much that proves and to whom."""

    findings: tuple[Finding, ...]
    checks: tuple[str, ...]
    counts: dict[str, int]
    root: str
    shares: tuple[str, ...]
    tier: tuple[str, ...]


class Bad(ValueError):
    """What is read is not what its format says."""


def verify(path: Path, trust: Trust | None = None) -> Result:
    """Checks a run folder, its public part, or a disclosure. Never raises on what it reads."""
    checker = _Checker(path, trust or Trust())
    if not path.is_dir():
        steps = [checker.disclosure]
    elif any((path / name).exists() for name in PRIVATE) or not _public_folder(path):
        steps = [
            checker.log, checker.public, checker.outputs, checker.stages, checker.store, checker.commitments,
            checker.examples, checker.sources, checker.locator,
        ]  # fmt: skip
    else:
        steps = [checker.public]
    for check in (*steps, checker.locate):
        try:
            check()
        except Exception as error:  # whatever hostile input brings about is a finding
            where = checker.reading or check.__name__
            checker.found(where, f"cannot be read: {error if isinstance(error, Bad | OSError) else repr(error)}")
    holds = not checker.findings  # nothing is said to be proven where anything is not as recorded
    return Result(
        tuple(checker.findings), tuple(checker.checks), checker.counts, checker.root,
        tuple(checker.shares) if holds else (), checker.tier() if holds else (),
    )  # fmt: skip


def _public_folder(path: Path) -> Path | None:
    return next((folder for folder in (path / "provenance", path) if (folder / "statement.json").exists()), None)


# --- hashes and trees -------------------------------------------------------------------------------------------------
def leaf(data: bytes) -> bytes:
    """RFC 6962 section 2.1: SHA-256(0x00 ‖ data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    """RFC 6962 section 2.1: SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def sum_leaf(hashed: bytes, value: int) -> bytes:
    """A leaf of the Merkle-sum tree: SHA-256(0x02 ‖ leaf hash ‖ value) ‖ value."""
    return hashlib.sha256(b"\x02" + hashed + value.to_bytes(8, "big")).digest() + value.to_bytes(8, "big")


def sum_node(left: bytes, right: bytes) -> bytes:
    """A node of the Merkle-sum tree: both children's sums are hashed."""
    total = int.from_bytes(left[32:], "big") + int.from_bytes(right[32:], "big")
    return hashlib.sha256(b"\x03" + left + right).digest() + total.to_bytes(8, "big")


def root_of(leaves: Sequence[bytes], combine: Callable[[bytes, bytes], bytes] = node) -> bytes:
    """RFC 6962 section 2.1: pairs level by level; an odd one moves up."""
    if not leaves:
        return EMPTY
    level = list(leaves)
    while len(level) > 1:
        paired = [combine(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = paired + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def _roots(leaves: Sequence[bytes]) -> Iterator[bytes]:
    """The root of every beginning of a log, from one leaf on."""
    peaks: list[bytes] = []
    for size, hashed in enumerate(leaves, 1):
        peaks.append(hashed)
        for _ in range((size & -size).bit_length() - 1):
            right = peaks.pop()
            peaks[-1] = node(peaks[-1], right)
        yield functools.reduce(lambda found, left: node(left, found), reversed(peaks))


def root_from_inclusion(
    hashed: bytes, index: int, size: int, path: Sequence[bytes], combine: Callable[[bytes, bytes], bytes] = node
) -> bytes:
    """RFC 9162 section 2.1.3.2. Raises `Bad` for an index outside the tree or a path of another length."""
    if not 0 <= index < size:
        raise Bad(f"leaf {index} is not in a tree of {size}")
    sides, found = list(_sides(index, size - 1)), hashed
    if len(path) != len(sides):
        raise Bad(f"the path is too {'long' if len(path) > len(sides) else 'short'}")
    for is_left, sibling in zip(sides, path, strict=True):
        found = combine(sibling, found) if is_left else combine(found, sibling)
    return found


def _sides(at: int, last: int) -> Iterator[bool]:
    """For each node on the way from node `at` of a level that ends with `last`: is its sibling on the left?"""
    while last:
        is_left = at % 2 == 1 or at == last
        yield is_left
        while is_left and at % 2 == 0 and at:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1


def consistent(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """RFC 9162 section 2.1.4.2: whether the tree of `old` leaves is a beginning of the tree of `new` leaves."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    at, last = old - 1, new - 1
    while at % 2:
        at, last = at >> 1, last >> 1
    sides = list(_sides(at, last))
    if len(path) != len(sides) + 1:
        return False
    first = second = path[0]
    for is_left, sibling in zip(sides, path[1:], strict=True):
        first, second = (node(sibling, first), node(sibling, second)) if is_left else (first, node(second, sibling))
    return first == old_root and second == new_root


def salt_of(key: bytes, tree: str, sequence: int) -> bytes:
    """HMAC-SHA-256(run key, tree ‖ 0x00 ‖ sequence as 8 bytes)."""
    return hmac.digest(key, tree.encode() + b"\x00" + sequence.to_bytes(8, "big"), "sha256")


# --- Ed25519 (RFC 8032 section 5.1) -----------------------------------------------------------------------------------

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_Point = tuple[int, int, int, int]


def _add(p: _Point, q: _Point) -> _Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _times(scalar: int, point: _Point) -> _Point:
    total: _Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point, scalar = _add(point, point), scalar >> 1
    return total


def _decoded(data: bytes) -> _Point | None:
    """RFC 8032 section 5.1.3; a y that is not below p, and x = 0 with the sign bit set, are refused."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    x = _P - x if x % 2 != sign else x
    return (x, y, 1, x * y % _P)


def _encoded(point: _Point) -> bytes:
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_BASE = _decoded((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))


def ed25519_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """RFC 8032 section 5.1.7, without the cofactor; strict: S below the group order, key and R canonical, none of small order."""
    if len(public) != 32 or len(signature) != 64 or _BASE is None:
        return False
    key, first, scalar = _decoded(public), _decoded(signature[:32]), int.from_bytes(signature[32:], "little")
    if key is None or first is None or scalar >= _L:
        return False
    if _encoded((0, 1, 1, 0)) in (_encoded(_times(8, key)), _encoded(_times(8, first))):
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _L
    minus = (_P - key[0], key[1], key[2], _P - key[3])
    return _encoded(_add(_times(scalar, _BASE), _times(challenge, minus))) == signature[:32]


# --- notes and keys (C2SP signed-note, tlog-checkpoint, tlog-cosignature) ---------------------------------------------
class Key(NamedTuple):
    """A verification key: name, 4 bytes of id, kind (1 signs notes, 4 cosigns), 32 bytes."""

    name: str
    id: bytes
    kind: int
    public: bytes


class Note(NamedTuple):
    """A signed note: its text and its signatures as (name, key id, signature)."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]


class Checkpoint(NamedTuple):
    """A tree head: whose, how many entries, which root."""

    origin: str
    size: int
    root: bytes


def parse_key(text: str) -> Key:
    """`name+id+key`. Raises `Bad` when the id does not belong to name and key, or the kind is none of ours."""
    parts = text.split("+", 2)
    is_named = re.fullmatch(r"[^\s+]+", parts[0]) and parts[0].isprintable()
    if len(parts) != 3 or not is_named or not re.fullmatch(r"[0-9a-f]{8}", parts[1]):
        raise Bad(f"{text[:80]!r} is no verification key (name+id+key)")
    data = _base64(parts[2])
    if len(data) != 33 or data[0] not in (1, 4):
        raise Bad(f"the key of {parts[0]!r} is neither Ed25519 (1) nor an Ed25519 cosignature key (4)")
    wanted = hashlib.sha256(parts[0].encode() + b"\n" + data).digest()[:4]
    if wanted.hex() != parts[1]:
        raise Bad(f"the id of {parts[0]!r} is {wanted.hex()}, not {parts[1]}")
    return Key(parts[0], wanted, data[0], data[1:])


def parse_note(text: str) -> Note:
    """Raises `Bad` for text with control characters, or signature lines of another form. No signature at all is a note too."""
    if len(text) > 1 << 20 or re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text) or not text.endswith("\n"):
        raise Bad("no note: too long, a control character, or no newline at its end")
    body, gap, rest = text.rpartition("\n\n")
    if not gap:
        return Note(text, ())
    signatures = []
    for line in rest.split("\n")[:-1] or [""]:
        match = re.fullmatch(r"— ([^\s+]+) (\S+)", line)
        data = _base64(match[2]) if match else b""
        if match is None or len(data) < 5 or len(signatures) >= 64:
            raise Bad(f"no signature line: {line[:60]!r}")
        signatures.append((match[1], data[:4], data[4:]))
    return Note(body + "\n", tuple(signatures))


def parse_checkpoint(text: str) -> Checkpoint:
    """Origin, size and root; further lines are allowed by the format and not used here."""
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or not re.fullmatch(r"0|[1-9][0-9]{0,17}", lines[1]):
        raise Bad("no checkpoint: origin, size and root are wanted")
    root = _base64(lines[2])
    if len(root) != 32:
        raise Bad("no checkpoint: the root is not 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root)


def note_signed_by(note: Note, key: Key) -> bool | None:
    """Whether this key signed the note: None when there is no line of its name and id."""
    for name, key_id, signature in note.signatures:
        if (name, key_id) == (key.name, key.id) and key.kind == 1:
            return ed25519_verify(key.public, note.text.encode(), signature)
    return None


def cosigned_at(note: Note, key: Key) -> int | None:
    """POSIX seconds at which this witness saw the note; None when it did not, or its signature is wrong."""
    for name, key_id, signature in note.signatures:
        if (name, key_id) == (key.name, key.id) and key.kind == 4 and len(signature) == 72:
            time = int.from_bytes(signature[:8], "big")
            message = f"cosignature/v1\ntime {time}\n{note.text}".encode()
            return time if ed25519_verify(key.public, message, signature[8:]) else None
    return None


class Keys(NamedTuple):
    """Keys that are trusted, and those that were revoked: when (POSIX seconds), and what was said."""

    trusted: tuple[Key, ...]
    revoked: dict[bytes, tuple[int, str]]


def follow(key: Key, history: str) -> Keys:
    """The keys that a trusted one handed over to, by notes that both signed. Raises `Bad` for a note that is not signed so."""
    trusted: list[Key] = [key]
    revoked: dict[bytes, tuple[int, str]] = {}
    for text in _parse(history.encode())["notes"] if history else []:
        note = parse_note(text)
        kind, value, *_ = note.text.split("\n")
        said = _parse(value.encode())
        old = parse_key(said["key"])
        if old not in trusted:
            continue
        if not note_signed_by(note, old):
            raise Bad(f"the history's note of {said.get('at')} is not signed by the key it is about")
        if kind == "tutelage/key-rotation/v1":
            new = parse_key(said["new"])
            if not note_signed_by(note, new):
                raise Bad(f"the key that took over at {said.get('at')} did not sign that it did")
            if old.id in revoked:
                raise Bad(f"a key that was revoked cannot hand over, as at {said.get('at')}")
            trusted.append(new)
        elif kind == "tutelage/key-revocation/v1":
            event = (_posix(said["at"]), f"{said['at']}: {said['reason']}")
            for key in trusted[
                : trusted.index(old) + 1
            ]:  # and those it took over from: whoever has one signs as they did
                revoked[key.id] = min(revoked.get(key.id, event), event)  # whoever stole it cannot put it off
        else:
            raise Bad(f"the history has a note of unknown kind {kind[:60]!r}")
    return Keys(tuple(trusted), revoked)


def pre_authentication_encoding(payload: bytes) -> bytes:
    """DSSE v1: what the signature covers. The payload type is ours whatever the envelope says."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


# --- reading what nobody vouches for ----------------------------------------------------------------------------------
def _base64(text: Any) -> bytes:
    """Base64 in its one form (RFC 4648 section 3.5): bits that decode to nothing are zero."""
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        data = None
    if data is None or base64.b64encode(data).decode() != text:
        raise Bad(f"{str(text)[:60]!r} is not base64")
    return data


def _utc(posix_s: int) -> str:
    return datetime.fromtimestamp(posix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _undated(verdict: dict[str, Any]) -> dict[str, Any]:
    """A verdict without what changes by the day alone."""
    return {name: value for name, value in verdict.items() if name not in ("date", "warnings")}


def _posix(text: str) -> int:
    """POSIX seconds of a time in UTC as records write it (RFC 3339)."""
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Bad("an object has the same key twice")
    return found


def _no_float(text: str) -> Any:
    raise Bad(f"a record holds no such number: {text[:40]}")


def _parse(data: bytes, floats: bool = False) -> Any:
    """JSON without repeated keys; without floats unless they are expected."""
    parse_float = float if floats else _no_float
    return json.loads(data, object_pairs_hook=_unique, parse_constant=_no_float, parse_float=parse_float)


def _read(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """The bytes of a regular file: no link, no pipe, no device, nothing above the limit."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
        raise Bad(f"{path.name} is not a regular file of at most {limit} bytes")
    return path.read_bytes()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _digest_file(path: Path, size: int | None = None) -> str:
    """Digest of a regular file, or of its first `size` bytes."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise Bad(f"{path.name} is not a regular file")
    hasher, left = hashlib.sha256(), path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            hasher.update(block)
            left -= len(block)
    return "sha256:" + hasher.hexdigest()


def _hash32(text: Any, tag: str = "sha256:") -> bytes:
    """32 bytes behind a tag, in the one hexadecimal form: blanks would let bytes of a salt pass for bytes of a value."""
    if not isinstance(text, str) or not re.fullmatch(tag + r"[0-9a-f]{64}", text):
        raise Bad(f"{str(text)[:80]!r} is not {tag or 'a salt:'} and 64 hexadecimal digits")
    return bytes.fromhex(text.removeprefix(tag))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of whole lines; a torn last one (a killed writer's) was never acknowledged and is left out."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise Bad(f"{path.name} is not a regular file")
    offset = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            if line.endswith(b"\n"):
                yield offset, line[:-1]
            elif len(line) == MAX_LINE_BYTES:
                raise Bad(f"{path.name} has a line of more than {MAX_LINE_BYTES} bytes at byte {offset}")
            offset += len(line)


def _files(folder: Path) -> list[Path]:
    """All that is no folder in a folder. A link is listed and never followed, and be it the folder itself."""
    if folder.is_symlink():
        return [folder]
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _leads_out(name: str) -> bool:
    """Whether a name that a record gives leads out of its folder."""
    return Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name


def _tile_names(size: int) -> Iterator[tuple[int, int, str, int]]:
    """Level, number, path and width of every tile of a log (C2SP tlog-tiles)."""
    level, count = 0, size
    while count:
        for number in range(-(-count // 256)):
            digits = str(number).zfill(-(-len(str(number)) // 3) * 3)
            name, width = f"{level}/" + re.sub(r"(\d{3})(?=\d)", r"x\1/", digits), min(256, count - number * 256)
            yield level, number, name + ("" if width == 256 else f".p/{width}"), width
        level, count = level + 1, count // 256


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise Bad(f"{str(value)[:40]} is not a whole number from 0 to 2^53 - 1")
    return value


def _key_of(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ROW_KEY)


class Table(NamedTuple):
    """The rows of a source table that are open, by their place, and how many are blinded."""

    rows: dict[int, dict[str, Any]]
    blinded: int
    loss_tokens: int  # of all rows, as the statement says


def read_table(entries: list[dict[str, Any]], stated: dict[str, Any]) -> Table:
    """Opens a source table against the root, the number of rows and the total that a statement names.

    Each entry is `row` and `salt`, or the `hash` of a blinded row. Raises `Bad` when it is not the table stated, when open
    rows are not sorted by unique keys, or their sums contradict the total.
    """
    hashes, rows = [], {}
    for at, entry in enumerate(entries):
        if "hash" in entry:
            hashes.append(_hash32(entry["hash"]))
            continue
        rows[at] = entry["row"]
        hashes.append(leaf(_hash32(entry["salt"], "") + _canonical(entry["row"])))
    if len(entries) != _number(stated["rows"]) or root_of(hashes) != _hash32(stated["root"]):
        raise Bad(f"is not the source table of {stated['rows']} rows with root {stated['root']} (RFC 6962 section 2.1)")
    keys = [_key_of(row) for row in rows.values()]
    if keys != sorted(set(keys)):
        raise Bad("the rows are not sorted by unique keys")
    total, opened = _number(stated["loss_tokens"]), sum(_number(row["loss_tokens"]) for row in rows.values())
    if opened > total or (len(rows) == len(entries) and opened != total):
        raise Bad(f"the open rows sum to {opened} loss tokens, the statement says {total} in all")
    return Table(rows, len(entries) - len(rows), total)


def shares(table: Table, mine: list[dict[str, Any]], what: str) -> str:
    """What share of all loss tokens came from some of its open rows: exact when the table is whole, bounds when not."""
    total, least = table.loss_tokens, sum(row["loss_tokens"] for row in mine)
    if not table.blinded:
        examples: dict[tuple[str, ...], int] = {}  # by source: one example may have two roles there
        for row in mine:
            source = _key_of(row)[:5]
            examples[source] = max(examples.get(source, 0), row["examples"])
        many = f"{least:,}, of {sum(examples.values()):,} examples"
        return f"{_percent(least, total)} of the {total:,} loss tokens came from {what}: {many}"
    most = least + total - sum(row["loss_tokens"] for row in table.rows.values())
    return (
        f"at least {_percent(least, total)}, at most {_percent(most, total, up=True)} of the {total:,} loss tokens came "
        f"from {what}: {table.blinded} of {table.blinded + len(table.rows)} rows are blinded"
    )


def _percent(part: int, whole: int, up: bool = False) -> str:
    """To four decimals, rounded down or `up`: never 100 % of what is not all, and bounds stay bounds."""
    if not whole:
        raise Bad("there are no loss tokens to have a share of")
    parts = (10**6 * part + (whole - 1 if up else 0)) // whole
    return f"{parts // 10**4}.{parts % 10**4:04}".rstrip("0").rstrip(".") + " %"


def named(row: dict[str, Any]) -> str:
    """A source as a person would name it."""
    return f"{row['teacher']} under {row['licence'] or 'the terms of its route'}"


def source_of(record: dict[str, Any]) -> tuple[str, ...]:
    """The key of the source row that an example's record belongs to."""
    role, model, prompt = record["role"], record.get("teacher"), record["prompt_source"]
    if model is None:
        return (prompt["source"], prompt["digest"], "", "file", prompt["licence"], role)
    return (*(model[name] for name in MODEL_KEY[:4]), record["licence"], role)


def _plain(text: Any) -> str:
    """Control characters are shown, not obeyed."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in str(text))


def _blind(key: bytes, field: str, position: int, value: bytes) -> bytes:
    """SHA-256(SHA-256(example salt ‖ field) ‖ value)."""
    salt = hashlib.sha256(salt_of(key, "fields", position) + field.encode()).digest()
    return hashlib.sha256(salt + value).digest()


def _first_difference(left: Sequence[Any], right: Sequence[Any]) -> int:
    return next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _place_in_block(data: bytes, start: int, known: str, total: int, weighted: int) -> tuple[str, str]:
    """The byte that changed, when one did: the change of the weighted sum over the change of the sum is its place."""
    _, changed, moved = _sums(data)
    change, moved = changed - total, moved - weighted
    at = moved // change - 1 if change and moved % change == 0 else -1
    if 0 <= at < len(data) and 0 <= data[at] - change <= 255:
        was = data[:at] + bytes([data[at] - change]) + data[at + 1 :]
        if hashlib.sha256(was).hexdigest()[:16] == known:
            return f"byte {start + at}", f"{data[at]:#04x} where the record has {was[at]:#04x}"
    return f"byte {start}", f"it differs from there on, within {len(data)} bytes"


def _located(run: Path, name: str) -> dict[str, Any]:
    """The locator's line of a file (docs/formats.md)."""
    data = _read(run / name)
    block = 1 << 20 if len(data) > 1 << 24 else 4096
    blocks = [_sums(data[at : at + block]) for at in range(0, len(data), block)]
    return {"file": name, "bytes": len(data), "block": block, "blocks": blocks}


def _sums(data: bytes) -> tuple[str, int, int]:
    return hashlib.sha256(data).hexdigest()[:16], sum(data), sum(map(int.__mul__, data, range(1, len(data) + 1)))


# --- the checks -------------------------------------------------------------------------------------------------------
class _Checker:
    def __init__(self, path: Path, trust: Trust) -> None:
        self.path, self.trust = path, trust
        self.run = path if path.is_dir() and not (path / "statement.json").exists() else path.parent
        self.reading = ""  # the file that was read last
        self.findings: list[Finding] = []
        self.checks: list[str] = []
        self.counts: dict[str, int] = {}
        self.shares: list[str] = []
        self.root = self.signed_by = ""
        self.was_seen = False  # the note checked last counts although its key was revoked: a witness saw it before
        self.entries: list[dict[str, Any]] = []
        self.lines: list[bytes] = []
        self.places: dict[str, tuple[Path, int, int]] = {}  # where each stored request and exchange lies
        self.statement: dict[str, Any] = {}
        self.table: Table | None = None
        self.is_trusted = False  # by a key
        self.is_pinned = False  # by a root: what is stated, whoever signed it
        self.committed = ""  # how far it is shown that the selection was committed before training
        self.located: dict[str, dict[str, Any]] = {}

    def read(self, path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
        """The bytes of a regular file (`_read`); what goes wrong with them is told as a finding about this file."""
        self.reading = path.relative_to(self.run).as_posix()
        return _read(path, limit)

    def _records(self, name: str) -> Iterator[dict[str, Any]]:
        """The values of a file with one on each line."""
        self.reading = name
        return (_parse(line) for _, line in _lines(self.run / name))

    def _entry(self, path: Path) -> bytes:
        """A file without the newline that it ends with."""
        data = self.read(path)
        if not data.endswith(b"\n"):
            raise Bad("is torn")
        return data[:-1]

    def _text(self, path: Path) -> str:
        """The text of a file that may be missing, without the newline at its end."""
        return self._entry(path).decode() if path.exists() else ""

    def found(self, where: str, what: str) -> None:
        self.findings.append(Finding(where, what))

    def passed(self, clause: str, what: str, before: int) -> None:
        """Notes a check as passed unless it added findings since there were `before`."""
        if len(self.findings) == before:
            self.checks.append(f"{clause}: {what}")

    # The log, its tree and who signed it

    def log(self) -> None:
        """Chain and canonical form of the private entries; a torn last line is a finding too."""
        data = self.read(self.run / "ledger" / "log.jsonl")
        previous = "sha256:" + 64 * "0"
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            entry = _parse(line)
            if _canonical(entry) != line:
                self.found(f"ledger/log.jsonl line {number}", "is not canonical JSON (RFC 8785)")
            if entry["previous"] != previous:
                self.found(f"ledger/log.jsonl line {number - 1}", f"is not the line that line {number} names")
            previous = _digest(line)
            self.lines.append(line)
            self.entries.append(entry)
        if not data.endswith(b"\n"):
            self.found(f"ledger/log.jsonl line {len(self.lines) + 1}", "is torn")
        self.counts["log entries"] = len(self.lines)
        opened = [entry["facts"]["config"] for entry in self.entries if entry["kind"] == "opened"]
        if _digest(self.read(self.run / "config.json")) != opened[-1]:
            self.found("config.json", "is not the configuration this run was last opened with")

    def public(self) -> None:
        """All that can be checked without the data: checkpoint, tiles, statement, signatures, source table, documents."""
        folder, before = _public_folder(self.path) or self.path / "provenance", len(self.findings)
        note = parse_note(self.read(folder / "checkpoint", 1 << 20).decode())
        head = parse_checkpoint(note.text)
        leaves = self._leaves(folder, head.size)
        self.root = "sha256:" + head.root.hex()
        if self.lines and (mine := [leaf(line) for line in self.lines]) != leaves:
            number = _first_difference(mine, leaves) + 1
            self.found(f"ledger/log.jsonl line {number}", "is not the entry that provenance/tile has")
        if root_of(leaves) != head.root:
            self.found("provenance/checkpoint", f"does not name {len(leaves)} entries with root {self.root}")
        self.passed("RFC 6962 section 2.1, C2SP tlog-tiles", f"{head.size} log entries have root {self.root}", before)
        if not (folder / "statement.json").exists():
            if not self.only_asks and not self.is_training:
                self.found("provenance/statement.json", "is missing: the run is not sealed yet")
            self._unsealed(note, leaves)
            return
        keys = self._keys(*(self._text(folder / name) for name in ("signer.vkey", "signer.history.json")))
        self._signature("provenance/checkpoint", note, keys)
        self._statement(folder, head, keys)
        line = self._entry(folder / "sealed.json")
        self._sealed("provenance/sealed.json", line)
        if leaf(line) not in leaves:
            self.found("provenance/sealed.json", "is no entry of the log")
        elif self.trust.root:
            self._trusted_root(leaves, leaves.index(leaf(line)))
        self._before_training(folder, leaves, keys)
        self._sources(folder)
        self._documents(folder)
        self._subject(folder)

    def _leaves(self, folder: Path, size: int) -> list[bytes]:
        """The log's leaf hashes out of its tiles; every level is recomputed, and nothing else may lie there."""
        levels: dict[int, list[bytes]] = {}
        names = set()
        for level, number, name, width in _tile_names(size):
            names.add(name)
            data = self.read(folder / "tile" / name, 1 << 14)
            tile = [data[at : at + 32] for at in range(0, len(data), 32)]
            below = levels[level - 1][number * 65536 : (number + 1) * 65536] if level else []
            made = [root_of(below[at : at + 256]) for at in range(0, len(below) - 255, 256)]
            if len(data) != 32 * width:
                self.found(f"provenance/tile/{name}", f"has {len(data)} bytes, not {32 * width}")
            elif level and made != tile:
                at = 32 * _first_difference(made, tile)
                self.found(f"provenance/tile/{name} byte {at}", "is not the hash over the tile below")
            levels.setdefault(level, []).extend(tile)
        for path in _files(folder / "tile"):
            if (name := path.relative_to(folder / "tile").as_posix()) not in names:
                self.found(f"provenance/tile/{name}", "is not a tile of this log")
        return levels.get(0, [])

    def _unsealed(self, note: Note, leaves: list[bytes]) -> None:
        """Nothing is stated of the whole: what you trust is held against the log itself."""
        before, where = len(self.findings), "provenance/checkpoint"
        keys = self._keys(self.entries[-1]["signer"] if self.entries else "", "")
        if keys is not None and self._signature(where, note, keys):
            known = "" if self.is_trusted else ", a key you did not name (--key)"
            self.passed("C2SP signed-note", f"the log is signed by {self.signed_by}{known}", before)
        if self.trust.witness and self._seen_by_witness(note) is None:
            self.found(where, "is not cosigned by the witness you name")
        if self.trust.root:
            self._trusted_root(leaves, -1)

    def _trusted_root(self, leaves: list[bytes], sealed_at: int) -> None:
        """Whether the log ever had the root, and after the entry (-1: none) that what is stated came with."""
        wanted = _hash32(self.trust.root)
        size = next((size for size, root in enumerate(_roots(leaves), 1) if root == wanted), 0)
        if not size:
            self.found("provenance/checkpoint", f"this log never had the root {self.trust.root} that you trust")
        elif size <= sealed_at:
            what = f"the root you trust is that of its first {size} entries: what is stated came with entry {sealed_at + 1}"
            self.found("provenance/checkpoint", what)
        else:
            self.checks.append(f"RFC 6962 section 2.1.2: the root you trust is that of its first {size} entries")
            self.is_pinned = True

    def _sealed(self, where: str, line: bytes) -> None:
        """The entry with which sealing began names what is stated: a trusted root vouches for that, without any key."""
        entry, predicate = _parse(line), self.statement["predicate"]
        terms = [{name: value for name, value in one.items() if name != "date"} for one in predicate["terms"]]
        stated = {name: predicate[name] for name in STATED} | {"subject": self.statement["subject"], "terms": terms}
        config = {"statement": _digest(_canonical(stated))}
        if (entry["kind"], entry["stage"], entry["config"]) != ("intent", "seal", config):
            self.found(where, "does not name what the statement says")

    def _keys(self, stated: str, history: str) -> Keys | None:
        """The keys to check signatures by: those you trust, else those the record names, which says only who claims."""
        if self.trust.key:
            return follow(parse_key(self.trust.key), self.trust.history or history)
        if not stated:
            return None
        named = first = parse_key(stated)
        if history:  # from the oldest key of the record's own account of itself
            oldest = parse_note(_parse(history.encode())["notes"][0])
            first = parse_key(_parse(oldest.text.split("\n")[1].encode())["key"])
        keys = follow(first, history)
        if named not in keys.trusted:
            raise Bad(f"{stated} is no key that its history hands over to")
        return keys

    def _signature(self, where: str, note: Note, keys: Keys | None, wanted: bool = True) -> bool:
        """Whether the note is signed by one of the keys. A wrong signature or a revoked key is a finding; so is no
        signature of theirs where one is `wanted`. Lines of others, such as witnesses, are passed over: what one of them
        who is trusted saw before a key was revoked was signed before."""
        seen = self._seen_by_witness(note)
        if keys is None:
            if wanted and any(len(signature) == 64 for *_, signature in note.signatures):  # 72 bytes: a witness's
                self.found(where, "is signed, but signer.vkey does not say by whom")
            return False
        for key in keys.trusted:
            signed = note_signed_by(note, key)
            if signed is None:
                continue
            if not signed:
                self.found(where, f"the signature of {key.name} is wrong (RFC 8032 section 5.1.7)")
            elif key.id in keys.revoked and not (seen is not None and seen < keys.revoked[key.id][0]):
                self.found(where, f"is signed with a key that was revoked, {keys.revoked[key.id][1]}")
            else:
                self.was_seen = key.id in keys.revoked
                self.signed_by = self.signed_by or f"{key.name}+{key.id.hex()}"
                self.is_trusted = self.is_trusted or bool(self.trust.key)
                return True
            return False
        if wanted:
            self.found(where, f"is not signed by {keys.trusted[0].name}+{keys.trusted[0].id.hex()} (C2SP signed-note)")
        return False

    def _seen_by_witness(self, note: Note) -> int | None:
        return cosigned_at(note, parse_key(self.trust.witness)) if self.trust.witness else None

    def _statement(self, folder: Path, head: Checkpoint, keys: Keys | None) -> None:
        before, data = len(self.findings), self.read(folder / "statement.json")
        self.statement = _parse(data)
        if _canonical(self.statement) + b"\n" != data:
            self.found("provenance/statement.json", "is not canonical JSON (RFC 8785)")
        self._log_named(self.statement, head)
        sealed = folder / "statement.dsse.json"
        if keys is None:
            if sealed.exists():
                self.found("provenance/statement.dsse.json", "is signed, but signer.vkey does not say by whom")
            return
        envelope = _parse(written := self.read(sealed))
        self._envelope(envelope, data[:-1], keys)
        if json.dumps(envelope, indent=1, ensure_ascii=False).encode() + b"\n" != written:
            self.found("provenance/statement.dsse.json", "is not laid out as it is written")
        self.passed("DSSE v1", f"the statement over the weights is signed by {self.signed_by}", before)

    def _log_named(self, statement: dict[str, Any], head: Checkpoint) -> None:
        log, stated = statement["predicate"]["log"], (statement["_type"], statement["predicateType"])
        if stated != ("https://in-toto.io/Statement/v1", "urn:tutelage:distillation:v1"):
            self.found("provenance/statement.json", f"is of type {stated}, which this verifier does not know")
        if (log["origin"], log["size"], log["root"]) != (head.origin, head.size, "sha256:" + head.root.hex()):
            self.found("provenance/statement.json", f"is about another log than provenance/checkpoint: {log}")

    def _envelope(self, envelope: dict[str, Any], payload: bytes, keys: Keys) -> None:
        where = "provenance/statement.dsse.json"
        if envelope["payloadType"] != PAYLOAD_TYPE or _base64(envelope["payload"]) != payload:
            self.found(where, "does not hold the statement as provenance/statement.json has it")
            return
        message = pre_authentication_encoding(payload)
        signatures = [_base64(one["sig"]) for one in envelope["signatures"][:8]]
        for key in keys.trusted:
            if key.kind == 1 and any(ed25519_verify(key.public, message, signature) for signature in signatures):
                if key.id in keys.revoked and not self.was_seen:  # a witness saw the log that names what is stated
                    self.found(where, f"is signed with a key that was revoked, {keys.revoked[key.id][1]}")
                    return
                expected = f"{key.name}+{key.id.hex()}"
                named = [one["keyid"] for one in envelope["signatures"]]
                if named != [expected] or set(envelope) != {"payload", "payloadType", "signatures"}:
                    self.found(where, f"has other fields than a signature of {expected}")
                self.signed_by = self.signed_by or expected
                return
        self.found(where, f"is not signed by {keys.trusted[0].name}+{keys.trusted[0].id.hex()} (DSSE v1)")

    def _before_training(self, folder: Path, leaves: list[bytes], keys: Keys | None) -> None:
        """The checkpoint kept from before training is a beginning of this log, and its last entry commits the selection."""
        before, log = len(self.findings), self.statement["predicate"]["log"]
        stated = self.statement["predicate"]["before_training"]
        for path in _files(folder / "checkpoints"):
            where = f"provenance/{path.relative_to(folder).as_posix()}"
            note = parse_note(self.read(path, 1 << 20).decode())
            kept = parse_checkpoint(note.text)
            if (
                where != f"provenance/checkpoints/{kept.size}"
                or not 0 < kept.size <= len(leaves)
                or kept.origin != log["origin"]
            ):
                self.found(where, f"is of {kept.size} entries of {kept.origin}; {log['origin']} has {len(leaves)}")
            elif root_of(leaves[: kept.size]) != kept.root:
                self.found(where, "is no beginning of this log (RFC 6962 section 2.1.2)")
            signed = self._signature(where, note, keys, wanted=False)
            if kept.size == stated["size"]:
                self.committed = self._anchor(note, signed)
        if not self.committed:
            self.found(f"provenance/checkpoints/{stated['size']}", "is missing: the checkpoint from before training")
        entry = _parse(line := self._entry(folder / "before-training.json"))
        if stated["size"] > len(leaves) or leaf(line) != leaves[stated["size"] - 1]:
            self.found("provenance/before-training.json", f"is not entry {stated['size']} of the log")
        self._commits(entry, "provenance/before-training.json")
        if "sha256:" + root_of(leaves[: stated["size"]]).hex() != stated["root"]:
            self.found("provenance/statement.json", "names another root for the log before training")
        what = f"entry {stated['size']} commits to the {entry['facts']['examples']:,} examples selected before training"
        self.passed("RFC 6962 section 2.1.1", what, before)

    def _anchor(self, note: Note, signed: bool) -> str:
        if self.trust.witness:
            time = self._seen_by_witness(note)
            if time is None:
                self.found("provenance/checkpoints", "the witness you name did not cosign the one from before training")
            else:
                sealed = self.statement["predicate"]["sealed_at"]
                if time >= _posix(sealed):
                    return f"L1 not established: the witness saw the selection at {_utc(time)} only, when it was sealed"
                words = "that training came after is the signer's word, who says that it was sealed at"
                return f"L1: a witness you trust saw the selection committed at {_utc(time)}; {words} {_plain(sealed)}"
        return (
            "L1 claimed by the signer"
            if signed
            else "L1 not claimed: the checkpoint before training is not signed by such a key"
        )

    def _commits(self, entry: dict[str, Any], where: str) -> None:
        if entry["kind"] != "committed" or entry["facts"] != self.statement["predicate"]["selection"]:
            self.found(where, "commits to another selection than the statement names")

    def _sources(self, folder: Path) -> None:
        before, stated = len(self.findings), self.statement["predicate"]["sources"]
        value = _parse(data := self.read(folder / "sources.json"))
        if _canonical(value) + b"\n" != data:
            self.found("provenance/sources.json", "is not canonical JSON (RFC 8785)")
        self.table = table = read_table(value["rows"], stated)
        if (value["root"], value["loss_tokens"]) != (stated["root"], stated["loss_tokens"]):
            self.found("provenance/sources.json", "names another root or total than the statement")
        targets = [row for row in table.rows.values() if row["role"] in TARGETS]
        for source in dict.fromkeys(map(named, targets)):
            self.shares.append(shares(table, [row for row in targets if named(row) == source], source))
        self.passed("RFC 6962 section 2.1", f"the source table of {len(table.rows)} rows is whole", before)

    def _documents(self, folder: Path) -> None:
        before, stated = len(self.findings), self.statement["predicate"]["documents"]
        for name, digest in stated.items():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                self.found("provenance/statement.json", f"names a document {name!r} outside its folder")
            elif not (folder / name).exists():
                self.found(f"provenance/{name}", "is missing")
            elif _digest_file(folder / name) != digest:
                self.found(f"provenance/{name}", "is not the document the statement names")
        for path in folder.iterdir():
            if path.name not in stated and path.name not in PUBLIC:
                self.found(f"provenance/{path.name}", "is not in the record")
        self.passed("in-toto Statement v1", f"{len(stated)} documents are those the statement names", before)

    def _subject(self, folder: Path) -> None:
        student = folder.parent / "student"
        stated = {one["name"]: "sha256:" + one["digest"]["sha256"] for one in self.statement["subject"]}
        if len(stated) != len(self.statement["subject"]):
            self.found("provenance/statement.json", "is about two files of one name")
        if not student.is_dir():
            self.checks.append(f"not checked: the student's files, which are not here: {self._stated_weights()}")
            return
        before = len(self.findings)
        files = {path.relative_to(student).as_posix(): path for path in _files(student)}
        for name in sorted(stated.keys() | files.keys()):
            if name not in files:
                self.found(f"student/{name}", "is missing")
            elif name not in stated or _digest_file(files[name]) != stated[name]:
                self.found(f"student/{name}", "is not a file the statement is about")
        self.passed("in-toto Statement v1", f"the student's {len(stated)} files are those it is about", before)

    # The private part: files, stages, store, commitments, examples

    @property
    def only_asks(self) -> bool:
        """Whether answers alone were made, to open questions, of compared teachers or to prove: there is no student to state
        anything of."""
        claims = [entry for entry in self.entries if entry["kind"] == "opened" and "claim" in entry["facts"]]
        stages = {entry["stage"] for entry in self.entries}
        return bool({"questions", "items"} & stages) and not claims and stages <= ASKING

    @property
    def is_training(self) -> bool:
        """Whether a student was trained on conversations: no claim was opened and no answer collected, so nothing is stated."""
        claims = [entry for entry in self.entries if entry["kind"] == "opened" and "claim" in entry["facts"]]
        return not claims and {"data", "train"} <= {entry["stage"] for entry in self.entries} <= TRAINING

    def training(self) -> None:
        """The checkpoint and the table of sources say what the steps took; what was made rests on what was made last."""
        before, latest, tokens = len(self.findings), self.latest, dict[str, int]()
        for stage, name in map(str.split, TRAINED_FROM):
            if stage in BEFOREHAND and stage not in latest["train"]["inputs"]:
                continue  # of an earlier method: nothing rests on them
            rests = latest[stage]["inputs"].get(name) if stage in latest else None
            if rests is not None and rests != _digest(_canonical(latest[name]["outputs"])):
                self.found(stage, f"rests on another {name} than the one made last; run it again")
        said, taken = _parse(self.read(self.run / "train" / "sources.json"))["rows"], self._taken()
        for row in taken:
            if row["role"] not in (BASE_LINEAGE, PROMPT_AUTHOR):
                tokens[row["role"]] = tokens.get(row["role"], 0) + row["loss_tokens"]
                self.shares.append(f"{row['loss_tokens']:,} loss tokens as {row['role']}, from {named(row)}")
        made, trained = latest["train"]["outputs"], _parse(self.read(self.run / "train" / "checkpoint.json"))
        recorded = (made["train/weights.safetensors"], made["train/consumed.jsonl"], tokens)
        if recorded != (trained["weights"], trained["consumed"], trained["loss_tokens"]):
            self.found("train/checkpoint.json", "is not of these weights and steps")
        if said != taken:
            at = _first_difference(said, taken)
            what = f"says {said[at:][:1]!s:.400}, the steps taken say {taken[at:][:1]!s:.400}"
            self.found("train/sources.json", what)
        self.passed("reconciled", "the loss tokens of each source come from the steps taken", before)

    def _taken(self) -> list[dict[str, Any]]:
        """The table of sources as the steps, the conversations and their authors make it, and the weights that are stated."""
        latest, stated = self.latest, self.latest["sources"]["config"]
        teachers = stated.get("teachers") or {None: stated["teacher"]}
        told = {
            f"{name}.teacher" if name else "teacher": one["weights"]
            for name, one in teachers.items()
            if one.get("weights")
        }
        used = {key: digest for key, digest in latest["train"]["inputs"].items() if key.endswith("teacher")}
        if (stated["base"]["weights"], told) != (latest["student"]["inputs"]["base"], used):
            self.found("sources", "names other weights than the student was made from and taught by")
        authors = _parse(self.read(self.run / "data" / "authors.json"))["authors"]
        rows = (row for row in self._records("data/conversations.jsonl") if row["kind"] == "train")
        whose = {row["id"]: (_number(row["author"]), _number(row["asked_by"]), row.get("teacher")) for row in rows}
        found: dict[tuple[str, ...], list[Any]] = {}
        for step in self._records("train/consumed.jsonl"):
            for name, by_role in zip(step["examples"], step["loss_tokens"], strict=True):
                if name not in whose:
                    raise Bad(f"step {step['step']} took {name!r:.80}, not among the conversations to train on")
                for role, count in (*by_role.items(), (PROMPT_AUTHOR, 0)):
                    author = authors[whose[name][role == PROMPT_AUTHOR]]
                    author = {TARGETS[0]: teachers[whose[name][2]] or author, OWN_TEXT: stated["base"]}.get(
                        role, author
                    )
                    row = found.setdefault(_key_of(author | {"role": role}), [set(), 0])
                    row[0].add(name)
                    row[1] += _number(count)
        table = [(*key, len(names), count) for key, (names, count) in sorted(found.items())]
        table.append((*_key_of(stated["base"] | {"role": BASE_LINEAGE}), 0, 0))
        return [dict(zip((*ROW_KEY, "examples", "loss_tokens"), row, strict=True)) for row in table]

    def outputs(self) -> None:
        """Every file named by the latest statement that wrote it, and nothing beside them."""
        before, latest, newest = len(self.findings), {}, {}
        for entry in self.entries:
            if entry["kind"] == "statement":
                latest.update(entry["outputs"])
                newest[entry["stage"]] = entry["outputs"]
        # A stage done again may make fewer files: what only an older statement names is checked if it is still there.
        wanted = {name for outputs in newest.values() for name in outputs}
        wanted |= {name for name in latest if name.startswith("terms/")}
        for name, digest in sorted(latest.items()):
            path = self.run / name
            if name not in wanted and not path.exists():
                continue
            if _leads_out(name):
                self.found(name, "is not a path inside the run")
            elif not path.exists():
                self.found(name, "is missing")
            elif any(part.is_symlink() for part in (path, *path.parents[: len(Path(name).parts) - 1])):
                self.found(name, "is a link: a record holds files")
            elif _digest_file(path) != digest:
                self.found(name, f"has another digest than recorded ({digest[:23]}...)")
        self.counts["files"] = len(latest)
        for folder in STAGE_FOLDERS:
            for path in _files(self.run / folder):
                if (name := path.relative_to(self.run).as_posix()) not in latest:
                    self.found(name, "is not in the record")
        self.passed("FIPS 180-4", f"{len(latest)} files have the digests their stages recorded", before)

    def stages(self) -> None:
        """Each stage's latest inputs are the latest outputs of the stages they came from; the statement says what they say."""
        before, latest = len(self.findings), self.latest
        for (stage, name), maker in MADE_BY.items():
            if stage in latest and maker in latest:
                made = _digest(_canonical(latest[maker]["outputs"]))
                left_out = (stage, name) in OPTIONAL and name not in latest[stage]["inputs"]
                if not left_out and latest[stage]["inputs"][name] != made:
                    self.found(stage, f"rests on another {name} than the one made last; run it again")
        if self.is_training and {"sources", "ship"} & latest.keys():
            self.training()
        if "ship" not in latest and not self.only_asks:
            self.found("ledger/log.jsonl", "no student was shipped in this run yet")
        if "ship" not in latest or not self.statement:
            return
        predicate, facts = self.statement["predicate"], {stage: entry["facts"] for stage, entry in latest.items()}
        trained, made = _parse(self.read(self.run / "train" / "checkpoint.json")), latest["train"]["outputs"]
        claimed = [(what, recorded, predicate[what]) for what, recorded in self._recorded(trained).items()] + [
            ("selection", {"root": facts["curate"]["commitment"], "examples": facts["curate"]["kept"]}, predicate["selection"]),
            ("sources", (facts["account"]["root"], facts["account"]["loss_tokens"]),
             (predicate["sources"]["root"], predicate["sources"]["loss_tokens"])),
            ("weights", facts["ship"]["weights"], self._stated_weights()),
            ("its checkpoint", _digest(_canonical(trained)), predicate["run"]["checkpoint"]),
            ("loss tokens", sum(trained["loss_tokens"].values()), predicate["sources"]["loss_tokens"]),
            ("what was trained", (made["train/weights.safetensors"], made["train/consumed.jsonl"]),
             (trained["weights"], trained["consumed"])),
        ]  # fmt: skip
        for what, recorded, stated in claimed:
            if recorded != stated:
                self.found("provenance/statement.json", f"says of {what} {stated}, the log says {recorded}")
        begun = [(entry["kind"], entry["stage"]) == ("intent", "train") for entry in self.entries]
        if predicate["before_training"]["size"] > max(at for at, is_train in enumerate(begun) if is_train):
            self.found("provenance/statement.json", "the selection was committed after training began")
        self.passed("in-toto Statement v1", "the statement says what the log says", before)

    def _recorded(self, trained: dict[str, Any]) -> dict[str, Any]:
        """What the statement has to say, out of the log, the verdicts and the source table."""
        train, opened = (
            self.latest["train"],
            [entry["facts"] for entry in self.entries if entry["kind"] == "opened"][-1],
        )
        terms = _parse(self.read(self.run / "provenance" / "terms.json"))
        verdicts = [terms["teacher"], terms["data"], terms["base"], *terms["inherited"]]
        kept = _parse(self.read(self.run / next(iter(self.latest["terms"]["outputs"]))))
        if [_undated(one) for one in verdicts] != [
            _undated(one) for one in (kept["teacher"], kept["data"], kept["base"], *kept["inherited"])
        ]:
            self.found("provenance/terms.json", "has other verdicts than those under which it ran last (terms/)")
        lists = {
            name: list({_canonical(one): one for verdict in verdicts for one in verdict[name]}.values())
            for name in ("conditions", "accepted_risks")
        }
        fields = ("subject", "licence", "route", "purpose", "status", "date")
        return lists | {
            "schema_version": 1,
            "name": opened["name"],
            "purpose": verdicts[0]["purpose"],
            "terms": [{name: verdict[name] for name in fields} for verdict in verdicts],
            "upstream": sorted({row["upstream"] for row in self.table.rows.values()} if self.table else ()),
            "run": {name: train[name] for name in ("code", "environment", "hardware")}
            | {name: train["facts"][name] for name in ("steps", "chosen_step", "checkpoint", "numerics")}
            | {"seed": opened["seed"], "order": trained["consumed"], "chain": trained["chain"]},
        }

    def _stated_weights(self) -> str:
        found = [one["digest"]["sha256"] for one in self.statement["subject"] if one["name"] == "model.safetensors"]
        return f"sha256:{found[0]}" if found else ""

    def store(self) -> None:
        """Every line of every segment re-hashed; every answer has its question and its raw body."""
        before, bodies, requests, needs = len(self.findings), set(), set(), []
        for path in sorted((self.run / "store").glob("*.seg")):
            self.reading = f"store/{path.name}"
            for offset, line in _lines(path):
                where = f"{self.reading} byte {offset}"
                try:
                    digest, kind, text = line.decode("utf-8").split(" ", 2)
                    value = _parse(text.encode())
                except (ValueError, RecursionError) as error:
                    self.found(where, f"is no record: {error}")
                    continue
                if kind not in KINDS or not isinstance(value, dict) or KINDS[kind] not in value:
                    self.found(where, f"is no record of kind {kind!r}")
                elif _digest(text.encode()) != digest:
                    self.found(where, f"{kind}: the digest differs")
                elif kind == "body":
                    is_known = value["encoding"] in ("utf-8", "latin-1")
                    if not is_known or _digest(value["text"].encode(value["encoding"])) != value["digest"]:
                        self.found(where, "body: the raw bytes have another digest")
                    bodies.add(value["digest"])
                elif kind in ("request", "exchange"):
                    start = offset + len(digest) + len(kind) + 2
                    self.places[digest] = (path, start, len(line) - start + offset)
                    if kind == "request":
                        requests.add(digest)
                    else:
                        needs.append((where, value["request_digest"], value["raw_body_digest"]))
        for where, request, body in needs:
            if request not in requests:
                self.found(where, f"its question {request[:23]}... is not in the store")
            if body not in bodies:
                self.found(where, f"its raw body {body[:23]}... is not in the store")
        self.counts["exchanges"] = len(needs)
        for name, (size, digest) in self.latest["seal"]["facts"]["store"].items() if "seal" in self.latest else ():
            path = self.run / "store" / name
            is_there = "/" not in name and not _leads_out(name) and path.exists() and path.stat().st_size >= size
            if not is_there or _digest_file(path, size) != digest:
                self.found(f"store/{name}", f"its first {size} bytes are not those that were sealed")
        self.passed("FIPS 180-4", f"{len(needs)} answers have their question and raw body", before)

    def _stored(self, digest: str) -> bytes:
        """The canonical bytes of a stored request or exchange. Raises `Bad` when it is not in the store."""
        if digest not in self.places:
            raise Bad(f"{digest} is not in the store")
        path, start, size = self.places[digest]
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def commitments(self) -> None:
        """The roots over collected, selected and proving answers, against the log."""
        before, key = len(self.findings), self._run_key()
        for stage in [stage for stage in ("collect", "curate", "prove") if stage in self.latest]:
            rows = self.selected if stage == "curate" else self._records(f"{stage}/exchanges.jsonl")
            digests = [row["exchange"] for row in rows]
            if missing := [digest for digest in digests if digest not in self.places]:
                self.found(stage, f"{len(missing)} committed answers are not in the store, first {missing[0]}")
                continue
            if stage == "curate":
                leaves = [leaf(_blind(key, "exchange", at, digest.encode())) for at, digest in enumerate(digests)]
            else:
                leaves = [leaf(salt_of(key, stage, at) + self._stored(digest)) for at, digest in enumerate(digests)]
            if "sha256:" + root_of(leaves).hex() != self.latest[stage]["facts"]["commitment"]:
                self.found(stage, "the committed answers are not those in the store (or store/run.key changed)")
            self.counts[f"committed by {stage}"] = len(digests)
        what = "answers collected, selected and proved with are committed"
        self.passed("RFC 6962 section 2.1, salted leaves", what, before)

    def _run_key(self) -> bytes:
        return _hash32(self._entry(self.run / "store" / "run.key").decode(), "")

    def examples(self) -> None:
        """Each example's record is what the store says of it; records and loss tokens make the roots in the source table."""
        if self.table is None:
            return
        before, key, made = len(self.findings), self._run_key(), 0
        decision = _parse(self.read(self.run / "config.json"), floats=True)["task"]["decision"]
        transforms = ["decision-offsets/1"] if decision == "balanced" else []
        for number, row in self.table.rows.items():
            if not row["examples"]:
                continue
            name, leaves, values = f"ledger/examples/{number}.jsonl", [], []
            self.reading, last = name, -1
            for at, (_, line) in enumerate(_lines(self.run / name), 1):
                record = _parse(line)
                position = _number(record["position"])
                if position <= last:
                    raise Bad(f"line {at}: example {position} stands behind {last}, or is there twice")
                last, wanted = position, self._expected(key, position, row["role"], transforms)
                if source_of(wanted) != _key_of(row):
                    raise Bad(f"line {at}: example {position} came from {source_of(wanted)}, not from its row's source")
                if _canonical(wanted) != line:
                    differing = sorted(field for field in {*wanted, *record} if wanted.get(field) != record.get(field))
                    self.found(f"{name} line {at}", f"is not what the store says of example {position}: {differing}")
                leaves.append(leaf(salt_of(key, "leaf/" + row["role"], position) + line))
                values.append(_number(record["tokens"]["loss"]))
            sums = root_of([sum_leaf(hashed, value) for hashed, value in zip(leaves, values, strict=True)], sum_node)
            if root_of(leaves) != _hash32(row["leaves"]) or len(leaves) != row["examples"]:
                self.found(name, f"is not the {row['examples']} records of row {number}")
            if sums[:32] != _hash32(row["sums"]) or int.from_bytes(sums[32:], "big") != row["loss_tokens"]:
                self.found(name, f"its loss tokens are not those of row {number}")
            made += len(leaves)
        self.counts["example records"] = made
        what = f"{made:,} example records make the source table"
        self.passed("RFC 6962 section 2.1 and the Merkle-sum tree", what, before)

    def _expected(self, key: bytes, position: int, role: str, transforms: list[str]) -> dict[str, Any]:
        """The record of an example in a role, as the store and the steps taken give it."""
        row, counts = self.selected[position], self.consumed[position]
        tokens = next(((loss, passes) for name, loss, passes in counts if name == role), (0, 0))
        if role == PROMPT_AUTHOR:
            tokens = (0, max(passes for _, _, passes in counts))
        exchange, prompt = _parse(self._stored(row["exchange"])), self.prompts[row["prompt"]]
        request = _parse(self._stored(exchange["request_digest"]))
        model, logprobs = exchange["model"], exchange["logprobs"]
        wanted = {
            "position": position,
            "exchange": _blind(key, "exchange", position, row["exchange"].encode()).hex(),
            "prompt": _blind(key, "prompt", position, _canonical(request["messages"])).hex(),
            "prompt_source": {"source": prompt["source"], "digest": prompt["source_digest"], "licence": prompt["licence"]},
            "origin": exchange["origin"],
            "parents": [],
            "terms": exchange["terms_digest"],
            "twin": exchange["twin"],
            "role": role,
            "tokens": {"loss": tokens[0], "passes": tokens[1], "weight": 1},
        }  # fmt: skip
        if role != PROMPT_AUTHOR:
            wanted |= {
                "teacher": {name: value for name, value in model.items() if name != "licence"},
                "licence": model["licence"],
                "generation": {name: request[name] for name in ("params", "draw", "purpose")},
                "asked_at": exchange["asked_at"],
                "request_id_hash": exchange["request_id_hash"],
                "answer": _blind(key, "answer", position, exchange["answer"].encode()).hex(),
                "logprobs": _blind(key, "logprobs", position, _canonical(logprobs)).hex() if logprobs else "",
                "transforms": transforms,
                "prompt_tokens": exchange["usage"]["prompt_tokens"],
            }
        return wanted

    def sources(self) -> None:
        """What was stepped on is in the committed selection; its sums are those of the source table."""
        if self.table is None:
            return
        before, made = len(self.findings), {}
        for position, counts in self.consumed.items():
            row = self.selected[position]
            model, prompt = _parse(self._stored(row["exchange"]))["model"], self.prompts[row["prompt"]]
            taken = tuple(model[name] for name in MODEL_KEY)
            origin = (prompt["source"], prompt["source_digest"], "", "file", prompt["licence"])
            for role, loss, _ in (*counts, (PROMPT_AUTHOR, 0, 0)):
                if loss or role == PROMPT_AUTHOR:
                    key = (*(taken if role in TARGETS else origin), role)
                    tokens, examples = made.get(key, (0, 0))
                    made[key] = (tokens + loss, examples + 1)
        rows = self.table.rows.values()
        stated = {_key_of(row): (row["loss_tokens"], row["examples"]) for row in rows if row["role"] != BASE_LINEAGE}
        if stated != made:
            self.found("provenance/sources.json", f"says {stated}, the steps taken say {made}")
        bases = [row for row in rows if row["role"] == BASE_LINEAGE]
        terms = [(one["subject"], one["licence"]) for one in self.statement["predicate"]["terms"]]
        is_known = all((row["teacher"], row["licence"]) in terms for row in bases)
        if not is_known or [row["weights"] for row in bases] != [self.latest["student"]["inputs"]["base"]]:
            self.found("provenance/sources.json", f"names other bases, {bases}, than the student was cut from")
        what = "the sums come from the steps taken, and those from the selection committed before"
        self.passed("reconciled", what, before)

    @functools.cached_property
    def latest(self) -> dict[str, dict[str, Any]]:
        """The latest statement of each stage."""
        return {entry["stage"]: entry for entry in self.entries if entry["kind"] == "statement"}

    @functools.cached_property
    def selected(self) -> list[dict[str, Any]]:
        """The committed selection, in order."""
        return _parse(self.read(self.run / "curate" / "selection.json", 1 << 34))["train"]

    @functools.cached_property
    def prompts(self) -> dict[str, dict[str, Any]]:
        """The prompts, by id."""
        return {row["prompt_id"]: row for row in self._records("data/prompts.jsonl")}

    @functools.cached_property
    def consumed(self) -> dict[int, tuple[tuple[str, int, int], ...]]:
        """From the steps that were taken: role, loss tokens and times of each example, by its place in the selection."""
        places = {row["exchange"]: at for at, row in enumerate(self.selected)}
        found: dict[int, tuple[tuple[str, int, int], ...]] = {}
        same: dict[tuple[tuple[str, int, int], ...], tuple[tuple[str, int, int], ...]] = {}  # most counts are alike
        for step in self._records("train/consumed.jsonl"):
            for exchange, by_role in zip(step["exchanges"], step["loss_tokens"], strict=True):
                if exchange not in places:
                    self.found(f"train/consumed.jsonl step {step['step']}", f"{exchange} is not in the selection")
                    continue
                so_far = {role: (loss, passes) for role, loss, passes in found.get(places[exchange], ())}
                for role, count in by_role.items():
                    loss, passes = so_far.get(role, (0, 0))
                    so_far[role] = (loss + _number(count), passes + 1)
                counts = tuple((role, *pair) for role, pair in so_far.items())
                found[places[exchange]] = same.setdefault(counts, counts)
        return found

    # Where it differs

    def locator(self) -> None:
        """Its last line is the digest of those before; what it holds is used by `locate` alone."""
        path = self.run / "ledger" / "locator.jsonl"
        if not path.exists():
            if self.statement:
                self.found("ledger/locator.jsonl", "is missing")
            return
        data = self.read(path)
        body, _, last = data.removesuffix(b"\n").rpartition(b"\n")
        lines = body.split(b"\n")
        if last != _canonical({"digest": _digest(body + b"\n")}) or not data.endswith(b"\n"):
            self.found(f"ledger/locator.jsonl byte {self._damaged(lines, last)}", "the locator itself is damaged")
            return
        self.located = {entry["file"]: entry for entry in map(_parse, lines)}
        for name, entry in self.located.items():
            at = self._place(name)
            known = any(finding.where.startswith(name) for finding in self.findings)
            grows = name.endswith(".seg") or name.startswith("provenance/checkpoint")  # there by a witness's line
            if at and not known and not (grows and at[0] == f"byte {entry['bytes']}"):
                self.found(name, "is not as it was when the record was sealed")

    def _damaged(self, lines: list[bytes], last: bytes) -> int:
        """The first byte of the locator that is not what the files say: they are all as recorded, or it does not matter."""
        names = sorted(path.relative_to(self.run).as_posix() for path in _files(self.run))
        offset = 0
        for line, name in zip(lines, (name for name in names if not name.startswith(NOT_LOCATED)), strict=False):
            wanted = _canonical(_located(self.run, name))
            if wanted != line:
                return offset + _first_difference(wanted, line)
            offset += len(line) + 1
        return offset + _first_difference(_canonical({"digest": _digest(b"\n".join(lines) + b"\n")}), last)

    def locate(self) -> None:
        """Adds to each finding about a located file the byte where it differs."""
        for at, finding in enumerate(self.findings):
            named = [name for name in self.located if finding.where == name or finding.where.startswith(f"{name} ")]
            name = max(named, key=len, default="")
            place = self._place(name) if name else None
            if place and " byte" not in finding.where.replace(name, ""):
                self.findings[at] = Finding(f"{finding.where} {place[0]}", f"{finding.what}; {place[1]}")
            elif place and finding.where.startswith("store/"):
                self.findings[at] = Finding(f"{name} {place[0]}", f"{finding.what}; {place[1]}")

    def _place(self, name: str) -> tuple[str, str] | None:
        """Where a file differs from what the locator knows of it, and how; None when it does not."""
        entry, path, start = self.located[name], self.run / name, 0
        if _leads_out(name) or entry["block"] not in (4096, 1 << 20):
            raise Bad(f"the locator's line of {name} is none that is ever written")
        if not path.exists() or not stat.S_ISREG(path.lstat().st_mode):
            return None
        with path.open("rb") as file:
            for known, total, weighted in entry["blocks"]:
                data = file.read(entry["block"] if start + entry["block"] <= entry["bytes"] else entry["bytes"] - start)
                if hashlib.sha256(data).hexdigest()[:16] != known:
                    return _place_in_block(data, start, known, total, weighted)
                start += len(data)
            if file.read(1):
                return f"byte {entry['bytes']}", "something was added after the end that is recorded"
        return None

    # What it amounts to

    def tier(self) -> tuple[str, ...]:
        """Which tier the record establishes, for whoever brought which trust."""
        if not self.statement:
            return ()
        pinned = (
            ("what is stated is in the log whose root you trust, whoever signed it (but not the documents beside it)",)
            if self.is_pinned
            else ()
        )
        if not self.signed_by:
            unsigned = "no tier: not signed, so it agrees with itself and names nobody (make a key: tutelage key new)"
            return (unsigned, *pinned)
        who = f"signed by {self.signed_by}"
        first = f"L0 signed claim: {who}" if self.is_trusted else f"L0 {who}, a key you did not name (--key)"
        return (first, self.committed, *pinned)

    # Disclosures: what is shown of a record without its data

    def disclosure(self) -> None:
        """One JSON file that opens part of a record: a table, an example, leaves drawn at random, or two checkpoints."""
        data = self.read(self.path, 64 << 20)
        if data[:2] in (b"PK", b"\x1f\x8b", b"BZ") or data[:4] in (b"\x28\xb5\x2f\xfd", b"\xfd7zX"):
            raise Bad("is an archive or compressed: a disclosure is plain JSON, and nothing is unpacked here")
        value = _parse(data)
        if value["kind"] != "tutelage-disclosure" or value["schema_version"] != 1:
            raise Bad(f"is no disclosure of a version this verifier knows: {value['kind']!r:.80}")
        self._disclosed_statement(value)
        opened = {
            "share": self._share, "absence": self._absence, "example": self._example, "audit": self._audit,
            "consistency": self._consistency,
        }  # fmt: skip
        opened[value["about"]](value)

    def _disclosed_statement(self, value: dict[str, Any]) -> None:
        """The statement that all else hangs on, the checkpoint it names, and who signed both."""
        before, where = len(self.findings), self.path.name
        payload = _base64(value["envelope"]["payload"])
        self.statement = _parse(payload)
        head = parse_checkpoint((note := parse_note(value["checkpoint"])).text)
        self.root = "sha256:" + head.root.hex()
        self._log_named(self.statement, head)
        line, path = value["sealed"].encode(), [_base64(one) for one in value["sealed_proof"]]
        self._sealed(where, line)
        if root_from_inclusion(leaf(line), _number(value["sealed_index"]), head.size, path) != head.root:
            self.found(where, "shows an entry about sealing that is not in the log (RFC 9162 section 2.1.3.2)")
        roots = [self.root]
        if value["about"] == "consistency":  # shown to begin with it
            roots.append("sha256:" + parse_checkpoint(parse_note(value["old"]).text).root.hex())
        if self.trust.root and self.trust.root not in roots:
            self.found(where, f"is about the log root {self.root}, not {self.trust.root} that you trust")
        self.is_pinned = self.trust.root == self.root
        keys = self._keys(value.get("signer", ""), value.get("history", ""))
        if keys is not None:
            self._signature(where, note, keys)
            self._envelope(value["envelope"], payload, keys)
        kept = parse_note(value["before_training"])
        first, named_there = parse_checkpoint(kept.text), self.statement["predicate"]["before_training"]
        if (first.size, "sha256:" + first.root.hex()) != (named_there["size"], named_there["root"]):
            self.found(where, "holds another checkpoint from before training than the statement names")
        proof, path = ([_base64(one) for one in value[name]] for name in ("consistency_proof", "committed_proof"))
        if not consistent(first.size, head.size, first.root, head.root, proof):
            self.found(where, "shows a log before training that is no beginning of it (RFC 9162 section 2.1.4.2)")
        entry = value["committed"].encode()
        if root_from_inclusion(leaf(entry), first.size - 1, first.size, path) != first.root:
            self.found(where, "shows another entry than the last before training (RFC 9162 section 2.1.3.2)")
        self._commits(_parse(entry), where)
        self.committed = self._anchor(kept, self._signature(where, kept, keys, wanted=False))
        what = f"the statement is about {self._stated_weights()}"
        self.passed("DSSE v1, in-toto Statement v1, C2SP signed-note", what, before)

    def _asked(self, value: dict[str, Any]) -> dict[str, str]:
        """What a disclosure is about, as names that the source table could hold."""
        asked = value["question"]
        is_text = all(isinstance(text, str) for text in asked.values())
        if not is_text or not {"teacher"} <= asked.keys() <= {"teacher", "licence"}:
            raise Bad(f"asks {asked!r:.80}, not about a teacher, or a teacher and a licence")
        return asked

    def _share(self, value: dict[str, Any]) -> None:
        asked, table = self._asked(value), read_table(value["table"], self.statement["predicate"]["sources"])
        targets = [row for row in table.rows.values() if row["role"] in TARGETS]
        mine = [row for row in targets if all(row[name] == text for name, text in asked.items())]
        # In quotes, and ASCII: a name that looks like another's, or like a sentence, is seen for what it is.
        what = " under ".join(ascii(asked[name]) for name in ("teacher", "licence") if name in asked)
        self.shares.append(shares(table, mine, what))
        self.checks.append("RFC 6962 section 2.1: the rows are those of the signed source table")

    def _absence(self, value: dict[str, Any]) -> None:
        teacher = self._asked(value)["teacher"]
        table = read_table(value["table"], self.statement["predicate"]["sources"])
        if table.blinded or "licence" in value["question"]:
            raise Bad("that no example came from somebody is shown by the whole table alone, whatever the licence")
        if rows := [row["role"] for row in table.rows.values() if folded(row["teacher"]) == folded(teacher)]:
            self.found(self.path.name, f"{teacher} has rows in the source table: {rows}")
        others = ", ".join(sorted({ascii(row["teacher"]) for row in table.rows.values()}))
        self.shares.append(f"no example of the record came from {teacher!a}: the whole source table has {others}")
        self.shares.append("it may still be upstream of those: unknown-upstream, never zero")

    def _opened(self, value: dict[str, Any], row: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """A record with its leaf hash, shown to be in its row's tree and its answer in the selection committed before."""
        record, selection = value["record"], self.statement["predicate"]["selection"]
        hashed = leaf(_hash32(value["salt"], "") + _canonical(record))
        proof, path = ([_base64(one) for one in value[name]] for name in ("proof", "selection_proof"))
        if root_from_inclusion(hashed, _number(value["index"]), row["examples"], proof) != _hash32(row["leaves"]):
            raise Bad(f"the record is not leaf {value['index']} of its row (RFC 9162 section 2.1.3.2)")
        if source_of(record) != _key_of(row):
            raise Bad(f"the record came from {source_of(record)}, not from the source its row names")
        chosen, at = leaf(_hash32(record["exchange"], "")), _number(record["position"])
        if root_from_inclusion(chosen, at, _number(selection["examples"]), path) != _hash32(selection["root"]):
            raise Bad(f"the record's answer is not number {at} of the selection committed before training")
        for name, opening in value.get("open", {}).items():
            if hashlib.sha256(_hash32(opening["salt"], "") + opening["value"].encode()).hexdigest() != record[name]:
                raise Bad(f"the {name} shown is not the one the record commits to")
            self.shares.append(f"{name}: {opening['value']}")
        return record, hashed

    def _example(self, value: dict[str, Any]) -> None:
        table = read_table(value["table"], self.statement["predicate"]["sources"])
        row = table.rows[_number(value["row"])]
        record, _ = self._opened(value, row)
        tokens = _number(record["tokens"]["loss"])
        self.checks.append("RFC 9162 section 2.1.3.2: the record is in its source's tree and in the selection")
        self.shares.insert(0, f"this example was used as {row['role']}: {tokens:,} loss tokens, from {named(row)}")

    def _audit(self, value: dict[str, Any]) -> None:
        """Leaves drawn by loss tokens: a challenge the prover could not choose if nobody knew the beacon before the root."""
        stated = self.statement["predicate"]["sources"]
        table, draws, beacon = read_table(value["table"], stated), _number(value["draws"]), value["beacon"]
        if table.blinded or not 0 < draws <= MAX_DRAWS or not isinstance(beacon, str) or not beacon.strip():
            raise Bad(f"an audit needs the whole source table, a beacon, and 1 to {MAX_DRAWS:,} draws")
        starts, so_far = {}, 0
        for number, row in table.rows.items():
            starts[number], so_far = so_far, so_far + row["loss_tokens"]
        spans: set[tuple[int, int]] = set()
        for opening in value["openings"]:
            row = table.rows[_number(opening["row"])]
            record, hashed = self._opened(opening, row)
            tokens, index, size = _number(record["tokens"]["loss"]), _number(opening["index"]), row["examples"]
            path = [_base64(one) for one in opening["sum_proof"]]
            if any(len(one) != 40 for one in path):
                raise Bad("a node of a sum tree is 40 bytes")
            top = root_from_inclusion(sum_leaf(hashed, tokens), index, size, path, sum_node)
            if top != _hash32(row["sums"]) + row["loss_tokens"].to_bytes(8, "big"):
                raise Bad(f"leaf {index} of row {opening['row']} is not in its sum tree with {tokens} loss tokens")
            before = [one[32:] for is_left, one in zip(_sides(index, size - 1), path, strict=True) if is_left]
            start = starts[opening["row"]] + sum(int.from_bytes(number, "big") for number in before)
            spans.add((start, start + tokens))
        ordered = sorted(spans)
        for at, place in enumerate(audit_places(stated["root"], beacon, draws, table.loss_tokens)):
            below = bisect.bisect_right(ordered, (place, 2**64)) - 1
            if below < 0 or place >= ordered[below][1]:
                raise Bad(f"draw {at} falls on loss token {place:,}, whose example is not opened")
        self.checks.append(f"Merkle-sum tree: the {draws} loss tokens drawn are opened, {len(spans)} examples")
        self.shares.append(
            f"drawn by the beacon {beacon!a}: proof only if you know that nobody knew it when the record was sealed"
        )
        self.shares.append(
            f"had {100 * (1 - 0.05 ** (1 / draws)):.2g} % of the {table.loss_tokens:,} loss tokens been mislabelled, these "
            f"{draws} draws would have hit one with 95 %: what each record says is now for the auditor to check"
        )

    def _consistency(self, value: dict[str, Any]) -> None:
        old, new = (parse_checkpoint(parse_note(value[name]).text) for name in ("old", "checkpoint"))
        proof = [_base64(one) for one in value["proof"]]
        if old.origin != new.origin or not consistent(old.size, new.size, old.root, new.root, proof):
            raise Bad("the older checkpoint is no beginning of the newer log (RFC 9162 section 2.1.4.2)")
        self.checks.append("RFC 9162 section 2.1.4.2: the proof holds")
        self.shares.append(
            f"the log of {new.size} entries begins with the {old.size} of the older checkpoint, whose root is "
            f"sha256:{old.root.hex()}: nothing was rewritten since"
        )


def folded(name: str) -> str:
    """A name however it is written: without blanks, upper and lower case alike."""
    return "".join(name.split()).casefold()


def audit_places(root: str, beacon: str, draws: int, total: int) -> list[int]:
    """Which loss tokens an audit draws: SHA-256(root ‖ beacon ‖ number) modulo the total, with replacement."""
    text = f"{root}\n{beacon}\n"
    numbers = (hashlib.sha256(f"{text}{at}".encode()).digest() for at in range(draws))
    return [int.from_bytes(number, "big") % total for number in numbers]


def main(arguments: list[str]) -> int:
    """Prints checks, findings, shares and tier; 0 when all holds, 1 when it does not, 2 for a wrong call."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path, help="a run folder, its provenance folder, or a disclosure")
    parser.add_argument("--key", default="", help="verification key of the signer you trust (name+id+key), or its file")
    parser.add_argument("--history", type=Path, help="that key's published history: rotations and revocations")
    parser.add_argument("--witness", default="", help="verification key of a witness you trust, or its file")
    parser.add_argument("--root", default="", help="a log root you trust (sha256:...)")
    given = parser.parse_args(arguments)
    history = _read(given.history).decode() if given.history else ""
    key, witness = (
        Path(text).read_text().strip() if Path(text).is_file() else text for text in (given.key, given.witness)
    )
    result = verify(given.path, Trust(key, history, witness, given.root))
    print("\n".join(told(result)))
    return 1 if result.findings else 0


def told(result: Result) -> list[str]:
    """The result as lines for people; control characters are shown, not obeyed."""
    lines = [f"checked  {check}" for check in result.checks]
    lines += [f"{finding.where}: {finding.what}" for finding in result.findings]
    lines += list(result.shares)
    lines += [f"tier  {line}" for line in result.tier]
    lines += [f"does not prove {line}" for line in NOT_PROVEN] if not result.findings else []
    counted = ", ".join(f"{count:,} {name}" for name, count in result.counts.items())
    ok = f"OK  log root {result.root}" + (f" ({counted})" if counted else "")
    failed = f"FAILED: {len(result.findings)} finding{'s' if len(result.findings) > 1 else ''}"
    return [_plain(line) for line in (*lines, failed if result.findings else ok)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
