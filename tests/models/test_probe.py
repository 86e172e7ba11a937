"""The probe against endpoints that are honest, wrong, silent, hostile, or two."""

import asyncio
import base64
import json
import math
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import loopback_vendors as vendors
from tests.loopback import Teacher, problem, serving
from tests.models.fake_endpoint import Fake, refusal, split
from tutelage.errors import SignalError, TeacherError
from tutelage.models.base import Endpoint
from tutelage.models.prices import PriceList, price_list
from tutelage.models.probe import Item, Probe, best_k, load, offered_signals, require_signal, save, supervision
from tutelage.models.probing.asker import Asker, shortened
from tutelage.models.probing.bodies import entries_echo, entries_prompt_logprobs, listed
from tutelage.models.probing.checks import apart, mass_ppm, processing, sampled_listed
from tutelage.models.probing.run import probe
from tutelage.models.probing.splitting import SPLIT_TEXT, digest_of_strings, digest_of_tokens, tokenizer_digest_of
from tutelage.models.teachers import open_model
from tutelage.models.tokens import byte_level
from tutelage.records import Position, TokenLogprob, Usage
from tutelage.wire.answers import ChatAnswer

FREE = price_list(Endpoint("", "loopback", "", "m", ""), None, "2026-11-25")
PRICED = replace(FREE, input_nusd_per_mtok=10**9, output_nusd_per_mtok=4 * 10**9)  # $1 and $4 a million


def endpoint_of(teacher: Teacher, **changes: Any) -> Endpoint:
    return replace(Endpoint(teacher.base_url, "loopback", "test", "m", "MIT", timeout_s=20), **changes)


def probed(teacher: Teacher, prices: PriceList = FREE, changes: dict[str, Any] | None = None, **options: Any) -> Probe:
    async def ask() -> Probe:
        async with open_model(endpoint_of(teacher, **(changes or {})), 1) as model:
            return await probe(model, prices, **options)

    return asyncio.run(ask())


def seen(fake: Fake, **options: Any) -> Probe:
    with serving(fake) as teacher:
        return probed(teacher, **options)


def answers(found: Probe, *names: str) -> list[str]:
    return [found.item(name).answer for name in names]


def test_an_honest_endpoint() -> None:
    fake = Fake(entry={"owned_by": "vllm", "max_model_len": 4096}, most_k=64, scores=("echo", "prompt_logprobs"))
    found = seen(fake)
    assert offered_signals(found) == ("top-logprobs", "text")
    assert (found.top_k_own, best_k(found), found.top_k_supplied) == (64, 40, 64)
    assert (found.logprobs_are, found.context_tokens, found.engine) == (
        "raw",
        4096,
        "vllm; Python/" + found.engine[13:],
    )
    assert found.tokens_before == 4
    every = [item for item in found.items if item.answer not in ("yes",)]
    assert {item.name for item in every} == {"full_logits", "hidden_prompt", "sampled_listed", "reasoning", "token_ids"}
    assert found.item("stop_string").words == "cut before it; finish_reason is 'stop'"
    assert found.tokenizer_digest == tokenizer_digest_of(lambda text: [piece.encode() for piece in split(text)])
    assert found.evidence["calls_differ_unats"] == 0
    assert 999_000 < found.evidence["mass_ppm"] < 1_001_000
    assert found.calls == fake.asked <= 20
    assert Probe.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert supervision(found).startswith("top-40 of its own output, raw; scores text we supply (top-64); probed 20")
    require_signal(found, "top-logprobs", 64)
    with pytest.raises(SignalError, match=r"up to 64, not 65") as caught:
        require_signal(found, "top-logprobs", 65)
    assert "top_logprobs = 64" in caught.value.fix


@pytest.mark.parametrize(
    ("processed", "verdict"),
    [
        ((), "raw"),
        (("temperature",), "after temperature"),
        (("top_p",), "after top-p"),
        (("temperature", "top_p"), "after temperature and top-p"),
    ],
)
@pytest.mark.parametrize("mind", ["a", "b", "c"])
def test_trap_d10_raw_or_processed(processed: tuple[str, ...], verdict: str, mind: str) -> None:
    found = seen(Fake(processed=processed, minds=(mind,), noise=0.01))
    assert found.logprobs_are == verdict, found.evidence
    assert "top-logprobs" in offered_signals(found)


