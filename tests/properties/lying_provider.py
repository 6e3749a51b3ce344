"""A provider that may lie: what it serves, what it says about it, and how both change from one mood to the next.

Decides the fate of each request and the headers of its answer; knows nothing of gates. Everything is drawn from a
seeded generator, so a script of moods is a run. Honest is the mood without any lie: it rejects only what is beyond its
slots or its rate, at once, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate
from math import exp, inf
from typing import TYPE_CHECKING

from headgate.values import LimitKind, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

WALL_0 = 1_700_000_000.0
"""Seconds since 1970 at virtual time zero."""

HINTS = ("0", "1", "5", "30", "date10")
"""What a provider says that cannot decide how long to wait."""

CLIENT_TIMEOUT_S = 600.0
"""A request without an answer is given up by its client after this."""


class _Short:
    """Shows only what differs from the defaults: a failing script is then a few lines."""

    __slots__ = ()

    def __repr__(self) -> str:
        plain = type(self)()
        names: Iterable[str] = self.__slots__
        shown = [f"{name}={getattr(self, name)!r}" for name in names if getattr(self, name) != getattr(plain, name)]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, slots=True, repr=False)
class Claim(_Short):
    """What an answer says about a limit, true or not. ``limit`` None states the truth; ``left`` is a share of it.

    ``raw`` replaces the three values by text that makes little sense.
    """

    dialect: str = "x-ratelimit-{}-requests"
    limit: float | None = None
    left: float | None = None
    reset: str = "1s"
    raw: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Mood(_Short):
    """How the provider behaves for a while. Shares are of all requests, times in seconds, rates per minute."""

    slots: float = inf
    per_minute: float = inf
    burst: float = 10.0
    fixed_window: bool = False
    counts_rejected: bool = False
    latency_s: float = 1.0
    spread: float = 0.0
    reject_s: float = 0.05
    rejects: float = 0.0
    overloads: float = 0.0
    errors: float = 0.0
    hangs: float = 0.0
    resets: float = 0.0
    retry_after: str | None = None
    clock_skew_s: float = 0.0
    label: bool = False
    account_wide: bool = False
    claims: tuple[Claim, ...] = ()
    claimed: float = 1.0
    usage_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request ends, ``after_s`` seconds from its arrival. ``kind`` is what the body says."""

    outcome: Outcome
    after_s: float
    headers: dict[str, str]
    served: bool = False
    status: int | None = None
    kind: LimitKind | None = None
    account_wide: bool = False


