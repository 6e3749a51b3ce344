"""How many jobs may end in one turn of the loop; the others wait for a later one, first come first served.

The end of a job is what costs: its lease is given back, what follows is decided, the next job begins. Jobs that never
suspend follow each other in the same turn, and hundreds of workers do that side by side; or hundreds of answers arrive
at once. Somebody has to stop them all together, or the loop serves nobody else meanwhile (T25, T29).
"""

from __future__ import annotations

from collections import deque

import anyio
from anyio.lowlevel import checkpoint

from ..wakeup import Wakeup

__all__ = ["Ticket", "Turnstile"]


class Ticket:
    """How many more jobs its holder may end in a turn that it waited for."""

    __slots__ = ("left", "turn")

    def __init__(self) -> None:
        self.turn = -1
        self.left = 0


class _Batch:
    """Those that go on in the same turn: one event wakes them all."""

    __slots__ = ("event", "jobs")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.jobs = 0


class Turnstile:
    """``per_turn`` jobs a turn, ``chain`` of them by each who had to wait: waiting costs more than a small job.

    ``run`` turns it, in a task of its own that sleeps until half of a turn's jobs have ended: it wakes in a later turn,
    so that a stream of answers, a few in each turn, never waits.
    """

    __slots__ = ("_chain", "_left", "_low", "_per_turn", "_turn", "_waiting", "_wanted")

    def __init__(self, per_turn: int, chain: int) -> None:
        assert 1 <= chain <= per_turn
        self._per_turn = per_turn
        self._chain = chain
        self._left = per_turn
        self._low = per_turn // 2
        self._turn = 0
        self._waiting: deque[_Batch] = deque()
        self._wanted = Wakeup()

    def enter(self, ticket: Ticket) -> bool:
        """Whether one more job may end in this turn. If not, it may after ``wait``."""
        if ticket.left > 0 and ticket.turn == self._turn:
            ticket.left -= 1
            return True
        if self._left <= 0:
            return False
        self._left -= 1
        if self._left == self._low:
            self._wanted.set()
        return True

    async def wait(self, ticket: Ticket) -> None:
        """Return in a turn in which the job may end. It is counted there, also if this is cancelled."""
        if not self._waiting or self._waiting[-1].jobs + self._chain > self._per_turn:
            self._waiting.append(_Batch())
            self._wanted.set()
        batch = self._waiting[-1]
        batch.jobs += self._chain
        await batch.event.wait()
        ticket.turn, ticket.left = self._turn, self._chain - 1

    async def run(self) -> None:
        """Begin a new turn whenever somebody waits for one. Runs until it is cancelled."""
        while True:
            await self._wanted.wait()
            self._begin_turn()
            while self._waiting:
                await checkpoint()
                self._begin_turn()

    def _begin_turn(self) -> None:
        self._turn += 1
        self._left = self._per_turn
        if self._waiting:
            batch = self._waiting.popleft()
            self._left -= batch.jobs
            batch.event.set()
