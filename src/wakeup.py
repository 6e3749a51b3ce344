"""A wake-up call for one task: set as often as you like, waited for by one, never lost.

The waiting side parks on an anyio event, which costs nothing while it is parked, and only then. Works on asyncio and
on trio; ``set`` must be called on the loop's own thread. :class:`Home` is the way there from any other.
"""

from __future__ import annotations

import asyncio
import threading
import time
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Home", "Wakeup", "is_leaked", "loop_clock"]

T = TypeVar("T")

_ASYNCIO_TIME = asyncio.BaseEventLoop.time
"""It passes the question on to ``time.monotonic``, unless a loop has a clock of its own."""


class Wakeup:
    """Level-triggered and coalescing: any number of ``set`` before a ``wait`` end that one wait at once."""

    __slots__ = ("_event", "pending")

    def __init__(self) -> None:
        self.pending = False
        """Whether it is set and nobody has waited since, to be read only: setting it again would change nothing."""
        self._event: anyio.Event | None = None

    def set(self) -> None:
        """Wake the waiter, or the next one to wait."""
        self.pending = True
        if self._event is not None:
            self._event.set()

    async def wait(self, until: float = inf) -> None:
        """Return once set, or at ``until`` (seconds, ``anyio.current_time``). Only one task may wait at a time."""
        assert self._event is None, "a wake-up has one waiter"
        if not self.pending:
            self._event = anyio.Event()
            try:
                if until == inf:
                    await self._event.wait()
                else:
                    with anyio.CancelScope(deadline=until):
                        await self._event.wait()
            finally:
                self._event = None
        self.pending = False


class Home:
    """The loop on which it was made, as other threads reach it."""

    __slots__ = ("_thread", "_token")

    def __init__(self) -> None:
        self._token = anyio.lowlevel.current_token()
        self._thread = threading.get_ident()

    @property
    def here(self) -> bool:
        """Whether the caller is in the loop's own thread."""
        return threading.get_ident() == self._thread

    def call(self, function: Callable[[], T]) -> T:
        """Call ``function`` there, wherever this is. Raises anyio.RunFinishedError when the loop is no more."""
        return function() if self.here else anyio.from_thread.run_sync(function, token=self._token)

    def wait(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await ``function()`` there, from another thread. Raises anyio.RunFinishedError when the loop is no more."""
        assert not self.here, "the loop cannot wait for itself"
        return anyio.from_thread.run(function, token=self._token)


def loop_clock() -> Callable[[], float]:
    """The clock of the running loop. anyio finds out anew at every call which loop that is: ten times as slow."""
    token = anyio.lowlevel.current_token().native_token
    if not isinstance(token, asyncio.AbstractEventLoop):
        return anyio.current_time
    return time.monotonic if getattr(token.time, "__func__", None) is _ASYNCIO_TIME else token.time


def is_leaked(error: BaseException) -> bool:
    """Whether ``error`` is a cancellation of somebody else's, which came out of what this task awaited (on asyncio;
    trio leaks none). A task that lets it pass ends without a word, and its task group with it.
    """
    if not isinstance(error, asyncio.CancelledError) or anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        return False
    task = asyncio.current_task()
    # Whoever cancels this very task, by a scope or by itself as Ctrl-C does, is counted there.
    return task is not None and not task.cancelling() and anyio.current_effective_deadline() > -inf
