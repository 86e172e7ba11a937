"""Keys: kept where others cannot read them; handed over and revoked by notes that nobody else can write."""

import json
import stat
from pathlib import Path

import pytest

from tests.ledger.made import new_signer
from tutelage.canon import canonical
from tutelage.errors import ConfigError
from tutelage.jsonl import pretty
from tutelage.ledger import keys as keyring
from tutelage.ledger.keys import Signer, default_name, default_signer, load_key, new_key, revoke_key, rotate_key
from tutelage.ledger.note import ED25519, key_id, signature_line
from tutelage.ledger.verify import Bad, follow, note_signed_by, parse_key, parse_note

NAME = "example.org/ada"


def history_of(*notes: str) -> str:
    return pretty({"schema_version": 1, "notes": list(notes)}).decode()


def event(kind: str, signer: Signer, **said: str) -> str:
    value = {"key": signer.verification_key, "at": "2026-01-01T00:00:00Z", **said}
    return f"{kind}\n{canonical(value).decode()}\n"


def rotation(old: Signer, new: Signer) -> str:
    text = event(keyring.ROTATION, old, new=new.verification_key)
    return old.note(text) + signature_line(new.name, key_id(new.name, ED25519, new.public), new.sign(text.encode()))


def revocation(signer: Signer, at: str = "2026-01-01T00:00:00Z") -> str:
    return signer.note(event(keyring.REVOCATION, signer, reason="lost", at=at))


def test_private_halves_are_for_the_owner_alone(keys: Path) -> None:
    new_key(NAME)
    secret = sorted(path for path in keys.iterdir() if path.name.endswith(".key"))
    assert [path.name for path in secret] == ["example.org%2Fada.key", "example.org%2Fada.p256.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    for path in keys.iterdir():
        assert (b"PRIVATE" in path.read_bytes()) == (path in secret), path


@pytest.mark.parametrize("ending", ["key", "p256.key"])
def test_a_key_that_others_can_read_is_refused(keys: Path, ending: str) -> None:
    new_key(NAME)
    (keys / f"example.org%2Fada.{ending}").chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others") as told:
        load_key(NAME)
    assert "chmod 600" in told.value.fix
    with pytest.raises(ConfigError):
        default_signer()


def test_what_is_loaded_signs_as_what_was_made(keys: Path) -> None:
    made = new_key(NAME)
    loaded = load_key(NAME)
    assert loaded.verification_key == made.verification_key
    assert loaded.p256_public == made.p256_public
    assert loaded.note("text\n") == made.note("text\n"), "Ed25519 draws nothing"
    assert default_name() == NAME


def test_the_first_key_is_the_default_and_stays_it(keys: Path) -> None:
    assert default_signer() is None
    new_key(NAME)
    new_key("example.org/eve")
    assert default_name() == NAME
    assert [(known.name, known.usable) for known in keyring.known_keys()] == [(NAME, True), ("example.org/eve", True)]


def test_a_key_is_never_overwritten(keys: Path) -> None:
    before = new_key(NAME).verification_key
    with pytest.raises(ConfigError, match="there is a key"):
        new_key(NAME)
    assert load_key(NAME).verification_key == before


@pytest.mark.parametrize("names", [("x", "x.p256"), ("x.p256", "x")])
def test_names_that_make_one_file_name_destroy_no_key(keys: Path, names: tuple[str, str]) -> None:
    before = new_key(names[0]).verification_key
    with pytest.raises(ConfigError):
        new_key(names[1])
    assert load_key(names[0]).verification_key == before


@pytest.mark.parametrize("name", ["", "two words", "a+b", "new\nline", "ünicode", 101 * "x", "tab\t"])
def test_names_that_a_note_cannot_hold_are_refused(keys: Path, name: str) -> None:
    for act in (new_key, load_key, rotate_key):
        with pytest.raises(ConfigError, match="cannot name a key"):
            act(name)
    assert not keys.exists()


@pytest.mark.parametrize("name", ["..", "../up", "a/../../b", "/etc/x", "%2F", "."])
def test_names_never_lead_out_of_the_folder(keys: Path, tmp_path: Path, name: str) -> None:
    new_key(name)
    assert load_key(name).name == name
    assert [known.name for known in keyring.known_keys()] == [name]
    assert {path.parent for path in tmp_path.rglob("*.key")} == {keys}


def test_a_damaged_key_file_is_told(keys: Path) -> None:
    new_key(NAME)
    path = keys / "example.org%2Fada.key"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ConfigError, match="no keys"):
        load_key(NAME)
    path.write_bytes((keys / "example.org%2Fada.p256.key").read_bytes())
    with pytest.raises(ConfigError, match="no keys"):
        load_key(NAME)


def test_an_unknown_key_is_told_with_the_way_to_make_one(keys: Path) -> None:
    with pytest.raises(ConfigError, match="there is no key") as told:
        load_key(NAME)
    assert "tutelage key new" in told.value.fix


def test_rotation_is_signed_by_both_and_the_old_key_is_gone(keys: Path) -> None:
    old = new_key(NAME)
    new = rotate_key(NAME)
    assert old.verification_key != new.verification_key
    assert load_key(NAME).verification_key == new.verification_key
    text = keyring.history_path(NAME).read_text()
    note = parse_note(json.loads(text)["notes"][0])
    for signer in (old, new):
        assert note_signed_by(note, parse_key(signer.verification_key)) is True
    followed = follow(parse_key(old.verification_key), text)
    assert [key.public for key in followed.trusted] == [old.public, new.public]
    assert followed.revoked == {}
    newest = rotate_key(NAME)
    followed = follow(parse_key(old.verification_key), keyring.history_path(NAME).read_text())
    assert [key.public for key in followed.trusted] == [old.public, new.public, newest.public]


