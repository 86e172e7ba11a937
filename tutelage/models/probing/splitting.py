"""Which tokenizer is it? How it splits one text, as a digest that is the same wherever the split is seen.

Two vocabularies of one size may differ, and one tokenizer may be padded to several sizes: only how a text is cut tells.
Endpoints show tokens as text, so that half a character is seen as U+FFFD or as nothing; therefore tokens are grouped until a
group ends where a character ends, and neighbouring groups of several tokens become one: what is left can be told from
either view.
"""

import base64
import re
from collections.abc import Callable, Sequence

from tutelage.canon import digest_of
from tutelage.models.tokens import byte_level

# Words common and rare, accents, scripts, digits, code, emoji: where tokenizers differ. Odd characters stand apart, so that
# the group of one never touches the next.
SPLIT_TEXT = (
    "The naïve café owner paid 1234567.89 for x+=1; def f(a_b):\n\treturn a_b  # Straße, 東 and 🙂 and ž "
    "pneumonoultramicroscopic WHATSOEVER don't"
)
_MAX_TOKENS = 2000
_ODD = "[^\\x00-\\x7f]+"
_MOST_ODD = 16
_EXTRA = 4
_BROKEN = re.compile("\ufffd+")


def tokenizer_digest_of(tokenize: Callable[[str], list[bytes]]) -> str:
    """Digest of how a tokenizer that we hold splits `SPLIT_TEXT`: tokens as bytes, special ones before it allowed. Empty
    when the tokens do not make up the text."""
    return digest_of_tokens(tokenize(SPLIT_TEXT))


def digest_of_tokens(tokens: Sequence[bytes]) -> str:
    """The digest for tokens given as bytes; tokens before and after the text (start, end) do not count. Empty when the
    text is not there."""
    text = SPLIT_TEXT.encode()
    joined = b"".join(tokens)
    found = joined.find(text)
    if found < 0:
        return ""
    groups: list[tuple[bytes, int]] = []
    at, held, count = 0, b"", 0
    for token in tokens:
        start, at = at, at + len(token)
        if at <= found or start >= found + len(text):
            continue
        held += token[max(0, found - start) : len(token) - max(0, at - found - len(text))]
        count += 1
        if _ends_a_character(held):
            groups.append((held, count))
            held, count = b"", 0
    return _digest(groups)


def digest_of_strings(tokens: Sequence[str]) -> str:
    """The digest for tokens as an endpoint spells them: as text, or in a byte-level or SentencePiece vocabulary's own
    spelling. Empty when they do not make up the text."""
    if len(tokens) > _MAX_TOKENS or sum(map(len, tokens)) > _MAX_TOKENS:
        return ""
    for spell in (_as_text, byte_level, _sentence_piece):
        spelled = [spell(token) for token in tokens]
        if None not in spelled and (found := digest_of_tokens([token for token in spelled if token is not None])):
            return found
    return _digest_of_lossy(tokens)


def _digest_of_lossy(tokens: Sequence[str]) -> str:
    """Tokens of which some are no whole character. U+FFFD stands for bytes beyond ASCII and odd characters stand apart, so
    the whole characters around fix which; an empty token belongs to the next."""
    for first in range(
        min(_EXTRA, len(tokens))
    ):  # start and end tokens, and one more answered, are not part of the text
        for last in range(len(tokens), max(first, len(tokens) - _EXTRA), -1):
            runs = _runs([tokens[first].lstrip(" "), *tokens[first + 1 : last]])
            pattern = "".join(f"({_BROKEN.sub(_odd, re.escape(text))})" for text, _ in runs)
            if pattern.count(_ODD) <= _MOST_ODD and (match := re.fullmatch(pattern, SPLIT_TEXT)):
                return _digest([(text.encode(), count) for text, (_, count) in zip(match.groups(), runs, strict=True)])
    return ""


def _odd(found: re.Match[str]) -> str:
    return _ODD


def _runs(tokens: Sequence[str]) -> list[tuple[str, int]]:
    """Neighbouring tokens that are no whole character, as one, with their number; the rest one by one."""
    runs: list[tuple[str, int]] = []
    is_open = False
    for token in tokens:
        broken = not token or "\ufffd" in token
        if is_open and (broken or not runs[-1][0]):
            runs[-1] = (runs[-1][0] + token, runs[-1][1] + 1)
        else:
            runs.append((token, 1))
        is_open = broken
    return runs


def _ends_a_character(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return bool(data)


def _digest(groups: Sequence[tuple[bytes, int]]) -> str:
    merged: list[tuple[bytes, int]] = []
    for data, count in groups:
        if merged and count > 1 and merged[-1][1] > 1:
            before = merged.pop()
            data, count = before[0] + data, before[1] + count
        merged.append((data, count))
    return digest_of([[base64.b64encode(data).decode("ascii"), count] for data, count in merged])


def _as_text(token: str) -> bytes | None:
    return None if "\ufffd" in token else token.encode("utf-8", "surrogatepass")


def _sentence_piece(token: str) -> bytes | None:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes.fromhex(token[3:5])
        except ValueError:
            return None
    return _as_text(token.replace("▁", " "))
