"""What a call costs: the run file's own price first, then a prices.toml, then genai-prices; what is served here is free.

The bound of a call is never below its cost, whatever the provider bills of it; the cost is what its usage says, with
cached tokens and tiers by prompt length at their own prices. All sums are whole numbers: nano-USD for a million tokens.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.config import PriceTable
from tutelage.errors import ConfigError
from tutelage.models.base import Endpoint
from tutelage.models.price_files import find_price
from tutelage.records import NUSD_PER_USD, Price, Usage

BATCH = "batch"
# Batch APIs at half price, by the vendors' own pages: for models whose batch price genai-prices does not have.
HALF_FOR_BATCH = frozenset({"openai", "anthropic", "google", "mistral", "groq", "together"})
_MTOK = 1_000_000


class Rates(NamedTuple):
    """Nano-USD for a million tokens: fresh prompt tokens, answer tokens, prompt tokens read from and written to a cache,
    and the dearest a prompt token can be."""

    input: int
    output: int
    cached: int
    cache_write: int
    dearest: int


class Step(NamedTuple):
    """From prompts of more than `above` tokens on, all tokens of the call cost this."""

    above: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices of one model, with source and date. Cache prices that are not known are the input's.

    `steps` go upwards; `request_nusd` comes on top of every call that is billed; `tier` is "batch" or empty.
    """

    input_nusd_per_mtok: int
    output_nusd_per_mtok: int
    source: str
    dated: str
    cached_nusd_per_mtok: int | None = None
    cache_write_nusd_per_mtok: int | None = None
    dearest_nusd_per_mtok: int = 0
    steps: tuple[Step, ...] = ()
    request_nusd: int = 0
    tier: str = ""

    def bound_nusd(self, prompt_tokens: int, completion_tokens: int) -> int:
        """The most that a call with at most so many tokens can cost, rounded up: the dearest tier that it can reach, no
        token read from a cache, each written to one where that is dearer."""
        reached = [self._base(), *(step.rates for step in self.steps if prompt_tokens > step.above)]
        total = prompt_tokens * max(max(rates.dearest, rates.input) for rates in reached)
        total += completion_tokens * max(rates.output for rates in reached)
        return -(-total // _MTOK) + self.request_nusd

    def of(self, usage: Usage) -> Price:
        """Cost of one call, rounded up to a whole nano-USD. A call without tokens costs nothing."""
        rates = self._base()
        for step in self.steps:
            if usage.prompt_tokens > step.above:
                rates = step.rates
        written = min(usage.cache_write_tokens, usage.prompt_tokens)
        cached = min(usage.cached_tokens, usage.prompt_tokens - written)
        total = (usage.prompt_tokens - cached - written) * rates.input + usage.completion_tokens * rates.output
        total += cached * rates.cached + written * rates.cache_write
        fee = self.request_nusd if usage.prompt_tokens or usage.completion_tokens else 0
        return Price(-(-total // _MTOK) + fee, self.source, self.dated, self.tier)

    def _base(self) -> Rates:
        fresh = self.input_nusd_per_mtok
        cached = fresh if self.cached_nusd_per_mtok is None else self.cached_nusd_per_mtok
        written = fresh if self.cache_write_nusd_per_mtok is None else self.cache_write_nusd_per_mtok
        dearest = max(fresh, cached, written, self.dearest_nusd_per_mtok)
        return Rates(fresh, self.output_nusd_per_mtok, cached, written, dearest)


def price_list(
    endpoint: Endpoint, stated: PriceTable | None, today: str, *, tier: str = "", overrides: Path | None = None
) -> PriceList:
    """The prices of an endpoint on a day (`YYYY-MM-DD`), for single calls or for the `tier` "batch".

    `overrides` names a prices.toml instead of those at the usual places. Raises `ConfigError` when an endpoint that is
    not ours has no known price, and for a bad prices.toml.
    """
    assert tier in ("", BATCH)
    if stated is not None:
        return _of_table(stated, "run file", tier)
    if _is_ours(endpoint):
        return PriceList(0, 0, f"{endpoint.route.split(':')[0]}: no money is paid", today, tier=tier)
    if (found := find_price(endpoint.provider, endpoint.route, endpoint.model, overrides)) is not None:
        return _of_table(found.entry, found.source, tier)
    try:
        return _of_data(endpoint, date.fromisoformat(today), tier)
    except LookupError as error:
        why = f": {error}" if isinstance(error, _NoTextPrice) else ""
        raise ConfigError(
            f"no price is known for {endpoint.model!r} at {endpoint.route}{why}",
            fix="state it: [teacher.price] input_usd_per_mtok, output_usd_per_mtok, dated (0 if it costs nothing), "
            "or an entry in prices.toml; see docs/prices.md",
        ) from None


def context_window(endpoint: Endpoint) -> int | None:
    """The most prompt tokens that the model takes, as genai-prices has it; `None` when it is ours or nobody knows."""
    if _is_ours(endpoint):
        return None
    try:
        window: int | None = _known(endpoint).model.context_window
    except LookupError:
        return None
    return window if window and window > 0 else None


class _NoTextPrice(LookupError):
    """The model is known, but not what its text costs."""


def _is_ours(endpoint: Endpoint) -> bool:
    return endpoint.route.split(":")[0] in ("embedded", "loopback")


def _of_table(table: PriceTable, source: str, tier: str) -> PriceList:
    """As stated. Without a stated discount a batch costs what single calls cost: nobody knows which was meant."""
    share = Decimal(1)
    if tier == BATCH:
        share -= Decimal(str(table.batch_discount or 0))
        source += ", no batch discount stated" if table.batch_discount is None else f", {table.batch_discount:g} off"

    def nusd(usd: float | None) -> int | None:
        return None if usd is None else _nusd(Decimal(str(usd)) * share)

    return PriceList(
        nusd(table.input_usd_per_mtok) or 0,
        nusd(table.output_usd_per_mtok) or 0,
        source,
        table.dated,
        nusd(table.cached_input_usd_per_mtok),
        nusd(table.cache_write_usd_per_mtok),
        tier=tier,
    )


class _Known(NamedTuple):
    provider: Any
    model: Any


def _known(endpoint: Endpoint) -> _Known:
    """Provider and model in genai-prices: by the address, else by the provider's name. Date suffixes and aliases of
    models are its business. Raises `LookupError`."""
    from genai_prices.data_snapshot import get_snapshot

    data = get_snapshot()
    try:
        provider = data.find_provider(None, None, endpoint.base_url)
    except LookupError:  # terms name providers more closely than prices do: "openai-services"
        names = (endpoint.provider, endpoint.provider.split("-")[0])
        provider = next((found for name in names for found in data.providers if found.id == name), None)
        if provider is None:
            raise
    return _Known(*data.find_provider_model(endpoint.model.removeprefix("models/"), provider, None, None))


def _of_data(endpoint: Endpoint, day: date, tier: str) -> PriceList:
    """From genai-prices. Where a price depends on the hour, the dearest of the day is taken."""
    from genai_prices import __version__

    known = _known(endpoint)
    source = f"genai-prices {__version__}: {known.provider.id}/{known.model.id}"
    context = {"processing": BATCH} if tier == BATCH else None
    hours = _moments(known.model, day)
    own = any(known.model is model for model in known.provider.models)  # else it has another provider's prices
    moments = [known.model.get_prices(at, context if own else None) for at in hours]
    halved = tier == BATCH and moments == [known.model.get_prices(at) for at in hours]
    if halved and known.provider.id not in HALF_FOR_BATCH:
        halved, source = False, source + ", no batch price known"
    if len({repr(prices) for prices in moments}) > 1:
        source += ", dearest hour"
    if halved:
        source += ", half of it for batch"
    keys = ("input_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok", "output_mtok")
    above = sorted(
        {tier.start for prices in moments for key in keys for tier in getattr(getattr(prices, key), "tiers", ())}
    )
    base, *higher = (
        _rates(moments, prompt_tokens, known.model.id, halved) for prompt_tokens in (0, *(n + 1 for n in above))
    )
    fees = [prices.requests_kcount or Decimal(0) for prices in moments]
    return PriceList(
        base.input,
        base.output,
        source,
        day.isoformat(),
        base.cached,
        base.cache_write,
        base.dearest,
        tuple(map(Step, above, higher)),
        _nusd(max(fees) / 1000),
        tier,
    )


def _moments(model: Any, day: date) -> list[datetime]:
    """The start of the day and all hours at which a price of the model changes."""
    found = {datetime.combine(day, time(), UTC)}
    listed = model.prices if isinstance(model.prices, list) else []
    for priced in (*listed, *(model.price_variants or ())):
        for name in ("start_time", "end_time"):
            if (at := getattr(priced.constraint, name, None)) is not None:
                found.add(datetime.combine(day, at, at.tzinfo or UTC))
    return sorted(found)


def _rates(moments: Iterable[Any], prompt_tokens: int, model: str, halved: bool) -> Rates:
    """The dearest at any of the moments, for prompts of this length. Tokens read from a cache are not halved: with some
    providers the two discounts do not add up."""
    all_rates = []
    for prices in moments:
        fresh, output = _at(prices.input_mtok, prompt_tokens), _at(prices.output_mtok, prompt_tokens)
        if fresh is None and output is None and model.endswith(":free"):
            fresh = output = Decimal(0)
        if fresh is None or output is None:
            raise _NoTextPrice("it is known, but not at what price for text")
        output = max(output, _at(prices.output_reasoning_mtok, prompt_tokens) or Decimal(0))
        share = Decimal("0.5") if halved else Decimal(1)
        written = _at(prices.cache_write_mtok, prompt_tokens)
        longer = _at(prices.cache_write_1h_mtok, prompt_tokens)
        cached = _at(prices.cache_read_mtok, prompt_tokens)
        fresh, output = fresh * share, output * share
        written = fresh if written is None else written * share
        cached = fresh if cached is None else cached
        dearest = max(fresh, written, cached, (longer or Decimal(0)) * share)
        all_rates.append(Rates(*map(_nusd, (fresh, output, cached, written, dearest))))
    return Rates(*map(max, zip(*all_rates, strict=True)))


def _at(price: Any, prompt_tokens: int) -> Decimal | None:
    """A price that may depend on the prompt's length, for one length."""
    found = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):
        if prompt_tokens > tier.start:
            found = tier.price
    return found


def _nusd(usd: Decimal) -> int:
    return int((usd * NUSD_PER_USD).to_integral_value(ROUND_CEILING))
