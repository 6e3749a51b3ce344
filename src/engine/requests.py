"""Requests that a column body makes itself: ``async with headgate.request("openai/gpt-x") as lease``.

The engine has taken the first lease of a column's own model before it called the body; the first request for that
model uses it. Every other request queues in admission, ahead of new tasks.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio

from ..admission.values import Lease, Request
from ..errors import HeadgateError
from ..salvage.dialects import of_status
from ..salvage.kinds import TABLE
from ..values import Feedback, Outcome, ResourceKey, Usage
from .usage import UsageLike, usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from ..admission.controller import AdmissionController
    from ..salvage.classify import Classifier, Failure
    from ..scheduler.tasks import Task
    from .meter import Meter
    from .spending import Spending
    from .telling import RunTeller

__all__ = [
    "ActiveLease",
    "OpenAttempt",
    "Outside",
    "RequestContext",
    "Requester",
    "Sender",
    "current_lease",
    "request",
    "requester",
]


@dataclass(frozen=True, slots=True)
class Sender:
    """What all requests of one column have in common, or all those of the engine's own user."""

    controller: AdmissionController
    classifier: Classifier
    meter: Meter
    flow: str
    teller: RunTeller | None = None
    spending: Spending | None = None


class OpenAttempt(Protocol):
    """An attempt that ends when its answer does, wherever that is read."""

    def abandon(self) -> None:
        """Nobody will read the answer any more: give the lease back now."""
        ...


class Requester(Protocol):
    """On whose behalf a request goes out: a task of a run, or the engine's own user."""

    lease: Lease | None

    @property
    def sender(self) -> Sender:
        """How its requests go out."""
        ...

    attempts: set[OpenAttempt] | None
    """Those of an attached client that have not ended, once there are any: the task does not leave before them."""

    over: bool
    """Whether the task is over: nobody waits for what is still asked on its behalf."""

    @property
    def resource(self) -> ResourceKey | None:
        """What ``lease`` is for."""
        ...

    @property
    def task(self) -> Task | None:
        """The task of the run; None for the engine's own user."""
        ...

    def spent(self, usage: Usage) -> None:
        """Count ``usage`` for the task."""
        ...


requester: ContextVar[Requester | None] = ContextVar("headgate_requester", default=None)


@dataclass(slots=True)
class Outside:
    """Requests that the engine's user makes inside ``async with Engine(...)``, but in no column."""

    sender: Sender
    lease: Lease | None = None
    resource: ResourceKey | None = None
    attempts: set[OpenAttempt] | None = None
    over: bool = False

    @property
    def task(self) -> Task | None:
        """None: it is no run's."""
        return None

    def spent(self, usage: Usage) -> None:
        """Nobody's account: the resource's own meter has counted it."""


class ActiveLease:
    """The permission to make one attempt now. Feed back what the response said with :meth:`report`."""

    __slots__ = ("_feedback", "_lease", "_owner", "_status")

    def __init__(self, owner: Requester, lease: Lease) -> None:
        self._owner = owner
        self._lease = lease
        self._status: int | None = None
        self._feedback: Feedback | None = None

    @property
    def resource(self) -> str:
        """The resource that was asked for, aliases resolved."""
        return self._lease.resource

    @property
    def waited_s(self) -> float:
        """Seconds in the local queue."""
        return self._lease.waited_s

    def report(
        self,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        usage: UsageLike = None,
    ) -> None:
        """Tell what the client saw: the response's status, its headers, and the tokens it used.

        ``usage`` is a :class:`headgate.Usage`, or any object or mapping with ``input_tokens`` and ``output_tokens`` or
        ``prompt_tokens`` and ``completion_tokens``. In a ``request()``, a reported status of 429, 529 or 5xx
        settles the lease as such even when nothing is raised; what a column body comes to settles its own lease.
        A plain function may call it in its thread.
        """
        counted = usage_of(usage)
        home = self._owner.sender.controller.home
        if home.here:
            self._told(status, headers, counted)
        else:
            with suppress(anyio.RunFinishedError):  # the engine is gone, and its leases with it
                home.call(partial(self._told, status, headers, counted))

    def _told(self, status: int | None, headers: Mapping[str, str] | None, counted: Usage | None) -> None:
        if status is not None:
            self._status = status
        feedback = self._owner.sender.controller.report(self._lease, status=status, headers=headers, usage=counted)
        self._feedback = feedback or self._feedback
        if counted is not None:
            self._owner.spent(counted)
            spending, task = self._owner.sender.spending, self._owner.task
            if spending is not None and task is not None:
                spending.note(task, str(self._lease.request.resource), counted)

    def outcome(self, failure: Failure | None) -> tuple[Outcome, Feedback | None]:
        """What the gate should learn from the end of the attempt, ``failure`` being how it ended if not well."""
        if failure is not None:
            return TABLE[failure.kind].outcome, failure.feedback or self._feedback
        kind = None if self._status is None else of_status(self._status)
        return (Outcome.SUCCESS if kind is None else TABLE[kind].outcome), self._feedback


