"""Letting rows into a run: at once where nothing has to be waited for, otherwise from a task of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from ..errors import InputError
from ..wakeup import Wakeup
from .flight import is_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from .halt import Halt
    from .intake import Intake

__all__ = ["Feeder"]


class Feeder:
    """Pulls rows while the intake has room and the run goes on.

    ``came`` is called when rows came in that had to be waited for, and when no more will; ``broke`` with what the
    source or the store raised.
    """

    __slots__ = ("_behind", "_broke", "_came", "_intake", "_room", "_stopping", "more", "waits")

    def __init__(
        self, intake: Intake, stopping: Halt, *, came: Callable[[], None], broke: Callable[[Exception], None]
    ) -> None:
        self._intake = intake
        self._stopping = stopping
        self._came = came
        self._broke = broke
        self._room = Wakeup()
        self.waits = False
        """Whether ``run`` waits for room."""
        self._behind = False
        self.more = False
        """Whether there is room for more than ``take_now`` took in."""

    @property
    def coming(self) -> bool:
        """Whether more rows are on their way in that wait for nobody but the store, and whoever takes finished ones."""
        intake = self._intake
        if intake.ended or intake.waits:
            return False
        if self.more or intake.occupied:
            return True
        return not intake.immediate and (intake.pulling or intake.room() > 0)

    def take_now(self, now: float, *, alone: bool) -> None:
        """Rows that need no waiting come in within the step that made room for them: no task has to be woken.

        Not ``alone``: one of many steps in this turn of the loop.
        """
        intake = self._intake
        most = intake.rows_per_pull if alone else intake.rows_for_one if self._behind else intake.rows_per_job
        self.more = False
        if intake.immediate and not intake.ended and (room := intake.room()) > 0:
            try:
                intake.pull_now(min(room, most), now)
            except Exception as error:
                self._broke(error)
            else:
                # Whatever came has a record to commit, and the commit looks again.
                self.more = room > most and self._stopping.status is None and not intake.ended and not intake.full()
        if alone:
            self._behind = self.more

    async def run(self) -> None:
        """Take in rows that have to be waited for, until there are no more."""
        intake = self._intake
        try:
            while not intake.ended and self._stopping.status is None:
                room = intake.room()
                if room <= 0:
                    self.waits = True
                    await self._room.wait()
                    self.waits = False
                    continue
                try:
                    await self._take(min(room, intake.rows_per_pull))
                except Exception as error:
                    self._broke(error)
                    continue
                except anyio.get_cancelled_exc_class() as cancelled:
                    if is_cancelled():
                        raise
                    # Not ours (T62). To take it for the end would lose every row that was to come.
                    broken = InputError("the source of rows awaited something that was cancelled by somebody else")
                    broken.__cause__ = cancelled
                    self._broke(broken)
                    continue
                await anyio.lowlevel.checkpoint()
        finally:
            await intake.aclose()
        self._came()

    async def _take(self, most: int) -> None:
        """A source that has its next row at hand yields many in one turn of the loop; what came before is never kept
        waiting for one that it has not."""
        intake = self._intake
        while True:
            most -= await intake.pull(most)
            self._came()
            if most <= 0 or intake.ended or intake.full() or self._stopping.status is not None:
                return

    def look(self) -> None:
        """There may be room again."""
        if self.waits and self._intake.room() > 0:
            self._room.set()

    def drain(self) -> bool:
        """No more rows are wanted; those that came are. False if there are no more anyway."""
        left = self._stopping.status is None and self._intake.drain()
        if left:
            self._stopping.drained = True
            self.stop()
            self._came()  # the last row group is whole now, and its tasks may be ready
        return left

    def stop(self) -> None:
        """No more rows are wanted."""
        self.more = False
        self._room.set()
