"""Local generation against a naive loop: one sequence at a time, no cache, no padding, no packing."""

import sys
from pathlib import Path

import pytest
import torch
from tokenizers import decoders
from transformers import AutoModelForCausalLM
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parent))
from tiny import save_tiny

from tutelage.errors import ConfigError, DataError, ResourceError
from tutelage.models.causal import Causal
from tutelage.models.hf import GenerationRequest, HFModel, PromptTooLong
from tutelage.models.tokens import TextStream, TokenBytes
from tutelage.records import Message

TEXTS = [
    "the film is good",
    "slow",
    "a story about love and the plot is bad and the film is slow 日本",
    "déjà vu 🙂",
    "is",
]
CLOSE_UNATS = 100  # 1e-4 nat


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """More threads only wait for each other on a tiny model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder):
    return HFModel.load(folder, "float32")


@pytest.fixture(scope="module")
def prompts(model):
    return [model.render([Message("system", "the film"), Message("user", text)]) for text in TEXTS]


@pytest.fixture(scope="module")
def naive(folder):
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def run(ids, max_tokens):
        """Greedy ids with their log-probabilities, and the last step's whole distribution."""
        ids, found = list(ids), []
        while len(found) < max_tokens:
            logp_V = reference(torch.tensor([ids]), use_cache=False).logits[0, -1].float().log_softmax(-1)
            best = int(logp_V.argmax())
            found.append((best, float(logp_V[best])))
            ids.append(best)
            if best in (0, 2):
                break
        return found, logp_V

    return run


def same(positions, expected):
    assert [position.chosen.token_id for position in positions] == [token for token, _ in expected]
    for position, (_, logp) in zip(positions, expected, strict=True):
        assert abs(position.chosen.logprob_unats - logp * 1e6) < CLOSE_UNATS


def test_packed_first_tokens_equal_the_naive_loop(model, prompts, naive):
    assert model._packs
    for _ in range(3):  # the second and third time use the shared prefix
        answers = model.generate([GenerationRequest(ids, 1, top_logprobs=20) for ids in prompts])
        for ids, answer in zip(prompts, answers, strict=True):
            expected, logp_V = naive(ids, 1)
            same(answer.positions, expected)
            for top in answer.positions[0].top:
                assert abs(top.logprob_unats - float(logp_V[top.token_id]) * 1e6) < CLOSE_UNATS
            assert len(answer.positions[0].top) == 20


def test_prefixes_of_changing_tasks_stay_right(model, naive):
    for system in ("the film is good and the plot is bad", "a slow story", "the film is good and the plot is slow"):
        for text in ("love", "the plot", "slow"):
            ids = model.render([Message("system", system), Message("user", text)])
            (answer,) = model.generate([GenerationRequest(ids, 1)])
            same(answer.positions, naive(ids, 1)[0])


def test_padded_first_tokens_equal_the_naive_loop(folder, prompts, naive):
    model = HFModel.load(folder, "float32")
    model._packs = False  # as for architectures with sliding windows
    for ids, answer in zip(prompts, model.generate([GenerationRequest(p, 1) for p in prompts]), strict=True):
        same(answer.positions, naive(ids, 1)[0])


def test_ragged_decoding_equals_the_naive_loop(model, prompts, naive):
    requests = [GenerationRequest(ids, 3 + 4 * at) for at, ids in enumerate(prompts)]
    events = []
    answers = model.generate(requests, events.append)
    for at, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        expected = naive(request.ids, request.max_tokens)[0]
        same(answer.positions, expected)
        assert answer.finish_reason == ("stop" if expected[-1][0] in (0, 2) else "length")
        own = [event for event in events if event.index == at]
        assert "".join(event.text for event in own) == answer.text
        assert [event.finish_reason for event in own] == [""] * (len(expected) - 1) + [answer.finish_reason]


