"""Prices and amounts: what tokens and requests cost, in whole numbers, so that sums are exact.

Money is counted in picos: millionths of a millionth of a US dollar. One token at one dollar per million of them costs
1,000,000 picos. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from ..errors import ConfigError
from ..values import is_number, shown

if TYPE_CHECKING:
    from ..values import Usage

__all__ = ["FREE", "MICRO", "PICO", "Amount", "Price"]

PICO: Final = 10**12
"""Picos in a dollar."""

MICRO: Final = 10**6
"""Picos per token, of one dollar per million tokens."""


class Amount(NamedTuple):
    """What was spent, or may be: ``money`` in picos, ``tokens`` read and written together."""

    money: int = 0
    tokens: int = 0

    @property
    def dollars(self) -> float:
        """The money in US dollars."""
        return self.money / PICO

    def plus(self, other: Amount) -> Amount:
        """Both together."""
        return Amount(self.money + other.money, self.tokens + other.tokens)


_UNITS: Final = dict.fromkeys(("input", "output", "cached_input", "cache_write"), "million tokens") | {
    "request": "request"
}


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. ``cached_input`` is for input that the provider read from its cache,
    ``cache_write`` for what it wrote there and counts apart from other input; None: as other input.

    ``above`` has the prices of long requests: each is for all tokens of a request that reads more than so many. A
    ``Price`` there states all of its own; a mapping there, where prices are mappings, has the rest from the base price.

    ``request`` is a fee in US dollars for each request that is answered, whatever it reads and writes.
    """

    input: float = 0.0
    output: float = 0.0
    cached_input: float | None = None
    cache_write: float | None = None
    above: Mapping[int, Price] = field(default_factory=dict["int", "Price"], hash=False)
    request: float = 0.0

    def __post_init__(self) -> None:
        for name, unit in _UNITS.items():
            value: object = getattr(self, name)
            if value is None and name.startswith("cache"):
                continue
            if not is_number(value) or not isfinite(value) or value < 0:
                raise ConfigError(f"{name} must be dollars per {unit}, zero or more, not {shown(value)}")
        above = cast("object", self.above)
        if not isinstance(above, Mapping):
            raise ConfigError(f"above must map numbers of input tokens to prices, not be {above!r}")
        for tokens, price in cast("Mapping[object, object]", above).items():
            if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
                raise ConfigError(f"above must map whole numbers of input tokens, one or more, not {tokens!r}")
            if not isinstance(price, Price) or price.above:
                raise ConfigError(f"above must map {tokens} tokens to a Price without above, not to {price!r}")

    def of(self, usage: Usage) -> int:
        """What a request with ``usage`` costs beside its fee, in picos."""
        tier = self._tier(usage)
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        return (
            (usage.input_tokens - cached) * _picos(tier.input)
            + (cached + usage.cache_read_tokens) * _picos(tier.input, tier.cached_input)
            + usage.cache_write_tokens * _picos(tier.input, tier.cache_write)
            + usage.output_tokens * _picos(tier.output)
        )

    def fee(self, usage: Usage) -> int:
        """The fee for a request with ``usage``, in picos."""
        return round(self._tier(usage).request * PICO)

    def _tier(self, usage: Usage) -> Price:
        read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        return self.above[max(passed)] if (passed := [tokens for tokens in self.above if read > tokens]) else self


def _picos(other: float, own: float | None = None) -> int:
    return round((other if own is None else own) * MICRO)


FREE: Final = Price()
