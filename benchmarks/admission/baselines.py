"""What others do about limits that nobody told them, each written anew from its published description.

Every law answers to one small protocol: may I send now, sent, answered, rejected, next time. What all have around them,
as programs do that use them, is in ``peers``: a refused request that is tried again by its HTTP client keeps its slot.
None of them knows of rates: in the cases about rates they run as they are.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Final, Protocol

__all__ = ["Fixed", "Gradient", "Law", "PlainAimd", "ScalableMimd", "SlowStartAimd"]


class Law(Protocol):
    """A limit and its law. ``retries`` is how often the HTTP client tries a refused request again by itself."""

    retries: int

    @property
    def limit(self) -> float:
        """How many slots there are."""
        ...

    def may_send(self, in_use: int, now: float) -> bool:
        """Whether one more may go out while ``in_use`` slots are taken."""
        ...

    def sent(self, now: float) -> None:
        """One went out."""
        ...

    def answered(self, sent_at: float, in_use: int, again: bool, now: float) -> None:
        """One that was sent at ``sent_at`` was served, after a refusal if ``again``; it still counts as in use."""
        ...

    def rejected(self, sent_at: float, retry_after_s: float | None, now: float) -> None:
        """One that was sent at ``sent_at`` was refused."""
        ...

    def next_at(self, now: float) -> float:
        """When time alone will let more out."""
        ...


SDK_RETRIES: Final = 2
"""What openai's and anthropic's clients do unless told otherwise."""


class Fixed:
    """A semaphore."""

    retries = SDK_RETRIES

    def __init__(self, limit: int) -> None:
        self.limit: float = limit

    def may_send(self, in_use: int, now: float) -> bool:
        """Whether a slot is free."""
        return in_use < self.limit

    def sent(self, now: float) -> None:
        """Nothing to learn."""

    def answered(self, sent_at: float, in_use: int, again: bool, now: float) -> None:
        """Nothing to learn."""

    def rejected(self, sent_at: float, retry_after_s: float | None, now: float) -> None:
        """Nothing to learn."""

    def next_at(self, now: float) -> float:
        """Never."""
        return inf


class PlainAimd:
    """Additive increase, multiplicative decrease, from the cap downwards (NVIDIA's DataDesigner describes this one).

    A rejection multiplies the limit by 0.75 and stops everything for two seconds, or as long as Retry-After says;
    further rejections of the same burst, until something succeeds, only stop again. 25 successes in a row add one. The
    row of a refused request goes back into the queue.
    """

    retries = 0
    FACTOR: Final = 0.75
    SUCCESSES: Final = 25
    PAUSE_S: Final = 2.0

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self.limit: float = cap
        self._successes = 0
        self._refused = False
        self._blocked_until = -inf

    def may_send(self, in_use: int, now: float) -> bool:
        """Whether a slot is free and no pause runs."""
        return in_use < self.limit and now >= self._blocked_until

    def sent(self, now: float) -> None:
        """Nothing to learn."""

    def answered(self, sent_at: float, in_use: int, again: bool, now: float) -> None:
        """One more success in a row."""
        self._refused = False
        self._successes += 1
        if self._successes >= self.SUCCESSES:
            self._successes = 0
            self.limit = min(self._cap, self.limit + 1)

    def rejected(self, sent_at: float, retry_after_s: float | None, now: float) -> None:
        """Cut once a burst, and pause."""
        self._successes = 0
        if not self._refused:
            self.limit = max(1, int(self.limit * self.FACTOR))
        self._refused = True
        self._blocked_until = max(self._blocked_until, now + (retry_after_s or self.PAUSE_S))

    def next_at(self, now: float) -> float:
        """The end of the pause."""
        return self._blocked_until if self._blocked_until > now else inf


class SlowStartAimd:
    """Slow start, then additive increase and multiplicative decrease with a debounce (AISI's Inspect describes it).

    From 20 connections the limit doubles after each clean round (as many successes as the limit is high, none of them
    after a refusal) until the first rejection, later it grows by 5 % a round. A rejection cuts to 0.8, and not again
    for 15 s or as long as Retry-After says.
    """

    retries = SDK_RETRIES
    FACTOR: Final = 0.8
    DEBOUNCE_S: Final = 15.0
    GROWTH: Final = 0.05

    def __init__(self, cap: int, *, start: int = 20, least: int = 4) -> None:
        self._cap, self._least = cap, least
        self.limit: float = min(start, cap)
        self._clean = 0
        self._slow_start = True
        self._hold_until = -inf

    def may_send(self, in_use: int, now: float) -> bool:
        """Whether a slot is free."""
        return in_use < self.limit

    def sent(self, now: float) -> None:
        """Nothing to learn."""

    def answered(self, sent_at: float, in_use: int, again: bool, now: float) -> None:
        """A clean success counts towards the round."""
        if again:
            return
        self._clean += 1
        if self._clean >= self.limit:
            self._clean = 0
            step = self.limit if self._slow_start else max(1, ceil(self.limit * self.GROWTH))
            self.limit = min(self._cap, self.limit + step)

    def rejected(self, sent_at: float, retry_after_s: float | None, now: float) -> None:
        """Cut, once in a while."""
        self._clean = 0
        self._slow_start = False
        if now < self._hold_until:
            return
        self.limit = max(self._least, int(self.limit * self.FACTOR))
        self._hold_until = now + max(self.DEBOUNCE_S, retry_after_s or 0.0)

    def next_at(self, now: float) -> float:
        """Never."""
        return inf


class Gradient:
    """The latency gradient (``Gradient2`` of Netflix's concurrency-limits, with its defaults), and what it lacks.

    Each second with ten samples or more: gradient = long mean / this second's mean, times a tolerance of 1.5, between
    0.5 and 1; limit = limit x gradient + 4, smoothed by 0.2. The long mean is over 600 such seconds, plain over the
    first ten; where it is more than twice the short one it decays by 0.95. The limit grows only while half of it is
    used. On its own this takes no notice of rejections; here a second with one multiplies by 0.9, as the same
    library's other laws do, or the limit would only ever be its maximum.
    """

    retries = SDK_RETRIES
    QUEUE: Final = 4
    SMOOTHING: Final = 0.2
    TOLERANCE: Final = 1.5
    LONG_SAMPLES: Final = 600
    WARM_UP: Final = 10
    WINDOW_S: Final = 1.0
    SAMPLES_MIN: Final = 10
    DROP: Final = 0.9
    DECAY: Final = 0.95

    def __init__(self, cap: int, *, start: int = 20) -> None:
        self._cap = cap
        self.limit: float = min(start, cap)
        self._long, self._windows = 0.0, 0
        self._sum, self._count, self._most, self._dropped = 0.0, 0, 0, False
        self._until = -inf

    def may_send(self, in_use: int, now: float) -> bool:
        """Whether a slot is free."""
        return in_use < int(self.limit)

    def sent(self, now: float) -> None:
        """Nothing to learn."""

    def answered(self, sent_at: float, in_use: int, again: bool, now: float) -> None:
        """One more sample."""
        self._sum += now - sent_at
        self._count += 1
        self._most = max(self._most, in_use)
        self._roll(now)

    def rejected(self, sent_at: float, retry_after_s: float | None, now: float) -> None:
        """This second had a drop."""
        self._dropped = True
        self._roll(now)

    def next_at(self, now: float) -> float:
        """Never."""
        return inf

    def _roll(self, now: float) -> None:
        if now < self._until or self._count < self.SAMPLES_MIN:
            return
        short, most, dropped = self._sum / self._count, self._most, self._dropped
        self._sum, self._count, self._most, self._dropped = 0.0, 0, 0, False
        self._until = now + self.WINDOW_S
        self._windows += 1
        share = 1 / self._windows if self._windows <= self.WARM_UP else 2 / (self.LONG_SAMPLES + 1)
        self._long += (short - self._long) * share
        if self._long / short > 2:
            self._long *= self.DECAY
        if dropped:
            self.limit = max(1.0, self.limit * self.DROP)
        elif most >= self.limit / 2:
            gradient = max(0.5, min(1.0, self.TOLERANCE * self._long / short))
            wanted = self.limit * gradient + self.QUEUE
            self.limit = max(1.0, min(self._cap, self.limit * (1 - self.SMOOTHING) + wanted * self.SMOOTHING))


class ScalableMimd:
    """Multiplicative increase, multiplicative decrease, as Scalable TCP has it (T. Kelly, 2003).

    Slow start (one more for each success) until the first rejection; then each success adds 0.01 slots, which is 1 % a
    round trip, and a rejection takes an eighth, once a round trip: rejections of requests that were sent before the
    last cut belong to the same loss event. Below 16 slots, where 1 % is nothing, it grows by one a round trip.
    """

    retries = SDK_RETRIES
    GAIN: Final = 0.01
    LEGACY: Final = 16
    CUT: Final = 0.125

    def __init__(self, cap: int, *, start: int = 4) -> None:
        self._cap = cap
        self.limit: float = min(start, cap)
        self._slow_start = True
        self._cut_at = -inf

    def may_send(self, in_use: int, now: float) -> bool:
        """Whether a slot is free."""
        return in_use < int(self.limit)

    def sent(self, now: float) -> None:
        """Nothing to learn."""

    def answered(self, sent_at: float, in_use: int, again: bool, now: float) -> None:
        """Grow."""
        gain = self.GAIN if self.limit > self.LEGACY else 1.0 / self.limit
        self.limit = min(self._cap, self.limit + (1.0 if self._slow_start else gain))

    def rejected(self, sent_at: float, retry_after_s: float | None, now: float) -> None:
        """Cut, once for each loss event."""
        self._slow_start = False
        if sent_at > self._cut_at:
            self._cut_at = now
            self.limit = max(1.0, self.limit * (1 - self.CUT))

    def next_at(self, now: float) -> float:
        """Never."""
        return inf
