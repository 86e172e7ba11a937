"""The steps of a probe that find out which supervision there is: log-probabilities of its own text and of ours, and how it
splits text.

Sources: OpenAI API reference (`completions/create`: `echo`); vLLM's OpenAI-compatible server (`prompt_logprobs`,
`/tokenize`); llama.cpp's server (`/tokenize` with `with_pieces`).
"""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from tutelage.models.probe import NO, UNKNOWN, YES
from tutelage.models.probing.asker import Heard
from tutelage.models.probing.bodies import bytes_of, dig, entries_echo, entries_prompt_logprobs, strings
from tutelage.models.probing.checks import COOLER, NUCLEUS, mass_ppm, processing
from tutelage.models.probing.findings import Findings
from tutelage.models.probing.splitting import SPLIT_TEXT, digest_of_strings, digest_of_tokens
from tutelage.records import Position

OPEN_QUESTION = "Name an animal. Answer with one word."  # many first tokens are likely: what sampling does can be seen
FIRST_K = 20
_SMALLER_K = (8, 5, 1)
_OWN_ENGINES = ("vllm", "llamacpp", "llama.cpp", "sglang")  # servers of one's own, where larger k may be set
_OWN_K = 64
_REPEAT = "Repeat this text exactly, with nothing before or after it:\n"
_REPEAT_TOKENS = 160


class _Widest(NamedTuple):
    """The largest k that worked, how many entries came back for it, what was heard last, and the words of a refusal."""

    k: int
    entries: int
    heard: Heard | None
    words: str


async def own_logprobs(found: Findings) -> None:
    """The largest k for its own output, whether values are the model's own, and how tokens are given."""

    async def ask(k: int) -> Heard:
        return await found.asker.ask(OPEN_QUESTION, 1, k=k, temperature="1")

    widest = await _widest(ask, (FIRST_K, *_SMALLER_K), _entries_own)
    if widest.k == FIRST_K and any(name in found.engine.casefold() for name in _OWN_ENGINES):
        wider = await _widest(ask, (_OWN_K,), _entries_own)
        widest = wider if wider.entries > widest.entries else widest
    plain = _first_position(widest.heard)
    if widest.k == 0 or plain is None or widest.heard is None:
        found.note("top_logprobs", NO, widest.words or "it answers without log-probabilities")
        return
    found.own_k, found.own_entries = widest.k, widest.entries
    found.note("top_logprobs", YES, f"{widest.k} asked for, {widest.entries} come back")
    has_bytes = dig(widest.heard.value, "choices", 0, "logprobs", "content", 0, "bytes")
    found.note("token_bytes", YES if isinstance(has_bytes, list) else NO)
    found.note("token_ids", YES if plain.chosen.token_id >= 0 else NO)
    found.evidence["mass_ppm"] = mass_ppm(plain)
    await _processing(found, plain)


async def _processing(found: Findings, plain: Position) -> None:
    """The same question cooler, and from a nucleus."""
    asker = found.asker
    cooler = await asker.ask(OPEN_QUESTION, 1, k=found.own_k, temperature=COOLER)
    nucleus = await asker.ask(OPEN_QUESTION, 1, k=found.own_k, temperature="1", top_p=NUCLEUS)
    found.logprobs_are, evidence = processing(
        plain,
        None if "temperature" in asker.dropped else _first_position(cooler),
        None if "top_p" in asker.dropped else _first_position(nucleus),
    )
    found.evidence |= evidence