class Provider:
    """Serves one resource as its ``mood`` says."""

    def __init__(self, rng: Random, mood: Mood, now: float) -> None:
        self.mood = mood
        self.busy = 0
        self.work = 0.0
        self.accepted = 0
        self.rejected = 0
        self._rng = rng
        self._busy_since = now
        self._tokens = mood.burst
        self._refilled_at = now

    def change(self, mood: Mood, now: float) -> None:
        """Behave like ``mood`` from now on."""
        self._refill(now)
        self.mood = mood
        self._tokens = min(self._tokens, self._room()) if mood.per_minute < inf else mood.burst

    def arrive(self, now: float) -> Answer:
        """Decide what becomes of a request that arrives now."""
        mood = self.mood
        self._refill(now)
        kind = self._refuses(now)
        if kind is not None:
            self.rejected += 1
            if mood.counts_rejected:
                self._tokens = max(0.0, self._tokens - 1.0)
            return self._rejection(kind, now)
        self.accepted += 1
        if mood.per_minute < inf:
            self._tokens -= 1.0
        roll, latency_s = self._rng.random(), self._latency()
        if roll < mood.hangs:
            return Answer(Outcome.LOCAL_TIMEOUT, CLIENT_TIMEOUT_S, {})
        if roll < mood.hangs + mood.resets:
            return Answer(Outcome.CONNECTION_ERROR, latency_s, {})
        if roll < mood.hangs + mood.resets + mood.errors:
            return Answer(Outcome.PROVIDER_ERROR, latency_s, self._headers(now), status=500)
        if latency_s > CLIENT_TIMEOUT_S:
            return Answer(Outcome.LOCAL_TIMEOUT, CLIENT_TIMEOUT_S, {})
        self.hold(1, now)
        return Answer(Outcome.SUCCESS, latency_s, self._headers(now), served=True, status=200)

    def hold(self, change: int, now: float) -> None:
        """A slot is taken or freed."""
        self.work += self.busy * (now - self._busy_since)
        self._busy_since = now
        self.busy += change

    def worked(self, now: float) -> float:
        """Busy slots times seconds so far."""
        self.hold(0, now)
        return self.work

    # Fates

    def _refuses(self, now: float) -> LimitKind | None:
        mood = self.mood
        if self.busy >= mood.slots:
            return LimitKind.CONCURRENCY
        if mood.per_minute < inf and self._tokens < 1.0:
            return LimitKind.REQUESTS
        if mood.rejects and self._rng.random() < mood.rejects:
            return LimitKind.CONCURRENCY if self._rng.random() < 0.5 else LimitKind.REQUESTS
        if mood.overloads and self._rng.random() < mood.overloads:
            return LimitKind.CONCURRENCY
        return None

    def _rejection(self, kind: LimitKind, now: float) -> Answer:
        mood = self.mood
        headers = self._headers(now)
        if mood.retry_after is not None:
            headers["retry-after"] = self._retry_after(mood.retry_after, now)
        overloaded = self._rng.random() < mood.overloads
        return Answer(
            Outcome.OVERLOADED if overloaded else Outcome.RATE_LIMITED,
            min(CLIENT_TIMEOUT_S, mood.reject_s),
            headers,
            status=529 if overloaded else 429,
            kind=kind if mood.label else None,
            account_wide=mood.account_wide,
        )

    def _retry_after(self, text: str, now: float) -> str:
        if text == "any":
            text = HINTS[int(self._rng.random() * len(HINTS))]
        if text == "refill":
            return str(60.0 / self.mood.per_minute) if self.mood.per_minute < inf else "0"
        if text.startswith("date"):
            return formatdate(WALL_0 + now + self.mood.clock_skew_s + float(text[4:]), usegmt=True)
        return text

    def _latency(self) -> float:
        mood = self.mood
        if not mood.spread:
            return mood.latency_s
        return mood.latency_s * exp(mood.spread * self._rng.gauss(0.0, 1.0) - mood.spread**2 / 2)

    # What it says

    def _headers(self, now: float) -> dict[str, str]:
        mood = self.mood
        if not mood.claims or self._rng.random() >= mood.claimed:
            return {}
        claim = mood.claims[int(self._rng.random() * len(mood.claims))]
        values = claim.raw or self._values(claim)
        names = [claim.dialect.format(part) for part in ("limit", "remaining", "reset")]
        return dict(zip(names, values, strict=True))

    def _values(self, claim: Claim) -> tuple[str, str, str]:
        limit = self.mood.per_minute if claim.limit is None else claim.limit
        if limit == inf:
            limit = 1e6
        left = claim.left * limit if claim.left is not None else min(limit, max(0.0, self._tokens))
        return f"{limit:.0f}", f"{int(left)}", claim.reset

    # Its books

    def _room(self) -> float:
        return self.mood.per_minute if self.mood.fixed_window else self.mood.burst

    def _refill(self, now: float) -> None:
        mood, since = self.mood, self._refilled_at
        self._refilled_at = now
        if mood.per_minute == inf:
            return
        if mood.fixed_window:
            if int(now / 60.0) > int(since / 60.0):
                self._tokens = mood.per_minute
            return
        self._tokens = min(mood.burst, self._tokens + (now - since) * mood.per_minute / 60.0)
