"""What a user may state about one scope: how many requests at once, how many a minute, how long to wait.

Decides what can be meant; how scopes inherit from each other is in :mod:`headgate.admission.limits_book`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..values import ResourceKey

__all__ = ["AUTO", "ConcurrencyRange", "Limits"]

AUTO: Final = "auto"
AUTO_START: Final = 4
AUTO_MAXIMUM: Final = 1024
"""Where an adaptive limit that nobody bounded begins and ends."""

CONCURRENCY_MAX: Final = 10**9 - 1
"""More requests at once cannot be meant, and a whole number of any length is more than a float holds."""


@dataclass(frozen=True, slots=True)
class ConcurrencyRange:
    """Requests in flight: fixed at ``maximum``, or adaptive from ``start`` between ``minimum`` and ``maximum``."""

    minimum: int
    start: int
    maximum: int
    adaptive: bool

    @classmethod
    def parse(cls, text: int | str) -> ConcurrencyRange:
        """Read ``8``, ``"4-20-150"`` (minimum, start, maximum) or ``"auto"``. Raises ValueError with the cure."""
        if text == AUTO:
            return cls(1, AUTO_START, AUTO_MAXIMUM, adaptive=True)
        parts = [text] if isinstance(text, int) else [_whole(part) for part in text.split("-")]
        numbers = [part for part in parts if part is not None and not isinstance(part, bool)]
        if len(numbers) != len(parts) or len(parts) not in (1, 3):
            raise ValueError('write a whole number (8), minimum-start-maximum ("4-20-150") or "auto"')
        if min(numbers) < 1:
            raise ValueError("at least one request must be allowed in flight: use 1 or more")
        if max(numbers) > CONCURRENCY_MAX:
            raise ValueError(f"no provider takes so many requests at once: use {CONCURRENCY_MAX} or less")
        if len(numbers) == 1:
            return cls(numbers[0], numbers[0], numbers[0], adaptive=False)
        minimum, start, maximum = numbers
        if start < minimum:
            raise ValueError(f"the start {start} is below the minimum {minimum}: write minimum-start-maximum")
        if maximum < start:
            raise ValueError(f"the maximum {maximum} is below the start {start}: write minimum-start-maximum")
        return cls(minimum, start, maximum, adaptive=True)


def _whole(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(CONCURRENCY_MAX)) else None


Rate = Annotated[float, Field(gt=0)] | None


class Limits(BaseModel):
    """What one scope may carry, and how long to wait for it. Everything may be left out.

    ``concurrency``: a fixed number of requests in flight, ``"minimum-start-maximum"`` for an adaptive one, or
    ``"auto"``; a model that states none is adaptive. Rates are per minute (``inf``: none): requests, input tokens,
    output tokens, and ``tokens_per_minute`` for both together. ``queue_timeout``, ``cooldown`` (the longest block that
    a provider's hint may cause) and ``startup_ramp`` (the time in which a fixed limit is approached) are in seconds.
    ``share`` is the part of the limits that this process may use, above 0 and up to 1. ``queueing`` says
    that the server lets requests wait and never rejects them: throughput shows how many are worth it. ``alias_of``
    makes a model another name of ``provider/model``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    concurrency: int | str | None = None
    requests_per_minute: Rate = None
    input_tokens_per_minute: Rate = None
    output_tokens_per_minute: Rate = None
    tokens_per_minute: Rate = None
    queue_timeout: float = Field(default=60.0, ge=0)
    cooldown: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    startup_ramp: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    share: float = Field(default=1.0, gt=0, le=1)
    queueing: bool = False
    alias_of: str | None = None

    @field_validator("concurrency")
    @classmethod
    def _concurrency_can_be_meant(cls, value: int | str | None) -> int | str | None:
        if value is not None:
            ConcurrencyRange.parse(value)
        return value

    @field_validator("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute", "tokens_per_minute")
    @classmethod
    def _no_limit(cls, value: float | None) -> float | None:
        return None if value == math.inf else value

    @field_validator("queue_timeout", "share")
    @classmethod
    def _number(cls, value: float) -> float:
        if math.isnan(value):
            raise ValueError("not a number: write a number")
        return value

    @field_validator("alias_of")
    @classmethod
    def _names_a_model(cls, value: str | None) -> str | None:
        if value is not None:
            ResourceKey.parse(value)
        return value

    def concurrency_range(self) -> ConcurrencyRange | None:
        """``concurrency`` as numbers; None when it is not stated."""
        return None if self.concurrency is None else ConcurrencyRange.parse(self.concurrency)
