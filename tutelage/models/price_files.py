"""prices.toml: prices that a person states for some models, before those of genai-prices. The format: docs/prices.md."""

import tomllib
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from platformdirs import user_config_path

from tutelage.config import PriceTable, Table
from tutelage.errors import ConfigError
from tutelage.run_file import validate

FILE = "prices.toml"
_SEE = "see docs/prices.md for its keys"


class PriceEntry(PriceTable):
    """A `[[price]]`: for whom it holds. Both are exact, or patterns with `*` and `?`; upper and lower case are one."""

    provider: str  # id of its terms, or the host name
    model: str


class PriceFile(Table):
    price: tuple[PriceEntry, ...] = ()


class FoundPrice(NamedTuple):
    """An entry that fits, and where it is from, in words without any path."""

    entry: PriceEntry
    source: str


def find_price(provider: str, route: str, model: str, named: Path | None = None) -> FoundPrice | None:
    """The first entry that fits, in the `named` file alone or else in `./prices.toml` and then in the user's
    configuration folder. Raises `ConfigError` for a bad file, and for a named one that is missing."""
    paths = [named] if named is not None else [Path(FILE), user_config_path("tutelage") / FILE]
    for path in paths:
        if path is not named and not path.exists():
            continue
        for entry in read_prices(path).price:
            if _fits(entry.model, model) and (_fits(entry.provider, provider) or _fits(entry.provider, route)):
                return FoundPrice(entry, f"{path.name}: {entry.provider}/{entry.model}")
    return None


def read_prices(path: Path) -> PriceFile:
    """Raises `ConfigError` with the file, the key and the nearest known one."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no price file {path}", fix="write it, or leave teacher.prices out") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", fix="give a file that can be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", fix="mend the line named above") from None
    try:
        found = validate(PriceFile, _with_dates_as_text(raw), str(path))
    except ConfigError as error:
        raise ConfigError(error.message, fix=f"mend the keys named above; {_SEE}") from None
    seen: set[tuple[str, str]] = set()
    for entry in found.price:
        whom = (entry.provider.casefold(), entry.model.casefold())
        if whom in seen:
            raise ConfigError(
                f"{path}: two prices for provider {entry.provider!r}, model {entry.model!r}", fix="leave one of them"
            )
        seen.add(whom)
    return found


def _fits(pattern: str, name: str) -> bool:
    return fnmatchcase(name.casefold(), pattern.casefold())


def _with_dates_as_text(raw: dict[str, Any]) -> dict[str, Any]:
    """TOML has dates of its own; they mean the same as in quotes."""
    entries = raw.get("price")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("dated"), date):
            entry["dated"] = entry["dated"].isoformat()
    return raw
