"""Prices: against genai-prices itself, tiers, caches, batches, files of one's own; a bound is never below the cost."""

from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from tutelage.config import PriceTable
from tutelage.errors import ConfigError
from tutelage.models import price_files
from tutelage.models.base import Endpoint
from tutelage.models.prices import PriceList, Rates, Step, context_window, price_list
from tutelage.records import Usage

TODAY = "2026-11-25"
OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta"
WHOLE = Usage(1_000_000, 0, 0)
counts = st.integers(0, 2_000_000)
nusd = st.integers(0, 10**11)


def at(url: str, model: str, provider: str = "") -> Endpoint:
    return Endpoint(url, url.split("/")[2], provider, model, "")


@pytest.fixture(autouse=True)
def no_files_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(price_files, "user_config_path", lambda name: tmp_path / "home" / name)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


ENTRY = """
[[price]]
provider = "{provider}"
model = "{model}"
input_usd_per_mtok = {usd}
output_usd_per_mtok = 4
dated = 2026-11-01
"""


def test_nobody_knows_the_price() -> None:
    with pytest.raises(ConfigError, match=r"no price is known for 'nobody-knows-this' at api\.example\.test"):
        price_list(at("https://api.example.test/v1", "nobody-knows-this", "x"), None, TODAY)
    with pytest.raises(ConfigError, match="not at what price for text"):
        price_list(at(OPENAI, "text-embedding-3-large"), None, TODAY)
    with pytest.raises(ConfigError, match="not at what price for text"):
        price_list(at("https://api.cerebras.ai/v1", "qwen-3-coder-480b"), None, TODAY)


def test_the_run_files_price_comes_first() -> None:
    stated = PriceTable(input_usd_per_mtok=0.15, output_usd_per_mtok=0.6, dated="2026-11-01")
    prices = price_list(at(OPENAI, "o3"), stated, "")
    assert (prices.input_nusd_per_mtok, prices.output_nusd_per_mtok, prices.dated, prices.source) == (
        150_000_000, 600_000_000, "2026-11-01", "run file",
    )  # fmt: skip
    assert price_list(Endpoint("http://127.0.0.1:1/v1", "loopback", "x", "m", ""), stated, "").output_nusd_per_mtok


def test_models_served_here_are_free() -> None:
    write(Path("prices.toml"), ENTRY.format(provider="*", model="*", usd=3))
    for route in ("embedded", "loopback", "loopback:8000"):
        prices = price_list(Endpoint("http://127.0.0.1:1/v1", route, "x", "gpt-4o", ""), None, TODAY)
        assert prices.bound_nusd(10**9, 10**9) == prices.of(Usage(10**9, 0, 10**9)).cost_nusd == 0
        assert context_window(Endpoint("http://127.0.0.1:1/v1", route, "openai", "gpt-4o", "")) is None


@pytest.mark.parametrize(
    ("url", "model", "provider", "known_as", "usd"),
    [
        (OPENAI, "gpt-4o-mini", "", "openai/gpt-4o-mini", "0.15"),
        (OPENAI, "gpt-4o-mini-2024-07-18", "", "openai/gpt-4o-mini", "0.15"),
        (OPENAI, "gpt-4o-2024-05-13", "", "openai/gpt-4o-2024-05-13", "5"),
        (OPENAI, "ft:gpt-4o-mini-2024-07-18:team::x", "", "openai/ft:gpt-4o-mini", "0.3"),
        (ANTHROPIC, "claude-sonnet-4-5-20250929", "", "anthropic/claude-sonnet-4-5", "3"),
        (GOOGLE, "models/gemini-2.5-flash", "", "google/gemini-2.5-flash", "0.3"),
        ("https://team.openai.azure.com/openai", "gpt-4o", "azure-openai", "azure/gpt-4o", "2.5"),
        ("https://proxy.example/v1", "gpt-4o", "openai-services", "openai/gpt-4o", "2.5"),
        ("https://proxy.example/v1", "gpt-4o", "azure-openai", "azure/gpt-4o", "2.5"),
        ("https://openrouter.ai/api/v1", "deepseek/deepseek-v3-base:free", "", "openrouter/deepseek/deepseek-v3-base:free", "0"),
    ],
)  # fmt: skip
def test_models_are_found(url: str, model: str, provider: str, known_as: str, usd: str) -> None:
    prices = price_list(at(url, model, provider), None, TODAY)
    assert prices.source == f"genai-prices {genai_prices.__version__}: {known_as}"
    assert prices.dated == TODAY
    assert prices.input_nusd_per_mtok == Decimal(usd) * 10**9


