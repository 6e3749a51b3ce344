"""What waiting costs: 10,000 requests parked behind one slot for five seconds of real time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from headgate.admission import AdmissionController
from headgate.admission.values import Request
from headgate.values import Outcome, ResourceKey

from ..measure import Case, Plan, Sample, Scenario, Stopwatch, at_most, measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SCENARIO"]

MODEL = ResourceKey.parse("bench/m")
SHARE_OF_A_CORE = 0.01


def cases(plan: Plan) -> Iterator[Case]:
    """256 waiters, as many as saturated a core elsewhere, and 10,000."""
    effort, seed = plan.effort, plan.seed
    seconds = effort.pick(1, 5, 50) / 10
    for waiters in (effort.pick(16, 256, 256), effort.pick(100, 10_000, 10_000)):
        yield Case(f"{waiters} waiters for {seconds:g} s", partial(_parked, waiters, seconds, seed), min(plan.runs, 2))


def _parked(waiters: int, seconds: float, seed: int) -> Iterable[Sample]:
    parked, served = anyio.run(_park_and_serve, waiters, seconds, seed)
    yield Sample("CPU while parked", "of a core", parked.cpu_s / parked.wall_s, at_most(SHARE_OF_A_CORE), noisy=True)
    yield Sample("lateness of a sleep beside them", "ms", (parked.wall_s - seconds) * 1e3, noisy=True)
    yield Sample("CPU to serve one, its task included", "us", served.cpu_s / waiters * 1e6, noisy=True)


async def _park_and_serve(waiters: int, seconds: float, seed: int) -> tuple[Stopwatch, Stopwatch]:
    limits = {str(MODEL): {"concurrency": 1, "queue_timeout": 3600.0}}
    parked, served = Stopwatch(), Stopwatch()
    async with AdmissionController(limits, seed=seed) as controller:
        kept = await controller.acquire(Request(MODEL))
        async with anyio.create_task_group() as waiting:
            for _ in range(waiters):
                waiting.start_soon(_wait, controller)
            await anyio.wait_all_tasks_blocked()
            assert controller.pressure(MODEL).waiting == waiters
            with measured(parked):
                await anyio.sleep(seconds)
            with measured(served):
                controller.release(kept, Outcome.SUCCESS)
                while controller.gate.leases():
                    await anyio.wait_all_tasks_blocked()
    return parked, served


async def _wait(controller: AdmissionController) -> None:
    controller.release(await controller.acquire(Request(MODEL)), Outcome.SUCCESS)


SCENARIO = Scenario("parked", "CPU time that requests take while they wait for a slot.", cases)
