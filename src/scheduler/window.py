"""How many rows to pull now, so that every resource has work waiting and memory stays bounded.

Decides a number of rows; it neither pulls nor counts them. The horizon is about twice what the resources
can carry at once: one time leaves them short now and then, without bound the oldest rows finish last
(DESIGN, section 9). Between nine tenths of the horizon and the horizon nothing is pulled, so a capacity
that breathes does not make rows come in one by one.

Rows that have nothing to run (held back, or waiting for the rest of their group) do not count against the
horizon, so a model in cooldown does not starve the others. They do count against the hard bounds on rows
and bytes.

A row group is begun only if all its rows fit, and once begun it may always be completed: otherwise rows
could wait for a group that never closes.
"""

from __future__ import annotations

from math import ceil
from typing import Final

__all__ = ["HORIZON_FACTOR", "HYSTERESIS", "Window"]

HORIZON_FACTOR: Final = 2.0
HYSTERESIS: Final = 0.1


class Window:
    """The bounds on what is open at once (promise S6).

    ``max_rows`` and ``max_bytes`` bound all open rows; ``max_bytes`` may be passed by the row that crosses
    it, since its size is known only then. ``group_rows`` is the size of a row group, 1 where no column
    needs whole groups.
    """

    __slots__ = ("_capacity", "_filling", "_group_rows", "_horizon", "_max_bytes", "_max_rows", "_refill_at")

    def __init__(self, *, max_rows: int, max_bytes: int, group_rows: int = 1) -> None:
        assert 1 <= group_rows <= max_rows, "no group would ever fit"
        assert max_bytes >= 1
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._group_rows = group_rows
        self._filling = True
        # What follows from the capacity, which changes slowly.
        self._capacity = -1.0
        self._horizon = 0
        self._refill_at = 0.0

    def room(
        self,
        *,
        capacity: float,
        load: int,
        open_rows: int,
        open_bytes: float = 0.0,
        row_bytes: float = 0.0,
        owed: int = 0,
    ) -> int:
        """Return how many rows to pull now.

        ``capacity`` is what all resources can carry at once, local work included (inf: only the hard bounds
        hold); ``load`` the rows and group tasks that have something to run (`Frontier.load`); ``owed`` the
        rows that the group last begun still lacks; ``row_bytes`` what a row weighs in the end, as far as is known, and
        ``open_bytes`` what those that are open will. Pull the first, then go on one by one until :meth:`full`
        says so.
        """
        assert 0 <= owed < self._group_rows
        assert open_rows + owed <= self._max_rows
        if capacity != self._capacity:
            self._look_ahead(capacity)
        if load >= self._horizon:
            self._filling = False
        elif load <= self._refill_at:
            self._filling = True
        room = 0
        if self._filling:
            groups = (self._max_rows - open_rows - owed) // self._group_rows
            by_rows, by_bytes = owed + groups * self._group_rows, self._by_bytes(open_rows, open_bytes, row_bytes, owed)
            room = min(self._horizon - load, by_rows, by_bytes)
        starved = load == 0 and (open_rows == 0 or owed > 0)
        return 1 if starved and room < 1 else room

    def full(self, open_bytes: float) -> bool:
        """Whether the open rows already hold all the bytes that they may, or will."""
        return open_bytes >= self._max_bytes

    def left(self, open_bytes: int) -> int:
        """How many bytes the open rows may still grow by."""
        return self._max_bytes - open_bytes

    def _look_ahead(self, capacity: float) -> None:
        assert capacity >= 0
        self._capacity = capacity
        self._horizon = max(1, ceil(min(HORIZON_FACTOR * capacity, self._max_rows)))
        self._refill_at = (1 - HYSTERESIS) * self._horizon

    def _by_bytes(self, open_rows: int, open_bytes: float, row_bytes: float, owed: int) -> int:
        """As many as fit if they are like others; a group that is begun must fit as a whole, unless it is alone."""
        per_row = row_bytes
        if open_rows and open_bytes > row_bytes * open_rows:
            per_row = open_bytes / open_rows
        if not per_row:
            return self._max_rows
        rows = max(0 if open_rows else self._group_rows, int((self._max_bytes - open_bytes) / per_row))
        begun = max(0, rows - owed) // self._group_rows
        return min(rows, owed + begun * self._group_rows)