def position(**logprobs: float) -> Position:
    top = tuple(TokenLogprob(base64.b64encode(t.encode()).decode(), -1, round(1e6 * v)) for t, v in logprobs.items())
    return Position(top[0], top)


def answer(*positions: Position) -> ChatAnswer:
    return ChatAnswer("", "", (), "stop", positions, Usage(0, 0, 0), False, "", "")


def test_the_arithmetic_of_verdicts() -> None:
    sure = position(a=-0.001, b=-7, c=-8, d=-9)
    assert processing(sure, sure, position(a=0.0)).verdict == "after top-p", "the tail is gone, the first hardly moved"
    assert processing(sure, sure, position(a=-0.001, b=-7, c=-8, e=-9.1)).verdict == "raw", (
        "the tail changes by rounding"
    )
    assert processing(position(a=-0.02), position(a=-0.02), position(a=-0.02)).verdict == "unknown"
    assert processing(position(a=-0.9), position(a=-0.9), position(a=-0.9)).verdict == "raw"
    assert processing(position(a=-0.9), position(a=-0.4), position(a=-0.9)).verdict == "after temperature"
    assert processing(position(a=-1, b=-2), position(a=-1, b=-5), position(a=-1, b=-2)).verdict == "unknown"
    assert mass_ppm(position(a=math.log(0.5), b=math.log(0.25))) == 750_000
    half = math.log(0.5)
    assert apart(answer(position(a=half, b=half)), answer(position(c=half, d=half))) == (1_000_000, 0)
    assert apart(answer(position(a=half, b=-3)), answer(position(a=half, b=-2.9))) == (2618, 100_000)
    first, other = position(a=half), position(b=half)
    assert apart(answer(first, first), answer(other, position(x=0.0))) == (500_000, 0), (
        "after another token all differs"
    )
    assert apart(answer(), answer()) is None


def test_only_unlikely_draws_tell() -> None:
    first, off = position(a=-0.5, b=-2), replace(position(a=-0.5, b=-2), chosen=position(b=-2).chosen)
    gone = replace(first, chosen=position(c=-4).chosen)
    said = [
        sampled_listed(rows, 2).answer for rows in ([first] * 9, [first] * 9 + [off] * 3, [off] * 4, [off] * 9 + [gone])
    ]
    assert said == ["unknown", "unknown", "yes", "no"]


def test_what_cannot_be_told_is_unknown() -> None:
    assert seen(Fake(refuses=("temperature",))).logprobs_are == "unknown"
    assert seen(Fake(refuses=("top_p",))).logprobs_are == "unknown"
    certain = Position(TokenLogprob("YQ==", -1, 0), (TokenLogprob("YQ==", -1, -3),))
    assert processing(certain, certain, certain).verdict == "unknown", (
        "one candidate with all probability shows nothing"
    )


@pytest.mark.parametrize(("most", "k"), [(20, 20), (12, 12), (5, 5), (1, 1), (0, 0)])
def test_the_largest_k(most: int, k: int) -> None:
    found = seen(Fake(most_k=most))
    assert (found.top_k_own, best_k(found)) == (k, k)
    assert offered_signals(found) == (("top-logprobs", "text") if k else ("text",))
    if not k:
        assert "between 0 and 0" in found.item("top_logprobs").words
        with pytest.raises(SignalError, match="between 0 and 0") as caught:
            require_signal(found, "top-logprobs")
        assert "text" in caught.value.fix
        require_signal(found, "text")
        assert "text only; no scoring" in supervision(found)


def test_fewer_entries_than_asked_for() -> None:
    found = seen(Fake(capped_k=3))
    assert (found.top_k_own, found.entries_own, best_k(found)) == (20, 3, 3)
    assert found.item("top_logprobs").words == "20 asked for, 3 come back"


