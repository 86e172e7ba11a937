"""Every row of the table of providers and licences that the registry was made from, listed by hand: an entry exists, and
its status is of the class the table gives."""

import pytest

from tutelage.terms.model import Purpose, Status, TermsEntry
from tutelage.terms.registry import load_registry

REGISTRY = load_registry()
ALLOWED = {Status.ALLOWED, Status.CONDITIONAL}  # what handing weights on asks for is a condition
CONDITIONS = {Status.ALLOWED, Status.CONDITIONAL}
COMPETING = {Status.FORBIDDEN_FOR_COMPETING}
FORBIDDEN = {Status.FORBIDDEN}
UNKNOWN = {Status.UNKNOWN}

# (row, entry, class, purposes the table itself excepts)
ROWS = [
    ("OpenAI Services Agreement", "openai-services", COMPETING, {"classifier-only", "same-platform"}),
    ("OpenAI consumer", "openai-consumer", COMPETING, ()),
    ("OpenAI gpt-oss", "gpt-oss", ALLOWED, ()),
    ("Azure OpenAI / Foundry", "azure-openai", UNKNOWN, ()),
    ("Microsoft consumer AI services", "microsoft-consumer", FORBIDDEN, ()),
    ("Anthropic Commercial Terms, with the Usage Policy beside", "anthropic-commercial", FORBIDDEN, ()),
    ("Anthropic Usage Policy", "anthropic-usage-policy", FORBIDDEN, ()),
    ("Google general terms", "google-general", FORBIDDEN, ()),
    ("Gemini API Additional Terms", "gemini-api", COMPETING, ()),
    ("xAI Enterprise and AUP: no distilling at all", "xai-enterprise", FORBIDDEN, ()),
    ("Grok-2 weights", "grok-2", FORBIDDEN, ()),
    ("Mistral commercial", "mistral-api", CONDITIONS, ()),
    ("Mistral consumer", "mistral-consumer", CONDITIONS, ()),
    ("Mistral open weights, Apache-2.0", "mistral-open", ALLOWED, ()),
    ("Mistral open weights, MRL", "mistral-research", UNKNOWN, ()),
    ("Mistral open weights, MNPL", "mistral-non-production", UNKNOWN, ()),
    ("DeepSeek Open Platform", "deepseek-api", ALLOWED, ()),
    ("DeepSeek-R1 weights", "deepseek-r1", ALLOWED, ()),
    ("Old DeepSeek Model License 1.0", "deepseek-model-1.0", CONDITIONS, ()),
    ("Qwen Chat site", "qwen-chat", FORBIDDEN, ()),
    ("Qwen3 weights", "qwen3", ALLOWED, ()),
    ("Qwen licence 2024", "qwen-2024", CONDITIONS, ()),
    ("Tongyi Qianwen 2023", "tongyi-qianwen-2023", FORBIDDEN, ()),
    ("Alibaba Cloud Model Studio API", "alibaba-model-studio", UNKNOWN, ()),
    ("Llama 3", "llama-3", FORBIDDEN, ()),
    ("Llama 2, of which the table is not sure", "llama-2", UNKNOWN, ()),
    ("Llama 3.1", "llama-3.1", CONDITIONS, ()),
    ("Llama 3.2, not read", "llama-3.2", UNKNOWN, ()),
    ("Llama 3.3, not read", "llama-3.3", UNKNOWN, ()),
    ("Llama 4", "llama-4", CONDITIONS, ()),
    ("Meta Model API", "meta-model-api", COMPETING, ()),
    ("Gemma 1 to 3n", "gemma", CONDITIONS, ()),
    ("Gemma 4", "gemma-4", ALLOWED, ()),
    ("NVIDIA Open Model License", "nvidia-open-model", CONDITIONS, ()),
    ("NVIDIA Open Model License, Cosmos", "nvidia-cosmos", CONDITIONS, ()),
    ("Amazon Nova / Bedrock", "amazon-bedrock", UNKNOWN, {"same-platform"}),
    ("Cohere API", "cohere-api", UNKNOWN, ()),
    ("Cohere Labs weights", "cohere-labs", CONDITIONS, ()),
    ("Moonshot Kimi K2 weights", "kimi-k2", ALLOWED, ()),
    ("Kimi web service", "kimi-web", COMPETING, ()),
    ("MiniMax-M2.5 weights", "minimax-m2.5", CONDITIONS, ()),
    ("GLM-4.5", "glm-4.5", ALLOWED, ()),
    ("EXAONE 1.1-NC", "exaone-1.1-nc", FORBIDDEN, ()),
    ("OpenMDW-1.0", "openmdw-1.0", ALLOWED, ()),
    ("Apache-2.0 weights", "apache-2.0", ALLOWED, ()),
    ("MIT weights", "mit", ALLOWED, ()),
    ("Together", "together", CONDITIONS, {"competing-product"}),
    ("Fireworks", "fireworks", CONDITIONS, {"competing-product"}),
    ("OpenRouter", "openrouter", CONDITIONS, {"competing-product"}),
]


def entry(name: str) -> TermsEntry:
    found = REGISTRY.find(name)
    assert isinstance(found, TermsEntry), name
    return found


@pytest.mark.parametrize(("row", "name", "status", "excepted"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_has_an_entry_of_its_class(row: str, name: str, status: set[Status], excepted: set[str]) -> None:
    rules = {rule.purpose: rule.status for rule in entry(name).rules}
    assert {rules[purpose] for purpose in Purpose if purpose not in excepted} <= status
    for purpose in excepted:
        assert rules[Purpose(purpose)] not in status
    if status is CONDITIONS:
        assert Status.CONDITIONAL in rules.values()


@pytest.mark.parametrize(
    ("name", "purpose", "facts"),
    [
        ("llama-4", "distributed", {"name-prefix", "display", "terms-passed-on", "notice-file", "user-cap"}),
        ("llama-3.1", "distributed", {"name-prefix", "display", "terms-passed-on", "notice-file", "user-cap"}),
        ("gemma", "distributed", {"output-is-derivative", "terms-passed-on", "notice-file", "prohibited-uses"}),
        ("deepseek-model-1.0", "internal", {"output-is-derivative", "prohibited-uses"}),
        ("deepseek-model-1.0", "distributed", {"terms-passed-on"}),
        ("qwen-2024", "distributed", {"display"}),
        ("nvidia-cosmos", "distributed", {"display"}),
        ("cohere-labs", "internal", {"non-commercial", "prohibited-uses"}),
        ("kimi-k2", "distributed", {"user-cap", "notice-file"}),
        ("minimax-m2.5", "distributed", {"notice-file", "prohibited-uses"}),
        ("mistral-api", "internal", {"text-only"}),
        ("openai-services", "classifier-only", {"classifier", "not-distributed"}),
        ("openai-services", "same-platform", {"same-platform"}),
        ("openrouter", "internal", {"model-licence", "no-competing-models"}),
    ],
)
def test_conditions_are_facts_a_machine_can_hold_a_release_against(name: str, purpose: str, facts: set[str]) -> None:
    found = entry(name)
    assert facts <= {condition.id for condition in found.conditions_of(found.rule(Purpose(purpose)))}


def test_what_was_not_read_is_unknown_for_every_purpose_and_cites_no_clause() -> None:
    unread = [one for one in REGISTRY.entries if one.clauses[0].number == "not read"]
    assert len(unread) == 8
    for one in unread:
        assert all(rule.status is Status.UNKNOWN and not rule.clause for rule in one.rules), one.id
        assert not one.clauses[0].text_digest
        assert one.clauses[0].source.startswith("https://")
