"""Taint: what an artefact was made from is asked for again, through data sets, merges, and students of students."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.canon import canonical
from tutelage.errors import ConfigError, DataError
from tutelage.terms.check import check
from tutelage.terms.lineage import (
    MAX_BYTES,
    Ancestor,
    Lineage,
    Made,
    Tie,
    Upstream,
    inherited,
    of_file,
    of_folder,
    read_lineage,
    says_distilled,
)
from tutelage.terms.model import AcceptedRisk, Fact, Purpose, Status, Verdict
from tutelage.terms.registry import Registry, load_registry

REGISTRY = load_registry()
TODAY = "2026-11-23"
RISK = AcceptedRisk("A. Person", "it does not compete", "films only")


def ask(subject: str, licence: str, route: str = "local", purpose: str = "internal", **more: Any) -> Verdict:
    return check(REGISTRY, subject=subject, licence=licence, route=route, purpose=purpose, today=TODAY, **more)


def student(name: str, teacher: Verdict, /, **parents: Lineage) -> Lineage:
    verdicts = {Tie.TEACHER: teacher, Tie.DATA: ask("films.csv", "own"), Tie.BASE: ask("tiny base", "mit")}
    return Lineage.of(name, Made.STUDENT, verdicts, {Tie(role): (one,) for role, one in parents.items()})


def anew(lineage: Lineage, purpose: str = "internal", via: Tie = Tie.BASE) -> dict[str, Verdict]:
    found = inherited(lineage, REGISTRY, purpose, TODAY, via)
    return {one.subject.split(" (")[0]: one for one in found}


def test_a_students_lineage_lists_what_it_took_and_under_what() -> None:
    one = student("a", ask("GPT", "", "openai", "classifier-only"))
    assert [(each.subject, each.role) for each in one.ancestors] == [
        ("GPT", "teacher"),
        ("films.csv", "data"),
        ("tiny base", "base"),
    ]
    gpt = one.ancestors[0]
    assert (gpt.route, gpt.purpose, gpt.status, gpt.date) == ("openai", "classifier-only", "conditional", TODAY)
    assert gpt.entries == (REGISTRY.by_name["openai"].digest,)
    assert {each.upstream for each in one.ancestors} == {Upstream.UNKNOWN}
    assert Lineage.from_json(json.loads(canonical(one.to_json()))) == one


def test_the_new_purpose_is_judged_not_the_one_it_was_taken_under() -> None:
    one = student("a", ask("GPT", "", "openai", "classifier-only"))
    assert anew(one, "classifier-only")["GPT"].permits
    barred = anew(one, "distributed")["GPT"]
    assert barred.status is Status.FORBIDDEN_FOR_COMPETING
    assert not barred.permits


@pytest.mark.parametrize("role", ["teacher", "data", "base"])
def test_taint_reaches_a_student_of_a_student_of_a_student(role: str) -> None:
    one = student("a", ask("Claude", "", "anthropic", accepted_risk=RISK))
    for name in ("b", "c"):
        one = student(name, ask(f"{name}'s teacher", "apache-2.0"), **{role: one})
    assert anew(one)["Claude"].status is Status.FORBIDDEN
    assert {each.subject for each in one.ancestors} > {"Claude", "b's teacher", "c's teacher", "films.csv"}
    assert next(each for each in one.ancestors if each.role == role).upstream is Upstream.LISTED
    assert len(one.ancestors) == len(set(one.ancestors))


def test_taint_follows_a_data_set_and_a_merge() -> None:
    synthetic = Lineage.of("made.csv", Made.DATASET, {Tie.TEACHER: ask("Llama 3", "llama-3", "embedded")}, {})
    clean = student("clean", ask("Qwen", "qwen3"))
    tainted = student("tainted", ask("Qwen", "qwen3"), data=synthetic)
    merged = Lineage.of_merge("soup", [clean, tainted])
    assert merged.kind is Made.MERGE
    assert set(merged.ancestors) == {*clean.ancestors, *tainted.ancestors}
    assert anew(student("child", ask("Qwen", "qwen3"), base=merged))["Llama 3"].status is Status.FORBIDDEN
    assert all(verdict.permits for verdict in anew(clean).values())
    with pytest.raises(ConfigError, match="nothing to merge"):
        Lineage.of_merge("soup", [])


def test_an_accepted_risk_is_never_inherited_silently() -> None:
    taken = ask("Claude", "", "anthropic", accepted_risk=RISK)
    assert taken.permits
    one = student("a", taken)
    assert one.ancestors[0].accepted_risks == (RISK,)
    verdict = anew(one)["Claude"]
    assert not verdict.permits
    assert verdict.accepted_risks == ()
    assert any("A. Person accepted" in warning and "does not count here" in warning for warning in verdict.warnings)


def test_todays_registry_decides_and_a_licence_it_does_not_hold_is_unknown() -> None:
    one = student("a", ask("Qwen", "qwen3"))
    small = Registry.of(entry for entry in REGISTRY.entries if entry.id in ("mit", "own"))
    found = inherited(one, small, "internal", TODAY)
    assert [verdict.status for verdict in found] == [Status.UNKNOWN, Status.CONDITIONAL, Status.ALLOWED]


def test_conditions_on_what_is_handed_on_bind_where_weights_are() -> None:
    llama = {Tie.BASE: ask("Llama", "llama-3.1", "local", "distributed")}
    one = Lineage.of("Llama-a", Made.STUDENT, llama, {})
    (as_base,) = inherited(one, REGISTRY, "distributed", TODAY, Tie.BASE)
    (as_teacher,) = inherited(one, REGISTRY, "distributed", TODAY, Tie.TEACHER)
    assert {Fact.NAME_PREFIX, Fact.DISPLAY, Fact.TERMS_PASSED_ON} <= {item.id for item in as_base.conditions}
    assert {item.id for item in as_teacher.conditions} == {Fact.PROHIBITED_USES, Fact.USER_CAP, Fact.NAME_PREFIX}
    # Its answers carry no weights, so what was its base is a teacher for those who learn from it.
    taught = student("Llama-b", ask("Llama-a", "llama-3.1"), teacher=one)
    assert [each.role for each in taught.ancestors if each.subject == "Llama"] == [Tie.TEACHER]
    kept = student("Llama-c", ask("Qwen", "qwen3"), base=one)
    assert [each.role for each in kept.ancestors if each.subject == "Llama"] == [Tie.BASE]


@pytest.mark.parametrize(
    ("card", "distilled"),
    [
        ("---\nlicense: mit\ndistillation:\n  teacher: x\n---\n# a", True),
        ("---\ntags: [distillation, small]\n---\n", True),
        ("---\ntags:\n- text\n- logit-Distilled\nlicense: mit\n---\n", True),
        ('---\n"distillation" : yes\n---\n', True),
        ("---\ntags:\n- text\nlicense: distillation-1.0\n---\n", False),
        ("---\nlicense: mit\n---\ndistillation: spoken of below", False),
        ("# a\n\ndistillation:\n", False),
        ("---\ndistillation: x\n", False),  # no end: no front matter
        ("", False),
    ],
)
def test_what_a_model_card_says_of_distillation(card: str, distilled: bool) -> None:
    assert says_distilled(card) is distilled


def test_a_distilled_model_without_a_lineage_is_unknown_upstream_for_all_its_children(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes("﻿---\r\ntags: [distillation]\r\n---\r\n".encode())
    (found,) = of_folder(tmp_path)
    child = student("child", ask("Qwen", "qwen3"), base=found)
    for one in (found, student("grandchild", ask("Qwen", "qwen3"), base=child)):
        verdict = next(each for each in inherited(one, REGISTRY, "internal", TODAY) if not each.permits)
        assert verdict.status is Status.UNKNOWN
        assert "distilled" in verdict.subject and tmp_path.name in verdict.subject and "lineage.json" in verdict.subject


def test_where_lineages_lie(tmp_path: Path) -> None:
    one = student("a", ask("Qwen", "qwen3"))
    (tmp_path / "films.csv").write_text("x")
    assert of_folder(tmp_path) == of_file(tmp_path / "films.csv") == ()
    for name in ("lineage.json", "films.csv.lineage.json"):
        (tmp_path / name).write_bytes(canonical(one.to_json()))
    (tmp_path / "README.md").write_text("---\ndistillation: x\n---\n")
    assert of_folder(tmp_path) == of_file(tmp_path / "films.csv") == (one,)


def _broken(change: str) -> bytes:
    value = student("a", ask("Qwen", "qwen3")).to_json()
    first = value["ancestors"][0]
    match change:
        case "version":
            value["schema_version"] = 2
        case "unknown key":
            value["note"] = "x"
        case "unknown key below":
            first["colour"] = "blue"
        case "missing key":
            del first["route"]
        case "wrong type":
            first["subject"] = 5
        case "null":
            value["ancestors"] = None
        case "role":
            first["role"] = "friend"
        case "status":
            first["status"] = "fine"
        case "hidden":
            first["subject"] = "Qwen\u202e\x1b[31m"
        case "surrogate":
            return canonical(value).replace(b"Qwen", b"\\ud800")
        case "nameless":
            first["subject"] = "  "
        case "float":
            return canonical(value).replace(b'"schema_version":1', b'"schema_version":1.0')
        case "key twice":
            return canonical(value).replace(b'"schema_version":1', b'"schema_version":1,"schema_version":1')
    return canonical(value)


@pytest.mark.parametrize(
    "change",
    [
        "version", "unknown key", "unknown key below", "missing key", "wrong type", "null", "role", "status", "hidden",
        "surrogate", "nameless", "float", "key twice",
    ],
)  # fmt: skip
def test_a_lineage_of_another_shape_is_refused_with_the_fix(tmp_path: Path, change: str) -> None:
    path = tmp_path / "lineage.json"
    path.write_bytes(_broken(change))
    with pytest.raises(DataError, match=r"lineage\.json") as caught:
        read_lineage(path)
    assert "anew" in caught.value.fix
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no lineage"),
        (b"{", "no lineage"),
        (b"[]", "no lineage"),
        (b"\xff\xfe", "no lineage"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"9" * 10_000, "no lineage"),
        (b" " * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_a_hostile_file_is_a_data_error(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "lineage.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=why):
        of_folder(tmp_path)


def test_what_is_no_file_is_never_taken_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lineage.json"
    path.symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="not a file"):
        of_folder(tmp_path)
    path.unlink()
    os.mkfifo(path)  # opening it would wait for ever
    with pytest.raises(DataError, match="not a file"):
        of_folder(tmp_path)


@settings(max_examples=100, deadline=None)
@given(
    licence=st.sampled_from(["", "nonesuch", *(entry.id for entry in REGISTRY.entries)]),
    route=st.sampled_from(["local", "nonesuch.example", *(entry.id for entry in REGISTRY.entries)]),
    status=st.sampled_from(Status),
    purpose=st.sampled_from(Purpose),
)
def test_nothing_a_lineage_says_loosens_the_verdict(licence: str, route: str, status: Status, purpose: Purpose) -> None:
    """Status, digests and accepted risks are its writer's word: the verdict is that of asking afresh."""
    told = Ancestor("X", Tie.TEACHER, licence, route, purpose, TODAY, status, (), (RISK,), Upstream.LISTED)
    (found,) = inherited(Lineage(1, "a", Made.STUDENT, (told,)), REGISTRY, purpose, TODAY)
    fresh = ask("X", licence, route, purpose)
    assert (found.status, found.permits) == (fresh.status, fresh.permits)
