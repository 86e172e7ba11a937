"""Keys, signatures and disclosures as people meet them: exit codes, and one clear error with the way to mend it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ledger.made import Example, make
from tutelage.canon import digest_bytes
from tutelage.cli.main import main
from tutelage.ledger.keys import load_key
from tutelage.ledger.note import verification_key

EXAMPLES = [Example(), Example("elm", "Apache-2.0"), Example(steps=())]


class Said(NamedTuple):
    """Exit code, and what was printed."""

    code: int
    out: str
    err: str


Tutelage = Callable[..., Said]


@pytest.fixture
def tutelage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tutelage:
    """The command line in this process, with a key folder of its own."""
    monkeypatch.setenv("TUTELAGE_KEYS", str(tmp_path / "keys"))
    monkeypatch.chdir(tmp_path)

    def work(*arguments: object) -> Said:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Said(int(ended.value.code or 0), printed.out, printed.err)

    return work


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made") / "run", EXAMPLES)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """An unsigned record of one's own."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def refused(said: Said, *words: str) -> bool:
    """One error for people, with a fix, and nothing of how it came about."""
    assert said.code == 2, said
    assert said.err.startswith("error: ")
    assert "\n  fix: " in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert all(word in said.err for word in words), said.err
    return True


def test_a_key_from_its_making_to_its_end(tutelage: Tutelage, tmp_path: Path) -> None:
    assert "no key in" in tutelage("key", "list").out
    first = tutelage("key", "new", "example.org/ada")
    assert first.code == 0
    signer = load_key("example.org/ada")
    assert signer.verification_key in first.out
    assert signer.witness_key in first.out
    assert tutelage("key", "list").out == f"* {signer.verification_key}\n"
    assert refused(tutelage("key", "new", "example.org/ada"), "there is a key", "rotate")
    rotated = tutelage("key", "rotate", "example.org/ada")
    assert rotated.code == 0
    assert load_key("example.org/ada").verification_key in rotated.out
    assert "history.json" in rotated.out
    revoked = tutelage("key", "revoke", "example.org/ada", "--reason", "stolen")
    assert revoked.code == 0
    assert tutelage("key", "list").out.endswith("(revoked)\n")
    for act in (("rotate", "example.org/ada"), ("revoke", "example.org/ada", "--reason", "again")):
        assert refused(tutelage("key", *act), "there is no key", "tutelage key new")
    assert not list((tmp_path / "keys").glob("*.key"))


@pytest.mark.parametrize("name", ["two words", "a+b", ""])
def test_names_that_cannot_be(tutelage: Tutelage, name: str) -> None:
    assert refused(tutelage("key", "new", name), "cannot name a key", "example.org/ada")


def test_a_revocation_needs_a_reason(tutelage: Tutelage) -> None:
    tutelage("key", "new", "ada")
    assert refused(tutelage("key", "revoke", "ada", "--reason", " "), "no reason")
    assert tutelage("key", "revoke", "ada").code == 2
    assert load_key("ada")


def test_signing_a_finished_run(tutelage: Tutelage, run: Path) -> None:
    assert refused(tutelage("sign", run), "there is no key", "tutelage key new")
    before = tutelage("verify", run)
    assert before.code == 0
    assert "tier  no tier: not signed" in before.out
    tutelage("key", "new", "ada")
    assert tutelage("sign", run).code == 0
    key = load_key("ada").verification_key
    Path("ada.vkey").write_text(key + "\n")
    for given in (key, "ada.vkey"):
        after = tutelage("verify", run, "--key", given)
        assert after.code == 0, after.out
        assert "tier  L0 signed claim: signed by ada+" in after.out
        assert "tier  L1 not claimed" in after.out, "it was not signed before training"
    assert tutelage("verify", run / "provenance", "--key", key).code == 0


def test_signing_what_is_not_there_or_not_finished(tutelage: Tutelage, run: Path) -> None:
    tutelage("key", "new", "ada")
    assert refused(tutelage("sign", "nothing"), "nothing is not sealed")
    assert refused(tutelage("sign", run, "--key", "eve"), "there is no key eve", "tutelage key new eve")
    (run / "provenance" / "statement.json").unlink()
    assert refused(tutelage("sign", run), "is not sealed", "tutelage run")
    tutelage("key", "revoke", "ada", "--reason", "lost")
    assert refused(tutelage("sign", run, "--key", "ada"), "there is no key ada")


