"""What the frontier remembers of an open row and of a row group: bytes and counts, no values.

A row group decides when the one task of a group column may start: once the group is sealed and every row of
it is *settled* there, that is live (all it needs is done) or closed. It does not know what columns need.
"""

from __future__ import annotations

from .tasks import DONE, HELD, READY, WAITING

__all__ = ["OpenRow", "RowGroup"]


class RowGroup:
    """Rows that are open together. A *slot* stands for one group column."""

    __slots__ = ("live", "number", "open", "rows", "sealed", "settled", "tasks")

    def __init__(self, number: int, slots: int) -> None:
        self.number = number
        self.rows: list[int] = []
        self.open = 0
        self.sealed = False
        # Per slot: rows that are live or closed there, rows that are live, and the state of the task.
        self.settled = [0] * slots
        self.live = [0] * slots
        self.tasks = bytearray(slots)

    def start(self, slot: int) -> bool:
        """Whether the task becomes ready by this. Without a live row there is nothing to run, ever."""
        if not self.sealed or self.tasks[slot] != WAITING or self.settled[slot] < len(self.rows):
            return False
        self.tasks[slot] = READY if self.live[slot] else DONE
        return self.live[slot] > 0

    def deserted(self, slot: int) -> bool:
        """Whether the task is ready, running or held for no row at all."""
        return self.tasks[slot] in (READY, HELD) and not self.live[slot]

    def check(self) -> None:
        """Assert what a group can say about itself."""
        assert 0 <= self.open <= len(self.rows)
        for slot, state in enumerate(self.tasks):
            assert 0 <= self.live[slot] <= self.settled[slot] <= len(self.rows)
            complete = self.sealed and self.settled[slot] == len(self.rows)
            assert (state != WAITING) == complete, "a group task starts exactly when nothing is missing"
            assert not self.deserted(slot), "nobody needs this group task"
            assert state < DONE or not self.live[slot], "a group task that ended left a row behind"


class OpenRow:
    """One row. ``missing`` counts, per column, the parents that are not done.

    READY in a group column means that the row is live there. ``open`` counts cells that are not closed, ``ready``
    cell tasks that are queued or running. All but ``position`` is the frontier's to set, and gone once it has forgotten
    the row. Who keeps more about a row derives from this: garbage collection looks at every object of every open row.
    """

    __slots__ = ("group", "missing", "open", "position", "ready", "states")

    group: RowGroup
    states: bytearray
    missing: bytearray
    open: int
    ready: int

    def __init__(self, position: int) -> None:
        self.position = position

    def check(self, slots: tuple[int | None, ...]) -> None:
        """Assert what a row can say about itself. ``slots`` are the columns' slots, None for cell columns."""
        assert self.open == sum(state < DONE for state in self.states)
        cells = [state for state, slot in zip(self.states, slots, strict=True) if slot is None]
        assert self.ready == cells.count(READY)
        for state, missing, slot in zip(self.states, self.missing, slots, strict=True):
            assert state >= DONE or (state == WAITING) == (missing > 0), "open cells wait for parents, or are ready"
            assert slot is None or state != HELD, "a group column is held as a task, not row by row"
