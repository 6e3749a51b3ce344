"""A controller in virtual time, and who holds a lease of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

import anyio

from headgate.admission import AdmissionController
from headgate.admission.values import ReleaseResult, Request
from headgate.testing.clock import run_virtual
from headgate.values import Outcome, ResourceKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


Backend = Literal["asyncio", "trio"]
T = TypeVar("T")
Stated = Mapping[str, Mapping[str, object]]
MODEL = ResourceKey.parse("openai/gpt-x")
ONE: Stated = {"openai/gpt-x": {"concurrency": 1, "queue_timeout": 5.0}, "openai/other": {"concurrency": 1}}


def under(backend: Backend, body: Callable[[AdmissionController], Awaitable[T]], limits: Stated | None = None) -> T:
    """Run ``body`` with a controller in virtual time; afterwards nothing may be out and every book adds up."""

    async def main() -> T:
        async with AdmissionController(ONE if limits is None else limits, seed=1) as controller:
            result = await body(controller)
            controller.gate.check()
            assert controller.gate.leases() == 0, "a lease leaked"
            for scope in controller.gate.scopes().values():
                assert scope.in_flight == 0
            return result

    return run_virtual(main, backend=backend)


async def hold(controller: AdmissionController, seconds: float, request: Request | None = None) -> float:
    """Wait for a lease and keep it for a while; returns when it came."""
    lease = await controller.acquire(request or Request(MODEL))
    came = anyio.current_time()
    await anyio.sleep(seconds)
    assert controller.release(lease, Outcome.SUCCESS) is ReleaseResult.RELEASED
    return came
