"""Prices and amounts: what tokens cost, in whole numbers, so that sums are exact.

Money is counted in picos: millionths of a millionth of a US dollar. One token at one dollar per million of them costs
1,000,000 picos. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import ConfigError

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


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. ``cached_input`` is for input that the provider read from its cache; None: as
    other input.
    """

    input: float = 0.0
    output: float = 0.0
    cached_input: float | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input"):
            value: object = getattr(self, name)
            if value is None and name == "cached_input":
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not isfinite(value) or value < 0:
                raise ConfigError(f"{name} must be dollars per million tokens, zero or more, not {value!r}")

    def of(self, usage: Usage) -> int:
        """What ``usage`` costs, in picos."""
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        fresh = usage.input_tokens - cached
        per_cached = self.input if self.cached_input is None else self.cached_input
        return (
            fresh * round(self.input * MICRO)
            + (cached + usage.cache_read_tokens) * round(per_cached * MICRO)
            + usage.output_tokens * round(self.output * MICRO)
        )


FREE: Final = Price()
