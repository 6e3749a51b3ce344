"""When a column as such is broken: it fails for (nearly) every row, and waiting would not help.

Stops a column once the lower confidence bound of its failure rate passes ``RATE``: Wilson's score interval
(1927), one-sided at 99.9 %, which Brown, Cai and DasGupta (2001) recommend for small samples too. Ten bad
rows at the start stop nothing; about ninety without one success do. A column that worked for long and then
fails always (a model was withdrawn) is stopped after some thousands of rows, because older rows are slowly
forgotten, while a stretch of some hundred bad rows in the middle stops nothing.

Only failures that say something about the column count: provider faults and pressure do not, and no column
counts for another. The bound is looked at after each failure, so the 99.9 % hold for one look; ``RATE`` is
far above any rate at which a run would be useful, and that is where the margin is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Final

from .kinds import FailureKind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COUNTED", "ColumnGuard", "ColumnStopped", "wilson_lower_bound"]

COUNTED: Final = frozenset(
    {FailureKind.REJECTED, FailureKind.INVALID_OUTPUT, FailureKind.ADMISSION_DENIED, FailureKind.BUG}
)
"""Final failures whose cause can be the column itself."""
RATE: Final = 0.9
Z: Final = 3.09
"""The normal quantile of 99.9 %, one-sided."""
MEMORY_ROWS: Final = 2000
"""Rows that the rate reaches back, as the time constant of an exponential decay."""
_KEEP: Final = 1 - 1 / MEMORY_ROWS


@dataclass(frozen=True, slots=True)
class ColumnStopped:
    """Why a column was stopped: so many failures of the rows counted, and the rate it has at the very
    least."""

    column: str
    failures: int
    rows: int
    rate_at_least: float
    kind: FailureKind


@dataclass(slots=True)
class _Tally:
    """Mutable: one column. ``good`` and ``bad`` are decayed, ``failures`` and ``rows`` exact."""

    good: float = 0.0
    bad: float = 0.0
    failures: int = 0
    rows: int = 0
    stopped: ColumnStopped | None = None


class ColumnGuard:
    """One verdict per column, final. O(1) per row."""

    __slots__ = ("_tallies",)

    def __init__(self) -> None:
        self._tallies: defaultdict[str, _Tally] = defaultdict(_Tally)

    def succeeded(self, column: str) -> None:
        """A row of the column is done."""
        tally = self._tallies[column]
        tally.good = tally.good * _KEEP + 1.0
        tally.bad *= _KEEP
        tally.rows += 1

    def failed(self, column: str, kind: FailureKind) -> ColumnStopped | None:
        """A row of the column failed for good. Return the verdict if it stops the column now."""
        if kind not in COUNTED:
            return None
        tally = self._tallies[column]
        tally.good *= _KEEP
        tally.bad = tally.bad * _KEEP + 1.0
        tally.failures += 1
        tally.rows += 1
        bound = wilson_lower_bound(tally.bad, tally.good + tally.bad)
        if tally.stopped is not None or bound <= RATE:
            return None
        tally.stopped = ColumnStopped(column, tally.failures, tally.rows, bound, kind)
        return tally.stopped

    def stopped(self, column: str) -> ColumnStopped | None:
        """Return the verdict if the column is stopped."""
        tally = self._tallies.get(column)
        return tally.stopped if tally is not None else None

    def statistics(self) -> Mapping[str, tuple[int, int]]:
        """Return failures that count, and rows, by column."""
        return {column: (tally.failures, tally.rows) for column, tally in self._tallies.items()}

    def check(self) -> None:
        """Assert the invariants."""
        for tally in self._tallies.values():
            assert 0 <= tally.failures <= tally.rows
            assert tally.good + tally.bad <= MEMORY_ROWS + 1e-6
            assert tally.stopped is None or tally.stopped.rate_at_least > RATE


def wilson_lower_bound(hits: float, of: float, z: float = Z) -> float:
    """Return the least rate that is compatible with ``hits`` of ``of``, one-sided; 0 without data."""
    if of <= 0:
        return 0.0
    share, weight = hits / of, z * z / of
    centre = share + weight / 2
    spread = z * sqrt(max(0.0, share * (1 - share) / of + z * z / (4 * of * of)))
    return max(0.0, (centre - spread) / (1 + weight))
