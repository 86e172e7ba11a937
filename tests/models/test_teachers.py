"""Which dialect an endpoint speaks, and a plug-in installed as people install them."""

from pathlib import Path

import pytest

from tutelage.errors import ConfigError
from tutelage.models.base import Endpoint
from tutelage.models.http import HttpModel
from tutelage.models.openai import OpenAIDialect
from tutelage.models.teachers import api_of, open_model
from tutelage.records import Message, Request


def endpoint(url: str = "https://h.example/v1", api: str = "openai") -> Endpoint:
    return Endpoint(url, "h.example", "h", "m", "", api=api)


@pytest.mark.parametrize(
    ("url", "api"),
    [
        ("https://api.anthropic.com/v1", "anthropic"),
        ("https://API.Anthropic.com", "anthropic"),
        ("https://generativelanguage.googleapis.com/v1beta", "gemini"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "openai"),
        ("https://api.anthropic.com.example/v1", "openai"),
        ("http://127.0.0.1:8000/v1", "openai"),
    ],
)
def test_a_known_host_tells_its_dialect(url: str, api: str) -> None:
    assert api_of(url) == api


def test_a_plug_in_is_opened_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_teacher.py").write_text(
        "def make(endpoint, connections):\n    return (endpoint.model, connections)\n"
    )
    info = tmp_path / "their_teacher-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-teacher\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tutelage.teachers]\ntheirs = their_teacher:make\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert open_model(endpoint(api="theirs"), 3) == ("m", 3)
    with pytest.raises(ConfigError, match="'nobody' is not known") as caught:
        open_model(endpoint(api="nobody"), 3)
    assert "theirs" in caught.value.fix


def test_built_in_dialects_go_over_one_transport() -> None:
    assert {type(open_model(endpoint(api=api), 1)) for api in ("openai", "anthropic", "gemini")} == {HttpModel}


def request(**changes: object) -> Request:
    asked = {"max_tokens": 9, "temperature": "0.5"}
    fields = {
        "messages": (Message("user", "x"),),
        "params": asked,
        "model_asked": "m",
        "route": "r",
        "purpose": "p",
        "draw": 0,
    }
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


def test_azure_has_its_own_header_and_keeps_its_query() -> None:
    azure = endpoint("https://x.openai.azure.com/openai/deployments/d?api-version=2025-01-01")
    dialect = OpenAIDialect()
    assert dialect.headers(azure, "k") == {"api-key": "k"}
    assert dialect.headers(endpoint(), "k") == {"Authorization": "Bearer k"}
    url = "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2025-01-01"
    assert dialect.url(azure, request()) == url


def test_openai_itself_is_told_the_limit_by_the_name_that_its_reasoning_models_take() -> None:
    sent = OpenAIDialect().body(endpoint("https://api.openai.com/v1"), request())
    assert (sent.get("max_tokens"), sent["max_completion_tokens"]) == (None, 9)
    assert OpenAIDialect().body(endpoint(), request())["max_tokens"] == 9


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ('{"type":"object","properties":{"a":{"type":"number"}},"required":["a"],"additionalProperties":false}', True),
        ('{"type":"object","properties":{"a":{"type":"number"}},"additionalProperties":false}', None),
        ('{"type":"object","properties":{"a":{"type":"number"}},"required":["a"]}', None),
        ('{"type":"array","items":{"type":"object","properties":{}}}', None),
    ],
)
def test_a_schema_is_strict_where_strict_mode_would_take_it(schema: str, strict: bool | None) -> None:
    sent = OpenAIDialect().body(endpoint(), request(schema=schema))
    assert sent["response_format"]["json_schema"].get("strict") is strict


def test_extra_fields_never_replace_ours() -> None:
    with pytest.raises(ConfigError, match="temperature"):
        OpenAIDialect().body(endpoint(), request(extra='{"temperature": 1}'))
    assert OpenAIDialect().body(endpoint(), request(extra='{"top_k": 4}'))["top_k"] == 4


@pytest.mark.parametrize(
    ("status", "error", "is_out"),
    [
        (402, "Payment Required", True),
        (429, '{"error": {"code": "insufficient_quota"}}', True),
        (429, "Rate limit reached for requests", False),
        (400, "insufficient_quota", False),
    ],
)
def test_an_empty_account_is_no_rate_limit(status: int, error: str, is_out: bool) -> None:
    assert OpenAIDialect().is_out_of_money(status, error) is is_out
