"""Answers the student writes itself, for training on its own text: what one is, who writes them, when they go bad.

Token ids cross every boundary, never text: text that is tokenised again may come back as other tokens. The distribution that is
drawn from is the model's own at the temperature asked for, with nothing cut away. `rollout_local` writes with the model
being trained, `rollout_llamacpp` and `rollout_server` through engines that are given its weights.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from tutelage.errors import ConfigError, DataError, TeacherError

GREEDY = 0.0
_SEEDS = 1 << 31  # what every engine takes
_FLOOR = -9998.0  # −9999 is how a server writes "none"; no token this unlikely is ever drawn


class Rollout(NamedTuple):
    """One answer to `prompt_ids`.

    `logp` are natural logs, at temperature 1 and of the whole distribution, of the tokens drawn, as the engine that drew them
    computed them. `finished`: ended by an end token, which is then the last of `ids`; otherwise it was cut at
    `max_new_tokens`, and no end token is made up for it.
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logp: tuple[float, ...]
    finished: bool


class Roller(Protocol):
    """An engine that writes rollouts."""

    def write(
        self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, temperature: float, seeds: Sequence[int]
    ) -> list[Rollout]:
        """One answer a prompt, in their order; `seeds` has one number for each. Temperature 0 takes the likeliest token.

        Raises `DataError` as `check` does, before anything is generated.
        """
        ...

    def refresh(self, model: Any) -> None:
        """Takes over the weights of a Hugging Face model; the next `write` answers with them."""
        ...

    def close(self) -> None:
        """Ends what was started; the roller cannot be used any more."""
        ...


def check(
    prompts: Sequence[tuple[int, ...]],
    max_new_tokens: int,
    temperature: float,
    seeds: Sequence[int],
    context_tokens: int,
) -> None:
    """Raises `DataError` for what no engine could answer: an empty prompt, one that leaves no room for `max_new_tokens` in
    the context, a temperature below 0, and seeds that are not one a prompt from 0 to 2³¹ − 1."""
    if max_new_tokens < 1:
        raise DataError(f"max_new_tokens is {max_new_tokens}", fix="ask for at least 1 token")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise DataError(f"temperature is {temperature}", fix="use 1, the student's own distribution, or 0 for greedy")
    if len(seeds) != len(prompts):
        raise DataError(f"{len(seeds)} seeds for {len(prompts)} prompts", fix="give each prompt its own seed")
    for at, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        if not 0 <= seed < _SEEDS:
            raise DataError(f"seed {seed} of prompt {at}", fix="use seeds from 0 to 2147483647")
        if not prompt:
            raise DataError(f"prompt {at} is empty", fix="drop it, or give it at least its start token")
        if len(prompt) + max_new_tokens > context_tokens:
            raise DataError(
                f"prompt {at} has {len(prompt)} tokens; with {max_new_tokens} new ones that is more than the context "
                f"of {context_tokens}",
                fix=f"drop it, or lower max_new_tokens to {max(context_tokens - len(prompt), 0)}",
            )


def end_ids(model: Any, *more: int) -> frozenset[int]:
    """The tokens that end an answer: those of the model's generation_config (one id or a list) and those named.

    Nothing else of generation_config is ever used. Raises `ConfigError` when there is none: every answer would run to its
    limit.
    """
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if named is None:
        named = model.config.get_text_config(decoder=True).eos_token_id
    found = frozenset([*(named if isinstance(named, list | tuple) else [] if named is None else [named]), *more])
    if not found:
        raise ConfigError("the student names no end token", fix="name the token that ends a turn: end_ids")
    return found


def context_tokens(model: Any) -> int:
    """How many tokens the model can read, prompt and answer together."""
    return int(getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", 1 << 20))


def from_engine(
    prompt: tuple[int, ...], ids: Sequence[int], logp: Sequence[float], ends: frozenset[int], max_new_tokens: int
) -> Rollout:
    """What another engine answered, cut after the first end token. Raises `TeacherError` for an answer that is none: no
    token, log-probabilities that are not one each, placeholders or above 0, or one that stopped early without an end token."""
    last = next((at for at, token in enumerate(ids) if token in ends), len(ids) - 1)
    ids, logp = tuple(ids[: last + 1]), tuple(logp[: last + 1])
    finished = bool(ids) and ids[-1] in ends
    if not ids or len(logp) != len(ids) or not all(_FLOOR < value < 1e-3 for value in logp):
        raise TeacherError(
            f"the engine answered {len(ids)} tokens with {len(logp)} log-probabilities {list(logp[:4])}",
            fix="it has to give the log-probability of every token it drew",
        )
    if not finished and len(ids) != max_new_tokens:
        raise TeacherError(
            f"the engine stopped after {len(ids)} of {max_new_tokens} tokens without an end token (last id {ids[-1]})",
            fix="end tokens of engine and student differ, or a stop word is set: give the engine the student's own",
        )
    return Rollout(prompt, ids, tuple(min(value, 0.0) for value in logp), finished)
