"""What may run next, and what became of every cell: readiness per row and per row group.

Decides which tasks are ready, what a failure or a skip means for the rest of its row, and when rows and
groups are finished. It holds no values, no names but those in reasons, and no time: integers and byte
arrays only.

Theory of operation. A cell waits for its parents; a byte per cell counts how many are not done yet. A cell
whose parents are all done is *ready* if its column is a cell column. In a group column it is *live*: the
group's one task becomes ready when the group is sealed (no more rows will come) and every row of it is live
or closed there. Every cell is closed exactly once, as DONE, FAILED or SKIPPED; what is reported later (a
request that could not be cancelled in time) changes nothing. A failure ends its row: all that is open there
is skipped, and what runs is to be cancelled, unless siblings may finish; then only what needs the failed
cell is skipped.

Costs: O(columns) to add a row (one copy of a template), O(children) per cell done, O(columns) once for a
row that failed, O(rows of the group) when a group task starts and ends. Nothing looks at all rows or all
groups.

Prior art: the ready list of dataflow machines (Dennis, 1974), with counts of missing operands as the
matching store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph import Scope
from .row_group import OpenRow, RowGroup
from .tasks import DONE, FAILED, HELD, READY, SKIPPED, WAITING, CellState, Closed, Counts, Progress, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .graph import Graph

__all__ = ["CellState", "Closed", "Counts", "Frontier", "Progress", "Task"]


class Frontier:
    """The readiness of all open rows. Rows and groups are numbered by the caller.

    ``finish_siblings`` lets the other cells of a row that failed run on.
    """

    def __init__(self, graph: Graph, *, finish_siblings: bool = False) -> None:
        self._graph = graph
        self._finish_siblings = finish_siblings
        self._group_columns = tuple(c for c, spec in enumerate(graph.specs) if spec.scope is Scope.GROUP)
        # Per column its slot in a row group, None for a cell column.
        self._slots = tuple(map({c: i for i, c in enumerate(self._group_columns)}.get, range(len(graph))))
        self._roots = tuple(column for column in graph.order if not graph.parents[column])
        self._blank = bytes(len(graph))
        self._missing = bytes(len(parents) for parents in graph.parents)
        self._failure_reasons = tuple(f"upstream {spec.name} failed" for spec in graph.specs)
        self._skip_reasons = tuple(f"upstream {spec.name} skipped" for spec in graph.specs)
        # All mutable state: rows until they are forgotten, groups until they are finished, and the counts.
        self._rows: dict[int, OpenRow] = {}
        self._groups: dict[int, RowGroup] = {}
        self.load = 0
        """Rows that have a ready cell, plus ready group tasks: what keeps the resources busy. To be read only."""
        self._added = 0
        self._open_rows = 0
        self._ready_tasks = 0
        self._ready_groups = 0
        self._held_tasks = 0
        self._closed = [0] * len(CellState)

    # Rows and groups come and go.

    def add_row(self, row: int, group: int, done: Mapping[int, int] | None = None) -> Progress:
        """Open ``row`` in ``group``.

        ``done``: columns that an earlier run closed, and their states. What a DONE column needs is DONE there too.
        """
        assert row not in self._rows, f"row {row} is there already"
        home = self._groups.get(group)
        if home is None:
            home = self._groups[group] = RowGroup(group, len(self._group_columns))
        assert not home.sealed, f"group {group} is sealed"
        record = OpenRow(row, home, bytearray(self._blank), bytearray(self._missing))
        self._rows[row] = record
        home.rows.append(row)
        home.open += 1
        self._added += 1
        self._open_rows += 1
        progress = Progress()
        if done:
            self._restore(record, done, progress)
        for column in self._roots:
            if record.states[column] == WAITING:
                self._unlock(record, column, progress)
        if not record.open:
            self._conclude(record, progress)
        return progress

    def seal_group(self, group: int) -> Progress:
        """No more rows will come to ``group``: its group columns may start. A finished group is passed over."""
        progress = Progress()
        home = self._groups.get(group)
        if home is None or home.sealed:
            return progress
        home.sealed = True
        for column in self._group_columns:
            self._start(home, column, progress)
        self._conclude_group(home, progress)
        return progress

    def forget_row(self, row: int) -> None:
        """Drop a finished row."""
        record = self._rows.pop(row)
        assert not record.open, f"row {row} is not finished"

    # What became of a task. Reports about tasks that are closed already change nothing.

    def finish(self, task: Task) -> Progress:
        """``task`` is done; a group task for all its live rows."""
        column, unit = task
        row = self._rows.get(unit) if self._slots[column] is None else None
        if row is None or row.states[column] != READY:
            return self._report(task, DONE, "")
        # What almost every report says, of one cell that ran: `_end` for it, without the questions.
        progress = Progress()
        row.states[column] = DONE
        row.open -= 1
        row.ready -= 1
        self._closed[DONE] += 1
        self._ready_tasks -= 1
        self.load -= not row.ready
        progress.closed.append(Closed(unit, column, DONE, ""))
        if self._graph.children[column]:
            self._arrive(row, column, progress)
        if not row.open:
            self._conclude(row, progress)
        return progress

    def fail(self, task: Task, reason: str) -> Progress:
        """``task`` has failed for good; a group task for all its live rows."""
        return self._report(task, FAILED, reason)

    def skip(self, task: Task, reason: str = "when") -> Progress:
        """``task`` is not needed, nor is anything that needs it."""
        return self._report(task, SKIPPED, reason)

    def finish_group(
        self, task: Task, outcomes: Mapping[int, int], reasons: Mapping[int, str], *, among: Sequence[int] | None = None
    ) -> Progress:
        """Group ``task`` has ended, row by row: rows that ``outcomes`` does not name are DONE.

        ``reasons`` says why rows failed or were skipped. Rows that are not live any more are passed over. It has ended
        ``among`` these rows only (None: all), and goes on for the others.
        """
        assert self._slots[task.column] is not None, f"{task} is no group task"
        progress = Progress()
        for row in self._take(task, among):
            state = outcomes.get(row.position, DONE)
            assert state >= DONE, f"row {row.position}: {state} is not a terminal state"
            reason = "" if state == DONE else reasons.get(row.position, CellState(state).name.lower())
            self._end(row, task.column, state, reason, progress)
        return progress

    def hold(self, task: Task) -> bool:
        """Park a ready or running task. False if it is not ready (any more)."""
        return self._move(task, READY, HELD)

    def resume(self, task: Task) -> bool:
        """Make a held task ready again. False if it is not held (any more)."""
        return self._move(task, HELD, READY)

    # Questions.

    def counts(self) -> Counts:
        """Return all counts at this moment."""
        idle_rows = self._open_rows - (self.load - self._ready_groups)
        rows, tasks = (self._added, self._open_rows, idle_rows), (self._ready_tasks, self._held_tasks)
        return Counts(*rows, *tasks, *self._closed[DONE:])

    def live_rows(self, task: Task, among: Sequence[int] | None = None) -> list[int]:
        """Rows for which group ``task`` is to run, all of them or ``among`` some: all they need is done."""
        group = self._groups.get(task.unit)
        return [row.position for row in self._live(group, task.column, among)] if group else []

    def task_state(self, task: Task) -> int:
        """The state of a task; from DONE on it does not matter any more. SKIPPED if its row or group is gone."""
        slot = self._slots[task.column]
        if slot is None:
            row = self._rows.get(task.unit)
            return row.states[task.column] if row else SKIPPED
        group = self._groups.get(task.unit)
        return group.tasks[slot] if group else SKIPPED

    def state(self, row: int, column: int) -> int:
        """The state of a cell of a row that is not forgotten. Live cells share the state of their group task."""
        record = self._rows[row]
        state, slot = record.states[column], self._slots[column]
        return state if slot is None or state != READY else record.group.tasks[slot]

    def unfinished(self, row: int) -> list[tuple[int, int]]:
        """Columns of ``row`` that are not closed, each with its state."""
        states = [(column, self.state(row, column)) for column in range(len(self._blank))]
        return [(column, state) for column, state in states if state < DONE]

    def check(self) -> None:
        """Assert every invariant. Looks at all open rows: for tests and simulation."""
        rows, groups = self._rows.values(), self._groups.values()
        for row in rows:
            row.check(self._slots)
        for group in groups:
            group.check()
            assert group.open == sum(row.group is group and row.open > 0 for row in rows)
            assert group.open or not group.sealed, "a finished group was kept"
        tasks = bytearray().join(group.tasks for group in groups)
        assert self._ready_groups == tasks.count(READY)
        assert self._ready_tasks == tasks.count(READY) + sum(row.ready for row in rows)
        assert self._held_tasks == tasks.count(HELD) + sum(row.states.count(HELD) for row in rows)
        assert self.load == self._ready_groups + sum(row.ready > 0 for row in rows)
        assert self._open_rows == sum(row.open > 0 for row in rows)
        assert self._added * len(self._blank) == sum(self._closed) + sum(row.open for row in rows)

    # The cells of one row.

    def _report(self, task: Task, state: int, reason: str) -> Progress:
        progress = Progress()
        for row in self._take(task):
            self._end(row, task.column, state, reason, progress)
        return progress

    def _end(self, row: OpenRow, column: int, state: int, reason: str, progress: Progress) -> None:
        self._close(row, column, state, reason, progress)
        self._follow(row, column, state, progress)
        if not row.open:
            self._conclude(row, progress)

    def _follow(self, row: OpenRow, column: int, state: int, progress: Progress) -> None:
        """Do to the rest of the row what the end of ``column`` means for it."""
        if state == DONE:
            self._arrive(row, column, progress)
        elif state == SKIPPED:
            self._drop(row, self._graph.reach[column], self._skip_reasons[column], progress)
        else:
            self._drop(row, self._graph.reach[column], self._failure_reasons[column], progress)
            if not self._finish_siblings:
                self._drop(row, self._graph.order, "row failed", progress)

    def _drop(self, row: OpenRow, columns: Sequence[int], reason: str, progress: Progress) -> None:
        """Skip those of ``columns`` that are not closed, and cancel what is ready or held there."""
        for column in columns:
            state = row.states[column]
            if state < DONE:
                if state != WAITING and self._slots[column] is None:
                    progress.cancel.append(Task(column, row.position))
                self._close(row, column, SKIPPED, reason, progress)

    def _close(self, row: OpenRow, column: int, state: int, reason: str, progress: Progress) -> None:
        before = row.states[column]
        row.states[column] = state
        row.open -= 1
        self._closed[state] += 1
        progress.closed.append(Closed(row.position, column, state, reason))
        if self._slots[column] is not None:
            self._leave(row.group, column, before == READY, progress)
        elif before == READY:
            self._ready_tasks -= 1
            row.ready -= 1
            self.load -= not row.ready
        elif before == HELD:
            self._held_tasks -= 1

    def _arrive(self, row: OpenRow, column: int, progress: Progress) -> None:
        """``column`` is done: whoever needs it misses one less."""
        missing = row.missing
        for child in self._graph.children[column]:
            missing[child] -= 1
            if not missing[child] and row.states[child] == WAITING:
                self._unlock(row, child, progress)

    def _unlock(self, row: OpenRow, column: int, progress: Progress) -> None:
        """All that the cell needs is done: it is ready, or live in its group."""
        row.states[column] = READY
        slot = self._slots[column]
        if slot is None:
            self._ready_tasks += 1
            self.load += not row.ready
            row.ready += 1
            progress.ready.append(Task(column, row.position))
            return
        row.group.settled[slot] += 1
        row.group.live[slot] += 1
        self._start(row.group, column, progress)

    def _conclude(self, row: OpenRow, progress: Progress) -> None:
        """Every cell of the row is closed."""
        group = row.group
        progress.finished_rows.append(row.position)
        self._open_rows -= 1
        group.open -= 1
        if not group.open:
            self._conclude_group(group, progress)

    def _restore(self, row: OpenRow, done: Mapping[int, int], progress: Progress) -> None:
        """Take over what an earlier run closed and what follows, losses first: nothing is ready in vain."""
        for column, state in done.items():
            assert state >= DONE, f"row {row.position}: {state} is not a terminal state"
            complete = state != DONE or all(done.get(p) == DONE for p in self._graph.parents[column])
            assert complete, f"row {row.position}: column {column} is done, but not all that it needs"
            row.states[column] = state
            row.open -= 1
            self._closed[state] += 1
            slot = self._slots[column]
            if slot is not None:
                row.group.settled[slot] += 1
        for state in (SKIPPED, FAILED, DONE):
            for column in self._graph.order:
                if done.get(column) == state:
                    self._follow(row, column, state, progress)

    # Group tasks.

    def _start(self, group: RowGroup, column: int, progress: Progress) -> None:
        slot = self._slots[column]
        assert slot is not None
        if group.start(slot):
            self._ready_tasks += 1
            self._ready_groups += 1
            self.load += 1
            progress.ready.append(Task(column, group.number))

    def _leave(self, group: RowGroup, column: int, live: bool, progress: Progress) -> None:
        """A row is closed in a group column: the task need not wait for it, or runs for one row less."""
        slot = self._slots[column]
        assert slot is not None
        if live:
            group.live[slot] -= 1
        else:
            group.settled[slot] += 1
        if not group.deserted(slot):
            self._start(group, column, progress)
            return
        self._end_task(group, slot)
        task = Task(column, group.number)
        if task in progress.ready:
            progress.ready.remove(task)  # Started by this same event: nobody has seen it yet.
        else:
            progress.cancel.append(task)

    def _end_task(self, group: RowGroup, slot: int) -> None:
        if group.tasks[slot] == READY:
            self._ready_tasks -= 1
            self._ready_groups -= 1
            self.load -= 1
        else:
            self._held_tasks -= 1
        group.tasks[slot] = DONE

    def _take(self, task: Task, among: Sequence[int] | None = None) -> Sequence[OpenRow]:
        """The rows that a report about ``task`` is for: none if it came too late. It ends with the last of its rows."""
        state = self.task_state(task)
        assert state != WAITING, f"{task} has not been ready"
        if state >= DONE:
            return ()
        slot = self._slots[task.column]
        if slot is None:
            return (self._rows[task.unit],)
        group = self._groups[task.unit]
        rows = self._live(group, task.column, among)
        if len(rows) == group.live[slot]:
            self._end_task(group, slot)
        return rows

    def _live(self, group: RowGroup, column: int, among: Sequence[int] | None = None) -> list[OpenRow]:
        known = (self._rows.get(row) for row in (group.rows if among is None else among))
        return [row for row in known if row and row.states[column] == READY]

    def _conclude_group(self, group: RowGroup, progress: Progress) -> None:
        if group.sealed and not group.open:
            del self._groups[group.number]
            progress.finished_groups.append(group.number)

    def _move(self, task: Task, before: int, after: int) -> bool:
        if self.task_state(task) != before:
            return False
        change = 1 if after == READY else -1
        self._ready_tasks += change
        self._held_tasks -= change
        slot = self._slots[task.column]
        if slot is not None:
            self._groups[task.unit].tasks[slot] = after
            self._ready_groups += change
            self.load += change
            return True
        row = self._rows[task.unit]
        row.states[task.column] = after
        busy = row.ready > 0
        row.ready += change
        self.load += (row.ready > 0) - busy
        return True
