"""What asking a teacher will take, before it is asked: rough figures, so that they can be held against the true ones."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tutelage.config import RunConfig
from tutelage.models.prices import PriceList
from tutelage.records import Message, Usage
from tutelage.tasks import teacher_messages

BYTES_PER_TOKEN = 4.0
TEMPLATE_TOKENS = 5
BAND = 0.25  # of prose in English; other scripts take more tokens a byte


class Estimate(NamedTuple):
    """Of label questions: tokens of all of them, and money."""

    prompt_tokens: int
    answer_tokens: int
    nusd: int


def tokens_of(messages: Iterable[Message]) -> int:
    """About so many tokens: four bytes each, and what a template adds."""
    return round(sum(len(message.content.encode()) / BYTES_PER_TOKEN + TEMPLATE_TOKENS for message in messages))


def label_questions(config: RunConfig, texts: Sequence[str], prices: PriceList) -> Estimate:
    """Asking the teacher about each text once."""
    answer = 1 if config.teacher.signal == "top-logprobs" else 4
    prompts = [tokens_of(teacher_messages(config.task, text)) for text in texts]
    nusd = sum(prices.of(Usage(prompt, 0, answer)).cost_nusd for prompt in prompts)
    return Estimate(sum(prompts), answer * len(texts), nusd)
