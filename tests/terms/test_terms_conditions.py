"""Conditions as obligations: what a run file already breaks, and what a release does not meet."""

from dataclasses import replace

import pytest

from tutelage.terms.check import check
from tutelage.terms.conditions import HANDED_ON, Release, bound, obligations, unmet, unmet_at_start
from tutelage.terms.model import Condition, Fact, Purpose
from tutelage.terms.registry import load_registry

REGISTRY = load_registry()


def conditions(licence: str, purpose: str = "distributed", route: str = "local") -> tuple[Condition, ...]:
    return check(
        REGISTRY, subject="x", licence=licence, route=route, purpose=purpose, today="2026-11-23"
    ).conditions  # fmt: skip


def release(purpose: str = "distributed", **changes: object) -> Release:
    wanted = Purpose(purpose)
    plain = Release("films", wanted, wanted in HANDED_ON, None, None, "", ())
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("licence", "purpose", "changes", "problem"),
    [
        ("llama-3.1", "distributed", {"monthly_users": 10}, "begins with 'Llama', not 'films'"),
        ("llama-3.1", "distributed", {"monthly_users": 10, "name": "llama-films"}, "begins with 'Llama'"),
        ("llama-3.1", "distributed", {"monthly_users": 10, "name": "Llama-films"}, ""),
        ("llama-3.1", "distributed", {"name": "Llama-films"}, "say how many, ship.monthly_users"),
        ("llama-3.1", "internal", {}, "say how many"),
        ("llama-3.1", "internal", {"monthly_users": 700_000_000}, ""),
        ("llama-3.1", "internal", {"monthly_users": 700_000_001}, "does not hold for 700,000,001 monthly users"),
        ("kimi-k2", "distributed", {"monthly_users": 100_000_001}, "Kimi K2"),
        ("kimi-k2", "internal", {}, ""),
        ("cohere-labs", "internal", {}, "ship.commercial = false"),
        ("cohere-labs", "internal", {"commercial": True}, "ship.commercial is true"),
        ("cohere-labs", "internal", {"commercial": False}, ""),
        ("apache-2.0", "distributed", {}, ""),
        ("gemma", "distributed", {}, ""),
    ],
)
def test_what_the_run_file_breaks_is_known_before_anything_is_asked(
    licence: str, purpose: str, changes: dict[str, object], problem: str
) -> None:
    found = unmet_at_start(obligations(conditions(licence, purpose)), release(purpose, **changes))
    assert bool(found) == bool(problem)
    assert problem in "; ".join(found)


def test_the_fix_of_a_name_is_a_name() -> None:
    (found,) = unmet_at_start(obligations(conditions("llama-4")), release(monthly_users=1))
    assert 'set run.name = "Llama-films"' in found


def test_a_classifier_kept_inside_and_a_platforms_own_model() -> None:
    inside = obligations(conditions("", "classifier-only", "openai"))
    assert unmet_at_start(inside, release("classifier-only")) == ()
    assert "given to others" in unmet_at_start(inside, release("distributed"))[0]
    platform = obligations(conditions("", "same-platform", "openai"))
    assert "own platform" in unmet_at_start(platform, release("same-platform"))[0]


@pytest.mark.parametrize(
    ("licence", "card", "files", "missing"),
    [
        ("llama-3.1", "Built with Llama", ("NOTICE", "TERMS.md", "licences/llama-3.1.txt"), []),
        ("llama-3.1", "built with llama", ("NOTICE", "TERMS.md", "licences/llama-3.1.txt"), ["Built with Llama"]),
        ("llama-3.1", "Built with Llama", ("TERMS.md", "licences/llama-3.1.txt"), ["NOTICE is missing"]),
        ("llama-3.1", "Built with Llama", ("NOTICE", "licences/llama-3.1.txt"), ["TERMS.md is missing"]),
        ("llama-3.1", "Built with Llama", ("NOTICE", "TERMS.md", "licences/llama-3.txt"), ["licences/llama-3.1.txt"]),
        ("llama-3.1", "", (), ["Built with Llama", "NOTICE", "TERMS.md", "licences/llama-3.1.txt"]),
        ("qwen-2024", "Improved using Qwen.", (), []),
        ("qwen-2024", "Built with Qwen.", (), []),
        ("qwen-2024", "Qwen", (), ["'Built with Qwen' or 'Improved using Qwen'"]),
        ("apache-2.0", "", ("NOTICE", "licences/apache-2.0.txt"), []),
        ("apache-2.0", "", (), ["NOTICE", "licences/apache-2.0.txt"]),
        ("cc-by-4.0", "", (), ["NOTICE"]),
        ("cc0-1.0", "", (), []),
    ],
)
def test_what_is_handed_on_is_held_against_card_and_files(
    licence: str, card: str, files: tuple[str, ...], missing: list[str]
) -> None:
    asked = release(name="Llama-films", monthly_users=1, card=card, files=files)
    found = unmet(obligations(conditions(licence)), asked)
    assert len(found) == len(missing)
    for problem, words in zip(found, missing, strict=True):
        assert words in problem


def test_who_only_learnt_from_answers_hands_nothing_of_the_teacher_on() -> None:
    every = conditions("llama-3.1")
    assert {item.id for item in bound(every)} == {Fact.PROHIBITED_USES, Fact.USER_CAP, Fact.NAME_PREFIX}
    assert bound(conditions("gemma")) == conditions("gemma"), "a student of Gemma's output is a derivative of it"
    assert bound(conditions("mit")) == ()


def test_every_condition_of_the_registry_finds_a_place_once() -> None:
    for entry in REGISTRY.entries:
        owed = obligations((*entry.conditions, *entry.conditions))
        placed = [item for name in owed.__dataclass_fields__ for item in getattr(owed, name)]
        assert sorted(item.id for item in placed) == sorted(item.id for item in entry.conditions), entry.id
        assert type(owed).from_json(owed.to_json()) == owed
