"""Loopback servers that speak the real protocols of Anthropic's Messages and Gemini's `generateContent`, errors included.

They refuse what the real ones refuse: a wrong key, unknown fields, tool results that answer no call, unsigned calls.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from tests.loopback import on_loopback
from tutelage.models.base import Dialect, Endpoint, Reply
from tutelage.models.http import HttpModel
from tutelage.records import Request

KEY = "loopback-key-000000000000"
Answer = Callable[[dict[str, Any]], dict[str, Any]]
Fault = Callable[[int, web.Request], Any]


class Vendor:
    """Keeps what it was asked; `answer(body)` makes the body of a response, `fault(number, request)` one instead of it."""

    path = ""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.fault: Fault = lambda number, request: None
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.base_url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.raw_path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.bodies.append(await request.json())
        if (fault := self.fault(len(self.bodies), request)) is not None:
            return fault
        if (refusal := self.refusal(request, self.bodies[-1])) is not None:
            return refusal
        return web.json_response(self.answer(self.bodies[-1]), headers=self.marks())

    def marks(self) -> dict[str, str]:
        """Headers of an answer."""
        return {}

    def refusal(self, request: web.Request, body: dict[str, Any]) -> web.Response | None:
        """The error that the real server would give."""
        raise NotImplementedError


class Anthropic(Vendor):
    path = "/v1/messages"
    fields = frozenset({
        "model", "max_tokens", "messages", "system", "temperature", "top_p", "top_k", "stop_sequences", "tools",
        "tool_choice", "thinking", "output_config", "metadata", "service_tier", "stream",
    })  # fmt: skip

    def marks(self) -> dict[str, str]:
        return {"request-id": f"req_{len(self.bodies)}", "anthropic-ratelimit-requests-remaining": "49"}

    def refusal(self, request: web.Request, body: dict[str, Any]) -> web.Response | None:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if (request.headers.get("x-api-key") or bearer) != KEY:
            return anthropic_error(401, "authentication_error", "invalid x-api-key")
        version = request.headers.get("anthropic-version")
        if version not in ("2023-06-01", "2026-10-21"):
            return anthropic_error(400, "invalid_request_error", "anthropic-version: header is required")
        gone = {"temperature", "top_p", "top_k"} if version == "2026-10-21" else set()
        if unknown := body.keys() - (self.fields - gone):
            return anthropic_error(400, "invalid_request_error", f"{min(unknown)}: Extra inputs are not permitted")
        if missing := {"model", "max_tokens", "messages"} - body.keys():
            return anthropic_error(400, "invalid_request_error", f"{min(missing)}: Field required")
        pending: set[str] = set()
        for number, message in enumerate(body["messages"]):
            blocks = message["content"] if isinstance(message["content"], list) else []
            answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
            if message["role"] not in ("user", "assistant") or answered != pending:
                return anthropic_error(400, "invalid_request_error", f"messages.{number}: unexpected role or tool ids")
            if any(block == {"type": "text", "text": ""} for block in blocks):
                return anthropic_error(400, "invalid_request_error", "text content blocks must be non-empty")
            pending = {block["id"] for block in blocks if block["type"] == "tool_use"}
        return None


class Gemini(Vendor):
    path = "/v1beta/models/{call}"
    fields = frozenset({
        "contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings", "cachedContent",
    })  # fmt: skip
    config = frozenset({
        "maxOutputTokens", "temperature", "topP", "topK", "stopSequences", "seed", "presencePenalty", "frequencyPenalty",
        "responseLogprobs", "logprobs", "responseMimeType", "responseJsonSchema", "thinkingConfig", "candidateCount",
    })  # fmt: skip

    def refusal(self, request: web.Request, body: dict[str, Any]) -> web.Response | None:
        if request.headers.get("x-goog-api-key") != KEY:
            return gemini_error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")
        config = body.get("generationConfig", {})
        if unknown := (body.keys() - self.fields) | (config.keys() - self.config):
            return gemini_error(400, "INVALID_ARGUMENT", f'Unknown name "{min(unknown)}": Cannot find field.')
        signs = not request.match_info["call"].startswith("gemini-2")
        called: list[str] = []
        for content in body["contents"]:
            if content["role"] not in ("user", "model"):
                return gemini_error(400, "INVALID_ARGUMENT", "Please use a valid role: user, model.")
            calls = [part for part in content["parts"] if "functionCall" in part]
            results = [part["functionResponse"] for part in content["parts"] if "functionResponse" in part]
            if [result["name"] for result in results] != called:
                return gemini_error(400, "INVALID_ARGUMENT", "function response parts must equal function call parts")
            if signs and calls and not calls[0].get("thoughtSignature"):
                return gemini_error(400, "INVALID_ARGUMENT", "Function call is missing a thought_signature")
            called = [part["functionCall"]["name"] for part in calls]
        return None


def anthropic_error(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as the Messages API gives it."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_e"}
    return web.json_response(body, status=status, headers=headers)


def gemini_error(status: int, name: str, message: str, retry_s: str | None = None) -> web.Response:
    """A `google.rpc.Status`, with `RetryInfo` where it tells how long to wait."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": retry_s}] if retry_s else []
    body = {"error": {"code": status, "message": message, "status": name, "details": details}}
    return web.Response(status=status, text=json.dumps(body, indent=2), content_type="application/json")


@contextmanager
def serving(vendor: Vendor) -> Iterator[Vendor]:
    """The vendor on a free loopback port; `base_url` is without a path."""
    app = web.Application()
    app.router.add_post(vendor.path, vendor.handle)
    with on_loopback(app) as vendor.base_url:
        yield vendor


def asked(vendor: Vendor, dialect: Dialect, request: Request, key: str = KEY) -> Reply:
    """One request over the real transport."""
    endpoint = Endpoint(vendor.base_url, "loopback", "test", request.model_asked, "MIT", key_env="LOOPBACK_VENDOR_KEY")
    os.environ["LOOPBACK_VENDOR_KEY"] = key

    async def within() -> Reply:
        async with HttpModel(endpoint, dialect, 4) as model:
            return await model.complete(request)

    try:
        return asyncio.run(within())
    finally:
        del os.environ["LOOPBACK_VENDOR_KEY"]
