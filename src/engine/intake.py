"""Rows on their way in: pulled from the source, matched with what an earlier run committed, given to the core."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..errors import ConflictingResult
from ..scheduler.window import HORIZON_FACTOR, HYSTERESIS, Window
from ..storage.patience import patiently
from ..wakeup import loop_clock
from .plan import lanes_on_the_way, lanes_to_do_without
from .restore import Restored, restore_row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..admission.controller import AdmissionController
    from ..storage.ports import RunHandle, StoredRow
    from ..values import ResourceKey
    from .core import RunCore
    from .options import RunOptions
    from .rows import RowSource
    from .telling import RunTeller
    from .values import ColumnPlan, OpenRow

__all__ = ["CELLS_PER_JOB", "CELLS_PER_PULL", "ROWS_PER_JOB", "ROWS_PER_PULL", "Intake"]

LOOKS_BETWEEN_CAPACITIES = 16
"""How often the window is asked before the capacity, which changes slowly, is summed up again."""

ROWS_PER_PULL = 32
"""Rows taken in before the loop gets a turn: checking and encoding one costs some 20 us."""

ROWS_PER_JOB = 2
"""Rows that the end of a job may take in. Many ends in one turn must not add up."""

CELLS_PER_PULL = 256
CELLS_PER_JOB = 16
"""The same for the cells of those rows, some 3 us each: with 64 columns two rows are as much as 20 with one. A row is
never taken in parts; where it is too much for the end of a job, it is left to the loop's own step."""

RUN_AHEAD = 16
"""So many times the window may be open while some resource has too little to do and another one too much: the rows that
the first one waits for may be far, or not there at all."""


