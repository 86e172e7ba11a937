"""A loopback endpoint with a small language model of its own, as honest or as wrong as a test wants it."""

import asyncio
import json
import math
import random
import re
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.loopback import Teacher
from tutelage.models.probing.splitting import SPLIT_TEXT

WORDS = tuple(f" w{number}" for number in range(40))
ENDS_AFTER = 6


def split(text: str) -> list[str]:
    """This endpoint's tokenizer."""
    return re.findall(r" ?\w{1,4}|\s|[^\w\s]", text)


@dataclass
class Fake(Teacher):
    """`processed`: which sampling parameters its log-probabilities come after. `refuses`: fields it answers with 400;
    `ignores`: fields it takes and does nothing with. `models`: names it reports, and minds it has, in turn."""

    minds: tuple[str, ...] = ("m",)
    names: tuple[str, ...] = ()
    processed: tuple[str, ...] = ()
    most_k: int = 20
    capped_k: int = 99
    capped_scores: int = 99
    lists_drawn: bool = False
    hidden: int = 0
    scores: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    finishes: dict[str, str] = field(default_factory=dict)
    noise: float = 0.0
    hangs_on: str = ""
    says: Any = None  # a body given instead of every answer but the first
    with_bytes: bool = True
    entry: dict[str, Any] = field(default_factory=dict)
    split: Any = split
    usage: bool = True
    tokenizes: bool = False

    def __post_init__(self) -> None:
        super().__init__(logprobs=self.most_k > 0)

    def add_routes(self, app: web.Application) -> None:
        if self.entry:
            app.router.add_get("/v1/models", self.models)
        if self.tokenizes:
            app.router.add_post("/tokenize", self.tokenize)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if (fault := self.fault(self.asked, request)) is not None:
            return await fault if asyncio.iscoroutine(fault) else fault
        if self.hangs_on and self.hangs_on in json.dumps(body):
            await asyncio.sleep(60)
        if self.says is not None and self.asked > 1:
            return self.says if isinstance(self.says, web.Response) else web.json_response(self.says)
        chat = "messages" in body
        if not chat and "completions" in self.refuses:
            return refusal(404, "no such API")
        if chat and "chat" in self.refuses:
            return refusal(400, "this model has no chat template")
        for name in self.refuses:
            if name in body:
                return refusal(400, f"Unsupported parameter: {name} is not supported with this model")
        body = {key: value for key, value in body.items() if key not in self.ignores}
        k = (body.get("top_logprobs") if chat else body.get("logprobs")) or 0
        if max(k, body.get("prompt_logprobs", 0)) > self.most_k:
            return refusal(400, f"logprobs must be between 0 and {self.most_k}.")
        return self._answer(body, chat, min(k, self.capped_k))

    def _answer(self, body: dict[str, Any], chat: bool, k: int) -> web.Response:
        texts = [message["content"] for message in body["messages"]] if chat else [body["prompt"]]
        prompt = json.dumps([texts, body.get("response_format")])
        count = self.hidden + (4 if chat else 0) + sum(len(self.split(text)) for text in texts)
        mind = self.minds[self.asked % len(self.minds)]
        chances = random.Random(f"{body['seed']}" if "seed" in body else f"{self.asked}")
        choices, made = [], 0
        for index in range(body.get("n", 1)):
            rows, finish = self._write(prompt, mind, body, k, chances)
            choices.append(self._choice(index, rows, finish, body, chat, k))
            made += len(rows)
        answer = {
            "model": self.names[self.asked % len(self.names)] if self.names else body["model"],
            "choices": choices,
            "usage": {"prompt_tokens": count, "completion_tokens": made},
        }
        if not self.usage:
            del answer["usage"]
        return web.json_response(answer)

    def _write(
        self, prompt: str, mind: str, body: dict[str, Any], k: int, chances: random.Random
    ) -> tuple[list[tuple[str, float, dict[str, float]]], str]:
        """Tokens with their log-probability and candidates, and why they end."""
        temperature, top_p = body.get("temperature", 1), body.get("top_p", 1)
        rows: list[tuple[str, float, dict[str, float]]] = []
        repeats = self.split(SPLIT_TEXT) if "Repeat this text" in prompt else None
        banana = "BANANA" in prompt and "system" not in self.ignores
        while len(rows) < body.get("max_tokens", ENDS_AFTER):
            drawer = random.Random(f"{mind}|{prompt}|{len(rows)}")
            raw = _normal({word: drawer.gauss(0, 1.5) for word in WORDS})
            hot = _nucleus(_normal({w: v / max(temperature, 1e-3) for w, v in raw.items()}), top_p)
            shown = _nucleus(
                _normal({w: v / max(temperature, 1e-3) for w, v in raw.items()})
                if "temperature" in self.processed
                else raw,
                top_p if "top_p" in self.processed else 1,
            )
            word = max(hot, key=hot.__getitem__) if temperature == 0 else _draw(hot, chances)
            if repeats is not None:
                word = repeats[len(rows)]
            elif banana:
                word = " banana"
            if any(stop in "".join([*(row[0] for row in rows), word]) for stop in body.get("stop", [])):
                return rows, self.finishes.get("stop", "stop")
            noisy = {w: min(0.0, v + random.gauss(0, self.noise)) for w, v in shown.items()}
            top = dict(sorted(noisy.items(), key=lambda item: -item[1])[:k])
            if self.lists_drawn:
                top |= {word: noisy.get(word, -9.0)}
            rows.append((word, noisy.get(word, -9.0), top))
            if len(rows) == (len(repeats) if repeats is not None else ENDS_AFTER):
                return rows, self.finishes.get("stop", "stop")
        return rows, self.finishes.get("length", "length")

    def _choice(
        self, index: int, rows: list[tuple[str, float, dict[str, float]]], finish: str, body: dict[str, Any], chat: bool,
        k: int,
    ) -> dict[str, Any]:  # fmt: skip
        text = "".join(row[0] for row in rows)
        if body.get("response_format"):
            text, rows = '{"colour": "red"}', []
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if body.get("tools"):
            call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": '{"city": "Paris"}'}}
            message["tool_calls"] = [call]
        choice: dict[str, Any] = {"index": index, "finish_reason": finish}
        choice |= {"message": message} if chat else {"text": text}
        if k and self.logprobs and chat:
            choice["logprobs"] = {
                "content": [
                    {**self._token(word, logp), "top_logprobs": [self._token(*item) for item in top.items()]}
                    for word, logp, top in rows
                ]
            }
        if k and self.logprobs and not chat:
            given = self.split(body["prompt"]) if body.get("echo") and "echo" in self.scores else []
            choice["logprobs"] = {
                "tokens": [*given, *(row[0] for row in rows)],
                "token_logprobs": [None, *[-1.0] * (len(given) - 1), *(row[1] for row in rows)][-len(given) - len(rows) :],
                "top_logprobs": [*[None][: len(given)], *[dict.fromkeys(WORDS[:k], -1.5)] * (len(given) - 1),
                                 *(row[2] for row in rows)],
            }  # fmt: skip
        asked = min(body.get("prompt_logprobs", 0), self.capped_scores)
        if asked and "prompt_logprobs" in self.scores:
            row = {str(at): {"logprob": -1.5, "rank": at, "decoded_token": "x"} for at in range(asked)}
            choice["prompt_logprobs"] = [None, *[row] * (len(self.split(body["prompt"])) - 1)]
        return choice

    def _token(self, word: str, logp: float) -> dict[str, Any]:
        return {"token": word, "logprob": logp, "bytes": list(word.encode()) if self.with_bytes else None}

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", **self.entry}]})

    async def tokenize(self, request: web.Request) -> web.Response:
        return web.json_response({"tokens": [{"id": 1, "piece": piece} for piece in self.split(SPLIT_TEXT)]})


def refusal(status: int, words: str) -> web.Response:
    return web.json_response({"error": {"message": words, "type": "invalid_request_error"}}, status=status)


def _normal(logits: dict[str, float]) -> dict[str, float]:
    most = max(logits.values())
    total = most + math.log(math.fsum(math.exp(value - most) for value in logits.values()))
    return {word: value - total for word, value in logits.items()}


def _nucleus(logps: dict[str, float], top_p: float) -> dict[str, float]:
    kept, mass = {}, 0.0
    for word, logp in sorted(logps.items(), key=lambda item: -item[1]):
        kept[word] = logp
        mass += math.exp(logp)
        if mass >= top_p:
            break
    return kept if top_p >= 1 else _normal(kept)


def _draw(logps: dict[str, float], chances: random.Random) -> str:
    return chances.choices(list(logps), [math.exp(value) for value in logps.values()])[0]
