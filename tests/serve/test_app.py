"""The real server on a loopback port, asked by the official client and by raw sockets."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import openai
import pytest
import uvicorn

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
from tiny import save_tiny

from tutelage.errors import ConfigError
from tutelage.models.hf import HFModel
from tutelage.serve.app import _listen, create_app, serve
from tutelage.wire.answers import parse_chat_response

ASK = [{"role": "user", "content": "the film is good"}]
KEY = "secret"


class Running:
    """An app in a thread of its own."""

    def __init__(self, app):
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=5))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def post(self, body, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"authorization": f"Bearer {KEY}", **dict(headers)}
        connection.request("POST", "/v1/chat/completions", body, headers)
        response = connection.getresponse()
        return response, response.read()

    def stop(self):
        self.server.should_exit = True
        self.thread.join(15)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"), context=4096)


@pytest.fixture(scope="module")
def model(folder):
    return HFModel.load(folder, "float32")


@pytest.fixture(scope="module")
def endless(folder):
    """A model that never ends an answer by itself."""
    model = HFModel.load(folder, "float32")
    model.eos_ids = frozenset()
    return model


@pytest.fixture(scope="module")
def running(model):
    running = Running(create_app(model, ["student", "org/teacher"], KEY))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(running):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key=KEY, max_retries=0, timeout=20)


def body(**more):
    return json.dumps({"model": "student", "messages": ASK, "max_tokens": 1, "temperature": 0, **more}).encode()


def test_whole_answer_with_logprobs(client, model):
    asked = {"model": "student", "messages": ASK, "max_tokens": 6, "temperature": 0, "logprobs": True}
    answer = client.chat.completions.create(**asked, top_logprobs=5)
    choice = answer.choices[0]
    assert (answer.object, answer.model, answer.system_fingerprint) == ("chat.completion", "student", model.fingerprint)
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert len(choice.logprobs.content) == answer.usage.completion_tokens
    first = choice.logprobs.content[0]
    assert (len(first.top_logprobs), first.top_logprobs[0].bytes) == (5, first.bytes)
    assert first.logprob <= 0
    assert client.chat.completions.create(**asked | {"logprobs": None}).choices[0].logprobs is None


def test_stream_equals_whole(client):
    asked = {"model": "student", "messages": ASK, "max_tokens": 12, "temperature": 1, "seed": 4, "logprobs": True}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    streamed = [entry for chunk in chunks[1:-1] for entry in chunk.choices[0].logprobs.content]
    assert [entry.bytes for entry in streamed] == [entry.bytes for entry in whole.choices[0].logprobs.content]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == whole.choices[0].finish_reason
    plain = list(client.chat.completions.create(**asked | {"max_tokens": 1}, stream=True))
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in plain)


def test_stream_bytes_on_the_wire(running):
    response, raw = running.post(body(stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    events = raw.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert all(event.startswith(b"data: {") for event in events[:-2])


def test_our_own_client_reads_our_server(running):
    response, raw = running.post(body(logprobs=True, top_logprobs=20, user="me", zebra=1))
    answer = parse_chat_response(raw)
    assert response.headers["x-tutelage-ignored"] == "user, zebra"
    assert len(answer.positions) == answer.usage.completion_tokens == 1
    assert len(answer.positions[0].top) == 20
    assert answer.positions[0].chosen == answer.positions[0].top[0]
    assert answer.positions[0].chosen.token_id >= 0


def test_models_health_version(client, running):
    assert [item.id for item in client.models.list()] == ["student", "org/teacher"]
    assert client.models.retrieve("org/teacher").id == "org/teacher"
    connection = http.client.HTTPConnection("127.0.0.1", running.port)
    for path in ("/health", "/version"):
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, bool(json.loads(response.read()))) == (200, True)


def test_errors_are_openais(client, running):
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="gpt-9", messages=ASK)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as tools:
        create(model="student", messages=ASK, n=2)
    assert tools.value.param == "n"
    with pytest.raises(openai.BadRequestError) as long:
        create(model="student", messages=[{"role": "user", "content": "slow " * 5000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    assert running.post(body(), {"authorization": ""})[0].status == 401
    assert running.post(b"x" * ((1 << 20) + 1))[0].status == 413
    assert running.post(b"{")[0].status == 400
    connection = http.client.HTTPConnection("127.0.0.1", running.port)
    connection.request("GET", "/nowhere")
    assert json.loads(connection.getresponse().read())["error"]["type"] == "invalid_request_error"


def test_concurrent_questions_get_their_own_answers(client, running):
    texts = [f"the film {at} is good" for at in range(24)]

    def ask(text):
        raw = running.post(body(messages=[{"role": "user", "content": text}], logprobs=True))[1]
        return parse_chat_response(raw).positions[0].chosen

    alone = [ask(text) for text in texts]
    together = [None] * len(texts)

    def put(at):
        together[at] = ask(texts[at])

    threads = [threading.Thread(target=put, args=(at,)) for at in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert one.token_id == other.token_id
        assert abs(one.logprob_unats - other.logprob_unats) <= 100


class Slow:
    """The model with decode steps that take a while, and counted."""

    def __init__(self, model, step_s):
        self._model, self._step_s, self.steps = model, step_s, 0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def begin(self, requests):
        decoding = self._model.begin(requests)
        step = decoding.step

        def slow_step():
            self.steps += 1
            time.sleep(self._step_s)
            return step()

        decoding.step = slow_step
        return decoding


LONG = {"max_tokens": 2000, "temperature": 2, "seed": 1}


def open_stream(running):
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    connection.request("POST", "/v1/chat/completions", body(stream=True, **LONG), {"authorization": f"Bearer {KEY}"})
    response = connection.getresponse()
    response.read(200)
    return connection, response


def test_short_questions_overtake_long_ones_and_disconnects_cancel(endless):
    slow = Slow(endless, 0.03)
    running = Running(create_app(slow, ["student"], KEY))
    connection, response = open_stream(running)
    start = time.monotonic()
    assert running.post(body())[0].status == 200
    assert time.monotonic() - start < 2  # the long one takes a minute
    response.close()
    connection.close()
    deadline, before = time.monotonic() + 5, -1
    while slow.steps != before and time.monotonic() < deadline:
        before = slow.steps
        time.sleep(0.3)
    assert slow.steps == before
    running.stop()


def test_full_queue_says_come_back(endless):
    running = Running(create_app(Slow(endless, 0.05), ["student"], KEY, max_batch=1, max_queue=1))
    streams = [open_stream(running), open_stream(running)]
    response, raw = running.post(body(max_tokens=5))
    assert (response.status, response.headers["retry-after"]) == (429, "1")
    assert json.loads(raw)["error"]["code"] == "rate_limit_exceeded"
    for connection, response in streams:
        response.close()
        connection.close()
    running.stop()


def test_a_failing_model_answers_500_without_details(model):
    class Broken(Slow):
        def first_tokens(self, requests):
            raise RuntimeError("secret path")

    running = Running(create_app(Broken(model, 0), ["student"], KEY))
    response, raw = running.post(body())
    assert response.status == 500
    assert b"secret" not in raw
    assert b"server_error" in running.post(body(stream=True))[1]
    assert running.post(body(max_tokens=2))[0].status == 200
    running.stop()


def test_open_addresses_need_a_key(folder):
    with pytest.raises(ConfigError, match="no API key"):
        serve(folder, host="0.0.0.0")


def test_a_taken_port_is_a_config_error_and_answers_are_not_delayed(folder):
    with _listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        with pytest.raises(ConfigError, match="cannot listen"):
            serve(folder, port=listener.getsockname()[1])


def test_serve_drains_on_sigterm(folder):
    code = (
        "import sys; from pathlib import Path; from tutelage.serve.app import serve;"
        "serve(Path(sys.argv[1]), port=0, names=['s'], on_listening=lambda port: print(port, flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{int(process.stdout.readline())}/v1", api_key="x", timeout=60)
    stream = client.chat.completions.create(model="s", messages=ASK, stream=True, **LONG | {"max_tokens": 200})
    next(iter(stream))
    process.send_signal(signal.SIGTERM)
    chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert process.wait(20) in (0, -signal.SIGTERM)
