"""E11: a teacher with another tokenizer, of whom only the likelihood of whole pieces of text is known, teaches nearly what one
with the student's own tokenizer does.

Minixhofer et al. 2025 (ALM, arXiv 2503.20083): beside the text it is better than the text alone, which is better than ranks of
probabilities (Boizard et al. 2024, ULD, arXiv 2402.12030). The language is written in words of one to three letters, no word the
beginning of another; the teacher reads words, the student letters, and what is right is known exactly for both. Shape legend: N
positions, V words, L letters.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch

from benchmarks.experiments.oracle import BEGIN, Criterion, Oracle, Setting, copy, fit, table, tiny, zipf
from tutelage.losses.alm import alm
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part, values
from tutelage.losses.joint import log_likelihood
from tutelage.losses.ranked import Matched, Overlap, Ranked
from tutelage.models.alignment import Chunk, align
from tutelage.models.causal import Causal
from tutelage.records import Role
from tutelage.signals import Dense, Text
from tutelage.train.batch import starts
from tutelage.train.chunks import chunk_signal
from tutelage.train.examples import Example
from tutelage.train.offpolicy import DataSource, passage_of
from tutelage.train.teaching import Passage

LETTERS = 12
BATCH = 16
TAU = 100.0
ULD_WEIGHT = 1.5  # as published, beside the text
SHARPNESS = 2.0


class Size(NamedTuple):
    """Texts to train on, words of each, steps, texts to judge by."""

    texts: int
    words: int
    steps: int
    held: int


SETTING = Setting(Size(96, 32, 120, 64), Size(512, 48, 1000, 256))


def codes() -> list[tuple[int, ...]]:
    """The letters of each word; the first word is the beginning of a text. 6 words of one letter, 30 of two, 24 of three."""
    ones = [(letter,) for letter in range(1, 7)]
    twos = [(first, second) for first in (7, 8, 9) for second in range(1, 11)]
    threes = [(first, second, third) for first in (10, 11) for second in (1, 2, 3) for third in (4, 5, 6, 7)]
    return [(BEGIN,), *ones, *twos, *threes]


CODES = codes()
WORD_OF = {code: word for word, code in enumerate(CODES)}


def words_of(letters: Sequence[int]) -> list[int]:
    """The words that letters spell."""
    found, held = [], ()
    for letter in letters:
        held = (*held, letter)
        if held in WORD_OF:
            found.append(WORD_OF[held])
            held = ()
    assert not held
    return found


def spelled(examples: Sequence[Example]) -> list[Example]:
    """Texts of words as texts of letters."""
    found = [tuple(letter for word in example.ids for letter in CODES[word]) for example in examples]
    return [Example(ids, tuple(range(1, len(ids))), "oracle") for ids in found]


class Prefixes:
    """The beginnings of words: which words each is of, and the letter that follows in each."""

    def __init__(self) -> None:
        self.number = {code[:depth]: 0 for code in CODES for depth in range(len(code))}
        self.number = {prefix: at for at, prefix in enumerate(self.number)}
        self.next_PV = torch.full((len(self.number), len(CODES)), LETTERS, dtype=torch.long)
        for prefix, at in self.number.items():
            for word, code in enumerate(CODES):
                if code[: len(prefix)] == prefix and len(code) > len(prefix):
                    self.next_PV[at, word] = code[len(prefix)]


PREFIXES = Prefixes()


def letter_logp(oracle: Oracle, examples: Sequence[Example]) -> torch.Tensor:
    """What is right at each letter that is learnt: natural logs [N, L], the words' probabilities summed over those that go on
    with it."""
    rows = []
    for example in examples:
        words = words_of(example.ids)
        logp_VV = oracle.rows(torch.tensor(words), (len(words),))
        context, prefix = [], []
        for at, word in enumerate(words[1:]):
            for depth in range(len(CODES[word])):
                context.append(at)
                prefix.append(PREFIXES.number[CODES[word][:depth]])
        p_NV, next_NV = logp_VV[context].double().exp(), PREFIXES.next_PV[prefix]
        p_NL = p_NV.new_zeros(len(context), LETTERS + 1).scatter_add_(1, next_NV, p_NV)[:, :LETTERS]
        rows.append((p_NL / p_NL.sum(-1, keepdim=True)).log().float())
    return torch.cat(rows)


class Teachings:
    """What a text of letters is taught by; `names` of several arms are one loss each."""

    role = Role.SOFT_TARGET

    def __init__(self, oracle: Oracle, names: Sequence[str]) -> None:
        self._oracle, self._names = oracle, names

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        return tuple(getattr(self, f"_{name}")(passage) for name in self._names)

    def _sft(self, passage: Passage) -> Part:
        return Part(make("cross-entropy"), Text(passage.target_ids_N))

    def _kl(self, passage: Passage) -> Part:
        return Part(make("forward-kl"), Dense(letter_logp(self._oracle, passage.examples)))

    def _alm(self, passage: Passage) -> Part:
        read = [self._words(example) for example in passage.examples]
        return Part(
            make("alm", tau=TAU), chunk_signal(passage, [one[0] for one in read], [one[1] for one in read]), TAU
        )

    def _uld(self, passage: Passage) -> Part:
        p_NV, there_N = self._at_words(passage)
        return Part(make("uld"), Ranked(p_NV.sort(-1, descending=True).values, there_N), ULD_WEIGHT)

    def _gold(self, passage: Passage) -> Part:
        """Words of one letter are spelled alike. It has ULD's weight: none was looked for."""
        p_NV, there_N = self._at_words(passage)
        alike = [word for word, code in enumerate(CODES) if len(code) == 1]
        overlap = Overlap(torch.tensor([CODES[word][0] for word in alike]), len(alike) / len(CODES))
        rest_NK = p_NV[:, len(alike) :].sort(-1, descending=True).values  # they come first
        return Part(make("gold"), Matched(p_NV[:, alike], rest_NK, there_N, overlap), ULD_WEIGHT)

    def _at_words(self, passage: Passage) -> tuple[torch.Tensor, torch.Tensor]:
        """The words' probabilities [N, V] where one begins, and where that is."""
        p_NK, there_N = (
            torch.zeros(len(passage.target_ids_N), len(CODES)),
            torch.zeros(len(passage.target_ids_N)).bool(),
        )
        for begin, example in zip(
            starts([len(one.targets) for one in passage.examples]), passage.examples, strict=True
        ):
            words = words_of(example.ids)
            at = [begin + end - 1 for end in accumulate(len(CODES[word]) for word in words[:-1])]
            p_NK[at] = self._oracle.rows(torch.tensor(words), (len(words),))[:-1].exp()
            there_N[at] = True
        return p_NK, there_N

    def _words(self, example: Example) -> tuple[tuple[Chunk, ...], torch.Tensor]:
        words = words_of(example.ids)
        logp_VV = self._oracle.rows(torch.tensor(words), (len(words),))
        logp_M = logp_VV[:-1].gather(1, torch.tensor(words[1:])[:, None])[:, 0]
        letters = [bytes((example.ids[at],)) for at in example.targets]
        return align(letters, [bytes(CODES[word]) for word in words[1:]]), logp_M


