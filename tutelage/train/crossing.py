"""A conversation as a teacher with another tokenizer reads it, and the chunks of the answer that both spell in whole tokens. No
torch.

The teacher reads its own prompt, under its own template, and then the answer's bytes: what the data says, or what the student
wrote. Its answer is tokenised by itself, as it would have been generated. An end of turn goes with the other's end of turn,
whatever the two are called.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tutelage.models.alignment import Chunk, Speller, align, text_of
from tutelage.train.examples import Example, end_of_turn_ids, prompt_of

BETWEEN = "\n\n"  # the turns of a prompt for a teacher without a template
LONG = "longer than the teacher's context"
OTHER = "other bytes to the teacher's tokenizer"
SPECIAL = "a special token stands inside"


class Crossed(NamedTuple):
    """What the teacher reads, `ids`, of which the answer's tokens stand from `first` on, and the chunks. `left` of a chunk are
    places among the example's targets, `right` places in the teacher's answer. `sizes` are the bytes of each chunk, 0 of an end
    of turn. `missing` says why the last of the targets are in no chunk; empty where all are, but for an end that the teacher
    knows none for."""

    ids: tuple[int, ...]
    first: int
    chunks: tuple[Chunk, ...]
    sizes: tuple[int, ...]
    missing: str


class Answer(NamedTuple):
    """The student's answer: the bytes of its tokens before its end or the first other special token, how many tokens there are,
    and whether the last of them ends it."""

    pieces: tuple[bytes, ...]
    tokens: int
    finished: bool

    @property
    def plain(self) -> bool:
        """No special token stands inside."""
        return len(self.pieces) + self.finished == self.tokens


def answer_of(example: Example, student: Speller, ends: frozenset[int]) -> Answer:
    """What is learnt of an example, as bytes; `ends` are the tokens that end an answer."""
    ids = [example.ids[at] for at in example.targets]
    finished = ids[-1] in ends
    return Answer(student.pieces(ids[:-1] if finished else ids), len(ids), finished)


class Crossing:
    """From the student's examples to what the teacher reads. `heard` are the messages of each conversation by `Example.source`,
    as the teacher is to read them; `ends` the tokens that end the student's answers; `limit` what the teacher's context holds.

    A teacher without a template is given the turns as plain text with an empty line after each. It knows no end of turn, and
    nothing is said about the student's. Raises `ResourceError` when one of the tokenizers is not a fast one.
    """

    def __init__(
        self, student: Any, teacher: Any, heard: Mapping[str, Sequence[Mapping[str, Any]]], ends: frozenset[int],
        limit: int,
    ) -> None:  # fmt: skip
        self._student, self._teacher = Speller(student), Speller(teacher)
        self._tokenizer, self._heard, self._ends, self.limit = teacher, heard, ends, limit
        self._end = min(end_of_turn_ids(teacher)) if teacher.chat_template else None
        self._prompts: dict[str, tuple[int, ...]] = {}

    def __call__(self, example: Example) -> Crossed:
        """Raises `ConfigError` for a template that fails on the conversation."""
        answer, prompt = self.answer(example), self.prompt(example.source)
        text = text_of(answer.pieces)
        spelled, room = self._teacher.spell(text), self.limit - len(prompt)
        chunks = [one for one in align(answer.pieces, spelled.pieces) if one.right_stop <= room]
        missing = "" if answer.plain else SPECIAL
        if not spelled.whole or text.encode() != b"".join(answer.pieces):
            missing = OTHER
        if len(spelled.ids) + (self._end is not None) > room:
            missing = LONG
        if not answer.finished:  # cut in the middle of a word, maybe, which the teacher would not have ended there
            chunks = chunks[:-1]
        sizes = [sum(len(piece) for piece in answer.pieces[one.left_start : one.left_stop]) for one in chunks]
        ids = (*prompt, *spelled.ids[: chunks[-1].right_stop if chunks else 0])
        if answer.finished and self._end is not None and not missing:
            last, place = answer.tokens - 1, len(ids) - len(prompt)
            chunks.append(Chunk(last, last + 1, place, place + 1))
            ids, sizes = (*ids, self._end), [*sizes, 0]
        return Crossed(ids, len(prompt), tuple(chunks), tuple(sizes), missing)

    def answer(self, example: Example) -> Answer:
        """What the student wrote, or is to learn to write."""
        return answer_of(example, self._student, self._ends)

    def prompt(self, source: str) -> tuple[int, ...]:
        """What the teacher reads before the answer of a conversation."""
        if source not in self._prompts:
            self._prompts[source] = self._written(self._heard[source][:-1])
        return self._prompts[source]

    def _written(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        if self._tokenizer.chat_template:
            return prompt_of(self._tokenizer, messages)
        text = "".join(f"{message['content']}{BETWEEN}" for message in messages)
        begin = (self._tokenizer.bos_token_id,) if self._tokenizer.bos_token_id is not None else ()
        return (*begin, *self._teacher.spell(text).ids)
