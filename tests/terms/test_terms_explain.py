"""`tutelage terms explain`: a verdict for any combination, without a run file, in words and as JSON."""

import json

import pytest

from tutelage.cli.terms import explain as command
from tutelage.errors import ConfigError, DataError
from tutelage.terms.check import check
from tutelage.terms.explain import ages_days, answer, explain
from tutelage.terms.model import AcceptedRisk
from tutelage.terms.registry import load_registry

REGISTRY = load_registry()


def words(licence: str, route: str, purpose: str = "internal", today: str = "2026-11-23") -> str:
    verdict = check(REGISTRY, subject="x", licence=licence, route=route, purpose=purpose, today=today)
    return explain(verdict, REGISTRY)


def test_both_texts_speak_with_clause_source_age_and_conditions() -> None:
    text = words("llama-3.1", "mistral", "distributed")
    for part in (
        "distributed is CONDITIONAL: permitted on 2026-11-23",
        "§1.b.i",
        "§3.3",
        "https://mistral.ai/terms",
        "read 496 days before; a published version: it does not age",
        "read 108 days before; a living text: read it again after 90 days",
        "last checked 108 days ago",
        "condition name-prefix: The student's name begins with Llama. (llama-3.1)",
        "condition text-only",
        "they do not permit: nothing is left out",
    ):
        assert part in text


def test_what_would_be_permitted_and_what_would_change_it() -> None:
    text = words("", "openai")
    assert "FORBIDDEN-FOR-COMPETING: not permitted" in text
    assert "these texts permit: classifier-only, same-platform" in text
    assert "they do not permit: internal, distributed, competing-product, research" in text
    assert "what would change this: state the purpose" in text


@pytest.mark.parametrize(
    ("licence", "route", "said"),
    [("", "", "no licence was given"), ("nonesuch", "local", "'nonesuch' is not in"), ("", "together", "no licence")],
)
def test_the_unknown_is_said_to_be_unknown(licence: str, route: str, said: str) -> None:
    text = words(licence, route)
    assert "internal is UNKNOWN: not permitted" in text
    assert said in text
    assert "these texts permit: no purpose" in text


def test_ages_are_days_between_reading_and_the_day_judged_by() -> None:
    verdict = check(REGISTRY, subject="x", licence="mit", route="openai", purpose="internal", today="2026-11-24")
    assert ages_days(verdict) == {"openai-services": 94, "mit": 1}


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(licence="Apache-2.0", date="2026-11-24") == 0
    assert "internal is ALLOWED: permitted on 2026-11-24" in capsys.readouterr().out
    assert command(route="anthropic", date="2026-11-24", json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema_version"] == 1
    assert (found["permitted"], found["verdict"]["status"]) == (False, "forbidden")
    assert found["age_days"] == {"anthropic-commercial": 102}
    assert "written permission" in found["what_would_change"]
    with pytest.raises(ConfigError, match="purpose"):
        command(licence="mit", purpose="fun")
    with pytest.raises(DataError, match="later than"):
        command(licence="llama-3.1", date="2024-01-01")


def said(licence: str, route: str, purpose: str = "internal", risk: AcceptedRisk | None = None) -> str:
    verdict = check(
        REGISTRY,
        subject="the model",
        licence=licence,
        route=route,
        purpose=purpose,
        today="2026-11-24",
        accepted_risk=risk,
    )
    return answer(verdict)


def test_one_line_says_whether_why_and_what_is_to_do() -> None:
    free, bound, closed = said("mit", "local"), said("llama-3.1", "local", "distributed"), said("", "openai")
    assert free.startswith("yes: the model may be used for internal: ")
    assert "MIT License" in free and free.endswith("To do: nothing")
    assert bound.startswith("yes: ") and "To do: " in bound and "The student's name begins with Llama." in bound
    assert closed.startswith("no: the model may not be used for internal: ") and "To do: state the purpose" in closed
    risked = said("", "openai", risk=AcceptedRisk("Ada", "a reason", "a scope"))
    assert risked.startswith("yes: the model may be used for internal, at the risk that Ada accepted: ")
    assert said("", "local").startswith("no: ") and "no licence was given" in said("", "local")
    verdict = check(REGISTRY, subject="x", licence="mit", route="local", purpose="internal", today="2026-11-24")
    assert (
        answer(verdict, ["name it Llama"])
        == "no: it may be used for internal, but a condition is not met. To do: name it Llama"
    )
    assert all("\n" not in line for line in (free, bound, closed, risked))
