"""What every model is to us: an endpoint that answers requests, and what it says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from tutelage.records import Request, Usage
from tutelage.wire.answers import ChatAnswer


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to ask a model, and what is known of it beforehand.

    `route` is a class of access, never a secret: "embedded", "local" or the host name. `key_env` names the environment
    variable with the key; the key itself is read when asking and never stored.
    """

    base_url: str
    route: str
    provider: str
    model: str
    licence: str
    weights_digest: str = ""
    tokenizer_digest: str = ""
    template_digest: str = ""
    key_env: str | None = None
    timeout_s: float = 120.0
    api: str = "openai"  # the dialect it speaks: "openai", "anthropic", "gemini", or a plug-in's name
    probe_digest: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer as received: the parsed form, the raw bytes, the endpoint's id for the call, and its headers."""

    answer: ChatAnswer
    body: bytes
    request_id: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Dialect(Protocol):
    """How one kind of API says the same things. Pure: no I/O, no state; the transport is `models.http`."""

    def url(self, endpoint: Endpoint, request: Request) -> str:
        """Where the request is posted to."""
        ...

    def headers(self, endpoint: Endpoint, key: str | None) -> dict[str, str]:
        """Headers of every request, the key among them."""
        ...

    def body(self, endpoint: Endpoint, request: Request) -> dict[str, Any]:
        """The JSON body. Raises `ConfigError` for what this API cannot say: nothing is left out quietly."""
        ...

    def parse(self, body: bytes, request: Request) -> ChatAnswer:
        """The answer in a response of status 200. Raises `WireError` naming what is wrong with it."""
        ...

    def usage(self, body: bytes) -> Usage | None:
        """What an unusable answer says it cost; None when it does not say."""
        ...

    def is_out_of_money(self, status: int, error: str) -> bool:
        """Whether an error says that the account has no credit left: no waiting mends that."""
        ...


class Model(Protocol):
    """Anything that answers a request over its own transport."""

    endpoint: Endpoint

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def complete(self, request: Request) -> Reply:
        """Raises `AskAgain` (may be sent again), `Refused` (this one never) or `TeacherError` (none of them)."""
        ...


class AskAgain(Exception):
    """The endpoint could not answer now; asking again is safe.

    `wait_s` is its own wish, if it told one; `throttled` that it asks us to slow down. `usage` is what it charged for an
    answer that is unusable; `may_be_billed` says that an answer may have been made and charged for, and nobody told.
    `body` is what came.
    """

    def __init__(
        self, reason: str, wait_s: float | None = None, *, throttled: bool = False, may_be_billed: bool = False,
        usage: Usage | None = None, body: bytes = b"", headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        self.throttled = throttled
        self.may_be_billed = may_be_billed
        self.usage = usage
        self.body = body
        self.headers = headers or {}


class Refused(Exception):
    """The endpoint will not answer this question, whatever others it answers: too long, or against its policy.
    `may_be_billed`: its answer cannot be used, and may have been charged for. `is_about_it`: the endpoint says that it is
    this very question, so that it tells nothing of the next."""

    def __init__(
        self, reason: str, body: bytes = b"", *, may_be_billed: bool = False, is_about_it: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.body = body
        self.may_be_billed = may_be_billed
        self.is_about_it = is_about_it