def test_seeded_sampling_does_not_depend_on_the_batch(model, prompts):
    requests = [GenerationRequest(ids, 12, 1.3, 0.9, seed=at) for at, ids in enumerate(prompts)]
    together = model.generate([*requests, GenerationRequest(prompts[0], 1, 1.0, seed=5)])
    for request, answer in zip(requests, together, strict=False):
        assert model.generate([request])[0].token_ids == answer.token_ids
    other = model.generate([GenerationRequest(prompts[0], 12, 1.3, 0.9, seed=99)])[0]
    assert other.token_ids != together[0].token_ids


def test_sampling_follows_the_truncated_distribution(model, prompts, naive):
    logp_V = naive(prompts[0], 1)[1]
    p_V, order_V = (logp_V / 0.7).softmax(-1).sort(descending=True)
    inside = set(order_V[(p_V.cumsum(-1) - p_V) < 0.6].tolist())
    answers = model.generate([GenerationRequest(prompts[0], 1, 0.7, 0.6, seed=seed) for seed in range(300)])
    drawn = [answer.token_ids[0] for answer in answers]
    assert set(drawn) <= inside
    expected = float(p_V[0] / p_V[: len(inside)].sum())
    assert abs(drawn.count(int(order_V[0])) / 300 - expected) < 4 * (expected * (1 - expected) / 300) ** 0.5 + 1e-9
    raw = answers[0].positions[0].chosen
    assert abs(raw.logprob_unats - float(logp_V[raw.token_id]) * 1e6) < CLOSE_UNATS


def test_stop_strings_end_the_text(model, prompts):
    (whole,) = model.generate([GenerationRequest(prompts[2], 30)])
    stop = whole.text[3:5]
    (cut,) = model.generate([GenerationRequest(prompts[2], 30, stop=(stop,))])
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"


def test_prompts_beyond_the_context_are_refused(model):
    with pytest.raises(PromptTooLong, match="limit is 128"):
        model.generate([GenerationRequest((5,) * 128, 1)])
    with pytest.raises(DataError):
        model.generate([GenerationRequest((), 1)])
    (answer,) = model.generate([GenerationRequest((5,) * 120, 50)])
    assert len(answer.token_ids) <= 8


def test_unusable_folders(folder, tmp_path):
    with pytest.raises(ConfigError):
        HFModel.load(folder, "int3")
    with pytest.raises(ResourceError):
        HFModel.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ResourceError):
        HFModel.load(tmp_path)


def test_every_token_has_its_bytes(model):
    tokens = model.token_bytes
    text = "déjà vu 日本 🙂 is good"
    ids = model._tokenizer(text)["input_ids"]
    assert b"".join(tokens[token] for token in ids) == text.encode()
    assert (tokens[2], tokens.visible(2), tokens[327]) == (b"<|im_end|>", b"", b"")


def test_sentencepiece_tokens_have_their_bytes(model):
    class Fake:
        all_special_ids, added_tokens_decoder = [0], {}

        class backend_tokenizer:
            decoder = decoders.Sequence(
                [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            )

        def convert_ids_to_tokens(self, at):
            return ["<s>", "▁the", "<0xC3>", "<0xA9>"][at]

    tokens = TokenBytes(Fake())
    assert b"".join(tokens[at] for at in (1, 2, 3)) == " theé".encode()
    stream = TextStream((), strips_first_space=tokens.strips_first_space)
    assert [stream.feed(tokens.visible(at), final=at == 3) for at in (0, 1, 2, 3)] == ["", "the", "", "é"]


def test_text_is_held_back_while_it_may_be_a_stop_string():
    stream = TextStream(("END",), strips_first_space=False)
    assert [stream.feed(part, final=False) for part in (b"aE", b"N", b"xEN", b"D!")] == ["a", "", "ENx", ""]
    assert (stream.text, stream.stopped) == ("aENx", True)
    flushed = TextStream(("END",), strips_first_space=False)
    assert flushed.feed("é".encode()[:1] + b"E", final=True) == "\ufffdE"


def test_loading_shows_no_bar(folder, capfd):
    HFModel.load(folder, "float32")
    Causal.load(folder)
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled(), "elsewhere bars are shown as before"