def test_logprobs_taken_and_not_given() -> None:
    fake = Fake(ignores=("logprobs", "top_logprobs"))
    found = seen(fake)
    assert found.item("top_logprobs").answer == "no"
    assert sum("top_logprobs" in body for body in fake.bodies) == 1, "a smaller k is not tried"


@pytest.mark.parametrize(("lists", "answer"), [(True, "yes"), (False, "no")])
def test_is_the_drawn_token_listed(lists: bool, answer: str) -> None:
    assert seen(Fake(lists_drawn=lists)).item("sampled_listed").answer == answer


@pytest.mark.parametrize(("hidden", "answer"), [(0, "no"), (20, "no"), (300, "yes")])
def test_hidden_prompts(hidden: int, answer: str) -> None:
    found = seen(Fake(hidden=hidden))
    assert (found.tokens_before, found.item("hidden_prompt").answer) == (hidden + 4, answer)


def test_no_usage_is_unknown_not_zero() -> None:
    found = seen(Fake(usage=False))
    assert (found.tokens_before, found.item("hidden_prompt").answer) == (-1, "unknown")
    assert found.tokens > 1000, "what it does not report is counted at its bound"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": ("big", "small")}, "2 names: big, small"),
        ({"minds": ("one", "other")}, "probabilities differ by"),
        ({"minds": ("one", "other"), "most_k": 0}, ""),
    ],
)
def test_trap_d11_two_models_behind_one_name(changes: dict[str, Any], words: str) -> None:
    found = seen(Fake(**changes))
    assert found.item("one_model").answer == ("no" if words else "yes")
    assert words in found.item("one_model").words
    assert found.item("deterministic").answer == ("no" if "minds" in changes else "yes")
    assert offered_signals(found) == ("text",)
    if words:
        with pytest.raises(SignalError, match=r"not of one model|one question"):
            require_signal(found, "top-logprobs")


def test_probabilities_above_one_are_no_signal() -> None:
    found = replace(seen(Fake()), evidence={"mass_ppm": 1_006_000})
    assert offered_signals(found) == ("text",)
    with pytest.raises(SignalError, match=r"1\.006 of all probability"):
        require_signal(found, "top-logprobs")


def test_wrong_finish_reasons_and_limits_not_kept() -> None:
    found = seen(Fake(finishes={"length": "stop", "stop": "eos"}))
    assert answers(found, "finish_length", "finish_stop", "stop_string") == ["no", "no", "yes"]
    assert found.item("finish_length").words == "an answer cut at one token says 'stop'"
    assert "'eos'" in found.item("finish_stop").words and "'eos'" in found.item("stop_string").words
    found = seen(Fake(ignores=("max_tokens", "stop", "seed", "n")))
    assert answers(found, "max_tokens", "stop_string", "seed", "n") == ["ignored"] * 4
    assert found.item("max_tokens").words == "6 tokens came for a limit of 1"


def test_what_it_refuses_is_told_in_its_words_and_not_sent_again() -> None:
    fake = Fake(refuses=("seed", "temperature", "tools", "response_format", "completions", "stop", "n"))
    found = seen(fake)
    assert answers(found, "seed", "temperature", "tools", "schema", "scores_echo", "stop_string", "n") == ["no"] * 7
    assert "seed is not supported" in found.item("seed").words
    assert found.item("deterministic").answer == "no", "without temperature it draws"
    assert sum("seed" in body for body in fake.bodies) == 1
    assert sum("temperature" in body for body in fake.bodies) == 1
    assert sum("prompt" in body for body in fake.bodies) == 1, "no second question to an API that is not there"


def test_max_completion_tokens_instead() -> None:
    class Newer(Fake):
        async def handle(self, request: web.Request) -> web.StreamResponse:
            body = json.loads(await request.read())
            if "max_tokens" in body:
                return refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
            body["max_tokens"] = body.pop("max_completion_tokens")
            request._read_bytes = json.dumps(body).encode()
            return await super().handle(request)

    found = seen(Newer())
    assert answers(found, "max_tokens", "max_completion_tokens", "finish_length") == ["no", "yes", "yes"]
    assert "top-logprobs" in offered_signals(found)