def test_an_address_that_is_known_is_not_overruled_by_a_name() -> None:
    with pytest.raises(ConfigError):
        price_list(at(ANTHROPIC, "gpt-4o", "openai"), None, TODAY)


def test_prices_are_those_of_the_day() -> None:
    assert price_list(at(OPENAI, "o3"), None, "2025-06-09").input_nusd_per_mtok == 10 * 10**9
    assert price_list(at(OPENAI, "o3"), None, "2025-06-10").input_nusd_per_mtok == 2 * 10**9


def test_the_dearest_hour_counts() -> None:
    prices = price_list(at("https://api.deepseek.com", "deepseek-v4-pro"), None, TODAY)
    assert (prices.input_nusd_per_mtok, prices.output_nusd_per_mtok) == (1_320_000_000, 3_960_000_000)
    assert prices.source.endswith("dearest hour")


ADDRESSES = {
    "openai": OPENAI, "anthropic": ANTHROPIC, "google": GOOGLE, "mistral": "https://api.mistral.ai/v1",
    "groq": "https://api.groq.com/openai/v1", "x-ai": "https://api.x.ai/v1",
}  # fmt: skip
WHEN = datetime(2026, 11, 25, tzinfo=UTC)
BATCH = {"processing": "batch"}
DATA = get_snapshot()


def sold_by_the_token() -> list[tuple[str, str, bool]]:
    """Provider, model and whether as a batch: all models of text that are found under their own name."""
    found = []
    for provider in DATA.providers:
        for model in provider.models if provider.id in ADDRESSES else ():
            prices, batch = model.get_prices(WHEN), model.get_prices(WHEN, BATCH)
            if prices.input_mtok is None or prices.output_mtok is None or provider.find_model(model.id) is not model:
                continue
            found += [(provider.id, model.id, False)] + [(provider.id, model.id, True)] * (prices != batch)
    return found


SOLD = sold_by_the_token()


def test_enough_models_are_compared() -> None:
    assert len(SOLD) > 250
    assert sum(batch for _, _, batch in SOLD) > 60


@given(st.sampled_from(SOLD), counts, counts, counts, counts)
def test_costs_are_those_of_genai_prices(
    sold: tuple[str, str, bool], prompt: int, cached: int, written: int, completion: int
) -> None:
    named, name, batch = sold
    context = BATCH if batch else None
    provider, model = DATA.find_provider_model(name, None, named, None)
    prices = price_list(at(ADDRESSES[named], name), None, TODAY, tier="batch" if batch else "")
    assert prices.source.endswith(f"{named}/{name}")
    written = min(written, prompt) if model.get_prices(WHEN, context).cache_write_mtok is not None else 0
    cached = min(cached, prompt - written)
    usage = genai_prices.Usage(
        input_tokens=prompt, cache_read_tokens=cached, cache_write_tokens=written, output_tokens=completion
    )
    theirs = model.calc_price(usage, provider, genai_request_timestamp=WHEN, price_context=context).total_price
    ours = prices.of(Usage(prompt, cached, completion, 0, written)).cost_nusd
    fee = prices.request_nusd if not prompt and not completion else 0
    assert ours + fee == int((theirs * 10**9).to_integral_value(ROUND_CEILING))
    assert ours <= prices.bound_nusd(prompt, completion)


