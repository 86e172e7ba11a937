"""Selected exchanges -> token sequences with their signals; seeded, length-sorted batches.

Shape legend: B sequences, T tokens, N loss positions, K kept ids.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from tutelage.config import TaskTable
from tutelage.errors import SignalError, StorageError
from tutelage.records import UNATS_PER_NAT, Exchange, Role
from tutelage.signals import Text, TopK
from tutelage.signals.labels import label_distribution, pack_top_k, shifted
from tutelage.stats.labels import decide
from tutelage.store.store import Store
from tutelage.tasks import read_answer, student_messages
from tutelage.train.vocabulary import token_ids_by_bytes

POOL_BATCHES = 16


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


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded `ids_BT` with `mask_BT`; flat positions (row · T + column) that predict a loss token, and what each
    should be. `first_positions_B` predict each row's first answer token."""

    ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    first_positions_B: torch.Tensor
    soft_positions_N: torch.Tensor
    soft: TopK | None
    text_positions_N: torch.Tensor
    text: Text
    rows: tuple[int, ...]


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


def offsets_nats(decision: Mapping[str, Any]) -> list[float]:
    """The decision rule's offsets per label, in nats."""
    return [value / UNATS_PER_NAT for value in decision["offsets_unats"]]


def epoch_order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Batches of row numbers: shuffled, sorted by length inside pools of `POOL_BATCHES` batches, batches shuffled.

    Every row comes exactly once; the last batch may be smaller.
    """
    shuffle = random.Random(f"{seed}:{epoch}")
    order = list(range(len(lengths)))
    shuffle.shuffle(order)
    batches = []
    for start in range(0, len(order), batch_size * POOL_BATCHES):
        pool = sorted(order[start : start + batch_size * POOL_BATCHES], key=lambda at: (lengths[at], at))
        batches += [tuple(pool[at : at + batch_size]) for at in range(0, len(pool), batch_size)]
    shuffle.shuffle(batches)
    return batches


def collate(data: Data, rows: Sequence[int], pad_id: int) -> Batch:
    """Padding is masked by length, never by id: the pad id may be the end-of-turn id."""
    examples = [data.examples[at] for at in rows]
    # The last answer token is predicted, never read.
    sequences = [(*example.prompt_ids, *example.answer_ids)[:-1] for example in examples]
    width = max(len(sequence) for sequence in sequences)
    ids_BT = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask_BT = torch.zeros(len(rows), width, dtype=torch.long)
    firsts, soft_positions, text_positions, text_ids = [], [], [], []
    for at, (example, sequence) in enumerate(zip(examples, sequences, strict=True)):
        ids_BT[at, : len(sequence)] = torch.tensor(sequence)
        mask_BT[at, : len(sequence)] = 1
        first = at * width + len(example.prompt_ids) - 1  # the last prompt token predicts the first answer token
        firsts.append(first)
        if example.soft:
            soft_positions.append(first)
        for offset, token in enumerate(example.answer_ids):
            if offset or not example.soft:
                text_positions.append(first + offset)
                text_ids.append(token)
    return Batch(
        ids_BT,
        mask_BT,
        torch.tensor(firsts, dtype=torch.long),
        torch.tensor(soft_positions, dtype=torch.long),
        data.signal.rows(torch.tensor(rows)) if data.signal is not None else None,
        torch.tensor(text_positions, dtype=torch.long),
        Text(torch.tensor(text_ids, dtype=torch.long)),
        tuple(rows),
    )


def by_length(data: Data, batch_size: int) -> Iterator[tuple[int, ...]]:
    """Rows in batches of like length, for evaluation."""
    order = sorted(range(len(data.examples)), key=lambda at: len(data.examples[at].prompt_ids))
    for start in range(0, len(order), batch_size):
        yield tuple(order[start : start + batch_size])
