"""Starting ready tasks at a resource that is full: whose turn it is after a bid was taken back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from headgate.admission import AdmissionController, Request
from headgate.engine.dispatch import Dispatch
from headgate.scheduler.dispatcher import Dispatcher
from headgate.scheduler.tasks import Task
from headgate.values import Outcome, ResourceKey

if TYPE_CHECKING:
    from headgate.admission import Denied, Lease

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

REQUEST = Request(ResourceKey.parse("p/m"))


@dataclass
class Started:
    """What a run does with a task: here nothing but noting it down."""

    leases: dict[Task, Lease] = field(default_factory=dict["Task", "Lease"])
    afford: None = None

    def start(self, task: Task, lease: Lease | None, now: float) -> None:
        assert lease is not None
        self.leases[task] = lease

    def request_of(self, task: Task) -> Request | None:
        return REQUEST

    def refused(self, task: Task, now: float) -> bool:
        return False

    def withdrawn(self, task: Task) -> None:
        """Nothing was reserved for it."""

    def denied(self, task: Task, denied: Denied) -> None:
        raise AssertionError(f"{task} was denied: {denied}")


@pytest.mark.parametrize("granted", [False, True])
async def test_a_lane_whose_bid_was_taken_back_bids_for_its_next_task(granted: bool) -> None:
    """S4: nobody else would look at that lane again. ``granted``: the grant was on its way already."""
    first, second, third = Task(0, 0), Task(0, 1), Task(0, 2)
    dispatcher = Dispatcher()
    dispatcher.add_flow(0, "m")
    for task in (first, second, third):
        dispatcher.push(task, task.unit)
    started = Started()
    async with AdmissionController({"p/m": {"concurrency": 1}}) as controller:
        controller.register(REQUEST.resource)
        dispatch = Dispatch(dispatcher, controller, started, model_workers=8, local_workers=8)  # type: ignore[arg-type]
        dispatch.step(0.0)
        assert list(started.leases) == [first]
        assert dispatch.has_bid("m")
        if granted:
            controller.release(started.leases[first], Outcome.SUCCESS)
        assert dispatch.withdraw_lane("m") == second
        dispatch.step(0.0)
        if not granted:
            assert dispatch.has_bid("m")
            controller.release(started.leases[first], Outcome.SUCCESS)
            dispatch.step(0.0)
        assert list(started.leases) == [first, third]
        controller.release(started.leases[third], Outcome.SUCCESS)
        assert not dispatch.has_bid("m")
