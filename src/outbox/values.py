"""What is delivered, and what the receiver says to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from math import isfinite

from ..errors import ConfigError
from ..values import writable

__all__ = ["Answer", "Item", "OutboxOptions", "Reply", "key_of"]


class Answer(StrEnum):
    """What a receiver says to one delivery."""

    ACK = "ack"
    """It has it, now or since an earlier delivery of the same key."""
    RETRY = "retry"
    """Not now. It may say when."""
    GONE = "gone"
    """It does not know the document any more: nobody waits for this."""
    REJECTED = "rejected"
    """It will never take this."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, from which incarnation of the receiver, and the seconds after which it may be asked again.

    ``receiver`` changes when the receiver restarts and forgets (a boot id); None where it does not say. Seconds that
    are endless, or no number, count as not said.
    """

    answer: Answer
    receiver: str | None = None
    after_s: float | None = None
    message: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "answer", Answer(self.answer))
        object.__setattr__(self, "message", writable(self.message))
        if self.receiver is not None:
            object.__setattr__(self, "receiver", writable(self.receiver))
        if self.after_s is not None and not isfinite(self.after_s):
            object.__setattr__(self, "after_s", None)


@dataclass(frozen=True, slots=True)
class Item:
    """Something that a receiver is to be told at least once. ``key`` is the same at every delivery of it, by which the
    receiver knows a repetition. What it is told is kept by the store, and read when it is sent.

    ``receiver`` is the incarnation that asked for it, as far as that is known. ``created_at`` is wall-clock seconds.
    ``run`` names the run whose results the receiver will come for, if it does: a sweep of the store is to spare it.
    Half a surrogate pair in any of them is written out: no receiver could be told of it, and few places could keep it.
    """

    key: str
    destination: str
    created_at: float
    receiver: str | None = None
    run: str | None = None

    def __post_init__(self) -> None:
        for name in ("key", "destination", "receiver", "run"):
            said: object = getattr(self, name)
            if isinstance(said, str) and not said.isascii():
                object.__setattr__(self, name, writable(said))


def key_of(run: str, row: str, body: bytes) -> str:
    """Return a key for telling ``body`` about a row: another one if the row has come to another outcome since.

    So a resumed run tells nothing twice, and tells again what has changed: a row that failed and was tried again, or a
    column that was made anew. It holds as long as the same outcome makes the same body.
    """
    return f"{run}/{row}/{sha256(body).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class OutboxOptions:
    """``slots`` are deliveries at once; seconds: ``first_pause_s`` doubles with each failure up to ``longest_pause_s``.

    A breaker opens after ``trips_after`` failures of a destination in a row. ``reconcile_most`` keys are asked about at
    once. An attempt that takes longer than ``timeout_s`` has failed; attempts in flight get ``grace_s`` at the end.
    While ``most_waiting`` items have not come to their end, adding another one waits.
    """

    slots: int = 8
    first_pause_s: float = 1.0
    longest_pause_s: float = 300.0
    trips_after: int = 5
    reconcile_most: int = 500
    most_waiting: int = 100_000
    timeout_s: float = 30.0
    grace_s: float = 5.0

    def __post_init__(self) -> None:
        if self.slots < 4:
            raise ConfigError(f"slots={self.slots}: four are the fewest, since what is stale may take a quarter")
        for name in ("trips_after", "reconcile_most", "most_waiting"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: one is the least")
        for name in ("first_pause_s", "longest_pause_s", "timeout_s", "grace_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)}: more than zero seconds, such as 30")
