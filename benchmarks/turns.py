"""How long the loop is kept: the CPU time of each of its turns, and what garbage collection took of it.

CPU time of the loop's own thread, because a machine that others use keeps everybody waiting and says nothing about the
code. Beside it a timer notes how late it is called, which is what a neighbour in the same loop would see, and how much
of that the process explains at most: a thread beside the loop can keep it waiting for the interpreter's lock, or for a
processor. Time that the loop's thread stood in line for a processor, as the kernel says, is not the process's doing as
far as its other threads did not work meanwhile. They may have worked on another processor, which the kernel does not
say, so all that they took counts: an upper bound.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import anyio

from .measure import measured

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["HEARTBEAT_S", "Heartbeat", "QueueTime", "Turns", "WatchedLoop", "idle_late_s", "run_watched"]

HEARTBEAT_S = 0.001
IDLE_S = 0.5

T = TypeVar("T")


@dataclass(slots=True)
class Turns:
    """What was seen. Garbage collection, whose length depends on all that the process holds, is told apart.

    ``longest_s``: the CPU seconds of the loop's thread in the longest turn, without garbage collection.
    ``collected_s``: the most of that in one turn.
    ``late_s``: how late a timer was at most, for whatever reason.
    ``stalled_s``: how late it was at most through the process itself, an upper bound: without the time that the loop's
    thread stood in line for a processor beyond the CPU seconds of the process's other threads, and no more than the CPU
    seconds of all threads since the last time, without collection.
    """

    longest_s: float = 0.0
    collected_s: float = 0.0
    late_s: float = 0.0
    stalled_s: float = 0.0


class WatchedLoop(asyncio.SelectorEventLoop):
    """A loop that times its turns. ``_run_once`` is the one place that every turn passes; waiting costs no CPU."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns
        self._collected_s = 0.0
        self._collection_began = 0.0
        self.collections_s = 0.0

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
            took = time.thread_time() - self._collection_began
            self._collected_s += took
            self.collections_s += took


class Heartbeat:
    """A timer that notes how late the loop calls it: the longest wait of a neighbour."""

    def __init__(self, loop: WatchedLoop, turns: Turns) -> None:
        self._loop = loop
        self._turns = turns
        self._timer: asyncio.TimerHandle | None = None
        self._in_line = QueueTime()
        self._seen = self._clocks()

    def beat(self) -> None:
        """Note the lateness, and set the timer again."""
        now, seen = self._loop.time(), self._clocks()
        if self._timer is not None:
            late_s = now - self._timer.when()
            worked_s, loop_s, collected_s, queued_s = (new - old for new, old in zip(seen, self._seen, strict=True))
            # Its own other threads may have been the ones in front.
            behind_others_s = max(0.0, queued_s - (worked_s - loop_s))
            self._turns.late_s = max(self._turns.late_s, late_s)
            self._turns.stalled_s = max(self._turns.stalled_s, min(late_s - behind_others_s, worked_s - collected_s))
        self._seen = seen
        self._timer = self._loop.call_later(HEARTBEAT_S, self.beat)

    def _clocks(self) -> tuple[float, float, float, float]:
        """CPU seconds of all threads and of the loop's, those of garbage collection, seconds in line."""
        return time.process_time(), time.thread_time(), self._loop.collections_s, self._in_line.waited_s()

    def stop(self) -> None:
        """No more."""
        if self._timer is not None:
            self._timer.cancel()
        self._in_line.close()


class QueueTime:
    """How long the thread that made this has stood in line for a processor, as far as the kernel says (Linux does)."""

    def __init__(self) -> None:
        try:
            self._file = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        except OSError:
            self._file = -1

    def waited_s(self) -> float:
        """Seconds since the thread began; 0 where nobody says."""
        if self._file < 0:
            return 0.0
        _, waited_ns, _ = os.pread(self._file, 128, 0).split()
        return int(waited_ns) / 1e9

    def close(self) -> None:
        """Ask no more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def run_watched(fn: Callable[[], Awaitable[T]]) -> tuple[T, Turns]:
    """Run ``fn`` on a loop of its own, and return its result with what was seen of the turns."""
    turns = Turns()

    async def watched() -> T:
        heartbeat = Heartbeat(made[0], turns)
        heartbeat.beat()
        try:
            return await fn()
        finally:
            heartbeat.stop()

    def loop() -> asyncio.AbstractEventLoop:
        made.append(WatchedLoop(turns))
        return made[0]

    made: list[WatchedLoop] = []
    with measured(), _collections(lambda phase, _: made[0].collecting(phase) if made else None):
        return anyio.run(watched, backend_options={"loop_factory": loop}), turns


def idle_late_s() -> float:
    """How late a timer is at most, in seconds, in a loop that does nothing for half a second: that is the machine."""
    _, turns = run_watched(lambda: anyio.sleep(IDLE_S))
    return turns.late_s


@contextmanager
def _collections(callback: Callable[[str, dict[str, int]], None]) -> Generator[None]:
    gc.callbacks.append(callback)
    try:
        yield
    finally:
        gc.callbacks.remove(callback)
