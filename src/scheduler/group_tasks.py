"""The tasks of group columns: one for each row group, from when its rows have come until it has ended for all of them.

Decides when such a task is ready, and when nobody needs it any more. It knows rows only as counts and numbers; what
they need, and what becomes of them, is the frontier's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph import Scope
from .row_group import RowGroup
from .tasks import DONE, HELD, READY, SKIPPED, Task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .graph import Graph
    from .row_group import OpenRow
    from .tasks import Progress

__all__ = ["GroupTasks"]


class GroupTasks:
    """The row groups that are not finished, and their tasks.

    To be read only: ``slots``, for each column its place in a group, None for a cell column; ``ready`` and ``held``,
    how many tasks are in that state.
    """

    __slots__ = ("_columns", "_groups", "held", "ready", "slots")

    def __init__(self, graph: Graph) -> None:
        self._columns = tuple(c for c, spec in enumerate(graph.specs) if spec.scope is Scope.GROUP)
        self.slots = tuple(map({c: slot for slot, c in enumerate(self._columns)}.get, range(len(graph))))
        self._groups: dict[int, RowGroup] = {}
        self.ready = 0
        self.held = 0

    def join(self, row: int, number: int) -> RowGroup:
        """``row`` belongs to group ``number``, new if it was not known."""
        group = self._groups.get(number)
        if group is None:
            group = self._groups[number] = RowGroup(number, len(self._columns))
        assert not group.sealed, f"group {number} is sealed"
        group.rows.append(row)
        group.open += 1
        return group

    def find(self, number: int) -> RowGroup | None:
        """The group, unless it is finished."""
        return self._groups.get(number)

    def seal(self, number: int, progress: Progress) -> None:
        """No more rows will come to group ``number``."""
        group = self._groups.get(number)
        if group is None or group.sealed:
            return
        group.sealed = True
        for column in self._columns:
            self._start(group, column, progress)
        self.conclude(group, progress)

    def arrived(self, row: OpenRow, column: int, progress: Progress) -> None:
        """All that ``row`` needs for ``column`` is done: it is live there."""
        group, slot = row.group, self.slots[column]
        assert slot is not None
        group.settled[slot] += 1
        group.live[slot] += 1
        self._start(group, column, progress)

    def left(self, row: OpenRow, column: int, live: bool, progress: Progress) -> None:
        """``row`` is closed in ``column``: the task need not wait for it, or runs for one row less."""
        group, slot = row.group, self.slots[column]
        assert slot is not None
        if live:
            group.live[slot] -= 1
        else:
            group.settled[slot] += 1
        if not group.deserted(slot):
            self._start(group, column, progress)
            return
        task = Task(column, group.number)
        self.end(task)
        if task in progress.ready:
            progress.ready.remove(task)  # Started by this same event: nobody has seen it yet.
        else:
            progress.cancel.append(task)

    def conclude(self, group: RowGroup, progress: Progress) -> None:
        """Every row of ``group`` is finished: so is the group, if no more will come."""
        if group.sealed and not group.open:
            del self._groups[group.number]
            progress.finished_groups.append(group.number)

    def state(self, task: Task) -> int:
        """The state of a group task. SKIPPED if its group is gone."""
        group, slot = self._groups.get(task.unit), self.slots[task.column]
        assert slot is not None, f"{task} is no group task"
        return group.tasks[slot] if group else SKIPPED

    def move(self, task: Task, state: int) -> None:
        """A ready ``task`` is held, or a held one is ready again."""
        change = 1 if state == READY else -1
        self.ready += change
        self.held -= change
        self._set(task, state)

    def end(self, task: Task) -> None:
        """``task``, which was ready or held, has ended for all rows."""
        if self.state(task) == READY:
            self.ready -= 1
        else:
            self.held -= 1
        self._set(task, DONE)

    def check(self, rows: Iterable[OpenRow]) -> None:
        """Assert the invariants. ``rows`` are all that are not forgotten."""
        groups = self._groups.values()
        open_rows = dict.fromkeys(self._groups, 0)
        for row in rows:
            if row.open:
                open_rows[row.group.number] += 1
        for group in groups:
            group.check()
            assert group.open == open_rows[group.number]
            assert group.open or not group.sealed, "a finished group was kept"
        states = bytearray().join(group.tasks for group in groups)
        assert (self.ready, self.held) == (states.count(READY), states.count(HELD))

    def _start(self, group: RowGroup, column: int, progress: Progress) -> None:
        slot = self.slots[column]
        assert slot is not None
        if group.start(slot):
            self.ready += 1
            progress.ready.append(Task(column, group.number))

    def _set(self, task: Task, state: int) -> None:
        slot = self.slots[task.column]
        assert slot is not None
        self._groups[task.unit].tasks[slot] = state
