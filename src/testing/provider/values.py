"""What passes between a provider model and whoever serves it: requests, decisions, faults, and the accounts.

Leaves: plain values without pydantic, so that the machine can use them.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic resolves annotations at run time
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "Accepted",
    "ContentCount",
    "Decision",
    "Fault",
    "ModelStats",
    "ProviderLimit",
    "ProviderRequest",
    "ProviderStats",
    "QuotaState",
    "Rejected",
    "TokenCharge",
    "Window",
]


class ProviderLimit(StrEnum):
    """Which of the provider's limits said no."""

    CONCURRENCY = "concurrency"
    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    EVERYTHING = "everything"
    """The model is set to refuse everything."""
    UNKNOWN_MODEL = "unknown_model"


class Fault(StrEnum):
    """What goes wrong with an accepted request.

    ``UNAUTHORIZED`` and ``BAD_REQUEST`` answer at once; the other statuses come after the usual latency.
    """

    ERROR_500 = "error_500"
    OVERLOADED = "overloaded"
    """503 for OpenAI-like providers, 529 for Anthropic-like ones."""
    UNAUTHORIZED = "unauthorized"
    BAD_REQUEST = "bad_request"
    RESET = "reset"
    """The connection breaks after the usual latency."""
    HANG = "hang"
    """No answer ever; the slot stays taken until the client leaves."""
    MALFORMED = "malformed"
    """Status 200 with a body that is not JSON."""
    SLOW_BODY = "slow_body"
    """The header comes in time, the body takes ``slow_factor`` times as long."""
    SLOW = "slow"
    """The whole answer takes ``slow_factor`` times as long."""


class Window(StrEnum):
    """How a quota per minute refills: continuously, or all at once at each full minute."""

    BUCKET = "bucket"
    FIXED = "fixed"


class TokenCharge(StrEnum):
    """What a request costs in output tokens: those it really makes, or all of its ``max_tokens``."""

    ACTUAL = "actual"
    MAX_TOKENS = "max_tokens"


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One request as the provider sees it. ``content`` is what makes two requests the same request."""

    model: str
    content: str
    input_tokens: int = 1
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class QuotaState:
    """A rate quota as headers state it: ``limit`` a minute, ``remaining`` now, full again in ``reset_s``."""

    limit: float
    remaining: float
    reset_s: float


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request holds a slot: serve it in ``latency_s`` seconds, then call ``end(request_id)``.

    ``body_s`` is further time that only the body takes. ``fault`` says what to do instead of answering,
    ``status`` and ``error`` are the answer to give then. ``tag`` is a stable number to make answers from.
    """

    request_id: int
    latency_s: float
    output_tokens: int
    tag: int
    headers: Mapping[str, str]
    fault: Fault | None = None
    body_s: float = 0.0
    status: int = 200
    error: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The request was refused at the door, and is over."""

    status: int
    headers: Mapping[str, str]
    body: Mapping[str, object]
    limit: ProviderLimit


Decision = Accepted | Rejected


@dataclass(slots=True)
class ContentCount:
    """How often one content was requested, accepted, and answered. Mutable: it is the provider's own book."""

    requests: int = 0
    accepted: int = 0
    answered: int = 0


@dataclass(frozen=True, slots=True)
class ModelStats:
    """The exact account of one model, in counts, tokens and seconds.

    ``requests == accepted + sum(rejected.values())`` and ``requests == in_flight + sum(statuses.values())``,
    where ``statuses`` counts finished requests by HTTP status, ``"reset"`` (connection broken by the
    provider) or ``"left"`` (client gone before the answer was complete). ``busy_s`` is the integral of
    requests in flight over time, ``capacity_s`` that of the concurrency limit (None while unlimited): their
    quotient is the utilisation. ``served_s`` sums the durations of answered requests only. ``accepted_again``
    and ``answered_again`` count requests whose content had been accepted (answered) before: zero means that
    nothing was paid for twice. ``forgotten`` counts contents dropped from the bounded memory; those two
    counts are lower bounds if it is not 0.
    """

    requests: int = 0
    accepted: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict[str, int])
    statuses: Mapping[str, int] = field(default_factory=dict[str, int])
    faults: Mapping[str, int] = field(default_factory=dict[str, int])
    in_flight: int = 0
    in_flight_max: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    busy_s: float = 0.0
    capacity_s: float | None = 0.0
    served_s: float = 0.0
    contents: int = 0
    accepted_again: int = 0
    answered_again: int = 0
    forgotten: int = 0

    @property
    def answered(self) -> int:
        """Requests that ended with status 200, malformed bodies among them: they are billed too."""
        return self.statuses.get("200", 0)

    @property
    def utilisation(self) -> float | None:
        """Busy slots over slots, from 0 to 1; None if the concurrency was unlimited at any time."""
        return self.busy_s / self.capacity_s if self.capacity_s else None


@dataclass(frozen=True, slots=True)
class ProviderStats:
    """The accounts of all models, ``now_s`` seconds after the provider's clock started."""

    now_s: float
    models: Mapping[str, ModelStats]
    unknown_model: int = 0