async def supplied(found: Findings) -> None:
    """Whether it scores text that we supply: `echo` of the completions API, and vLLM's `prompt_logprobs`."""

    async def echo(k: int) -> Heard:
        extra = json.dumps({"echo": True})
        return await found.asker.ask(SPLIT_TEXT, 1, k=k, temperature="0", extra=extra, is_completion=True)

    async def prompt(k: int) -> Heard:
        extra = json.dumps({"prompt_logprobs": k})
        return await found.asker.ask(SPLIT_TEXT, 1, temperature="0", extra=extra, is_completion=True)

    tries = (found.own_k or 5, 5, 1)
    widest = await _widest(echo, tries, lambda heard: entries_echo(heard.value))
    _note_scores(found, "scores_echo", widest)
    spelled = strings(dig(widest.heard.value if widest.heard else None, "choices", 0, "logprobs", "tokens"))
    if widest.k and spelled is not None:
        found.tokenizer_digest, found.tokenizer_from = digest_of_strings(spelled), "scored text"
    if widest.heard is not None and widest.heard.is_missing:
        found.note("scores_prompt_logprobs", NO, widest.words)  # there is no completions API
        return
    widest = await _widest(prompt, tries, lambda heard: entries_prompt_logprobs(heard.value))
    _note_scores(found, "scores_prompt_logprobs", widest)


def _note_scores(found: Findings, name: str, widest: _Widest) -> None:
    found.supplied_k = max(found.supplied_k, min(widest.k, widest.entries))
    if widest.k:
        found.note(name, YES, f"{widest.k} asked for, {widest.entries} come back")
        return
    heard = widest.heard
    state = NO if heard is None or heard.state == YES else heard.state
    found.note(name, state, widest.words or "taken, but no scores of the text came")


async def split(found: Findings) -> None:
    """How it splits the known text, where scoring has not shown it: its own service for that, else its own words."""
    if not found.tokenizer_digest:
        await _served_split(found)
    if not found.tokenizer_digest and found.own_k:
        heard = await found.asker.ask(_REPEAT + SPLIT_TEXT, _REPEAT_TOKENS, k=1, temperature="0")
        tokens = [position.chosen.token_bytes for position in heard.answer.positions] if heard.answer else []
        exact = digest_of_tokens(tokens)
        found.tokenizer_digest = exact or digest_of_strings([token.decode("utf-8", "replace") for token in tokens])
        found.tokenizer_from = "its own words"
    if found.tokenizer_digest:
        found.note("tokenizer", YES, f"from {found.tokenizer_from}")
    else:
        found.tokenizer_from = ""
        found.note("tokenizer", UNKNOWN, "how it splits text was not seen")


async def _served_split(found: Findings) -> None:
    body = {"model": found.asker.model.endpoint.model, "prompt": SPLIT_TEXT, "content": SPLIT_TEXT}
    value = await found.look(
        "tokenize", {**body, "add_special_tokens": False, "with_pieces": True, "return_token_strs": True}
    )
    tokens = dig(value, "tokens")
    pieces = [bytes_of(dig(token, "piece")) for token in tokens] if isinstance(tokens, list) else []
    whole = [piece for piece in pieces if piece is not None]
    if (spelled := strings(dig(value, "token_strs"))) is not None:
        found.tokenizer_digest = digest_of_strings(spelled)
    elif len(whole) == len(pieces):
        found.tokenizer_digest = digest_of_tokens(whole)
    found.tokenizer_from = "its tokenize service"


async def _widest(
    ask: Callable[[int], Awaitable[Heard]], tries: tuple[int, ...], entries: Callable[[Heard], int]
) -> _Widest:
    """Tries each k, the largest first; after a refusal that names a smaller number, none above it."""
    left, words, heard = sorted(set(tries)), "", None
    while left:
        k = left.pop()
        heard = await ask(k)
        came = entries(heard)
        if came > 0:
            return _Widest(k, came, heard, "")
        words = words or heard.words
        if heard.state != NO or heard.is_missing:
            break  # answered without, or not at all: a smaller k is no different
        named = [int(number) for number in re.findall(r"(?<![\d.])\d{1,3}(?!\d|\.\d)", heard.words)]
        if below := [number for number in named if 1 < number < k]:
            left = sorted({*(number for number in left if number < max(below)), max(below)})
    return _Widest(0, 0, heard, words)


def _entries_own(heard: Heard) -> int:
    positions = heard.answer.positions if heard.answer is not None else ()
    return min((len(position.top) for position in positions), default=0)


def _first_position(heard: Heard | None) -> Position | None:
    answer: Any = heard.answer if heard is not None else None
    return answer.positions[0] if answer is not None and answer.positions else None
