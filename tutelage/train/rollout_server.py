"""The student writes on a server of its own, vLLM or SGLang, over HTTP: token ids there and back, weights through a folder.

Both are asked for plain sampling in so many words: what a request leaves out, a server takes from the model's
generation_config. The folder must be readable by the server under the same path.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import orjson

from tutelage.errors import ConfigError, TeacherError
from tutelage.hosts import outgoing_proxy
from tutelage.jsonl import writing
from tutelage.models.quiet import without_bars
from tutelage.train.rollout import Rollout, check, context_tokens, end_ids, from_engine
from tutelage.train.rollout_fast import merged_state

# Nothing is cut away from the distribution, and nothing added to it, whatever the model's generation_config says.
_PLAIN_SAMPLING = {
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


class Drawn(NamedTuple):
    """Tokens and their log-probabilities, as an engine reported them."""

    ids: Sequence[int]
    logp: Sequence[float]


def post_all(
    base_url: str, calls: Sequence[tuple[str, dict[str, Any]]], limit_s: float, at_once: int = 64
) -> list[Any]:
    """The JSON answers to POSTs of (path, body), in their order (None for an empty answer). Raises `TeacherError` when one
    fails: a batch without one of its answers is no batch."""
    return asyncio.run(_post_all(base_url, calls, limit_s, at_once))


async def _post_all(
    base_url: str, calls: Sequence[tuple[str, dict[str, Any]]], limit_s: float, at_once: int
) -> list[Any]:
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=limit_s, sock_connect=15),
        connector=aiohttp.TCPConnector(limit=at_once),
        proxy=outgoing_proxy(base_url),
    ) as session:

        async def post(path: str, body: dict[str, Any]) -> Any:
            headers = {"Content-Type": "application/json"}
            async with session.post(base_url + path, data=orjson.dumps(body), headers=headers) as response:
                raw = await response.read()
                if response.status != 200:
                    raise TeacherError(
                        f"{base_url}{path} answered HTTP {response.status}: {raw[:300].decode('utf-8', 'replace')}",
                        fix="see the server's log; it must be of the kind named, started as its roller says",
                    )
                return orjson.loads(raw) if raw.strip() else None

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(post(*call)) for call in calls]
        except* (aiohttp.ClientError, TimeoutError, ValueError) as errors:
            error = errors.exceptions[0]
            raise TeacherError(
                f"{base_url} gave no answer: {type(error).__name__}: {str(error)[:200]}",
                fix="check that the rollout server runs and its address is right",
            ) from error
        except* TeacherError as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]


class Served(ABC):
    """What servers have in common: end tokens named in so many words, one request an answer, weights through `folder`.

    `model` is asked for its end tokens (unless `ends` are given) and its context, nothing more.
    """

    path: str

    def __init__(
        self, base_url: str, folder: Path, model: Any, ends: frozenset[int] | None = None, limit_s: float = 600.0
    ) -> None:
        self._base_url = base_url.rstrip("/").removesuffix("/v1")
        self._folder, self._limit_s = folder.absolute(), limit_s
        self._ends, self._context = ends or end_ids(model), context_tokens(model)

    def write(
        self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, temperature: float, seeds: Sequence[int]
    ) -> list[Rollout]:
        """As `Roller.write`; raises `TeacherError` for a server that fails or answers outside its protocol."""
        check(prompts, max_new_tokens, temperature, seeds, self._context)
        calls = [
            (self.path, self._body(prompt, max_new_tokens, temperature, seed))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        found = []
        for prompt, answer in zip(prompts, post_all(self._base_url, calls, self._limit_s), strict=True):
            try:
                drawn = self._parse(answer, prompt)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                raise TeacherError(
                    f"{self._base_url}{self.path} answered without what was asked for: {type(error).__name__} {error}",
                    fix="use a version of the server that returns token ids and their log-probabilities",
                ) from error
            found.append(from_engine(prompt, drawn.ids, drawn.logp, self._ends, max_new_tokens))
        return found

    def refresh(self, model: Any) -> None:
        """Saves the weights (adapters merged) as safetensors and makes the server read them, forgetting what it had computed
        with others. Raises `StorageError`, or `TeacherError` when the server does not say that it did."""
        inner = model.get_base_model() if hasattr(model, "peft_config") else model
        with writing(self._folder), without_bars():  # a refresh comes every few seconds
            inner.save_pretrained(self._folder, state_dict=merged_state(model))
        self._reload()

    def close(self) -> None:  # noqa: B027 - there is nothing to end, whoever inherits
        """The server was started by somebody else, and goes on."""

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return post_all(self._base_url, [(path, body)], self._limit_s)[0]

    @abstractmethod
    def _body(self, prompt: tuple[int, ...], max_new_tokens: int, temperature: float, seed: int) -> dict[str, Any]: ...

    @abstractmethod
    def _parse(self, answer: Any, prompt: tuple[int, ...]) -> Drawn: ...

    @abstractmethod
    def _reload(self) -> None: ...


class VllmRoller(Served):
    """vLLM's `/v1/completions`. Start it with VLLM_SERVER_DEV_MODE=1 (it reloads weights only then) and with log-probabilities
    as the model gives them, `--logprobs-mode raw_logprobs`, its default; `name` is the model's name there."""

    path = "/v1/completions"

    def __init__(
        self,
        base_url: str,
        name: str,
        folder: Path,
        model: Any,
        ends: frozenset[int] | None = None,
        limit_s: float = 600.0,
    ) -> None:
        super().__init__(base_url, folder, model, ends, limit_s)
        self._name = name

    def _body(self, prompt: tuple[int, ...], max_new_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
        return {
            "model": self._name,
            "prompt": list(prompt),
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "seed": seed,
            "logprobs": 0,  # of the drawn token alone
            "return_token_ids": True,
            "ignore_eos": True,  # the server's own end tokens; what ends an answer is the student's, listed next
            "stop_token_ids": sorted(self._ends),
            "stop": [],
            "add_special_tokens": False,
            **_PLAIN_SAMPLING,
        }

    def _parse(self, answer: Any, prompt: tuple[int, ...]) -> Drawn:
        choice = answer["choices"][0]
        if tuple(choice["prompt_token_ids"]) != prompt:
            raise ValueError(f"it read {choice['prompt_token_ids'][:8]}… for the prompt {list(prompt[:8])}…")
        return Drawn(choice["token_ids"], choice["logprobs"]["token_logprobs"])

    def _reload(self) -> None:
        self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(self._folder)}})
        self._post("/reset_prefix_cache", {})


