"""Signed notes, checkpoints, keys and cosignatures (C2SP): their forms, strangers, and text made to be misread."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from tests.ledger.made import new_signer
from tutelage.errors import ConfigError
from tutelage.ledger import note, verify
from tutelage.ledger.verify import Bad, parse_checkpoint, parse_key, parse_note

# The example of the format's first implementation (golang.org/x/mod/sumdb/note).
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
LINE = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
HEAD = "example.org/log\n5\n" + base64.b64encode(bytes(range(32))).decode() + "\n"
ADA, EVE = new_signer(), new_signer("example.org/eve")


def test_a_note_of_another_implementation_holds() -> None:
    key = parse_key(VKEY)
    assert (key.name, key.id.hex(), key.kind) == ("PeterNeumann", "c74f20a3", 1)
    assert verify.note_signed_by(parse_note(TEXT + "\n" + LINE), key) is True
    assert verify.note_signed_by(parse_note(TEXT.replace("you", "one") + "\n" + LINE), key) is False


def test_what_is_written_is_what_is_read() -> None:
    written = ADA.note(HEAD)
    assert written.startswith(HEAD + "\n— example.org/ada ")
    found = parse_note(written)
    assert found.text == HEAD
    assert verify.note_signed_by(found, parse_key(ADA.verification_key)) is True
    assert parse_checkpoint(found.text) == verify.Checkpoint("example.org/log", 5, bytes(range(32)))
    assert note.checkpoint_text("example.org/log", 5, bytes(range(32))) == HEAD


def test_the_id_is_the_beginning_of_a_hash_over_name_kind_and_key() -> None:
    for kind, text in ((1, ADA.verification_key), (4, ADA.witness_key)):
        wanted = hashlib.sha256(b"example.org/ada\n" + bytes([kind]) + ADA.public).digest()[:4]
        assert parse_key(text) == ("example.org/ada", wanted, kind, ADA.public)


def test_unknown_signers_are_passed_over_and_a_wrong_signature_of_a_known_one_is_not() -> None:
    own, other = ADA.note(HEAD), EVE.note(HEAD)
    both = HEAD + "\n" + other.split("\n\n")[1] + own.split("\n\n")[1]
    assert verify.note_signed_by(parse_note(both), parse_key(ADA.verification_key)) is True
    assert verify.note_signed_by(parse_note(other), parse_key(ADA.verification_key)) is None
    wrong = HEAD + "\n" + note.signature_line("example.org/ada", parse_key(ADA.verification_key).id, bytes(64))
    assert verify.note_signed_by(parse_note(wrong), parse_key(ADA.verification_key)) is False


def test_a_key_of_the_same_name_is_a_stranger() -> None:
    twin = new_signer()
    assert verify.note_signed_by(parse_note(twin.note(HEAD)), parse_key(ADA.verification_key)) is None
    relabelled = (
        HEAD
        + "\n"
        + note.signature_line("example.org/ada", parse_key(ADA.verification_key).id, twin.sign(HEAD.encode()))
    )
    assert verify.note_signed_by(parse_note(relabelled), parse_key(ADA.verification_key)) is False


def test_a_cosignature_is_over_the_time_and_the_text() -> None:
    line = ADA.cosignature(HEAD, 1_700_000_000)
    seen = parse_note(HEAD + "\n" + line)
    assert verify.cosigned_at(seen, parse_key(ADA.witness_key)) == 1_700_000_000
    assert verify.cosigned_at(parse_note(ADA.note(HEAD)), parse_key(ADA.witness_key)) is None
    data = base64.b64decode(line.split(" ")[2])
    message = f"cosignature/v1\ntime 1700000000\n{HEAD}".encode()
    Ed25519PublicKey.from_public_bytes(ADA.public).verify(data[12:], message)
    later = data[:4] + (1_600_000_000).to_bytes(8, "big") + data[12:]
    backdated = HEAD + f"\n— example.org/ada {base64.b64encode(later).decode()}\n"
    assert verify.cosigned_at(parse_note(backdated), parse_key(ADA.witness_key)) is None


def test_kinds_are_not_exchanged() -> None:
    """One key, two kinds of signature: what was signed as one is never taken for the other."""
    own, witness = parse_key(ADA.verification_key), parse_key(ADA.witness_key)
    assert verify.note_signed_by(parse_note(ADA.note(HEAD)), witness) is None
    assert verify.cosigned_at(parse_note(HEAD + "\n" + ADA.cosignature(HEAD, 5)), own) is None
    as_note = HEAD + "\n" + note.signature_line("example.org/ada", witness.id, ADA.sign(HEAD.encode()))
    assert verify.note_signed_by(parse_note(as_note), witness) is None
    assert verify.cosigned_at(parse_note(as_note), witness) is None
    as_witness = note.signature_line("example.org/ada", witness.id, (5).to_bytes(8, "big") + ADA.sign(HEAD.encode()))
    assert verify.cosigned_at(parse_note(HEAD + "\n" + as_witness), witness) is None
    cosigned = ADA.sign(note.cosigned_message(HEAD, 5))
    as_own = HEAD + "\n" + note.signature_line("example.org/ada", own.id, cosigned)
    assert verify.note_signed_by(parse_note(as_own), own) is False
    relabelled = ADA.witness_key.replace(f"+{witness.id.hex()}+", f"+{own.id.hex()}+")
    with pytest.raises(Bad, match="the id of"):
        parse_key(relabelled)


@pytest.mark.parametrize("text", [
    "", "no newline", "tab\t\n", "carriage\r\n", "nul\x00\n", "del\x7f\n", "escape\x1b[2J\n",
    TEXT + "\n", TEXT + "\n\n", TEXT + "\n" + LINE.strip(), TEXT + "\n" + LINE.replace("—", "-"),
    TEXT + "\n" + LINE.replace("— ", "—"), TEXT + "\n" + LINE.replace("PeterNeumann", "Peter Neumann"),
    TEXT + "\n" + LINE.replace("PeterNeumann", "Peter+Neumann"), TEXT + "\n" + LINE.replace("PeterNeumann", ""),
    TEXT + "\n" + LINE + "and more\n", TEXT + "\n— x AAAA\n", TEXT + "\n— x !!!!!!!!\n", TEXT + "\n" + 65 * LINE,
    TEXT + "\n" + LINE.replace("JnAM=", "JnAN="),
])  # fmt: skip
def test_what_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(Bad):
        parse_note(text)


def test_a_note_has_at_most_a_mebibyte() -> None:
    with pytest.raises(Bad, match="too long"):
        parse_note("a\n" * (1 << 20))


def test_no_signature_at_all_is_a_note_that_nobody_signed() -> None:
    assert parse_note(HEAD) == verify.Note(HEAD, ())


def test_line_separators_of_unicode_end_no_line() -> None:
    """A reader that splits there would read another origin, size and root than one that does not."""
    hidden = "example.org/log\u20285\u2028" + HEAD.split("\n")[2] + "\u2028"
    with pytest.raises(Bad):
        parse_checkpoint(f"{hidden}\n7\nAAAA\n")
    assert parse_checkpoint(f"a\u2028b\x85c\n5\n{HEAD.splitlines()[2]}\n").origin == "a\u2028b\x85c"


@pytest.mark.parametrize("size", ["", "-1", "+5", "05", "5.0", "5 ", " 5", "1e3", "٥", "1" + 18 * "0", "five"])
def test_sizes_have_one_form(size: str) -> None:
    with pytest.raises(Bad):
        parse_checkpoint(f"origin\n{size}\n{HEAD.splitlines()[2]}\n")


@pytest.mark.parametrize("text", ["", "o\n5\n", "\n5\n" + HEAD.splitlines()[2] + "\n", "o\n5\nAAAA\n", "o\n5\n?\n",
                                  "o\n5\n" + HEAD.splitlines()[2], HEAD[:-2] + "9\n"])  # fmt: skip
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(Bad):
        parse_checkpoint(text)


def test_further_lines_of_a_checkpoint_are_allowed() -> None:
    assert parse_checkpoint(HEAD + "extension\n").size == 5


@pytest.mark.parametrize("text", [
    "", "ada", "ada+c74f20a3", VKEY.replace("c74f20a3", "c74f20a4"), VKEY.replace("c74f20a3", "C74F20A3"),
    VKEY.replace("Peter", "Petra"), VKEY + "\n", " " + VKEY, VKEY[:-4], VKEY.replace("+ARpc", "+AhpC"),
    "a b+" + VKEY.split("+", 1)[1], "+" + VKEY.split("+", 1)[1],
], ids=repr)  # fmt: skip
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(Bad):
        parse_key(text)


@pytest.mark.parametrize("name", ["evil\x1b[31m", "two words", "new\nline", "no\u2028line", "\u202egro"])
def test_key_names_hold_nothing_that_a_terminal_obeys(name: str) -> None:
    data = b"\x01" + ADA.public
    key_id = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4].hex()
    with pytest.raises(Bad):
        parse_key(f"{name}+{key_id}+{base64.b64encode(data).decode()}")
    with pytest.raises(ConfigError, match="cannot name a key"):
        note.checked_name(name)


@given(st.text(max_size=80))
def test_any_text_is_a_note_or_refused(text: str) -> None:
    for read in (parse_note, parse_key, parse_checkpoint):
        try:
            read(text)
        except Bad:
            continue


@given(st.binary(max_size=40), st.sampled_from("=ABab+/ \n-_é"), st.integers(0, 60))
def test_base64_has_one_form(data: bytes, letter: str, at: int) -> None:
    text = base64.b64encode(data).decode()
    assert verify._base64(text) == data
    changed = text[:at] + letter + text[at + 1 :]
    if changed != text:
        try:
            assert verify._base64(changed) != data
        except Bad:
            return
