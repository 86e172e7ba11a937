"""The viewer's server: GET alone, on loopback alone, under a path that nobody can guess. Nothing runs but one small script.

The store is private to its owner, and a loopback port is open to everybody on the machine and to every page in a browser.
So each address begins with a random key, the `Host` must be ours (DNS rebinding), answers may not be framed or read from
elsewhere, and no part of an address becomes a path of the file system: runs are numbers, examples places in segments.
"""

import asyncio
import contextlib
import hmac
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tutelage.errors import ConfigError, TutelageError
from tutelage.view import pages, query
from tutelage.view.compare import compare
from tutelage.view.index import Place
from tutelage.view.links import ServedLinks
from tutelage.view.live import progress
from tutelage.view.looking import WAIT_S, Looking
from tutelage.view.runs import EVIDENCE, REPORT, Run, own_file, summary_of

HOST = "127.0.0.1"
_EVERY_S = 1.0  # between two looks at a run that is under way
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# The report brings its style with it and runs nothing; a sandbox keeps it from being this site.
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox allow-top-navigation-by-user-activation"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def create_app(looking: Looking, key: str) -> ASGIApp:
    """The application; every address but those below `/KEY/` is unknown."""
    view = _View(looking, ServedLinks(f"/{key}"))
    routes = {
        "/": view.runs,
        "/run/{number:int}": view.run,
        "/run/{number:int}/examples": view.examples,
        "/run/{number:int}/example/{place:str}": view.example,
        "/run/{number:int}/proof": view.pairs,
        "/run/{number:int}/proof/{item:int}": view.pair,
        "/run/{number:int}/report.html": view.report,
        "/run/{number:int}/evidence.json": view.evidence,
        "/compare": view.compare,
        "/view.css": view.style,
        "/view.js": view.script,
    }
    app = Starlette(
        routes=[
            *(Route(f"/{{key}}{path}", _keyed(key, handler)) for path, handler in routes.items()),
            Route("/{key}/run/{number:int}/live", _keyed(key, view.live)),
        ],
        exception_handlers={HTTPException: view.unknown, TutelageError: view.failed},
    )
    return _Guard(app)


def serve(looking: Looking, port: int, on_listening: Callable[[str], None]) -> None:
    """Answers until it is interrupted; `on_listening` gets the address to open. Raises `ConfigError` for a taken port."""
    key = secrets.token_urlsafe(16)
    pages.warm_up()
    try:
        listener = socket.create_server((HOST, port), backlog=128)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen on {HOST}:{port}: {error}", fix="choose another --port") from error
    with listener:
        config = uvicorn.Config(
            create_app(looking, key), log_level="warning", access_log=False, timeout_graceful_shutdown=1,
            server_header=False,
        )  # fmt: skip
        on_listening(f"http://{HOST}:{listener.getsockname()[1]}/{key}/")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            looking.close()


