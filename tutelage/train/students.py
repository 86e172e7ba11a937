"""Making a student of any kind out of a base: whole, cut in depth or width, begun at random, with fewer tokens.

`train.student` reads a base, from safetensors or GGUF, and writes a folder; here stands what happens between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from tutelage.errors import ConfigError
from tutelage.jsonl import writing
from tutelage.models.quiet import without_bars
from tutelage.train.prune import (
    Cut,
    choose_cut,
    choose_layers,
    head_width,
    importance,
    narrowed,
    require_llama_like,
    resized,
)
from tutelage.train.student import load_base
from tutelage.train.trim import kept_ids, trim


@dataclass(frozen=True, slots=True)
class StudentSpec:
    """What a student is. Sizes that are None stay the base's. `keep` says which layers of fewer: the "first", "even"ly spaced,
    or those of most "importance". `init` = "random" takes the base's tokenizer and shape (with these sizes) and no weights."""

    init: Literal["whole", "pruned", "random"] = "whole"
    layers: int | None = None
    keep: Literal["first", "even", "importance"] = "first"
    hidden: int | None = None
    neurons: int | None = None
    heads: int | None = None
    trim_vocabulary: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a word that is not known, a size below 1, or a size that would be ignored."""
        for name, known in (("init", ("whole", "pruned", "random")), ("keep", ("first", "even", "importance"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} = {getattr(self, name)!r}", fix=f"use one of {', '.join(known)}")
        sizes = [name for name in ("layers", "hidden", "neurons", "heads") if getattr(self, name) is not None]
        for name in sizes:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}", fix="give 1 or more, or leave it out")
        if self.init == "whole" and sizes:
            raise ConfigError(
                f'init = "whole" with {sizes[0]} = {getattr(self, sizes[0])}',
                fix='use init = "pruned", or leave the size out',
            )

    @property
    def judges(self) -> bool:
        """Whether what goes is chosen by what it does on text."""
        narrows = any(size is not None for size in (self.hidden, self.neurons, self.heads))
        return self.init == "pruned" and (narrows or self.keep == "importance")


class Made(NamedTuple):
    """A student in memory, with plain integers about it."""

    model: Any
    tokenizer: Any
    facts: dict[str, Any]


def make(
    spec: StudentSpec, source: Path, out: Path, texts: Sequence[str] = (), template: str | None = None
) -> dict[str, Any]:
    """Writes a Hugging Face folder (safetensors float32) and returns facts. `source` is a GGUF file or such a folder; `texts`
    are what importance is judged on and what a trimmed vocabulary must keep. Raises `ConfigError` for what does not fit."""
    model, tokenizer = load_base(source)
    made = shaped(spec, model, tokenizer, texts)
    if template is not None:
        made.tokenizer.chat_template = template
    with without_bars(), writing(out):
        made.model.save_pretrained(out)
        made.tokenizer.save_pretrained(out)
    return made.facts


def shaped(spec: StudentSpec, model: Any, tokenizer: Any, texts: Sequence[str] = ()) -> Made:
    """The student of a base that is in memory."""
    facts: dict[str, Any] = {"base_parameters": _count(model), "base_layers": model.config.num_hidden_layers}
    if (spec.trim_vocabulary or spec.judges) and not any(texts):
        raise ConfigError("no text to judge importance and used tokens by", fix="give some of the training text")
    if spec.init == "pruned":
        # With the start token that the base was trained to find there, if it has one.
        documents = [tokenizer(text)["input_ids"] for text in texts]
        model = _pruned(spec, model, [ids for ids in documents if ids])
    elif spec.init == "random":
        model = _random(spec, model)
    if spec.trim_vocabulary:
        trimmed = trim(model, tokenizer, kept_ids(tokenizer, texts))
        model, tokenizer = trimmed.model, trimmed.tokenizer
        facts["tokens"] = len(trimmed.new_ids)
    facts |= {"parameters": _count(model), "layers": model.config.num_hidden_layers}
    return Made(model, tokenizer, facts)


def _pruned(spec: StudentSpec, model: Any, documents: Sequence[Sequence[int]]) -> Any:
    base = model.config.num_hidden_layers
    require_llama_like(model, "pruning")
    found = importance(model, documents) if spec.judges else None
    layers = choose_layers(base, spec.layers or base, spec.keep, None if found is None else found.blocks_L)
    if found is not None:
        return narrowed(model, choose_cut(model, found, layers, spec.hidden, spec.neurons, spec.heads))
    config = model.config
    everything = Cut(
        layers,
        torch.arange(config.hidden_size),
        tuple(torch.arange(config.intermediate_size) for _ in layers),
        tuple(torch.arange(config.num_key_value_heads) for _ in layers),
    )
    return narrowed(model, everything)


def _random(spec: StudentSpec, model: Any) -> Any:
    config = model.config
    if any((spec.hidden, spec.neurons, spec.heads)) and not hasattr(config, "num_key_value_heads"):
        raise ConfigError(
            f"{type(config).__name__} names its sizes in a way of its own: a narrower one is not known",
            fix='start from a Llama-like model, or give layers alone with init = "random"',
        )
    sizes = {"num_hidden_layers": spec.layers or config.num_hidden_layers}
    if any((spec.hidden, spec.neurons, spec.heads)):
        sizes |= _widths(spec, config)
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        new = type(model)(resized(config, sizes))
    new.generation_config = model.generation_config
    return new


def _widths(spec: StudentSpec, config: Any) -> dict[str, int]:
    """Sizes of a narrower configuration. A head's width stays the base's unless channels or heads are given."""
    shared = config.num_attention_heads // config.num_key_value_heads
    heads, hidden = spec.heads or config.num_attention_heads, spec.hidden or config.hidden_size
    if heads % shared:
        raise ConfigError(f"{heads} heads in groups of {shared}", fix=f"choose a multiple of {shared}")
    width = head_width(config) if spec.hidden is None and spec.heads is None else hidden // heads
    if width < 2 or width % 2:
        raise ConfigError(
            f"{hidden} channels on {heads} heads", fix="choose a size that gives every head an even width"
        )
    return {
        "hidden_size": hidden,
        "intermediate_size": spec.neurons or config.intermediate_size,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // shared,
        "head_dim": width,
    }


def _count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
