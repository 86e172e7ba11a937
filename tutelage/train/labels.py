"""Label questions: selected exchanges as examples, how they are batched, and how a student is judged on them.

Shape legend: B sequences, T tokens, N examples, V vocabulary, L labels, D hidden.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from tutelage.config import TaskTable, TrainTable
from tutelage.errors import SignalError, StorageError
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part
from tutelage.models.causal import Causal
from tutelage.records import UNATS_PER_NAT, Exchange, Role
from tutelage.signals import Text, TopK
from tutelage.signals.labels import label_distribution, pack_top_k, shifted
from tutelage.stats.labels import decide
from tutelage.store.store import Store
from tutelage.tasks import read_answer, student_messages
from tutelage.train.batch import Batch, Term, starts
from tutelage.train.loop import Plan, Seen, micro, plan_steps
from tutelage.train.order import epoch_order
from tutelage.train.vocabulary import token_ids_by_bytes

_SOFT, _TEXT = make("top-k-forward-kl"), make("cross-entropy")


class Example(NamedTuple):
    """One training sequence: prompt ids, then the answer's ids up to and including the end of turn.

    The teacher's distribution stands at the answer's first token when `soft`; every other answer token is text.
    """

    exchange: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    soft: bool

    @property
    def loss_tokens(self) -> dict[str, int]:
        """Loss tokens by role, counted where the loss mask is made."""
        return {Role.SOFT_TARGET: int(self.soft), Role.TEXT_TARGET: len(self.answer_ids) - int(self.soft)}


@dataclass(frozen=True, slots=True)
class Data:
    """Examples, the teacher's distributions (one row an example; none for text-only teachers), and, for validation,
    the teacher's label distribution `target_NL` (natural logs, decision offsets applied)."""

    examples: tuple[Example, ...]
    signal: TopK | None
    target_NL: torch.Tensor
    label_ids: tuple[int, ...]


def build(
    task: TaskTable, rows: Sequence[Mapping[str, Any]], texts: Mapping[str, str], store: Store, tokenizer: Any,
    signal: str, offsets_L: Sequence[float],
) -> Data:  # fmt: skip
    """Examples of selected exchanges. `texts` gives each prompt's text by id. Raises `SignalError`, and `StorageError`
    when the store holds another exchange than was selected."""
    label_tokens = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in task.labels]
    label_ids = tuple(ids[0] for ids in label_tokens)
    if len(set(label_ids)) != len(label_ids):
        raise SignalError(
            f"labels {list(task.labels)} begin with the same token for this student",
            fix="rename the labels so that their first tokens differ",
        )
    token_ids = token_ids_by_bytes(tokenizer)
    examples, soft_rows, targets = [], [], []
    for row in rows:
        if (found := store.digest_at(row["address"])) != row["exchange"]:
            raise StorageError(
                f"the store answers {row['address']} with {found}, selected was {row['exchange']}",
                fix="restore store/ from a copy; `tutelage verify` shows more",
            )
        exchange: Exchange = store.get(row["address"])
        reading = read_answer(task, exchange, signal)
        target_L = [value + offset for value, offset in zip(reading.logp_L, offsets_L, strict=True)]
        label = int(decide([list(reading.logp_L)], offsets_L)[0])
        messages = [message.to_json() for message in student_messages(task, texts[row["prompt"]])]
        prompt_ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        answer_ids = (*label_tokens[label], tokenizer.eos_token_id)
        examples.append(Example(row["exchange"], tuple(prompt_ids), answer_ids, signal != "text"))
        targets.append(target_L)
        if signal != "text":
            logp = label_distribution(exchange.logprobs[0], task.labels, label_ids, token_ids)
            soft_rows.append(shifted(logp, dict(zip(label_ids, offsets_L, strict=True))))
    if not examples:
        raise SignalError("nothing to train on", fix="see curate/drops.jsonl for why every answer was dropped")
    packed = pack_top_k(soft_rows) if soft_rows else None
    return Data(tuple(examples), packed, torch.tensor(targets).log_softmax(-1), label_ids)