class _Guard:
    """Turns away whatever is not a GET of this very server, before anything else is looked at."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        refusal = _refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, send)


def _refusal(scope: Scope) -> Response | None:
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    port = scope["server"][1]
    ours = {f"{name}:{port}".encode() for name in (HOST, "localhost")}
    if len(hosts) != 1 or hosts[0].lower() not in ours:
        return Response("this is not the host you asked for\n", 421, _HEADERS, "text/plain")
    if scope["method"] not in ("GET", "HEAD"):
        return Response("only GET\n", 405, {**_HEADERS, "allow": "GET, HEAD"}, "text/plain")
    return None


def _keyed(key: str, handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """The handler behind the key. Ordinary handlers read files: they run in a thread."""

    async def checked(request: Request) -> Response:
        given = str(request.path_params["key"])
        if not hmac.compare_digest(given.encode("utf-8", "replace"), key.encode()):
            raise HTTPException(404)
        if asyncio.iscoroutinefunction(handler):
            return await handler(request)
        return await asyncio.to_thread(handler, request)

    return checked


def _page(html: str, status: int = 200) -> HTMLResponse:
    # Lone surrogates in outside data are shown as words; whatever is left of them must not end the answer.
    return HTMLResponse(html.encode("utf-8", "replace"), status, {**_HEADERS, "content-security-policy": _POLICY})


class _View:
    def __init__(self, looking: Looking, links: ServedLinks) -> None:
        self._looking, self._links = looking, links

    def runs(self, request: Request) -> Response:
        return _page(pages.runs_page(self._links, [summary_of(run) for run in self._looking.runs]))

    def run(self, request: Request) -> Response:
        run = self._run(request)
        return _page(pages.run_page(self._links, run, self._looking.run_facts(run)))

    def examples(self, request: Request) -> Response:
        run, filters = self._run(request), query.Filters.parse(request.query_params)
        index = self._looking.index(run)
        known = index.refresh(WAIT_S)
        with index.reading() as database:
            listed = query.list_examples(database, filters)
        return _page(pages.examples_page(self._links, run, known, filters, listed))

    def example(self, request: Request) -> Response:
        run, place = self._run(request), Place.parse(request.path_params["place"])
        found = self._looking.example(run, place) if place is not None else None
        if found is None:
            raise HTTPException(404)
        return _page(pages.example_page(self._links, run, *found))

    def pairs(self, request: Request) -> Response:
        run, page = self._run(request), query.page_of(request.query_params)
        which = request.query_params.get("which", "")
        which = which if which in query.PAIRS else ""
        index = self._looking.index(run)
        index.refresh(WAIT_S)
        with index.reading() as database:
            found = query.list_pairs(database, which, page)
        return _page(pages.pairs_page(self._links, run, which, page, found))

    def pair(self, request: Request) -> Response:
        run = self._run(request)
        found = self._looking.pair(run, min(request.path_params["item"], 2**40))
        if found is None:
            raise HTTPException(404)
        return _page(pages.pair_page(self._links, run, *found))

    def compare(self, request: Request) -> Response:
        left, right = (self._numbered(request.query_params.get(name, "")) for name in ("a", "b"))
        return _page(pages.compare_page(self._links, left, right, compare(left, right)))

    def report(self, request: Request) -> Response:
        return self._file(request, REPORT, "text/html; charset=utf-8")

    def evidence(self, request: Request) -> Response:
        return self._file(request, EVIDENCE, "application/json")

    def style(self, request: Request) -> Response:
        return Response(pages.stylesheet(), 200, _HEADERS, "text/css")

    def script(self, request: Request) -> Response:
        return Response(pages.script(), 200, _HEADERS, "text/javascript")

    async def live(self, request: Request) -> Response:
        run = self._run(request)
        return StreamingResponse(self._events(run), 200, _HEADERS, "text/event-stream")

    async def _events(self, run: Run) -> AsyncIterator[bytes]:
        """What changes, once a second; one comment in between, so that a reader who left is noticed."""
        index, before = self._looking.index(run), ""
        while True:
            try:
                found = json.dumps(await asyncio.to_thread(lambda: progress(run, index.refresh(0))))
            except (TutelageError, OSError) as error:
                found = json.dumps({"state": str(error)})
            yield f"data: {found}\n\n".encode() if found != before else b": same\n\n"
            before = found
            await asyncio.sleep(_EVERY_S)

    async def unknown(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return Response(
            "nothing is here: open the address that `tutelage view` printed\n", status, _HEADERS, "text/plain"
        )

    async def failed(self, request: Request, error: Exception) -> Response:
        """What a folder holds is not as it should be: said on a page, with the way out."""
        assert isinstance(error, TutelageError)
        is_asked = isinstance(error, ConfigError)
        title = "This cannot be shown" if is_asked else "This run cannot be read"
        return _page(pages.error_page(self._links, title, error), 400 if is_asked else 500)

    def _run(self, request: Request) -> Run:
        run = self._looking.run(request.path_params["number"])
        if run is None:
            raise HTTPException(404)
        return run

    def _numbered(self, text: str) -> Run:
        run = self._looking.run(int(text)) if text.isascii() and text.isdecimal() and len(text) < 9 else None
        if run is None:
            count = len(self._looking.runs)
            raise ConfigError(f"{text[:40]!r} is no run of this list", fix=f"give two numbers from 1 to {count}")
        return run

    def _file(self, request: Request, name: str, kind: str) -> Response:
        path: Path | None = own_file(self._run(request), name)
        if path is None:
            raise HTTPException(404)
        with contextlib.suppress(FileNotFoundError):
            headers = {**_HEADERS, "content-security-policy": _REPORT_POLICY}
            return Response(path.read_bytes(), 200, headers, kind)
        raise HTTPException(404)
