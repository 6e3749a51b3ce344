"""What somebody is told who gets no lease: the error, its reason, and what would help.

Decides nothing; who is refused is decided in :mod:`headgate.admission.gate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import AdmissionDenied, AdmissionError, AdmissionTimeout
from .values import Denied, DenyReason, Request

if TYPE_CHECKING:
    from ..values import Pressure, ResourceKey

__all__ = ["refused", "timed_out", "unknown"]


def refused(denied: Denied, request: Request, waited_s: float, pressure: Pressure) -> AdmissionError:
    """The error for ``denied``, after ``waited_s`` seconds in the queue, with a look at the resource."""
    if denied.reason is DenyReason.QUEUE_TIMEOUT:
        return timed_out(waited_s, pressure)
    resource = request.resource
    message = {
        DenyReason.SHUTDOWN: f"{resource}: admission is shut down",
        DenyReason.TOO_LARGE: (
            f"{resource}: a request of {request.input_tokens} + {request.output_tokens} tokens can never pass "
            "its token limit; make the request smaller or raise the limit"
        ),
    }.get(denied.reason, f"{resource}: {denied.reason.value}")
    return AdmissionDenied(
        message, resource=str(resource), reason=denied.reason.value, waited_s=waited_s, pressure=pressure
    )


def timed_out(waited_s: float, pressure: Pressure) -> AdmissionTimeout:
    """The queue timeout passed after ``waited_s`` seconds."""
    why = f": {pressure.reason}" if pressure.reason else ""
    return AdmissionTimeout(
        f"{pressure.resource}: no room within the queue timeout ({waited_s:.3g} s{why}); nothing was sent. "
        "Raise queue_timeout, or the limit that is short",
        resource=pressure.resource,
        reason=DenyReason.QUEUE_TIMEOUT.value,
        waited_s=waited_s,
        pressure=pressure,
    )


def unknown(resource: ResourceKey, hint: str | None) -> AdmissionDenied:
    """The limits name models, and ``resource`` is none of them; ``hint`` is the one that was probably meant."""
    return AdmissionDenied(
        f"no limits are known for {resource}{f' (did you mean {hint}?)' if hint else ''}: "
        f'name it in the limits, or give them a "*" entry for every other model',
        resource=str(resource),
        reason=DenyReason.UNKNOWN_RESOURCE.value,
    )