ARMS = {
    "sft": ("sft",), "same tokenizer": ("kl",), "alm+sft": ("alm", "sft"), "alm": ("alm",), "uld": ("uld",),
    "uld+sft": ("uld", "sft"), "gold": ("gold",), "gold+sft": ("gold", "sft"),
}  # fmt: skip


def run(seed: int, size: str) -> dict[str, Any]:
    """Forward divergence from what is right, in nats a letter of held-out text, after each arm's steps; and how far ALM is from
    the binarised token loss when both read words."""
    own: Size = SETTING.of(size)
    oracle, start = zipf(len(CODES), seed, SHARPNESS), tiny(LETTERS, seed)
    texts, held = (
        spelled(oracle.texts(own.texts, own.words, seed + 1)),
        spelled(oracle.texts(own.held, own.words, seed + 2)),
    )
    right = letter_logp(oracle, held)
    found: dict[str, Any] = {"start": gap(start, held, right), "identity_nats": identity(oracle, own, seed)}
    for name, losses in ARMS.items():
        student, settings = copy(start), table(own.steps, BATCH, len(texts))
        fit(student, DataSource(texts, Teachings(oracle, losses), settings, seed), settings, seed)
        found[name] = gap(student, held, right)
    return found


def gap(student: Causal, held: Sequence[Example], right_NL: torch.Tensor) -> float:
    passage = passage_of(held)
    with torch.no_grad():
        hidden_TD = student.hidden(passage.ids_T, passage.lengths)
        part = Part(make("forward-kl"), Dense(right_NL))
        return float(values(hidden_TD[passage.positions_N], student.head(), (part,))[0].mean())


def identity(oracle: Oracle, size: Size, seed: int) -> float:
    """The largest difference, at any word, between ALM with the words' tokenizer twice and the binarised loss of a word."""
    texts = oracle.texts(8, size.words, seed + 3)
    passage, student = passage_of(texts), tiny(len(CODES), seed)
    pieces = [[bytes(CODES[example.ids[at]]) for at in example.targets] for example in texts]
    logp = [
        oracle.rows(torch.tensor(one.ids), (len(one.ids),))[:-1].gather(1, torch.tensor(one.ids[1:])[:, None])[:, 0]
        for one in texts
    ]
    signal = chunk_signal(passage, [align(one, one) for one in pieces], logp)
    with torch.no_grad():
        logits_NV = student.head().logits(student.hidden(passage.ids_T, passage.lengths)[passage.positions_N])
    logq_N, logp_N = log_likelihood(logits_NV, passage.target_ids_N).double(), torch.cat(logp).double()
    a_N, b_N = ((value / TAU - 1e-6).exp() for value in (logp_N, logq_N))
    binary_N = -a_N * b_N.log() - (1 - a_N) * torch.log1p(-b_N)
    assert signal.unit_N.tolist() == list(range(len(logq_N))), "every chunk is a word"
    return float((alm(logq_N, signal, TAU) - binary_N).abs().max())


def judge(found: dict[str, Any]) -> list[Criterion]:
    gain = {name: found["sft"] - found[name] for name in ARMS}
    share = gain["alm+sft"] / gain["same tokenizer"] if gain["same tokenizer"] > 0 else math.nan
    words = ", ".join(f"{name} {found[name]:.4f}" for name in ("start", *ARMS))
    return [
        Criterion(
            "with one tokenizer twice it is the binarised token loss",
            found["identity_nats"] < 1e-6,
            f"largest difference {found['identity_nats']:.1e} nats",
        ),
        Criterion(
            "ALM beside the text is better than the text, and that better than ULD",
            found["alm+sft"] < found["sft"] < found["uld"],
            f"forward KL in nats a letter: {words}",
        ),
        Criterion(
            "at least 0.9 of what a teacher with the student's tokenizer gains over the text",
            share >= 0.9,
            f"{share:.3f} of {gain['same tokenizer']:.4f} nats; ALM alone {gain['alm'] / gain['same tokenizer']:.3f}",
        ),
    ]
