"""Waking tasks from a thread that belongs to no event loop.

The thread never waits for a loop, which may have stopped for good, and one call wakes all tasks of a loop.
Works on asyncio and on trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Signal", "send"]


class Signal:
    """Tells a task that something has come about. Made on the task's loop, sent from the thread."""

    __slots__ = ("_event", "loop")

    def __init__(self) -> None:
        self.loop: Any = current_token().native_token
        self._event = anyio.Event()

    async def wait(self) -> None:
        """Return once sent."""
        await self._event.wait()

    def set(self) -> None:
        """Let the waiter go on; on its own loop only."""
        self._event.set()


def send(signals: Iterable[Signal]) -> None:
    """Set signals from any thread, each loop being woken once. A loop that is closed has nobody waiting."""
    loops: dict[Any, list[Signal]] = {}
    for signal in signals:
        loops.setdefault(signal.loop, []).append(signal)
    for loop, waiting in loops.items():
        # asyncio's loop has the one, trio's token the other. Neither waits for the loop: it may have stopped
        # for good.
        call_soon: Callable[..., object] = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
        try:
            call_soon(_set_all, waiting)
        except RuntimeError:
            continue  # the loop is closed, nobody waits any more


def _set_all(signals: list[Signal]) -> None:
    for signal in signals:
        signal.set()
