"""The decision table: licence x route x purpose x date, over the facts that are shipped."""

from datetime import date, datetime

import pytest

from tutelage.errors import ConfigError, DataError
from tutelage.terms.check import check, combine
from tutelage.terms.model import AcceptedRisk, Purpose, Status, Verdict
from tutelage.terms.registry import load_registry

REGISTRY = load_registry()
TODAY = "2026-11-23"
RISK = AcceptedRisk("A. Person", "counsel approved it in writing", "run films only")

A, C, U = Status.ALLOWED, Status.CONDITIONAL, Status.UNKNOWN
B, F = Status.FORBIDDEN_FOR_COMPETING, Status.FORBIDDEN

# One letter a purpose, in the order of `Purpose`:
# internal, distributed, classifier-only, competing-product, research, same-platform
LETTERS = {"a": A, "c": C, "u": U, "b": B, "f": F}
TABLE = {
    # weights and data on our own machine: the licence alone speaks
    ("apache-2.0", "embedded"): "acacac",
    ("mit", "local"): "acacac",
    ("bsd-3-clause", "loopback"): "acacac",
    ("cc-by-4.0", "local"): "acacac",
    ("cc-by-nc-4.0", "local"): "cccccc",
    ("cc0-1.0", "local"): "aaaaaa",
    ("own", "local"): "cccccc",
    ("llama-2", "embedded"): "uuuuuu",
    ("llama-3", "embedded"): "ffffff",
    ("llama-3.1", "embedded"): "cccccc",
    ("llama-3.2", "embedded"): "uuuuuu",
    ("llama-3.3", "embedded"): "uuuuuu",
    ("llama-4", "embedded"): "cccccc",
    ("gemma", "local"): "cccccc",
    ("gemma-4", "local"): "acacac",
    ("deepseek-r1", "embedded"): "acacac",
    ("deepseek-model-1.0", "embedded"): "cccccc",
    ("qwen3", "embedded"): "acacac",
    ("qwen-2024", "embedded"): "acacac",
    ("tongyi-qianwen-2023", "embedded"): "ffffff",
    ("gpt-oss", "embedded"): "acacac",
    ("grok-2", "embedded"): "ffffff",
    ("mistral-open", "embedded"): "acacac",
    ("mistral-research", "embedded"): "uuuuuu",
    ("mistral-non-production", "embedded"): "uuuuuu",
    ("nvidia-open-model", "embedded"): "acacac",
    ("nvidia-cosmos", "embedded"): "acacac",
    ("cohere-labs", "embedded"): "cccccc",
    ("kimi-k2", "embedded"): "acacac",
    ("minimax-m2.5", "embedded"): "cccccc",
    ("glm-4.5", "embedded"): "acacac",
    ("exaone-1.1-nc", "embedded"): "ffffff",
    ("openmdw-1.0", "embedded"): "acacac",
    # a provider's own model: its terms alone speak
    ("", "openai-services"): "bbcbbc",
    ("", "openai-consumer"): "bbbbbb",
    ("", "azure-openai"): "uuuuuu",
    ("", "microsoft-consumer"): "ffffff",
    ("", "anthropic-commercial"): "ffffff",
    ("", "anthropic-usage-policy"): "ffffff",
    ("", "google-general"): "ffffff",
    ("", "gemini-api"): "bbbbbb",
    ("", "xai-enterprise"): "ffffff",
    ("", "mistral-api"): "cccccc",
    ("", "mistral-consumer"): "cccccc",
    ("", "deepseek-api"): "aaaaaa",
    ("", "qwen-chat"): "ffffff",
    ("", "alibaba-model-studio"): "uuuuuu",
    ("", "meta-model-api"): "bbbbbb",
    ("", "amazon-bedrock"): "uuuuuc",
    ("", "cohere-api"): "uuuuuu",
    ("", "kimi-web"): "bbbbbb",
    # a host of other people's models: without their licence nothing is known but its own ban
    ("", "together"): "uuubuu",
    ("", "fireworks"): "uuubuu",
    ("", "openrouter"): "uuubuu",
    ("apache-2.0", "together"): "cccbcc",
    ("llama-3.1", "fireworks"): "cccbcc",
    ("llama-3", "together"): "ffffff",
    ("llama-3.3", "openrouter"): "uuubuu",
    ("deepseek-r1", "openrouter"): "cccbcc",
    ("qwen3", "alibaba-model-studio"): "uuuuuu",  # free weights, and a host whose terms nobody read
    # both speak: the stricter wins
    ("gpt-oss", "openai-services"): "bbcbbc",
    ("deepseek-r1", "deepseek-api"): "acacac",
    ("llama-3", "deepseek-api"): "ffffff",
    ("llama-3.1", "mistral-api"): "cccccc",
    ("apache-2.0", "anthropic-commercial"): "ffffff",
    # names that are not known, on either side or both, empty ones, and names asked for on the wrong side
    ("nonesuch", "embedded"): "uuuuuu",
    ("", "embedded"): "uuuuuu",
    ("", "nonesuch.example"): "uuuuuu",
    ("", ""): "uuuuuu",
    ("nonesuch", "nonesuch.example"): "uuuuuu",
    ("apache-2.0", "nonesuch.example"): "uuuuuu",
    ("apache-2.0", ""): "uuuuuu",
    ("nonesuch", "deepseek-api"): "uuuuuu",
    ("nonesuch", "openai-services"): "bbubbu",
    ("nonesuch", "anthropic-commercial"): "ffffff",
    ("openai-services", "embedded"): "uuuuuu",
    ("deepseek-api", "local"): "uuuuuu",
    ("", "mit"): "uuuuuu",
    ("", "llama-3"): "uuuuuu",
    ("mit", "apache-2.0"): "uuuuuu",
}
CASES = [
    (licence, route, purpose, LETTERS[letter])
    for (licence, route), letters in TABLE.items()
    for purpose, letter in zip(Purpose, letters, strict=True)
]
OWN = ("embedded", "local", "loopback")
HOSTS = ("together", "fireworks", "openrouter")


