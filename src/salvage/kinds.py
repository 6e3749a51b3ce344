"""What a failure is, and what follows from it: the table, as data.

Decides nothing by itself: the classifier names a :class:`FailureKind`, the machine reads its :class:`Rule`.
The kinds are disjoint by cure, not by status code: waiting, trying again, asking a person, or nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ..values import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TABLE", "Action", "FailureKind", "Rule"]


class FailureKind(StrEnum):
    """Why an attempt failed, named by what would cure it."""

    RATE_LIMITED = "rate_limited"
    """The provider asks for a slower pace: 429, 503 with Retry-After, a per-minute quota."""
    ADMISSION_TIMEOUT = "admission_timeout"
    """The local queue's deadline passed; the provider never saw the request."""
    OVERLOADED = "overloaded"
    """The provider has no room for anybody: 529, 503."""
    PROVIDER_TIMEOUT = "provider_timeout"
    """Sent, and no answer in time: a client's read timeout, 408, 504."""
    PROVIDER_ERROR = "provider_error"
    """The provider broke: 500, 502 and other 5xx."""
    CONNECTION_ERROR = "connection_error"
    """Refused, reset, disconnected, broken pipe, and every transport error that nobody foresaw."""
    INVALID_OUTPUT = "invalid_output"
    """An answer came and is of no use: not JSON, or it fails validation."""
    REJECTED = "rejected"
    """The provider will never take this request: 400, 404, 413, 422."""
    UNAUTHORIZED = "unauthorized"
    """The key is wrong or may not do this: 401, 403."""
    QUOTA_EXHAUSTED = "quota_exhausted"
    """The account is empty: 402, or a 429 whose code says so."""
    ADMISSION_DENIED = "admission_denied"
    """headgate refused for a reason that waiting cannot cure."""
    BUG = "bug"
    """The column's own code raised."""
    POISONED = "poisoned"
    """Decided, never classified: it kept failing while others on the same lane succeeded."""
    COLUMN_STOPPED = "column_stopped"
    """Decided, never classified: nearly every row of its column failed, so the rest was not tried."""
    SET_ASIDE = "set_aside"
    """Decided, never classified: somebody said before the run began that it is not to be tried."""


class Action(StrEnum):
    """What the machine does about a kind."""

    HOLD = "hold"
    RETRY = "retry"
    RETRY_OUTPUT = "retry_output"
    FAIL = "fail"
    PARK = "park"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    ``outcome`` is what the attempt's lease is settled with. ``pressure``: the cure is a slower pace, so it
    says nothing against the provider or the task. ``breaker``: it counts towards an outage of the lane.
    ``answered``: the provider worked and this request was the trouble, which is evidence against an outage.
    ``reached`` False: no request went out.
    """

    action: Action
    outcome: Outcome
    consumes_attempt: bool = False
    pressure: bool = False
    breaker: bool = False
    answered: bool = False
    reached: bool = True


def _fault(outcome: Outcome) -> Rule:
    return Rule(Action.RETRY, outcome, consumes_attempt=True, breaker=True)


TABLE: Final[Mapping[FailureKind, Rule]] = MappingProxyType(
    {
        FailureKind.RATE_LIMITED: Rule(Action.HOLD, Outcome.RATE_LIMITED, pressure=True),
        FailureKind.ADMISSION_TIMEOUT: Rule(Action.HOLD, Outcome.LOCAL_TIMEOUT, pressure=True, reached=False),
        FailureKind.OVERLOADED: Rule(Action.HOLD, Outcome.OVERLOADED, pressure=True),
        FailureKind.PROVIDER_TIMEOUT: _fault(Outcome.PROVIDER_TIMEOUT),
        FailureKind.PROVIDER_ERROR: _fault(Outcome.PROVIDER_ERROR),
        FailureKind.CONNECTION_ERROR: _fault(Outcome.CONNECTION_ERROR),
        FailureKind.INVALID_OUTPUT: Rule(
            Action.RETRY_OUTPUT, Outcome.INVALID_OUTPUT, consumes_attempt=True, answered=True
        ),
        FailureKind.REJECTED: Rule(Action.FAIL, Outcome.REJECTED, consumes_attempt=True, answered=True),
        FailureKind.UNAUTHORIZED: Rule(Action.PARK, Outcome.REJECTED),
        FailureKind.QUOTA_EXHAUSTED: Rule(Action.PARK, Outcome.REJECTED),
        # Nothing went out: the lease, if there is one, goes back unspent.
        FailureKind.ADMISSION_DENIED: Rule(Action.FAIL, Outcome.CANCELLED, reached=False),
        FailureKind.BUG: Rule(Action.FAIL, Outcome.UNEXPECTED, consumes_attempt=True),
        FailureKind.POISONED: Rule(Action.FAIL, Outcome.PROVIDER_ERROR, consumes_attempt=True),
        FailureKind.COLUMN_STOPPED: Rule(Action.FAIL, Outcome.CANCELLED),
        FailureKind.SET_ASIDE: Rule(Action.FAIL, Outcome.CANCELLED),
    }
)
"""One rule for every kind."""