def test_scores_of_fewer_entries_than_asked_for() -> None:
    assert seen(Fake(scores=("prompt_logprobs",), capped_scores=7)).top_k_supplied == 7


def test_a_prompt_that_is_counted_in_two_ways_is_of_two_models() -> None:
    class Two(Fake):
        async def handle(self, request: web.Request) -> web.StreamResponse:
            self.hidden = 3 * (self.asked % 2)
            return await super().handle(request)

    found = seen(Two())
    assert found.item("one_model").answer == "no" and "prompt tokens" in found.item("one_model").words


def test_an_answer_that_breaks_the_form_is_ignored_and_empty_ones_are_no_text() -> None:
    found = seen(Fake(ignores=("response_format",)))
    assert found.item("schema").answer == "ignored" and "it answered ' w" in found.item("schema").words
    empty = {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}
    fake = Fake(says=empty)
    fake.fault = lambda number, request: web.json_response(empty)
    found = seen(fake)
    assert (found.item("text").answer, offered_signals(found)) == ("no", ())


def test_a_model_without_chat() -> None:
    found = seen(Fake(refuses=("chat",), scores=("echo",)))
    assert answers(found, "chat", "completions", "text", "scores_echo", "system") == ["no", "yes", "yes", "yes", "no"]
    assert "no chat template" in found.item("chat").words
    assert offered_signals(found) == ("top-logprobs", "text")


def test_scores_and_tokenizers_by_every_way() -> None:
    own = tokenizer_digest_of(lambda text: [piece.encode() for piece in split(text)])
    echo, vllm = seen(Fake(scores=("echo",), most_k=5)), seen(Fake(scores=("prompt_logprobs",)))
    assert (echo.top_k_supplied, *answers(echo, "scores_echo", "scores_prompt_logprobs")) == (5, "yes", "no")
    assert (vllm.top_k_supplied, *answers(vllm, "scores_echo", "scores_prompt_logprobs")) == (20, "no", "yes")
    served, words = seen(Fake(tokenizes=True)), seen(Fake())
    sources = ["scored text", "its own words", "its tokenize service", "its own words"]
    assert [found.tokenizer_from for found in (echo, vllm, served, words)] == sources
    assert {found.tokenizer_digest for found in (echo, vllm, served, words)} == {own}
    assert seen(Fake(split=list)).tokenizer_digest not in ("", own)
    assert seen(Fake(with_bytes=False)).tokenizer_digest == own


def test_the_spending_limit_holds() -> None:
    whole = seen(Fake(), prices=PRICED)
    assert whole.nusd > 0
    for share in (0.15, 0.5, 0.9):
        limit = int(whole.nusd * share)
        fake = Fake()
        found = seen(fake, prices=PRICED, max_cost_nusd=limit)
        assert found.nusd <= limit
        assert any(item.answer == "not asked" and "spending limit" in item.words for item in found.items)
        assert found.calls == fake.asked
    nowhere = {"base_url": "http://127.0.0.1:9/v1"}
    found = probed(Fake(), prices=PRICED, changes=nowhere, max_cost_nusd=0)
    assert (found.calls, found.item("text").answer, offered_signals(found)) == (0, "not asked", ())


def test_a_hidden_prompt_is_reserved_for_and_several_answers_too() -> None:
    first = Fake(hidden=3000)
    limit = 10 * 3_000_000  # nine calls and a bit
    found = seen(first, prices=PRICED, max_cost_nusd=limit)
    assert limit - 4_000_000 < found.nusd <= limit

    async def ask(teacher: Teacher, n: int) -> int:
        async with open_model(endpoint_of(teacher), 1) as model:
            asker = Asker(model, FREE, 0, 5.0, time.monotonic() + 60)
            await asker.ask("x", 10, n=n)
            return asker.tokens

    with serving(Fake(usage=False)) as teacher:
        assert asyncio.run(ask(teacher, 3)) - asyncio.run(ask(teacher, 1)) == 20


