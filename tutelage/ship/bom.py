"""CycloneDX 1.7 ML-BOM of a student: what it was made from, by whom it was taught, how, and what is not known.

Pure. ECMA-424 as the schema bom-1.7 has it. The standard has no word for distillation, so teachers are components of
their own, inputs of the workflow under `formulation`, and carry `tutelage:*` properties; the base is the ancestor in the
pedigree. `compositions` says for every model where knowledge ends.
"""

import uuid
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from tutelage.ledger.sources import UNKNOWN_UPSTREAM, SourceRow
from tutelage.records import Role
from tutelage.ship.account import FROM_FILE, Account, Part
from tutelage.ship.words import NOT_PUBLIC, bare, spdx, web

STUDENT, BASE, DATA, EXAMPLES = "student", "base", "data", "examples"
STEPS = (  # task, what it does, CycloneDX task type
    ("collect", "The teachers answer the training prompts; every answer is stored as received.", "other"),
    ("curate", "Answers are kept or dropped with a reason; the selection is committed before training.", "other"),
    ("train", "The student is stepped on the selection; loss tokens are counted where the loss mask is made.", "build"),
    ("ship", "The weights and their folder are written.", "release"),
    ("prove", "Teacher and shipped student answer held-out prompts; a claim made beforehand is judged.", "test"),
)


def ml_bom(account: Account) -> dict[str, Any]:
    """The BOM as plain JSON values. Its serial number follows from the weights, so the same weights have the same.

    Raises `ValueError` when a digest in the account is not one.
    """
    bare(account.weights)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, account.weights)}",
        "version": 2 if account.metrics else 1,  # written before the proof, and again after it
        "metadata": {
            "timestamp": account.created_at,
            "lifecycles": [{"phase": "post-build"}],
            "tools": {"components": [{"type": "application", "name": "tutelage", "version": account.version}]},
            "component": _student(account),
            "properties": _properties(
                ("purpose", account.purpose),
                *(("terms", f"{one.subject}: {one.status} for {one.purpose}") for one in account.terms),
            ),
        },
        "components": [*_teachers(account), _data(account), _examples(account)],
        "externalReferences": _references(account),
        "compositions": _compositions(account),
        "formulation": [{"bom-ref": "formulation", "workflows": [_workflow(account)]}],
        "declarations": _declarations(account),
    }


def _student(account: Account) -> dict[str, Any]:
    files = [
        {"type": "file", "bom-ref": f"file-{number}", "name": name, **_hashes(digest)}
        for number, (name, digest) in enumerate(sorted(account.files.items()))
    ]
    notes = f"{account.layers} of {account.base_layers} layers of the base, then: {account.method}"
    return {
        "type": "machine-learning-model",
        "bom-ref": STUDENT,
        "name": account.name,
        "description": account.task,
        **_hashes(account.weights),
        **_licences(account.base.licence),
        "pedigree": {"ancestors": [_base(account)], "notes": notes},
        "modelCard": _model_card(account),
        **({"components": files} if files else {}),
    }


def _model_card(account: Account) -> dict[str, Any]:
    limits = [
        f"It answers with one of: {', '.join(account.labels)}.",
        f"What taught the teacher and the base: {account.upstream}.",
        "The record names what was stepped on; it does not prove that nothing else was.",
    ]
    return {
        "bom-ref": "model-card",
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": account.task,
            "architectureFamily": "transformer",
            "modelArchitecture": account.architecture,
            "datasets": [{"ref": DATA}, {"ref": EXAMPLES}],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": _metrics(account, "student")},
        "considerations": {
            "useCases": [account.task],
            "technicalLimitations": limits,
            **({"performanceTradeoffs": [account.verdict]} if account.verdict else {}),
        },
        "properties": _properties(
            ("method", account.method),
            ("parameters", account.parameters),
            ("layers", account.layers),
            *(
                ("accepted_risk", f"{risk.who}: {risk.reason} (for {risk.scope})")
                for risk in dict.fromkeys(risk for verdict in account.terms for risk in verdict.accepted_risks)
            ),
            *((f"hyperparameter:{name}", value) for name, value in sorted(account.hyperparameters.items())),
        ),
    }


