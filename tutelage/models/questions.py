"""Questions put to an endpoint: built, asked, and found again in the store. Collecting and proving share it."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tutelage.config import SamplingTable, TaskTable, TeacherTable
from tutelage.models.ask import Asking, ask
from tutelage.models.base import Endpoint
from tutelage.models.batch import ask_in_batches
from tutelage.models.batches.base import BatchModel
from tutelage.models.openai import switches
from tutelage.models.teachers import api_of
from tutelage.records import Message, Prompt, Question, Request


def label_params(teacher: TeacherTable, task: TaskTable) -> dict[str, Any]:
    """Request parameters of a label question. Greedy; with log-probabilities one token tells the label, without them
    the whole word is needed, and a text that is continued must be told where to end. Anthropic's later models refuse a
    temperature."""
    if teacher.signal == "text":
        stop = {} if task.completion is None else {"stop": ["\n"]}
        greedy = {} if teacher.url and (teacher.api or api_of(teacher.url)) == "anthropic" else {"temperature": "0"}
        return {"max_tokens": 16, **greedy, **stop}
    return {"max_tokens": 1, "temperature": "0", "logprobs": True, "top_logprobs": teacher.top_logprobs}


def label_request(endpoint: Endpoint, messages: tuple[Message, ...], params: dict[str, Any], purpose: str) -> Request:
    """One question at an endpoint, in a purpose's namespace; draw 0. What the endpoint must always be asked (`switches`)
    is part of it, so the record shows that it was."""
    return Request(messages, {**params, **switches(endpoint)}, endpoint.model, endpoint.route, purpose, 0)


def sampling_params(teacher: TeacherTable, sampling: SamplingTable) -> dict[str, Any]:
    """Request parameters of open questions, as canonical values: what is not set is not there."""
    decimal = {
        key: repr(float(value))
        for key in ("temperature", "top_p", "presence_penalty", "frequency_penalty")
        if (value := getattr(sampling, key)) is not None
    }
    words = {key: value for key in ("reasoning_effort", "tool_choice") if (value := getattr(sampling, key)) is not None}
    stop = {"stop": list(sampling.stop)} if sampling.stop else {}
    shown = {"logprobs": True, "top_logprobs": teacher.top_logprobs} if teacher.signal == "top-logprobs" else {}
    return {"max_tokens": sampling.max_tokens, **decimal, **words, **stop, **shown}


def open_request(
    endpoint: Endpoint,
    question: Question,
    params: dict[str, Any],
    extra: str,
    seed: int | None,
    purpose: str,
    draw: int,
) -> Request:
    """One draw of the answer to an open question; each draw has a seed of its own where there is one."""
    seeded = {} if seed is None else {"seed": seed + draw}
    params = {**params, **seeded, **switches(endpoint)}
    return Request(
        question.messages, params, endpoint.model, endpoint.route, purpose, draw, question.tools, question.schema, extra
    )


def ask_all(asking: Asking, requests: Iterable[Request], concurrency: int, what: str, total: int | None = None) -> None:
    """`ask`, through the batch API where the model is one, with its connections opened and closed around it; raises what
    `ask` raises."""

    async def within() -> None:
        async with asking.model as model:
            if isinstance(model, BatchModel):
                await ask_in_batches(asking, model, requests, what, total)
            else:
                await ask(asking, requests, concurrency, what, total)

    asyncio.run(within())


def exchange_rows(asking: Asking, prompts: Sequence[Prompt], requests: Sequence[Request]) -> Iterator[dict[str, str]]:
    """Which exchange answers which prompt; refused questions have none."""
    for prompt, request in zip(prompts, requests, strict=True):
        address = request.digest
        if not asking.store.has(address):
            continue
        yield {"prompt": prompt.prompt_id, "address": address, "exchange": asking.store.digest_at(address)}
