import base64
import json
import string
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tutelage.errors import ConfigError
from tutelage.redact import GROUPS, Patterns, Secrets, Tally, masked

KEY = "sk-proj-Zq8/w+T1xYb2Kf0LmN4r"
ODD = 'pass"word\\ with/ünïcode+\n2nd line'
SECRETS = Secrets({"MY_KEY": KEY, "ODD": ODD})

# What each pattern must find, put together here so that no scanner takes this file for a leak.
EXAMPLES = {
    "email": ["ada.lovelace+x@mail.example.co.uk", "jürgen@müller.de", "ada%40example.com"],
    "private-key": ["-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\\nMII"],
    "jwt": ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-DEF_123"],
    "anthropic-key": ["sk-ant-" + "api03-" + "a1B2" * 6],
    "openai-key": ["sk-" + "a1B2" * 6, "sk-proj-" + "a1_-" * 6],
    "google-key": ["AIza" + "Sy0-" * 9],
    "aws-key": ["AKIA" + "ABCD" * 4],
    "github-key": ["ghp_" + "a1B2" * 6, "github_pat_" + "11AB_" * 8],
    "slack-key": ["xoxb-" + "12345-" * 3 + "ab"],
    "huggingface-key": ["hf_" + "aBcD" * 8],
    "other-key": ["gsk_" + "a1B2" * 6, "sk_live_" + "a1B2" * 6],
    "bearer": ["Bearer " + "a1b2" * 5, "bearer " + "A/+9" * 5 + "=="],
    "card": ["4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "30569309025904"],
    "iban": ["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32"],
    "social-security": ["078-05-1120"],
    "phone": ["+49 (0)30 1234567", "+14155552671", "(415) 555-2671", "415-555-2671", "0171 1234567", "0044 20 7946 0958"],
}  # fmt: skip
INNOCENT = [
    "", "Meet me at 10:30 on 2026-11-25, room 4.", "react@18.2.0 and @decorator", "task-sk-learn is a word",
    "sk-assessment-of-the-methodology-guide", "bearer of responsibilities-and-duties", "1700000000000", "version 1.2.3.4",
    "a hash 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "4111111111111112", "DE89370400440532013001",
    "3.14159265358979", "the eyJ prefix", "10,000,000 tokens for $0.15", "hf_transfer", "chatcmpl-1234567890", "call_0123456789",
]  # fmt: skip


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        f"Bearer {KEY}",
        json.dumps(KEY),
        KEY.replace("/", "\\/"),
        quote(KEY, safe=""),
        quote(KEY, safe="").lower().replace("sk-proj-zq8", "sk-proj-Zq8").replace("t1xyb2kf0lmn4r", "T1xYb2Kf0LmN4r"),
        quote_plus(KEY),
        ODD,
        json.dumps(ODD),
        json.dumps(ODD, ensure_ascii=False),
        json.dumps(json.dumps(ODD)),
        quote(ODD),
        base64.b64encode(KEY.encode()).decode(),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
        base64.b64encode(f"u:{KEY}:x".encode()).decode(),
        base64.b64encode(f"user:{KEY}".encode()).decode(),
        base64.b64encode(f"user-{KEY}".encode()).decode(),
        base64.b64encode(f"a user:{KEY}!".encode()).decode(),
    ],
)
def test_every_spelling_of_a_secret_is_taken_out(spelled: str) -> None:
    text = f"before {spelled} after"
    clean = SECRETS.scrub_text(text)
    assert "[redacted:MY_KEY]" in clean or "[redacted:ODD]" in clean
    assert clean.startswith("before ") and clean.endswith(" after")
    left = clean.replace("[redacted:MY_KEY]", "").replace("[redacted:ODD]", "")
    for start in range(len(spelled) - 12):
        assert spelled[start : start + 12] not in left
    assert SECRETS.scrub(text.encode()) == clean.encode()


