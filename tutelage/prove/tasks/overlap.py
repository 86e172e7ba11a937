"""Overlap with a reference text: ROUGE-L by words and chrF by characters.

Both agree with the reference implementations (`rouge-score` without stemmer, `sacrebleu`) on stored values.
Sources: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), section 3.1; Popović, "chrF: character n-gram
F-score for automatic MT evaluation" (2015); Popović, "chrF++" (2017).
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from tutelage.config import Table
from tutelage.prove.tasks.base import Answer, Score, shown, unreadable

_WORD = re.compile(r"[a-z0-9]+")
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class RougeOptions(Table):
    """None: words are runs of a–z and 0–9 in lower case, as in ROUGE 1.5.5; no stemming."""


class ChrfOptions(Table):
    """Longest n-grams of characters (blanks left out) and of words (2 makes it chrF++), and the weight of recall."""

    characters: Annotated[int, Field(ge=1, le=10)] = 6
    words: Annotated[int, Field(ge=0, le=4)] = 0
    beta: Annotated[float, Field(gt=0, le=10)] = 2


@dataclass(frozen=True, slots=True)
class RougeL:
    """F1 of the longest common subsequence of words."""

    options: RougeOptions
    name: str = "rouge_l"
    is_binary: bool = False
    metric: str = "ROUGE-L"

    def require_reference(self, reference: str) -> None:
        if not words_of(reference):
            raise unreadable(
                "rouge_l",
                reference,
                "has no word of a–z and 0–9",
                'use kind = "chrf" for other scripts; give every gold',
            )

    def score(self, answer: Answer, reference: str) -> Score:
        said, right = words_of(answer.text), words_of(reference)
        common = longest_common_subsequence(said, right)
        precision, recall = _share(common, len(said)), _share(common, len(right))
        value = 2 * precision * recall / (precision + recall) if common else 0.0
        return Score(value, bool(said), shown(answer.text), {"precision": precision, "recall": recall})


@dataclass(frozen=True, slots=True)
class Chrf:
    """Character n-gram F-score from 0 to 1: mean precision and mean recall over the orders that both texts have."""

    options: ChrfOptions
    name: str = "chrf"
    is_binary: bool = False
    metric: str = "chrF"

    def require_reference(self, reference: str) -> None:
        if not reference.split():
            raise unreadable("chrf", reference, "is empty", "give every gold; leave the item out where there is none")

    def score(self, answer: Answer, reference: str) -> Score:
        precision, recall = chrf_means(answer.text, reference, self.options)
        weight = self.options.beta**2
        below = weight * precision + recall
        value = min(1.0, (1 + weight) * precision * recall / below) if below else 0.0
        is_read = bool(answer.text.split())
        return Score(value, is_read, shown(answer.text), {"precision": precision, "recall": recall})


def words_of(text: str) -> list[str]:
    """The words of ROUGE."""
    return _WORD.findall(text.lower())


def longest_common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Its length, in len(first) steps on integers of len(second) bits (Hyyrö, "Bit-parallel LCS-length computation
    revisited", 2004): a row of the table is one integer, a 0 where the length grows."""
    places: dict[Hashable, int] = {}
    for at, item in enumerate(second):
        places[item] = places.get(item, 0) | 1 << at
    full = (1 << len(second)) - 1
    row = full
    for item in first:
        found = row & places.get(item, 0)
        row = ((row + found) | (row - found)) & full
    return len(second) - row.bit_count()


def chrf_means(said: str, right: str, options: ChrfOptions) -> tuple[float, float]:
    """Mean precision and recall of n-grams over the orders for which both texts are long enough; zeros when none is."""
    pairs = [(_ngrams(_joined(said), n), _ngrams(_joined(right), n)) for n in range(1, options.characters + 1)]
    if options.words:
        ours, theirs = _split(said), _split(right)
        pairs += [(_word_ngrams(ours, n), _word_ngrams(theirs, n)) for n in range(1, options.words + 1)]
    pairs = [(one, other) for one, other in pairs if one and other]
    if not pairs:
        return 0.0, 0.0
    both = [(sum((one & other).values()), one.total(), other.total()) for one, other in pairs]
    precision = sum(common / ours for common, ours, _ in both) / len(both)
    return precision, sum(common / theirs for common, _, theirs in both) / len(both)


def _joined(text: str) -> str:
    return "".join(text.split())


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[at : at + n] for at in range(len(text) - n + 1))


def _word_ngrams(words: Sequence[str], n: int) -> Counter[str]:
    return Counter(" ".join(words[at : at + n]) for at in range(len(words) - n + 1))


def _split(text: str) -> list[str]:
    """Words with one mark at their end, or else at their beginning, made a word of its own (chrF++)."""
    found: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in _PUNCTUATION:
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in _PUNCTUATION:
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
