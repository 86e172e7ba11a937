"""The student writing on a server: loopback servers that speak vLLM's and SGLang's protocols over a real tiny model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from transformers import AutoModelForCausalLM

from tests.loopback import on_loopback
from tests.train.students import END, scored, student
from tutelage.errors import ConfigError, DataError, TeacherError
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.rollout_server import SglangRoller, VllmRoller

PROMPTS = [(1, 2, 3, 4, 5), (9, 10)]
SEEDS = [3, 4]


class Server:
    """Answers from the weights it last loaded, as both servers do; `fault(path, answer)` may spoil what it says."""

    def __init__(self) -> None:
        self.model = student(seed=5)
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.fault: Any = lambda path, answer: answer
        self.base_url = ""

    def load(self, folder: str) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()

    def answer(self, prompt: list[int], limit: int, temperature: float, seed: int, ends: list[int]) -> Any:
        return LocalRoller(self.model, frozenset(ends)).write([tuple(prompt)], limit, temperature, [seed])[0]

    async def handle(self, request: web.Request) -> web.Response:
        body, path = await request.json(), request.path
        self.bodies.append((path, body))
        said = self.fault(path, getattr(self, "do" + path.replace("/", "_"))(body))
        if isinstance(said, web.Response):
            return said
        return web.json_response(said) if said is not None else web.Response()

    def do_v1_completions(self, body: dict[str, Any]) -> dict[str, Any]:
        ends = body["stop_token_ids"] + ([] if body["ignore_eos"] else [0])
        found = self.answer(body["prompt"], body["max_tokens"], body["temperature"], body["seed"], ends)
        choice = {
            "index": 0,
            "text": "never read",
            "finish_reason": "stop" if found.finished else "length",
            "stop_reason": found.ids[-1] if found.finished else None,
            "logprobs": {"token_logprobs": list(found.logp), "tokens": ["?"] * len(found.ids)},
        }
        if body["return_token_ids"]:
            choice |= {"prompt_token_ids": body["prompt"], "token_ids": list(found.ids)}
        return {"object": "text_completion", "model": body["model"], "choices": [choice]}

    def do_collective_rpc(self, body: dict[str, Any]) -> Any:
        assert body["method"] == "reload_weights"
        self.load(body["kwargs"]["weights_path"])
        return {"results": [None]}

    def do_reset_prefix_cache(self, body: dict[str, Any]) -> Any:
        return None

    def do_generate(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = body["sampling_params"]
        found = self.answer(
            body["input_ids"],
            asked["max_new_tokens"],
            asked["temperature"],
            asked["sampling_seed"],
            asked["stop_token_ids"],
        )
        pairs = [[value, token, None] for value, token in zip(found.logp, found.ids, strict=True)]
        reason = {"type": "stop", "matched": found.ids[-1]} if found.finished else {"type": "length"}
        facts = {"prompt_tokens": len(body["input_ids"]), "finish_reason": reason, "output_token_logprobs": pairs}
        return {"text": "never read", "output_ids": list(found.ids), "meta_info": facts}

    def do_update_weights_from_disk(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["flush_cache"] is True
        self.load(body["model_path"])
        return {"success": True, "message": "Succeeded to update model weights."}


@pytest.fixture
def server() -> Iterator[Server]:
    found, app = Server(), web.Application()
    for path in ("/v1/completions", "/collective_rpc", "/reset_prefix_cache", "/generate", "/update_weights_from_disk"):
        app.router.add_post(path, found.handle)
    with on_loopback(app) as base:
        found.base_url = base
        yield found


def roller(kind: str, server: Server, folder: Path, model: Any) -> Any:
    if kind == "vllm":
        return VllmRoller(server.base_url + "/v1", "student", folder, model)
    return SglangRoller(server.base_url, folder, model)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_answers_come_from_the_weights_that_were_sent(kind: str, server: Server, tmp_path: Path) -> None:
    model = student()
    engine = roller(kind, server, tmp_path / "weights", model)
    stale = engine.write(PROMPTS, 30, 1.0, SEEDS)
    engine.refresh(model)
    found = engine.write(PROMPTS, 30, 1.0, SEEDS)
    assert found != stale
    local = LocalRoller(model).write(PROMPTS, 30, 1.0, SEEDS)
    assert [one[:2] for one in found] == [one[:2] for one in local]
    for one, other in zip(found, local, strict=True):
        assert one.logp == pytest.approx(other.logp, abs=1e-4)
    assert {one.finished for one in found} <= {True, False}
    assert all(one.ids[-1] == END for one in found if one.finished)
    engine.close()


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_adapters_are_merged_into_what_is_sent(kind: str, server: Server, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(student(), LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
    engine = roller(kind, server, tmp_path, adapted)
    engine.refresh(adapted)
    for found in engine.write(PROMPTS, 10, 1.0, SEEDS):
        own = scored(adapted, found.prompt_ids, found.ids)
        torch.testing.assert_close(torch.tensor(found.logp), own, atol=1e-4, rtol=0)


def test_trap_c15_ids_cross_the_wire_and_stops_are_the_students(server: Server, tmp_path: Path) -> None:
    roller("vllm", server, tmp_path, student()).write(PROMPTS, 3, 1.0, SEEDS)
    roller("sglang", server, tmp_path, student()).write(PROMPTS, 3, 1.0, SEEDS)
    asked = {tuple(body.get("prompt") or body["input_ids"]) for _, body in server.bodies}
    assert asked == set(PROMPTS)
    for _, body in server.bodies:
        assert (body.get("sampling_params") or body)["stop_token_ids"] == [END]


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_trap_d10_plain_sampling_is_asked_for_in_words(kind: str, server: Server, tmp_path: Path) -> None:
    roller(kind, server, tmp_path, student()).write(PROMPTS[:1], 3, 1.0, [1])
    asked = server.bodies[0][1].get("sampling_params") or server.bodies[0][1]
    assert (asked["temperature"], asked["top_p"], asked["top_k"], asked["min_p"]) == (1.0, 1.0, -1, 0.0)
    assert (asked["repetition_penalty"], asked["presence_penalty"], asked["frequency_penalty"]) == (1.0, 0.0, 0.0)


def test_trap_d10_tempered_log_probabilities_are_not_taken(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"temperature 0\.7"):
        roller("sglang", server, tmp_path, student()).write(PROMPTS, 3, 0.7, SEEDS)
    assert not server.bodies


def without(*path: Any) -> Any:
    def spoil(_: str, answer: Any) -> Any:
        at = answer
        for step in path[:-1]:
            at = at[step]
        del at[path[-1]]
        return answer

    return spoil


def double_start(_: str, answer: Any) -> Any:
    if "choices" in answer:
        answer["choices"][0]["prompt_token_ids"].insert(0, 1)
    else:
        answer["meta_info"]["prompt_tokens"] += 1
    return answer


@pytest.mark.parametrize(
    ("kind", "fault", "said"),
    [
        ("vllm", without("choices", 0, "token_ids"), "token_ids"),
        ("vllm", without("choices", 0, "logprobs"), "logprobs"),
        ("vllm", double_start, "it read [1, 1, 2"),  # trap C12
        ("sglang", double_start, "it read 6 tokens for a prompt of 5"),
        ("sglang", without("meta_info", "output_token_logprobs"), "output_token_logprobs"),
        (
            "vllm",
            lambda path, answer: web.Response(status=400, text="too many logprobs"),
            "HTTP 400: too many logprobs",
        ),
        ("sglang", lambda path, answer: web.Response(text="<html>"), "no answer"),
        ("vllm", lambda path, answer: None, "without what was asked for"),
    ],
)
def test_traps_c12_c16_an_answer_outside_the_protocol_stops_the_batch(
    kind: str, fault: Any, said: str, server: Server, tmp_path: Path
) -> None:
    server.fault = fault
    with pytest.raises(TeacherError) as caught:
        roller(kind, server, tmp_path, student()).write(PROMPTS[:1], 3, 1.0, [1])
    assert said in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_refresh_that_did_not_happen_is_an_error(kind: str, server: Server, tmp_path: Path) -> None:
    def refuse(path: str, answer: Any) -> Any:
        if path == "/collective_rpc":
            return web.Response(status=404, text="Not Found")  # vLLM outside its development mode
        return {"success": False, "message": "shapes differ"}

    server.fault = refuse
    model = student()
    with pytest.raises(TeacherError, match="Not Found" if kind == "vllm" else "shapes differ"):
        roller(kind, server, tmp_path, model).refresh(model)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"127\.0\.0\.1:9 gave no answer"):
        VllmRoller("http://127.0.0.1:9", "student", tmp_path, student()).write(PROMPTS, 3, 1.0, SEEDS)


def test_bad_requests_never_reach_the_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        roller("vllm", server, tmp_path, student()).write([()], 3, 1.0, [1])
    assert not server.bodies
