"""What others take for as many calls that do nothing: one task each, so many at once, no retry, no order, no bound.

Measured in the same minute as headgate, so that a quotient says something on a machine that is fast today and slow
tomorrow. Each is used as its documentation shows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiometer
import anyio

from .measure import measured

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["AIOMETER", "ANYIO", "ASYNCIO", "BASELINES", "baseline_us", "by_asyncio"]

ASYNCIO: Final = "asyncio alone"
ANYIO: Final = "anyio alone"
AIOMETER: Final = "aiometer"
CALLS_MAX: Final = {ASYNCIO: 3_000, ANYIO: 1_000, AIOMETER: 1_000}
"""So many are enough to know what one takes; more at once would cost them more, for all their tasks exist at once."""


async def _body(row: int) -> int:
    return row


async def by_asyncio(calls: int, at_once: int) -> None:
    """A ``TaskGroup``, and a ``Semaphore``."""
    slots = asyncio.Semaphore(at_once)

    async def one(row: int) -> None:
        async with slots:
            await _body(row)

    async with asyncio.TaskGroup() as tasks:
        for row in range(calls):
            tasks.create_task(one(row))


async def by_anyio(calls: int, at_once: int) -> None:
    """A task group, and a ``CapacityLimiter``."""
    slots = anyio.CapacityLimiter(at_once)

    async def one(row: int) -> None:
        async with slots:
            await _body(row)

    async with anyio.create_task_group() as tasks:
        for row in range(calls):
            tasks.start_soon(one, row)


async def by_aiometer(calls: int, at_once: int) -> None:
    """``amap`` with ``max_at_once``, its results taken as they come."""
    async with aiometer.amap(_body, range(calls), max_at_once=at_once) as results:
        async for _ in results:
            pass


BASELINES: Final[Mapping[str, Callable[[int, int], object]]] = {
    ASYNCIO: lambda calls, at_once: asyncio.run(by_asyncio(calls, at_once)),
    ANYIO: lambda calls, at_once: anyio.run(by_anyio, calls, at_once),
    AIOMETER: lambda calls, at_once: anyio.run(by_aiometer, calls, at_once),
}
"""What is compared with, by name."""


def baseline_us(name: str, calls: int, at_once: int) -> float:
    """Microseconds of CPU that one call takes there."""
    calls = min(calls, CALLS_MAX[name])
    with measured() as watch:
        BASELINES[name](calls, at_once)
    return watch.cpu_s / calls * 1e6
