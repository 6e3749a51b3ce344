"""What lies between the turn of a task and its start: whether it may start, what it asks for, and what a refusal means.

The dispatch asks here about each task; what is decided, the core decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..admission.values import DenyReason
from ..values import Usage
from .dispatch import Room
from .report import RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..admission.values import Denied, Lease, Request
    from ..salvage.classify import Failure
    from ..scheduler.tasks import Task
    from .core import RunCore
    from .first_request import FirstRequests
    from .flight import Flight
    from .spending import Spending
    from .telling import RunTeller

__all__ = ["Starts"]


class Starts:
    """The starts of one run. ``halt`` ends it, with so many seconds of grace."""

    __slots__ = (
        "_clock",
        "_core",
        "_estimated",
        "_flight",
        "_halt",
        "_requests",
        "_spending",
        "_teller",
        "afford",
        "request_of",
        "start",
    )

    def __init__(
        self,
        core: RunCore,
        requests: FirstRequests,
        flight: Flight,
        *,
        clock: Callable[[], float],
        halt: Callable[[RunStatus, float], None],
        teller: RunTeller | None = None,
        spending: Spending | None = None,
    ) -> None:
        self._teller = teller
        self._spending = spending
        self.afford: Callable[[Task], Room | int] | None = (
            None if spending is None or spending.gate is None else self._afford
        )
        """Whether the budget has room for a task that is not refused; it is reserved then. None without a budget."""
        self._core = core
        self._requests = requests
        self._estimated = requests.estimated
        self._flight = flight
        self._clock = clock
        self._halt = halt
        self.request_of: Callable[[Task], Request | None] = requests.of
        """The first request of a task that is not refused; None for local work."""
        # Where no column is asked how many tokens it needs, nothing is remembered of it either.
        self.start: Callable[[Task, Lease | None, float], None] = self._start if requests.estimated else flight.start
        """Run a task, with its lease if it has a model."""

    def refused(self, task: Task, now: float) -> bool:
        """Whether ``task`` may not start: it is set aside, or its column stopped or without an estimate."""
        core = self._core
        if (core.stopped or core.unfinished or core.set_aside) and core.refused(task, now):
            self._requests.forget(task)
            return True
        if self._estimated and task.column in self._estimated:
            try:
                self._requests.estimate(task)
            except Exception as error:
                self._failed(task, self._flight.classify(error), now)
                return True
        return False

    def withdrawn(self, task: Task) -> None:
        """``task``, for which there was room in the budget, does not start."""
        assert self._spending is not None
        self._spending.withdrawn(task)

    def denied(self, task: Task, denied: Denied) -> None:
        """Admission refused ``task`` for good."""
        core = self._core
        if denied.reason is DenyReason.SHUTDOWN:
            core.cancelled(task, self._clock())
            self._halt(RunStatus.STOPPED, 0.0)
            return
        self._failed(task, self._requests.denial(task, denied), self._clock())

    def _afford(self, task: Task) -> Room | int:
        spending, tokens = self._spending, self._requests.input_tokens(task)
        assert spending is not None
        if spending.afford(task, tokens):
            return Room.FITS
        if tokens is None or task.column not in self._estimated or not spending.is_beyond(task, tokens):
            return Room.NOT_NOW
        self._requests.forget(task)
        return tokens

    def _failed(self, task: Task, failure: Failure, now: float) -> None:
        """``task`` has failed before it was started."""
        core = self._core
        core.failed(task, failure, Usage(), now, lane=core.plans[task.column].lane)
        if self._teller is not None:
            self._teller.task_ended(task, core, False, now)

    def _start(self, task: Task, lease: Lease | None, now: float) -> None:
        self._requests.forget(task)
        self._flight.start(task, lease, now)
