"""Finding the price of a model: in the user's own table, else in the data of genai-prices, if that is wanted.

A shell: it reads a file and imports the extra ``prices`` when it is first asked.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import ConfigError
from ..values import ResourceKey
from .table import PICO, Price

if TYPE_CHECKING:
    from genai_prices.types import TieredPrices

    from ..values import Usage

__all__ = ["GENAI_PRICES", "PriceBook", "PricesSource", "price_book"]

GENAI_PRICES = "genai-prices"
"""The word for: only what genai-prices knows."""

PricesSource = str | os.PathLike[str] | Mapping[str, Price | Mapping[str, float]]
"""``"genai-prices"``, or a TOML file or mapping: a price per model, in dollars per million tokens; ``*`` for others."""


_KNOWN = ResourceKey("openai", "gpt-4o")
"""A model that the library knows, so that it has read all it reads when it was asked for this one."""


class PriceBook:
    """Prices by resource name; each is looked up once. An own price wins over the library's."""

    __slots__ = ("_found", "_own")

    def __init__(self, own: Mapping[str, Price]) -> None:
        self._own = dict(own)
        self._found: dict[str, Price | None] = {}

    def price(self, resource: str) -> Price | None:
        """The price of ``resource``; None where nobody knows it."""
        if resource not in self._found:
            self._found[resource] = self._look_up(resource)
        return self._found[resource]

    def dollars(self, resource: str, usage: Usage) -> float | None:
        """What requests of a usual size to ``resource`` cost that used so much together; None where nobody knows it."""
        price = self.price(resource)
        return None if price is None else replace(price, above={}).of(usage) / PICO

    def warm_up(self) -> None:
        """Import what ``price`` may need: that takes a tenth of a second."""
        if "*" not in self._own:
            _library_price(_KNOWN)

    def require(self, resource: str) -> Price:
        """The price of ``resource``. Raises ConfigError that says how to give one."""
        found = self.price(resource)
        if found is None:
            missing = "" if _library() else " (genai-prices is not installed: pip install 'headgate[prices]')"
            raise ConfigError(
                f"a budget in money needs the price of {resource}, which is not known{missing}: give "
                f"prices={{{resource!r}: {{'input': ..., 'output': ...}}}} in dollars per million tokens (on the "
                f"command line --price {resource}=IN/OUT), or a budget in tokens"
            )
        return found

    def _look_up(self, resource: str) -> Price | None:
        key = ResourceKey.parse(resource)
        for name in (*reversed(key.scopes()[1:]), "*"):
            if name in self._own:
                return self._own[name]
        return _library_price(key)


def price_book(source: PricesSource | None) -> PriceBook:
    """The prices that ``source`` states. Raises ConfigError for what cannot be meant."""
    if source is None or source == GENAI_PRICES:
        if source is not None and _library() is None:
            raise ConfigError("genai-prices is not installed: pip install 'headgate[prices]'")
        return PriceBook({})
    stated = source if isinstance(source, Mapping) else _read(Path(source))
    return PriceBook({name: _price(name, one) for name, one in stated.items()})


def _read(path: Path) -> Mapping[str, Mapping[str, float]]:
    try:
        return cast("Mapping[str, Mapping[str, float]]", tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"prices cannot be read from {str(path)!r}: {error}") from error


def _price(name: str, stated: object) -> Price:
    if isinstance(stated, Price):
        return stated
    try:
        given = dict(cast("Mapping[str, Any]", stated))
        tiers = {int(tokens): Price(**price) for tokens, price in given.pop("above", {}).items()}
        return Price(**given, above=tiers)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"prices of {name!r}: {error}; write input, output, cached_input and cache_write in dollars per million "
            "tokens, and above for long requests: such prices by a number of input tokens"
        ) from error


def _library() -> object | None:
    try:
        import genai_prices
    except ImportError:
        return None
    return genai_prices


def _library_price(key: ResourceKey) -> Price | None:
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None
    try:
        stated = calc_price(Usage(), model_ref=key.model, provider_id=key.provider).model_price
    except LookupError:
        return None
    kinds = (stated.input_mtok, stated.output_mtok, stated.cache_read_mtok, stated.cache_write_mtok)
    starts = {tier.start for price in kinds for tier in getattr(price, "tiers", ())}
    return replace(_prices(kinds, 0), above={start: _prices(kinds, start + 1) for start in starts})


def _prices(kinds: Sequence[Decimal | TieredPrices | None], read: int) -> Price:
    """What genai-prices states for requests that read so many tokens."""
    read_in, written, cached, kept = (None if price is None else _at(price, read) for price in kinds)
    return Price(read_in or 0.0, written or 0.0, cached, kept)


def _at(price: Decimal | TieredPrices, read: int) -> float:
    if isinstance(price, Decimal):
        return float(price)
    passed = [tier for tier in price.tiers if read > tier.start]
    return float(max(passed, key=lambda tier: tier.start).price if passed else price.base)
