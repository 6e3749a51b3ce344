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

from .group_tasks import GroupTasks
from .row_group import OpenRow
from .tasks import DONE, FAILED, HELD, READY, SKIPPED, WAITING, CellState, Closed, Counts, Progress, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .graph import Graph

__all__ = ["OWN_CONDITION", "CellState", "Closed", "Counts", "Frontier", "Progress", "Task"]


OWN_CONDITION = "when"
"""Why a cell is skipped by its own condition; every other reason names another column."""


class Frontier:
    """The readiness of all open rows. Rows and groups are numbered by the caller.

    ``finish_siblings`` lets the other cells of a row that failed run on.
    """

    def __init__(self, graph: Graph, *, finish_siblings: bool = False) -> None:
        self._graph = graph
        self._finish_siblings = finish_siblings
        self.groups = GroupTasks(graph)
        """The group columns' side of it. To be read only."""
        self._slots = self.groups.slots
        # How a row begins: cells that need nothing are ready. Those of group columns are told to their group.
        roots = [column for column in graph.order if not graph.parents[column]]
        self._first_ready = [column for column in roots if self._slots[column] is None]
        self._first_live = [column for column in roots if self._slots[column] is not None]
        self._first_states = bytes(READY if column in self._first_ready else WAITING for column in range(len(graph)))
        self.starts = None if self._first_live or not len(graph) else self._first_ready
        """The columns of which a new row has a cell ready; None where there is more to say of a row that begins."""
        self.leaves = [slot is None and not graph.children[column] for column, slot in enumerate(self._slots)]
        """Whether a column is of cells that nothing needs, for which ``finish_leaf`` may be used."""
        self._blank = bytes(len(graph))
        self._missing = bytes(len(parents) for parents in graph.parents)
        self._failure_reasons = tuple(f"upstream {spec.name} failed" for spec in graph.specs)
        self._skip_reasons = tuple(f"upstream {spec.name} skipped" for spec in graph.specs)
        # All mutable state beside that of the groups: rows until they are forgotten, and the counts.
        self._rows: dict[int, OpenRow] = {}
        self.busy_rows = 0
        """Rows that have a ready cell. To be read only."""
        self._added = 0
        self._open_rows = 0
        self._ready_cells = 0
        self.held_cells = [0] * len(graph)
        """Cells that are held by column, those of group columns apart: they are in ``groups``. To be read only."""
        self._closed = [0] * len(CellState)

    # Rows and groups come and go.

    def add_row(
        self, row: int, group: int, done: Mapping[int, int] | None = None, record: OpenRow | None = None
    ) -> Progress:
        """Open ``row`` in ``group``.

        ``done``: columns that an earlier run closed, and their states. What a DONE column needs is DONE there too. What
        is to be remembered of the row goes into ``record``; None makes one.
        """
        record = OpenRow(row) if record is None else record
        self.begin(row, group, record)
        progress = Progress()
        if not done:
            progress.ready.extend((column, row) for column in self._first_ready)
        else:
            self._ready_cells -= record.ready
            self.busy_rows -= record.ready > 0
            record.ready, record.states = 0, bytearray(self._blank)
            self._restore(record, done, progress)
            for column in self._first_ready:
                if record.states[column] == WAITING:
                    self._unlock(record, column, progress)
        for column in self._first_live:
            if record.states[column] == WAITING:
                self._unlock(record, column, progress)
        if not record.open:
            self._conclude(record, progress)
        return progress

    def begin(self, row: int, group: int, record: OpenRow) -> None:
        """All that ``add_row`` does with a row of which nothing is known, where it says of it what ``starts`` says."""
        assert row not in self._rows, f"row {row} is there already"
        ready = len(self._first_ready)
        record.group = self.groups.join(row, group)
        record.states = bytearray(self._first_states)
        record.missing = bytearray(self._missing)
        record.open = len(self._blank)
        record.ready = ready
        self._rows[row] = record
        self._added += 1
        self._open_rows += 1
        self._ready_cells += ready
        self.busy_rows += ready > 0

    def seal_group(self, group: int) -> Progress:
        """No more rows will come to ``group``: its group columns may start. A finished group is passed over."""
        progress = Progress()
        self.groups.seal(group, progress)
        return progress

    def forget_row(self, row: int) -> None:
        """Drop a finished row."""
        record = self._rows.pop(row)
        assert not record.open, f"row {row} is not finished"
        del record.group, record.states, record.missing

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
        self._ready_cells -= 1
        self.busy_rows -= not row.ready
        progress.closed.append((unit, column, DONE, ""))
        if self._graph.children[column]:
            self._arrive(row, column, progress)
        if not row.open:
            self._conclude(row, progress)
        return progress

    def finish_leaf(self, task: Task) -> bool | None:
        """The same of a cell of one of the ``leaves``, in a word: whether its row is finished with it. None if there is
        something else to say, and nothing has changed: ask ``finish``.
        """
        column, unit = task
        row = self._rows.get(unit)
        if row is None or row.states[column] != READY:
            return None
        last = row.open == 1
        if last:
            group = row.group
            if group.open == 1 and group.sealed:
                return None
            group.open -= 1
            self._open_rows -= 1
        row.states[column] = DONE
        row.open -= 1
        row.ready -= 1
        self._closed[DONE] += 1
        self._ready_cells -= 1
        self.busy_rows -= not row.ready
        return last

    def fail(self, task: Task, reason: str) -> Progress:
        """``task`` has failed for good; a group task for all its live rows."""
        return self._report(task, FAILED, reason)

    def skip(self, task: Task, reason: str = OWN_CONDITION) -> Progress:
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

    @property
    def load(self) -> int:
        """Rows that have a ready cell, plus ready group tasks: what keeps the resources busy."""
        return self.busy_rows + self.groups.ready

    def counts(self) -> Counts:
        """Return all counts at this moment."""
        groups, idle_rows = self.groups, self._open_rows - self.busy_rows
        ready, held = self._ready_cells + groups.ready, sum(self.held_cells) + groups.held
        return Counts(self._added, self._open_rows, idle_rows, ready, held, *self._closed[DONE:])

    def live_rows(self, task: Task, among: Sequence[int] | None = None) -> list[int]:
        """Rows for which group ``task`` is to run, all of them or ``among`` some: all they need is done."""
        return [row.position for row in self._live(task, among)]

    def task_state(self, task: Task) -> int:
        """The state of a task; from DONE on it does not matter any more. SKIPPED if its row or group is gone."""
        if self._slots[task.column] is not None:
            return self.groups.state(task)
        row = self._rows.get(task.unit)
        return row.states[task.column] if row else SKIPPED

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
        rows = self._rows.values()
        for row in rows:
            row.check(self._slots)
        self.groups.check(rows)
        assert self._ready_cells == sum(row.ready for row in rows)
        for column, held in enumerate(self.held_cells):
            assert held == sum(row.states[column] == HELD for row in rows)
        assert self.busy_rows == sum(row.ready > 0 for row in rows)
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
        progress.closed.append((row.position, column, state, reason))
        if self._slots[column] is not None:
            self.groups.left(row, column, before == READY, progress)
        elif before == READY:
            self._ready_cells -= 1
            row.ready -= 1
            self.busy_rows -= not row.ready
        elif before == HELD:
            self.held_cells[column] -= 1

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
        if self._slots[column] is not None:
            self.groups.arrived(row, column, progress)
            return
        self._ready_cells += 1
        self.busy_rows += not row.ready
        row.ready += 1
        progress.ready.append((column, row.position))

    def _conclude(self, row: OpenRow, progress: Progress) -> None:
        """Every cell of the row is closed."""
        progress.finished_rows.append(row.position)
        self._open_rows -= 1
        group = row.group
        group.open -= 1
        if not group.open:
            self.groups.conclude(group, progress)

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

    def _take(self, task: Task, among: Sequence[int] | None = None) -> Sequence[OpenRow]:
        """The rows that a report about ``task`` is for: none if it came too late. It ends with the last of its rows."""
        state = self.task_state(task)
        assert state != WAITING, f"{task} has not been ready"
        if state >= DONE:
            return ()
        slot = self._slots[task.column]
        if slot is None:
            return (self._rows[task.unit],)
        rows, group = self._live(task, among), self.groups.find(task.unit)
        if group is not None and len(rows) == group.live[slot]:
            self.groups.end(task)
        return rows

    def _live(self, task: Task, among: Sequence[int] | None = None) -> list[OpenRow]:
        group = self.groups.find(task.unit)
        if group is None:
            return []
        known = (self._rows.get(row) for row in (group.rows if among is None else among))
        return [row for row in known if row and row.states[task.column] == READY]

    def _move(self, task: Task, before: int, after: int) -> bool:
        if self.task_state(task) != before:
            return False
        if self._slots[task.column] is not None:
            self.groups.move(task, after)
            return True
        change = 1 if after == READY else -1
        self._ready_cells += change
        self.held_cells[task.column] -= change
        row = self._rows[task.unit]
        row.states[task.column] = after
        busy = row.ready > 0
        row.ready += change
        self.busy_rows += (row.ready > 0) - busy
        return True
