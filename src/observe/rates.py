"""How fast a run goes now, and when it will be over: from looks at it, one after the other.

Pure: looks in, numbers out. Speeds are those of the last two minutes or so. A run ends with what takes longest of it: a
column, or what waits for a resource. The range is that of batch means: speeds in eight parts of that time one after the
other, which vary as they do whether single looks come in bursts, as group columns do, or follow a trend.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from math import inf, sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..engine.statistics import RunStatistics

__all__ = ["LOOKS", "LOOK_EVERY_S", "Eta", "Rates", "ResourceRates"]

LOOK_EVERY_S: Final = 2.0
LOOKS: Final = 60
"""Looks that are kept: two minutes of them."""

LOOKS_LEAST: Final = 4
"""Fewer say nothing about how much the speed varies."""

PARTS: Final = 8
"""Parts that the time of the looks is cut into at most, to see how much the speed varies from one to the next."""

STUDENT_95: Final = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89)
"""Of Student's distribution, by degrees of freedom from one on: nine cases of ten are within."""


@dataclass(frozen=True, slots=True, order=True)
class Eta:
    """Seconds to the end: likely, and between what in nine cases of ten. What stands still has no end: ``likely_s`` is
    ``inf`` then, and ``low_s`` says when the rest will be done.
    """

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
    """What had ended ``at`` seconds by column, and of each resource: requests, 429s, tokens."""

    at: float
    columns: tuple[int, ...]
    resources: dict[str, tuple[int, int, int]]


class Rates:
    """Looks at one run. ``total`` is the number of its rows, None if nobody knows."""

    def __init__(self, total: int | None = None) -> None:
        self._total = total
        self._looks: deque[_Look] = deque(maxlen=LOOKS)
        self._last: _Look | None = None
        self._waiting: dict[str, int] = {}
        self._given_up: tuple[bool, ...] = ()

    def look(self, now: RunStatistics) -> None:
        """Take in a look; of those that come faster than is needed the last one counts."""
        ended = tuple(column.done + column.failed + column.skipped for column in now.columns)
        self._given_up = tuple(column.column in now.given_up for column in now.columns)
        self._waiting = {one.resource: one.ready + one.in_flight for one in now.resources}
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

    def eta(self) -> Eta | None:
        """When all cells will have ended, but those of columns that were given up; None while it cannot be said."""
        last = self._last
        if self._total is None or last is None or len(self._looks) < LOOKS_LEAST:
            return None
        columns = [
            (self._total - ended, [look.columns[column] for look in self._looks])
            for column, ended in enumerate(last.columns)
            if ended < self._total and not self._given_up[column]
        ]
        if not columns:
            return Eta(0.0, 0.0, 0.0)
        begun = [self._end(left, series) for left, series in columns if series[-1]]
        moving = [end for end in begun if end.likely_s < inf]
        if not moving:
            return Eta(inf, inf, inf)
        if len(moving) < len(begun):
            return Eta(inf, max(moving).low_s, inf)
        slowest = max(moving + [end for end in self._queues() if end.likely_s < inf])
        # Of what has not begun nobody knows how long it takes.
        return slowest if len(begun) == len(columns) else Eta(slowest.likely_s, slowest.low_s, inf)

    def _queues(self) -> Iterator[Eta]:
        """When what waits for each resource now will be through."""
        for name, waiting in self._waiting.items():
            series = [look.resources[name][0] for look in self._looks if name in look.resources]
            if len(series) == len(self._looks):
                yield self._end(waiting, series)

    def _end(self, left: int, series: Sequence[int]) -> Eta:
        """When ``left`` more will have ended, of what had come to ``series`` from look to look."""
        times = [look.at for look in self._looks]
        speed = (series[-1] - series[0]) / (times[-1] - times[0])
        if speed <= 0:
            return Eta(inf, inf, inf)
        likely, parts = left / speed, min(PARTS, len(series) - 1)
        bounds = [part * (len(series) - 1) // parts for part in range(parts + 1)]
        speeds = [(series[to] - series[of]) / (times[to] - times[of]) for of, to in pairwise(bounds)]
        scatter = sqrt(sum((one - speed) ** 2 for one in speeds) / (parts - 1))
        # Both the speed until now and that from now on are means of parts that vary so.
        seen, to_come = 1 / parts, (times[-1] - times[0]) / parts / max(likely, LOOK_EVERY_S)
        unsure = STUDENT_95[parts - 2] * scatter * sqrt(seen + to_come)
        return Eta(likely, left / (speed + unsure), left / (speed - unsure) if unsure < speed else inf)

    def _ends(self) -> tuple[_Look | None, _Look | None]:
        if not self._looks or self._last is None or self._last.at <= self._looks[0].at:
            return None, None
        return self._looks[0], self._last