def _metrics(account: Account, system: str) -> list[dict[str, Any]]:
    return [
        {
            "type": one.name,
            "value": one.value,
            "slice": f"held out, n = {one.n}, interval at level {one.level}",
            "confidenceInterval": {"lowerBound": one.low, "upperBound": one.high},
        }
        for one in account.metrics
        if one.of == system
    ]


def _base(account: Account) -> dict[str, Any]:
    rows = [row for row in account.sources if row.role == Role.BASE_LINEAGE]
    found = _part("machine-learning-model", BASE, account.base)
    found["properties"] = _properties(("upstream", account.upstream), *_taken(account, rows))
    return found


def _teachers(account: Account) -> list[dict[str, Any]]:
    """A component a teacher. Its measured figures are known to be its own only where it is the only one."""
    found = []
    for number, rows in enumerate(account.teachers, 1):
        one = rows[0]
        more = [("terms", verdict.status) for verdict in account.verdicts_on(one)]
        more += [] if one.licence else [("licence", NOT_PUBLIC)]
        component = _part(
            "machine-learning-model", f"teacher-{number}", Part(one.teacher, one.weights, one.licence, "")
        )
        component["properties"] = _properties(
            ("provider", one.provider), ("route", one.route), ("upstream", one.upstream), *more, *_taken(account, rows)
        )
        if len(account.teachers) == 1 and (metrics := _metrics(account, "teacher")):
            component["modelCard"] = {"quantitativeAnalysis": {"performanceMetrics": metrics}}
        found.append(component)
    return found


def _data(account: Account) -> dict[str, Any]:
    data = account.data
    rows = [row for row in account.sources if row.role == Role.PROMPT_AUTHOR and row.route == FROM_FILE]
    contents: dict[str, Any] = {"properties": _properties(("digest", data.file_digest))}
    if web(data.url):
        contents["url"] = data.url
    authors = [
        ("prompt-author", f"{row.teacher} ({row.licence or NOT_PUBLIC}): {row.examples} examples") for row in rows
    ]
    return _part("data", DATA, data) | {
        "data": [{"type": "dataset", "name": data.name, "description": "The prompts' texts.", "contents": contents}],
        "properties": _properties(*authors),
    }


def _examples(account: Account) -> dict[str, Any]:
    """The training set: named by digests, not handed out."""
    keeper = {"organization": {"name": "whoever keeps the run folder"}}
    files = [(f"file:{name}", digest) for name, digest in sorted(account.examples.items())]
    return {
        "type": "data",
        "bom-ref": EXAMPLES,
        "name": "training examples",
        "description": "What the student was stepped on: prompts, and the teachers' answers to them.",
        "data": [
            {
                "type": "dataset",
                "name": "records of the examples",
                "classification": "private",
                "contents": {"properties": _properties(("loss_tokens", account.target_tokens), *files)},
                "governance": {"custodians": [keeper]},
            }
        ],
    }


def _references(account: Account) -> list[dict[str, Any]]:
    """Addresses are relative to the folder that the BOM lies in: the record's public one."""
    log = f"{account.log.origin}, {account.log.size} entries, root {account.log.root}"
    signed = "in statement.dsse.json too when somebody signed: signer.vkey says who"
    return [
        {"type": "log", "url": "checkpoint", "comment": log},
        {"type": "evidence", "url": "sources.json", "comment": "the source table, whole, and its root"},
        {"type": "attestation", "url": "statement.json", "comment": f"the statement over the weights; {signed}"},
    ]


def _compositions(account: Account) -> list[dict[str, Any]]:
    """What goes into the student is all known; what went into its base and its teachers is not."""
    upstream = {f"teacher-{number}": rows[0].upstream for number, rows in enumerate(account.teachers, 1)}
    bases = [row.upstream for row in account.sources if row.role == Role.BASE_LINEAGE]
    upstream[BASE] = bases[0] if bases else UNKNOWN_UPSTREAM
    unknown = sorted(ref for ref, known in upstream.items() if known in ("", UNKNOWN_UPSTREAM))
    partly = sorted(upstream.keys() - set(unknown))
    found = [
        {"aggregate": "complete" if account.files else "incomplete", "assemblies": [STUDENT]},
        {"aggregate": "complete", "assemblies": [EXAMPLES]},
        {"aggregate": "unknown", "assemblies": [*unknown, DATA]},
    ]
    return found + ([{"aggregate": "incomplete", "assemblies": partly}] if partly else [])


