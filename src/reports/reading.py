"""A run as a report shows it, read from its store: what was committed, and the figures that it kept of its course.

Both come from the store alone, so a report of a run that was killed, or goes on elsewhere, is made in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..storage.overview import RunOverview, read_overview
from .figures import RunFigures, read_figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..storage.ports import RunStore

__all__ = ["LEDGER_MAX", "StoredReport", "read_report"]

LEDGER_MAX: Final = 1000
"""Failed cells that a report lists, the first by row; all are counted. A page with them has some 300 KB more."""


@dataclass(frozen=True, slots=True)
class StoredReport:
    """One run. ``figures`` is None for a run that kept none: see :mod:`headgate.reports`.

    ``costs`` are by column, in ``currency``; a column whose price nobody knows is not among them.
    """

    overview: RunOverview
    figures: RunFigures | None
    costs: Mapping[str, float] = field(default_factory=dict[str, float])
    currency: str = "USD"

    @property
    def failed_cells(self) -> int:
        """All failed cells, listed or not."""
        return sum(self.overview.failure_counts.values())


def read_report(store: RunStore, run: str) -> StoredReport:
    """Read all of ``run``, which may go on meanwhile. It blocks: use a thread.

    Raises UnknownRun, ResultExpired, ResultCorrupt, StoreUnavailable.
    """
    overview = read_overview(store, run, examples=LEDGER_MAX)
    return StoredReport(overview, read_figures(store.read_learned(run), run, overview.info.created_at))
