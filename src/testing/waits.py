"""What a task waits in, and whether a thread may be what it waits for: for the clocks of virtual time."""

from __future__ import annotations

import gc
import inspect
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from ..storage.job_thread import StoreThread

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    import trio

__all__ = ["may_wait_for_a_thread", "place", "store_owes"]

_TO_WHAT_AWAITS: Final = {"cr_frame": "cr_await", "ag_frame": "ag_await", "gi_frame": "gi_yieldfrom"}


def place(task: asyncio.Task[Any]) -> str:
    """Name the task and the innermost line of it that is not anyio's or asyncio's own."""
    where = ""
    for frame in _frames(task.get_coro()):
        if _module(frame).partition(".")[0] not in {"anyio", "asyncio"}:
            where = f" at {frame.f_code.co_filename}:{frame.f_lineno}"
    return f"{task.get_name()}{where}"


def store_owes(loop: object) -> bool:
    """Whether the thread of a store has yet to answer a task of ``loop`` (its native token)."""
    return any(isinstance(thread, StoreThread) and thread.owes(loop) for thread in threading.enumerate())


def may_wait_for_a_thread(task: trio.lowlevel.Task) -> bool:
    """Whether a worker of trio may wake it; so may who knows what where the end is out of sight."""
    modules = [_module(frame) for frame in _frames(task.coro)]
    return not modules or modules[-1] != "trio._core._traps" or "trio._threads" in modules


def _frames(awaiting: Any) -> Iterator[FrameType]:
    """Yield the frames in which a task waits, the outermost first, as far as Python shows them."""
    while awaiting is not None:
        for name, awaits in _TO_WHAT_AWAITS.items():
            frame = getattr(awaiting, name, None)
            if isinstance(frame, FrameType):
                yield frame
                awaiting = getattr(awaiting, awaits)
                break
        else:
            # What awaits an async generator, or a coroutine through __await__, has no attribute for it.
            held = gc.get_referents(awaiting) if type(awaiting).__module__ == "builtins" else []
            awaiting = next((one for one in held if inspect.iscoroutine(one) or inspect.isasyncgen(one)), None)


def _module(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name
