"""The last stage: the documents, then the signed statement over the weights, and the locator over everything."""

import base64
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.canon import canonical, digest_file, digest_of
from tutelage.jsonl import pretty, write_whole
from tutelage.ledger import verify
from tutelage.ledger.keys import Signer, history_path
from tutelage.ledger.locator import write_locator
from tutelage.ledger.log import Log
from tutelage.ledger.statement import envelope, model_signature, statement, subject
from tutelage.pipeline.accounting import SOURCES
from tutelage.pipeline.documents import describe_student
from tutelage.pipeline.gate import Gate
from tutelage.pipeline.run import Done, Facts
from tutelage.pipeline.session import Session

STUDENT = "student"
DOCUMENTS = tuple(
    f"provenance/{name}"
    for name in ("terms.json", "mlbom.cdx.json", "croissant.json", "eu-training-summary.md", "verify.py")
)


def seal(arc: Session, gate: Gate, shipped: Done, reported: Done) -> None:
    """Writes the documents as a stage, then signs (`publish`). A run that is sealed and unchanged stays as it is.

    The stage's intent names what will be stated, so that whoever trusts the log's root need not trust a key for it.
    """
    run = arc.run
    verdicts = {"teacher": gate.teacher, "data": gate.data, "base": gate.base}
    terms: dict[str, Any] = {name: verdict.to_json() for name, verdict in verdicts.items()}
    terms["inherited"] = [verdict.to_json() for verdict in gate.inherited]

    def work(scratch: Path) -> Facts:
        from tutelage.ship.bom import ml_bom
        from tutelage.ship.croissant import croissant
        from tutelage.ship.summary import eu_summary

        evidence = json.loads((run.folder / "evidence.json").read_bytes())
        files = student_files(run.log)
        account = describe_student(arc, gate, files, shipped.facts["weights"], evidence)
        public = run.folder / "provenance"
        write_whole(public / "terms.json", pretty({"schema_version": 1, **terms}))
        write_whole(public / "mlbom.cdx.json", pretty(ml_bom(account)))
        write_whole(public / "croissant.json", pretty(croissant(account)))
        write_whole(public / "eu-training-summary.md", eu_summary(account).encode())
        shutil.copyfile(Path(verify.__file__), public / "verify.py")
        run.store.sync()
        segments = sorted((run.folder / "store").glob("*.seg"))
        return {"store": {path.name: [path.stat().st_size, digest_file(path)] for path in segments}}

    inputs = {"report": reported.outputs_digest, "ship": shipped.outputs_digest, "terms": gate.standing}
    run.stage("seal", 1, {"statement": _in_log(run.folder, run.log, terms)}, inputs, DOCUMENTS, work)
    publish(run.folder, run.log, run.signer)


def publish(folder: Path, log: Log, signer: Signer | None) -> None:
    """The statement over the weights, signed when there is a signer, and the locator. Says the same again for the same log.

    A statement that is signed already is left alone, unless the log has grown or somebody else signs.
    """
    public = folder / "provenance"
    if signer is None and log.signed_by:
        return  # signed, and nothing was added since: without the key nothing could be
    if signer is not None:
        log.require_holder(signer)
        log.sign()
        files = student_files(log)
        key = signer.verification_key.encode() + b"\n"
        signed_by_us = (public / "signer.vkey").exists() and (public / "signer.vkey").read_bytes() == key
        if not signed_by_us or _signed_files(public / "model.sig") != sorted(files.items()):
            write_whole(public / "model.sig", model_signature(_facts(log)["opened"]["name"], files, signer))
            write_whole(public / "model.pub", signer.p256_public)
            write_whole(public / "signer.vkey", key)
            (public / "signer.history.json").unlink(missing_ok=True)  # of whoever signed before
            if history_path(signer.name).exists():
                shutil.copyfile(history_path(signer.name), public / "signer.history.json")
    payload = statement(student_files(log), _predicate(folder, log))
    begun = [entry for entry in log.statements() if (entry.kind, entry.stage) == ("intent", "seal")][-1]
    write_whole(public / "sealed.json", canonical(begun.to_json()) + b"\n")
    write_whole(public / "statement.json", payload + b"\n")
    if signer is not None:
        write_whole(public / "statement.dsse.json", pretty(envelope(payload, signer)))
    write_locator(folder, located(folder))


