"""Ctrl-C while runs go on: once stops them and lets them end in good order, twice leaves at once.

While none goes on yet, once cancels what is about to begin one: what it has opened is closed, and the program says why
it ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import anyio

from ..log import logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

__all__ = ["Face", "Stoppable", "interruptible"]

R = TypeVar("R")

_CLOSING: Final = "interrupted before anything began; once more leaves at once, whatever is being closed"
_INTERRUPTED: Final = 130
"""The exit code of a program that Ctrl-C has ended."""

Face = Callable[..., Awaitable[R]]
"""Something like :func:`headgate.arun`: it takes ``started`` among its keywords."""


class Stoppable(Protocol):
    """Something that goes on until it is stopped: a run."""

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        ...

    def stop(self) -> None:
        """Let it end in good order."""
        ...


async def interruptible(
    face: Face[R], options: dict[str, object], *, signals: Sequence[signal.Signals] = (signal.SIGINT,)
) -> tuple[R, bool]:
    """Await ``face(**options)``; return its report, and whether Ctrl-C was pressed meanwhile. For the main thread.

    What Ctrl-C does each of ``signals`` does. Raises SystemExit if that was before anything began.
    """
    runs: list[Stoppable] = []
    presses: list[int] = []
    also = options.get("started")

    def started(going: Stoppable) -> None:
        runs[:] = [run for run in runs if not run.done]  # of a shared run there is one for each row group
        runs.append(going)
        if callable(also):
            also(going)

    reports: list[R] = []
    broken: Exception | None = None
    async with _interrupts(runs, presses, signals) as unbegun:
        with unbegun:
            try:
                reports.append(await face(**{**options, "started": started}))
            except Exception as error:
                broken = error  # kept from the task group, which would wrap it in a group of one
    if broken is not None:
        raise broken
    if not reports:
        raise SystemExit(_INTERRUPTED)
    return reports[0], bool(presses)


@asynccontextmanager
async def _interrupts(
    runs: list[Stoppable], presses: list[int], signals: Sequence[signal.Signals]
) -> AsyncGenerator[anyio.CancelScope]:
    """While open, the first Ctrl-C stops the runs, or cancels the scope while there is none, and the second ends the
    program.
    """
    unbegun = anyio.CancelScope()

    async def listen() -> None:
        with anyio.open_signal_receiver(*signals) as received:
            async for number in received:
                presses.append(number)
                if len(presses) > 1:
                    _leave_now()
                if not runs:
                    unbegun.cancel()
                    logger().warning(_CLOSING)
                for going in runs:
                    going.stop()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        yield unbegun
        tasks.cancel_scope.cancel()


def _leave_now() -> None:
    """What was committed stays; nothing else can be waited for. A live view has hidden the cursor of the terminal, and
    stands where the next prompt will be."""
    with suppress(Exception):
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\x1b[?25h\n")
    os._exit(_INTERRUPTED)
