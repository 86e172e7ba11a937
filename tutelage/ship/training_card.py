"""The card of a student trained on conversations: what it was made of, how, and how near it came. Pure.

Metadata keys are those of the Hugging Face Hub (hub-docs, modelcard.md), as in `ship.card`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from tutelage.ship.card import Front, licence_front
from tutelage.ship.words import UNKNOWN, code, plain, table
from tutelage.stats.interval import two_sided_z, wilson_limits


class Told(NamedTuple):
    """What the card tells. `sources` are rows of `train/sources.json`; `facts` those of the stages student and train, scores in
    micro-nats a token; `teacher` is empty for training on text alone."""

    name: str
    purpose: str
    base: str
    base_licence: str
    teacher: str
    loss: str
    signal: str
    prefix: str
    sources: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any]
    adapters: str = ""
    rationale_prefix: str = ""


FEW_TOKENS = 1000  # below: a share may be three points off


def training_card(told: Told, displays: Sequence[str]) -> str:
    """Markdown with YAML front matter. `displays` are lines that a licence asks to be shown."""
    front = yaml.dump(_metadata(told), Dumper=Front, sort_keys=False, allow_unicode=True, width=1_000_000)
    facts = told.facts
    taught = f", taught by {plain(told.teacher)}" if told.teacher else ""
    body = [
        f"# {plain(told.name) or UNKNOWN}",
        *(f"**{plain(line)}**" for line in displays if plain(line)),
        f"{facts['parameters']:,} parameters, made from {plain(told.base)} ({facts['base_parameters']:,}){taught}. "
        f"Made for the purpose {code(told.purpose)}.",
        "## How it was trained",
        f"{code(told.loss)} on {told.prefix}, signal {code(told.signal)}; {facts['steps']:,} steps on "
        f"{_of(facts)} conversations, the weights of step {facts['chosen_step']:,} kept."
        + (f" Only adapters were trained ({told.adapters}), and added to the weights." if told.adapters else "")
        + (f" {_trimmed(facts)}" if "vocabulary" in facts else "")
        + (f" {_reasoning(told.rationale_prefix)}" if told.rationale_prefix else ""),
        f"## How near it came, in nats a token of {facts['validation_examples']:,} conversations set aside",
        table(("", "before", "after"), [_row("objective", facts), _row("text", facts)]),
        "The weights were chosen by these figures, so they flatter a little."
        + (" By the first of them no step was better than the student before training." if _is_worse(facts) else ""),
        *_sure(facts.get("calibration") or {}),
        "## What was taken from whom",
        table(("source", "licence", "role", "conversations", "loss tokens"), [_source(row) for row in told.sources]),
        "TERMS.md and NOTICE have the terms, lineage.json all ancestors. What a source was itself made from is unknown "
        "unless it is listed there.",
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(body) + "\n"


def _reasoning(prefix: str) -> str:
    return f"A plain question gets the answer alone; after the line {code(prefix)} a question gets the reasoning that was learnt."


def _trimmed(facts: Mapping[str, Any]) -> str:
    cut = f"The vocabulary was cut to {facts['vocabulary']:,} tokens"
    if "kept_mass_ppm" not in facts:
        return f"{cut}."
    mass = facts["kept_mass_ppm"]
    if isinstance(mass, Mapping):  # by the names of several teachers
        return f"{cut}, to which each teacher gives {min(mass.values()) / 1e4:.2f} % of its probability or more."
    return f"{cut}, to which the teacher gives {mass / 1e4:.2f} % of its probability."


def _is_worse(facts: Mapping[str, Any]) -> bool:
    return facts["objective_unats"] >= facts["before_objective_unats"]


def _of(facts: Mapping[str, Any]) -> str:
    taken, every = facts.get("taken", facts["examples"]), facts["examples"]
    return f"{taken:,} of {every:,}" if taken < every else f"{every:,}"


def _sure(ppm: Mapping[str, int]) -> list[str]:
    """How far its confidence is to be believed, and at which temperature."""
    if not ppm:
        return []
    off = (
        f"On {ppm['positions']:,} tokens of these conversations the likeliest token is right in {ppm['right_ppm'] / 1e4:.1f} %, "
        f"and its probability is {ppm['ece_ppm'] / 1e4:.1f} points off that (expected calibration error, 10 bins)."
    )
    if "teacher_ece_ppm" in ppm:
        off += f" The teacher's own is {ppm['teacher_ece_ppm'] / 1e4:.1f} points off on the same tokens."
    if ppm["positions"] < FEW_TOKENS:
        low, high = wilson_limits(ppm["right_ppm"] / 1e6, ppm["positions"], two_sided_z(0.95))
        off += (
            f" So few tokens say little: the share alone may be {100 * low:.1f} to {100 * high:.1f} % (Wilson, 95 %)."
        )
    if "temperature_ppm" not in ppm:
        return ["## How sure it is", off]
    mended = (
        f"With logits divided by {ppm['temperature_ppm'] / 1e6:.3f}, fitted on other conversations, it is "
        f"{ppm['ece_after_ppm'] / 1e4:.1f} points off. Use that temperature where its confidence decides something; it changes "
        "no likeliest token, and the generation settings are as they were."
    )
    return ["## How sure it is", f"{off} {mended}"]


def _metadata(told: Told) -> dict[str, Any]:
    method = {"loss": told.loss, "signal": told.signal, "prefix": told.prefix, "teacher": told.teacher or "none"}
    return {
        **licence_front(told.base_licence, ""),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["distillation", "tutelage"] if told.teacher else ["tutelage"],
        "distillation": {**method, "purpose": told.purpose, "base": told.base},
    }


def _row(what: str, facts: Mapping[str, Any]) -> tuple[str, str, str]:
    before, after = facts[f"before_{what}_unats"], facts[f"{what}_unats"]
    name = "cross-entropy of the text" if what == "text" else facts.get("objective", "what was made small")
    return name, f"{before / 1e6:.4f}", f"{after / 1e6:.4f}"


def _source(row: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    return (
        plain(row["teacher"]),
        plain(row["licence"]) or UNKNOWN,
        row["role"],
        f"{row['examples']:,}",
        f"{row['loss_tokens']:,}",
    )