def test_batch_prices() -> None:
    listed = price_list(at(OPENAI, "gpt-4o-mini"), None, TODAY, tier="batch")
    assert (listed.input_nusd_per_mtok, listed.output_nusd_per_mtok) == (75_000_000, 300_000_000)
    assert listed.of(WHOLE).tier == "batch"
    model = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
    single = price_list(at("https://api.together.xyz/v1", model), None, TODAY)
    halved = price_list(at("https://api.together.xyz/v1", model), None, TODAY, tier="batch")
    assert 2 * halved.input_nusd_per_mtok == single.input_nusd_per_mtok
    assert halved.source.endswith("half of it for batch") and not single.source.endswith("batch")
    full = price_list(at("https://api.deepseek.com", "deepseek-v3.2"), None, TODAY, tier="batch")
    assert full.input_nusd_per_mtok == 228_800_000
    assert full.source.endswith("no batch price known")


def test_a_halved_price_leaves_cached_tokens_at_theirs() -> None:
    """Gemini: the discounts for a cache and for a batch do not add up."""
    early = "2026-10-01"  # before genai-prices has batch prices
    single = price_list(at(GOOGLE, "gemini-2.5-flash"), None, early)
    halved = price_list(at(GOOGLE, "gemini-2.5-flash"), None, early, tier="batch")
    assert 2 * halved.of(WHOLE).cost_nusd == single.of(WHOLE).cost_nusd
    all_cached = Usage(1_000_000, 1_000_000, 0)
    assert halved.of(all_cached).cost_nusd == single.of(all_cached).cost_nusd > 0


def test_stated_discounts() -> None:
    table = PriceTable(
        input_usd_per_mtok=2, output_usd_per_mtok=4, cached_input_usd_per_mtok=1, cache_write_usd_per_mtok=3,
        batch_discount=0.25, dated="2026-11-01",
    )  # fmt: skip
    usage = Usage(3_000_000, 1_000_000, 1_000_000, 500_000, 1_000_000)
    assert price_list(at(OPENAI, "m"), table, TODAY).of(usage).cost_nusd == (2 + 1 + 3 + 4) * 10**9
    assert price_list(at(OPENAI, "m"), table, TODAY, tier="batch").of(usage).cost_nusd == 7_500_000_000
    plain = table.model_copy(update={"batch_discount": None})
    prices = price_list(at(OPENAI, "m"), plain, TODAY, tier="batch")
    assert prices.input_nusd_per_mtok == 2 * 10**9
    assert prices.source == "run file, no batch discount stated"


def test_a_tier_holds_for_the_whole_call() -> None:
    prices = price_list(at(GOOGLE, "gemini-2.5-pro"), None, TODAY)
    below, above = prices.of(Usage(200_000, 0, 1000)).cost_nusd, prices.of(Usage(200_001, 0, 1000)).cost_nusd
    assert below == 200_000 * 1250 + 1000 * 10_000
    assert above == 200_001 * 2500 + 1000 * 15_000
    assert prices.bound_nusd(200_000, 1000) == below
    assert prices.bound_nusd(200_001, 1000) == above


def test_a_fee_for_each_request() -> None:
    prices = price_list(at("https://api.perplexity.ai", "sonar-pro"), None, TODAY)
    assert prices.of(Usage(1, 0, 0)).cost_nusd == 3000 + 14_000_000
    assert prices.of(Usage(0, 0, 0)).cost_nusd == 0
    assert prices.bound_nusd(1, 0) >= 14_003_000


@st.composite
def lists(draw: st.DrawFn) -> PriceList:
    rates = st.builds(Rates, nusd, nusd, nusd, nusd, nusd)
    steps = [
        Step(above, made._replace(dearest=max(made[0], *made[2:]))) for above in sorted(draw(st.sets(counts, max_size=3)))
        for made in (draw(rates),)
    ]  # fmt: skip
    some = st.none() | nusd
    fee = draw(st.integers(0, 10**7))
    return PriceList(draw(nusd), draw(nusd), "s", "d", draw(some), draw(some), draw(nusd), tuple(steps), fee)


@given(lists(), counts, counts, counts, counts, counts, counts)
def test_a_bound_is_never_below_the_cost(prices, prompt, more, cached, written, completion, longer) -> None:
    cost = prices.of(Usage(prompt, cached, completion, 0, written)).cost_nusd
    assert 0 <= cost <= prices.bound_nusd(prompt + more, completion + longer)


