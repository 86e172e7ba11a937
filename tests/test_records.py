import pytest

from tutelage.records import Exchange, Message, ModelId, Origin, Position, Price, Request, Role, TokenLogprob, Usage

MODEL = ModelId("provider", "embedded", "asked", "reported", "", "", "", "", "", "MIT")
REQUEST = Request((Message("user", "hé"),), {"max_tokens": 1, "temperature": "0"}, "asked", "embedded", "train", 0)


def exchange(request: Request = REQUEST, answer: str = "yes") -> Exchange:
    """A whole exchange for tests."""
    token = TokenLogprob("eWVz", 5, -1000)
    return Exchange(
        request_digest=request.digest, model=MODEL, answer=answer, reasoning="", tool_calls=(), finish_reason="stop",
        logprobs=(Position(token, (token,)),), usage=Usage(3, 0, 1), price=Price(0, "none", "2026-01-01"), latency_ms=5,
        attempts=1, request_id_hash="", raw_body_digest="sha256:00", terms_digest="", twin=None, origin=Origin.ASKED,
        role=Role.SOFT_TARGET, asked_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


def test_round_trip_keeps_the_digest() -> None:
    one = exchange()
    again = Exchange.from_json(one.to_json())
    assert again == one
    assert again.digest == one.digest
    assert Request.from_json(REQUEST.to_json()) == REQUEST


def test_address_depends_on_everything_that_was_asked() -> None:
    changed = [
        Request((Message("user", "he"),), REQUEST.params, "asked", "embedded", "train", 0),
        Request(REQUEST.messages, {"max_tokens": 2, "temperature": "0"}, "asked", "embedded", "train", 0),
        Request(REQUEST.messages, REQUEST.params, "other", "embedded", "train", 0),
        Request(REQUEST.messages, REQUEST.params, "asked", "host", "train", 0),
        Request(REQUEST.messages, REQUEST.params, "asked", "embedded", "claim", 0),
        Request(REQUEST.messages, REQUEST.params, "asked", "embedded", "train", 1),
    ]
    assert len({REQUEST.digest, *(request.digest for request in changed)}) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surplus": 1}, "unknown fields"),
        ({"attempts": "1"}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"role": "king"}, "king"),
        ({"logprobs": "x"}, "logprobs"),
        ({"model": []}, "model"),
    ],
)
def test_damaged_records_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Exchange.from_json({**exchange().to_json(), **change})


def test_missing_field_is_named() -> None:
    value = exchange().to_json()
    del value["usage"]
    with pytest.raises(ValueError, match="usage"):
        Exchange.from_json(value)


def test_token_bytes() -> None:
    assert TokenLogprob("eWVz", -1, 0).token_bytes == b"yes"
