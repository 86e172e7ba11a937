"""An OpenAI-compatible server around one local model: it answers chats and scores texts."""

import asyncio
import contextlib
import hmac
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tutelage import __version__
from tutelage.errors import ConfigError, DataError
from tutelage.hosts import is_loopback
from tutelage.models.hf import Generation, GenerationRequest, HFModel, PromptTooLong, TokenEvent
from tutelage.models.scoring import ScoreRequest, TextScores, check_text, encode
from tutelage.records import Position, Usage
from tutelage.serve.engine import Engine, EngineClosed, QueueFull, Ticket, Update
from tutelage.wire.bodies import (
    DONE,
    ResponseHead,
    chat_chunk,
    chat_response,
    error_body,
    model_body,
    models_body,
    usage_chunk,
)
from tutelage.wire.completions import completion_response, parse_completion_request
from tutelage.wire.requests import ChatRequest, parse_chat_request
from tutelage.wire.values import WireError

MAX_BODY_BYTES = 1 << 20
_DRAIN_S = 30
_JSON = "application/json"
_IGNORED_SHOWN = 20


class _Refusal(Exception):
    """An answer that is an OpenAI error body."""

    def __init__(self, status: int, message: str, kind: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.headers: dict[str, str] = {}

    def response(self) -> Response:
        body = error_body(self.message, self.kind, self.param, self.code)
        return Response(body, self.status, self.headers, media_type=_JSON)


def create_app(
    model: HFModel,
    served_names: Sequence[str],
    api_key: str | None = None,
    *,
    max_batch: int = 16,
    max_queue: int = 256,
) -> Starlette:
    """The application; its worker thread lives as long as the ASGI lifespan. With `api_key`, /v1 needs it as Bearer."""
    chat = _Chat(model, tuple(served_names), api_key, Engine(model, max_batch, max_queue))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        chat.engine.start()
        yield
        await asyncio.to_thread(chat.engine.close, _DRAIN_S)

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat.complete, methods=["POST"]),
            Route("/v1/completions", chat.score, methods=["POST"]),
            Route("/v1/models", chat.list_models),
            Route("/v1/models/{name:path}", chat.show_model),
            Route("/health", _health),
            Route("/version", _version),
        ],
        lifespan=lifespan,
        exception_handlers={
            _Refusal: _refused,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            Exception: _crashed,
        },
    )


def serve(
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    names: Sequence[str] | None = None,
    on_listening: Callable[[int], None] = lambda port: None,
) -> None:
    """Serve the model in `folder` until SIGTERM or Ctrl-C, then finish what was asked. `port` 0 takes any free one;
    `on_listening` gets the real one. Raises `ConfigError` for an open address without a key or a taken port."""
    if not is_loopback(host) and not api_key:
        raise ConfigError(f"{host} can be reached from outside and no API key is set", fix="set a key or use 127.0.0.1")
    try:
        listener = _listen(host, port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error}", fix="choose another port") from error
    with listener:
        model = HFModel.load(folder)
        app = create_app(model, names or (model.name,), api_key)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_DRAIN_S)
        on_listening(listener.getsockname()[1])
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    # asyncio switches Nagle's delay off (40 ms an answer) only on sockets whose protocol is spelled out
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


@dataclass(frozen=True, slots=True)
class _Job:
    """A chat request that was accepted: what goes to the engine, and how to write the answer."""

    asked: ChatRequest
    request: GenerationRequest
    head: ResponseHead
    headers: dict[str, str]

    def usage(self, generation: Generation) -> Usage:
        return Usage(len(self.request.ids), 0, len(generation.token_ids))

    def shown(self, positions: tuple[Position, ...]) -> tuple[Position, ...] | None:
        return positions if self.asked.logprobs else None