def _workflow(account: Account) -> dict[str, Any]:
    teachers = [f"teacher-{number}" for number in range(1, len(account.teachers) + 1)]
    inputs = {"collect": [*teachers, DATA], "train": [BASE, EXAMPLES], "prove": [*teachers, STUDENT, DATA]}
    outputs = {"curate": EXAMPLES, "ship": STUDENT}
    tasks = [
        {
            "bom-ref": f"task-{name}",
            "uid": name,
            "name": name,
            "description": does,
            "taskTypes": [kind],
            **({"inputs": _resources(inputs[name])} if name in inputs else {}),
            **({"outputs": _resources([outputs[name]], type="artifact")} if name in outputs else {}),
        }
        for name, does, kind in STEPS
    ]
    refs = [task["bom-ref"] for task in tasks]
    return {
        "bom-ref": "workflow",
        "uid": "distillation",
        "name": "distillation",
        "description": account.method,
        "taskTypes": ["build"],
        "tasks": tasks,
        "taskDependencies": [{"ref": at, "dependsOn": [of]} for of, at in pairwise(refs)],
        "inputs": _resources([*teachers, DATA, BASE]),
        "outputs": _resources([STUDENT], type="artifact"),
        "properties": _properties(("code", account.code), ("environment", account.environment)),
    }


def _declarations(account: Account) -> dict[str, Any]:
    """One claim a counted source, one for the verdict; the event log is the evidence for each."""
    said = [
        f"{account.share(row)} loss tokens came from {row.teacher} as {row.role}, licence {row.licence or NOT_PUBLIC}."
        for row in account.sources
        if account.share(row)
    ]
    root = {"contentType": "text/plain", "content": f"{account.log.origin}\n{account.log.size}\n{account.log.root}\n"}
    return {
        "claims": [
            {"bom-ref": f"claim-{number}", "target": STUDENT, "predicate": words, "evidence": ["evidence-log"]}
            for number, words in enumerate([*said, *([account.verdict] if account.verdict else [])], 1)
        ],
        "evidence": [
            {
                "bom-ref": "evidence-log",
                "description": "The head of the event log, in which every stage stated its inputs and outputs.",
                "data": [{"name": "log head", "contents": {"attachment": root}}],
                "created": account.created_at,
            }
        ],
    }


def _part(kind: str, ref: str, part: Part) -> dict[str, Any]:
    found = {"type": kind, "bom-ref": ref, "name": part.name, **_hashes(part.file_digest), **_licences(part.licence)}
    if web(part.url):
        found["externalReferences"] = [{"type": "distribution", "url": part.url}]
    return found


def _taken(account: Account, rows: Iterable[SourceRow]) -> list[tuple[str, Any]]:
    """What was taken in each role; the role is part of the name, since a model can have several."""
    found: list[tuple[str, Any]] = []
    for row in rows:
        found += [
            ("role", row.role),
            (f"examples:{row.role}", row.examples),
            (f"loss_tokens:{row.role}", row.loss_tokens),
        ]
        found += [(f"share:{row.role}", account.share(row))] if account.share(row) else []
    return found


def _resources(refs: Iterable[str], **more: str) -> list[dict[str, Any]]:
    return [{**more, "resource": {"ref": ref}} for ref in refs]


def _hashes(digest: str) -> dict[str, Any]:
    return {"hashes": [{"alg": "SHA-256", "content": bare(digest)}]} if digest else {}


def _licences(licence: str) -> dict[str, Any]:
    """By SPDX id where there is one, else by name; a component without `licenses` has none that is public."""
    if not licence:
        return {}
    return {"licenses": [{"license": {"id": spdx(licence)} if spdx(licence) else {"name": licence}}]}


def _properties(*pairs: tuple[str, Any]) -> list[dict[str, str]]:
    """In the `tutelage` namespace; a name may come more than once. Empty values are left out."""
    return [{"name": f"tutelage:{name}", "value": str(value)} for name, value in pairs if str(value)]
