"""What a run would have to do: for each column how many cells are done, and how many would be called, and why.

Decides nothing that the run would not decide in the same way: rows go through the same frontier. Knows no store, calls
nothing; conditions (``when``) are not asked, so what they may still spare is counted apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..scheduler.frontier import CellState, Frontier
from .forecast_text import forecast_lines
from .grouping import Grouping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..scheduler.graph import Graph
    from .forecast import Forecast
    from .restore import Restored
    from .values import ColumnPlan

__all__ = ["PlannedColumn", "RunPlan", "WorkCount"]


@dataclass(frozen=True, slots=True)
class PlannedColumn:
    """One column of a run that is planned. ``done + failed + skipped + to_run`` are all rows.

    ``failed`` and ``skipped`` cells stay what they are. Of the cells ``to_run``, ``changed`` had an outcome that counts
    no more because the column or one that it reads is another now, ``retried`` had failed or were skipped on that
    account, ``held`` were held back; the others have never come to an end. ``conditional`` ones may yet be skipped by a
    condition, their own or that of a column that they need. ``calls`` is how often the function would be called if all
    goes well: once for each cell, or for each row group of a group column. ``change`` names what is different now.
    """

    column: str
    model: str | None
    done: int
    failed: int
    skipped: int
    to_run: int
    changed: int
    retried: int
    held: int
    conditional: int
    calls: int
    change: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """All rows."""
        return self.done + self.failed + self.skipped + self.to_run


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would do now, before anything is spent: see :func:`headgate.plan`. ``str(plan)`` is a table.

    ``known`` says whether the store has the run, ``notices`` what there is to say about columns that have changed and
    about rows. A call of a function makes one request or several, or none; that is not counted here. ``forecast`` is
    there if a sample was run.
    """

    run: str
    known: bool
    rows: int
    columns: tuple[PlannedColumn, ...]
    notices: tuple[str, ...] = field(default=())
    forecast: Forecast | None = None

    @property
    def to_run(self) -> int:
        """Cells that would run, of all columns."""
        return sum(column.to_run for column in self.columns)

    @property
    def model_cells(self) -> int:
        """Those of them that are under a model: what costs something."""
        return sum(column.to_run for column in self.columns if column.model is not None)

    @property
    def exit_code(self) -> int:
        """What a program ends with that was interrupted while it sampled."""
        return 130

    def __str__(self) -> str:
        return _rendered(self)


class WorkCount:
    """Counts what ``rows`` of a run have to do yet, given one after the other in their order."""

    def __init__(
        self, graph: Graph, plans: Sequence[ColumnPlan], *, group_size: int, finish_siblings: bool = False
    ) -> None:
        self.rows = 0
        self._graph = graph
        self._plans = plans
        self._finish_siblings = finish_siblings
        self._columns = [_Count() for _ in plans]
        self._groups = Grouping(group_size)
        self._frontier = self._new_frontier()
        self._waiting = [False] * len(plans)  # group columns that have something to do in this row group

    def add(self, row: int, restored: Restored | None, before: frozenset[str] = frozenset()) -> None:
        """Count a row: what is restored of it, and the columns that had an outcome which is put aside."""
        self.rows += 1
        states: Mapping[int, int] = {} if restored is None else restored.states
        if restored is None or not restored.whole:
            states = self._states(row, states)
        open_cells = {column for column, state in states.items() if state < CellState.DONE}
        perhaps: set[int] = set()
        for column in self._graph.order:
            count = self._columns[column]
            if column not in open_cells:
                count.ended(states[column])
                continue
            plan = self._plans[column]
            if plan.column.when_fn is not None or not perhaps.isdisjoint(self._graph.parents[column]):
                perhaps.add(column)
            count.to_run += 1
            count.conditional += column in perhaps
            count.changed += plan.name in before
            if restored is not None:
                count.retried += plan.name in restored.reopened
                count.held += column in restored.held
            if plan.group:
                self._waiting[column] = True

    def columns(self, changes: Mapping[str, tuple[str, ...]]) -> tuple[PlannedColumn, ...]:
        """Return the counts; ``changes`` names what is different in which column."""
        self._end_group()
        return tuple(
            PlannedColumn(
                column=plan.name,
                model=None if plan.resource is None else str(plan.resource),
                done=count.done,
                failed=count.failed,
                skipped=count.skipped,
                to_run=count.to_run,
                changed=count.changed,
                retried=count.retried,
                held=count.held,
                conditional=count.conditional,
                calls=count.groups if plan.group else count.to_run,
                change=changes.get(plan.name, ()),
            )
            for plan, count in zip(self._plans, self._columns, strict=True)
        )

    def _states(self, row: int, known: Mapping[int, int]) -> Mapping[int, int]:
        """The states of all cells of a row that is not whole, once what follows from the known ones is drawn."""
        if not self._groups.owed:
            self._end_group()
        frontier = self._frontier
        frontier.add_row(row, self._groups.place(), known or None)
        return {column: frontier.state(row, column) for column in range(len(self._plans))}

    def _end_group(self) -> None:
        for count, waiting in zip(self._columns, self._waiting, strict=True):
            count.groups += waiting
        self._waiting = [False] * len(self._plans)
        self._frontier = self._new_frontier()  # the rows of the one before are not needed any more

    def _new_frontier(self) -> Frontier:
        return Frontier(self._graph, finish_siblings=self._finish_siblings)


@dataclass(slots=True)
class _Count:
    """The cells of one column so far."""

    done: int = 0
    failed: int = 0
    skipped: int = 0
    to_run: int = 0
    changed: int = 0
    retried: int = 0
    held: int = 0
    conditional: int = 0
    groups: int = 0

    def ended(self, state: int) -> None:
        if state == CellState.DONE:
            self.done += 1
        elif state == CellState.FAILED:
            self.failed += 1
        else:
            self.skipped += 1


_HEADINGS: Final = ("column", "model", "done", "failed", "skipped", "to run", "changed", "retried", "held", "calls")


def _rendered(plan: RunPlan) -> str:
    told = "resumes" if plan.known else "begins"
    lines = [
        f"run {plan.run} {told}: {plan.rows} rows, {plan.to_run} cells to run, {plan.model_cells} of them by models"
    ]
    table = [_HEADINGS, *map(_cells, plan.columns)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        names = (cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True))
        counts = (cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True))
        lines.append("  " + "  ".join((*names, *counts)).rstrip())
    perhaps = [f"{column.column} {column.conditional}" for column in plan.columns if column.conditional]
    if perhaps:
        lines.append(f"  fewer, if conditions spare some: up to {', '.join(perhaps)}")
    lines.extend(f"  notice: {notice}" for notice in plan.notices)
    if plan.forecast is not None:
        lines.extend(f"  {line}" for line in forecast_lines(plan.forecast))
    return "\n".join(lines)


def _cells(column: PlannedColumn) -> tuple[str, ...]:
    counts = (
        *(column.done, column.failed, column.skipped, column.to_run),
        *(column.changed, column.retried, column.held, column.calls),
    )
    return (column.column, column.model or "local", *map(str, counts))
