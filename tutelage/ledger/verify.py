"""Checks a run's record end to end: standard library only, one file, reads nothing but the run folder it is given.

Run alone it is `python verify.py RUN` (a copy lies in every run's provenance folder). What it establishes is tier L0
without a signature: the record is whole and agrees with itself, with the stored answers, and with the weights.
docs/formats.md describes every byte it reads.
"""

import base64
import hashlib
import hmac
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

COVERED = (
    "provenance/log.jsonl: every entry, by the chain and by the Merkle root (RFC 6962 section 2.1)",
    "provenance/checkpoint: size and root of the log",
    "every file a stage wrote: data, collect, curate, before, train, student, prove, terms, evidence.json, sources.json",
    "store/*.seg: every question, answer and raw body, re-hashed; the answers trained on and proved with, by commitment",
    "store/run.key: by the commitments made with it",
    "config.json: by the digest of its bytes, recorded before anything was asked",
    "that nothing was added to the folders of stages, and that each stage rests on the latest of those before it",
)
NOT_COVERED = (
    "store/index.sqlite: a rebuildable index",
    "logs/, work/: server logs, meters and scratch",
    "report.html: how the evidence looks (its numbers are in evidence.json, which is covered)",
    "run.toml, environment.json, provenance/verify.py: copies for people (the log has the digests that count)",
)
# Which stage made an input, by stage and the input's name: each must be that stage's latest outputs.
MADE_BY = {
    ("collect", "data"): "data",
    ("curate", "collect"): "collect",
    ("train", "curate"): "curate",
    ("train", "student"): "student",
    ("ship", "train"): "train",
    ("ship", "student"): "student",
    ("prove", "data"): "data",
    ("prove", "curate"): "curate",
    ("prove", "student"): "ship",
    ("prove", "before"): "student",
    ("report", "prove"): "prove",
}
STAGE_FOLDERS = ("data", "terms", "collect", "curate", "before", "train", "student", "prove")
KINDS = {"body": "encoding", "request": "messages", "exchange": "raw_body_digest", "failure": "reason"}


class Finding(NamedTuple):
    """Something that is not as recorded: where (file, and line or byte), and what."""

    where: str
    what: str


class Result(NamedTuple):
    """`findings` is empty when the record holds; `shares` says what was taken from whom."""

    findings: tuple[Finding, ...]
    counts: dict[str, int]
    root: str
    shares: tuple[str, ...]


def verify(run: Path) -> Result:
    """Checks the run folder. Never raises on what it reads: what cannot be read is a finding."""
    checker = _Checker(run)
    for check in (
        checker.log,
        checker.outputs,
        checker.stages,
        checker.store,
        checker.commitments,
        checker.sources,
        checker.weights,
    ):
        try:
            check()
        except (KeyError, TypeError, ValueError, AttributeError, OSError, RecursionError) as error:
            checker.found(check.__name__, f"cannot be read: {type(error).__name__}: {error}")
    return Result(tuple(checker.findings), checker.counts, checker.root, tuple(checker.shares))


