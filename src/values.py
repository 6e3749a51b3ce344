"""The values that every layer shares: resources, outcomes, usage, provider feedback, cell outcomes.

Leaves: this module imports nothing of headgate. Everything here is immutable, except where a comment says why not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DOMAINS",
    "EXIT_CODES",
    "CellOutcome",
    "Done",
    "Failed",
    "Feedback",
    "LimitKind",
    "Outcome",
    "Pressure",
    "RateWindow",
    "ResourceKey",
    "Rng",
    "Skipped",
    "Usage",
    "is_number",
    "said_by",
    "shown",
    "writable",
]

_FLOAT_MAX: Final = 1.7976931348623157e308
_SHOWN_CHARS: Final = 60


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` can be reckoned with: a float, or a whole number that a float can hold; not a boolean."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) <= _FLOAT_MAX


def shown(value: object) -> str:
    """``value`` for a message, cut where it is long. Python refuses to write out the longest whole numbers."""
    try:
        text = repr(value)
    except ValueError:
        return f"{type(value).__name__} that is too long to be written out"
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."


def writable(said: str) -> str:
    """``said`` as text that can be written down: half a surrogate pair, which no encoding takes, is written out."""
    return said if said.isascii() else said.encode("utf-8", "backslashreplace").decode()


def said_by(thing: object) -> str:
    """What ``thing``, such as an exception of somebody else's class, says of itself; its type if that is nothing, or
    raises. It can be written down.
    """
    try:
        said = str(thing)
    except Exception:
        said = ""
    return writable(said or type(thing).__name__)


class Rng(Protocol):
    """What machines need of a random generator; ``random.Random(seed)`` is one. It is always handed in."""

    def random(self) -> float:
        """Return a float in [0, 1)."""
        ...

    def uniform(self, a: float, b: float, /) -> float:
        """Return a float between ``a`` and ``b``."""
        ...


EXIT_CODES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "completed": 0,
        "crashed": 1,
        "completed_with_failures": 3,
        "held": 4,
        "stalled": 5,
        "budget_exhausted": 6,
        "told_to_stop": 7,
        "stopped": 130,
    }
)
"""What a program should end with, by how its run ended, supervised or not. 2 is a wrong command line."""

DOMAINS: Final = frozenset({"chat", "embedding", "image", "audio", "speech", "rerank", "moderation", "completion"})
"""The kinds of call that a resource name may end with, after a colon."""

DEFAULT_DOMAIN: Final = "chat"


@dataclass(frozen=True, slots=True)
class ResourceKey:
    """Who serves, which model, which kind of call: ``openai/gpt-x`` or ``openai/gpt-x:embedding``.

    Model names may themselves hold slashes and colons (``openrouter/meta/llama3:8b``): the provider ends at the
    first slash, and a colon starts a domain only if one of :data:`DOMAINS` follows it. ``name`` is all three again.
    """

    provider: str
    model: str
    domain: str = DEFAULT_DOMAIN
    name: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Written out once: it is looked up several times for every request, without the detour of str().
        object.__setattr__(self, "name", self.scopes()[-1])

    @classmethod
    def parse(cls, name: str) -> ResourceKey:
        """Read ``provider/model[:domain]``. Raises ValueError that names what is missing."""
        provider, slash, rest = name.partition("/")
        if not slash or not provider.strip() or not rest.strip():
            raise ValueError(f"{name!r} does not name a model: write it as 'provider/model', e.g. 'openai/gpt-x'")
        model, colon, domain = rest.rpartition(":")
        if colon and model and domain in DOMAINS:
            return cls(provider, model, domain)
        return cls(provider, rest)

    def scopes(self) -> tuple[str, ...]:
        """Names of the scopes that a request of this resource passes, widest first: account, model, domain."""
        model = f"{self.provider}/{self.model}"
        if self.domain == DEFAULT_DOMAIN:
            return (self.provider, model)
        return (self.provider, model, f"{model}:{self.domain}")

    def __str__(self) -> str:
        return self.name


class Outcome(StrEnum):
    """What became of one attempt, as the gate must know it."""

    SUCCESS = "success"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    PROVIDER_TIMEOUT = "provider_timeout"
    PROVIDER_ERROR = "provider_error"
    CONNECTION_ERROR = "connection_error"
    REJECTED = "rejected"
    INVALID_OUTPUT = "invalid_output"
    CANCELLED = "cancelled"
    LOCAL_TIMEOUT = "local_timeout"
    UNEXPECTED = "unexpected"


class LimitKind(StrEnum):
    """Which of a provider's limits a 429 was about."""

    CONCURRENCY = "concurrency"
    REQUESTS = "requests"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    TOKENS = "tokens"
    """Input and output together, as one budget."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that one attempt really used.

    What was read from the provider's cache, or written there, matters to prices only: it is not compared, nor stored.
    ``cached_input_tokens`` are among ``input_tokens``, ``cache_read_tokens`` and ``cache_write_tokens`` come on top.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = field(default=0, compare=False)
    cache_read_tokens: int = field(default=0, compare=False)
    cache_write_tokens: int = field(default=0, compare=False)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True)
class RateWindow:
    """One rate limit as a provider states it: ``limit`` per window, ``remaining`` now, full again in ``reset_s``.

    ``window_s`` is the length of the window in seconds (60 for the usual per-minute limits).
    """

    limit: float
    remaining: float
    reset_s: float | None = None
    window_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Feedback:
    """What one response said about the provider's limits, whatever its dialect.

    ``retry_after_s`` is in seconds from receipt. ``kind`` is set only where the provider said it, ``account_wide``
    only where it said that the whole account is meant. ``tokens`` is a limit on input and output together.
    ``ignored`` counts header values that made no sense.
    """

    retry_after_s: float | None = None
    kind: LimitKind | None = None
    account_wide: bool = False
    requests: RateWindow | None = None
    input_tokens: RateWindow | None = None
    output_tokens: RateWindow | None = None
    tokens: RateWindow | None = None
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class Pressure:
    """One look at a resource: what is in flight, what it may carry, and why it does not carry more.

    ``waiting`` counts requests that wait inside running tasks, ``bids`` the schedulers that would start more.
    ``blocked_s`` is the remaining cooldown in seconds. ``reason`` names what refuses the next request, or is None.
    """

    resource: str
    in_flight: int
    limit: float
    waiting: int
    bids: int
    blocked_s: float
    reason: str | None
    rate_limited: int
    admitted: int


@dataclass(frozen=True, slots=True)
class Done:
    """The cell has a committed value."""

    value: object


@dataclass(frozen=True, slots=True)
class Failed:
    """The cell will not be tried again in this run. ``reason`` is a failure kind, ``message`` its last error."""

    reason: str
    message: str = ""
    attempts: int = 0
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """The cell was not needed: its ``when`` said no, or something it needs was skipped or failed."""

    reason: str


CellOutcome = Done | Failed | Skipped
"""What a finished cell came to. A cell that is held for a later run has no outcome yet."""
