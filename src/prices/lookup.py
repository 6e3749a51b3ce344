"""Finding the price of a model: in the user's own table, else in the data of genai-prices, if that is wanted.

A shell: it reads a file and imports the extra ``prices`` when it is first asked.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import ConfigError
from ..values import ResourceKey
from .table import PICO, Price

if TYPE_CHECKING:
    from genai_prices.types import TieredPrices

    from ..values import Usage

__all__ = ["GENAI_PRICES", "PriceBook", "PricesSource", "price_book", "priced_model"]

GENAI_PRICES = "genai-prices"
"""The word for: only what genai-prices knows."""

PricesSource = str | os.PathLike[str] | Mapping[str, Price | Mapping[str, Any]]
"""``"genai-prices"``, or a TOML file or mapping: a price per model, in dollars per million tokens; ``*`` for others."""


_KNOWN = ResourceKey("openai", "gpt-4o")
"""A model that the library knows, so that it has read all it reads when it was asked for this one."""

_UNITS = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "requests_kcount")
"""What a price of the library is read for: per million tokens, and per thousand requests."""

NAMES_TOLD = 3
"""Models that a notice names."""


class PriceBook:
    """Prices by resource name; each is looked up once. An own price wins over the library's."""

    __slots__ = ("_found", "_others", "_own", "_unused")

    def __init__(self, own: Mapping[str, Price]) -> None:
        self._own = dict(own)
        self._found: dict[str, Price | None] = {}
        self._unused = dict.fromkeys(own)
        self._others: dict[str, None] = {}  # models that were asked for and are not among the own

    def price(self, resource: str) -> Price | None:
        """The price of ``resource``; None where nobody knows it."""
        if resource not in self._found:
            self._found[resource] = self._look_up(resource)
        return self._found[resource]

    def dollars(self, resource: str, usage: Usage) -> float | None:
        """What the tokens of requests of a usual size to ``resource`` cost that used so much together; None where
        nobody knows it."""
        price = self.price(resource)
        return None if price is None else replace(price, above={}).of(usage) / PICO

    def fee(self, resource: str) -> float:
        """Dollars for a request of a usual size to ``resource`` beside its tokens."""
        price = self.price(resource)
        return 0.0 if price is None else price.request

    @property
    def notice(self) -> str:
        """What is to be said of own prices that were not asked for while a model was priced otherwise: misspelt names
        look like that, and a table of all prices that somebody pays does not. Empty if there is nothing to say.
        """
        return self._misspelt("which nothing used", "check the names")

    @property
    def doubt(self) -> str:
        """The same before the first request, when only the models of columns were asked for."""
        return self._misspelt("which no column names", "check the names, unless a body asks for it")

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

    def _misspelt(self, unused: str, advice: str) -> str:
        names = [name for name in self._unused if name != "*"]
        if not names or not self._others:
            return ""
        return f"prices= has {_listed(names)}, {unused}, and not {_listed(self._others)}: {advice}"

    def _look_up(self, resource: str) -> Price | None:
        key = ResourceKey.parse(resource)
        for name in (*reversed(key.scopes()[1:]), "*"):
            if name == "*":
                self._others[key.name] = None
            if name in self._own:
                self._unused.pop(name, None)
                return self._own[name]
        return _library_price(key)


def price_book(source: PricesSource | None) -> PriceBook:
    """The prices that ``source`` states. Raises ConfigError for what cannot be meant."""
    if source is None or source == GENAI_PRICES:
        if source is not None and _library() is None:
            raise ConfigError("genai-prices is not installed: pip install 'headgate[prices]'")
        return PriceBook({})
    own: dict[str, Price] = {}
    for given, one in _stated(source).items():
        name = priced_model(given)
        if name in own:
            raise ConfigError(f"prices= has {name} twice, once as {given!r}")
        own[name] = _price(name, one)
    return PriceBook(own)


def _stated(source: object) -> Mapping[object, object]:
    if isinstance(source, Mapping):
        return cast("Mapping[object, object]", source)
    if isinstance(source, (str, os.PathLike)):
        return _read(Path(cast("str | os.PathLike[str]", source)))
    raise ConfigError(f"prices must be a file, {GENAI_PRICES!r} or a price per model, not {source!r}")


def priced_model(given: object) -> str:
    """The name by which the price of the model ``given`` is found, or ``*``. Raises ConfigError if it names none."""
    if given == "*":
        return "*"
    if not isinstance(given, str):
        raise ConfigError(f"prices= has {given!r}, which is no name of a model")
    try:
        return ResourceKey.parse(given).name
    except ValueError as error:
        raise ConfigError(f"{error}; among prices '*' stands for all others") from error


def _read(path: Path) -> Mapping[object, object]:
    try:
        return cast("Mapping[object, object]", tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"prices cannot be read from {str(path)!r}: {error}") from error


def _price(name: str, stated: object) -> Price:
    if isinstance(stated, Price):
        return stated
    try:
        given = dict(cast("Mapping[str, Any]", stated))
        tiers = {_tokens(tokens): _tier(given, price) for tokens, price in given.pop("above", {}).items()}
        return Price(**given, above=tiers)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"prices of {name!r}: {error}; write input, output, cached_input and cache_write in dollars per million "
            "tokens, request in dollars per request, and above for long requests: such prices by a number of input "
            "tokens"
        ) from error


def _tier(base: Mapping[str, Any], stated: Any) -> Price:
    """A price of long requests, which has from ``base`` what it does not state."""
    return stated if isinstance(stated, Price) else Price(**{**base, **stated})


def _tokens(key: object) -> Any:
    """In a file keys are text."""
    return int(key) if isinstance(key, str) else key


def _listed(names: Collection[str]) -> str:
    more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
    return f"{', '.join(islice(names, NAMES_TOLD))}{more}"


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
    kinds = tuple(getattr(stated, unit, None) for unit in _UNITS)
    charged = {unit for unit, price in vars(stated).items() if price is not None and not unit.startswith("_")}
    if charged and charged.isdisjoint(_UNITS):
        return None  # such as by the hour: nothing of it is counted here, so it is not known, and not free
    starts = {tier.start for price in kinds for tier in getattr(price, "tiers", ())}
    return replace(_prices(kinds, 0), above={start: _prices(kinds, start + 1) for start in starts})


def _prices(kinds: Sequence[Decimal | TieredPrices | None], read: int) -> Price:
    """What genai-prices states for requests that read so many tokens."""
    read_in, written, cached, kept, thousand = (None if price is None else _at(price, read) for price in kinds)
    return Price(read_in or 0.0, written or 0.0, cached, kept, request=(thousand or 0.0) / 1000)


def _at(price: Decimal | TieredPrices, read: int) -> float:
    if isinstance(price, Decimal):
        return float(price)
    passed = [tier for tier in price.tiers if read > tier.start]
    return float(max(passed, key=lambda tier: tier.start).price if passed else price.base)
