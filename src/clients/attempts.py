"""One outbound attempt of an attached client: let out by admission, settled when its answer has come to an end.

An attempt is told what its client saw, in this order: ``answered``, any number of ``feed``, and one of ``ended``,
``left`` or ``failed``; whatever comes after the end changes nothing. What happens to leases happens on the engine's
loop, also when the client works in another thread.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio

from ..admission.values import DenyReason, Request
from ..engine.requests import ActiveLease, RequestContext, requester
from ..errors import AdmissionDenied, HeadgateError
from ..salvage.classify import Classifier, Failure
from ..salvage.kinds import FailureKind
from .bodies import BodyReader, Decoder
from .naming import Asked, Naming, resource_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..engine.requests import Requester
    from ..values import ResourceKey

__all__ = ["Attempt", "begin", "begin_in_thread"]

CLASSIFIER: Final = Classifier()
"""Of answers: the user's own classifier knows the exceptions that a client makes of them, not these."""


class Answer(Exception):
    """What an answer carries, in the form that the classifier reads. Never raised."""

    def __init__(self, status: int | None, headers: Mapping[str, str], body: Mapping[str, object] | None) -> None:
        super().__init__("error in the answer's body" if status is None else f"status {status}")
        self.status_code = status
        self.headers = headers
        self.body = body


class Attempt:
    """Holds one lease, from before the request goes out until nobody reads its answer any more."""

    __slots__ = ("_active", "_context", "_headers", "_over", "_owner", "_reader", "_status")

    def __init__(self, owner: Requester, context: RequestContext, active: ActiveLease) -> None:
        self._owner = owner
        self._context = context
        self._active = active
        self._reader = BodyReader()
        self._headers: Mapping[str, str] = {}
        self._status = 0
        self._over = False
        if owner.attempts is None:
            owner.attempts = set()
        owner.attempts.add(self)

    def answered(self, status: int, headers: Mapping[str, str], decode: Decoder | None = None) -> None:
        """The answer has begun. ``decode``: its body is encoded, and this undoes it."""
        self._status, self._headers = status, headers
        self._reader = BodyReader(headers.get("content-type", ""), decode, failing=status >= 400)
        self._home(lambda: None if self._over else self._active.report(status=status, headers=headers))

    def feed(self, part: bytes) -> None:
        """The next part of the body has come."""
        self._reader.feed(part)

    def ended(self) -> None:
        """The body is complete."""
        if not self._over:
            self._reader.close()
            self._home(lambda: self._settle(self._failure()))

    left = ended
    """Nobody reads on. The provider has taken the request all the same: what its answer said so far is what counts."""

    def failed(self, error: BaseException) -> None:
        """The request could not be sent, or its answer broke off; or whoever waited for it was cancelled."""
        if self._over:
            return
        if not isinstance(error, Exception):
            self._home(self.abandon)
            return
        sender = self._owner.sender
        failure = sender.classifier.classify(error, wall_now=sender.controller.wall_now())
        self._home(lambda: self._settle(failure))

    def abandon(self) -> None:
        """Nobody will read the answer any more: give the lease back now."""
        self._settle(None, cancelled=True)

    def _failure(self) -> Failure | None:
        """What the answer says went wrong."""
        failing, error = self._status >= 400, self._reader.error
        if not failing and error is None:
            return None
        answer = Answer(self._status if failing else None, self._headers, error)
        failure = CLASSIFIER.classify(answer, wall_now=self._owner.sender.controller.wall_now())
        return Failure(FailureKind.PROVIDER_ERROR, str(answer)) if failure.kind is FailureKind.BUG else failure

    def _settle(self, failure: Failure | None, *, cancelled: bool = False) -> None:
        """On the engine's loop, once."""
        if self._over:
            return
        self._over = True
        if self._owner.attempts is not None:
            self._owner.attempts.discard(self)
        if self._reader.usage is not None:
            self._active.report(usage=self._reader.usage)
        self._context.end(failure, cancelled=cancelled)

    def _home(self, act: Callable[[], None]) -> None:
        with suppress(anyio.RunFinishedError):  # the engine is gone, and its leases with it
            self._owner.sender.controller.home.call(act)


async def begin(asked: Asked, said: Naming) -> Attempt | None:
    """Wait until the attempt may go out; None for a request that is not the engine's business.

    Raises what :func:`headgate.request` raises.
    """
    owner = requester.get()
    resource = None if owner is None else resource_of(asked, said, owner.resource)
    if owner is None or resource is None:
        return None
    return await _admitted(owner, resource)


def begin_in_thread(asked: Asked, said: Naming) -> Attempt | None:
    """:func:`begin` for a client that blocks, in a thread that the engine started or one that knows its context."""
    owner = requester.get()
    resource = None if owner is None else resource_of(asked, said, owner.resource)
    if owner is None or resource is None:
        return None
    home = owner.sender.controller.home
    if home.here:
        raise HeadgateError(
            f"a blocking client asked for {resource} on the event loop, where it stops everything else: make the "
            "column a plain function ('def' without 'async'), which runs in a thread, or use an async client"
        )
    try:
        return home.wait(lambda: _admitted_for_thread(owner, resource))
    except anyio.RunFinishedError as error:
        raise _nobody_waits(resource) from error


async def _admitted(owner: Requester, resource: ResourceKey) -> Attempt:
    context = RequestContext(owner, Request(resource, flow=owner.sender.flow))
    return Attempt(owner, context, await context.__aenter__())


async def _admitted_for_thread(owner: Requester, resource: ResourceKey) -> Attempt:
    """A thread cannot be cancelled: it learns here that nobody waits for it any more."""
    if owner.over:
        raise _nobody_waits(resource)
    attempt = await _admitted(owner, resource)
    if owner.over:  # since then
        attempt.abandon()
        raise _nobody_waits(resource)
    return attempt


def _nobody_waits(resource: ResourceKey) -> AdmissionDenied:
    message = f"{resource}: the column body that asks was given up, and nothing is sent for it any more"
    return AdmissionDenied(message, resource=str(resource), reason=DenyReason.CANCELLED)
