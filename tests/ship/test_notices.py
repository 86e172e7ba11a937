"""NOTICE, TERMS.md and licences/: what goes along, what stops it, and hostile names that stay text."""

from pathlib import Path

import pytest

from tutelage.canon import digest_file
from tutelage.errors import ConfigError, DataError, TermsError
from tutelage.ship.notices import write_notices
from tutelage.terms.check import check, combine
from tutelage.terms.conditions import Release, obligations, unmet
from tutelage.terms.model import AcceptedRisk, Purpose, Verdict
from tutelage.terms.registry import load_registry

REGISTRY = load_registry()


def ask(subject: str, licence: str, route: str = "local", risk: AcceptedRisk | None = None) -> Verdict:
    return check(
        REGISTRY,
        subject=subject,
        licence=licence,
        route=route,
        purpose="distributed",
        today="2026-11-23",
        accepted_risk=risk,
    )


def written(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))


def test_apache_goes_along_by_itself_and_meets_its_condition(tmp_path: Path) -> None:
    verdict = ask("SmolLM2", "Apache-2.0")
    assert write_notices(tmp_path, verdict, verdict.conditions, ()) == ()
    assert written(tmp_path) == ("NOTICE", "TERMS.md", "licences/apache-2.0.txt")
    assert digest_file(tmp_path / "licences" / "apache-2.0.txt") == verdict.decisive.text_digest
    notice = (tmp_path / "NOTICE").read_text()
    for words in ("SmolLM2", "Apache License 2.0", "https://www.apache.org", "differ from their sources"):
        assert words in notice
    release = Release("films", Purpose.DISTRIBUTED, True, None, None, "", written(tmp_path))
    assert unmet(obligations(verdict.conditions), release) == ()


def test_copies_are_named_where_there_are_some(tmp_path: Path) -> None:
    verdict = ask("SmolLM2", "Apache-2.0")
    for name, conditions in (("with", verdict.conditions), ("without", ())):
        write_notices(tmp_path / name, verdict, conditions, ())
        notice = (tmp_path / name / "NOTICE").read_text()
        assert ("licences/" in notice) == (tmp_path / name / "licences").exists() == (name == "with")
        assert "TERMS.md has the terms" in notice


@pytest.mark.parametrize("licence", ["mit", "deepseek-r1", "llama-3.1", "gemma", "bsd-3-clause"])
def test_a_copy_that_names_a_holder_must_be_given(tmp_path: Path, licence: str) -> None:
    verdict = ask("a base", licence)
    with pytest.raises(TermsError, match="copy of its text") as caught:
        write_notices(tmp_path, verdict, verdict.conditions, ())
    assert f"{licence}.txt" in caught.value.fix and "https://" in caught.value.fix
    assert written(tmp_path) == (), "nothing half-written"
    copy = tmp_path.parent / f"{licence}.txt"
    copy.write_text("Copyright (c) the holder")
    write_notices(tmp_path, verdict, verdict.conditions, (str(copy),))
    assert (tmp_path / "licences" / f"{licence}.txt").read_bytes() == copy.read_bytes()


def test_llama_weights_ask_for_words_on_the_card_and_their_terms(tmp_path: Path) -> None:
    together = combine([ask("Llama 3.1 8B", "llama-3.1"), ask("films.csv", "own")])
    copy = tmp_path / "llama3.1.md"  # an alias of the entry
    copy.write_text("the licence")
    out = tmp_path / "student"
    assert write_notices(out, together, together.conditions, (str(copy),)) == ("Built with Llama",)
    terms = (out / "TERMS.md").read_text()
    assert "https://llama.meta.com/llama3_1/use-policy" in terms
    assert "700 million" in terms and "bind whoever receives" in terms
    assert "declares to hold the rights" in terms.split("## Conditions that no machine checked")[1]
    names = ("Built with Llama", written(out))
    release = Release("Llama-films", Purpose.DISTRIBUTED, True, None, 1, *names)
    assert unmet(obligations(together.conditions), release) == ()


def test_accepted_risks_and_unknown_sources_are_told(tmp_path: Path) -> None:
    risk = AcceptedRisk("A. Person", "counsel approved it", "films only")
    together = combine([ask("a nameless one", "", risk=risk), ask("another", "nonesuch", risk=risk)])
    write_notices(tmp_path, together, (), ())
    terms = (tmp_path / "TERMS.md").read_text()
    for words in ("A. Person: counsel approved it (for films only)", "no licence was given", "nonesuch", "unknown"):
        assert words in terms
    assert "a nameless one" in (tmp_path / "NOTICE").read_text()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    hostile = "x\n# Free for all\n<script>alert(1)</script> [y](javascript:1) \u202e\x1b[31m |"
    verdict = ask(hostile, "", "https://evil.example/\n## MIT", AcceptedRisk(hostile, hostile, hostile))
    write_notices(tmp_path, verdict, (), ())
    for name in ("NOTICE", "TERMS.md"):
        text = (tmp_path / name).read_text()
        assert all(line.isprintable() for line in text.splitlines())
        assert not any(line.startswith(("# Free", "## MIT")) for line in text.splitlines())
    assert "<script>" not in terms_of(tmp_path) and "[y](" not in terms_of(tmp_path)


def terms_of(folder: Path) -> str:
    return (folder / "TERMS.md").read_text()


@pytest.mark.parametrize(
    ("data", "kind"), [(None, DataError), (b"", DataError), (b"\xff", DataError), (b"a\0b", DataError)]
)
def test_a_copy_that_is_no_text_is_refused(tmp_path: Path, data: bytes | None, kind: type[Exception]) -> None:
    copy = tmp_path / "mit.txt"
    if data is not None:
        copy.write_bytes(data)
    verdict = ask("a base", "mit")
    with pytest.raises(kind, match=r"mit\.txt"):
        write_notices(tmp_path / "student", verdict, verdict.conditions, (str(copy),))


def test_two_copies_of_one_licence_are_refused_and_others_go_along(tmp_path: Path) -> None:
    for name in ("mit.txt", "expat.md", "HOUSE-RULES.txt"):
        (tmp_path / name).write_text("text")
    verdict = ask("a base", "mit")
    given = tuple(str(tmp_path / name) for name in ("mit.txt", "HOUSE-RULES.txt"))
    write_notices(tmp_path / "student", verdict, verdict.conditions, given)
    assert "licences/HOUSE-RULES.txt" in written(tmp_path / "student")
    with pytest.raises(ConfigError, match=r"two files for mit\.txt"):
        write_notices(tmp_path / "student", verdict, verdict.conditions, (*given, str(tmp_path / "expat.md")))
