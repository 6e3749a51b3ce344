"""Does an admission cost more the more there were before: acquire and release after 100,000 past requests, 64 flows."""

from __future__ import annotations

import random
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import anyio

from headgate.admission import AdmissionController
from headgate.admission.gate import Gate
from headgate.admission.scope_limits import ScopeLimits
from headgate.admission.values import Grant, Lease, Request
from headgate.values import Outcome, ResourceKey

from ..measure import Better, Case, Plan, Sample, Scenario, at_most, measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SCENARIO"]

MODEL = ResourceKey.parse("bench/m")
FLOWS = 64
SLOTS = 8
PAIR_US = 15.0
AT_START = "CPU per acquire and release at the start"


def cases(plan: Plan) -> Iterator[Case]:
    """With room for all, and with all 64 flows waiting all the time; a fixed limit, and a learned one."""
    effort, seed = plan.effort, plan.seed
    past, timed = effort.pick(500, 10_000, 100_000), effort.pick(200, 3_000, 20_000)
    for name, concurrency in (("fixed", SLOTS), ("adaptive", f"1-{SLOTS}-{SLOTS}")):
        for what, measure in (("room", _room), ("64 flows wait", _queue)):
            yield Case(f"{name} limit, {what}", partial(measure, concurrency, past, timed, seed), min(plan.runs, 3))


def _controller(concurrency: int | str, seed: int) -> AdmissionController:
    return AdmissionController({str(MODEL): {"concurrency": concurrency, "queue_timeout": 1e9}}, seed=seed)


def _room(concurrency: int | str, past: int, timed: int, seed: int) -> Iterable[Sample]:
    async def main() -> tuple[float, float]:
        async with _controller(concurrency, seed) as controller:
            requests = [Request(MODEL, flow=f"f{flow}") for flow in range(FLOWS)]

            async def pairs(count: int) -> float:
                with measured() as watch:
                    for turn in range(count):
                        lease = await controller.acquire(requests[turn % FLOWS])
                        controller.release(lease, Outcome.SUCCESS)
                return watch.cpu_s / count * 1e6

            first = await pairs(timed)
            await pairs(past)
            return first, await pairs(timed)

    return _samples(*anyio.run(main), past)


def _queue(concurrency: int | str, past: int, timed: int, seed: int) -> Iterable[Sample]:
    """Each release serves the flow whose turn it is, and its own flow queues again: the gate's work alone, no task."""
    gate = Gate(rng=random.Random(seed))
    gate.register(MODEL, {str(MODEL): ScopeLimits(adaptive=concurrency != SLOTS, start=SLOTS, maximum=SLOTS)}, 0.0)
    out = deque[Lease]()
    for flow in range(FLOWS + SLOTS):
        answer = gate.submit(Request(MODEL, flow=f"f{flow % FLOWS}"), 0.0)
        if isinstance(answer, Lease):
            out.append(answer)
    now = 0.0

    def turns(count: int) -> float:
        nonlocal now
        with measured() as watch:
            for _ in range(count):
                now += 1e-4
                lease = out.popleft()
                gate.release(lease, Outcome.SUCCESS, now)
                out.extend([effect.lease for effect in gate.take_effects() if isinstance(effect, Grant)])
                gate.submit(lease.request, now)
        assert len(out) == SLOTS
        return watch.cpu_s / count * 1e6

    first = turns(timed)
    turns(past)
    return _samples(first, turns(timed), past)


def _samples(first: float, last: float, past: int) -> Iterable[Sample]:
    yield Sample(AT_START, "us", first, noisy=True)
    yield Sample(f"after {past} requests", "us", last, at_most(PAIR_US), noisy=True)
    yield Sample("growth", "x", last / first, better=Better.LOWER, noisy=True)


SCENARIO = Scenario("history", "CPU time of an acquire and a release, at the start and after many requests.", cases)
