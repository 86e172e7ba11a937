import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.canon import canonical, decimals, digest_of

texts = st.text(st.characters(exclude_categories=["Cs"]))
keys = st.text(st.characters(max_codepoint=127, exclude_categories=["Cs"]), max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_round_trip_and_key_order_does_not_matter(value: object) -> None:
    encoded = canonical(value)
    assert json.loads(encoded) == value
    if isinstance(value, dict):
        assert canonical(dict(reversed(list(value.items())))) == encoded


def test_rfc_8785_by_hand() -> None:
    # RFC 8785 section 3.2.2 and 3.2.3: shortest escapes, sorted keys, no white space, UTF-8.
    value = {"b": '€$\u000f\nA\'B"\\\\"/', "a": [True, None, 10]}
    assert canonical(value) == '{"a":[true,null,10],"b":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'.encode()


@pytest.mark.parametrize("wrong", [1.5, {"a": [0.1]}, 2**53, {"ä": 1}, {1: 2}, "\ud800", b"x", {"a": {3}}])
def test_refuses_what_records_may_not_hold(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"\$"):
        canonical(wrong)


def test_digest_is_tagged_sha256() -> None:
    assert digest_of({}) == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_decimals_are_exact() -> None:
    assert decimals({"a": [0.1, 1, True], "b": (6e-4,)}) == {"a": ["0.1", 1, True], "b": ["0.0006"]}


@given(values)
def test_the_fast_encoder_writes_the_same_bytes(value: object) -> None:
    """Records of examples are written by orjson; the verifier reads them back as canonical JSON."""
    assert orjson.dumps(value, option=orjson.OPT_SORT_KEYS) == canonical(value)
