"""How many jobs may end, and workers begin, in one turn of the loop; the others wait for a later one, first come first
served.

The end of a job is what costs: its lease is given back, what follows is decided, the next job begins. Jobs that never
suspend follow each other in the same turn, and hundreds of workers do that side by side; or hundreds of answers arrive
at once. Somebody has to stop them all together, or the loop serves nobody else meanwhile (T25, T29). A new worker costs
about as much, and at the start of a run each end makes room for another one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from ..wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ticket", "Turnstile"]


class Ticket:
    """How many more jobs its holder may end in a turn that it waited for."""

    __slots__ = ("left", "turn")

    def __init__(self) -> None:
        self.turn = -1
        self.left = 0


_NOBODY = Ticket()  # has nothing reserved


class _Batch:
    """Those that go on in the same turn, with ``chain`` jobs reserved for each: one event wakes them all."""

    __slots__ = ("chain", "event", "jobs")

    def __init__(self, chain: int) -> None:
        self.chain = chain
        self.event = anyio.Event()
        self.jobs = 0


class Turnstile:
    """``per_turn`` ends and beginnings a turn, up to ``chain`` ends by each who had to wait: waiting costs more than a
    small job.

    Whoever waits has as many jobs reserved as those before it turned out to use. Jobs that suspend use one, and a whole
    turn's worth of them goes on together; jobs that do not suspend soon use them all.

    ``run`` turns it, in a task of its own that sleeps until half of a turn's jobs have ended: it wakes in a later turn,
    so that a stream of answers, a few in each turn, never waits.
    """

    __slots__ = (
        "_began",
        "_beginning",
        "_chain",
        "_chain_max",
        "_left",
        "_low",
        "_per_turn",
        "_short",
        "_turn",
        "_used",
        "_waiting",
        "_wanted",
    )

    def __init__(self, per_turn: int, chain: int) -> None:
        assert 1 <= chain <= per_turn
        self._per_turn = per_turn
        self._chain_max = chain
        self._chain = 1
        self._used = True  # whether anybody used more than one of its reserved jobs in this turn,
        self._short = False  # or would have used more than it had
        self._left = per_turn
        self._low = per_turn // 2
        self._turn = 0
        self._waiting: deque[_Batch] = deque()
        self._beginning: deque[Callable[[], object]] = deque()
        self._began = False  # whether this turn was given to those that begin
        self._wanted = Wakeup()

    def enter(self, ticket: Ticket) -> bool:
        """Whether one more job may end in this turn. If not, it may after ``wait``."""
        if ticket.turn == self._turn:
            if ticket.left > 0:
                ticket.left -= 1
                self._used = True
                return True
            self._short = True
        if self._left <= 0:
            return False
        self._left -= 1
        if self._left == self._low:
            self._wanted.set()
        return True

    def begin(self, begin: Callable[[], object]) -> None:
        """Call ``begin`` in a turn that has a place for it, this one if it has."""
        if not self._beginning and self.enter(_NOBODY):
            begin()
        else:
            self._beginning.append(begin)
            self._wanted.set()

    async def wait(self, ticket: Ticket) -> None:
        """Return in a turn in which the job may end. It is counted there, also if this is cancelled."""
        if not self._waiting or self._waiting[-1].jobs + self._waiting[-1].chain > self._per_turn:
            self._waiting.append(_Batch(self._chain))
            self._wanted.set()
        batch = self._waiting[-1]
        batch.jobs += batch.chain
        await batch.event.wait()
        ticket.turn, ticket.left = self._turn, batch.chain - 1

    async def run(self) -> None:
        """Begin a new turn whenever somebody waits for one. Runs until it is cancelled."""
        while True:
            await self._wanted.wait()
            self._begin_turn()
            while self._waiting or self._beginning:
                await checkpoint()
                self._begin_turn()

    def _begin_turn(self) -> None:
        if self._short:
            self._chain = min(2 * self._chain, self._chain_max)
        elif not self._used:
            self._chain = max(self._chain // 2, 1)
        self._turn += 1
        self._left = self._per_turn
        # By turns: neither keeps the other waiting for long, and both in one turn would be too much for it.
        self._began = bool(self._beginning) and not (self._began and self._waiting)
        self._short, self._used = False, self._began or not self._waiting  # who has none reserved teaches nothing
        if self._began:
            for _ in range(min(len(self._beginning), self._per_turn)):
                self._left -= 1
                self._beginning.popleft()()
        elif self._waiting:
            batch = self._waiting.popleft()
            self._left -= batch.jobs
            batch.event.set()
