"""The conversations of a training as the student reads them: token sequences of both sides, and what was left out."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from tutelage.pipeline.run import Run
from tutelage.pipeline.talks import Sides
from tutelage.pipeline.teaching_plan import Reader
from tutelage.train.examples import Example, render
from tutelage.training_config import TrainingConfig


class Rows(NamedTuple):
    """Examples of both sides, how many conversations were left out for which reason, and by source the reasoning that is learnt
    beside an answer, as an example of its own."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    dropped: dict[str, int]
    rationales: Mapping[str, Example] = MappingProxyType({})


def rendered(config: TrainingConfig, run: Run, pupil: Reader, sides: Sides) -> Rows:
    """Examples of both sides as the student's template writes them. Raises `DataError` when one side has none."""
    limit = min(config.data.max_tokens, pupil.model.limit)
    parts = [
        render(talks, pupil.tokenizer, limit, cut=lambda source: source in sides.cut, purpose=purpose)
        for talks, purpose in ((sides.train, "train on"), (sides.validation, "judge by"))
    ]
    dropped: dict[str, int] = {}
    for part in parts:
        for reason, count in part.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    every = len(sides.train) + len(sides.validation)
    left = "".join(f"; {count:,} of {every:,} left out: {reason}" for reason, count in dropped.items())
    tokens, (train, judge) = sum(len(one.targets) for one in parts[0].examples), (len(part.examples) for part in parts)
    run.progress.say(f"look: {train:,} conversations with {tokens:,} tokens of answers, {judge:,} to judge by{left}")
    return Rows(parts[0].examples, parts[1].examples, dropped, _reasoned(config, run, pupil, sides, limit))


def _reasoned(config: TrainingConfig, run: Run, pupil: Reader, sides: Sides, limit: int) -> dict[str, Example]:
    """The reasonings, each after its question under the prefix that asks for it."""
    every = [
        (source, asked_to_reason(messages, config.method.rationale_prefix, sides.rationales[source]))
        for source, messages in (*sides.train, *sides.validation)
        if source in sides.rationales and source not in sides.cut
    ]
    if not every:
        return {}
    found = render(every, pupil.tokenizer, limit)
    left = "".join(f"; {count:,} left out: {reason}" for reason, count in found.dropped.items())
    tokens = sum(len(example.targets) for example in found.examples)
    run.progress.say(f"look: {len(found.examples):,} rationales with {tokens:,} tokens{left}")
    return {example.source: example for example in found.examples}


def asked_to_reason(messages: Sequence[Mapping[str, Any]], prefix: str, rationale: str) -> list[dict[str, Any]]:
    """The conversation with the reasoning in place of its answer, and the prefix before the question, as a line of its own."""
    *before, question, _ = map(dict, messages)
    return [
        *before,
        question | {"content": f"{prefix}\n{question['content']}"},
        {"role": "assistant", "content": rationale},
    ]