def test_a_question_that_hangs_is_unknown_and_counted() -> None:
    found = seen(Fake(hangs_on="get_time"), question_s=0.3, prices=PRICED)
    assert (found.item("tools").answer, found.item("tools").words) == ("unknown", "no answer within 0.3 s")
    assert found.item("schema").answer == "yes"
    assert found.nusd > seen(Fake(refuses=("tools",)), prices=PRICED).nusd


def test_the_time_limit_holds() -> None:
    found = seen(Fake(hangs_on="one one"), question_s=0.3, whole_s=0.2)
    assert found.item("deterministic").words == "the time of the probe was over"


def test_throttled_calls_are_asked_again() -> None:
    fake = Fake()
    fake.fault = lambda number, request: problem(429, {"Retry-After": "0"}) if number % 3 == 2 else None
    found = seen(fake)
    assert "top-logprobs" in offered_signals(found)
    assert not [item.name for item in found.items if item.answer == "unknown"]


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_key_is_one_clear_error(status: int) -> None:
    fake = Fake()
    fake.fault = lambda number, request: problem(status)
    with pytest.raises(TeacherError, match=str(status)):
        seen(fake)
    assert fake.asked == 1


def test_an_account_that_empties_on_the_way_is_an_error() -> None:
    fake = Fake()
    fake.fault = lambda number, request: problem(402) if number > 5 else None
    with pytest.raises(TeacherError, match="402"):
        seen(fake)


def test_nobody_there_and_nothing_of_use() -> None:
    with pytest.raises(TeacherError, match="cannot connect"):
        probed(Teacher(), changes={"base_url": "http://127.0.0.1:9/v1"})
    found = seen(Fake(refuses=("model",)))
    assert offered_signals(found) == () and "not supported" in found.item("text").words
    with pytest.raises(SignalError, match="does not offer text"):
        require_signal(found, "text")
    assert "nothing that can be used" in supervision(found)


DEEP: Any = json.loads("[" * 300 + "]" * 300)
ANSWER = {"choices": [{"message": {"content": "\ud800"}, "logprobs": {"content": [{"token": 1}]}}]}
HOSTILE = [
    web.Response(body=b"[" * 100_000), web.Response(body=b"\xff\x00"), web.Response(body=b""), DEEP, {}, {"choices": []},
    {"choices": [DEEP]}, {"choices": [{"message": DEEP}]}, {"error": "x" * 10_000}, {"choices": [{"text": "y"}]},
    {"choices": [{"message": {"content": "x"}, "finish_reason": "\x1b[2J" * 99}], "model": "\x00" * 9999},
    {"choices": [{"message": {"content": "x"}, "logprobs": DEEP}], "usage": DEEP},
    {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 2**53 - 1, "completion_tokens": 2**53 - 1}},
    {"choices": [{"text": "x", "logprobs": {"tokens": ["a"] * 50, "token_logprobs": [None] * 50, "top_logprobs": DEEP}}]},
]  # fmt: skip


@pytest.mark.parametrize("says", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_answers_are_findings(says: Any) -> None:
    if isinstance(says, web.Response):
        body = says.body

        class Raw(Fake):
            async def handle(self, request: web.Request) -> web.StreamResponse:
                if self.asked:
                    return web.Response(body=body, content_type="application/json")
                return await super().handle(request)

        fake: Fake = Raw()
    else:
        fake = Fake(says=says)
    found = seen(fake)
    assert len(json.dumps(found.to_json())) < 20_000
    assert found.digest
    assert all(item.words.isprintable() and len(item.words) <= 160 for item in found.items)


def test_scores_have_none_for_the_first_position_and_sizes_fit_a_record() -> None:
    tops = [{"a": -1.0}] * 12

    def echoed(first: float | None, count: int = 12) -> dict[str, Any]:
        own = [first, *[-1.0] * (count - 1)]
        return {"choices": [{"logprobs": {"token_logprobs": own, "top_logprobs": tops[:count]}}]}

    assert [entries_echo(echoed(None)), entries_echo(echoed(-1.0)), entries_echo(echoed(None, 3))] == [1, 0, 0]
    rows = [None, *[{"1": {}, "2": {}}] * 12]
    assert entries_prompt_logprobs({"prompt_logprobs": rows}) == 2
    assert entries_prompt_logprobs({"prompt_logprobs": rows[1:]}) == 0
    sizes = [
        listed({"data": [{"id": "m", "meta": {"n_ctx": size}}]}, "m").context_tokens for size in (9, 2**60, 0, True)
    ]
    assert sizes == [9, -1, -1, -1]
    assert listed({"data": [{"id": "a", "owned_by": "x"}, {"id": "b"}]}, "m").owner == ""


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=12)
        | st.dictionaries(st.sampled_from(["data", "choices", "logprobs", "id", "meta", "n_ctx", "owned_by"]), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=60)
