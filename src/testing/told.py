"""What a life of a simulated run said while it went on, and whether it said everything once (V6)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..events import CellEnded, GroupEnded, RequestEnded, RequestStarted, RowFinished, RowOpened, RunEnded, RunStarted
from ..events import TaskStarted as Started
from .witness import expect

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ..engine.report import RunReport
    from ..events import Event

__all__ = ["Told"]


class Told:
    """The events of one life; itself a sink. ``before`` are the cells, each a row and a column, that had an outcome."""

    def __init__(self, before: Collection[tuple[int, str]]) -> None:
        self._before = frozenset(before)
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        self.events.append(event)

    def check(self, columns: Sequence[str], report: RunReport | None) -> None:
        """Raise PromiseBroken unless everything ended once. ``report`` is None for a life that was cut short."""
        if not self.events:
            return  # the life was over before its run began
        kinds = Counter(type(event) for event in self.events)
        expect(type(self.events[0]) is RunStarted and kinds[RunStarted] == 1, "V6", "the run began more than once")
        expect(type(self.events[-1]) is RunEnded and kinds[RunEnded] == 1, "V6", "the run did not end once, and last")
        _once("lease", Counter(event.lease for event in self.events if isinstance(event, RequestEnded)))
        started = {event.lease for event in self.events if isinstance(event, RequestStarted)}
        ended = {event.lease for event in self.events if isinstance(event, RequestEnded)}
        expect(started == ended, "V6", f"requests that have not ended once: {sorted(started ^ ended)[:5]}")
        cells = Counter((event.row, event.column) for event in self.events if isinstance(event, CellEnded))
        groups = Counter((event.column, event.group) for event in self.events if isinstance(event, GroupEnded))
        _once("cell", cells)
        _once("group task", groups)
        if report is not None:
            self._check_whole(columns, report, cells.keys(), groups.keys())

    def _check_whole(
        self,
        columns: Sequence[str],
        report: RunReport,
        cells: Collection[tuple[int, str]],
        groups: Collection[tuple[str, int]],
    ) -> None:
        rows = {event.row for event in self.events if isinstance(event, RowOpened)}
        missing = [(row, name) for row in rows for name in columns if (row, name) not in self._before | set(cells)]
        expect(not missing, "V6", f"cells without a terminal event: {missing[:5]}")
        begun = {(e.column, e.group) for e in self.events if isinstance(e, Started) and e.group is not None}
        expect(begun == set(groups), "V6", f"group tasks begun {sorted(begun)[:5]}, ended {sorted(groups)[:5]}")
        held = Counter(e.column for e in self.events if isinstance(e, CellEnded) and e.outcome == "held")
        expect(held == Counter({one.column: one.held for one in report.columns}), "V6", f"held: {held} of {report}")
        finished = Counter(e.status for e in self.events if isinstance(e, RowFinished))
        counted = Counter(done=report.done, failed=report.failed, skipped=report.skipped)
        expect(finished == counted, "V6", f"finished rows: {finished} of {report}")


def _once(
    what: str, counts: Counter[object] | Counter[int] | Counter[tuple[int, str]] | Counter[tuple[str, int]]
) -> None:
    twice = [one for one, count in counts.items() if count > 1]
    expect(not twice, "V6", f"{what} ended more than once: {twice[:5]}")
