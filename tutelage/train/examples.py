"""Conversations -> token sequences with the positions that carry a loss.

The student's own template renders them. Trained on are the answers, each up to and including the token that ends a turn,
read exactly as they are generated and served: the prompt's tokens are a prefix of the whole conversation's, and nothing
after the end of turn is learnt.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError

from tutelage.canon import digest_of
from tutelage.errors import ConfigError, DataError


class Example(NamedTuple):
    """`targets` are the places in `ids` that are learnt, ascending and above 0; the loss of each stands at the place before it.
    `source` is what the ledger counts its tokens by."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]
    source: str

    @property
    def key(self) -> str:
        """Digest of the tokens and of what is learnt of them. A teacher's signal is kept under the tokens alone
        (`store.signals`)."""
        return digest_of({"ids": list(self.ids), "targets": list(self.targets)})


class Rendered(NamedTuple):
    """Examples in the order of their conversations, and how many were left out for which reason."""

    examples: tuple[Example, ...]
    dropped: Mapping[str, int]


TOO_LONG = "longer than the limit"
CUT = "cut off before its end (finish reason length)"
EMPTY = "no answer"
MENDED = {
    TOO_LONG: "raise the limit of {} tokens (data.max_tokens, as far as the student's context goes): the shortest has {}",
    CUT: "collect those answers again with a higher max_tokens",
    EMPTY: "bring conversations that end with an answer",
}


def render(
    conversations: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], tokenizer: Any, limit_tokens: int, *,
    last_turn_only: bool = True, cut: Callable[[str], bool] = lambda source: False, purpose: str = "train on",
) -> Rendered:  # fmt: skip
    """Examples of (source, messages) to `purpose`; `cut(source)` says that an answer was cut at its token limit.

    Left out and counted, never shortened: conversations longer than `limit_tokens` (an answer cut off teaches to stop in mid
    sentence), cut answers, and those without an answer. Raises `ConfigError` for a template that ends no turn, leaves a message
    out, puts text of its own before an answer, or writes a prompt otherwise with its answer than without, and `DataError`
    when nothing is left.
    """
    ends = end_of_turn_ids(tokenizer)
    found, dropped, longer = list[Example](), Counter[str](), list[int]()
    for source, messages in conversations:
        turns = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns or not str(messages[turns[-1]].get("content") or "").strip():
            dropped[EMPTY] += 1
        elif cut(source):
            dropped[CUT] += 1
        else:
            chosen = turns[-1:] if last_turn_only else turns
            example = _example(source, list(messages[: turns[-1] + 1]), chosen, tokenizer, ends)
            if len(example.ids) > limit_tokens:
                dropped[TOO_LONG] += 1
                longer.append(len(example.ids))
            else:
                found.append(example)
    if not found:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common()) or "there were none"
        raise DataError(
            f"no conversation is left to {purpose}: {reasons}",
            fix=" and ".join(MENDED[reason].format(limit_tokens, min(longer, default=0)) for reason in dropped)
            or "give some",
        )
    return Rendered(tuple(found), dict(dropped))


def _written(tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, asked: bool = False, text: bool = False) -> Any:
    """Token ids (or text) of messages under the tokenizer's template; `asked`: ready for an answer. Raises `ConfigError` for a
    template that is no Jinja, or that refuses the messages."""
    try:
        return tokenizer.apply_chat_template(
            messages, add_generation_prompt=asked, **({"tokenize": False} if text else {"return_dict": False})
        )
    except TemplateError as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        raise ConfigError(
            f"the chat template fails on messages of {roles}: {error}",
            fix="mend the template (student.template), or bring messages in the roles that it knows (data.system adds one)",
        ) from error


def prompt_of(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """The tokens that stand before an answer to these messages. Raises `ConfigError` as `render` does."""
    return tuple(_written(tokenizer, messages, asked=True))


def end_of_turn_ids(tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer under this template. Raises `ConfigError` when the template ends none."""
    known = {tokenizer.eos_token_id, *tokenizer.all_special_ids} - {None}
    marker = "\u2042 answer"
    question = {"role": "user", "content": "question"}
    ids = _written(tokenizer, [question, {"role": "assistant", "content": marker}])
    plain = _written(tokenizer, [question], asked=True)
    after = next((token for token in ids[len(plain) :] if token in known), None)
    if after is None:
        raise ConfigError(
            "the student's chat template puts no end token after an answer: it would never learn to stop",
            fix=f"let the template (student.template) write {tokenizer.eos_token or 'the end token'} after each answer",
        )
    return frozenset({int(after)})


def _example(
    source: str, messages: list[Mapping[str, Any]], turns: Sequence[int], tokenizer: Any, ends: frozenset[int]
) -> Example:
    whole = _written(tokenizer, messages)
    targets: list[int] = []
    for turn in turns:
        prompt = _written(tokenizer, messages[:turn], asked=True)
        if whole[: len(prompt)] != prompt:
            raise ConfigError(
                f"the template writes the prompt of {source} otherwise with its answer than without it",
                fix="use a template whose text for a question does not change when the answer is added",
            )
        end = next((at for at in range(len(prompt), len(whole)) if whole[at] in ends), None)
        if end is None:
            raise ConfigError(f"the answer of {source} has no end token", fix="let the template end every turn")
        targets += range(len(prompt), end + 1)
    _require_as_said(source, messages, turns, tokenizer)
    return Example(tuple(whole[: targets[-1] + 1]), tuple(targets), source)


def _require_as_said(source: str, messages: Sequence[Mapping[str, Any]], turns: Sequence[int], tokenizer: Any) -> None:
    """What is read and learnt are the messages, all of them: templates silently skip roles they do not know, and some put an
    empty thought before each answer, which would be learnt as part of it."""
    text = _written(tokenizer, messages, text=True)
    for message in messages:
        said = _words(message).rpartition("</think>")[2].strip()  # earlier thoughts may be left out
        if said not in text and all(json.dumps(said, ensure_ascii=ascii)[1:-1] not in text for ascii in (True, False)):
            raise ConfigError(
                f"the template leaves out a message of role {message['role']!r} of {source}",
                fix="use a template that writes every role of the conversations, or drop those conversations",
            )
    for turn in turns:
        if messages[turn].keys() - {"role", "content"}:
            continue  # a thought or calls of tools, which the template puts where it likes
        prompt = _written(tokenizer, messages[:turn], asked=True, text=True)
        answer = text.removeprefix(prompt)
        if not answer.lstrip().startswith(_words(messages[turn]).strip()):
            raise ConfigError(
                f"the template puts text of its own before the answer of {source}: {answer[:40]!r}",
                fix="use a template that writes answers as they are (student.template), without an empty thought before them",
            )


def _words(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""