class _Chat:
    def __init__(self, model: HFModel, names: tuple[str, ...], api_key: str | None, engine: Engine) -> None:
        self._model, self._names, self.engine = model, names, engine
        self._key = None if api_key is None else f"Bearer {api_key}".encode()
        self._started = int(time.time())

    async def list_models(self, request: Request) -> Response:
        self._admit(request)
        return Response(models_body(self._names, self._started), media_type=_JSON)

    async def show_model(self, request: Request) -> Response:
        self._admit(request)
        return JSONResponse(model_body(self._known(request.path_params["name"]), self._started))

    async def complete(self, request: Request) -> Response:
        self._admit(request)
        job = self._accept(await _read_body(request))
        ticket, updates = self._submit(job.request, streamed=job.asked.stream)
        if job.asked.stream:
            return StreamingResponse(_events(job, ticket, updates), 200, job.headers, "text/event-stream")
        return await _whole(job, ticket, updates, request)

    async def score(self, request: Request) -> Response:
        """The log-probabilities of texts that are sent. All of a request are queued, or none."""
        self._admit(request)
        body = await _read_body(request)
        with _as_refusals("prompt"):
            asked = parse_completion_request(body)
            self._known(asked.model)
            texts = [encode(self._model, one) if isinstance(one, str) else one for one in asked.prompts]
            for ids in texts:
                check_text(self._model, ids)
        waiting: list[tuple[Ticket, asyncio.Queue[Update]]] = []
        try:
            for ids in texts:
                waiting.append(self._submit(ScoreRequest(ids, asked.logprobs, asked.with_next), streamed=False))
            found = [await _first(updates, request) for _, updates in waiting]
        finally:
            for ticket, _ in waiting:
                ticket.cancelled = True  # has no effect on a finished one
        head = ResponseHead(f"cmpl-{secrets.token_hex(12)}", int(time.time()), asked.model, self._model.fingerprint)
        first = [self._model.token_bytes.b64(ids[0]) for ids in texts]
        scored = [update.positions for update in found if isinstance(update, TextScores)]
        if len(scored) < len(texts):
            raise _failure()
        answer = completion_response(head, first, scored, asked)
        return Response(answer, 200, {"x-request-id": head.response_id}, media_type=_JSON)

    def _submit(
        self, request: GenerationRequest | ScoreRequest, *, streamed: bool
    ) -> tuple[Ticket, asyncio.Queue[Update]]:
        updates: asyncio.Queue[Update] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def deliver(update: Update) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: so is the client
                loop.call_soon_threadsafe(updates.put_nowait, update)

        ticket = Ticket(request, deliver, streamed=streamed)
        try:
            self.engine.submit(ticket)
        except QueueFull:
            refusal = _Refusal(429, "too many requests are waiting", "rate_limit_error", code="rate_limit_exceeded")
            refusal.headers["retry-after"] = "1"
            raise refusal from None
        except EngineClosed:
            raise _Refusal(503, "the server is shutting down", "server_error") from None
        return ticket, updates

    def _admit(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode()
        if self._key is not None and not hmac.compare_digest(given, self._key):
            raise _Refusal(401, "wrong or missing API key", "authentication_error", code="invalid_api_key")

    def _known(self, name: str) -> str:
        if name not in self._names:
            message = f"the model {ascii(name)[:100]} does not exist here; there is {', '.join(self._names)}"
            raise _Refusal(404, message, "invalid_request_error", param="model", code="model_not_found")
        return name

    def _accept(self, body: bytes) -> _Job:
        with _as_refusals("messages"):
            asked = parse_chat_request(body)
            self._known(asked.model)
            ids = self._model.render(asked.messages)
            request = GenerationRequest(
                ids=ids,
                max_tokens=asked.max_tokens or self._model.limit,
                temperature=asked.temperature,
                top_p=asked.top_p,
                seed=asked.seed,
                stop=asked.stop,
                top_logprobs=asked.top_logprobs,
            )
            request = self._model.check(request)
        head = ResponseHead(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), asked.model, self._model.fingerprint)
        headers = {"x-request-id": head.response_id}
        if asked.ignored:
            headers["x-tutelage-ignored"] = ", ".join(map(_header_word, asked.ignored[:_IGNORED_SHOWN]))
        return _Job(asked, request, head, headers)


@contextlib.contextmanager
def _as_refusals(prompt: str) -> Iterator[None]:
    """Within: what is wrong with a request becomes HTTP 400. `prompt`: the field that holds the prompt."""
    kind = "invalid_request_error"
    try:
        yield
    except WireError as error:
        raise _Refusal(400, f"{error.message} ({error.fix})", kind, param=error.param or None) from None
    except PromptTooLong as error:
        message = f"{error.message} ({error.fix})"
        raise _Refusal(400, message, kind, param=prompt, code="context_length_exceeded") from None
    except DataError as error:
        raise _Refusal(400, f"{error.message} ({error.fix})", kind, param=prompt) from None


async def _read_body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _Refusal(413, f"the request body exceeds {MAX_BODY_BYTES} bytes", "invalid_request_error")
        chunks.append(chunk)
    return b"".join(chunks)


async def _whole(job: _Job, ticket: Ticket, updates: asyncio.Queue[Update], request: Request) -> Response:
    try:
        update = await _first(updates, request)
    finally:
        ticket.cancelled = True  # has no effect on a finished one
    if not isinstance(update, Generation):
        raise _failure()
    shown = job.shown(update.positions)
    body = chat_response(job.head, update.text, update.finish_reason, shown, job.usage(update))
    return Response(body, 200, job.headers, media_type=_JSON)


async def _first(updates: asyncio.Queue[Update], request: Request) -> Update:
    """Wait for an update or for the client to hang up, whichever is first. Raises `ClientDisconnect`."""
    answer = asyncio.ensure_future(updates.get())
    gone = asyncio.ensure_future(request.receive())  # the body is read: only a disconnect can come
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
    finally:
        gone.cancel()
        answer.cancel()
    return answer.result()


async def _events(job: _Job, ticket: Ticket, updates: asyncio.Queue[Update]) -> AsyncIterator[bytes]:
    """The server-sent events of one answer; Starlette closes this generator when the client hangs up."""
    with_usage = job.asked.include_usage
    opening = {"role": "assistant", "content": ""}
    try:
        yield chat_chunk(job.head, opening, None, None, include_usage=with_usage)
        held: tuple[Position, ...] = ()  # tokens whose text is not certain yet travel with the next text
        while not isinstance(update := await updates.get(), Generation):
            if isinstance(update, BaseException):
                yield b"data: " + error_body("the model failed; see the server's log", "server_error", None, None)
                yield b"\n\n"
                return
            assert isinstance(update, TokenEvent)
            held += (update.position,)
            if update.text or update.finish_reason:
                delta = {"content": update.text} if update.text else {}
                shown = job.shown(held)
                yield chat_chunk(job.head, delta, shown, update.finish_reason or None, include_usage=with_usage)
                held = ()
        if with_usage:
            yield usage_chunk(job.head, job.usage(update))
        yield DONE
    finally:
        ticket.cancelled = True


def _failure() -> _Refusal:
    return _Refusal(500, "the model failed; see the server's log", "server_error")


def _header_word(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "?", name)[:64]


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, _Refusal)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return _Refusal(error.status_code, message, "invalid_request_error").response()


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _crashed(request: Request, error: Exception) -> Response:
    """Starlette raises the error again after this answer, and uvicorn logs it."""
    return _failure().response()


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _version(request: Request) -> Response:
    return JSONResponse({"version": __version__})
