"""The student's model card: README.md with the Hub's metadata, a `distillation:` block, and what a reader wants to know.

Pure. Metadata keys are those of the Hugging Face Hub (hub-docs, modelcard.md); free keys are allowed beside them. The Hub
refuses a `base_model` or data set that is no id of its own, so these stand there only when the address says which.
"""

import re
from typing import Any

import yaml

from tutelage.ledger.sources import SourceRow
from tutelage.ship.account import Account, Part
from tutelage.ship.words import NOT_PUBLIC, UNKNOWN, block, code, link, plain, sentence, spdx, table, web
from tutelage.terms.model import Verdict

# Licences that the Hub knows by an id of its own; this package writes them with a hyphen (`terms/data`).
HUB_LICENCES = ("gemma", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", UNKNOWN)
_HUB_ID = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}"


class Front(yaml.SafeDumper):
    """The safe dumper; whatever is not plain words is one quoted line, so that readers that look for a line of dashes,
    or take YAML 1.2 for 1.1 and back, read the same."""


Front.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if re.fullmatch(r"[A-Za-z][\w ./-]*", text, re.ASCII) else '"'
    ),
)


def model_card(account: Account, displays: tuple[str, ...]) -> str:
    """The card as Markdown with YAML front matter. `displays` are lines that a licence asks to be shown."""
    front = yaml.dump(_metadata(account), Dumper=Front, sort_keys=False, allow_unicode=True, width=1_000_000)
    body = [
        f"# {plain(account.name) or UNKNOWN}",
        *(f"**{plain(line)}**" for line in displays if plain(line)),
        _introduction(account),
        "## How to ask it",
        *_asking(account),
        "## How good it is",
        *_quality(account),
        "## Where it comes from",
        *_origin(account),
        "## Terms and conditions",
        *_terms(account),
        "## What the record proves, and what not",
        *_record(account),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(body) + "\n"


def _metadata(account: Account) -> dict[str, Any]:
    base = _hub_id(account.base, "")
    data = _hub_id(account.data, "datasets/")
    return {
        **_licence(account),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"base_model": base, "base_model_relation": "finetune"} if base else {}),
        **({"datasets": [data]} if data else {}),
        "tags": ["distillation", "tutelage"],
        "distillation": _distillation(account),
    }


def _licence(account: Account) -> dict[str, str]:
    """The base's, which the student's weights are made from."""
    licence = account.base.licence
    texts = [reason.source for one in account.terms for reason in one.reasons if reason.asked == licence]
    return licence_front(licence, texts[0] if texts else "")


def licence_front(licence: str, text: str) -> dict[str, str]:
    """A licence as the Hub's metadata say it. Any that the Hub has no id for is `other`, with name and the address of its text
    where one is known."""
    known = spdx(licence).lower() or (licence.lower() or UNKNOWN).replace("llama-", "llama")
    if spdx(licence) or known in HUB_LICENCES:
        return {"license": known}
    name = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-.") or "unnamed"
    return {"license": "other", "license_name": name} | ({"license_link": text} if web(text) else {})


def _hub_id(part: Part, kind: str) -> str:
    found = re.fullmatch(rf"https://(?:huggingface\.co|hf\.co)/{kind}({_HUB_ID})/?", part.url, re.ASCII)
    return found[1] if found and (kind or not found[1].startswith(("datasets/", "spaces/"))) else ""


def _distillation(account: Account) -> dict[str, Any]:
    return {
        "method": account.method,
        "purpose": account.purpose,
        "loss_tokens": account.target_tokens,
        "teachers": [_teacher(account, rows) for rows in account.teachers],
        "base": _named(account.base) | {"layers": f"{account.layers} of {account.base_layers}"},
        "data": _named(account.data),
        "upstream": account.upstream,
        "terms": [_verdict(one) for one in account.terms],
        "record": {
            "log": account.log.origin,
            "entries": account.log.size,
            "root": account.log.root,
            **({"weights": account.weights} if account.weights else {}),
            "statement": "statement.json",
        },
    }


def _teacher(account: Account, rows: tuple[SourceRow, ...]) -> dict[str, Any]:
    one = rows[0]
    return {
        "name": one.teacher,
        "provider": one.provider or UNKNOWN,
        "route": one.route,
        "weights": one.weights or NOT_PUBLIC,
        "licence": one.licence or NOT_PUBLIC,
        "upstream": one.upstream,
        "terms": [str(verdict.status) for verdict in account.verdicts_on(one)],
        "roles": [
            {
                "role": str(row.role),
                "examples": row.examples,
                "loss_tokens": row.loss_tokens,
                **({"share": account.share(row)} if account.share(row) else {}),
            }
            for row in rows
        ],
    }


def _named(part: Part) -> dict[str, str]:
    found = {"name": part.name, "digest": part.file_digest or UNKNOWN, "licence": part.licence or NOT_PUBLIC}
    return found | ({"url": part.url} if part.url else {})


