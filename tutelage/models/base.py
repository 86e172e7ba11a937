"""What every model is to us: an endpoint that answers requests, and what it says of itself."""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from tutelage.records import Request
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


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer as received: the parsed form, the raw bytes, and the endpoint's id for the call."""

    answer: ChatAnswer
    body: bytes
    request_id: str


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
    """The endpoint could not answer now; asking again is safe. `wait_s` is its own wish, if it told one. `billed` says
    that the attempt may have been charged for: an unusable answer, or none in time."""

    def __init__(
        self, reason: str, wait_s: float | None = None, *, throttled: bool = False, billed: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        self.throttled = throttled
        self.billed = billed


class Refused(Exception):
    """The endpoint will not answer this question, whatever others it answers: too long, or against its policy."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
