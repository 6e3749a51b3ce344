"""One scope: whether one more request fits everything that limits it here, and the books of those that went.

Decides for a single scope (an account, a model, a model's domain). It neither knows who waits nor whose turn it is;
the gate asks every scope of a request and takes from all of them or from none.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf
from typing import TYPE_CHECKING

from ..values import LimitKind, Rng
from .concurrency import AdaptiveConcurrency, FixedConcurrency, Stamp
from .cooldown import SETTLE_S, Cooldown
from .estimates import TokenEstimates
from .fair_queue import FairQueue
from .inference import Inference
from .rate import RateLimiter
from .slot_time import SlotTime
from .values import DenyReason, Request

if TYPE_CHECKING:
    from .lane import Lane
    from .memory import ScopeMemory
    from .rate_values import RateStamp
    from .scope_limits import ScopeLimits

__all__ = ["Passage", "Refusal", "Scope"]

# Named once: they are asked for every request, and looking up an enum's member is slow.
_REQUESTS = LimitKind.REQUESTS
_INPUT = LimitKind.INPUT_TOKENS
_OUTPUT = LimitKind.OUTPUT_TOKENS
_NO_CAPACITY = DenyReason.NO_CAPACITY


@dataclass(slots=True, eq=False)
class Refusal:
    """The scope that has no room, why, and the earliest time (seconds, monotonic) at which time alone may help. To be
    read only."""

    scope: Scope
    reason: DenyReason
    next_at: float


@dataclass(slots=True, eq=False, init=False)
class Passage:
    """What one lease holds in one scope."""

    scope: Scope
    stamp: Stamp | None
    rates: tuple[tuple[LimitKind, RateStamp], ...]
    canary: bool


class Scope:
    """The counts, limits, rate buckets and cooldown of one scope, and the queue of resources that wait for it."""

    # The mutable state of a scope is these slots; `waiting`, `lone`, `lone_turn`, `parked`, `asks_at` and `lanes` are
    # kept by the gate.
    __slots__ = (
        "_full",
        "_ramp_started",
        "_rng",
        "accepted",
        "asks_at",
        "bare",
        "concurrency",
        "cooldown",
        "estimates",
        "in_flight",
        "inference",
        "lanes",
        "leaf",
        "limiters",
        "limits",
        "lone",
        "lone_turn",
        "name",
        "only_requests",
        "parked",
        "paused",
        "place",
        "recalled",
        "slot_time",
        "token_limited",
        "waiters_ahead",
        "waiting",
    )

    def __init__(self, name: str, limits: ScopeLimits, *, rng: Rng, leaf: bool) -> None:
        self.name = name
        self.limits = limits
        self.leaf = leaf
        self.in_flight = 0
        self.accepted = 0  # answered, and not with a capacity rejection
        self.paused = False  # a cooldown ran, and nothing has got through since
        self.waiting: FairQueue[Lane] = FairQueue()
        # Who waits alone needs no order: it stands in no queue until another lane joins it, and pays for its last turn
        # then; earlier ones make no difference.
        self.lone: Lane | None = None
        self.lone_turn = 0.0
        self.parked = 0  # how many lanes wait
        self.slot_time: SlotTime[Lane] | None = None  # what turns cost, from when on two lanes have waited side by side
        self.asks_at = inf  # when time alone may let the first of them in: the scope's timer
        self.waiters_ahead = Refusal(self, DenyReason.WAITERS_AHEAD, inf)
        self._full = Refusal(self, _NO_CAPACITY, inf)
        self.place = self._passage(None, (), False)  # of every lease that took nothing else here
        self.cooldown = Cooldown(rng=rng, cap_s=limits.cooldown_cap_s)
        self.concurrency = _law(limits, rng)
        self.inference = Inference()
        self.limiters: dict[LimitKind, RateLimiter] = {}
        self.estimates = TokenEstimates()  # of the resource that ends here
        self.recalled: tuple[ScopeMemory, float] | None = None  # what an earlier process learned, restored when
        self._rng = rng
        self._ramp_started: float | None = None
        for kind, rate in limits.rates().items():
            self.limiters[kind] = RateLimiter(configured_per_minute=rate, rng=rng, share=limits.share)
        self.only_requests: RateLimiter | None = None
        self.token_limited = False
        self.lanes: list[Lane] = []
        self._review()
        if leaf:
            self.end_here()

    @property
    def used(self) -> bool:
        """Whether a request ever passed."""
        return self._ramp_started is not None

    @property
    def rng(self) -> Rng:
        """Where its parts draw their jitter from."""
        return self._rng

    @property
    def limit(self) -> float:
        """How many requests may be in flight, cooldown and ramp aside; ``inf`` when nothing is known."""
        return inf if self.concurrency is None else self.concurrency.limit

    def end_here(self) -> None:
        """Some resource ends here, so limits that nobody stated are found out here."""
        self.leaf = True
        self.limiter(_REQUESTS)

    def share_slots(self) -> None:
        """Two lanes wait here: from now on each pays for the time that its slots are taken."""
        self.slot_time = SlotTime()
        for lane in self.lanes:
            lane.shares = True

    def limiter(self, kind: LimitKind) -> RateLimiter:
        """The rate limiter of ``kind``, made on first need without a known rate."""
        limiter = self.limiters.get(kind)
        if limiter is None:
            limiter = self.limiters[kind] = RateLimiter(
                configured_per_minute=None, rng=self._rng, share=self.limits.share
            )
            self._review()
        return limiter

    def set_limits(self, limits: ScopeLimits, now: float) -> None:
        """Work under other numbers from now on. A limit below what is in flight only stops new requests."""
        before, self.limits = self.limits, limits
        law = self.concurrency
        if law is not None and before.alike(limits) and (limits.adaptive or limits.maximum):
            law.advance(now, self.in_flight, self.parked > 0)
            law.set_bounds(limits.minimum, limits.maximum or UNKNOWN_MAXIMUM, now)
        else:
            self.concurrency = _law(limits, self._rng)
        self.cooldown.cap_s = limits.cooldown_cap_s
        stated = limits.rates()
        for kind in before.rates() | stated:
            self.limiter(kind).configure(stated.get(kind), now)
        if limits.share != before.share:
            for limiter in self.limiters.values():
                limiter.take_share(limits.share, now)
        self._review()

    def too_large(self, request: Request, now: float) -> LimitKind | None:
        """The rate limit that ``request`` could never pass, or None."""
        for kind, limiter in self.limiters.items():
            if not limiter.free and not limiter.fits(1.0 if kind is _REQUESTS else cost_of(request, kind), now):
                return kind
        return None

    def advance(self, now: float) -> None:
        """Let the concurrency law see the time and the demand before a decision."""
        law = self.concurrency
        if law is not None and now >= law.looks_at:
            law.advance(now, self.in_flight, self.parked > 0)

    def first(self) -> Lane | None:
        """The lane whose turn it is, of those that wait here."""
        return self.waiting.head() if self.lone is None else self.lone

    def full(self, now: float) -> Refusal | None:
        """What any request would hear while the limit is reached; None if its own needs matter, or a cooldown's."""
        law = self.concurrency
        if law is None or not self.cooldown.open or self.in_flight + 1 <= law.limit + _ROUNDING:
            return None
        return self._full if law.looks_at == inf else self._no_capacity(law, now)

    def refusal(self, request: Request, now: float) -> Refusal | None:
        """Why ``request`` has no room here at ``now``; None when it has."""
        law, cooldown, in_flight = self.concurrency, self.cooldown, self.in_flight
        limit = inf if law is None else law.limit
        if not cooldown.open and in_flight >= cooldown.allowance(now, in_flight, limit):
            reason = DenyReason.COOLDOWN if now < cooldown.blocked_until else _NO_CAPACITY
            return Refusal(self, reason, cooldown.next_tick(now, in_flight, limit))
        if law is not None and in_flight + 1 > limit + _ROUNDING:
            return self._full if law.looks_at == inf else self._no_capacity(law, now)
        if self.limits.startup_ramp_s:
            refusal = self._ramp_refusal(limit, now)
            if refusal is not None:
                return refusal
        only = self.only_requests
        return None if only is not None and only.free else self._rate_refusal(request, now)

    def admit(self, request: Request, now: float) -> Passage:
        """Take what ``request`` needs. The caller has seen ``refusal`` return None at this ``now``."""
        law, cooldown, only, others = self.concurrency, self.cooldown, self.only_requests, self.in_flight
        self.in_flight = others + 1
        if self._ramp_started is None:
            self._ramp_started = now
        settle_s = SETTLE_S if law is None else law.silence.tau
        canary = not (cooldown.quiet and cooldown.settle_s == settle_s) and cooldown.sent(now, settle_s)
        if self.bare:
            return self._passage(None, (), canary) if canary else self.place
        rates: tuple[tuple[LimitKind, RateStamp], ...] = ()
        if only is not None:
            rates = ((_REQUESTS, only.take(1.0, now)),)
        elif self.limiters:
            taken: list[tuple[LimitKind, RateStamp]] = []
            for kind, limiter in self.limiters.items():
                cost = 1.0 if kind is _REQUESTS else cost_of(request, kind)
                taken.append((kind, limiter.take(cost, now)))
            rates = tuple(taken)
        return self._passage(None if law is None else law.sent(now, others), rates, canary)

    def _passage(self, stamp: Stamp | None, rates: tuple[tuple[LimitKind, RateStamp], ...], canary: bool) -> Passage:
        passage = Passage()
        passage.scope = self
        passage.stamp = stamp
        passage.rates = rates
        passage.canary = canary
        return passage

    def check(self) -> None:
        """Assert every invariant of this scope and its parts."""
        assert self.in_flight >= 0
        assert self.parked == len(self.waiting) + (self.lone is not None)
        assert self.lone is None or not self.waiting, "somebody waits beside the lone one"
        self.waiting.check()
        self.cooldown.check()
        self.inference.check()
        if self.concurrency is not None:
            self.concurrency.check()
        for limiter in self.limiters.values():
            limiter.check()

    def _review(self) -> None:
        """The limits changed: note what most scopes are, so that it need not be found out for each request."""
        self.cooldown.quiet = False  # what it is told with a request may have changed
        # Whether nothing but a cooldown can ever refuse here.
        self.bare = self.concurrency is None and not self.limiters and not self.limits.startup_ramp_s
        self.only_requests = self.limiters.get(_REQUESTS) if len(self.limiters) == 1 else None
        self.token_limited = any(kind is not _REQUESTS for kind in self.limiters)
        if self.token_limited:  # from now on its lanes estimate what their requests use
            for lane in self.lanes:
                lane.limit_tokens()

    def _no_capacity(self, law: AdaptiveConcurrency | FixedConcurrency, now: float) -> Refusal:
        next_at = law.next_tick(now)
        return self._full if next_at == inf else Refusal(self, _NO_CAPACITY, next_at)

    def _rate_refusal(self, request: Request, now: float) -> Refusal | None:
        latest, reason = now, None
        for kind, limiter in self.limiters.items():
            at = limiter.ready_at(1.0 if kind is _REQUESTS else cost_of(request, kind), now)
            if at > latest:
                latest = at
                reason = DenyReason.REQUEST_RATE if kind is LimitKind.REQUESTS else DenyReason.TOKEN_RATE
        return None if reason is None else Refusal(self, reason, latest)

    def _ramp_refusal(self, limit: float, now: float) -> Refusal | None:
        if self._ramp_started is None or limit == inf:
            return None
        slope = limit / self.limits.startup_ramp_s
        allowed = 1.0 + slope * (now - self._ramp_started)
        if self.in_flight < floor_limit(min(allowed, limit)):
            return None
        next_at = self._ramp_started + self.in_flight / slope
        # A rest that is lost in rounding has passed: a timer set for it would be due now, for ever.
        return None if next_at <= now else Refusal(self, _NO_CAPACITY, next_at)


UNKNOWN_MAXIMUM = 1024
"""The concurrency that an adaptive limit may reach when nobody named a maximum."""

_ROUNDING = 1e-9  # a limit that reached an integer by floating point steps counts as that integer


def floor_limit(limit: float) -> float:
    """How many whole requests a fractional limit lets out."""
    return limit if limit == inf else floor(limit + _ROUNDING)


def cost_of(request: Request, kind: LimitKind) -> float:
    """What ``request`` takes from the limit of ``kind``: requests or estimated tokens."""
    if kind is _REQUESTS:
        return 1.0
    if kind is _INPUT:
        return float(request.input_tokens)
    if kind is _OUTPUT:
        return float(request.output_tokens)
    return float(request.input_tokens + request.output_tokens)


def _law(limits: ScopeLimits, rng: Rng) -> AdaptiveConcurrency | FixedConcurrency | None:
    if limits.adaptive:
        maximum = limits.maximum or UNKNOWN_MAXIMUM
        return AdaptiveConcurrency(
            minimum=limits.minimum, start=limits.start, maximum=maximum, rng=rng, queueing=limits.queueing
        )
    return None if limits.maximum is None else FixedConcurrency(limits.maximum)
