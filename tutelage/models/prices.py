"""What a call costs: the run file's own price first, then genai-prices; models served here cost no money."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from tutelage.config import PriceTable
from tutelage.errors import ConfigError
from tutelage.models.base import Endpoint
from tutelage.records import NUSD_PER_USD, Price, Usage


@dataclass(frozen=True, slots=True)
class PriceList:
    """Nano-USD per million tokens, with source and date."""

    input_nusd_per_mtok: int
    output_nusd_per_mtok: int
    source: str
    dated: str

    def bound_nusd(self, tokens: int) -> int:
        """The most that so many tokens can cost, of whichever kind they are."""
        return -(-tokens * max(self.input_nusd_per_mtok, self.output_nusd_per_mtok) // 1_000_000)

    def of(self, usage: Usage) -> Price:
        """Cost of one call, rounded up to a whole nano-USD. Cached tokens are priced as input: never an underestimate."""
        total = usage.prompt_tokens * self.input_nusd_per_mtok + usage.completion_tokens * self.output_nusd_per_mtok
        return Price(-(-total // 1_000_000), self.source, self.dated)


def price_list(endpoint: Endpoint, stated: PriceTable | None, today: str) -> PriceList:
    """Raises `ConfigError` when an endpoint that is not ours has no known price."""
    if stated is not None:
        return PriceList(
            _nusd(Decimal(str(stated.input_usd_per_mtok))),
            _nusd(Decimal(str(stated.output_usd_per_mtok))),
            "run file",
            stated.dated,
        )
    if endpoint.route.split(":")[0] in ("embedded", "loopback"):
        return PriceList(0, 0, f"{endpoint.route.split(':')[0]}: no money is paid", today)
    from genai_prices import Usage as Counted
    from genai_prices import calc_price

    try:
        found = calc_price(
            Counted(input_tokens=1_000_000, output_tokens=1_000_000), endpoint.model, provider_api_url=endpoint.base_url
        )
    except LookupError:
        raise ConfigError(
            f"no price is known for {endpoint.model!r} at {endpoint.route}",
            fix="state it: [teacher.price] input_usd_per_mtok, output_usd_per_mtok, dated (0 if it costs nothing)",
        ) from None
    return PriceList(_nusd(found.input_price), _nusd(found.output_price), "genai-prices", today)


def _nusd(usd: Decimal) -> int:
    return int((usd * NUSD_PER_USD).to_integral_value(ROUND_CEILING))
