"""A run as a report shows it, read from its store: what was committed, and the figures that it kept of its course.

Both come from the store alone, so a report of a run that was killed, or goes on elsewhere, is made in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from ..prices.account import account_from
from ..prices.table import PICO
from ..storage.codec import decode
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
    learned, created_at = store.read_learned(run), overview.info.created_at
    return StoredReport(overview, read_figures(learned, run, created_at), _costs(learned, run, created_at))


def _costs(learned: bytes | None, run: str, created_at: float) -> dict[str, float]:
    """Dollars by column, in all lives."""
    try:
        record: object = {} if learned is None else decode(learned)
    except ValueError:
        return {}
    spent = cast("Mapping[str, object]", record).get("spent") if isinstance(record, dict) else None
    return {name: picos / PICO for name, picos in account_from(spent, run, created_at).columns.items()}