def ask(
    licence: str, route: str, purpose: str = "internal", today: str | date = TODAY, **more: AcceptedRisk
) -> Verdict:
    return check(REGISTRY, subject="teacher", licence=licence, route=route, purpose=purpose, today=today, **more)


@pytest.mark.parametrize(("licence", "route", "purpose", "status"), CASES)
def test_table(licence: str, route: str, purpose: Purpose, status: Status) -> None:
    verdict = ask(licence, route, purpose)
    assert verdict.status is status
    assert verdict.permits == (status in (A, C))
    assert bool(verdict.conditions) == any(reason.status is C for reason in verdict.reasons)
    assert (purpose in verdict.permitted_purposes) == verdict.permits
    assert len(verdict.reasons) == (2 if (licence and route not in OWN) or route in HOSTS else 1)
    for reason in verdict.reasons:
        assert bool(reason.number) == (reason.status is not U)
        assert reason.source.startswith("https://") == bool(reason.entry)


def test_the_table_is_wide() -> None:
    assert len(CASES) >= 450


def test_the_table_covers_every_entry() -> None:
    assert {name for pair in TABLE for name in pair} >= {entry.id for entry in REGISTRY.entries}


@pytest.mark.parametrize(
    ("licence", "route", "entry"),
    [
        ("Apache-2.0", "embedded", "apache-2.0"),
        ("APACHE-2.0", "Embedded", "apache-2.0"),
        ("  Apache   License 2.0 ", "LOCAL", "apache-2.0"),
        ("MIT", "local", "mit"),
        ("BSD-3-Clause", "local", "bsd-3-clause"),
        ("CC-BY-4.0", "local", "cc-by-4.0"),
        ("CC0-1.0", "local", "cc0-1.0"),
        ("own", "local", "own"),
        ("llama3", "local", "llama-3"),
        ("llama3.1", "local", "llama-3.1"),
        ("openai/gpt-oss-20B", "local", "gpt-oss"),
        ("deepseek-ai/DeepSeek-R1", "local", "deepseek-r1"),
        ("", "openai", "openai-services"),
        ("", "api.openai.com", "openai-services"),
        ("", "API.Anthropic.com", "anthropic-commercial"),
        ("", "generativelanguage.googleapis.com", "gemini-api"),
        ("", "api.mistral.ai", "mistral-api"),
        ("", "DeepSeek", "deepseek-api"),
    ],
)
def test_names_and_aliases(licence: str, route: str, entry: str) -> None:
    assert ask(licence, route).decisive.entry == entry


@pytest.mark.parametrize(
    ("licence", "route", "hint"),
    [
        ("", "embedded", "no licence was given"),
        ("   ", "local", "no licence was given"),
        ("apache2.0", "embedded", "did you mean apache-2.0"),
        ("GPL-9.9", "embedded", "'GPL-9.9' is not in"),
        ("Apache-2.0 OR MIT", "embedded", "is not in"),
        ("llama-3.4", "embedded", "did you mean llama-3"),
        ("llama-3.3", "embedded", "nothing read of Llama 3.3 Community License settles"),
        ("mnpl", "embedded", "was not read"),
        ("", "azure", "were not read"),
        ("", "api.example.com", "'api.example.com' is not in"),
        ("", "openai-service", "did you mean openai-services"),
        ("", "", "no licence was given"),
        ("apache-2.0", "api.example.com", "is not in"),  # a free licence grants no access
        ("apache-2.0", "", "no licence was given"),
        ("nonesuch", "deepseek-api", "'nonesuch' is not in"),
        ("openai-services", "local", "is not in"),  # a provider's terms are no licence
        ("", "mit", "is not in"),  # and a licence is no provider
        ("None", "embedded", "is not in"),
    ],
)
@pytest.mark.parametrize("purpose", [Purpose.INTERNAL, Purpose.COMPETING_PRODUCT])
def test_unknown_is_never_allowed(licence: str, route: str, hint: str, purpose: Purpose) -> None:
    verdict = ask(licence, route, purpose)
    assert verdict.status is U
    assert not verdict.permits
    assert verdict.permitted_purposes == ()
    assert hint in verdict.decisive.gist


