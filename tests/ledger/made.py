"""Sealed runs made without training: real store, log, trees, statement and signatures; the student is a few bytes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tutelage.canon import canonical, digest_bytes, digest_file
from tutelage.jsonl import pretty, write_lines, write_whole
from tutelage.ledger.examples import Lineage, Taken, source_table, write_examples
from tutelage.ledger.keys import Signer
from tutelage.pipeline.accounting import consumed_tokens
from tutelage.pipeline.commit import SELECTION_TREE, commit_exchanges, commit_selection
from tutelage.pipeline.run import Done, Facts, Run
from tutelage.pipeline.sealing import DOCUMENTS, _in_log, publish
from tutelage.progress import Quiet, Stop
from tutelage.prompts import Prompts, write_prompts
from tutelage.records import (
    Checkpoint,
    Exchange,
    Message,
    ModelId,
    Origin,
    Price,
    Request,
    Role,
    TrainPrompt,
    Usage,
)  # fmt: skip

BASE = digest_bytes(b"base")
Counts = Mapping[str, int]


class Example(NamedTuple):
    """One answer: whose, under which licence, and the loss tokens by role each time it was stepped on."""

    teacher: str = "oak"
    licence: str = "MIT"
    steps: tuple[Counts, ...] = ({"soft-target": 1, "text-target": 3},)
    data: str = "topics.csv"


def new_signer(name: str = "example.org/ada") -> Signer:
    return Signer(name, ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1()))


def exchange_of(example: Example, at: int) -> tuple[Request, Exchange, bytes]:
    """Question, answer and raw body number `at`."""
    request = Request(
        (Message("user", f"question {at}"),), {"temperature": "0"}, example.teacher, "loopback", "train", 0
    )
    body = canonical({"answer": at % 3, "id": at})
    model = ModelId("loopback", "loopback", example.teacher, example.teacher, "", "", "", "", "", example.licence)
    exchange = Exchange(
        request_digest=request.digest, model=model, answer=("yes", "no", "maybe")[at % 3], reasoning="", tool_calls=(),
        finish_reason="stop", logprobs=(), usage=Usage(7, 0, 1), price=Price(0, "none", "2026-01-01"), latency_ms=1,
        attempts=1, request_id_hash=digest_bytes(b"%d" % at), raw_body_digest=digest_bytes(body), terms_digest=BASE,
        twin=None, origin=Origin.ASKED, role=Role.SOFT_TARGET, asked_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    return request, exchange, body


class Maker:
    """The stages of a run over given examples, one method each; `seal` does them all."""

    def __init__(self, run: Run, examples: Sequence[Example]) -> None:
        self.run = run
        self.folder = run.folder
        self.examples = examples
        self.rows: list[dict[str, Any]] = []
        names = ("subject", "licence", "route", "purpose", "status", "date")
        verdict = {**dict.fromkeys(names, ""), "conditions": [], "accepted_risks": []}
        base = verdict | {"subject": "tiny", "licence": "Apache-2.0"}
        self.terms: dict[str, Any] = {"teacher": verdict, "data": verdict, "base": base, "inherited": []}
        self.prompts = [
            TrainPrompt(digest_bytes(b"prompt %d" % at), f"question {at}", f"g{at}", example.data, BASE, "own")
            for at, example in enumerate(examples)
        ]

    def put(self, name: str, data: bytes) -> None:
        write_whole(self.folder / name, data)

    def open(self) -> None:
        file = pretty({"run": {"name": "made", "seed": 1}, "task": {"decision": "argmax"}})
        facts = {"origin": self.run.log.origin, "name": "made", "seed": 1, "config": digest_bytes(file), "claim": {}}
        self.run.opened(facts, "run")
        self.put("config.json", file)

    def verdicts(self, scratch: Path) -> Facts:
        self.put("terms/today.json", pretty({"schema_version": 1, **self.terms}))
        return {}

    def data(self, scratch: Path) -> Facts:
        write_prompts(self.folder / "data" / "prompts.jsonl", Prompts(tuple(self.prompts), (), ()))
        return {}

    def collect(self, scratch: Path) -> Facts:
        for at, example in enumerate(self.examples):
            request, exchange, body = exchange_of(example, at)
            digest = self.run.store.put(request, exchange, body)
            self.rows.append({"prompt": self.prompts[at].prompt_id, "address": request.digest, "exchange": digest})
        write_lines(self.folder / "collect" / "exchanges.jsonl", self.rows)
        return {"commitment": commit_exchanges(self.run, "collect", [row["address"] for row in self.rows])}

    def curate(self, scratch: Path) -> Facts:
        self.put("curate/selection.json", canonical({"train": self.rows}))
        return {"commitment": commit_selection(self.run, self.rows), "kept": len(self.rows)}

    def student(self, scratch: Path) -> Facts:
        self.put("before/model.safetensors", b"weights before training")
        return {}

    def train(self, scratch: Path) -> Facts:
        most = max((len(example.steps) for example in self.examples), default=0)
        steps = []
        for step in range(most):
            used = [at for at, example in enumerate(self.examples) if len(example.steps) > step]
            exchanges = [self.rows[at]["exchange"] for at in used]
            counts = [dict(self.examples[at].steps[step]) for at in used]
            steps.append({"step": step + 1, "exchanges": exchanges, "loss_tokens": counts})
        write_lines(self.folder / "train" / "consumed.jsonl", steps)
        self.put("train/weights.safetensors", b"weights after training")
        total = {"soft-target": 0, "text-target": 0}
        for example in self.examples:
            for counted in example.steps:
                for role, count in counted.items():
                    total[role] += count
        checkpoint = Checkpoint(
            weights=digest_file(self.folder / "train" / "weights.safetensors"), parent=BASE, config=BASE, state=BASE,
            chain=BASE, step=most, data_position=most, loss_tokens=total,
            consumed=digest_file(self.folder / "train" / "consumed.jsonl"),
        )  # fmt: skip
        self.put("train/checkpoint.json", canonical(checkpoint.to_json()) + b"\n")
        return {"checkpoint": checkpoint.digest, "steps": most, "chosen_step": most, "numerics": {"torch": "none"}}

    def account(self, scratch: Path) -> Facts:
        lines = (self.folder / "train" / "consumed.jsonl").read_bytes().splitlines()
        counted = consumed_tokens(json.loads(line) for line in lines)
        pairs = self.run.store.pairs(row["address"] for row in self.rows)
        taken = [
            Taken(at, pair.digest, pair.exchange, pair.request, self.prompts[at].to_json(), counted[pair.digest])
            for at, pair in enumerate(pairs)
            if pair.digest in counted
        ]
        lineage = [Lineage("tiny", BASE, "Apache-2.0")]
        rows = write_examples(self.run.key, taken, lineage, self.folder / "ledger" / "examples")
        table = source_table(self.run.key, rows)
        self.put("provenance/sources.json", canonical(table) + b"\n")
        return {"sources": table["rows"], "loss_tokens": table["loss_tokens"], "root": table["root"]}

    def ship(self, scratch: Path) -> Facts:
        self.put("student/model.safetensors", b"weights after training, shipped")
        self.put("student/README.md", b"# made\n")
        return {"weights": digest_file(self.folder / "student" / "model.safetensors")}

    def prove(self, scratch: Path) -> Facts:
        write_lines(self.folder / "prove" / "exchanges.jsonl", self.rows[:2])
        return {"commitment": commit_exchanges(self.run, "prove", [row["address"] for row in self.rows[:2]])}

    def report(self, scratch: Path) -> Facts:
        self.put("evidence.json", b'{"accuracy": 0.5}\n')
        return {}

    def documents(self, scratch: Path) -> Facts:
        self.put("provenance/terms.json", pretty({"schema_version": 1, **self.terms}))
        for name in DOCUMENTS[1:]:
            self.put(name, f"{name}\n".encode())
        self.run.store.sync()
        segments = sorted((self.folder / "store").glob("*.seg"))
        return {"store": {path.name: [path.stat().st_size, digest_file(path)] for path in segments}}

    def seal(self) -> None:
        self.open()
        stage = self.run.stage
        stage("terms", 1, {}, {}, ("terms/today.json",), self.verdicts)
        data = stage("data", 1, {}, {}, ("data/prompts.jsonl",), self.data)
        collected = stage("collect", 1, {}, _of(data=data), ("collect/exchanges.jsonl",), self.collect)
        files = ("curate/selection.json", SELECTION_TREE.as_posix())
        curated = stage("curate", 1, {}, _of(collect=collected), files, self.curate)
        self.run.commit({"root": curated.facts["commitment"], "examples": curated.facts["kept"]})
        student = stage("student", 1, {}, {"base": BASE}, ("before",), self.student)
        trained = stage("train", 1, {}, _of(curate=curated, student=student), ("train",), self.train)
        files = ("ledger/examples", "provenance/sources.json")
        accounted = stage("account", 1, {}, _of(curate=curated, train=trained), files, self.account)
        inputs = _of(train=trained, student=student, account=accounted)
        shipped = stage("ship", 1, {}, inputs, ("student",), self.ship)
        inputs = _of(data=data, curate=curated, student=shipped, before=student)
        proved = stage("prove", 1, {}, inputs, ("prove",), self.prove)
        reported = stage("report", 1, {}, _of(prove=proved), ("evidence.json",), self.report)
        config = {"statement": _in_log(self.folder, self.run.log, self.terms)}
        stage("seal", 1, config, _of(report=reported, ship=shipped), DOCUMENTS, self.documents)
        publish(self.folder, self.run.log, self.run.signer)


def _of(**inputs: Done) -> dict[str, str]:
    return {name: done.outputs_digest for name, done in inputs.items()}


def make(folder: Path, examples: Sequence[Example], signer: Signer | None = None, key: bytes = b"") -> Path:
    """A sealed run over these examples, under a run key of one's choice."""
    if key:
        write_whole(folder / "store" / "run.key", key.hex().encode() + b"\n", mode=0o600)
    with Run(folder, Quiet(), Stop(), signer) as run:
        Maker(run, examples).seal()
    return folder
