"""A scheduler that is obviously right, and slow: the rules as they are told, plain lists, everything looked up anew.

It keeps what happened (rows, the state of each cell, which tasks are out, held or queued) and derives all else from
the rules at each step: no counts, no heaps, no work saved. Whatever may be asked of the fast one is computed here by
looking at every row that is open. Virtual time is exact (fractions).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

from headgate.scheduler.tasks import CellState, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Column", "Reference", "ReferenceWindow", "Step"]

CLOSED = (CellState.DONE, CellState.FAILED, CellState.SKIPPED)


@dataclass(frozen=True)
class Column:
    """A column as a user sees it. ``parents`` are the columns that it needs, its condition's included."""

    parents: tuple[int, ...]
    lane: str
    weight: Fraction
    group: bool
    conditional: bool


@dataclass
class Step:
    """What one event brought about: tasks that became ready by it, in order, and tasks that nobody wants any more."""

    ready: list[Task]
    unwanted: list[Task] = field(default_factory=list[Task])


@dataclass
class Reference:
    """Rows open in row groups of ``group_size``. ``finish_siblings`` lets the rest of a failed row run on."""

    columns: list[Column]
    group_size: int
    finish_siblings: bool
    arrived: list[int] = field(default_factory=list[int])
    group_of: dict[int, int] = field(default_factory=dict[int, int])
    state: dict[tuple[int, int], CellState] = field(default_factory=dict[tuple[int, int], CellState])
    unsealed: set[int] = field(default_factory=set[int])
    sealed: set[int] = field(default_factory=set[int])
    held: list[Task] = field(default_factory=list[Task])
    running: list[Task] = field(default_factory=list[Task])
    # Ready tasks, and whether each comes again; per lane the virtual time, per column when its next turn begins there
    # and since when it stands in line with that turn.
    queue: list[tuple[Task, bool]] = field(default_factory=list[tuple[Task, bool]])
    lane_time: dict[str, Fraction] = field(default_factory=dict[str, Fraction])
    turn_at: dict[int, Fraction] = field(default_factory=dict[int, Fraction])
    in_line_since: dict[int, int] = field(default_factory=dict[int, int])
    moment: int = 0

    # The pipeline.

    def above(self, column: int) -> set[int]:
        """All that ``column`` needs, directly or not."""
        parents = self.columns[column].parents
        return set(parents).union(*(self.above(parent) for parent in parents))

    def path_length(self, column: int) -> int:
        """The columns on the longest way from ``column`` to an end."""
        below = [other for other, it in enumerate(self.columns) if column in it.parents]
        return 1 + max((self.path_length(other) for other in below), default=0)

    def top_down(self) -> list[int]:
        """The columns, each after those that it needs, otherwise as they were defined."""
        order: list[int] = []
        while len(order) < len(self.columns):
            order.append(
                min(
                    column
                    for column, it in enumerate(self.columns)
                    if column not in order and set(it.parents) <= set(order)
                )
            )
        return order

    # Where things stand, from the states of the cells alone.

    def is_open(self, row: int, column: int) -> bool:
        return self.state[row, column] not in CLOSED

    def has_all(self, row: int, column: int) -> bool:
        """Whether everything that the cell needs is done."""
        return all(self.state[row, parent] is CellState.DONE for parent in self.columns[column].parents)

    def rows_in(self, group: int) -> list[int]:
        return [row for row in self.arrived if self.group_of[row] == group]

    def rows_of(self, task: Task) -> list[int]:
        """The rows that a task is about: its own, or those of its group that are still open there."""
        if not self.columns[task.column].group:
            return [task.unit]
        return [row for row in self.rows_in(task.unit) if self.is_open(row, task.column)]

    def tasks(self) -> list[Task]:
        """Everything that is queued, out or held by the rules, by column."""
        found: list[Task] = []
        for column, it in enumerate(self.columns):
            if not it.group:
                found += [Task(column, r) for r in self.arrived if self.is_open(r, column) and self.has_all(r, column)]
                continue
            for group in sorted(self.sealed):
                rows = self.rows_in(group)
                waits = [r for r in rows if self.is_open(r, column) and not self.has_all(r, column)]
                if not waits and any(self.is_open(r, column) for r in rows):
                    found.append(Task(column, group))
        return found

    def open_rows(self) -> list[int]:
        columns = range(len(self.columns))
        return [row for row in self.arrived if any(self.is_open(row, column) for column in columns)]

    def load(self) -> int:
        """Rows with a cell to run, and group tasks to run: held ones have nothing to do."""
        able = [task for task in self.tasks() if task not in self.held]
        cells = {task.unit for task in able if not self.columns[task.column].group}
        return len(cells) + sum(self.columns[task.column].group for task in able)

    # Events.

    def add_row(self, row: int, group: int) -> Step:
        before = self.tasks()
        self.arrived.append(row)
        self.group_of[row] = group
        self.unsealed.add(group)
        for column in range(len(self.columns)):
            self.state[row, column] = CellState.WAITING
        return Step(self._new_since(before))

    def seal(self, group: int) -> Step:
        before = self.tasks()
        self.unsealed.discard(group)
        self.sealed.add(group)
        return Step(self._new_since(before))

    def end(self, task: Task, outcomes: dict[int, CellState]) -> Step:
        """``task`` ended with one outcome for each of its rows; row after row, cell after cell."""
        before = now = self.tasks()
        ready: list[Task] = []
        for row, column, outcome in self._closings(task, outcomes):
            if self.is_open(row, column):
                self.state[row, column] = outcome
                earlier, now = now, self.tasks()
                ready += [new for new in now if new not in earlier]
        self._close_the_books()
        left = self.tasks()
        # What came and went within the event never was.
        return Step([new for new in ready if new in left], [old for old in before if old not in left and old != task])

    def _close_the_books(self) -> None:
        """Row groups of which every cell is closed are over: they are not looked at any more."""
        open_groups = {self.group_of[row] for row in self.open_rows()}
        self.sealed &= open_groups
        self.arrived = [row for row in self.arrived if self.group_of[row] in open_groups | self.unsealed]

    def _closings(self, task: Task, outcomes: dict[int, CellState]) -> Iterator[tuple[int, int, CellState]]:
        """Give what is to be closed, in order: the task's cell of a row, then what a row that is lost leaves behind."""
        order = self.top_down()
        needing = [column for column in order if task.column in self.above(column)]
        for row in self.rows_of(task):
            outcome = outcomes[row]
            yield row, task.column, outcome
            if outcome is CellState.DONE:
                continue
            others = order if outcome is CellState.FAILED and not self.finish_siblings else []
            for column in (*needing, *others):
                yield row, column, CellState.SKIPPED

    def _new_since(self, before: list[Task]) -> list[Task]:
        return [task for task in self.tasks() if task not in before]

    def forget(self, unwanted: list[Task]) -> list[Task]:
        """Drop them, wherever they are. Returns those that were anywhere."""
        known = [task for task in unwanted if task in (*self.running, *self.held, *self.queued())]
        for task in known:
            self.running = [other for other in self.running if other != task]
            self.held = [other for other in self.held if other != task]
            self.take_out(task)
        return known

    # Whose turn it is: start-time fair queueing, as its paper tells it.

    def queued(self) -> list[Task]:
        return [task for task, _ in self.queue]

    def waiting(self, column: int) -> list[tuple[Task, bool]]:
        return [(task, again) for task, again in self.queue if task.column == column]

    def in_lane(self, lane: str) -> list[tuple[Task, bool]]:
        return [(task, again) for task, again in self.queue if self.columns[task.column].lane == lane]

    def put(self, task: Task, *, again: bool = False) -> None:
        """``task`` is ready. Who had nothing in line begins now, or when what it had is paid for."""
        column, lane = task.column, self.columns[task.column].lane
        if not self.waiting(column):
            now = self.lane_time.get(lane, Fraction(0))
            self.turn_at[column] = max(now, self.turn_at.get(column, now))
            self._line_up(column)
        self.queue.append((task, again))

    def take_out(self, task: Task) -> None:
        """``task`` leaves the line without having had its turn."""
        self.queue = [(other, again) for other, again in self.queue if other != task]
        self._rest(self.columns[task.column].lane)

    def next(self, lane: str) -> Task | None:
        """Give the turn to the column whose turn begins first, then to the longest way to go, then to who waits
        longest; of its tasks first those that come again, then the oldest row.
        """
        columns = {task.column for task, _ in self.in_lane(lane)}
        if not columns:
            return None
        column = min(columns, key=lambda c: (self.turn_at[c], -self.path_length(c), self.in_line_since[c]))
        task, _ = min(self.waiting(column), key=lambda one: (not one[1], one[0].unit))
        self.lane_time[lane] = self.turn_at[column]
        self.turn_at[column] += 1 / self.columns[column].weight
        self._line_up(column)
        self.take_out(task)
        self.running.append(task)
        return task

    def _line_up(self, column: int) -> None:
        self.moment += 1
        self.in_line_since[column] = self.moment

    def _rest(self, lane: str) -> None:
        """When nobody waits in a lane, nobody owes anything there."""
        if not self.in_lane(lane):
            for column, it in enumerate(self.columns):
                if it.lane == lane:
                    self.turn_at.pop(column, None)


@dataclass
class ReferenceWindow:
    """How many rows to pull: twice what can run, and after that was reached nothing until a tenth of it is used up.

    What would break a bound on rows is not begun; a row group is begun only as a whole. One row comes in whatever the
    horizon says if there is nothing at all to do.
    """

    max_rows: int
    group_rows: int
    filling: bool = True

    def room(self, capacity: int, load: int, open_rows: int, owed: int) -> int:
        horizon = max(1, ceil(min(2 * capacity, self.max_rows)))
        if load >= horizon:
            self.filling = False
        if load <= Fraction(9, 10) * horizon:
            self.filling = True
        wanted = horizon - load if self.filling else 0
        if load == 0 and (open_rows == 0 or owed):
            wanted = max(1, wanted)
        allowed = owed
        while open_rows + allowed + self.group_rows <= self.max_rows:
            allowed += self.group_rows
        return min(wanted, allowed)
