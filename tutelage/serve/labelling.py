"""The labelling page's server: one person, one item at a time, on loopback alone; every decision on the disk before
it answers.

Who gave an answer never leaves the server: a page knows positions and buttons by number, and the order of two answers
is drawn by lot. A loopback port is open to everybody on the machine and to every page in a browser, so each address
begins with a random key, the `Host` must be ours (DNS rebinding), and a decision needs the token of this process
(CSRF).
"""

import hmac
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tutelage.errors import ConfigError, TutelageError
from tutelage.models.exchange import now_utc
from tutelage.prove.gold_file import PERSON, TIE, Header, Journal, Kind, Mode, Row, checked_reason, last_of, standing
from tutelage.prove.shown import BUTTONS_OF_PAIRS, Shown
from tutelage.serve.labelling_page import POLICY, Page, Progress, Words

HOST = "127.0.0.1"
_MOST_BYTES = 16_384  # of a posted form
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # "no-referrer" would make browsers send `Origin: null` with our own forms
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass
class Desk:
    """One person at work on what was dealt; all they do goes into the journal."""

    journal: Journal
    dealt: Sequence[Shown]
    who: str
    adjudicates: bool = False  # only what others disagree on was dealt
    _sent_at: tuple[int, float] | None = field(default=None, init=False)

    @property
    def header(self) -> Header:
        return self.journal.header

    def current(self) -> int | None:
        """The place of the first unit that this person has neither decided nor skipped; None when all are."""
        done = self._mine()
        return next((at for at, shown in enumerate(self.dealt) if shown.unit not in done), None)

    def sent(self, at: int) -> None:
        """The page of a unit is about to be sent: the clock of that unit starts, unless it runs."""
        if self._sent_at is None or self._sent_at[0] != at:
            self._sent_at = (at, time.monotonic())

    def decide(self, at: int, button: int) -> bool:
        """Records the decision on the unit at `at`; False when that is not the current one (two tabs, a second
        click)."""
        if at != self.current():
            return False
        self._add(at, Kind.DECISION, decision=self._meant(self.dealt[at], button))
        return True

    def skip(self, at: int, reason: str) -> bool:
        """As `decide`. Raises `DataError` for no reason."""
        said = checked_reason(reason)
        if at != self.current():
            return False
        self._add(at, Kind.SKIP, reason=said)
        return True

    def undo(self) -> bool:
        """Takes this person's latest decision or skip back; False when there is none."""
        last = last_of(self.journal.rows, self.who)
        places = {shown.unit: at for at, shown in enumerate(self.dealt)}
        if last is None or last.unit not in places:
            return False
        self._add(places[last.unit], Kind.UNDO)
        return True

    def last_words(self) -> str:
        """What the person's latest line says, in the words of the page; empty without one."""
        last = last_of(self.journal.rows, self.who)
        if last is None:
            return ""
        if last.kind is Kind.SKIP:
            return "skipped"
        if last.mode is not Mode.PAIRS:
            return last.decision
        return BUTTONS_OF_PAIRS[2 if last.decision == TIE else last.order.index(last.decision)]

    def progress(self) -> Progress:
        mine = self._mine()
        kinds = [mine[shown.unit].kind for shown in self.dealt if shown.unit in mine]
        return Progress(kinds.count(Kind.DECISION), kinds.count(Kind.SKIP), len(self.dealt))

    def buttons(self) -> tuple[str, ...]:
        return BUTTONS_OF_PAIRS if self.header.mode is Mode.PAIRS else self.header.choices

    def _meant(self, shown: Shown, button: int) -> str:
        if self.header.mode is Mode.PAIRS:
            return (*shown.order, TIE)[button]
        return self.header.choices[button]

    def _mine(self) -> dict[tuple[str, str], Row]:
        return {unit: rows[self.who] for unit, rows in standing(self.journal.rows).items() if self.who in rows}

    def _add(self, at: int, kind: Kind, decision: str = "", reason: str = "") -> None:
        shown, header = self.dealt[at], self.header
        started = self._sent_at[1] if self._sent_at and self._sent_at[0] == at else time.monotonic()
        self.journal.add(
            Row(
                item=shown.unit.item, system=shown.unit.system, kind=kind, decision=decision, reason=reason,
                author=f"{PERSON}:{self.who}", mode=header.mode, order=shown.order,
                shown=shown.digest(header.asked, self.buttons()), at=now_utc(),
                took_ms=round(1000 * (time.monotonic() - started)), adjudicates=self.adjudicates,
            )
        )  # fmt: skip
        self._sent_at = None


def create_app(desk: Desk, key: str, token: str, words: Words) -> ASGIApp:
    """The application; every address but those below `/KEY/` is unknown."""
    server = _Server(desk, key, token, Page(words))
    posts: Mapping[str, Callable[[Mapping[str, str]], bool]] = {
        "decide": server.decide, "skip": server.skip, "undo": server.undo
    }  # fmt: skip
    app = Starlette(
        routes=[
            Route("/{key}/", server.keyed(server.page)),
            *(Route(f"/{{key}}/{name}", server.keyed(server.posted(act)), methods=["POST"]) for name, act in posts.items()),
        ],
        exception_handlers={HTTPException: _unknown, TutelageError: server.failed},
    )  # fmt: skip
    return _Guard(app)


