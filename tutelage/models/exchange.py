"""From a reply to the record of it, and what a request can cost at most: shared by single calls and batches."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from tutelage.canon import digest_bytes
from tutelage.models.base import Endpoint, Reply
from tutelage.models.prices import PriceList
from tutelage.records import GIVEN, SCORED, Exchange, ModelId, Origin, Request, Role
from tutelage.schema import compile_schema, tool_arguments_problem

_MESSAGE_TOKENS = 16  # a bound on what a chat template adds to one message
_TEMPLATE_TOKENS = 64  # and to a conversation: some put in a system message where there is none
_TOOLS_TOKENS = 1024  # what providers add when there are tools, or an answer must have a form


@dataclass(frozen=True, slots=True)
class Terms:
    """Under what an answer is asked for: the digest of the verdict that permits it, and the role it will play."""

    verdict_digest: str
    role: Role


class Bound(NamedTuple):
    """The most that a call can take. Tokens are bounded by bytes: no tokenizer makes more tokens than bytes."""

    prompt_tokens: int
    completion_tokens: int
    nusd: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def now_utc() -> str:
    """The time as RFC 3339 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Beyond(NamedTuple):
    """Tokens by which an endpoint counted more than a request could take: a system prompt of its own, a limit that it does
    not keep. What was seen once is added to every later bound."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


NOTHING_BEYOND = Beyond()


def bound_of(request: Request, prices: PriceList, beyond: Beyond = NOTHING_BEYOND) -> Bound:
    """What a request can take at most. It must say `max_tokens`: an answer without a limit has no bound."""
    prompt = _TEMPLATE_TOKENS + beyond.prompt_tokens + len(request.extra.encode())
    for message in request.messages:
        is_ids = message.role in (GIVEN, SCORED)  # each is one token
        prompt += message.content.count(" ") + 1 if is_ids else len(message.content.encode()) + _MESSAGE_TOKENS
        for call in message.tool_calls:
            prompt += len(str(call).encode()) + _MESSAGE_TOKENS
    if request.tools or request.schema:
        prompt += len(request.tools.encode()) + len(request.schema.encode()) + _TOOLS_TOKENS
    completion = int(request.params["max_tokens"]) + beyond.completion_tokens
    return Bound(prompt, completion, prices.bound_nusd(prompt, completion))


def problem_of(request: Request, reply: Reply) -> str:
    """What is wrong with a finished answer that had to have a form; empty when nothing is, or none was asked for."""
    answer = reply.answer
    if request.tools and answer.tool_calls:
        return tool_arguments_problem(request.tools, answer.tool_calls)
    if request.schema and answer.finish_reason != "content_filter":
        return compile_schema(request.schema).problem(answer.text)
    return ""


def exchange_of(
    request: Request, address: str, endpoint: Endpoint, reply: Reply, terms: Terms, prices: PriceList,
    attempt: int, asked_at: str, took_ms: int,
) -> Exchange:  # fmt: skip
    """The record of a usable answer."""
    answer = reply.answer
    return Exchange(
        request_digest=address,
        model=ModelId(
            provider=endpoint.provider,
            route=endpoint.route,
            model_asked=request.model_asked,
            model_reported=answer.model,
            weights_digest=endpoint.weights_digest,
            fingerprint=answer.fingerprint,
            tokenizer_digest=endpoint.tokenizer_digest,
            template_digest=endpoint.template_digest,
            probe_digest=endpoint.probe_digest,
            licence=endpoint.licence,
        ),
        answer=answer.text,
        reasoning=answer.reasoning,
        tool_calls=answer.tool_calls,
        finish_reason=answer.finish_reason,
        logprobs=answer.positions,
        usage=answer.usage,
        price=prices.of(answer.usage),
        latency_ms=took_ms,
        attempts=attempt,
        request_id_hash=digest_bytes(reply.request_id.encode()) if reply.request_id else "",
        raw_body_digest=digest_bytes(reply.body),
        terms_digest=terms.verdict_digest,
        twin=None,
        origin=Origin.ASKED,
        role=terms.role,
        asked_at=asked_at,
    )
