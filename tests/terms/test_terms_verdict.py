"""The verdict as a record, as an error and as words; and the gate's import stays light."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.canon import canonical, digest_of
from tutelage.errors import TermsError
from tutelage.terms.check import check, combine, describe, require
from tutelage.terms.model import AcceptedRisk, Purpose, Status, Verdict
from tutelage.terms.registry import load_registry

REGISTRY = load_registry()
TODAY = "2026-11-23"
RISK = AcceptedRisk("Zoë", "it does not compete", "films")
NAMES = ["", "nonesuch", *(entry.id for entry in REGISTRY.entries)]


def ask(licence: str, route: str, purpose: str = "internal", risk: AcceptedRisk | None = None) -> Verdict:
    return check(
        REGISTRY, subject="teacher", licence=licence, route=route, purpose=purpose, today=TODAY, accepted_risk=risk
    )


@settings(max_examples=200, deadline=None)
@given(
    licence=st.sampled_from(NAMES) | st.text(max_size=20),
    route=st.sampled_from(["embedded", "local", *NAMES]) | st.text(max_size=20),
    purpose=st.sampled_from(Purpose),
    risk=st.none() | st.just(RISK),
)
def test_a_verdict_is_canonical_stable_and_sound(
    licence: str, route: str, purpose: Purpose, risk: AcceptedRisk | None
) -> None:
    verdict = ask(licence, route, purpose, risk)
    assert digest_of(verdict.to_json()) == verdict.digest == ask(licence, route, purpose, risk).digest
    assert Verdict.from_json(json.loads(canonical(verdict.to_json()))) == verdict
    assert verdict.status is max((reason.status for reason in verdict.reasons), key=lambda status: status.severity)
    assert verdict.permits == (verdict.status in (Status.ALLOWED, Status.CONDITIONAL) or risk is not None)
    assert verdict.status is ask(licence, route, purpose).status
    if verdict.status is Status.CONDITIONAL:
        assert verdict.conditions
    assert describe(verdict)


def test_the_digest_names_the_facts_it_rests_on() -> None:
    verdict = ask("Apache-2.0", "embedded")
    found = REGISTRY.by_name["apache-2.0"]
    assert verdict.decisive.entry_digest == found.digest
    assert verdict.digest != ask("mit", "embedded").digest
    assert verdict.digest != ask("Apache-2.0", "embedded", "research").digest


@pytest.mark.parametrize(
    ("licence", "route", "purpose"),
    [
        ("", "openai", "internal"),
        ("", "anthropic", "research"),
        ("", "gemini", "internal"),
        ("llama-3", "local", "distributed"),
    ],
)
def test_require_says_clause_source_and_fix(licence: str, route: str, purpose: str) -> None:
    verdict = ask(licence, route, purpose)
    with pytest.raises(TermsError) as caught:
        require(verdict)
    reason = verdict.decisive
    for part in ("teacher", purpose, reason.status, reason.entry_name, reason.number, reason.gist, reason.source):
        assert part in caught.value.message
    assert reason.checked_on in caught.value.message
    assert "accepted_risk" in caught.value.fix
    assert caught.value.exit_code == 1


def test_require_names_the_purposes_that_would_do() -> None:
    with pytest.raises(TermsError) as caught:
        require(ask("", "openai"))
    assert "classifier-only, same-platform" in caught.value.fix
    assert "does not compete" in caught.value.fix


def test_require_on_an_unknown_name_says_so_and_what_is_near() -> None:
    with pytest.raises(TermsError) as caught:
        require(ask("apache-20", "local"))
    assert "'apache-20' is not in the terms registry; did you mean apache-2.0?" in caught.value.message
    assert "add an entry" in caught.value.fix


def test_require_blames_what_stands_in_the_way_not_what_was_accepted() -> None:
    banned = ask("llama-3", "local", risk=RISK)
    unknown = ask("nonesuch", "local")
    with pytest.raises(TermsError, match="nonesuch"):
        require(combine([banned, unknown]))


@pytest.mark.parametrize(
    "verdict",
    [ask("mit", "local"), ask("gemma", "local", "distributed"), ask("", "openai", risk=RISK)],
    ids=["allowed", "conditional", "accepted"],
)
def test_require_lets_the_permitted_pass(verdict: Verdict) -> None:
    require(verdict)


def test_describe_holds_verdict_clause_source_conditions_and_way_out() -> None:
    text = describe(ask("llama-3.1", "mistral", "distributed", RISK))
    for part in (
        "CONDITIONAL, permitted",
        "§1.b.i",
        "§3.3",
        "https://mistral.ai/terms",
        "condition name-prefix: The student's name begins with Llama.",
        "condition text-only",
        "accepted risk: Zoë: it does not compete (for films)",
        "warning: Mistral AI Commercial Terms",
        "what would change this:",
    ):
        assert part in text
    assert "NOT" not in text
    assert "FORBIDDEN, not permitted" in describe(ask("llama-3", "local"))
    assert "without one: classifier-only, same-platform" in describe(ask("", "openai", risk=RISK))


def test_importing_the_gate_is_light() -> None:
    heavy = ("torch", "yaml", "pydantic", "numpy")
    code = f"import sys, tutelage.terms.check; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