def student_files(log: Log) -> dict[str, str]:
    """Name and digest of every file of the student's folder, as it was shipped last."""
    shipped = [entry for entry in log.statements() if (entry.kind, entry.stage) == ("statement", "ship")][-1]
    return {name.removeprefix(f"{STUDENT}/"): digest for name, digest in shipped.outputs.items()}


def located(folder: Path) -> list[str]:
    """The files of a run that the locator covers."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith(verify.NOT_LOCATED))


def _predicate(folder: Path, log: Log) -> dict[str, Any]:
    """What is stated of the weights; docs/formats.md has its fields. All of it can be published."""
    public = folder / "provenance"
    documents = [public / "sources.json", *(folder / name for name in DOCUMENTS)]
    documents += [
        path for name in ("model.sig", "model.pub", "signer.history.json") if (path := public / name).exists()
    ]
    return _stated(folder, log, json.loads((public / "terms.json").read_bytes())) | {
        "log": {"origin": log.origin, "size": log.size, "root": log.root},
        "before_training": _facts(log)["before_training"],
        "documents": {path.name: digest_file(path) for path in documents},
        "sealed_at": list(log.statements())[-1].ended_at,
    }


def _in_log(folder: Path, log: Log, terms: Mapping[str, Any]) -> str:
    """Digest of what is stated of which files, as the log names it: without the days on which the terms were read."""
    stated = _stated(folder, log, terms)
    stated["terms"] = [{name: value for name, value in one.items() if name != "date"} for one in stated["terms"]]
    return digest_of(stated | {"subject": subject(student_files(log))})


def _stated(folder: Path, log: Log, terms: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the predicate that is known when sealing begins."""
    facts = _facts(log)
    table = json.loads((folder / SOURCES).read_bytes())
    verdicts = [terms["teacher"], terms["data"], terms["base"], *terms["inherited"]]
    trained = json.loads((folder / "train" / "checkpoint.json").read_bytes())
    trainer = [entry for entry in log.statements() if (entry.kind, entry.stage) == ("statement", "train")][-1]
    return {
        "schema_version": 1,
        "name": facts["opened"]["name"],
        "purpose": verdicts[0]["purpose"],
        "selection": {"root": facts["curate"]["commitment"], "examples": facts["curate"]["kept"]},
        "sources": {"root": table["root"], "rows": len(table["rows"]), "loss_tokens": table["loss_tokens"]},
        "terms": [
            {name: verdict[name] for name in ("subject", "licence", "route", "purpose", "status", "date")}
            for verdict in verdicts
        ],
        "conditions": _distinct(item for verdict in verdicts for item in verdict["conditions"]),
        "accepted_risks": _distinct(risk for verdict in verdicts for risk in verdict["accepted_risks"]),
        "upstream": sorted({row["row"]["upstream"] for row in table["rows"]}),
        "run": {
            "code": trainer.code,
            "environment": trainer.environment,
            "hardware": trainer.hardware,
            "seed": facts["opened"]["seed"],
            "order": trained["consumed"],
            "steps": facts["train"]["steps"],
            "chosen_step": facts["train"]["chosen_step"],
            "checkpoint": facts["train"]["checkpoint"],
            "chain": trained["chain"],
            "numerics": facts["train"]["numerics"],
        },
    }


def _facts(log: Log) -> dict[str, dict[str, Any]]:
    """The latest facts of each stage and of the opening, and the log as it was when the selection was committed."""
    found: dict[str, dict[str, Any]] = {}
    committed: dict[str, dict[str, Any]] = {}
    for at, entry in enumerate(log.statements(), 1):
        if entry.kind == "statement":
            found[entry.stage] = entry.facts
        elif entry.kind == "opened":
            found["opened"] = entry.facts
        elif entry.kind == "committed":
            committed.setdefault(entry.facts["root"], {"size": at, "root": log.root_at(at)})
    return found | {"before_training": committed[found["curate"]["commitment"]]}


def _distinct(values: Any) -> list[Any]:
    return list({canonical(value): value for value in values}.values())


def _signed_files(bundle: Path) -> list[tuple[str, str]]:
    """What a model signature names; nothing when there is none."""
    if not bundle.exists():
        return []
    payload = json.loads(base64.b64decode(json.loads(bundle.read_bytes())["dsseEnvelope"]["payload"]))
    return sorted((item["name"], f"sha256:{item['digest']}") for item in payload["predicate"]["resources"])
