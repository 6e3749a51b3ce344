"""How fast a run goes now, and when it will be over: from looks at it, one after the other.

Pure: looks in, numbers out. Speeds are those of the last two minutes or so; the end is told with a range, from how much
the speed varied in that time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from math import inf, sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..engine.statistics import RunStatistics

__all__ = ["LOOKS", "LOOK_EVERY_S", "Eta", "Rates", "ResourceRates"]

LOOK_EVERY_S: Final = 2.0
LOOKS: Final = 60
"""Looks that are kept: two minutes of them."""

LOOKS_LEAST: Final = 4
"""Fewer say nothing about how much the speed varies."""

NORMAL_95: Final = 1.645


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds to the end: likely, and between what in nine cases of ten. ``inf`` where nothing gets done."""

    likely_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True)
class ResourceRates:
    """One resource over the looks that are kept: requests a second, the 429s among them, tokens a minute."""

    requests_per_s: float = 0.0
    rate_limited: int = 0
    tokens_per_minute: float = 0.0


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    ended: int
    resources: dict[str, tuple[int, int, int]]


class Rates:
    """Looks at one run. ``total`` is the number of its rows, None if nobody knows."""

    def __init__(self, total: int | None = None) -> None:
        self._total = total
        self._looks: deque[_Look] = deque(maxlen=LOOKS)
        self._last: _Look | None = None

    def look(self, now: RunStatistics) -> None:
        """Take in a look; of those that come faster than is needed the last one counts."""
        ended = sum(column.done + column.failed + column.skipped for column in now.columns)
        resources = {
            one.resource: (one.requests, one.rate_limited, one.usage.input_tokens + one.usage.output_tokens)
            for one in now.resources
        }
        self._last = _Look(now.seconds, ended, resources)
        if not self._looks or now.seconds - self._looks[-1].at >= LOOK_EVERY_S:
            self._looks.append(self._last)

    def of(self, resource: str) -> ResourceRates:
        """How fast ``resource`` is."""
        first, last = self._ends()
        if first is None or last is None or resource not in first.resources or resource not in last.resources:
            return ResourceRates()
        before, after = first.resources[resource], last.resources[resource]
        passed = last.at - first.at
        return ResourceRates(
            requests_per_s=(after[0] - before[0]) / passed,
            rate_limited=after[1] - before[1],
            tokens_per_minute=60 * (after[2] - before[2]) / passed,
        )

    def eta(self, columns: int) -> Eta | None:
        """When all cells of so many columns will have ended; None while it cannot be said."""
        last = self._last
        if self._total is None or last is None or len(self._looks) < LOOKS_LEAST:
            return None
        left = self._total * columns - last.ended
        if left <= 0:
            return Eta(0.0, 0.0, 0.0)
        first = self._looks[0]
        passed = last.at - first.at
        speed = (last.ended - first.ended) / passed if passed > 0 else 0.0
        if speed <= 0:
            return Eta(inf, inf, inf)
        likely = left / speed
        unsure = NORMAL_95 * self._scatter(speed) * sqrt(1 / (len(self._looks) - 1) + LOOK_EVERY_S / likely)
        return Eta(likely, left / (speed + unsure), left / (speed - unsure) if unsure < speed else inf)

    def _scatter(self, mean: float) -> float:
        """The standard deviation of the speed from look to look."""
        speeds = [(after.ended - before.ended) / (after.at - before.at) for before, after in pairwise(self._looks)]
        return sqrt(sum((speed - mean) ** 2 for speed in speeds) / max(1, len(speeds) - 1))

    def _ends(self) -> tuple[_Look | None, _Look | None]:
        if not self._looks or self._last is None or self._last.at <= self._looks[0].at:
            return None, None
        return self._looks[0], self._last
