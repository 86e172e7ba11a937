"""Asking an endpoint single questions that it may not be able to answer: each comes back as an answer or as words."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from tutelage.canon import MAX_INTEGER
from tutelage.errors import ConfigError, SignalError, TeacherError
from tutelage.models.base import AskAgain, Model, Refused
from tutelage.models.exchange import Bound, bound_of
from tutelage.models.openai import switches
from tutelage.models.prices import PriceList
from tutelage.models.probe import NO, NOT_ASKED, UNKNOWN, YES
from tutelage.records import RAW, Message, Request, Usage
from tutelage.wire.answers import ChatAnswer

_TRIES = 3
_LONGEST_WAIT_S = 20.0
_WORDS = 300
_MAY_BE_DROPPED = ("seed", "temperature", "top_p")
_NOT_FOR_ONE = re.compile(r"HTTP (401|402)\b")
_NO_SUCH_PLACE = re.compile(r"HTTP (404|405|501)\b")


class Heard(NamedTuple):
    """What came of one question. `state` is "yes" (answered), "no" (refused), "unknown" (nothing usable came) or "not
    asked"; `words` say why, in the endpoint's own words, shortened. `body` is JSON as received, where any came."""

    answer: ChatAnswer | None
    body: bytes
    state: str
    words: str
    headers: Mapping[str, str] = {}

    @property
    def value(self) -> Any:
        """The body as a JSON value; None when it is none."""
        return json_in(self.body)

    @property
    def is_missing(self) -> bool:
        """There is no such API at all, whatever is asked of it."""
        return self.state == NO and bool(_NO_SUCH_PLACE.search(self.words))


