"""The store in memory: for tests, for trying things out, and the reference for every other store.

It keeps its promises (all or nothing, first outcome wins, fencing) except that it survives nothing. A commit of up to
``RECORDS_PER_TURN`` records never suspends, so a test that uses it sees one state between any two awaits; a larger one
lets others have their turns while it is being checked (T25), and is there as a whole from one moment to the next.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from ..errors import StoreError
from . import rules
from .memory_state import Change, RunState
from .ports import NOT_RENEWED, TERMINAL, Durability, Swept

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from ..values import Usage
    from .ports import Batch, RunInfo, StoredRow

__all__ = ["RECORDS_PER_TURN", "MemoryRun", "MemoryStore"]

RECORDS_PER_TURN: Final = 2_048
"""Records of one commit that are checked before the loop gets a turn: about 2 ms."""


class MemoryStore:
    """A :class:`~headgate.storage.ports.RunStore` that keeps everything in this process: memory grows with the run.

    ``max_payload`` is in bytes, ``retention_s`` the least that sweeps by this object keep, ``clock`` gives wall-clock
    seconds.
    """

    durability = Durability.NONE

    def __init__(
        self,
        *,
        max_payload: int = rules.MAX_PAYLOAD,
        retention_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        rules.check_retention(retention_s)
        self._retention_s = retention_s
        self._runs: dict[str, RunState] = {}
        self._learned: dict[str, bytes] = {}  # by run, the latest at the end
        self._registers: dict[str, tuple[int, bytes]] = {}
        self._max_payload = max_payload
        self._clock = clock
        self._closed = False

    async def probe(self) -> None:
        """Need nothing."""
        self._check_open()

    async def open_run(
        self, run: str, fingerprints: Mapping[str, str], *, renewed: Collection[str] = (), kept: Collection[str] = ()
    ) -> MemoryRun:
        """See :meth:`headgate.storage.ports.RunStore.open_run`."""
        self._check_open()
        state = self._runs.get(run) or RunState(run, created_at=self._clock())
        if not state.swept:
            state.check_whole()
        unchanged = {name: mark for name, mark in fingerprints.items() if name not in renewed and name not in kept}
        rules.check_fingerprints(run, state.fingerprints, unchanged)
        self._runs[run] = state
        state.open(fingerprints, renewed, self._clock())
        return MemoryRun(state, self._learned, self._max_payload, self._clock)

    def read_rows(self, run: str, *, batch: int = 500, renewed: Mapping[str, str] = NOT_RENEWED) -> Iterator[StoredRow]:
        """See :meth:`headgate.storage.ports.RunStore.read_rows`."""
        assert batch > 0, f"batch {batch}: at least one row at a time"
        state = self._kept(run)
        state.check_whole()
        return _each(state, sorted(state.rows), renewed)

    def read_runs(self) -> tuple[str, ...]:
        """See :meth:`headgate.storage.ports.RunStore.read_runs`."""
        return tuple(sorted(name for name, state in self._runs.items() if not state.swept))

    def read_info(self, run: str) -> RunInfo:
        """See :meth:`headgate.storage.ports.RunStore.read_info`."""
        return self._kept(run).info()

    def read_spent(self, run: str) -> dict[str, Usage]:
        """See :meth:`headgate.storage.ports.RunStore.read_spent`."""
        return self._kept(run).usage()

    def read_learned(self, run: str) -> bytes | None:
        """See :meth:`headgate.storage.ports.RunStore.read_learned`."""
        self._kept(run)
        return self._learned.get(run)

    def count_outcomes(self, run: str) -> int:
        """See :meth:`headgate.storage.ports.RunStore.count_outcomes`."""
        return self._kept(run).outcomes()

    async def sweep(self, *, keep_s: float, statuses: Collection[str] = TERMINAL, spare: Collection[str] = ()) -> Swept:
        """See :meth:`headgate.storage.ports.RunStore.sweep`."""
        self._check_open()
        rules.check_sweep(keep_s, statuses, spare, self._retention_s)
        before = self._clock() - keep_s
        ended = [
            state for state in self._runs.values() if state.ended_before(before, statuses) and state.name not in spare
        ]
        for state in ended:
            state.drop()
        return Swept(tuple(state.name for state in ended))

    async def read_register(self, name: str) -> tuple[int, bytes]:
        """See :meth:`headgate.restart.ports.DecisionStore.read_register`."""
        self._check_open()
        return self._registers.get(name, (0, b""))

    async def write_register(self, name: str, data: bytes, *, after: int) -> bool:
        """See :meth:`headgate.restart.ports.DecisionStore.write_register`."""
        self._check_open()
        rules.check_register(name, data, after)
        if self._registers.get(name, (0, b""))[0] != after:
            return False
        self._registers[name] = (after + 1, data)
        return True

    async def aclose(self) -> None:
        """Take no more work. What is stored can still be read from this object."""
        self._closed = True

    def _kept(self, run: str) -> RunState:
        if run not in self._runs:
            raise rules.unknown_run(run)
        self._runs[run].check_kept()
        return self._runs[run]

    def _check_open(self) -> None:
        if self._closed:
            raise rules.closed("the store")


def _each(state: RunState, rows: list[int], renewed: Mapping[str, str]) -> Iterator[StoredRow]:
    """The rows of a run, of which some may be dropped meanwhile. Raises ResultExpired."""
    for row in rows:
        state.check_whole()
        if row not in state.rows:
            raise rules.swept(state.name)  # and opened anew since
        yield state.stored(row, renewed)


class MemoryRun:
    """A :class:`~headgate.storage.ports.RunHandle` on a run in memory."""

    def __init__(
        self, state: RunState, learned: dict[str, bytes], max_payload: int, clock: Callable[[], float]
    ) -> None:
        self._state = state
        self._info = state.info()
        self._all_learned = learned
        self._learned = learned.get(state.name, next(reversed(learned.values()), None))
        self._max_payload = max_payload
        self._clock = clock
        self._closed = False

    @property
    def info(self) -> RunInfo:
        """The run as it was when this handle opened it."""
        return self._info

    @property
    def learned(self) -> bytes | None:
        """See :meth:`headgate.storage.ports.RunHandle.learned`."""
        return self._learned

    async def commit(self, batch: Batch) -> None:
        """See :meth:`headgate.storage.ports.RunHandle.commit`. Suspends only for more than ``RECORDS_PER_TURN``."""
        self._check_open()
        self._check_epoch()
        self._state.begin_commit()
        try:
            change = self._change(batch)
            if batch.records > RECORDS_PER_TURN:
                await self._check_in_turns(change, batch)
            self._write(change, batch)
        finally:
            self._state.end_commit()

    async def load(self, first: int, last: int) -> list[StoredRow]:
        """See :meth:`headgate.storage.ports.RunHandle.load`."""
        self._check_open()
        state = self._state
        state.check_kept()
        within = range(first, last)
        some = within if len(within) <= len(state.rows) else sorted(row for row in state.rows if row in within)
        return [state.stored(row) for row in some if row in state.rows]

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        """See :meth:`headgate.storage.ports.RunHandle.find`."""
        self._check_open()
        self._state.check_kept()
        known = self._state.positions
        return {row_id: known[row_id] for row_id in row_ids if row_id in known}

    def forget(self, row: int) -> None:
        """Keep a row no more, with all about it: somebody else has it. No other store does this.

        From then on the run cannot be read or opened again: that is ResultExpired. Also a handle that was given up may
        forget, as long as nobody else has opened the run.
        """
        if self._state.epoch == self._info.epoch:
            self._state.forget(row)

    async def finish(self, status: str) -> None:
        """See :meth:`headgate.storage.ports.RunHandle.finish`."""
        self._check_open()
        self._check_epoch()
        self._state.status, self._state.finished_at = status, self._clock()

    async def aclose(self) -> None:
        """Give the handle up."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise rules.closed(f"this handle of run {self._info.run!r}")

    def _check_epoch(self) -> None:
        if self._state.epoch != self._info.epoch:
            raise rules.fenced_out(self._info.run, self._info.epoch, self._state.epoch)

    def _change(self, batch: Batch) -> Change:
        return Change(self._state, batch, limit=self._max_payload, most=RECORDS_PER_TURN)

    async def _check_in_turns(self, change: Change, batch: Batch) -> None:
        try:
            while change.check():
                await checkpoint()
                self._check_epoch()
        except anyio.get_cancelled_exc_class():
            # It is not cancelled with its caller, who hears nothing of it any more.
            with suppress(StoreError):
                self._write(change, batch)
            raise

    def _write(self, change: Change, batch: Batch) -> None:
        """Write the batch, in one step; what was found of it already counts as long as nobody changed the run since."""
        self._check_epoch()
        if change.outdated:
            change = self._change(batch)
        while change.check():
            pass
        change.apply()
        if batch.learned is not None:
            self._all_learned.pop(self._info.run, None)
            self._all_learned[self._info.run] = batch.learned
