"""A smaller vocabulary: the tokens a corpus uses, and what else is needed so that every text can still be written.

For byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909; bytes as in GPT-2). A kept token keeps every merge that makes it
and the tokens on the way, so that the corpus is cut into the same tokens as before. Legend: V tokens.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from tutelage.errors import ConfigError

_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
_CARRIED = ("clean_up_tokenization_spaces", "model_input_names")


class Trimmed(NamedTuple):
    """Model and tokenizer with fewer tokens; `new_ids` says which id each kept one has instead."""

    model: Any
    tokenizer: Any
    new_ids: Mapping[int, int]


def require_byte_bpe(tokenizer: Any) -> dict[str, Any]:
    """The tokenizer's description as plain values. Raises `ConfigError` for any other than byte-level BPE."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    said = json.loads(backend.to_str()) if backend is not None else {}
    kind = said.get("model", {}).get("type", type(tokenizer).__name__)
    if kind != "BPE" or "ByteLevel" not in json.dumps(said.get("decoder")) or said["model"].get("byte_fallback"):
        raise ConfigError(
            f"the tokenizer is {kind}, not byte-level BPE: its vocabulary is not trimmed",
            fix="leave student.trim_vocabulary out",
        )
    return said


def kept_ids(tokenizer: Any, texts: Iterable[str]) -> tuple[int, ...]:
    """Ids the texts use, all special and single-byte tokens, and every token that those are merged from; ascending."""
    said = require_byte_bpe(tokenizer)
    vocabulary = said["model"]["vocab"]
    parts: dict[str, list[tuple[str, str]]] = {}
    for left, right in map(_pair, said["model"]["merges"]):
        parts.setdefault(left + right, []).append((left, right))
    spelled = {number: token for token, number in vocabulary.items()}
    wanted = {token for token in vocabulary if len(token) == 1}
    for text in texts:
        wanted |= {
            spelled[number] for number in tokenizer(text, add_special_tokens=False)["input_ids"] if number in spelled
        }
    waiting = list(wanted)
    while waiting:
        for pair in parts.get(waiting.pop(), ()):
            fresh = {token for token in pair if token not in wanted}
            wanted |= fresh
            waiting += fresh
    special = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    return tuple(sorted({vocabulary[token] for token in wanted} | special))


@torch.no_grad()
def trim(model: Any, tokenizer: Any, ids: Iterable[int]) -> Trimmed:
    """Keeps these ids (as `kept_ids` gives them) and those by which the model begins, ends and pads, renumbered in their order.
    Logits of kept ids are as before. Raises `ConfigError` for an id that the model has no row for."""
    said = require_byte_bpe(tokenizer)
    rows = model.get_input_embeddings().weight.shape[0]
    kept = tuple(sorted({*ids, *(number for number in _ends(model) if 0 <= number < rows)}))
    if kept[-1] >= rows:
        raise ConfigError(
            f"the tokenizer knows id {kept[-1]}, the model only {rows}",
            fix="give the tokenizer that goes with the model",
        )
    new_ids = {old: new for new, old in enumerate(kept)}
    vocabulary = {token: new_ids[old] for token, old in said["model"]["vocab"].items() if old in new_ids}
    said["model"]["merges"] = [
        merge
        for merge in said["model"]["merges"]
        if all(token in vocabulary for token in (*_pair(merge), "".join(_pair(merge))))
    ]
    said["model"]["vocab"] = vocabulary
    for token in said.get("added_tokens", ()):
        token["id"] = new_ids[token["id"]]
    _renumber(said.get("post_processor"), new_ids)
    said["padding"] = said["truncation"] = None  # left over from the last call, with ids of before
    smaller = _smaller_tokenizer(tokenizer, said)
    config = type(model.config).from_dict(
        model.config.to_dict() | _ids_of(model.config, new_ids) | {"vocab_size": len(kept)}
    )
    new = type(model)(config)
    rows_V = torch.tensor(kept)
    values = dict(model.state_dict())
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        for name, value in model.named_parameters(remove_duplicate=False):
            if any(value is parameter for parameter in module.parameters()):
                values[name] = value[rows_V]
    new.load_state_dict(values)
    new.generation_config = type(model.generation_config).from_dict(
        model.generation_config.to_dict() | _ids_of(model.generation_config, new_ids)
    )
    return Trimmed(new.train(model.training), smaller, new_ids)


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _ends(model: Any) -> set[int]:
    """Ids by which the model begins, ends and pads, as its configurations say."""
    found: set[int] = set()
    for config in (model.config, model.generation_config):
        for name in _SPECIAL:
            value = getattr(config, name, None)
            found.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return found


def _ids_of(config: Any, new_ids: Mapping[int, int]) -> dict[str, Any]:
    """The special ids a configuration names, renumbered; those no model row stands for are left out."""
    found: dict[str, Any] = {}
    for name in _SPECIAL:
        value = getattr(config, name, None)
        if isinstance(value, list | tuple):
            found[name] = [new_ids[number] for number in value if number in new_ids]
        elif value is not None:
            found[name] = new_ids.get(value)
    return found


def _renumber(processor: Any, new_ids: Mapping[int, int]) -> None:
    """Special tokens that a template writes around text."""
    for part in (processor or {}).get("processors", [processor] if processor else []):
        for token in (part.get("special_tokens") or {}).values():
            token["ids"] = [new_ids[number] for number in token["ids"]]
        for name in ("sep", "cls"):  # as RoBERTa's kind writes them
            if name in part:
                part[name][1] = new_ids[part[name][1]]


def _smaller_tokenizer(tokenizer: Any, said: Mapping[str, Any]) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    named = {name: value for name, value in tokenizer.init_kwargs.items() if name in _CARRIED}
    smaller: Any = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(said)), **named, **tokenizer.special_tokens_map
    )
    for name in ("model_max_length", "padding_side", "truncation_side"):
        setattr(smaller, name, getattr(tokenizer, name))
    smaller.chat_template = tokenizer.chat_template
    return smaller