@pytest.mark.parametrize(
    ("licence", "route", "hint"),
    [
        ("", "openrouter.ai", "no licence was given"),
        ("   ", "together", "no licence was given"),
        ("nonesuch", "fireworks", "'nonesuch' is not in"),
        ("llama-2", "api.together.xyz", "was not read"),
    ],
)
def test_a_host_route_needs_the_models_licence_too(licence: str, route: str, hint: str) -> None:
    verdict = ask(licence, route)
    assert verdict.status is U
    assert verdict.permitted_purposes == ()
    assert hint in verdict.decisive.gist
    assert ask("mit", route).permits


def test_a_known_ban_outranks_an_unknown() -> None:
    verdict = ask("nonesuch", "anthropic")
    assert verdict.status is F
    assert [reason.status for reason in verdict.reasons] == [F, U]


@pytest.mark.parametrize(
    ("licence", "route", "today", "stale"),
    [
        ("", "openai", "2026-08-22", False),
        ("", "openai", "2026-11-20", False),  # 90 days
        ("", "openai", "2026-11-21", True),  # 91 days
        ("", "openai", "2031-01-01", True),
        ("", "mistral", "2026-11-05", False),
        ("", "mistral", "2026-11-06", True),
        ("", "deepseek", "2026-04-29", False),
        ("", "deepseek", TODAY, True),
        ("gemma", "local", TODAY, True),  # a living page, not a numbered version
        ("llama-3.1", "local", "2036-01-01", False),
        ("apache-2.0", "embedded", TODAY, False),
        ("mit", "embedded", "2099-01-01", False),
        ("gpt-oss", "deepseek", TODAY, True),
        ("", "azure", "2026-12-23", False),
        ("", "azure", "2026-12-24", True),  # 91 days after nothing was read
        ("mit", "openrouter", "2026-07-30", False),
        ("mit", "openrouter", "2026-07-31", True),  # the licence does not age, the host's terms do
        ("", "anthropic", "2026-11-12", False),
        ("", "anthropic", "2026-11-13", True),
        ("llama-4", "local", "2036-01-01", False),
        ("llama-2", "local", "2036-01-01", False),
        ("minimax-m2.5", "local", "2036-01-01", False),
    ],
)
def test_providers_age_and_versioned_licences_do_not(licence: str, route: str, today: str, stale: bool) -> None:
    verdict = ask(licence, route, today=today)
    assert any("days ago" in warning for warning in verdict.warnings) == stale
    assert verdict.status is ask(licence, route, today="2026-11-23").status


@pytest.mark.parametrize(
    ("licence", "route", "today", "field"),
    [
        ("", "openai", "2026-08-21", "checked_on"),
        ("", "openai", "2025-12-31", "effective"),
        ("", "deepseek", "2026-04-28", "effective"),  # checked before it took effect
        ("llama-3.1", "local", "2024-07-22", "effective"),
        ("apache-2.0", "local", "2003-12-31", "effective"),
        ("", "xai", "2026-08-13", "effective"),
        ("", "kimi-web", "2025-12-09", "checked_on"),
        ("", "meta-model-api", "2026-08-20", "effective"),
        ("", "meta-model-api", "2026-08-21", "checked_on"),
        ("minimax-m2.5", "local", "2026-02-12", "effective"),
        ("nonesuch", "openrouter", "2026-04-30", "checked_on"),
    ],
)
def test_terms_say_nothing_about_a_day_before_them(licence: str, route: str, today: str, field: str) -> None:
    with pytest.raises(DataError, match=f"{field} .* is later than {today}"):
        ask(licence, route, today=today)


def test_a_slow_clock_only_warns_on_a_published_licence() -> None:
    verdict = ask("apache-2.0", "embedded", today="2025-01-01")
    assert verdict.permits
    assert "later than today by this clock" in verdict.warnings[0]


@pytest.mark.parametrize(
    "today",
    ["", "yesterday", "2026-02-30", "2026-13-01", "20261123", "2026-W48-1", "23.11.2026", "2026-11-23T00:00:00"],
)
def test_a_malformed_day_is_refused(today: str) -> None:
    with pytest.raises(DataError, match="today"):
        ask("mit", "local", today=today)