def test_costs_are_rounded_up() -> None:
    prices = PriceList(1, 1, "s", "d")
    assert prices.of(Usage(1, 0, 0)).cost_nusd == 1
    assert prices.of(Usage(1_000_000, 0, 1)).cost_nusd == 2
    assert prices.of(Usage(0, 0, 0)).cost_nusd == 0


def test_context_windows() -> None:
    assert context_window(at(ANTHROPIC, "claude-sonnet-4-5-20250929")) == 200_000
    assert context_window(at(OPENAI, "gpt-nobody-knows")) is None
    assert context_window(at("https://api.example.test/v1", "gpt-4o")) is None


def test_own_files_in_their_order(tmp_path: Path) -> None:
    home = write(tmp_path / "home" / "tutelage" / "prices.toml", ENTRY.format(provider="*", model="gpt-*", usd=7))
    asked = at(OPENAI, "GPT-4o", "openai-services")
    assert price_list(asked, None, TODAY).input_nusd_per_mtok == 7 * 10**9
    here = write(Path("prices.toml"), ENTRY.format(provider="Openai-*", model="gpt-4o", usd=5))
    found = price_list(asked, None, TODAY)
    assert (found.input_nusd_per_mtok, found.dated) == (5 * 10**9, "2026-11-01")
    assert found.source == "prices.toml: Openai-*/gpt-4o"
    assert price_list(at(OPENAI, "gpt-4o-mini"), None, TODAY).input_nusd_per_mtok == 7 * 10**9
    named = write(tmp_path / "mine.toml", ENTRY.format(provider="api.openai.com", model="gpt-4o", usd=3))
    assert price_list(asked, None, TODAY, overrides=named).source == "mine.toml: api.openai.com/gpt-4o"
    assert price_list(at(OPENAI, "o3"), None, TODAY, overrides=named).source.startswith("genai-prices")
    here.unlink()
    home.unlink()
    assert price_list(at(OPENAI, "gpt-4o"), None, TODAY).source.startswith("genai-prices")


def test_the_first_entry_that_fits(tmp_path: Path) -> None:
    text = ENTRY.format(provider="*", model="gpt-4o", usd=1) + ENTRY.format(provider="*", model="*", usd=2)
    path = write(tmp_path / "p.toml", text)
    assert price_list(at(OPENAI, "gpt-4o"), None, TODAY, overrides=path).input_nusd_per_mtok == 10**9
    assert price_list(at(OPENAI, "gpt-4"), None, TODAY, overrides=path).input_nusd_per_mtok == 2 * 10**9


GOOD = ENTRY.format(provider="a", model="b", usd=1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD + "cached_inptu_usd_per_mtok = 1", r"did you mean cached_input_usd_per_mtok\?"),
        (GOOD.replace("[[price]]", "[[prices]]"), r"unknown key prices \(did you mean price\?\)"),
        (GOOD.replace("model =", "# "), r"missing key price\.0\.model"),
        (GOOD.replace("= 4", "= -4"), r"price\.0\.output_usd_per_mtok = -4"),
        (GOOD.replace("= 4", "= inf"), r"price\.0\.output_usd_per_mtok"),
        (GOOD.replace("= 4", '= "dear"'), r"price\.0\.output_usd_per_mtok"),
        (GOOD + "batch_discount = 50", r"price\.0\.batch_discount = 50"),
        (GOOD.replace("2026-11-01", '"yesterday"'), r"price\.0\.dated"),
        (GOOD + GOOD.replace('"a"', '"A"'), "two prices for provider 'A'"),
        ("price = 3", "price"),
        ("price = [3]", "price"),
        ("[[price]", "not valid TOML"),
        ("x = " + "[" * 100_000, "not valid TOML"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "prices.toml", text)
    with pytest.raises(ConfigError, match=problem) as caught:
        price_list(at(OPENAI, "gpt-4o"), None, TODAY, overrides=path)
    assert str(path) in caught.value.message and caught.value.fix


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no price file"):
        price_list(at(OPENAI, "gpt-4o"), None, TODAY, overrides=tmp_path / "none.toml")
    (tmp_path / "p.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        price_list(at(OPENAI, "gpt-4o"), None, TODAY, overrides=tmp_path / "p.toml")
