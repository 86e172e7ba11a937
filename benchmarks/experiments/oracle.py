"""Languages whose next-token distribution is known exactly, and what the experiments share: teachers, students, runs, measures.

Nothing is downloaded, and every divergence is a sum over the vocabulary. Token 0 begins a text. Shape legend: B texts, T tokens,
R rank, N positions, V vocabulary.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tutelage.config import TrainTable
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part, values
from tutelage.models.causal import Causal
from tutelage.progress import Quiet, Stop
from tutelage.records import Role
from tutelage.signals import Dense, Scored, Signal
from tutelage.train.batch import starts
from tutelage.train.examples import Example
from tutelage.train.loop import Loop, Seen, Source, advance
from tutelage.train.offpolicy import passage_of
from tutelage.train.onpolicy import written
from tutelage.train.rollout import Roller, Rollout
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.teaching import Passage

BEGIN = 0
ENDLESS = frozenset({-1})  # no token ends a text: all are of the length asked for


class Criterion(NamedTuple):
    """Whether the published behaviour was seen, and the figures that say so."""

    name: str
    passed: bool
    words: str


class Setting(NamedTuple):
    """Sizes of one experiment: `ci` on one core in less than 40 s, `full` by hand."""

    ci: Any
    full: Any

    def of(self, size: str) -> Any:
        return {"ci": self.ci, "full": self.full}[size]


class Oracle:
    """A language of order 2: `logits(before_N, last_N)` [N, V] says what follows two tokens."""

    def __init__(self, vocabulary: int, logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self.vocabulary, self._logits = vocabulary, logits

    def logp(self, before_N: torch.Tensor, last_N: torch.Tensor) -> torch.Tensor:
        """Natural logs [N, V] of the next token's probabilities."""
        return self._logits(before_N, last_N).log_softmax(-1)

    def rows(self, ids_T: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """logp [T, V] of what follows each token of texts packed one after another."""
        before_T = torch.cat([ids_T.new_zeros(1), ids_T[:-1]])
        before_T[torch.tensor(starts(lengths))] = BEGIN
        return self.logp(before_T, ids_T)

    def write(self, prompts: Sequence[Sequence[int]], count: int, draw: torch.Generator) -> list[Example]:
        """One text of `count` tokens after each prompt; prompts are of one length."""
        first = len(prompts[0])
        ids_BT = torch.tensor([[BEGIN, *prompt] for prompt in prompts])
        for _ in range(count):
            p_BV = self.logp(ids_BT[:, -2], ids_BT[:, -1]).exp()
            ids_BT = torch.cat([ids_BT, torch.multinomial(p_BV, 1, generator=draw)], -1)
        return [Example(tuple(ids), tuple(range(first, len(ids))), "oracle") for ids in ids_BT[:, 1:].tolist()]

    def texts(self, number: int, count: int, seed: int) -> list[Example]:
        """`number` texts of `count` tokens after the beginning."""
        return self.write([(BEGIN,)] * number, count, torch.Generator().manual_seed(seed))


def zipf(vocabulary: int, seed: int, sharpness: float = 1.5, rank: int = 8, exponent: float = 1.0) -> Oracle:
    """Zipf frequencies, exp(sharpness · a random form of low rank in the two tokens before) times as likely: rows differ in
    their order and in entropy, and a small network can learn them. The beginning is never written."""
    draw = torch.Generator().manual_seed(seed)
    prior_V = -exponent * torch.log(torch.arange(1, vocabulary + 1).float())[torch.randperm(vocabulary, generator=draw)]
    prior_V[BEGIN] = -40.0
    near_VR, far_VR = (torch.randn(vocabulary, rank, generator=draw) for _ in range(2))
    out_RV = torch.randn(rank, vocabulary, generator=draw) / math.sqrt(5 * rank)
    scale_V = torch.exp(0.5 * torch.randn(vocabulary, generator=draw))  # some tokens leave little doubt

    def logits(before_N: torch.Tensor, last_N: torch.Tensor) -> torch.Tensor:
        form_NR = (far_VR[before_N] + 2 * near_VR[last_N]) * scale_V[last_N][:, None]
        return prior_V + sharpness * form_NR @ out_RV

    return Oracle(vocabulary, logits)


class Taught:
    """A teacher that is `logp` of a passage: [T, V]. `thin` makes another signal of its rows, with a generator that the
    text alone decides, as a cache would keep it."""

    role = Role.SOFT_TARGET

    def __init__(
        self, teacher: "Oracle | Causal", loss: Loss, thin: Callable[[Dense, torch.Generator], Signal] | None = None
    ) -> None:
        self._teacher, self._loss, self._thin = teacher, loss, thin

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        dense = Dense(logp_of(self._teacher, passage)[passage.positions_N])
        if self._thin is None:
            return (Part(self._loss, dense),)
        from tutelage.signals.thin import seeded

        draw = seeded("".join(example.key for example in passage.examples))
        return (Part(self._loss, self._thin(dense, draw)),)


class Scores:
    """The teacher's log-probability of the tokens that the student drew, and nothing else. `drawn` holds what text was drawn
    with, by the example's key, where it was written before training and is read again."""

    role = Role.SOFT_TARGET

    def __init__(
        self, teacher: "Oracle | Causal", loss: Loss, drawn: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        self._teacher, self._loss, self._drawn = teacher, loss, drawn

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        drawn_N = passage.drawn_logp_N
        if self._drawn is not None:
            drawn_N = torch.tensor([value for example in passage.examples for value in self._drawn[example.key]])
        assert drawn_N is not None
        logp_NV = logp_of(self._teacher, passage)[passage.positions_N]
        logp_N = logp_NV.gather(1, passage.target_ids_N[:, None])[:, 0]
        return (Part(self._loss, Scored(passage.target_ids_N, logp_N, drawn_N)),)


def logp_of(model: "Oracle | Causal", passage: Passage) -> torch.Tensor:
    """Natural logs [T, V] of what a model expects after each token of a passage."""
    if isinstance(model, Oracle):
        return model.rows(passage.ids_T, passage.lengths)
    with torch.no_grad():
        return model.head().logits(model.hidden(passage.ids_T, passage.lengths)).log_softmax(-1)


def tiny(vocabulary: int, seed: int, width: int = 64, layers: int = 2) -> Causal:
    """A random Llama."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, initializer_range=0.05,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Causal(LlamaForCausalLM(config).eval())


def copy(student: Causal) -> Causal:
    """Another student with the same weights."""
    twin = LlamaForCausalLM(student.model.config).eval()
    twin.load_state_dict(student.model.state_dict())
    return Causal(twin)


def table(steps: int, batch_size: int, examples: int, rate: float = 3e-3, **more: Any) -> TrainTable:
    """Settings for `steps` steps over so many examples."""
    settings = {
        "batch_size": batch_size, "epochs": steps / math.ceil(examples / batch_size), "learning_rate": rate,
        "average_last": 0.0, "train_embeddings": True, "precision": "float32", "weight_decay": 0.0,
        "checkpoint_every_s": 1e9, "segment_steps": 10**9, "validate_per_epoch": 1,
    }  # fmt: skip
    return TrainTable(**(settings | more))


def fit(
    student: Causal, source: Source, table: TrainTable, seed: int,
    judge: Callable[[Causal], dict[str, float]] = lambda student: {},
) -> list[dict[str, Any]]:  # fmt: skip
    """Trains in place to the last step, whose weights stay, and returns the journal. `judge` is asked as often as the table
    validates; its figures stand there."""

    def seen(model: Causal, autocast: torch.autocast) -> Seen:
        return Seen(0.0, {}, judge(model))

    log: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        advance(student, source, seen, Loop(table, seed, Path(work), Quiet(), Stop(), log.append))
    student.model.eval()
    return log


def divergence(
    student: Causal, teacher: Oracle | Causal, examples: Sequence[Example], loss: str = "forward-kl"
) -> float:
    """Mean nats a position, exactly, on these texts."""
    return float(per_position(student, teacher, examples, loss).mean())


def per_position(
    student: Causal, teacher: Oracle | Causal, examples: Sequence[Example], loss: str = "forward-kl"
) -> torch.Tensor:
    """Nats at each position that is learnt of these texts, [N]."""
    passage = passage_of(examples)
    dense = Dense(logp_of(teacher, passage)[passage.positions_N])
    with torch.no_grad():
        hidden_TD = student.hidden(passage.ids_T, passage.lengths)
        return values(hidden_TD[passage.positions_N], student.head(), (Part(make(loss), dense),))[0]


def measured(student: Causal, teacher: Oracle, held: Sequence[Example], seed: int) -> dict[str, float]:
    """Both divergences: the forward one on held-out text, the reverse one on as much of the student's own."""
    count = len(held[0].targets)
    own = own_text(student, [(BEGIN,)] * len(held), count, seed)
    forward, reverse = divergence(student, teacher, held), divergence(student, teacher, own, "reverse-kl")
    return {"forward_nats": forward, "reverse_nats": reverse}


def rollouts(student: Causal, prompts: Sequence[Sequence[int]], count: int, seed: int) -> list[Rollout]:
    """The student's own answers at temperature 1."""
    draw = torch.Generator().manual_seed(seed)
    seeds = torch.randint(1 << 30, (len(prompts),), generator=draw).tolist()
    return roller(student).write([tuple(prompt) for prompt in prompts], count, 1.0, seeds)


def roller(student: Causal) -> Roller:
    return LocalRoller(student.model, ends=ENDLESS, rows=256)


def own_text(student: Causal, prompts: Sequence[Sequence[int]], count: int, seed: int) -> list[Example]:
    """The student's own answers as examples."""
    return [written(rollout, "student") for rollout in rollouts(student, prompts, count, seed)]