class Intake:
    """The source of one run and the lanes that its rows will need."""

    def __init__(
        self,
        source: RowSource,
        core: RunCore,
        handle: RunHandle,
        controller: AdmissionController,
        options: RunOptions,
        *,
        wall_clock: Callable[[], float],
        teller: RunTeller | None = None,
    ) -> None:
        self._teller = teller
        self.ended = False
        self.pulling = False
        self.drained = False
        """Whether rows were left because nobody wanted them any more."""
        self.resources: dict[str, ResourceKey] = {
            plan.lane: plan.resource for plan in core.plans if plan.resource is not None
        }
        self.group_rows = options.group_size if any(plan.group for plan in core.plans) else 1
        columns = len(core.plans)
        self.rows_per_pull = max(1, min(ROWS_PER_PULL, CELLS_PER_PULL // columns))
        """Rows to take in before the loop gets a turn."""
        self.rows_per_job = min(ROWS_PER_JOB, CELLS_PER_JOB // columns)
        """Rows that the end of a job may take in."""
        self.rows_for_one = 1 // columns
        """The same while the loop's own step takes in all it may: what takes the place of the one cell that ended."""
        self._window = Window(
            max_rows=options.max_open_rows, max_bytes=options.max_open_bytes, group_rows=self.group_rows
        )
        self._capacity = 0.0
        # Above this load no row is wanted, whatever else changes, as long as the capacity stays.
        self._refill_below = inf
        self._looks = 0  # how often the window may still be asked with this capacity
        self._closings: int = -1  # how many the gate had counted when all resources were, or were not, open
        self._all_open = False
        self._source = source
        self._core = core
        self._groups = core.frontier.groups
        self._handle = handle
        self._gate = controller.gate
        self._options = options
        self._wall_clock = wall_clock
        self._clock = loop_clock()
        self._resumed = handle.info.rows > 0  # a run that begins has nothing in the store, which is not asked
        self.waits = source.waits
        """Whether the source may keep the run waiting for its next row."""
        self.immediate = not source.waits and not self._resumed
        """Whether rows can be taken in without waiting: neither the source nor the store has to be asked for them."""
        self._index = {plan.name: plan.index for plan in core.plans}
        self._local = any(plan.resource is None for plan in core.plans)
        self._ways = lanes_on_the_way(core.plans)
        self._avoidable = lanes_to_do_without(core.plans) & self.resources.keys()

    async def pull(self, room: int) -> int:
        """Take in up to ``room`` rows, those that come together; ``ended`` is set when there are no more. Returns how
        many came. Raises InputError.
        """
        self.pulling = True
        try:
            rows = await self._source.pull(room, self._window.left(self._core.open.bytes))
            stored: Mapping[int, StoredRow] = await self._stored(rows) if rows and self._resumed else {}
        finally:
            self.pulling = False
        if self.drained:
            return 0
        self._take(rows, stored, self._clock())
        return len(rows)

    @property
    def occupied(self) -> bool:
        """Whether room is taken by rows that are finished, and not committed or not taken yet; or was so until now."""
        return bool(self._core.journal.backlog or self._core.finished)

    def full(self) -> bool:
        """Whether the open rows already weigh all that they may, or will. A group that is begun is completed first."""
        return self._window.full(self._core.open.expected_bytes()) and not (self.group_rows > 1 and self._core.owed)

    async def aclose(self) -> None:
        """No more rows are wanted."""
        await self._source.aclose()

    def pull_now(self, room: int, now: float) -> None:
        """``pull`` without waiting, where ``immediate`` allows it; it stops at the row that fills the bytes."""
        core = self._core
        left = self._window.left(core.open.bytes)
        if not room:
            return
        for row in self._source.at_hand:
            left -= row.bytes
            core.add_row(row, None, now)
            if self._teller is not None:
                self._teller.row_came(row, None, core.groups.number)
            room -= 1
            if not room or (left <= 0 and not (self.group_rows > 1 and core.owed)):
                return
        self._end()

    def room(self) -> int:
        """How many rows to pull now. Finished rows that nobody has taken yet are open too (S6)."""
        core, options = self._core, self._options
        untaken = len(core.finished) if core.finished else 0
        load = core.frontier.busy_rows + self._groups.ready  # the frontier's load, asked for at every step
        all_open = self._all_open and self._gate.closings == self._closings
        if load + untaken > self._refill_below and (self._avoidable or not all_open):
            load = self._open_load(load)
        load += untaken
        self._looks -= 1
        if self._looks <= 0 or (load > self._refill_below and not core.dispatcher.total):
            self._look_at_capacity()
        elif load > self._refill_below:
            return 0  # as far as is known nothing is short of rows
        owed = core.owed if self.group_rows > 1 else 0
        return self._window.room(
            capacity=self._capacity,
            load=load,
            open_rows=min(len(core.rows) + untaken, options.max_open_rows - owed),
            open_bytes=core.open.expected_bytes(),
            row_bytes=core.open.row_bytes,
            owed=owed,
        )

    def _open_load(self, load: int) -> int:
        """``load`` without what only waits for a closed resource: that is no reason to keep the others idle (T26).

        Nor is what waits for a slow one, where other rows can do without it. (Where every row needs it, it sets the
        pace of all, and rows that run ahead of it would gain nothing.)
        """
        gate, dispatcher = self._gate, self._core.dispatcher
        full = {lane for lane in self._avoidable if self._has_plenty(lane)}
        if self._all_open and gate.closings == self._closings and not full:
            return load
        self._closings, self._all_open = gate.closings, all(map(gate.is_open, self.resources.values()))
        now = self._clock()
        cooling = {lane for lane, resource in self.resources.items() if gate.is_cooling(resource, now)}
        closed = full | cooling
        if not any(dispatcher.ready(lane) for lane in closed):
            return load
        # Only what a new row gets to without passing a closed resource gains anything from new rows.
        gaining = {plan.lane for plan, way in zip(self._plans, self._ways, strict=True) if not way & closed}
        served = [resource for lane, resource in self.resources.items() if lane in gaining]
        if not served:
            return load
        in_flight = sum(gate.scopes()[gate.scope_of(resource)].in_flight for resource in served)
        open_load = in_flight + sum(dispatcher.ready(lane) for lane in gaining)
        return min(load, open_load if cooling else max(open_load, load // RUN_AHEAD))

    def _has_plenty(self, lane: str) -> bool:
        """Whether as much waits for ``lane`` as its share of the window."""
        capacity = self._gate.capacity(self.resources[lane])
        return self._core.dispatcher.ready(lane) >= max(1.0, HORIZON_FACTOR * capacity)

    def _take(self, rows: Sequence[OpenRow], stored: Mapping[int, StoredRow], now: float) -> None:
        for row in rows:
            restored = self._restored(row, stored) if stored else None
            self._core.add_row(row, restored, now)
            if self._teller is not None:
                self._teller.row_came(row, restored, self._core.groups.number)
        if not rows:
            self._end()

    def drain(self) -> bool:
        """No more rows are wanted; those that are in are to be finished. False if all of them had come."""
        if self.ended:
            return False
        self.drained = True
        self.pulling = False  # nobody waits for what the source may yet have
        self._end()
        return True

    def _end(self) -> None:
        self.ended = True
        self._core.seal()

    def _look_at_capacity(self) -> None:
        """How many tasks of this run could be in flight at once as things stand."""
        options, gate = self._options, self._gate
        most = float(options.max_workers)
        capacity = sum(min(most, gate.capacity(resource)) for resource in self.resources.values())
        if self._local:
            capacity += options.local_workers
        self._capacity = max(capacity, options.min_open_rows / HORIZON_FACTOR)
        self._refill_below = (1.0 - HYSTERESIS) * HORIZON_FACTOR * self._capacity
        self._looks = LOOKS_BETWEEN_CAPACITIES

    def scope_of(self, lane: str) -> str | None:
        """The admission scope that a lane's blocks apply to; None for local work."""
        resource = self.resources.get(lane)
        return None if resource is None else self._gate.scope_of(resource)

    async def _stored(self, rows: Sequence[OpenRow]) -> Mapping[int, StoredRow]:
        """What the store has of ``rows``. They cannot be pulled again, so a store that is away is asked again."""
        away = None if self._teller is None else self._teller.store_retried
        first, last = rows[0].record.row, rows[-1].record.row
        stored = await patiently(lambda: self._handle.load(first, last + 1), away)
        found = {row.record.row: row for row in stored}
        fresh = [row.record.row_id for row in rows if row.record.row not in found]
        if fresh:
            for row_id, position in (await patiently(lambda: self._handle.find(fresh), away)).items():
                raise ConflictingResult(
                    f"the row {row_id!r} stands at another place than in the store (there: {position}): keep the "
                    "order of the rows, add new ones at the end, or give the run another name"
                )
        return found

    def _restored(self, row: OpenRow, stored: Mapping[int, StoredRow]) -> Restored | None:
        known = stored.get(row.record.row)
        if known is None:
            return None
        again = self._options.retry_failed
        return restore_row(row.record, known, self._plans, self._index, self._wall_clock(), retry_failed=again)

    @property
    def _plans(self) -> Sequence[ColumnPlan]:
        return self._core.plans
