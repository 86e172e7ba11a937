"""Croissant 1.1 description of what a student was trained on: every answer attributed to the model that gave it.

Pure. MLCommons, Croissant Format Specification 1.1 (http://mlcommons.org/croissant/1.1): required properties under
"Dataset-level Information", provenance and use conditions under "Responsible AI and Governance". The records are the
private ones of `ledger.examples`; they are described and named by digest, not handed out.
"""

from dataclasses import fields
from typing import Any

from tutelage.canon import digest_of
from tutelage.ledger.sources import SourceRow
from tutelage.ship.account import FROM_FILE, Account, examples_path
from tutelage.ship.words import NOT_PUBLIC, bare, name_of, spdx
from tutelage.terms.model import Status, Verdict

_TERMS = (
    "annotation arrayShape citeAs column containedIn equivalentProperty excludes extract field fileObject fileProperty "
    "fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path readLines recordSet references "
    "regex repeated replace samplingRate sdVersion separator source subField transform unArchive value"
)
# Appendix 1 of the specification, with the vocabularies that it recommends for provenance and use conditions.
# schema.org with https, as the specification's own example data sets and `mlcroissant` have it.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "odrl": "http://www.w3.org/ns/odrl/2/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _TERMS.split()},
}
# Field, column of the record, path inside it, type, the property of `prov:Entity` that it is, what it says.
Column = tuple[str, str, str, str, str, str]
_EVERY: tuple[Column, ...] = (
    ("position", "position", "", "sc:Integer", "", "Place in the selection that was committed before training."),
    ("role", "role", "", "sc:Text", "", "What it was used for."),
    ("prompt", "prompt", "", "sc:Text", "", "Salted digest of the messages sent."),
    ("prompt_source", "prompt_source", "$.source", "sc:Text", "prov:wasDerivedFrom", "The file the text came from."),
    ("prompt_licence", "prompt_source", "$.licence", "sc:Text", "", "The licence of that file."),
    ("passes", "tokens", "$.passes", "sc:Integer", "", "How often it was stepped on."),
)
ANSWERS: tuple[Column, ...] = (
    *_EVERY,
    ("teacher", "teacher", "$.model_asked", "sc:Text", "prov:wasAttributedTo", "The model that answered."),
    ("teacher_weights", "teacher", "$.weights_digest", "sc:Text", "", "Digest of its weights, where they are public."),
    ("provider", "teacher", "$.provider", "sc:Text", "", "Who served it."),
    ("route", "teacher", "$.route", "sc:Text", "", "How it was reached."),
    ("licence", "licence", "", "sc:Text", "", "The licence of its weights; empty where it is not public."),
    ("terms", "terms", "", "sc:Text", "", "Digest of the terms verdict it was asked under."),
    ("exchange", "exchange", "", "sc:Text", "prov:wasGeneratedBy", "Salted digest of the question and answer."),
    ("asked_at", "asked_at", "", "sc:DateTime", "prov:generatedAtTime", "When it was asked."),
    ("answer", "answer", "", "sc:Text", "", "Salted digest of the answer."),
    ("loss_tokens", "tokens", "$.loss", "sc:Integer", "", "Loss tokens: over all passes, weight counted in."),
)
PROMPTS: tuple[Column, ...] = _EVERY


def croissant(account: Account) -> dict[str, Any]:
    """The description as plain JSON-LD values. Raises `ValueError` when a digest in the account is not one."""
    answers = [at for at, row in enumerate(account.sources) if row.route != FROM_FILE]
    prompts = [at for at, row in enumerate(account.sources) if row.route == FROM_FILE]
    sets = [
        _records(account, "answers", answers, ANSWERS, "An answer that the student was stepped on, in one role."),
        _records(account, "prompts", prompts, PROMPTS, "A prompt that the student was stepped on."),
    ]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": f"training examples of {account.name}",
        "description": (
            f"What {account.name} was trained on: {account.target_tokens} loss tokens of model output. Purpose: "
            f"{account.purpose}. The records are private and are not handed out; this names them by digest, with paths "
            "relative to the run folder. Their counts, sources and Merkle roots are public: record set `sources`."
        ),
        "url": name_of(digest_of(account.examples)),  # there is no page: the canonical list of its files is its name
        "citeAs": f"{account.name}: training examples. {account.log.origin}, {account.log.size}, {account.log.root}",
        "version": "1.0.0",
        "license": _licences(account),
        "creator": {"@type": "sc:Organization", "name": "whoever signed the record: signer.vkey beside it"},
        "dateCreated": account.created_at,
        "datePublished": account.created_at,
        "keywords": ["distillation", account.method, *account.labels],
        "isAccessibleForFree": False,
        "usageInfo": [_not_handed_out(), *(_use(one) for one in account.terms)],
        "prov:wasDerivedFrom": {
            "@type": "prov:Entity",
            "prov:label": account.data.name,
            "identifier": account.data.file_digest,
        },
        "prov:wasGeneratedBy": {"@type": "prov:Activity", "prov:label": f"distillation: {account.method}"},
        "prov:wasAttributedTo": [
            {"@type": "prov:SoftwareAgent", "prov:label": rows[0].teacher} for rows in account.teachers
        ],
        "rai:hasSyntheticData": bool(account.teachers),
        "rai:dataCollection": "Prompts from a file; answers from the models named, asked for and stored as received.",
        "rai:dataUseCases": f"Training of {account.name}: {account.task}",
        "rai:dataLimitations": f"What taught the models that answered: {account.upstream}.",
        "distribution": [part for one in sets for part in one[0]],
        "recordSet": [*(one[1] for one in sets if one[1]), _sources(account)],
    }