class RequestContext:
    """What :func:`request` returns: an async context manager around one attempt."""

    __slots__ = ("_active", "_lease", "_owner", "_request")

    def __init__(self, owner: Requester, request: Request) -> None:
        spending = owner.sender.spending
        if spending is not None:
            spending.check_price(str(request.resource))
        self._owner = owner
        self._request = request
        self._lease: Lease | None = None
        self._active: ActiveLease | None = None

    async def __aenter__(self) -> ActiveLease:
        assert self._lease is None, "a request is made once; ask for a new one"
        owner = self._owner
        held = owner.lease
        if held is not None and owner.resource == self._request.resource:
            owner.lease, self._lease = None, held
        else:
            self._lease = await owner.sender.controller.acquire(self._request)
            sender, resource = owner.sender, str(self._request.resource)
            sender.meter.of(resource).started(self._lease.waited_s)
            if sender.teller is not None:
                sender.teller.request_started(owner.task, resource, self._lease)
        self._active = ActiveLease(owner, self._lease)
        return self._active

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sender = self._owner.sender
        if isinstance(error, Exception):
            self.end(sender.classifier.classify(error, wall_now=sender.controller.wall_now()))
        else:
            self.end(cancelled=error is not None)

    def end(self, failure: Failure | None = None, *, cancelled: bool = False) -> None:
        """Give the lease back. ``failure`` is how the attempt ended, unless it ended well or was cancelled."""
        sender, lease, active = self._owner.sender, self._lease, self._active
        assert lease is not None
        assert active is not None
        outcome, feedback = (Outcome.CANCELLED, None) if cancelled else active.outcome(failure)
        # Under the name that was asked for, as the engine counts the first lease: an alias has a meter of its own.
        resource, seconds = str(self._request.resource), anyio.current_time() - lease.acquired_at
        sender.meter.of(resource).ended(outcome, seconds, lease.usage)
        task = self._owner.task
        if sender.spending is not None and task is not None:
            sender.spending.answered(task, str(lease.request.resource), outcome, lease.usage)
        if sender.teller is not None:
            sender.teller.request_ended(task, resource, lease, outcome, seconds)
        sender.controller.release(lease, outcome, feedback=feedback)


def request(
    model: str,
    *,
    tokens: int = 0,
    output_tokens: int = 0,
    queue_timeout: float | None = None,
    priority: int = 1,
) -> RequestContext:
    """Ask for one attempt on ``model`` (``provider/model[:domain]``) from inside a column or an engine.

    ``tokens`` and ``output_tokens`` are estimates that are reserved against token limits and settled with what
    :meth:`ActiveLease.report` says. ``queue_timeout`` is in seconds of open time; None takes the resource's own.
    Entering raises AdmissionTimeout or AdmissionDenied; make one attempt inside and leave. Raises HeadgateError
    outside of a run, ValueError for a name that is no model.
    """
    owner = requester.get()
    if owner is None:
        raise HeadgateError(
            "headgate.request() needs an engine: call it in a column body, or inside 'async with headgate.Engine()'"
        )
    return RequestContext(
        owner,
        Request(
            ResourceKey.parse(model),
            input_tokens=tokens,
            output_tokens=output_tokens,
            flow=owner.sender.flow,
            priority=priority,
            queue_timeout_s=queue_timeout,
        ),
    )


def current_lease() -> ActiveLease | None:
    """The lease that the engine took for the running column body; None when there is none, or not any more."""
    owner = requester.get()
    if owner is None or owner.lease is None:
        return None
    return ActiveLease(owner, owner.lease)