@given(VALUES, st.lists(st.text(max_size=6), max_size=60), st.text(max_size=900))
def test_nothing_in_a_body_breaks_the_readers(value: Any, tokens: list[str], text: str) -> None:
    listed(value, "m")
    assert entries_echo(value) >= 0 and entries_prompt_logprobs(value) >= 0
    digest_of_strings(tokens)
    assert len(shortened(text)) <= 300 and shortened(text).isprintable()


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.booleans())
def test_a_split_has_one_digest_however_it_is_seen(seed: int, start: bool) -> None:
    data, chances = SPLIT_TEXT.encode(), random.Random(seed)
    cuts = sorted(chances.sample(range(1, len(data)), chances.randint(1, len(data) - 1)))
    tokens = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    own = digest_of_tokens(tokens)
    assert own and own == digest_of_strings([token.decode("utf-8", "replace") for token in tokens])
    alphabet = {byte_level(chr(code)): chr(code) for code in range(512) if byte_level(chr(code))}
    assert own == digest_of_strings(["".join(alphabet[bytes([byte])] for byte in token) for token in tokens])
    if start:
        assert own == digest_of_tokens([b"<s>", *tokens, b"</s>"])
    if len(tokens) > 2 and (joined := [tokens[0] + tokens[1], *tokens[2:]]):
        assert digest_of_tokens(joined) != own, "another split is another digest"
    assert digest_of_tokens([*tokens[:-1]]) == "" == digest_of_strings(["nothing"])


def test_kept_and_found_again(tmp_path: Path) -> None:
    fake = Fake()
    with serving(fake) as teacher:
        found, endpoint = probed(teacher), endpoint_of(teacher)
    path = save(found, endpoint, tmp_path)
    assert load(endpoint, tmp_path) == found
    assert load(replace(endpoint, model="other"), tmp_path) is None
    own = replace(endpoint, route="embedded", weights_digest="sha256:1")
    save(replace(found, weights_digest="sha256:1"), own, tmp_path)
    assert load(replace(own, base_url="http://127.0.0.1:1/v1"), tmp_path) is not None, "its port means nothing"
    assert load(replace(own, weights_digest="sha256:2"), tmp_path) is None
    for bad in (b"", b"{}", b"[" * 100_000, found.digest.encode()):
        path.write_bytes(bad)
        assert load(endpoint, tmp_path) is None


def test_no_key_is_in_what_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-planted-4711-abcdefgh"
    monkeypatch.setenv("PROBE_TEST_KEY", key)
    fake = Fake(refuses=("tools",))
    echo = lambda number, request: refusal(400, f"bad {request.headers['Authorization']}") if number > 4 else None  # noqa: E731
    fake.fault = echo
    found = seen(fake, changes={"key_env": "PROBE_TEST_KEY"})
    assert key in fake.headers[0]["Authorization"]
    assert key not in json.dumps(found.to_json())
    assert "redacted" in json.dumps(found.to_json())


def vendor_probed(vendor: vendors.Vendor, api: str, monkeypatch: pytest.MonkeyPatch, key: str = vendors.KEY) -> Probe:
    monkeypatch.setenv("PROBE_TEST_KEY", key)
    with vendors.serving(vendor):
        endpoint = Endpoint(
            vendor.base_url, "loopback", "test", "m", "", key_env="PROBE_TEST_KEY", timeout_s=5, api=api
        )

        async def ask() -> Probe:
            async with open_model(endpoint, 1) as model:
                return await probe(model, FREE)

        return asyncio.run(ask())


