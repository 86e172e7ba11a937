"""Loopback servers that speak the real batch protocols of OpenAI, Anthropic and Gemini, all on one port, and their faults.

Jobs go on by being polled. Results come shuffled. What is paid for is counted by the text of the question.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.loopback import on_loopback

OK, INVALID, ERROR, EXPIRED, MISSING, TWICE, GARBAGE, EMPTY, SKIPPED, UNTOLD = (
    "ok", "invalid", "error", "expired", "missing", "twice", "garbage", "empty", "skipped", "untold"
)  # fmt: skip
PAID = (OK, MISSING, TWICE, GARBAGE, EMPTY, UNTOLD)


@dataclass
class Question:
    custom_id: str
    text: str
    body: dict[str, Any]
    fate: str


@dataclass
class Job:
    id: str
    api: str
    token: str
    questions: list[Question]
    created: datetime
    polls: int = 0
    failure: dict[str, str] | None = None
    cancelled: bool = False

    def count(self, *fates: str) -> int:
        return sum(question.fate in fates for question in self.questions)


@dataclass
class Desk:
    """`fate(text, nth)` says what comes of a question that is asked for the nth time; `hook(event)` runs in the server's
    thread before the event is answered, and may return a response instead."""

    fate: Callable[[str, int], str] = lambda text, nth: OK
    hook: Callable[[str], web.Response | None] = lambda event: None
    polls_needed: int = 2
    late: int = 0  # so many polls of a job that is over do not show its file yet
    lags: int = 0  # so many listings do not show the newest job yet
    unknown: int = 0  # results of questions nobody asked
    failures: list[dict[str, str] | None] = field(default_factory=list)  # of the next jobs: code and message
    skew_s: float = 0.0  # of the server's clock
    jobs: dict[str, Job] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    echo: str = ""  # at the end of every answer
    upload_host: str = ""  # where Gemini's uploads are said to go on; empty for here
    base_url: str = ""

    def add(self, api: str, token: str, lines: list[tuple[str, dict[str, Any]]]) -> Job:
        """A job is paid for as soon as it is there, but for what will fail."""
        questions = []
        failure = self.failures.pop(0) if self.failures else None
        for custom_id, body in lines:
            text = _text(api, body)
            if failure is None:
                self.asked[text] += 1
            questions.append(Question(custom_id, text, body, self.fate(text, self.asked[text])))
            if failure is None and questions[-1].fate in PAID:
                self.paid[text] += 1
        number = len(self.jobs) + 1
        name = {"openai": f"batch_{number}", "anthropic": f"msgbatch_{number}", "gemini": f"batches/{number}"}[api]
        created = datetime.fromtimestamp(datetime.now(UTC).timestamp() + self.skew_s, UTC)
        job = self.jobs[name] = Job(name, api, token, questions, created, failure=failure)
        return job

    def listed(self, api: str) -> list[Job]:
        """The newest first."""
        jobs = [job for job in reversed(self.jobs.values()) if job.api == api]
        self.lags -= 1
        return jobs[1:] if self.lags >= 0 else jobs

    def shows_files(self, job: Job) -> bool:
        self.late -= self.is_over(job)
        return self.is_over(job) and self.late < 0

    def is_over(self, job: Job) -> bool:
        return job.cancelled or job.polls >= self.polls_needed

    def lines(self, job: Job, render: Callable[[Question], dict[str, Any]], fates: tuple[str, ...]) -> list[bytes]:
        made = []
        for question in job.questions:
            if question.fate in fates and question.fate != MISSING:
                made += [json.dumps(render(question)).encode()] * (2 if question.fate == TWICE else 1)
        if OK in fates:
            strange = [Question("f" * 63 + str(number), "nobody asked", {}, OK) for number in range(self.unknown)]
            made += [json.dumps(render(question)).encode() for question in strange]
        random.Random(job.id).shuffle(made)
        return made

    async def send(self, request: web.Request, made: list[bytes]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        for number, line in enumerate(made):
            if number == len(made) // 2:
                await asyncio.sleep(0)
                self.hook("results-half")
            await response.write(line + b"\n")
        return response


def _text(api: str, body: dict[str, Any]) -> str:
    if api == "gemini":
        return body["contents"][-1]["parts"][0]["text"]
    return body["messages"][-1]["content"] if "messages" in body else body["prompt"]


def _problem(status: int, message: str) -> web.Response:
    return web.json_response(
        {"type": "error", "error": {"type": "invalid_request_error", "message": message}}, status=status
    )


class OpenAIDesk:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/files", self.upload), web.get("/v1/files/{id}/content", self.content),
            web.post("/v1/batches", self.create), web.get("/v1/batches", self.list),
            web.get("/v1/batches/{id}", self.get), web.post("/v1/batches/{id}/cancel", self.cancel),
        ]  # fmt: skip

    async def upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form["file"]
        if form["purpose"] != "batch" or not isinstance(file, web.FileField):
            return _problem(400, "no batch file")
        if (answer := self.desk.hook("file")) is not None:
            return answer
        name = f"file-{len(self.desk.files) + 1}"
        self.desk.files[name] = file.file.read()
        about = {"id": name, "object": "file", "bytes": len(self.desk.files[name]), "created_at": 1,
                 "filename": file.filename, "purpose": "batch", "status": "processed"}  # fmt: skip
        return web.json_response(about)

    async def create(self, request: web.Request) -> web.StreamResponse:
        if (answer := self.desk.hook("create")) is not None:
            return answer
        asked = await request.json()
        lines = [json.loads(line) for line in self.desk.files[asked["input_file_id"]].splitlines()]
        if asked["completion_window"] != "24h" or any(line["url"] != asked["endpoint"] for line in lines):
            return _problem(400, "the lines do not fit the job")
        if len({line["custom_id"] for line in lines}) != len(lines):
            return _problem(400, "custom ids repeat")
        token = (asked.get("metadata") or {}).get("tutelage", "")
        job = self.desk.add("openai", token, [(line["custom_id"], line["body"]) for line in lines])
        if (answer := self.desk.hook("created")) is not None:
            return answer
        return web.json_response(self.shown(job))

    def shown(self, job: Job) -> dict[str, Any]:
        over = self.desk.is_over(job)
        status = "failed" if job.failure else "completed" if over else ("validating", "in_progress")[job.polls > 0]
        if over and not job.failure and (job.cancelled or job.count(EXPIRED)):
            status = "cancelled" if job.cancelled else "expired"
        counts = {"total": len(job.questions), "completed": job.count(*PAID) if over else 0, "failed": 0}
        return {
            "id": job.id, "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-1",
            "completion_window": "24h", "status": status, "created_at": int(job.created.timestamp()),
            "errors": {"object": "list", "data": [job.failure]} if job.failure else None, "request_counts": counts,
            "output_file_id": f"{job.id}-output" if self.desk.shows_files(job) and not job.failure and job.count(*PAID) else None,
            "error_file_id": f"{job.id}-errors" if over and job.count(INVALID, ERROR, EXPIRED) else None,
            "metadata": {"tutelage": job.token} if job.token else None,
        }  # fmt: skip

    async def get(self, request: web.Request) -> web.StreamResponse:
        job = self.desk.jobs.get(request.match_info["id"])
        if job is None:
            return _problem(404, "no such batch")
        job.polls += 1
        return self.desk.hook("poll") or web.json_response(self.shown(job))

    async def list(self, request: web.Request) -> web.StreamResponse:
        jobs = self.desk.listed("openai")
        if after := request.query.get("after"):
            jobs = jobs[[job.id for job in jobs].index(after) + 1 :]
        page = jobs[:2]  # small pages, whatever is asked for
        return web.json_response(
            {"object": "list", "data": [self.shown(job) for job in page], "has_more": len(jobs) > len(page)}
        )

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        job = self.desk.jobs[request.match_info["id"]]
        job.cancelled = True
        return web.json_response({**self.shown(job), "status": "cancelling"})

    async def content(self, request: web.Request) -> web.StreamResponse:
        name, _, which = request.match_info["id"].rpartition("-")
        job = self.desk.jobs[name]
        fates = PAID if which == "output" else (INVALID, ERROR, EXPIRED)
        return await self.desk.send(request, self.desk.lines(job, self.line, fates))

    def line(self, question: Question) -> dict[str, Any]:
        line: dict[str, Any] = {"id": "batch_req_1", "custom_id": question.custom_id, "response": None, "error": None}
        if question.fate == EXPIRED:
            return {**line, "error": {"code": "batch_expired", "message": "could not be executed in time"}}
        status = {INVALID: 400, ERROR: 500}.get(question.fate, 200)
        chat = "prompt" not in question.body
        said = {"message": {"role": "assistant", "content": answer_to(question.text) + self.desk.echo}}
        choice = {
            "index": 0,
            "finish_reason": "stop",
            **(said if chat else {"text": answer_to(question.text) + self.desk.echo}),
        }
        body: dict[str, Any] = {
            "id": "chatcmpl-1", "object": "chat.completion" if chat else "text_completion", "created": 1,
            "model": question.body.get("model", "m"), "choices": [choice] if question.fate != GARBAGE else [],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        }  # fmt: skip
        if question.fate == UNTOLD:
            del body["usage"]
        if question.fate == EMPTY:
            body = {"id": "nothing"}
        if status != 200:
            body = {"error": {"message": f"status {status}", "type": "x", "param": None, "code": None}}
        return {**line, "response": {"status_code": status, "request_id": f"req-{question.text}", "body": body}}


class AnthropicDesk:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def routes(self) -> list[web.RouteDef]:
        at = "/v1/messages/batches"
        return [
            web.post(at, self.create), web.get(at, self.list), web.get(at + "/{id}", self.get),
            web.get(at + "/{id}/results", self.results), web.post(at + "/{id}/cancel", self.cancel),
        ]  # fmt: skip

    async def create(self, request: web.Request) -> web.StreamResponse:
        if (answer := self.desk.hook("create")) is not None:
            return answer
        if not request.headers.get("anthropic-version"):
            return _problem(400, "anthropic-version: header is required")
        asked = (await request.json())["requests"]
        if any(len(one["custom_id"]) > 64 or "max_tokens" not in one["params"] for one in asked):
            return _problem(400, "requests: invalid")
        job = self.desk.add("anthropic", "", [(one["custom_id"], one["params"]) for one in asked])
        return self.desk.hook("created") or web.json_response(self.shown(job))

    def shown(self, job: Job) -> dict[str, Any]:
        over = self.desk.is_over(job)
        counts = {"processing": len(job.questions), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        if over:
            counts = {"processing": 0, "succeeded": job.count(*PAID), "errored": job.count(INVALID, ERROR),
                      "canceled": 0, "expired": job.count(EXPIRED)}  # fmt: skip
        time = job.created.isoformat().replace("+00:00", "Z")
        return {
            "id": job.id, "type": "message_batch", "processing_status": "ended" if over else "in_progress",
            "request_counts": counts, "created_at": time, "expires_at": time, "ended_at": time if over else None,
            "results_url": f"{self.desk.base_url}/v1/messages/batches/{job.id}/results" if over else None,
            "archived_at": None, "cancel_initiated_at": None,
        }  # fmt: skip

    async def get(self, request: web.Request) -> web.StreamResponse:
        job = self.desk.jobs.get(request.match_info["id"])
        if job is None:
            return _problem(404, "no such batch")
        job.polls += 1
        return self.desk.hook("poll") or web.json_response(self.shown(job))

    async def list(self, request: web.Request) -> web.StreamResponse:
        jobs = self.desk.listed("anthropic")
        if after := request.query.get("after_id"):
            jobs = jobs[[job.id for job in jobs].index(after) + 1 :]
        page = [self.shown(job) for job in jobs[:2]]
        ids = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return web.json_response({"data": page, "has_more": len(jobs) > 2, **ids})

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        job = self.desk.jobs[request.match_info["id"]]
        job.cancelled = True
        return web.json_response({**self.shown(job), "processing_status": "canceling"})

    async def results(self, request: web.Request) -> web.StreamResponse:
        job = self.desk.jobs[request.match_info["id"]]
        return await self.desk.send(request, self.desk.lines(job, self.line, (*PAID, INVALID, ERROR, EXPIRED)))

    def line(self, question: Question) -> dict[str, Any]:
        if question.fate in (INVALID, ERROR):
            kind = "invalid_request_error" if question.fate == INVALID else "api_error"
            error = {"type": "error", "error": {"type": kind, "message": f"a {kind}"}, "request_id": "req_1"}
            return {"custom_id": question.custom_id, "result": {"type": "errored", "error": error}}
        if question.fate == EXPIRED:
            return {"custom_id": question.custom_id, "result": {"type": "expired"}}
        message: dict[str, Any] = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": question.body.get("model", "m"),
            "content": [{"type": "text", "text": answer_to(question.text) + self.desk.echo}], "stop_reason": "end_turn",
            "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 2},
        }  # fmt: skip
        if question.fate == GARBAGE:
            message["content"] = "not a list"
        if question.fate == UNTOLD:
            del message["usage"]
        if question.fate == EMPTY:
            message = {"id": "nothing"}
        return {"custom_id": question.custom_id, "result": {"type": "succeeded", "message": message}}


class GeminiDesk:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/upload/{version}/files", self.start), web.post("/upload/sessions/{id}", self.upload),
            web.post("/{version}/models/{what}", self.create), web.get("/{version:v1beta}/batches", self.list),
            web.get("/{version:v1beta}/batches/{id}", self.get), web.post("/{version:v1beta}/batches/{id}", self.cancel),
            web.get("/download/{version}/files/{id}", self.download),  # as the guide has it
            web.get("/{version}/files/{id}", self.download),  # as the client library has it
        ]  # fmt: skip

    async def start(self, request: web.Request) -> web.StreamResponse:
        if (answer := self.desk.hook("file")) is not None:
            return answer
        if request.headers.get("X-Goog-Upload-Command") != "start":
            return _problem(400, "not resumable")
        self.desk.uploads.append(request.headers["X-Goog-Upload-Header-Content-Length"])
        host = self.desk.upload_host or self.desk.base_url
        return web.Response(
            headers={"X-Goog-Upload-URL": f"{host}/upload/sessions/{len(self.desk.uploads)}?upload_id=1"}
        )

    async def upload(self, request: web.Request) -> web.StreamResponse:
        content, number = await request.read(), request.match_info["id"]
        if (
            len(content) != int(self.desk.uploads[int(number) - 1])
            or "finalize" not in request.headers["X-Goog-Upload-Command"]
        ):
            return _problem(400, "not what was announced")
        self.desk.files[f"files/{number}"] = content
        return web.json_response(
            {"file": {"name": f"files/{number}", "mimeType": request.headers["Content-Type"]}},
            headers={"X-Goog-Upload-Status": "final"},
        )

    async def create(self, request: web.Request) -> web.StreamResponse:
        if (answer := self.desk.hook("create")) is not None:
            return answer
        if not request.match_info["what"].endswith(":batchGenerateContent"):
            return _problem(404, "no such method")
        batch = (await request.json())["batch"]
        source = batch["inputConfig"]
        lines = [json.loads(line) for line in self.desk.files[source["fileName"]].splitlines()]
        job = self.desk.add("gemini", batch["displayName"], [(line["key"], line["request"]) for line in lines])
        return self.desk.hook("created") or web.json_response(self.shown(job))

    def shown(self, job: Job) -> dict[str, Any]:
        over = self.desk.is_over(job)
        state = "FAILED" if job.failure else ("SUCCEEDED" if over else ("PENDING", "RUNNING")[job.polls > 0])
        state = "EXPIRED" if over and not job.failure and job.count(EXPIRED) == len(job.questions) else state
        stats = {"requestCount": str(len(job.questions)), "pendingRequestCount": str(len(job.questions))}
        if over:
            stats = {"requestCount": str(len(job.questions)), "successfulRequestCount": str(job.count(*PAID))}
        file = (
            {"responsesFile": f"files/out-{job.id.removeprefix('batches/')}"}
            if state == "SUCCEEDED" and self.desk.shows_files(job)
            else {}
        )
        about = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": "models/m", "displayName": job.token, "name": job.id, "state": f"BATCH_STATE_{state}",
            "createTime": job.created.isoformat().replace("+00:00", "Z"), "batchStats": stats, "output": file,
        }  # fmt: skip
        shown: dict[str, Any] = {"name": job.id, "metadata": about}
        if job.failure:
            return {**shown, "done": True, "error": {"code": 3, "message": job.failure["message"]}}
        return {**shown, "done": True, "response": file} if over else shown

    async def get(self, request: web.Request) -> web.StreamResponse:
        job = self.desk.jobs.get("batches/" + request.match_info["id"])
        if job is None:
            return _problem(404, "no such batch")
        job.polls += 1
        return self.desk.hook("poll") or web.json_response(self.shown(job))

    async def list(self, request: web.Request) -> web.StreamResponse:
        jobs = self.desk.listed("gemini")
        start = int(request.query.get("pageToken", "0"))
        more = {"nextPageToken": str(start + 2)} if len(jobs) > start + 2 else {}
        return web.json_response({"operations": [self.shown(job) for job in jobs[start : start + 2]], **more})

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        name, _, verb = request.match_info["id"].partition(":")
        if verb != "cancel":
            return _problem(404, "no such method")
        self.desk.jobs[f"batches/{name}"].cancelled = True
        return web.json_response({})

    async def download(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"].removeprefix("out-").removesuffix(":download")
        if request.query.get("alt") != "media":
            return _problem(400, "alt")
        job = self.desk.jobs[f"batches/{name}"]
        return await self.desk.send(request, self.desk.lines(job, self.line, (*PAID, INVALID, ERROR, EXPIRED)))

    def line(self, question: Question) -> dict[str, Any]:
        if question.fate in (INVALID, ERROR, EXPIRED):
            code = {INVALID: 3, ERROR: 13, EXPIRED: 4}[question.fate]
            return {"key": question.custom_id, "error": {"code": code, "message": f"code {code}"}}
        part = {
            "content": {"role": "model", "parts": [{"text": answer_to(question.text) + self.desk.echo}]},
            "finishReason": "STOP",
        }
        response: dict[str, Any] = {
            "candidates": [{**part, "index": 0}], "modelVersion": "m-001", "responseId": "r1",
            "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2, "totalTokenCount": 9},
        }  # fmt: skip
        if question.fate == GARBAGE:
            response["candidates"] = "not a list"
        if question.fate == UNTOLD:
            del response["usageMetadata"]
        if question.fate == EMPTY:
            response = {"responseId": "nothing"}
        return {"key": question.custom_id, "response": response}


def answer_to(text: str) -> str:
    return f"café {text}"  # written as an escape by `json.dumps`: bytes that another writer would not give


@contextmanager
def serving_batches(desk: Desk) -> Iterator[Desk]:
    """The three APIs on a free loopback port. `desk.base_url` is the port's, without a path."""

    @web.middleware
    async def note(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        desk.headers.append({name.lower(): value for name, value in request.headers.items()})
        return await handler(request)

    app = web.Application(middlewares=[note], client_max_size=256 << 20)
    for part in (OpenAIDesk(desk), AnthropicDesk(desk), GeminiDesk(desk)):
        app.add_routes(part.routes())
    with on_loopback(app) as desk.base_url:
        yield desk
