"""Gauges and counters over time in bounded memory: as a run grows longer, what is kept of it grows coarser.

Decides when a sample is wanted and which ones stay. It keeps at most ``most`` of them: when it is full it drops every
second one and takes them half as often from then on. So the points of a finished run lie about evenly, there are always
between half of ``most`` and ``most`` of them once it was full, and a run of a second and one of a week cost the same.
It draws no means: a gauge is what it was at that moment, and what must not be lost between two points is counted, in a
counter that only rises. Round-robin databases keep several resolutions side by side; one run has a beginning, so one
that doubles is enough. Pure.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ABSENT", "FIRST_INTERVAL_S", "POINTS_MAX", "Timeline"]

POINTS_MAX: Final = 256
"""Samples that are kept: as many as a chart on a laptop can show apart. With 32 resources 200 KB as JSON."""

FIRST_INTERVAL_S: Final = 0.1
"""Seconds between samples until there are as many as are kept."""

ABSENT: Final = -1
"""Stands for what had no value at that time: a limit that there was not, a resource that nobody used yet."""

K = TypeVar("K")


class Timeline(Generic[K]):
    """Samples by name at rising times, in seconds."""

    __slots__ = ("_most", "columns", "due_at", "interval_s", "times")

    def __init__(
        self,
        times: Sequence[float] = (),
        columns: Mapping[K, Sequence[float]] | None = None,
        *,
        interval_s: float = FIRST_INTERVAL_S,
        most: int = POINTS_MAX,
    ) -> None:
        assert most >= 2, "the first and the last sample are always kept"
        assert interval_s > 0
        self._most = most
        self.interval_s = interval_s
        """Seconds between samples now. To be read only, as all below."""
        self.times = list(times)
        self.columns: dict[K, list[float]] = {name: list(values) for name, values in (columns or {}).items()}
        self.due_at = self.times[-1] + interval_s if self.times else -inf
        """When the next sample is wanted."""
        self.check()

    def add(self, at: float, values: Mapping[K, float]) -> None:
        """A sample: what is not in ``values`` is absent now. One at the time of the latest takes its place."""
        if self.times and at <= self.times[-1]:
            assert at == self.times[-1], "time went backwards"
            self._take_back()
        elif len(self.times) == self._most:
            self._thin()
        for name in values:
            if name not in self.columns:
                self.columns[name] = [ABSENT] * len(self.times)
        self.times.append(at)
        for name, column in self.columns.items():
            column.append(values.get(name, ABSENT))
        self.due_at = at + self.interval_s

    def check(self) -> None:
        """All invariants."""
        assert len(self.times) <= self._most
        assert all(len(column) == len(self.times) for column in self.columns.values())

    def _take_back(self) -> None:
        self.times.pop()
        for column in self.columns.values():
            column.pop()

    def _thin(self) -> None:
        """Keep the first and every second one after it."""
        self.times = self.times[::2]
        self.columns = {name: column[::2] for name, column in self.columns.items()}
        self.interval_s *= 2