def test_a_day_may_be_a_date_but_not_a_moment() -> None:
    assert ask("mit", "local", today=date(2026, 11, 23)) == ask("mit", "local")
    with pytest.raises(DataError, match="today"):
        ask("mit", "local", today=datetime(2026, 11, 23, 12))


@pytest.mark.parametrize(
    ("licence", "route", "purpose", "status"),
    [
        ("", "openai", "internal", B),
        ("", "openai", "competing-product", B),
        ("", "anthropic", "research", F),
        ("llama-3", "embedded", "distributed", F),
        ("nonesuch", "embedded", "internal", U),
        ("nonesuch", "api.example.com", "internal", U),
        ("", "", "internal", U),
    ],
)
def test_an_accepted_risk_permits_but_changes_no_status(licence: str, route: str, purpose: str, status: Status) -> None:
    without = ask(licence, route, purpose)
    verdict = ask(licence, route, purpose, accepted_risk=RISK)
    assert not without.permits
    assert verdict.permits
    assert verdict.status is without.status is status
    assert verdict.accepted_risks == (RISK,)
    assert all(reason.accepted_by == "A. Person" for reason in verdict.reasons if not reason.status.permits)
    assert any("A. Person accepted a risk" in w and status in w and RISK.reason in w for w in verdict.warnings)


def test_a_needless_accepted_risk_is_kept_and_said_to_be_needless() -> None:
    verdict = ask("mit", "local", accepted_risk=RISK)
    assert verdict.status is A
    assert verdict.accepted_risks == (RISK,)
    assert verdict.reasons[0].accepted_by == ""
    assert "anyway" in verdict.warnings[-1]


@pytest.mark.parametrize("blank", ["who", "reason", "scope"])
@pytest.mark.parametrize("value", ["", "  "])
def test_a_risk_needs_name_reason_and_scope(blank: str, value: str) -> None:
    risk = AcceptedRisk(**{"who": "w", "reason": "r", "scope": "s", blank: value})
    with pytest.raises(ConfigError, match=f"accepted_risk.{blank}"):
        ask("mit", "local", accepted_risk=risk)


@pytest.mark.parametrize("purpose", ["", "Internal", "fun", "classifier_only"])
def test_an_unknown_purpose_is_refused(purpose: str) -> None:
    with pytest.raises(ConfigError, match="purpose"):
        ask("mit", "local", purpose)


def test_an_empty_subject_is_refused() -> None:
    with pytest.raises(ConfigError):
        check(REGISTRY, subject=" ", licence="mit", route="local", purpose="internal", today=TODAY)


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (("apache-2.0", "embedded"), ("cc0-1.0", "local"), A),
        (("apache-2.0", "embedded"), ("own", "local"), C),
        (("own", "local"), ("apache-2.0", "embedded"), C),
        (("apache-2.0", "embedded"), ("nonesuch", "local"), U),
        (("", "openai"), ("nonesuch", "local"), B),
        (("", "openai"), ("llama-3", "local"), F),
        (("llama-3", "local"), ("", "openai"), F),
    ],
)
def test_two_subjects_the_stricter_wins(first: tuple[str, str], second: tuple[str, str], status: Status) -> None:
    parts = [
        check(REGISTRY, subject=name, licence=pair[0], route=pair[1], purpose="internal", today=TODAY)
        for name, pair in (("teacher", first), ("data", second))
    ]
    whole = combine(parts)
    assert whole.status is status is max((part.status for part in parts), key=lambda one: one.severity)
    assert whole.reasons[0].status is status
    assert {reason.subject for reason in whole.reasons} == {"teacher", "data"}
    assert whole.permits == all(part.permits for part in parts)
    assert set(whole.permitted_purposes) == set(parts[0].permitted_purposes) & set(parts[1].permitted_purposes)
    assert set(whole.conditions) == {condition for part in parts for condition in part.conditions}
    assert whole.subject == "teacher + data"


def test_a_risk_covers_only_the_subject_it_was_accepted_for() -> None:
    teacher = ask("", "openai", accepted_risk=RISK)
    data = check(REGISTRY, subject="data", licence="nonesuch", route="local", purpose="internal", today=TODAY)
    whole = combine([teacher, data])
    assert not whole.permits
    assert whole.decisive.subject == "data"
    assert whole.accepted_risks == (RISK,)


def test_combining_needs_verdicts_on_one_purpose_and_day() -> None:
    with pytest.raises(ConfigError):
        combine([])
    with pytest.raises(ConfigError, match="differ"):
        combine([ask("mit", "local"), ask("mit", "local", "research")])
    with pytest.raises(ConfigError, match="differ"):
        combine([ask("mit", "local"), ask("mit", "local", today="2026-11-24")])