@dataclass(slots=True)
class Asker:
    """Questions to an open model under a spending limit and a limit of time, and what they came to.

    `is_completion`: the endpoint continues text and does not chat. `dropped` holds parameters that it refused, with its
    words; they are left out from then on.
    """

    model: Model
    prices: PriceList
    max_nusd: int
    question_s: float
    ends_at: float
    is_completion: bool = False
    length_name: str = "max_tokens"
    dropped: dict[str, str] = field(default_factory=dict)
    answers: list[ChatAnswer] = field(default_factory=list)
    calls: int = 0
    tokens: int = 0
    nusd: int = 0
    beyond: int = 0  # prompt tokens that it counts beyond our bound: a long hidden prompt

    async def ask(
        self, messages: str | Sequence[Message], max_tokens: int, *, k: int = 0, schema: str = "", tools: str = "",
        extra: str = "", is_completion: bool | None = None, **params: Any,
    ) -> Heard:  # fmt: skip
        """One question, with log-probabilities of k candidates when k is not 0.

        A parameter of `_MAY_BE_DROPPED` that the endpoint refuses by name is dropped, and it is asked again without. Raises
        `TeacherError` when no question at all can be answered: it cannot be reached, refuses the key, or the account is
        empty.
        """
        completion = self.is_completion if is_completion is None else is_completion
        if isinstance(messages, str):
            messages = (Message(RAW if completion else "user", messages),)
        elif completion:
            return Heard(None, b"", NO, "it continues text: there are no messages")
        params |= {"logprobs": True, "top_logprobs": k} if k else {}
        while True:
            kept = {key: value for key, value in params.items() if key not in self.dropped}
            request = self._request(tuple(messages), {"max_tokens": max_tokens, **kept}, schema, tools, extra)
            heard = await self._send(request, bound_of(request, self.prices))
            named = next((name for name in _MAY_BE_DROPPED if name in kept and name in heard.words.casefold()), None)
            if heard.state == NO and "max_completion_tokens" in heard.words and self.length_name == "max_tokens":
                self.length_name = "max_completion_tokens"
                self.dropped["max_tokens"] = heard.words
            elif heard.state == NO and named is not None:
                self.dropped[named] = heard.words
            else:
                return heard

    def _request(
        self, messages: tuple[Message, ...], params: dict[str, Any], schema: str, tools: str, extra: str
    ) -> Request:
        endpoint = self.model.endpoint
        params = {**params, **switches(endpoint)}
        return Request(messages, params, endpoint.model, endpoint.route, "probe", 0, tools, schema, extra)

    async def _send(self, request: Request, bound: Bound) -> Heard:
        """Every attempt of one question."""
        prompt, answer = bound.prompt_tokens + self.beyond, bound.completion_tokens * request.params.get("n", 1)
        nusd, tokens = self.prices.bound_nusd(prompt, answer), prompt + answer
        if self.length_name != "max_tokens":
            params = dict(request.params)
            params[self.length_name] = params.pop("max_tokens")
            request = replace(request, params=params)
        for attempt in range(1, _TRIES + 1):
            if self.nusd + nusd > self.max_nusd:
                return Heard(None, b"", NOT_ASKED, "the spending limit of the probe")
            if time.monotonic() > self.ends_at:
                return Heard(None, b"", NOT_ASKED, "the time of the probe was over")
            self.calls += 1
            try:
                async with asyncio.timeout(self.question_s):
                    reply = await self.model.complete(request)
            except TimeoutError:
                self._charge(nusd, tokens)
                return self._unheard(UNKNOWN, f"no answer within {self.question_s:g} s")
            except AskAgain as problem:
                if problem.usage is not None:
                    self._settle(problem.usage)
                elif problem.may_be_billed:
                    self._charge(nusd, tokens)
                if attempt < _TRIES and (problem.throttled or problem.reason.startswith("HTTP 5")):
                    wait_s = 0.5 * 2**attempt if problem.wait_s is None else problem.wait_s
                    await asyncio.sleep(min(wait_s, _LONGEST_WAIT_S))
                    continue
                return self._unheard(UNKNOWN, problem.reason, problem.body)
            except Refused as problem:
                return Heard(None, problem.body, NO, shortened(problem.reason))
            except (ConfigError, SignalError) as problem:
                self.calls -= 1  # it was never sent
                return Heard(None, b"", NO, shortened(problem.message))
            except TeacherError as problem:
                hopeless = _NOT_FOR_ONE.search(problem.message) or "credit" in problem.fix
                if hopeless or not (self.answers or _NO_SUCH_PLACE.search(problem.message)):
                    raise
                return Heard(None, b"", NO, shortened(problem.message))
            else:
                return self._heard(reply.answer, reply.body, reply.headers, bound, nusd, tokens)
        raise AssertionError("every attempt returns")

    def _heard(
        self, answer: ChatAnswer, body: bytes, headers: Mapping[str, str], bound: Bound, nusd: int, tokens: int
    ) -> Heard:
        self.answers.append(answer)
        if answer.usage_reported:
            self._settle(answer.usage)
            self.beyond = max(self.beyond, min(answer.usage.prompt_tokens, MAX_INTEGER >> 24) - bound.prompt_tokens)
        else:
            self._charge(nusd, tokens)
        return Heard(answer, body, YES, "", headers)

    def _unheard(self, state: str, words: str, body: bytes = b"") -> Heard:
        if not self.answers and not body:
            raise TeacherError(
                f"{self.model.endpoint.base_url} gives no answer: {shortened(words)}",
                fix="check the address and that the server is up; then probe again",
            )
        return Heard(None, body, state, shortened(words))

    def _settle(self, usage: Usage) -> None:
        self._charge(self.prices.of(usage).cost_nusd, usage.prompt_tokens + usage.completion_tokens)

    def _charge(self, nusd: int, tokens: int) -> None:
        self.nusd = min(self.nusd + nusd, MAX_INTEGER)
        self.tokens = min(self.tokens + tokens, MAX_INTEGER)


def json_in(body: bytes) -> Any:
    """A body as a JSON value; None when it is none."""
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def shortened(text: str, most: int = _WORDS) -> str:
    """What an endpoint said, printable and no longer than `most` characters, without the address it was said by."""
    text = re.sub(r"^https?://\S+ answered ", "", text)
    clean = "".join(character if character.isprintable() else " " for character in text[: 4 * most])
    clean = " ".join(clean.split())
    return clean if len(clean) <= most else clean[: most - 1] + "…"
