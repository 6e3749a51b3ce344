"""What is drawn from samples: rates from counters, on bins wide enough to be read. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from .timeline import ABSENT

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BINS_MAX", "Rates", "TimeUnit", "present", "rates", "time_unit"]

BINS_MAX: Final = 64
"""Bins of a rate: enough for the shape of a run, few enough that one is not a single request."""


class Rates(NamedTuple):
    """A rate per second in bins: where each ends, in seconds, how wide it is, and what was counted in it."""

    ends_s: list[float]
    widths_s: list[float]
    counts: list[float]

    @property
    def per_s(self) -> list[float]:
        """What was counted, each second."""
        return [count / width for count, width in zip(self.counts, self.widths_s, strict=True)]


class TimeUnit(NamedTuple):
    """What an axis of time is labelled in."""

    seconds: float
    name: str


def rates(times: Sequence[float], counter: Sequence[float]) -> Rates:
    """The growth of ``counter`` over ``times``, in bins of several samples; where it is absent it counts as 0.

    The counts add up to the whole growth.
    """
    stride = max(1, -(-(len(times) - 1) // BINS_MAX))
    places = list(range(0, len(times), stride))
    if times and places[-1] != len(times) - 1:
        places.append(len(times) - 1)
    found = Rates([], [], [])
    for first, last in pairwise(places):
        found.ends_s.append(times[last])
        found.widths_s.append(times[last] - times[first])
        found.counts.append(max(0.0, counter[last]) - max(0.0, counter[first]))
    return found


def present(column: Sequence[float]) -> list[float | None]:
    """The samples, with None where there was no value."""
    return [None if value == ABSENT else value for value in column]


def time_unit(seconds: float) -> TimeUnit:
    """In what to label an axis that is so long."""
    if seconds <= 180:
        return TimeUnit(1.0, "seconds")
    if seconds <= 3 * 3600:
        return TimeUnit(60.0, "minutes")
    if seconds <= 4 * 86_400:
        return TimeUnit(3600.0, "hours")
    return TimeUnit(86_400.0, "days")
