"""What waiting costs: 10,000 requests parked behind one slot for five seconds of real time."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import anyio

from headgate.admission import AdmissionController
from headgate.admission.values import Request
from headgate.values import Outcome, ResourceKey

from ..measure import Case, Effort, Sample, Scenario, at_most, measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SCENARIO"]

MODEL = ResourceKey.parse("bench/m")
SHARE_OF_A_CORE = 0.01


def cases(effort: Effort, seed: int) -> Iterator[Case]:
    """256 waiters, as many as saturated a core elsewhere, and 10,000."""
    seconds = effort.pick(1, 20, 50) / 10
    for waiters in (effort.pick(16, 256, 256), effort.pick(100, 10_000, 10_000)):
        yield Case(f"{waiters} waiters for {seconds:g} s", partial(_parked, waiters, seconds, seed))


def _parked(waiters: int, seconds: float, seed: int) -> Iterable[Sample]:
    async def main() -> tuple[float, float, float]:
        limits = {str(MODEL): {"concurrency": 1, "queue_timeout": 3600.0}}
        async with AdmissionController(limits, seed=seed) as controller:
            kept = await controller.acquire(Request(MODEL))

            async def wait() -> None:
                controller.release(await controller.acquire(Request(MODEL)), Outcome.SUCCESS)

            async with anyio.create_task_group() as tasks:
                for _ in range(waiters):
                    tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                assert controller.pressure(MODEL).waiting == waiters
                with measured() as parked:
                    await anyio.sleep(seconds)
                cpu = time.process_time()
                controller.release(kept, Outcome.SUCCESS)
            served_s = time.process_time() - cpu
            return parked.cpu_s / parked.wall_s, parked.wall_s - seconds, served_s / waiters

    share, late_s, each_s = anyio.run(main)
    yield Sample("CPU while parked", "of a core", share, at_most(SHARE_OF_A_CORE))
    yield Sample("lateness of a sleep beside them", "ms", late_s * 1e3)
    yield Sample("CPU to serve one, its task included", "us", each_s * 1e6)


SCENARIO = Scenario("parked", "CPU time that requests take while they wait for a slot.", cases)