def _records(
    account: Account, name: str, rows: list[int], columns: tuple[Column, ...], says: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The files of these source rows with a set over them, and their record set; both empty without records."""
    paths = [path for path in map(examples_path, rows) if path in account.examples]
    if not paths:
        return [], {}
    files = [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "description": "Private: not handed out.",
            "contentUrl": path,
            "encodingFormat": "application/jsonlines",
            "sha256": bare(account.examples[path]),
        }
        for path in paths
    ]
    over = {"@type": "cr:FileSet", "@id": f"{name}-files", "encodingFormat": "application/jsonlines", "includes": paths}
    record_set = {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": says,
        "dataType": "prov:Entity",
        "key": [{"@id": f"{name}/position"}, {"@id": f"{name}/role"}],
        "field": [_field(name, column) for column in columns],
    }
    return [*files, over], record_set


def _field(name: str, column: Column) -> dict[str, Any]:
    field, of, path, kind, equivalent, says = column
    source: dict[str, Any] = {"fileSet": {"@id": f"{name}-files"}, "extract": {"column": of}}
    if path:
        source["transform"] = {"jsonPath": path}
    found = {
        "@type": "cr:Field",
        "@id": f"{name}/{field}",
        "name": field,
        "description": says,
        "dataType": kind,
        "source": source,
    }
    return found | ({"equivalentProperty": equivalent} if equivalent else {})


def _sources(account: Account) -> dict[str, Any]:
    """The source table whole: as it is in the record, one row a source and role."""
    names = [field.name for field in fields(SourceRow)]
    counts = ("examples", "loss_tokens")
    return {
        "@type": "cr:RecordSet",
        "@id": "sources",
        "name": "sources",
        "description": "What was taken from whom, in which role, under which licence.",
        "key": [{"@id": f"sources/{name}"} for name in names[: names.index("upstream")]],
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"sources/{name}",
                "name": name,
                "dataType": "sc:Integer" if name in counts else "sc:Text",
            }
            for name in names
        ],
        "data": [{f"sources/{name}": value for name, value in row.to_json().items()} for row in account.sources],
    }


def _licences(account: Account) -> list[Any]:
    """Of everything that went in, each once: the description grants nothing of its own."""
    found = dict.fromkeys([account.data.licence, *(rows[0].licence for rows in account.teachers)])
    return [
        f"https://spdx.org/licenses/{spdx(one)}.html"
        if spdx(one)
        else {"@type": "sc:CreativeWork", "name": one or f"licence {NOT_PUBLIC}"}
        for one in found
    ]


def _not_handed_out() -> dict[str, Any]:
    words = (
        "The examples stay with whoever made the student. An auditor may be shown some, against the roots given here."
    )
    return {"@type": "sc:CreativeWork", "name": "not handed out", "description": words}


def _use(verdict: Verdict) -> dict[str, Any]:
    """A terms verdict as an ODRL offer. `unknown` is neither permission nor prohibition, and an accepted risk never
    makes a permission."""
    reason = verdict.decisive
    risks = "".join(f" {one.who} accepted the risk: {one.reason}." for one in verdict.accepted_risks)
    rule = {
        "odrl:action": {"@id": "odrl:use"},
        "odrl:constraint": [
            {
                "@type": "odrl:Constraint",
                "odrl:leftOperand": {"@id": "odrl:purpose"},
                "odrl:operator": {"@id": "odrl:eq"},
                "odrl:rightOperand": str(verdict.purpose),
            }
        ],
        "odrl:duty": [
            {"@type": "odrl:Duty", "name": str(one.id), "description": one.words} for one in verdict.conditions
        ],
    }
    found: dict[str, Any] = {
        "@type": ["sc:CreativeWork", "odrl:Offer"],
        "name": f"{verdict.subject}: {verdict.status} for {verdict.purpose}",
        "description": f"{reason.entry_name} {reason.number}: {reason.gist}{risks}",
        "url": reason.source,
    }
    if verdict.status.permits:
        found["odrl:permission"] = {"@type": "odrl:Permission"} | rule
    elif verdict.status is not Status.UNKNOWN:
        found["odrl:prohibition"] = {"@type": "odrl:Prohibition"} | rule
    return found
