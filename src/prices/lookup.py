"""Finding the price of a model: in the user's own table, else in the data of genai-prices, if that is wanted.

A shell: it reads a file and imports the extra ``prices`` when it is first asked. What genai-prices states for requests
of a usual size is taken; it has higher prices for very long ones with some models.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import ConfigError
from ..values import ResourceKey
from .table import Price

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

__all__ = ["GENAI_PRICES", "PriceBook", "PricesSource", "price_book"]

GENAI_PRICES = "genai-prices"
"""The word for: only what genai-prices knows."""

PricesSource = str | os.PathLike[str] | Mapping[str, Price | Mapping[str, float]]
"""``"genai-prices"``, or a TOML file or mapping: a price per model, in dollars per million tokens; ``*`` for others."""


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

    def require(self, resource: str) -> Price:
        """The price of ``resource``. Raises ConfigError that says how to give one."""
        found = self.price(resource)
        if found is None:
            missing = "" if _library() else " (genai-prices is not installed: pip install 'headgate[prices]')"
            raise ConfigError(
                f"a budget in money needs the price of {resource}, which is not known{missing}: give "
                f"prices={{{resource!r}: {{'input': ..., 'output': ...}}}} in dollars per million tokens, or a budget "
                "in tokens"
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
        return Price(**cast("Mapping[str, float]", stated))
    except (TypeError, ConfigError) as error:
        raise ConfigError(
            f"prices of {name!r}: {error}; write input, output and cached_input in dollars per million tokens"
        ) from error


def _library() -> object | None:
    try:
        import genai_prices
    except ImportError:
        return None
    return genai_prices


def _library_price(key: ResourceKey) -> Price | None:
    """One token of each kind, at a time: what the library adds for long requests does not come in."""
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None

    def million(ask: Callable[[], Decimal | None]) -> float:
        return float((ask() or 0) * 1_000_000)

    def calc(**counts: int) -> tuple[Decimal, Decimal]:
        found = calc_price(Usage(**counts), model_ref=key.model, provider_id=key.provider)
        return found.input_price, found.output_price

    try:
        return Price(
            input=million(lambda: calc(input_tokens=1)[0]),
            output=million(lambda: calc(output_tokens=1)[1]),
            cached_input=million(lambda: calc(input_tokens=1, cache_read_tokens=1)[0]),
        )
    except LookupError:
        return None
