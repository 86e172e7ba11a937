"""The synthetic-data section of the EU's public summary of training content, filled from a student's record.

Pure. Article 53(1)(d) of Regulation (EU) 2024/1689; template of the Commission's AI Office (C(2025) 8311), sections 1.1, 1.2
and 2.5. The questions and field names are those of public filled copies of the template, not of the template itself;
fields that were not seen there are left out. What the record cannot know is left to the person, and marked.
"""

from tutelage.ledger.sources import SourceRow
from tutelage.ship.account import Account
from tutelage.ship.words import NOT_PUBLIC, UNKNOWN, code, link, plain, sentence, table

FILL_IN = "**[to be filled in by the provider]**"


def eu_summary(account: Account) -> str:
    """Markdown: the header's fields and section 2.5, each as answered by the record or marked `FILL_IN`."""
    yes = bool(account.teachers)
    return "\n\n".join([*_head(account), *(_synthetic(account) if yes else _none()), *_notes()]) + "\n"


def _head(account: Account) -> list[str]:
    base = link(account.base.name, account.base.url)
    return [
        "# Public summary of training content: synthetic data",
        "From the record of a distillation, for the summary that Article 53(1)(d) of Regulation (EU) 2024/1689 asks of "
        "providers of general-purpose AI models. Whether that article applies to this model is the provider's to judge. "
        f"Made by tutelage {plain(account.version)} from the record of {plain(account.created_at)}.",
        f"Version of the Summary: {FILL_IN}",
        f"Last update: {FILL_IN}",
        "## 1. General information",
        "### 1.1. Provider identification",
        f"Provider name and contact details: {FILL_IN}",
        f"Authorised representative name and contact details: {FILL_IN}",
        "### 1.2. Model identification",
        f"Versioned model name(s): {plain(account.name)}, weights {code(account.weights)}",
        f"Model dependencies: {base}, of which this model keeps {account.layers} of {account.base_layers} layers (weights "
        f"{code(account.base.file_digest or UNKNOWN)}, licence {plain(account.base.licence or NOT_PUBLIC)}). Link to the summary "
        f"of that model: {FILL_IN}",
        f"Date of placement of the model on the Union market: {FILL_IN}",
        "## 2. List of data sources",
        "### 2.5. Synthetic data",
    ]


def _synthetic(account: Account) -> list[str]:
    head = ("model", "provider", "route", "weights", "licence", "used as", "examples", "loss tokens", "share")
    rows = [_row(account, row) for rows in account.teachers for row in rows]
    return [
        "Was synthetic AI-generated data created by the provider or on their behalf to train the model? **Yes**",
        "Modality of the synthetic data: **Text**",
        "General-purpose AI model(s) used to generate the synthetic data, if available on the market: which of the models "
        f"below are, and links to their own summaries: {FILL_IN}",
        table(head, rows),
        "Information about other AI models, including the provider's own that are not on the market, used to generate "
        f"synthetic data to train the model: which of the models above are such: {FILL_IN}. What is known of what they were "
        f"trained on: {sentence(account.upstream)}",
        "Additional comments (optional): "
        f"{sentence(account.method)} Shares are of {account.target_tokens} loss tokens, counted from the batches that were "
        f"stepped on. The prompts' texts came from {link(account.data.name, account.data.url)}, licence "
        f"{plain(account.data.licence or NOT_PUBLIC)}; they are no synthetic data by this record and belong in the section "
        "that fits their source. The record: "
        f"{code(account.log.origin)}, {account.log.size:,} entries, root {code(account.log.root)}.",
    ]


def _row(account: Account, row: SourceRow) -> tuple[str, ...]:
    return (
        plain(row.teacher),
        plain(row.provider or UNKNOWN),
        plain(row.route),
        code(row.weights) if row.weights else NOT_PUBLIC,
        plain(row.licence or NOT_PUBLIC),
        plain(row.role),
        f"{row.examples:,}",
        f"{row.loss_tokens:,}",
        account.share(row) or "not counted",
    )


def _none() -> list[str]:
    return [
        "Was synthetic AI-generated data created by the provider or on their behalf to train the model? **No**: no model "
        "was asked for this training."
    ]


def _notes() -> list[str]:
    return [
        "---",
        f"Every {FILL_IN} is for a person. The other sections of the template (1.3, 2.1 to 2.4, 2.6 and 3) are not made from "
        "this record: they ask for what it does not hold. Field names follow published filled copies of the template.",
    ]