def test_another_name_on_a_signed_record(tutelage: Tutelage, run: Path) -> None:
    for name in ("ada", "eve"):
        tutelage("key", "new", name)
    assert tutelage("sign", run, "--key", "ada").code == 0
    assert refused(tutelage("sign", run, "--key", "eve"), "this record is signed by ada", "tutelage key use ada")
    assert tutelage("verify", run, "--key", load_key("ada").verification_key).code == 0
    assert tutelage("verify", run, "--key", load_key("eve").verification_key).code == 1
    assert tutelage("key", "use", "eve").code == 0
    assert tutelage("key", "list").out.startswith("  ada+")
    assert refused(tutelage("key", "use", "nobody"), "there is no key nobody")


def test_a_record_of_a_rotated_and_of_a_revoked_key(tutelage: Tutelage, run: Path, tmp_path: Path) -> None:
    tutelage("key", "new", "ada")
    old = load_key("ada").verification_key
    tutelage("key", "rotate", "ada")
    tutelage("sign", run)
    assert tutelage("verify", run, "--key", old).code == 0, "the record carries the handing over"
    history = next((tmp_path / "keys").glob("*.history.json"))
    assert tutelage("verify", run, "--key", old, "--history", history).code == 0
    tutelage("key", "revoke", "ada", "--reason", "the laptop was stolen")
    said = tutelage("verify", run, "--key", old, "--history", history)
    assert said.code == 1
    assert "revoked" in said.out
    assert "the laptop was stolen" in said.out
    assert "tier" not in said.out


def test_cosigning(tutelage: Tutelage, run: Path) -> None:
    assert refused(tutelage("cosign", run, "--key", "wit"), "there is no key wit")
    tutelage("key", "new", "wit")
    said = tutelage("cosign", run / "provenance", "--key", "wit")
    assert said.code == 0
    witness = load_key("wit").witness_key
    assert witness in said.out
    shown = tutelage("verify", run, "--witness", witness)
    assert shown.code == 0, shown.out
    assert tutelage("sign", run, "--key", "wit").code == 0, "a witness has not signed: the record is still nobody's"
    shutil.rmtree(run / "provenance" / "checkpoints")
    assert refused(tutelage("cosign", run, "--key", "wit"), "has no checkpoint from before training")
    assert refused(tutelage("cosign", "nothing", "--key", "wit"), "has no checkpoint from before training")


def test_verify_says_what_is_wrong_with_what_it_is_given(tutelage: Tutelage, run: Path) -> None:
    Path("empty").mkdir()
    assert refused(tutelage("verify", "nothing"), "there is no nothing")
    assert refused(tutelage("verify", "empty"), "empty has no record")
    for key in ("nonsense", "a+00000000+AAAA", "missing.vkey"):
        assert refused(tutelage("verify", run, "--key", key), "key", "name+id+key")
        assert refused(tutelage("verify", run, "--witness", key), "key", "name+id+key")
    for root in ("x", "sha256:00", 64 * "0"):
        assert refused(tutelage("verify", run, "--root", root), "no log root")
    assert refused(tutelage("verify", run, "--history", "missing.json"), "there is no file missing.json")
    key = verification_key("x", 1, bytes(32))
    Path("history").write_bytes(b"\xff\x00 no history")
    said = tutelage("verify", run, "--key", key, "--history", "history")
    assert (said.code, said.err) == (1, "")
    assert tutelage("verify", run, "--root", "sha256:" + 64 * "0").code == 1


def test_verify_in_json_and_with_its_coverage(tutelage: Tutelage, run: Path) -> None:
    said = json.loads(tutelage("verify", run, "--json", "--explain").out)
    assert said["ok"] is True
    assert said["covered"]
    assert said["not_covered"]
    assert said["not_proven"]
    assert len(said["shares"]) == 2
    root = said["root"]
    assert tutelage("verify", run, "--root", root).code == 0
    (run / "evidence.json").write_text("{}")
    failed = tutelage("verify", run, "--json")
    said = json.loads(failed.out)
    assert (failed.code, said["ok"], said["shares"], said["tier"]) == (1, False, [], [])
    assert said["findings"][0]["where"].startswith("evidence.json")