class SglangRoller(Served):
    """SGLang's `/generate`. Its log-probabilities are of the distribution after the temperature, so only temperature 1 is
    taken; seeds count only when it was started with `--enable-deterministic-inference`."""

    path = "/generate"

    def write(
        self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, temperature: float, seeds: Sequence[int]
    ) -> list[Rollout]:
        """As `Roller.write`; raises `ConfigError` for a temperature other than 1."""
        if temperature != 1:
            raise ConfigError(
                f"temperature {temperature}: SGLang reports log-probabilities at that temperature, not at 1",
                fix="use temperature 1, or another engine for rollouts",
            )
        return super().write(prompts, max_new_tokens, temperature, seeds)

    def _body(self, prompt: tuple[int, ...], max_new_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
        return {
            "input_ids": list(prompt),
            "return_logprob": True,
            "sampling_params": {
                "max_new_tokens": max_new_tokens,
                "temperature": temperature,
                "sampling_seed": seed,
                "stop_token_ids": sorted(self._ends),
                "skip_special_tokens": False,
                **_PLAIN_SAMPLING,
            },
        }

    def _parse(self, answer: Any, prompt: tuple[int, ...]) -> Drawn:
        facts = answer["meta_info"]
        if facts["prompt_tokens"] != len(prompt):
            raise ValueError(f"it read {facts['prompt_tokens']} tokens for a prompt of {len(prompt)}")
        pairs = facts["output_token_logprobs"]
        return Drawn([pair[1] for pair in pairs], [pair[0] for pair in pairs])

    def _reload(self) -> None:
        said = self._post("/update_weights_from_disk", {"model_path": str(self._folder), "flush_cache": True})
        if not (isinstance(said, dict) and said.get("success") is True):
            raise TeacherError(
                f"{self._base_url} did not take the weights: {str(said)[:200]}", fix="see the server's log"
            )
