"""Label questions put to an endpoint: built, asked, and found again in the store. Collecting and proving share it."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from tutelage.config import TaskTable, TeacherTable
from tutelage.models.ask import Asking, ask
from tutelage.models.base import Endpoint
from tutelage.models.openai import switches
from tutelage.records import Message, Prompt, Request


def label_params(teacher: TeacherTable, task: TaskTable) -> dict[str, Any]:
    """Request parameters of a label question. Greedy; with log-probabilities one token tells the label, without them
    the whole word is needed, and a text that is continued must be told where to end."""
    if teacher.signal == "text":
        stop = {} if task.completion is None else {"stop": ["\n"]}
        return {"max_tokens": 16, "temperature": "0", **stop}
    return {"max_tokens": 1, "temperature": "0", "logprobs": True, "top_logprobs": teacher.top_logprobs}


def label_request(endpoint: Endpoint, messages: tuple[Message, ...], params: dict[str, Any], purpose: str) -> Request:
    """One question at an endpoint, in a purpose's namespace; draw 0. What the endpoint must always be asked (`switches`)
    is part of it, so the record shows that it was."""
    return Request(messages, {**params, **switches(endpoint)}, endpoint.model, endpoint.route, purpose, 0)


def ask_all(asking: Asking, requests: Sequence[Request], concurrency: int, what: str) -> None:
    """`ask`, with the model's connections opened and closed around it; raises what `ask` raises."""

    async def within() -> None:
        async with asking.model:
            await ask(asking, requests, concurrency, what)

    asyncio.run(within())


def exchange_rows(asking: Asking, prompts: Sequence[Prompt], requests: Sequence[Request]) -> Iterator[dict[str, str]]:
    """Which exchange answers which prompt; refused questions have none."""
    for prompt, request in zip(prompts, requests, strict=True):
        address = request.digest
        if not asking.store.has(address):
            continue
        yield {"prompt": prompt.prompt_id, "address": address, "exchange": asking.store.digest_at(address)}