def serve(desk: Desk, port: int, words: Words, on_listening: Callable[[str], None]) -> None:
    """Answers until it is interrupted (`KeyboardInterrupt`); `on_listening` gets the address to open. Raises
    `ConfigError` for a taken port."""
    key, token = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    try:
        listener = socket.create_server((HOST, port), backlog=128)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen on {HOST}:{port}: {error}", fix="choose another --port") from error
    with listener:
        config = uvicorn.Config(
            create_app(desk, key, token, words), log_level="warning", access_log=False, timeout_graceful_shutdown=1,
            server_header=False,
        )  # fmt: skip
        on_listening(f"http://{HOST}:{listener.getsockname()[1]}/{key}/")
        uvicorn.Server(config).run(sockets=[listener])


class _Guard:
    """Turns away whatever is not meant for this very server, or comes from another page, before anything else is
    looked at."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = _refusal(scope) if scope["type"] == "http" else None
        await (self._app if refusal is None else refusal)(scope, receive, send)


def _refusal(scope: Scope) -> Response | None:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name, []).append(value)
    ours = {f"{name}:{scope['server'][1]}".encode() for name in (HOST, "localhost")}
    hosts = found.get(b"host", [])
    if len(hosts) != 1 or hosts[0].lower() not in ours:
        return PlainTextResponse("this is not the host you asked for\n", 421, _HEADERS)
    if scope["method"] not in ("GET", "HEAD", "POST"):
        return PlainTextResponse("only GET and POST\n", 405, {**_HEADERS, "allow": "GET, HEAD, POST"})
    if scope["method"] == "POST":
        if any(origin not in {b"http://" + host for host in ours} for origin in found.get(b"origin", [])):
            return PlainTextResponse("sent from another page\n", 403, _HEADERS)
        if any(site not in (b"same-origin", b"none") for site in found.get(b"sec-fetch-site", [])):
            return PlainTextResponse("sent from another page\n", 403, _HEADERS)
    return None


class _Server:
    def __init__(self, desk: Desk, key: str, token: str, page: Page) -> None:
        self._desk, self._key, self._token, self._page = desk, key, token, page

    def keyed(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            given = str(request.path_params["key"])
            if not hmac.compare_digest(given.encode("utf-8", "replace"), self._key.encode()):
                raise HTTPException(404)
            return await handler(request)

        return checked

    async def page(self, request: Request) -> Response:
        desk = self._desk
        at, progress = desk.current(), desk.progress()
        stale = request.query_params.get("stale") == "1"
        if at is None:
            return _html(self._page.done(self._token, progress, desk.last_words()))
        if request.method == "GET":
            desk.sent(at)
        html = self._page.item(
            self._token, at, desk.dealt[at], desk.buttons(), desk.header, desk.who, progress, desk.last_words(), stale
        )
        return _html(html)

    def posted(self, act: Callable[[Mapping[str, str]], bool]) -> Callable[[Request], Awaitable[Response]]:
        """A handler that checks the token, acts, and sends the reader on to the page."""

        async def handle(request: Request) -> Response:
            form = await _form(request)
            if not hmac.compare_digest(form.get("token", "").encode("utf-8", "replace"), self._token.encode()):
                return PlainTextResponse("sent from an old page: open the address again\n", 403, _HEADERS)
            done = act(form)
            return RedirectResponse(f"/{self._key}/" + ("" if done else "?stale=1"), 303, _HEADERS)

        return handle

    def decide(self, form: Mapping[str, str]) -> bool:
        return self._desk.decide(_number(form, "at"), _number(form, "choice", len(self._desk.buttons())))

    def skip(self, form: Mapping[str, str]) -> bool:
        return self._desk.skip(_number(form, "at"), form.get("reason", ""))

    def undo(self, form: Mapping[str, str]) -> bool:
        return self._desk.undo()

    async def failed(self, request: Request, error: Exception) -> Response:
        """Nothing was recorded: said on a page with the way out."""
        assert isinstance(error, TutelageError)
        return _html(self._page.failed(error, f"/{self._key}/"), 500 if isinstance(error, OSError) else 400)


async def _form(request: Request) -> dict[str, str]:
    """The last value of every field of a small form. Refuses others."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413)
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415)
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        raise HTTPException(400) from None
    return {name: values[-1] for name, values in fields.items()}


def _number(form: Mapping[str, str], name: str, below: int = 2**31) -> int:
    text = form.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 11 and int(text) < below):
        raise HTTPException(400)
    return int(text)


def _html(html: str, status: int = 200) -> HTMLResponse:
    # Lone surrogates in outside data are shown as words; whatever is left of them must not end the answer.
    return HTMLResponse(html.encode("utf-8", "replace"), status, {**_HEADERS, "content-security-policy": POLICY})


async def _unknown(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = {
        404: "nothing is here: open the address that `tutelage label` printed\n",
        405: "not this way\n",
        413: "too large\n",
    }
    return PlainTextResponse(said.get(status, "this cannot be read\n"), status, _HEADERS)
