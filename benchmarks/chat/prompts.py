"""Questions to learn from and to judge by, and the teacher's answers to them.

Without files the teacher writes the questions too: given the beginning of a user's turn and nothing else, a model that was
tuned on conversations completes it (Magpie, Xu et al. 2024, arXiv 2406.08464, §2).
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.train.examples import Example
from tutelage.train.rollout import Rollout
from tutelage.train.rollout_local import LocalRoller

TRAIN, HELD_OUT = "self_instruct_seed_tasks.jsonl", "self_instruct_user_oriented.jsonl"
LONGEST_TOKENS = 200  # of a question with the template around it


class Asked(NamedTuple):
    """A question as the student and the teacher read it, and the teacher's answer."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    finished: bool

    def example(self, source: str) -> Example:
        ids = self.prompt_ids + self.answer_ids
        return Example(ids, tuple(range(len(self.prompt_ids), len(ids))), source)


def from_file(path: Path) -> Iterator[str]:
    """Instructions with their input, if they have one."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        given = row["instances"][0]["input"].strip()
        yield f"{row['instruction'].strip()}\n\n{given}" if given else row["instruction"].strip()


def magpie(teacher: LocalRoller, tokenizer: Any, count: int, seed: int) -> list[str]:
    """Questions that the teacher completes, without repetitions and those that do not end."""
    marker = "\u2042"
    turn = tokenizer.apply_chat_template([{"role": "user", "content": marker}], tokenize=False)
    begin = tuple(tokenizer(turn[: turn.index(marker)], add_special_tokens=False)["input_ids"])
    draw, found = random.Random(f"{seed}:magpie"), dict[str, None]()
    while len(found) < count:
        seeds = [draw.randrange(1 << 31) for _ in range(32)]
        for rollout in teacher.write([begin] * len(seeds), 96, 1.0, seeds):
            text = tokenizer.decode(rollout.ids, skip_special_tokens=True).strip()
            if rollout.finished and len(text) > 12:
                found[text] = None
    return list(found)[:count]


def prompt_ids(tokenizer: Any, questions: Sequence[str], limit: int) -> list[tuple[int, ...]]:
    """Of the first `limit` questions that are short enough, ready for an answer."""
    found = []
    for question in questions:
        turn = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
        if len(ids) <= LONGEST_TOKENS:
            found.append(tuple(ids))
    return found[:limit]


def answered(
    teacher: LocalRoller, prompts: Sequence[tuple[int, ...]], new_tokens: int, temperature: float, seed: int, path: Path
) -> list[Asked]:
    """The teacher's answers, kept in `path`."""
    if not path.exists():
        draw, found = random.Random(f"{seed}:{path.name}"), list[Rollout]()
        for at in range(0, len(prompts), 16):
            some = prompts[at : at + 16]
            found += teacher.write(some, new_tokens, temperature, [draw.randrange(1 << 31) for _ in some])
        rows = (Asked(one.prompt_ids, one.ids, one.finished) for one in found)
        path.write_text("".join(json.dumps(row._asdict()) + "\n" for row in rows), encoding="utf-8")
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [Asked(tuple(row["prompt_ids"]), tuple(row["answer_ids"]), row["finished"]) for row in rows]