def _verdict(verdict: Verdict) -> dict[str, Any]:
    reason = verdict.decisive
    return {
        "subject": verdict.subject,
        "purpose": str(verdict.purpose),
        "status": str(verdict.status),
        "clause": f"{reason.entry_name} {reason.number}".strip(),
        "source": reason.source,
        "conditions": [str(one.id) for one in verdict.conditions],
        "accepted_by": [one.who for one in verdict.accepted_risks],
    }


def _introduction(account: Account) -> str:
    teachers = " and ".join(f"**{plain(rows[0].teacher) or UNKNOWN}**" for rows in account.teachers) or "no model"
    return (
        f"A student of {teachers}: {account.parameters:,} parameters, {account.layers} of the {account.base_layers} layers "
        f"of {plain(account.base.name)}, distilled with tutelage {plain(account.version)}. What it does: "
        f"{sentence(account.task)}"
    )


def _asking(account: Account) -> list[str]:
    return [
        "Send one user message, with your text in place of `{text}`:",
        block(account.question),
        f"It answers with one of: {', '.join(code(label) for label in account.labels)}. The teacher's instruction and "
        "examples are no part of the prompt; they are in the weights, and the chat template here adds no system message. "
        "Load it with transformers, or serve it over the OpenAI API with `tutelage serve`.",
    ]


def _quality(account: Account) -> list[str]:
    if not account.metrics:
        return ["Not measured when this card was written."]
    head = ("system", "measure", "value", "interval", "level", "n")
    rows = [
        (
            plain(one.of),
            plain(one.name),
            plain(one.value),
            plain(f"{one.low} to {one.high}"),
            plain(one.level),
            f"{one.n:,}",
        )
        for one in account.metrics
    ]
    return [table(head, rows), *([plain(account.verdict)] if account.verdict else [])]


def _origin(account: Account) -> list[str]:
    head = ("taken from", "used as", "licence", "examples", "loss tokens", "share of loss tokens")
    rows = [
        (
            plain(row.teacher),
            plain(row.role),
            plain(row.licence or NOT_PUBLIC),
            f"{row.examples:,}",
            f"{row.loss_tokens:,}",
            account.share(row) or "not counted",
        )
        for row in account.sources
    ]
    parts = [
        f"- {what}: {link(part.name, part.url)}, licence {plain(part.licence or NOT_PUBLIC)}, {code(part.file_digest or UNKNOWN)}"
        for what, part in (("Starting weights", account.base), ("Training texts", account.data))
    ]
    return [
        table(head, rows),
        "\n".join([*parts, f"- How it was trained: {sentence(account.method)}"]),
        f"Whose output the teacher and the base were themselves trained on: {sentence(account.upstream)} Unknown is not zero.",
    ]


def _terms(account: Account) -> list[str]:
    head = ("what", "licence", "route", "verdict", "clause")
    rows = [
        (
            plain(one.subject),
            plain(one.licence or NOT_PUBLIC),
            plain(one.route),
            plain(one.status),
            link(f"{one.decisive.entry_name} {one.decisive.number}", one.decisive.source),
        )
        for one in account.terms
    ]
    kept = dict.fromkeys(one for verdict in account.terms for one in verdict.conditions)
    conditions = [f"- {plain(one.entry)}, {plain(one.id)}: {plain(one.words)}" for one in kept]
    risks = dict.fromkeys(risk for verdict in account.terms for risk in verdict.accepted_risks)
    accepted = [f"- {plain(one.who)} accepted a risk ({plain(one.scope)}): {plain(one.reason)}" for one in risks]
    warnings = dict.fromkeys(f"- {plain(words)}" for verdict in account.terms for words in verdict.warnings)
    found = [f"Judged for the purpose {code(account.purpose)}.", table(head, rows)]
    for says, lines in (
        ("Conditions that go with it:", conditions),
        ("Risks accepted by name:", accepted),
        ("Warnings:", list(warnings)),
    ):
        found += [says, "\n".join(lines)] if lines else []
    return [*found, "What the texts say, as read on the day of the run; no legal advice."]


def _record(account: Account) -> list[str]:
    log = account.log
    weights = f"These weights are {code(account.weights)}. " if account.weights else ""
    signed = (
        "Whoever signed it stands in `signer.vkey` beside the statement in its public folder; without that file nobody "
        "did, and who made it is not proved."
    )
    return [
        f"{weights}The record's log is {code(log.origin)}: {log.size:,} entries, root {code(log.root)}. {signed}",
        "Each answer is stored as received; the training set was committed before training; what was stepped on is "
        "counted and reconciled with it. With the record at hand `tutelage verify` checks all of it against these weights.",
        "It does not prove that nothing outside it was trained on, nor what the teacher and the base had learnt from whom.",
    ]