def anthropic_says(body: dict[str, Any]) -> dict[str, Any]:
    cut = body["max_tokens"] == 1
    words = json.dumps([body["messages"], body.get("system", "")]).split()
    return {
        "id": "msg", "type": "message", "role": "assistant", "model": "claude-dated", "stop_sequence": None,
        "content": [{"type": "text", "text": "Paris" if cut else "Paris it is."}],
        "stop_reason": "max_tokens" if cut else "end_turn",
        "usage": {"input_tokens": 8 + len(words), "output_tokens": 1 if cut else 4},
    }  # fmt: skip


def test_anthropic(monkeypatch: pytest.MonkeyPatch) -> None:
    found = vendor_probed(vendors.Anthropic(anthropic_says), "anthropic", monkeypatch)
    assert offered_signals(found) == ("text",)
    names = ("top_logprobs", "seed", "scores_echo", "scores_prompt_logprobs", "n", "tools", "schema", "deterministic")
    assert answers(found, *names) == ["no", "no", "no", "no", "no", "unknown", "ignored", "yes"]
    assert answers(found, "finish_length", "finish_stop", "stop_string", "system") == ["yes", "yes", "ignored", "yes"]
    assert found.models_reported == ("claude-dated",) and found.tokenizer_digest == ""
    with pytest.raises(TeacherError, match="x-api-key"):
        vendor_probed(vendors.Anthropic(anthropic_says), "anthropic", monkeypatch, "a-wrong-key-0000")


def gemini_says(body: dict[str, Any]) -> dict[str, Any]:
    config = body["generationConfig"]
    cut = config["maxOutputTokens"] == 1
    top = [
        {"token": word, "tokenId": at, "logProbability": -0.5 - at} for at, word in enumerate(("Paris", "Lyon", "Nice"))
    ]
    rows = [{"candidates": top[: config.get("logprobs", 0)]}]
    return {
        "candidates": [{
            "content": {"role": "model", "parts": [{"text": "Paris"}]}, "finishReason": "MAX_TOKENS" if cut else "STOP",
            **({"logprobsResult": {"chosenCandidates": top[:1], "topCandidates": rows}} if "logprobs" in config else {}),
        }],
        "usageMetadata": {"promptTokenCount": 3 + len(str(body["contents"]).split()), "candidatesTokenCount": 1},
        "modelVersion": "gemini-dated",
    }  # fmt: skip


def test_gemini(monkeypatch: pytest.MonkeyPatch) -> None:
    found = vendor_probed(vendors.Gemini(gemini_says), "gemini", monkeypatch)
    assert offered_signals(found) == ("top-logprobs", "text")
    assert (found.top_k_own, best_k(found), found.logprobs_are) == (20, 3, "raw")
    assert answers(found, "token_ids", "token_bytes", "scores_echo", "deterministic") == ["yes", "no", "no", "yes"]
    with pytest.raises(TeacherError, match="API key not valid"):
        vendor_probed(vendors.Gemini(gemini_says), "gemini", monkeypatch, "a-wrong-key-0000")


def test_what_a_probe_could_not_find_out_is_not_no() -> None:
    numbers = ("probe_version", "context_tokens", "top_k_own", "entries_own", "top_k_supplied", "tokens_before")
    fields: dict[str, Any] = dict.fromkeys(Probe.__dataclass_fields__, "")
    fields |= dict.fromkeys((*numbers, "calls", "tokens", "nusd"), 0) | {"models_reported": (), "fingerprints": ()}
    silent = Probe(**{**fields, "evidence": {}, "items": (Item("text", "unknown", "the spending limit of the probe"),)})
    require_signal(silent, "text")
    require_signal(silent, "top-logprobs", 20)
    mute = replace(silent, items=(Item("text", "no", "HTTP 400"),))
    with pytest.raises(SignalError, match="HTTP 400"):
        require_signal(mute, "text")