class _Checker:
    def __init__(self, run: Path) -> None:
        self.run = run
        self.findings: list[Finding] = []
        self.counts: dict[str, int] = {}
        self.entries: list[dict[str, Any]] = []
        self.records: dict[str, bytes] = {}  # canonical bytes of each stored exchange, by digest
        self.root = ""
        self.shares: list[str] = []

    def found(self, where: str, what: str) -> None:
        self.findings.append(Finding(where, what))

    def log(self) -> None:
        """Chain, canonical form and root; a torn last line is a finding too."""
        path = self.run / "provenance" / "log.jsonl"
        previous = "sha256:" + 64 * "0"
        leaves = []
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
            entry = json.loads(line)
            if _canonical(entry) != line:
                self.found(f"provenance/log.jsonl line {number}", "is not canonical JSON")
            if entry["previous"] != previous:
                self.found(f"provenance/log.jsonl line {number - 1}", f"is not the line that line {number} names")
            previous = _digest(line)
            leaves.append(hashlib.sha256(b"\x00" + line).digest())
            self.entries.append(entry)
        if not path.read_bytes().endswith(b"\n"):
            self.found(f"provenance/log.jsonl line {len(leaves) + 1}", "is torn")
        self.root = "sha256:" + _root(leaves).hex()
        encoded = base64.b64encode(_root(leaves)).decode()
        if (
            self.run / "provenance" / "checkpoint"
        ).read_bytes() != f"tutelage/run\n{len(leaves)}\n{encoded}\n".encode():
            self.found("provenance/checkpoint", f"does not name {len(leaves)} entries with root {self.root}")
        self.counts["log entries"] = len(leaves)
        self._config()

    def outputs(self) -> None:
        """Every file named by the latest statement that wrote it."""
        latest: dict[str, str] = {}
        for entry in self.entries:
            if entry["kind"] == "statement":
                latest.update(entry["outputs"])
        for name, digest in sorted(latest.items()):
            path = self.run / name
            if Path(name).is_absolute() or ".." in Path(name).parts:
                self.found(name, "is not a path inside the run")
            elif not path.is_file():
                self.found(name, "is missing")
            elif _digest_file(path) != digest:
                self.found(name, f"has another digest than recorded ({digest[:23]}...)")
        self.counts["files"] = len(latest)
        for folder in STAGE_FOLDERS:
            for path in (self.run / folder).rglob("*"):
                name = path.relative_to(self.run).as_posix()
                if path.is_file() and name not in latest:
                    self.found(name, "is not in the record")

    def stages(self) -> None:
        """Each stage's latest inputs are the latest outputs of the stages they came from."""
        latest = {entry["stage"]: entry for entry in self.entries if entry["kind"] == "statement"}
        for (stage, name), maker in MADE_BY.items():
            if stage in latest and maker in latest:
                made = _digest(_canonical(latest[maker]["outputs"]))
                if latest[stage]["inputs"][name] != made:
                    self.found(stage, f"rests on another {name} than the one made last; run it again")

    def store(self) -> None:
        """Every line of every segment re-hashed; every answer has its question and its raw body."""
        bodies, requests, needs = set(), set(), []
        for path in sorted((self.run / "store").glob("*.seg")):
            for offset, line in _lines(path):
                where = f"store/{path.name} byte {offset}"
                try:
                    digest, kind, text = line.decode("utf-8").split(" ", 2)
                    value = json.loads(text)
                except ValueError as error:
                    self.found(where, f"is no record: {error}")
                    continue
                if kind not in KINDS or KINDS[kind] not in value:
                    self.found(where, f"is no record of kind {kind!r}")
                elif _digest(text.encode()) != digest:
                    self.found(where, f"{kind}: the digest differs")
                elif kind == "body":
                    if _digest(value["text"].encode(value["encoding"])) != value["digest"]:
                        self.found(where, "body: the raw bytes have another digest")
                    bodies.add(value["digest"])
                elif kind == "request":
                    requests.add(digest)
                elif kind == "exchange":
                    self.records[digest] = text.encode()
                    needs.append((where, value["request_digest"], value["raw_body_digest"]))
        for where, request, body in needs:
            if request not in requests:
                self.found(where, f"its question {request[:23]}... is not in the store")
            if body not in bodies:
                self.found(where, f"its raw body {body[:23]}... is not in the store")
        self.counts["exchanges"] = len(self.records)

    def commitments(self) -> None:
        """The salted roots over collected, selected and proving answers, against the log."""
        key_file = (self.run / "store" / "run.key").read_text()
        if not re.fullmatch(r"[0-9a-f]{64}\n", key_file):
            self.found("store/run.key", "is not 64 hexadecimal digits and a newline")
            return
        lists = {
            "collect": lambda: _json_lines(self.run / "collect" / "exchanges.jsonl"),
            "curate": lambda: json.loads((self.run / "curate" / "selection.json").read_bytes())["train"],
            "prove": lambda: _json_lines(self.run / "prove" / "exchanges.jsonl"),
        }
        for stage, rows in lists.items():
            facts = self._facts(stage)
            if facts is None:
                continue
            digests = [row["exchange"] for row in rows()]
            missing = [digest for digest in digests if digest not in self.records]
            if missing:
                self.found(f"{stage}", f"{len(missing)} committed answers are not in the store, first {missing[0]}")
                continue
            key = bytes.fromhex(key_file.strip())
            leaves = [_salted_leaf(key, at, self.records[digest]) for at, digest in enumerate(digests)]
            if "sha256:" + _root(leaves).hex() != facts["commitment"]:
                self.found(f"{stage}", "the committed answers are not those in the store (or store/run.key changed)")
            self.counts[f"committed by {stage}"] = len(digests)

    def sources(self) -> None:
        """What was stepped on is in the committed selection; its sums are those of the source table."""
        if self._facts("ship") is None:
            return
        rows = json.loads((self.run / "curate" / "selection.json").read_bytes())["train"]
        selected = {row["exchange"] for row in rows}
        tokens: dict[tuple[str, str, str, str], int] = {}
        examples: dict[tuple[str, str, str, str], set[str]] = {}
        models: dict[str, tuple[str, str, str]] = {}
        for step in _json_lines(self.run / "train" / "consumed.jsonl"):
            for exchange, by_role in zip(step["exchanges"], step["loss_tokens"], strict=True):
                if exchange not in selected:
                    self.found(f"train/consumed.jsonl step {step['step']}", f"{exchange} is not in the selection")
                    continue
                if exchange not in models:
                    model = json.loads(self.records[exchange])["model"]
                    models[exchange] = (model["model_asked"], model["weights_digest"], model["licence"])
                for role, count in by_role.items():
                    if count:
                        key = (*models[exchange], role)
                        tokens[key] = tokens.get(key, 0) + count
                        examples.setdefault(key, set()).add(exchange)
        table = json.loads((self.run / "provenance" / "sources.json").read_bytes())["sources"]
        stated = {
            (r["teacher"], r["weights"], r["licence"], r["role"]): (r["loss_tokens"], r["examples"]) for r in table
        }
        counted = {key: (tokens[key], len(examples[key])) for key in tokens}
        if stated != counted:
            self.found("provenance/sources.json", f"says {stated}, the steps taken say {counted}")
        self.shares = list(_shares(counted))

    def weights(self) -> None:
        """The shipped weights are the ones the record names."""
        facts = self._facts("ship")
        if facts is None:
            self.found("provenance/log.jsonl", "no student was shipped in this run yet")
        elif _digest_file(self.run / "student" / "model.safetensors") != facts["weights"]:
            self.found("student/model.safetensors", "is not the weights the record names")

    def _config(self) -> None:
        opened = [entry["facts"]["config"] for entry in self.entries if entry["kind"] == "opened"]
        if _digest((self.run / "config.json").read_bytes()) != opened[-1]:
            self.found("config.json", "is not the configuration this run was last opened with")

    def _facts(self, stage: str) -> dict[str, Any] | None:
        facts = None
        for entry in self.entries:
            if entry["kind"] == "statement" and entry["stage"] == stage:
                facts = entry["facts"]
        return facts