@pytest.mark.parametrize(("arguments", "word"), [
    (("share", "--teacher", "oak", "--licence", "MIT"), "50 % of the 8 loss tokens came from 'oak' under 'MIT'"),
    (("share", "--teacher", "oak", "--blind", "0", "--blind", "1"), "at least 50 %, at most 100 % of the 8 loss tokens"),
    (("absence", "--teacher", "gpt-9"), "no example of the record came from 'gpt-9'"),
    (("example", "--position", "1", "--open", "answer"), "answer: no"),
    (("example", "--prompt", digest_bytes(b"prompt 0"), "--role", "text-target"), "used as text-target: 3 loss tokens"),
    (("audit", "--beacon", "round 1", "--draws", "9"), "drawn by the beacon 'round 1'"),
    (("consistency", "--old", "run/provenance/checkpoints/10"), "begins with the 10 of the older checkpoint"),
], ids=lambda value: value[0] if isinstance(value, tuple) else "")  # fmt: skip
def test_what_is_disclosed_is_verified(tutelage: Tutelage, run: Path, arguments: tuple[str, ...], word: str) -> None:
    verb, *rest = arguments
    said = tutelage("disclose", verb, run, *rest, "--out", "shown.json")
    assert said.code == 0, said
    assert said.out == "shown.json: check it with: tutelage verify shown.json\n"
    checked = tutelage("verify", "shown.json")
    assert checked.code == 0, checked.out
    assert word in checked.out
    printed = tutelage("disclose", verb, run, *rest)
    assert json.loads(printed.out) == json.loads(Path("shown.json").read_bytes())


@pytest.mark.parametrize(("arguments", "words"), [
    (("share", "--teacher", "oka"), ("no loss token came from 'oka'", "oak under MIT")),
    (("share", "--teacher", "oak", "--blind", "99"), ("has no row 99", "0 to ")),
    (("share", "--teacher", "oak", "--blind", "-1"), ("has no row -1",)),
    (("absence", "--teacher", "oak"), ("'oak' is in the source table", "share")),
    (("example",), ("name one example", "--prompt")),
    (("example", "--prompt", "x", "--position", "1"), ("name one example",)),
    (("example", "--prompt", "no such"), ("no example of prompt 'no such' was selected", "selection.json")),
    (("example", "--position", "3"), ("has no example 3", "0 to 2")),
    (("example", "--position", "-1"), ("has no example -1",)),
    (("example", "--position", "2"), ("example 2 was not trained on",)),
    (("example", "--position", "0", "--role", "judge"), ("was not trained on as judge",)),
    (("example", "--position", "0", "--open", "licence"), ("'licence' is no blinded field", "exchange, prompt")),
    (("audit", "--beacon", ""), ("an audit needs a beacon", "drand")),
    (("audit", "--beacon", "  "), ("an audit needs a beacon",)),
    (("audit", "--beacon", "x", "--draws", "0"), ("1 to 10,000 draws", "0")),
    (("audit", "--beacon", "x", "--draws", "10001"), ("1 to 10,000 draws", "10001")),
    (("consistency", "--old", "missing"), ("there is no file missing", "provenance/checkpoints")),
    (("consistency", "--old", "run/store/000001.seg"), ("no older checkpoint of this run",)),
    (("consistency", "--old", "run/.lock"), ("no older checkpoint of this run",)),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")  # fmt: skip
def test_what_cannot_be_disclosed(
    tutelage: Tutelage, run: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    verb, *rest = arguments
    assert refused(tutelage("disclose", verb, run, *rest), *words)
    said = tutelage("disclose", verb, run, *rest, "--out", "shown.json")
    assert said.code == 2
    assert not Path("shown.json").exists(), "nothing half-written"


@pytest.mark.parametrize("verb", [("share", "--teacher", "x"), ("absence", "--teacher", "x"), ("audit", "--beacon", "x"),
                                  ("example", "--position", "0")], ids=lambda verb: verb[0])  # fmt: skip
def test_disclosing_needs_a_run_with_its_private_part(tutelage: Tutelage, run: Path, verb: tuple[str, ...]) -> None:
    assert refused(tutelage("disclose", verb[0], "nothing", *verb[1:]), "nothing has no ")
    assert refused(tutelage("disclose", verb[0], run / "provenance", *verb[1:]), "has no ", "run folder")


def test_nobodys_own_keys_are_touched(tutelage: Tutelage, tmp_path: Path) -> None:
    tutelage("key", "new", "ada")
    assert {path.parent for path in tmp_path.rglob("*.key")} == {tmp_path / "keys"}