def test_without_a_secret_the_same_object_comes_back() -> None:
    data = b"nothing here" * 100
    assert SECRETS.scrub(data) is data
    text = "nothing here \udc80"
    assert SECRETS.scrub_text(text) is text
    assert Secrets({}).scrub(data) is data
    assert Secrets({"SHORT": "EMPTY"}).scrub(b"EMPTY") == b"EMPTY"


def test_the_longer_of_two_secrets_goes_first() -> None:
    both = Secrets({"SHORT": "abcdefgh", "LONG": "abcdefghijkl"})
    assert both.scrub_text("abcdefghijkl abcdefgh") == "[redacted:LONG] [redacted:SHORT]"


def test_json_stays_json_and_names_stay_harmless() -> None:
    odd = Secrets({'A"B\n': KEY})
    assert json.loads(odd.scrub(json.dumps({"said": KEY}).encode())) == {"said": "[redacted:A_B_]"}


def test_the_environment_s_secrets_are_found_by_name_and_shape() -> None:
    value = "a1b2c3d4e5f6g7h8"
    secret = [
        "OPENAI_API_KEY",
        "HF_TOKEN",
        "my_secret",
        "DB_PASSWORD",
        "PGPASSWORD",
        "X_CREDENTIALS",
        "AWS_SECRET_ACCESS_KEY",
    ]
    plain = {
        "MONKEY": value, "KEYBOARD": value, "TOKENIZERS_X": value, "HOME": value,
        "KEY_FILE": "/home/someone/keys/one.pem", "TOKEN_URL": "https://example.org/token", "KEY_NUMBER": "1234567890123456789",
        "SHORT_KEY": "a1b2c3d4",
    }  # fmt: skip
    for name in secret:
        assert Secrets.of_environment([], {name: value}).scrub_text(value) == f"[redacted:{name}]", name
    for name, harmless in plain.items():
        assert Secrets.of_environment([], {name: harmless}).scrub_text(harmless) == harmless, name
        assert Secrets.of_environment([name], {name: harmless}).scrub_text(harmless) == f"[redacted:{name}]", name
    assert Secrets.of_environment(["MISSING"], {}).scrub(b"x") == b"x"


def test_the_environment_is_the_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", KEY)
    assert Secrets.of_environment().scrub_text(KEY) == "[redacted:PLANTED_KEY]"


def test_scrubbing_is_quick_when_there_is_nothing() -> None:
    one = Secrets({"K": "sk-proj-" + "aB3dE6gH" * 5})
    data = json.dumps({"choices": [{"message": {"content": "some ordinary words of an answer, " * 55}}]}).encode()
    best = min(_seconds(one, data) for _ in range(20))
    assert best / 200 < 30e-6  # some 3 µs; ten times that says that something is wrong


def _seconds(secrets: Secrets, data: bytes) -> float:
    began = time.perf_counter()
    for _ in range(200):
        secrets.scrub(data)
    return time.perf_counter() - began


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in EXAMPLES.items() for text in texts])
def test_each_shape_is_found(name: str, text: str) -> None:
    patterns, tally = Patterns(), Tally()
    clean = patterns.redact(f"see {text}, please", tally)
    assert clean == f"see [redacted:{name}], please" or (name == "private-key" and clean == f"see [redacted:{name}]")
    (found,) = tally.found()
    assert (found.name, found.count) == (name, 1)
    assert text[:5] not in found.example


@pytest.mark.parametrize("text", INNOCENT)
def test_what_is_none_of_them_stays(text: str) -> None:
    assert Patterns().redact(text) is text


def test_a_card_among_other_numbers_is_found() -> None:
    clean = Patterns(["numbers"]).redact("order 1234 4111 1111 1111 1111 99, then 12 5500 0000 0000 0004")
    assert clean == "order 1234 [redacted:card] 99, then 12 [redacted:card]"
    assert (
        Patterns(["numbers"]).redact("IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF")
        == "IBAN [redacted:iban] BIC COBADEFF"
    )


