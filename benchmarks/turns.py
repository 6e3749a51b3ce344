"""How long the loop is kept: the CPU time of each of its turns, and what garbage collection took of it.

CPU time of the loop's own thread, because a machine that others use keeps everybody waiting and says nothing about the
code. Beside it a timer notes how late it is called, which is what a neighbour in the same loop would see.
"""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import anyio

from .measure import measured

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["Heartbeat", "Turns", "run_watched"]

HEARTBEAT_S = 0.005

T = TypeVar("T")


@dataclass(slots=True)
class Turns:
    """What was seen. Garbage collection, whose length depends on all that the process holds, is told apart: the CPU
    seconds of the longest turn without it, the most of it in one turn, and how late a timer was at most.
    """

    longest_s: float = 0.0
    collected_s: float = 0.0
    late_s: float = 0.0


class _WatchedLoop(asyncio.SelectorEventLoop):
    """A loop that times its turns. ``_run_once`` is the one place that every turn passes; waiting costs no CPU."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns
        self._collected_s = 0.0
        self._collection_began = 0.0

    def _run_once(self) -> None:
        self._collected_s = 0.0
        began = time.thread_time()
        super()._run_once()  # type: ignore[misc]
        took = time.thread_time() - began
        self._turns.longest_s = max(self._turns.longest_s, took - self._collected_s)
        self._turns.collected_s = max(self._turns.collected_s, self._collected_s)

    def collecting(self, phase: str) -> None:
        """Note a garbage collection; one in another thread stops this one as well."""
        if phase == "start":
            self._collection_began = time.thread_time()
        else:
            self._collected_s += time.thread_time() - self._collection_began


class Heartbeat:
    """A timer that notes how late the loop calls it, in seconds: the longest wait of a neighbour."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.latest_s = 0.0
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def beat(self) -> None:
        """Note the lateness, and set the timer again."""
        now = self._loop.time()
        if self._timer is not None:
            self.latest_s = max(self.latest_s, now - self._timer.when())
        self._timer = self._loop.call_later(HEARTBEAT_S, self.beat)

    def stop(self) -> None:
        """No more."""
        if self._timer is not None:
            self._timer.cancel()


def run_watched(fn: Callable[[], Awaitable[T]]) -> tuple[T, Turns]:
    """Run ``fn`` on a loop of its own, and return its result with what was seen of the turns."""
    turns = Turns()

    async def watched() -> T:
        heartbeat = Heartbeat(asyncio.get_running_loop())
        heartbeat.beat()
        try:
            return await fn()
        finally:
            heartbeat.stop()
            turns.late_s = heartbeat.latest_s

    def loop() -> asyncio.AbstractEventLoop:
        made.append(_WatchedLoop(turns))
        return made[0]

    made: list[_WatchedLoop] = []
    with measured(), _collections(lambda phase, _: made[0].collecting(phase) if made else None):
        return anyio.run(watched, backend_options={"loop_factory": loop}), turns


@contextmanager
def _collections(callback: Callable[[str, dict[str, int]], None]) -> Generator[None]:
    gc.callbacks.append(callback)
    try:
        yield
    finally:
        gc.callbacks.remove(callback)
