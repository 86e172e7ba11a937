"""Texts scored over real HTTP, against one plain pass of the model: what harnesses compare possible answers with."""

import http.client
import json
import sys
import threading
from pathlib import Path

import openai
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
from tiny import save_tiny

from tests.serve.test_app import KEY, Running
from tutelage.errors import DataError
from tutelage.models import scoring
from tutelage.models.hf import HFModel, PromptTooLong
from tutelage.models.scoring import ScoreRequest, check_text, encode, score_text
from tutelage.serve.app import create_app
from tutelage.wire.completions import MAX_PROMPTS, parse_completion_request
from tutelage.wire.values import WireError

TEXT = "the film is good, déjà vu 日本 🙂"
ASKED = {"model": "student", "prompt": TEXT, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return HFModel.load(save_tiny(tmp_path_factory.mktemp("tiny"), context=640), "float32")


@pytest.fixture(scope="module")
def running(model):
    running = Running(create_app(model, ["student"], KEY, max_queue=8))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(running):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key=KEY, max_retries=0, timeout=20)


@torch.inference_mode()
def plain(model, ids):
    """Log-probabilities of every next token, in one pass without cache."""
    return model._model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)


def test_every_token_of_a_text(client, model):
    answer = client.completions.create(**ASKED)
    ids, choice = encode(model, TEXT), answer.choices[0]
    found_TV = plain(model, ids)
    told = choice.logprobs
    assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
    expected = [float(found_TV[at, token]) for at, token in enumerate(ids[1:])] + [float(found_TV[-1].max())]
    assert told.token_logprobs[1:] == pytest.approx(expected, abs=2e-5)
    assert choice.text.startswith(TEXT) and len(told.tokens) == len(ids) + 1
    assert "".join(told.tokens[:6]) == TEXT[: told.text_offset[6]]
    for at, top in enumerate(told.top_logprobs[1:]):
        assert max(top.values()) == pytest.approx(float(found_TV[at].max()), abs=2e-5)
        assert told.token_logprobs[at + 1] in top.values() and len(top) <= 2
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), 1)
    assert any(token.startswith("bytes:\\x") for token in told.tokens)  # half of a character


def test_without_the_next_token_and_without_candidates(client, model):
    ids = list(encode(model, TEXT))
    answer = client.completions.create(**ASKED | {"prompt": ids, "max_tokens": 0, "logprobs": 0})
    assert answer.choices[0].text == TEXT and answer.choices[0].logprobs.top_logprobs is None
    assert len(answer.choices[0].logprobs.tokens) == len(ids) and answer.usage.completion_tokens == 0
    (only,) = client.completions.create(**ASKED | {"prompt": [5], "max_tokens": 0}).choices
    assert only.logprobs.token_logprobs == [None]


def test_several_texts_at_once_are_as_alone(client):
    prompts = [[5, 9, 2, 8], [7, 7], [300, 4, 6]]
    together = client.completions.create(**ASKED | {"prompt": prompts})
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    for prompt, choice in zip(prompts, together.choices, strict=True):
        assert client.completions.create(**ASKED | {"prompt": prompt}).choices[0].logprobs == choice.logprobs
    texts = client.completions.create(**ASKED | {"prompt": ["a film", "so"]})
    assert [choice.text[:2] for choice in texts.choices] == ["a ", "so"]


def test_long_texts_in_pieces_are_as_whole(model, monkeypatch):
    ids = tuple(torch.randint(0, 320, (600,), generator=torch.Generator().manual_seed(1)).tolist())
    found_TV = plain(model, ids)
    expected = [float(found_TV[at, token]) for at, token in enumerate(ids[1:])]
    for size in (599, 256, 7):
        monkeypatch.setattr(scoring, "_CHUNK_TOKENS", size)
        positions = score_text(model, ScoreRequest(ids, 3, True)).positions
        assert [position.chosen.token_id for position in positions[:-1]] == list(ids[1:])
        assert [p.chosen.logprob_unats / 1e6 for p in positions[:-1]] == pytest.approx(expected, abs=5e-5)
        assert positions[-1].chosen == positions[-1].top[0] and len(positions) == 600


def test_the_context_and_the_vocabulary_are_kept_to(model):
    check_text(model, (327,) * 640)
    with pytest.raises(PromptTooLong, match="641"):
        check_text(model, (1,) * 641)
    for ids, message in (((), "empty"), ((328,), "token 328 is not from 0 to 327"), ((-1,), "token -1")):
        with pytest.raises(DataError, match=message):
            check_text(model, ids)


def post(running, body, key=KEY):
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    connection.request("POST", "/v1/completions", json.dumps(body).encode(), {"authorization": f"Bearer {key}"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"echo": False}, 400, "echo"),
        ({"max_tokens": 2}, 400, "max_tokens"),
        ({"max_tokens": None}, 400, "max_tokens"),
        ({"temperature": 1}, 400, "temperature"),
        ({"logprobs": None}, 400, "logprobs"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"stream": True}, 400, "stream"),
        ({"n": 2}, 400, "n"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": [["x"]]}, 400, "prompt"),
        ({"prompt": [1, True]}, 400, "prompt"),
        ({"prompt": [[999]]}, 400, "prompt"),
        ({"prompt": [1] * 641}, 400, "prompt"),
        ({"prompt": ["x"] * (MAX_PROMPTS + 1)}, 400, "prompt"),
        ({"prompt": ["x"] * 9}, 429, None),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(running, change, status, param):
    found, body = post(running, ASKED | change)
    assert (found, body["error"]["param"]) == (status, param), body


def test_it_needs_the_key(running):
    assert post(running, ASKED, key="wrong")[0] == 401
    assert post(running, ASKED)[0] == 200


def test_a_lone_surrogate_is_refused():
    with pytest.raises(WireError, match="not Unicode"):
        parse_completion_request(json.dumps(ASKED | {"prompt": "\ud800"}).encode())


def test_chats_and_texts_side_by_side(client):
    chat = {
        "model": "student",
        "messages": [{"role": "user", "content": "the film"}],
        "max_tokens": 40,
        "temperature": 0,
    }
    alone = client.chat.completions.create(**chat).choices[0].message.content
    score = client.completions.create(**ASKED).choices[0].logprobs
    found = []

    def ask():
        found.append(client.chat.completions.create(**chat).choices[0].message.content)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert all(client.completions.create(**ASKED).choices[0].logprobs == score for _ in range(4))
    for thread in threads:
        thread.join()
    assert found == [alone] * 3


def test_a_harness_chat_is_answered(running):
    """What lm-evaluation-harness sends: a type beside each message's content, an empty list of stops, a seed."""
    turn = {"role": "user", "content": "the film", "type": "text"}
    asked = {"model": "student", "messages": [turn], "max_tokens": 4, "temperature": 0, "stop": [], "seed": 1234}
    response, raw = running.post(json.dumps(asked))
    assert response.status == 200 and json.loads(raw)["choices"][0]["message"]["role"] == "assistant"
