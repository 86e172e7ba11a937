"""What collecting open questions does with files: questions in, requests out, which exchange answers which draw."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tutelage.canon import canonical
from tutelage.config import SamplingTable, TeacherTable
from tutelage.errors import ConfigError, DataError
from tutelage.jsonl import write_lines, writing
from tutelage.models.ask import Asking
from tutelage.models.base import Dialect, Endpoint
from tutelage.models.prices import PriceList
from tutelage.models.questions import open_request, sampling_params
from tutelage.records import Question, Request, Usage
from tutelage.redact import Secrets

BYTES_A_TOKEN = 4  # of prose, roughly; for estimates alone
_TEMPLATE_TOKENS = 12
_SHOWN = 5
_LOOKED_UP = 500
_PREVIEW = 80  # characters of a question, so that a person finds its row


class Draw(NamedTuple):
    """One answer to be had: the question and what is sent for it."""

    question: Question
    request: Request


class Forms(NamedTuple):
    """Tools and schema, as JSON text, of questions that bring none of their own; empty when there are none."""

    tools: str
    schema: str


class Written(NamedTuple):
    questions: int
    prompt_bytes: int


def write_questions(
    questions: Iterable[Question], forms: Forms, secrets: Secrets, check: Callable[[Question], None], out: Path
) -> Written:
    """A line a question. A secret of this environment is taken out here: what is stored is what is sent.

    `check` raises `ConfigError` for what the endpoint's API cannot say: the whole file is looked through before anything
    is asked. Raises `DataError` with the first of them.
    """
    count = size = 0
    unsayable: list[str] = []
    fresh = out.with_name(out.name + ".new")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            for question in questions:
                asked = replace(question, tools=question.tools or forms.tools, schema=question.schema or forms.schema)
                file.write(secrets.scrub(canonical(asked.to_json())) + b"\n")
                count += 1
                try:
                    check(asked)
                except ConfigError as error:
                    unsayable.append(f"question {count}: {error.message}; {error.fix}")
                size += sum(len(message.content.encode()) for message in asked.messages)
                size += len(asked.tools.encode()) + len(asked.schema.encode())
        if unsayable:
            fresh.unlink()
            more = f" and {len(unsayable) - _SHOWN} more" if len(unsayable) > _SHOWN else ""
            raise DataError(
                "this API cannot be asked that: " + " | ".join(unsayable[:_SHOWN]) + more,
                fix="change those questions, or the settings under [sampling] and [teacher]",
            )
        fresh.replace(out)
    return Written(count, size)


def sayable(
    endpoint: Endpoint, dialect: Dialect, teacher: TeacherTable, sampling: SamplingTable
) -> Callable[[Question], None]:
    """Raises `ConfigError` for a question that this dialect has no words for."""
    build = _requests(endpoint, teacher, sampling, "check")
    told = itertools.count()

    def check(question: Question) -> None:
        # Rows are in OpenAI's words: for its dialect, what the settings say of one question they say of all.
        if endpoint.api != "openai" or next(told) == 0:
            dialect.body(endpoint, build(question, 0))

    return check


def draws(
    file: Path, endpoint: Endpoint, teacher: TeacherTable, sampling: SamplingTable, purpose: str
) -> Iterator[Draw]:
    """Every draw of every question, in the order of the file; nothing is held."""
    build = _requests(endpoint, teacher, sampling, purpose)
    with file.open("rb") as lines:
        for line in lines:
            question = Question.from_json(orjson.loads(line))
            for draw in range(sampling.samples):
                yield Draw(question, build(question, draw))


def _requests(
    endpoint: Endpoint, teacher: TeacherTable, sampling: SamplingTable, purpose: str
) -> Callable[[Question, int], Request]:
    params = sampling_params(teacher, sampling)
    extra = json.dumps(sampling.extra, separators=(",", ":"), ensure_ascii=False) if sampling.extra else ""
    return lambda question, draw: open_request(endpoint, question, params, extra, sampling.seed, purpose, draw)


def expected_nusd(written: Written, sampling: SamplingTable, prices: PriceList) -> int:
    """About what all draws will cost: four bytes a token, and answers half as long as they may be."""
    if written.questions == 0:
        return 0
    prompt = written.prompt_bytes // written.questions // BYTES_A_TOKEN + _TEMPLATE_TOKENS
    each = prices.of(Usage(prompt, 0, max(1, sampling.max_tokens // 2))).cost_nusd
    return each * written.questions * sampling.samples


def noted(asked: Iterable[Draw], note: Path) -> Iterator[Request]:
    """The requests, as they are asked; what they answer and their addresses go into the file `note`."""
    note.parent.mkdir(parents=True, exist_ok=True)
    with writing(note), note.open("wb") as file:
        for question, request in asked:
            said = question.messages[-1].content[:_PREVIEW]
            row = {"prompt": question.prompt_id, "draw": request.draw, "address": request.digest, "question": said}
            file.write(orjson.dumps(row) + b"\n")
            yield request


def write_answers(asking: Asking, note: Path, out: Path) -> int:
    """`exchanges.jsonl` says which exchange answers which draw, in the order of `note`; `refused.jsonl` which got none
    and why. Returns how many were answered."""
    reasons = {failure.request_digest: failure.reason for failure in (*asking.refusals, *asking.failures)}
    refused: list[dict[str, Any]] = []
    answered = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal answered
        with note.open("rb") as file:
            while chunk := [orjson.loads(line) for line in itertools.islice(file, _LOOKED_UP)]:
                digests = asking.store.digests_at([row["address"] for row in chunk])
                for row in chunk:
                    address = row["address"]
                    if address in digests:
                        answered += 1
                        del row["question"]
                        yield row | {"exchange": digests[address]}
                    else:
                        refused.append({**row, "reason": reasons.get(address, "refused")})

    write_lines(out / "exchanges.jsonl", rows())
    write_lines(out / "refused.jsonl", refused)
    return answered


def write_unanswered(asking: Asking, note: Path, out: Path) -> int:
    """Names the draws that failed or were refused in a try that ended early, and why; returns how many."""
    reasons = {failure.request_digest: failure.reason for failure in (*asking.refusals, *asking.failures)}
    if not reasons or not note.exists():
        return 0
    with note.open("rb") as file:
        rows = [row for line in file if (row := orjson.loads(line))["address"] in reasons]
    write_lines(out, ({**row, "reason": reasons[row["address"]]} for row in rows))
    return len(rows)
