"""What goes into the gate and what comes out: requests, leases, refusals, effects.

Plain values; the gate that makes them is in :mod:`headgate.admission.gate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, isnan
from typing import TYPE_CHECKING, Final

from ..values import Outcome, Usage

if TYPE_CHECKING:
    from ..values import Pressure, ResourceKey
    from .scope import Passage

__all__ = [
    "REFUNDED",
    "TOKENS_MAX",
    "Denied",
    "DenyReason",
    "Effect",
    "Expire",
    "Grant",
    "Lease",
    "Refuse",
    "ReleaseResult",
    "Request",
]


TOKENS_MAX: Final = 10**12
"""No request uses more: what claims to have was miscounted."""


class DenyReason(StrEnum):
    """Why a request does not go out now."""

    NO_CAPACITY = "no_capacity"
    COOLDOWN = "cooldown"
    REQUEST_RATE = "request_rate"
    TOKEN_RATE = "token_rate"
    QUEUE_TIMEOUT = "queue_timeout"
    WAITERS_AHEAD = "waiters_ahead"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"
    UNKNOWN_RESOURCE = "unknown_resource"
    TOO_LARGE = "too_large"

    @property
    def final(self) -> bool:
        """Whether waiting cannot cure it."""
        return self in (DenyReason.SHUTDOWN, DenyReason.UNKNOWN_RESOURCE, DenyReason.TOO_LARGE)


class ReleaseResult(StrEnum):
    """What giving a lease back did. Only ``released`` changed a count."""

    RELEASED = "released"
    DUPLICATE = "duplicate"
    STALE = "stale"
    WRONG_GENERATION = "wrong_generation"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Request:
    """One outbound attempt that asks to go out.

    ``input_tokens`` and ``output_tokens`` are estimates (0: unknown) that are reserved and later settled. ``flow``
    says who asks (a column of a run, say) and shares the resource with other flows by ``weight``; a higher
    ``priority`` is served before any lower one. ``queue_timeout_s`` bounds the wait in the local queue, counted only
    while the resource is open; None takes the resource's own.

    Requests with the same ``alike`` (empty: the same flow) cost alike: what they really use is learned, and reserved
    for the next one instead of what its caller said. ``stated`` is then the request as its caller made it.

    Raises ValueError for numbers that cannot be meant.
    """

    resource: ResourceKey
    input_tokens: int = 0
    output_tokens: int = 0
    flow: str = ""
    weight: float = 1.0
    priority: int = 1
    queue_timeout_s: float | None = None
    alike: str = ""
    stated: Request | None = None

    def __post_init__(self) -> None:
        # Checked here: later they would fail whoever happens to serve this request, or be counted for ever.
        if not (0 <= self.input_tokens <= TOKENS_MAX and 0 <= self.output_tokens <= TOKENS_MAX):
            tokens = f"{self.input_tokens!r} + {self.output_tokens!r}"
            raise ValueError(f"{self.resource}: a request of {tokens} tokens: estimate 0 to {TOKENS_MAX} of each")
        if not 0.0 < self.weight < inf:
            raise ValueError(f"{self.resource}: the weight {self.weight!r} of a flow: use a number above 0")
        if self.queue_timeout_s is not None and isnan(self.queue_timeout_s):
            raise ValueError(f"{self.resource}: a queue timeout of {self.queue_timeout_s!r} s: use a number")


# Without a constructor, which would take most of the time: so is all that is made for every request.
@dataclass(slots=True, eq=False, init=False)
class Lease:
    """The permission for one attempt, to be released exactly once with an outcome.

    ``limit`` and ``epoch`` are those of the resource at admission, ``waited_s`` the time in the local queue. The
    tokens of ``request`` are what is reserved.
    ``usage`` and the fields below it are filled in by the gate as the attempt reports back; ``returned`` says as the
    how manyth of all leases it was released, 0 while it is out.
    """

    id: int
    generation: int
    resource: str
    request: Request
    acquired_at: float
    waited_s: float
    limit: float
    epoch: int
    passages: tuple[Passage, ...] = field(repr=False)
    usage: Usage | None
    returned: int


@dataclass(frozen=True, slots=True)
class Denied:
    """A refusal. ``retry_after_s`` is a lower bound of the wait in seconds, None where only a release can help."""

    reason: DenyReason
    resource: str
    retry_after_s: float | None = None


@dataclass(slots=True, init=False)
class Grant:
    """Waiter ``waiter`` got ``lease``. It holds from this moment, whoever reads the effect. To be read only."""

    waiter: int
    lease: Lease


@dataclass(frozen=True, slots=True)
class Expire:
    """Waiter ``waiter`` passed its queue deadline and is forgotten."""

    waiter: int
    request: Request
    waited_s: float
    pressure: Pressure


@dataclass(frozen=True, slots=True)
class Refuse:
    """Waiter ``waiter`` can never be served."""

    waiter: int
    request: Request
    waited_s: float
    denied: Denied


Effect = Grant | Expire | Refuse


# What an attempt certainly did not cost when it ended this way and nobody reported its usage.
REFUNDED: frozenset[Outcome] = frozenset(
    {
        Outcome.RATE_LIMITED,
        Outcome.OVERLOADED,
        Outcome.REJECTED,
        Outcome.PROVIDER_ERROR,
        Outcome.CONNECTION_ERROR,
    }
)
