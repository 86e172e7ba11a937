"""Exact match of texts, after the differences that do not count are taken out."""

import unicodedata
from dataclasses import dataclass

from tutelage.config import Table
from tutelage.prove.tasks.base import Answer, Score, shown, unreadable


class ExactOptions(Table):
    """Differences that do not count. Unicode forms (NFC) and, by default, the kind and number of blanks never do."""

    ignore_case: bool = False
    ignore_white_space: bool = True
    ignore_punctuation: bool = False


@dataclass(frozen=True, slots=True)
class Exact:
    """1 when the normalised texts are equal, else 0. A text of which nothing is left was not read."""

    options: ExactOptions
    name: str = "exact"
    is_binary: bool = True
    metric: str = "exact match"

    def require_reference(self, reference: str) -> None:
        if not normalised(reference, self.options):
            raise unreadable("exact", reference, "is empty", "give the text that a right answer has")

    def score(self, answer: Answer, reference: str) -> Score:
        said, right = normalised(answer.text, self.options), normalised(reference, self.options)
        return Score(float(bool(said) and said == right), bool(said), shown(said))


def normalised(text: str, options: ExactOptions) -> str:
    """NFC; then case folded, punctuation (Unicode category P) left out, runs of white space made one blank, as asked.
    Punctuation that belongs to a number stays: 3.5 is not 35, and -1 not 1."""
    text = unicodedata.normalize("NFC", text)
    if options.ignore_case:
        text = unicodedata.normalize("NFC", text.casefold())
    if options.ignore_punctuation:
        text = "".join(one for at, one in enumerate(text) if not _is_punctuation(text, at))
    return " ".join(text.split()) if options.ignore_white_space else text


def _is_punctuation(text: str, at: int) -> bool:
    if not unicodedata.category(text[at]).startswith("P"):
        return False
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    is_in_number = after.isdigit() and (before.isdigit() or (text[at] in "-." and not before.isalnum()))
    return not is_in_number
