"""The student's folder before training, as the run file wants it, and after, as people use it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tutelage.canon import digest_file
from tutelage.errors import ConfigError
from tutelage.jsonl import pretty, write_whole, writing
from tutelage.models.quiet import quiet_transformers
from tutelage.pipeline.gate import require_met
from tutelage.pipeline.gate_training import TrainingGate, base_in
from tutelage.pipeline.talks import BEFORE, SOURCES
from tutelage.pipeline.teachers import named
from tutelage.pipeline.teaching_plan import token_count, with_adapters
from tutelage.ship.notices import write_notices
from tutelage.ship.student import ship
from tutelage.ship.training_card import Told, training_card
from tutelage.terms.conditions import obligations
from tutelage.terms.lineage import IN_FOLDER
from tutelage.train.checkpoint import load_weights
from tutelage.train.examples import end_of_turn_ids
from tutelage.train.lora import merge
from tutelage.train.student import load_base, load_student, require_layers
from tutelage.train.students import StudentSpec, shaped
from tutelage.training_config import TrainingConfig

LOOKED_AT = 32  # conversations that importance is judged on
FRAME = [
    {"role": "user", "content": ""},
    {"role": "assistant", "content": ""},
]  # what a template writes around any text


def make_pupil(config: TrainingConfig, source: Path, texts: Sequence[str], out: Path) -> dict[str, Any]:
    """Writes the folder (safetensors, float32); returns plain integers. Its head is as wide as its tokenizer: columns beyond it
    are no tokens, and differ from model to model. Raises `ConfigError` for what does not fit, or a template that is missing
    or ends no turn."""
    table = config.student
    if table.start == "pruned" and table.layers is not None:
        require_layers(source, table.layers)
    model, tokenizer = load_base(source)
    if table.template is not None:
        tokenizer.chat_template = table.template
    if not tokenizer.chat_template:
        raise ConfigError(
            f"{source.name} brings no chat template",
            fix="give student.template, the one that the teacher was trained with",
        )
    end_of_turn_ids(tokenizer)
    spec = StudentSpec(
        init=table.start,  # pyrefly: ignore
        layers=table.layers, keep=table.keep, hidden=table.hidden, neurons=table.neurons, heads=table.heads,
        seed=config.run.seed,
    )  # fmt: skip
    made = shaped(spec, model, tokenizer, texts[:LOOKED_AT])
    facts = made.facts
    if table.trim_vocabulary:
        frame = made.tokenizer.apply_chat_template(FRAME, tokenize=False)
        made = shaped(StudentSpec(trim_vocabulary=True), made.model, made.tokenizer, [*texts, frame])
        facts |= {"vocabulary": made.facts["tokens"]}
    _fit_head(made.model, token_count(made.tokenizer))
    facts["parameters"] = sum(parameter.numel() for parameter in made.model.parameters())
    with quiet_transformers(), writing(out):
        made.model.save_pretrained(out)
        made.tokenizer.save_pretrained(out)
    return facts


def _fit_head(model: Any, tokens: int) -> None:
    rows = model.get_output_embeddings().weight.shape[0]
    if rows < tokens:
        raise ConfigError(
            f"the base has {rows} rows of embeddings for {tokens} tokens",
            fix="save the base with embeddings for all of its tokenizer's tokens",
        )
    if rows > tokens:
        model.resize_token_embeddings(tokens)


def ship_pupil(
    config: TrainingConfig,
    gate: TrainingGate,
    folder: Path,
    extras: Path,
    facts: dict[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Writes `student/`: trained weights (adapters added), tokenizer, template and generation_config as they were, card, notices
    and lineage; `say` is told where an earlier student went. Raises `TermsError` when a condition of the terms is not met by
    what would be handed on."""
    model, _ = load_student(folder / BEFORE)
    model = with_adapters(config, model)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in load_weights(folder / "train" / "weights.safetensors").items():
            own[name].copy_(value)
    if config.student.lora is not None:
        model = merge(model)
    together, conditions = gate.gate.together, gate.gate.conditions
    displays = write_notices(extras, together, conditions, config.ship.licence_files)
    write_whole(extras / IN_FOLDER, pretty(replace(gate.gate.lineage, artefact=config.run.name).to_json()))
    card = training_card(_told(config, folder, facts), displays)
    with quiet_transformers():
        judge = require_met(config, obligations(conditions), card)
        kept = ship(model, folder / BEFORE, card, extras, folder / "student", judge)
    if kept is not None:
        say(f"ship: the student that was here is kept as {kept.name}")
    return {"weights": digest_file(folder / "student" / "model.safetensors")}


def _prefix(signal: str, loss: str, share: float) -> str:
    """Whose text was learnt on, in words."""
    if signal == "pairs":
        return "the data's text, preferred to the student's own"
    if loss.startswith("distillm-2"):
        return "the data's text and the student's own answers to the same questions"
    return f"the student's own text in {share:.0%} of the steps" if share else "the data's text"


def _told(config: TrainingConfig, folder: Path, facts: dict[str, Any]) -> Told:
    base, method = base_in(config), config.method
    share = method.student_share
    return Told(
        name=config.run.name,
        purpose=config.run.purpose,
        base=base.name,
        base_licence=base.licence,
        teacher=named(config),
        loss=facts["loss"],
        signal=facts["signal"],
        prefix=_prefix(facts["signal"], facts["loss"], share),
        sources=json.loads((folder / SOURCES).read_bytes())["rows"],
        facts=facts,
        adapters="" if config.student.lora is None else f"LoRA of rank {config.student.lora.rank}",
        rationale_prefix=method.rationale_prefix if config.data.has_rationales else "",
    )