def test_groups_and_own_patterns() -> None:
    text = "ada@example.com 4111111111111111 order-77"
    assert Patterns(["email"]).redact(text) == "[redacted:email] 4111111111111111 order-77"
    assert Patterns.of_options("none", ["order=order-[0-9]+"]).redact(text) == text.replace(
        "order-77", "[redacted:order]"
    )
    assert Patterns.of_options("email, numbers").names == ("email", "card", "iban", "social-security", "phone")


@pytest.mark.parametrize(
    ("redact", "own"),
    [
        ("mail", []),
        ("", []),
        ("none", ["order"]),
        ("none", ["a b=x"]),
        ("none", ["x=("]),
        ("none", ["x=a*"]),
        ("none", ["x=red[a]cted"]),
        ("none", ["x=(a+)+b"]),
        ("none", ["x=(?:a|aa)*b"]),
        ("none", ["x=(?:(?:a{1,3}))*b"]),
        ("none", ["x=(?=(a*)*c)b"]),
        ("none", ["x=" + "(" * 5000 + "a" + ")" * 5000]),
    ],
)
def test_patterns_that_cannot_be_are_refused(redact: str, own: list[str]) -> None:
    with pytest.raises(ConfigError, match="fix:"):
        Patterns.of_options(redact, own)


def test_harmless_repetitions_are_taken() -> None:
    assert (
        Patterns.of_options("none", ["x=(?:ab)+c", "y=(?:a++b)+z", "z=(?:[a-z]{2})+!"]).redact("ababc")
        == "[redacted:x]"
    )


def test_an_own_pattern_that_never_settles_takes_all() -> None:
    assert Patterns([], {"x": r"(?<=z)\["}).redact("az[a") == "[redacted:unsettled]"
    assert Patterns([], {"x": r"(?=Q)|z"}).redact("Q z") == "Q [redacted:x]"


PIECES = [text for texts in EXAMPLES.values() for text in texts]
ALPHABET = string.ascii_letters + string.digits + " @.-+_()[]:/=%'\n"
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(ALPHABET, max_size=6) | st.text(max_size=4), max_size=6).map("".join)


@given(TEXTS)
@example("ada@example.com4111111111111111")
@example("+1 415 555 2671 4111 1111 1111 1111 AKIA" + "ABCD" * 4)
def test_after_redaction_nothing_matches(text: str) -> None:
    patterns, tally = Patterns(), Tally()
    clean = patterns.redact(text, tally)
    again = Tally()
    assert patterns.redact(clean, again) is clean
    assert not again
    assert bool(tally) == (clean != text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_redacted_json_is_json_of_the_same_shape(value: object) -> None:
    patterns, tally = Patterns(), Tally()
    clean = patterns.redact_value(value, tally)
    assert json.loads(json.dumps(clean)) == clean
    assert type(clean) is type(value)
    if not tally:
        assert clean is value
    assert patterns.redact_value(clean) is clean


def test_keys_of_objects_are_redacted_as_well() -> None:
    assert Patterns().redact_value({"ada@example.com": [{"a": "b"}]}) == {"[redacted:email]": [{"a": "b"}]}


@pytest.mark.parametrize(
    "hostile",
    ["a" * 50_000 + "@", "sk-" * 20_000, "eyJ-" * 20_000, "4 " * 20_000, "1" * 50_000, "AB12 " * 10_000, "a@" * 20_000,
     "+1 " * 20_000, "-----BEGIN PRIVATE KEY-----" * 2_000, "Bearer " * 10_000, "0123/" * 10_000, "a.@a." * 10_000],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_hostile_texts_take_no_time(hostile: str) -> None:
    began = time.process_time()
    Patterns(GROUPS).redact(hostile)
    assert time.process_time() - began < 1


def test_masks_show_next_to_nothing() -> None:
    assert masked("ada@example.com") == "ad… (15 characters)"
    assert masked("1234567") == "1… (7 characters)"
    assert masked("abc") == "… (3 characters)"