def _shares(counted: dict[tuple[str, str, str, str], tuple[int, int]]) -> Iterator[str]:
    total = sum(tokens for tokens, _ in counted.values())
    by_source: dict[tuple[str, str], int] = {}
    for (teacher, _, licence, _), (tokens, _) in counted.items():
        by_source[teacher, licence] = by_source.get((teacher, licence), 0) + tokens
    for (teacher, licence), tokens in sorted(by_source.items()):
        share = f"{100 * tokens / total:.2f} %" if tokens != total else "100 %"
        yield f"{share} of the {total:,} loss tokens came from {teacher} under {licence or 'terms of its route'}"


def _root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, by its definition: split at the largest power of two below n."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = leaves
    while len(level) > 1:
        paired = [hashlib.sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
        level = paired + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def _salted_leaf(key: bytes, sequence: int, record: bytes) -> bytes:
    salt = hmac.digest(key, sequence.to_bytes(8, "big"), "sha256")
    return hashlib.sha256(b"\x00" + salt + record).digest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _digest_file(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return "sha256:" + hasher.hexdigest()


def _lines(path: Path) -> Iterable[tuple[int, bytes]]:
    """Whole lines; a torn last one (a killed writer's) was never acknowledged and is left out."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield offset, line[:-1]
            offset += len(line)


def _json_lines(path: Path) -> Iterable[dict[str, Any]]:
    for line in path.read_bytes().splitlines():
        yield json.loads(line)


def main(arguments: list[str]) -> int:
    """Prints findings and shares; 0 when the record holds, 1 when it does not."""
    result = verify(Path(arguments[0]))
    for finding in result.findings:
        print(f"{finding.where}: {finding.what}")
    print("; ".join(result.shares))
    print("FAILED" if result.findings else f"OK  {result.root}")
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
