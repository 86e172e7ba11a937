"""The official clients of Anthropic and Google through the proxy: they notice nothing, and what they did is recorded."""

import json

from tests.serve.proxied import CALLER, KEY, Running, Upstream, chunked, plain
from tests.test_captured import ANTHROPIC, sse
from tutelage.records import Exchange, Request


def recorded(proxied: Running) -> tuple[Request, Exchange]:
    proxied.settled(1)
    (request,), (kept,) = proxied.lines("request"), proxied.lines("exchange")
    assert CALLER.encode() not in proxied.written()
    assert KEY.encode() not in proxied.written()
    return Request.from_json(request), Exchange.from_json(kept)


def test_anthropic_s_client_streams(upstream: Upstream, proxied: Running) -> None:
    import anthropic

    upstream.reply = lambda target, headers, body: chunked([sse(event, named=True) for event in ANTHROPIC])
    client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{proxied.port}", api_key=CALLER, max_retries=0, timeout=20)
    tool = {"name": "look", "description": "d", "input_schema": {"type": "object"}}
    asked = {
        "model": "claude-x",
        "max_tokens": 50,
        "system": f"my key is {KEY}",
        "tools": [tool],
        "metadata": {"user_id": "ada"},
    }
    with client.messages.stream(**asked, messages=[{"role": "user", "content": "the weather?"}]) as stream:
        assert "".join(stream.text_stream) == "sunny é"
        assert stream.get_final_message().usage.output_tokens == 30
    request, kept = recorded(proxied)
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.messages[0].content == "my key is [redacted:PLANTED]"
    assert json.loads(request.tools)[0]["function"]["parameters"] == {"type": "object"}
    assert (request.params, request.extra) == ({"max_tokens": 50}, "")
    assert (kept.answer, kept.reasoning, kept.finish_reason) == ("sunny é", "hm", "tool_calls")
    assert kept.tool_calls[0]["function"] == {"name": "look", "arguments": '{"at":"x"}'}
    assert kept.usage.completion_tokens == 30


def test_google_s_client_streams_and_does_not(upstream: Upstream, proxied: Running) -> None:
    from google import genai

    def part(text: str, **more: object) -> dict[str, object]:
        content = {"role": "model", "parts": [{"text": text}]}
        return {"candidates": [{"content": content, **more}], "modelVersion": "gemini-x"}

    parts = [part("sun"), part("ny", finishReason="STOP")]
    streamed = [sse(one, end="\r\n\r\n") for one in parts]
    whole = json.dumps(part("sunny", finishReason="STOP")).encode()
    upstream.reply = lambda target, headers, body: chunked(streamed) if "alt=sse" in target else plain(whole)
    options = {"base_url": f"http://127.0.0.1:{proxied.port}"}
    client = genai.Client(api_key=CALLER, http_options=options)
    asked = {
        "model": "gemini-x",
        "contents": "the weather?",
        "config": {"temperature": 0.5, "system_instruction": "brief"},
    }
    assert "".join(chunk.text or "" for chunk in client.models.generate_content_stream(**asked)) == "sunny"
    request, kept = recorded(proxied)
    assert [(message.role, message.content) for message in request.messages] == [
        ("system", "brief"),
        ("user", "the weather?"),
    ]
    assert (request.model_asked, request.params) == ("gemini-x", {"temperature": "0.5"})
    assert (kept.answer, kept.finish_reason, kept.model.model_reported) == ("sunny", "stop", "gemini-x")
    assert client.models.generate_content(**asked).text == "sunny"
    proxied.settled(2)
    assert [one["draw"] for one in proxied.lines("request")] == [0, 1]