def test_a_revocation_reaches_back_to_the_keys_that_were_taken_over_from(keys: Path) -> None:
    """Whoever has stolen an older key signs as the newer one's predecessor: a revocation ends them all, and none after."""
    first, second = new_key(NAME), rotate_key(NAME)
    revoke_key(NAME, "stolen")
    followed = follow(parse_key(first.verification_key), keyring.history_path(NAME).read_text())
    assert set(followed.revoked) == {parse_key(signer.verification_key).id for signer in (first, second)}
    third = new_signer(NAME)
    only_first = history_of(rotation(first, second), rotation(second, third), revocation(first))
    assert set(follow(parse_key(first.verification_key), only_first).revoked) == {parse_key(first.verification_key).id}


def test_a_newer_key_says_nothing_of_an_older_one(keys: Path) -> None:
    new_key(NAME)
    new = rotate_key(NAME)
    assert follow(parse_key(new.verification_key), keyring.history_path(NAME).read_text()).trusted == (
        parse_key(new.verification_key),
    )


def test_revocation_is_signed_and_the_private_halves_are_gone(keys: Path) -> None:
    signer = new_key(NAME)
    revoke_key(NAME, "the laptop was stolen")
    assert not list(keys.glob("*.key"))
    assert default_name() is None
    assert [(known.name, known.usable) for known in keyring.known_keys()] == [(NAME, False)]
    with pytest.raises(ConfigError, match="there is no key"):
        load_key(NAME)
    text = keyring.history_path(NAME).read_text()
    followed = follow(parse_key(signer.verification_key), text)
    assert "the laptop was stolen" in followed.revoked[parse_key(signer.verification_key).id][1]


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "bell\x07", "del\x7f", "sep\u2028"])
def test_a_reason_is_one_line_of_text(keys: Path, reason: str) -> None:
    new_key(NAME)
    with pytest.raises(ConfigError, match="no reason"):
        revoke_key(NAME, reason)
    assert load_key(NAME)
    assert not keyring.history_path(NAME).exists()


def test_a_revoked_name_can_be_made_anew_as_another_key(keys: Path) -> None:
    old = new_key(NAME)
    revoke_key(NAME, "lost")
    new = new_key(NAME)
    text = keyring.history_path(NAME).read_text()
    assert follow(parse_key(new.verification_key), text).revoked == {}
    assert follow(parse_key(old.verification_key), text).trusted == (parse_key(old.verification_key),)


def test_forged_histories_are_refused() -> None:
    ada, eve = new_signer(), new_signer()
    first = parse_key(ada.verification_key)
    said = event(keyring.ROTATION, ada, new=eve.verification_key)
    only_new = said + "\n" + eve.note(said).split("\n\n")[1]
    with pytest.raises(Bad, match="not signed by the key it is about"):
        follow(first, history_of(only_new))
    with pytest.raises(Bad, match="did not sign that it did"):
        follow(first, history_of(ada.note(said)))
    with pytest.raises(Bad, match="not signed by the key it is about"):
        follow(first, history_of(revocation(ada).replace("lost", "kept")))
    false_name = event(keyring.REVOCATION, ada, reason="lost") + "\n" + eve.note("x\n").split("\n\n")[1]
    with pytest.raises(Bad, match="not signed by the key it is about"):
        follow(first, history_of(false_name))
    with pytest.raises(Bad, match="unknown kind"):
        follow(first, history_of(ada.note(event("tutelage/key-blessing/v1", ada))))
    witness = event(keyring.ROTATION, ada, new=ada.witness_key)
    with pytest.raises(Bad, match="did not sign that it did"):
        follow(first, history_of(ada.note(witness)))


def test_a_history_of_somebody_else_changes_nothing() -> None:
    ada, eve, mallory = new_signer(), new_signer(), new_signer()
    first = parse_key(ada.verification_key)
    assert follow(first, history_of(rotation(eve, mallory), revocation(eve))) == ((first,), {})


def test_a_revoked_key_hands_over_to_nobody() -> None:
    """Whoever stole it could otherwise go on under another key."""
    ada, thief = new_signer(), new_signer()
    with pytest.raises(Bad, match="cannot hand over"):
        follow(parse_key(ada.verification_key), history_of(revocation(ada), rotation(ada, thief)))


def test_a_revocation_cannot_be_put_off() -> None:
    ada = new_signer()
    early, late = revocation(ada, "2026-01-01T00:00:00Z"), revocation(ada, "2027-01-01T00:00:00Z")
    key = parse_key(ada.verification_key)
    assert follow(key, history_of(early, late)).revoked == follow(key, history_of(late, early)).revoked
    assert follow(key, history_of(late, early)).revoked[key.id][0] == 1_767_225_600


@pytest.mark.parametrize("text", [
    "[]", "{}", '{"notes": 5}', '{"notes": [5]}', '{"notes": ["x"]}', '{"notes": [], "notes": []}', "[" * 100_000,
    '{"notes": ["kind\\n[]\\n"]}', '{"notes": ["kind\\n{}\\n"]}', '{"notes": ["one line\\n"]}', "NaN",
])  # fmt: skip
def test_hostile_histories_raise_nothing_worse_than_a_value_error(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, RecursionError)):
        follow(parse_key(new_signer().verification_key), text)