def collate(data: Data, rows: Sequence[int]) -> Batch:
    """Packs rows. The teacher's distribution, where there is one, is learnt at the answer's first token, its text after."""
    examples = [data.examples[at] for at in rows]
    # The last answer token is predicted, never read.
    documents = [(*example.prompt_ids, *example.answer_ids)[:-1] for example in examples]
    lengths = tuple(len(document) for document in documents)
    soft_positions, text_positions, text_ids = [], [], []
    for example, start in zip(examples, starts(lengths), strict=True):
        first = start + len(example.prompt_ids) - 1  # the last prompt token predicts the first answer token
        if example.soft:
            soft_positions.append(first)
        for offset, token in enumerate(example.answer_ids):
            if offset or not example.soft:
                text_positions.append(first + offset)
                text_ids.append(token)
    terms = [Term(torch.tensor(text_positions), (Part(_TEXT, Text(torch.tensor(text_ids))),))] if text_ids else []
    if data.signal is not None:
        terms.insert(0, Term(torch.tensor(soft_positions), (Part(_SOFT, data.signal.rows(torch.tensor(rows))),)))
    counts = {str(Role.SOFT_TARGET): len(soft_positions), str(Role.TEXT_TARGET): len(text_positions)}
    ids = [token for document in documents for token in document]
    return Batch(torch.tensor(ids), lengths, tuple(terms), counts, tuple(rows))


class LabelSource:
    """Selected answers in seeded order, off-policy: the prefixes are the data's own."""

    def __init__(self, data: Data, table: TrainTable, seed: int) -> None:
        self.data, self._table, self._seed = data, table, seed
        self._lengths = [len(example.prompt_ids) + len(example.answer_ids) for example in data.examples]
        self._order: tuple[int, list[tuple[int, ...]]] = (-1, [])

    @property
    def plan(self) -> Plan:
        return plan_steps(len(self.data.examples), self._table)

    def rows(self, step: int) -> tuple[int, ...]:
        epoch, at = divmod(step, self.plan.per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, epoch_order(self._lengths, self._table.batch_size, self._seed, epoch))
        return self._order[1][at]

    def tokens(self, row: int) -> int:
        return self._lengths[row]

    def loss_tokens(self, rows: Sequence[int]) -> int:
        return sum(sum(self.data.examples[row].loss_tokens.values()) for row in rows)

    def batch(self, rows: Sequence[int]) -> Batch:
        return collate(self.data, rows)

    look = None

    def metrics(self) -> dict[str, float]:
        return {}


class LabelJudge:
    """How near the student is to the teacher: mean KL over labels (nats) and agreement, whatever the batches."""

    def __init__(self, data: Data, batch_size: int = 64) -> None:
        self.data, self._size = data, batch_size

    @torch.no_grad()
    def __call__(self, student: Causal, autocast: torch.autocast) -> Seen:
        kl, agree, count = 0.0, 0, len(self.data.examples)
        for rows in self._by_length():
            logq_BL = self.label_logp(student, rows, autocast)
            logp_BL = self.data.target_NL[list(rows)]
            kl += (logp_BL.exp() * (logp_BL - logq_BL)).sum().item()
            agree += int((logp_BL.argmax(-1) == logq_BL.argmax(-1)).sum())
        facts = {"kl_unats": micro(kl / count), "agreement_ppm": round(1e6 * agree / count)}
        return Seen(kl / count, facts, {"validation_kl_nats": kl / count, "validation_agreement": agree / count})

    def label_logp(self, student: Causal, rows: Sequence[int], autocast: torch.autocast) -> torch.Tensor:
        """The student's label distribution [B, L] (natural logs over the labels) at the first answer token."""
        prompts = [self.data.examples[at].prompt_ids for at in rows]
        lengths = [len(prompt) for prompt in prompts]
        ids_T = torch.tensor([token for prompt in prompts for token in prompt])
        with autocast:
            hidden_TD = student.hidden(ids_T, lengths)
            logits_BV = student.head().logits(hidden_TD[torch.tensor(lengths).cumsum(0) - 1])
        return logits_BV[:, list(self.data.label_ids)].float().log_softmax(-1)

    def _by_length(self) -> Iterator[tuple[int, ...]]:
        """Rows in batches of like length."""
        order = sorted(range(len(self.data.examples)), key=lambda at: len(self.data.examples[at].prompt_ids))
        for start in range(0, len(order), self._size):
            yield tuple(order[start : start + self._size])


def offsets_nats(decision: Mapping[str, Any]) -> list[float]:
    """The decision rule's offsets per label, in nats."""
    return [value / UNATS_PER_NAT for value in decision["offsets_unats"]]
