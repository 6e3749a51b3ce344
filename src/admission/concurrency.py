"""How many requests may be in flight at once: the law "measure, hold, probe", and its fixed stand-in.

Theory of operation
-------------------
A provider that limits concurrency rejects at once, so the first rejection *is* a measurement: as many
requests as were in flight when the rejected one was sent are what it takes, give or take what was in transit.
The law sets its limit to that and holds it, and asks again by probing one slot higher now and then.
Acceptance shows just as early: what was not rejected within ``tau`` (about a second) was accepted, so growth
takes seconds, whatever the latency.

* RAMP doubles the limit every second until the first rejection. HOLD keeps it, growing back first what a cut
  took. PROBE offers one slot more; if that survives, CLIMB goes on upwards, ever faster, until it is
  rejected, or the limit recovers what it lost a while ago. FALL searches downwards while nothing gets through.
* Two surprises mean that others share the limit. Then nobody can measure it: a hold creeps upwards by the same
  steps for all, and a rejection takes a share. That makes the shares equal.
* Every rejection that counts starts a new *generation*. A rejection of a request that was sent in an earlier
  one belongs to the same burst and is only counted (A6).
* The limit grows only while it is used: in flight within one of it, and somebody waiting.
* Retry-After only makes probes rarer. It stops neither the growth nor the cuts: pacing is the cooldown's
  business.

What it does not decide: when to send after a rejection (:mod:`.cooldown`), and whose turn it is (the gate).
Only capacity rejections may be reported to ``rejected``: timeouts, cancellations and 5xx say nothing about
the limit.

Protocol of calls, all with a ``now`` that never goes back (seconds, monotonic):

1. ``advance(now, in_flight, demand)`` before every decision and before every report below. While ``now`` is before
   ``looks_at`` time and demand mean nothing, and only what is no success has to be announced by it.
2. ``sent`` when a request goes out, ``in_flight_others`` not counting itself; keep the stamp with the lease.
3. Exactly one of ``succeeded``, ``rejected``, ``abandoned`` with that stamp when its fate is known.
4. ``next_tick`` for whoever waits: call ``advance`` again then. The limit does not grow while nobody asks.
5. After ``rejected`` the cooldown: the canary's fate first, then ``hint`` if there was a Retry-After; without
   one, ``backoff(now, law.consecutive, rate=False)`` if the verdict is FALLING and ``law.wants_canary``.

Prior art: TCP's slow start and CUBIC's recovery; AIMD and gradient limiters, which hunt for ever because they
take a rejection for a hint to cut, not for a measurement.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .ceiling import FALLING, HOLDING, PROBING, Ceiling
from .fixed import FixedConcurrency
from .judge import Judge
from .law_values import (
    CANARY_CONSECUTIVE,
    RECOVERY_MIN_S,
    STEP_MAX_S,
    TICK_MIN_S,
    LawMemory,
    LawSnapshot,
    Mode,
    Stamp,
    Verdict,
)
from .measurement import Measurement
from .probing import Probing
from .retraction import Before, Past
from .survival import Silence, Watch

if TYPE_CHECKING:
    from ..values import Rng

__all__ = ["AdaptiveConcurrency", "FixedConcurrency", "LawMemory", "LawSnapshot", "Mode", "Stamp", "Verdict"]


class AdaptiveConcurrency:
    """The limit of one scope, learned from its rejections. See the module's theory of operation.

    ``minimum`` and ``maximum`` bound the limit, which begins at ``start``: in a ramp, or, when ``settled``
    says that it was learned before, holding. ``queueing``: the provider lets requests wait instead of rejecting
    them, so the limit is also bounded by the knee of its throughput.

    ``limit``, to be read only, is how many may be in flight: the gate admits while fewer than its floor are.
    ``silence.tau`` is the time without a rejection after which a request counts as accepted (seconds).
    """

    # The mutable state is exactly these slots.
    __slots__ = (
        "_at",
        "_ceiling",
        "_demand",
        "_in_flight",
        "_judge",
        "_measurement",
        "_past",
        "_probed_at",
        "_probing",
        "_saturated",
        "_seq",
        "_throughput",
        "_watch",
        "consecutive",
        "generation",
        "limit",
        "looks_at",
        "rejections",
        "silence",
        "stale",
    )

    def __init__(
        self, *, minimum: int, start: float, maximum: int, rng: Rng, settled: bool = False, queueing: bool = False
    ) -> None:
        self.generation = 0
        self.consecutive = 0
        self.rejections = 0
        self.stale = 0
        mode = Mode.HOLD if settled else Mode.RAMP
        self._ceiling = Ceiling(minimum=minimum, start=start, maximum=maximum, mode=mode, queueing=queueing)
        self.limit = self._ceiling.limit  # the ceiling's: read for every request, so it is kept at hand
        self.looks_at = -inf  # to be read only
        self._probing = Probing(rng=rng)
        self._throughput = self._probing.throughput
        self._at = -inf
        self._in_flight = 0
        self._demand = False
        self._saturated = False
        self.silence = Silence()
        self._watch = Watch()
        self._seq = 0
        self._measurement = Measurement()
        self._judge = Judge(self._ceiling, self._probing, self._measurement)
        self._probed_at = -inf
        self._past = Past()

    def recall(self, memory: LawMemory) -> None:
        """Begin with what an earlier law knew not long ago: back to its limit within seconds of use, then a probe."""
        self._ceiling.cut(self.limit, top=memory.limit, span_s=RECOVERY_MIN_S, mode=Mode.HOLD)
        self._probing.recall(memory.probe_every_s)
        self.silence.recall(memory.tau)
        self._saturate()

    @property
    def minimum(self) -> int:
        """What the limit never goes below."""
        return self._ceiling.minimum

    @property
    def maximum(self) -> int:
        """What the limit never goes above."""
        return self._ceiling.allowed

    @property
    def queueing(self) -> bool:
        """Whether the knee of the throughput bounds the limit."""
        return self._ceiling.knee is not None

    @property
    def wants_canary(self) -> bool:
        """Whether so many were rejected in a row that requests should stop but for one."""
        return self.consecutive >= CANARY_CONSECUTIVE

    def sent(self, now: float, in_flight_others: int) -> Stamp:
        """A request goes out while ``in_flight_others`` others are in flight."""
        self._seq += 1
        stamp = Stamp()
        stamp.generation = self.generation
        stamp.others = in_flight_others
        stamp.sent_at = now
        stamp.seq = self._seq
        if self.looks_at == inf:
            return stamp
        ceiling = self._ceiling
        if self.consecutive or (ceiling.mode is PROBING and in_flight_others >= ceiling.level):
            self._watch.add(stamp)
        self._in_flight = in_flight_others + 1
        if not self._saturated:
            self._at = now
            self._saturated = self._demand and self._used()
        return stamp

    def succeeded(self, stamp: Stamp, now: float, units: float | None = None) -> None:
        """The request was answered, and not with a capacity rejection: the provider had room for it. ``units`` is
        the work it did (output tokens), None where nobody knows."""
        self._throughput.add(now)
        if now < self.looks_at:
            return
        ceiling, watched = self._ceiling, self._watch.stamps
        self._watch.drop(stamp)
        if self.consecutive or watched or ceiling.mode is PROBING:  # else it is no news
            self._survived(stamp, now)
        knee = ceiling.knee
        if knee is not None and knee.completed(stamp, now, units):
            self._ceiling.follow(rejected=self.generation > 0)
            self._saturate()

    def rejected(self, stamp: Stamp, now: float, retry_after_s: float | None = None) -> Verdict:
        """The provider had no room for the request. Says what that meant; the limit has moved accordingly."""
        self.rejections += 1
        self.silence.observe(now - stamp.sent_at, now)
        self._watch.drop(stamp)
        if stamp.generation != self.generation:
            self.stale += 1
            return Verdict.STALE
        if self._past.begins(now):
            states = (self._ceiling.state(), self._probing.state(), self._measurement.state())
            self._past.add(Before(now, *states, self.consecutive, self.rejections))
        self.generation += 1
        self.consecutive += 1
        self._watch.clear()
        self._probing.rejected(retry_after_s)
        verdict = self._judge.rejected(
            stamp.others, now, consecutive=self.consecutive, rejections=self.rejections, tau=self.silence.tau
        )
        self._saturate()
        return verdict

    def abandoned(self, stamp: Stamp, now: float) -> None:
        """Cancelled, timed out here, or lost with its connection: evidence of nothing."""
        self._watch.drop(stamp)

    def retract(self, now: float, since: float) -> bool:
        """The rejections reported at ``since`` (seconds, monotonic) or later were about another limit after all.

        What they taught is taken back as if each had been ``abandoned``: the law grows or holds on from where it was,
        or from where it is if that is higher. Returns False if none of them is remembered.
        """
        before = self._past.back_to(since)
        if before is None:
            return False
        self.consecutive = before.consecutive
        self._measurement.take(*before.measurement)
        self._ceiling.restore(before.ceiling)
        self._probing.restore(before.probing, self.rejections - before.rejections)
        self._watch.clear()
        self._saturate()
        return True

    def advance(self, now: float, in_flight: int, demand: bool) -> None:
        """Let time pass up to ``now``. ``demand``: somebody waits for this scope."""
        if now > self._at:
            if self._saturated:
                ceiling = self._ceiling
                if ceiling.mode is not HOLDING or ceiling.recovery is not None or self._probing.creeps:
                    self._grow(now)
            self._at = now
        if self._watch.stamps:
            while (stamp := self._watch.take(now - self.silence.tau)) is not None:
                self._survived(stamp, now)
        self._in_flight = in_flight
        self._demand = demand
        self._saturated = demand and in_flight + 2 > self.limit  # as `_used`, which is asked less often
        if self._saturated and now >= self._probing.next_at and self.limit < self._ceiling.maximum:
            self._probe_if_due(now)
        if self._ceiling.mode is HOLDING:
            self.looks_at = self._next_look()

    def set_bounds(self, minimum: int, maximum: int, now: float) -> None:
        """Other bounds from now on; the limit may end up below what is in flight."""
        self._ceiling.set_bounds(minimum, maximum, now, rejected=self.generation > 0)
        self._at = max(now, self._at)
        self._saturate()

    def next_tick(self, now: float) -> float:
        """When time alone may let somebody in who waits; ``inf`` for never. Always later than ``now``.

        Asked on behalf of somebody who waits: a law that nobody asks does not grow.
        """
        ceiling = self._ceiling
        if self.limit >= ceiling.maximum and not self._watch.stamps:
            return inf
        at = self._watch.next_at(self.silence.tau) if self._watch.stamps else inf
        if self.limit < ceiling.maximum and self._used():
            holds = ceiling.rests and not self._probing.contended(self._at)
            at = min(at, self._probing.next_at if holds else self._at + self._next_whole_s())
        return max(at, now + TICK_MIN_S)

    def snapshot(self, now: float) -> LawSnapshot:
        """One look at the law."""
        return LawSnapshot(
            mode=self._ceiling.mode,
            limit=self._ceiling.limit,
            generation=self.generation,
            consecutive=self.consecutive,
            contended=self._probing.contended(now),
            tau=self.silence.tau,
            probe_every_s=self._probing.every_s,
            next_probe=self._probing.next_at,
            rejections=self.rejections,
            stale=self.stale,
        )

    def memory(self) -> LawMemory:
        """What to keep for :func:`~headgate.admission.memory.restored`."""
        ceiling = self._ceiling
        limit = ceiling.level if ceiling.mode is Mode.PROBE else ceiling.limit
        return LawMemory(limit, self._probing.every_s, self.silence.tau)

    def check(self) -> None:
        """Assert every invariant."""
        self._ceiling.check()
        assert 0 <= self.stale <= self.rejections
        assert self.generation == self.rejections - self.stale
        assert 0 <= self.consecutive <= self.generation
        assert self.limit == self._ceiling.limit
        assert self._ceiling.mode is not Mode.FALL or self.consecutive > 0
        self._watch.check()
        self._past.check()
        self._probing.check()

    # Growth

    def _next_look(self) -> float:
        """A hold with nothing to grow back, to wait for or to share waits for its next probe, if it may have one."""
        ceiling, probing = self._ceiling, self._probing
        if not ceiling.rests or self.consecutive or probing.creeps or ceiling.knee is not None:
            return -inf
        return self._probing.next_at if self.limit < ceiling.maximum else inf

    def _grow(self, now: float) -> None:
        creep_per_s = self._probing.creep_per_s(self._at)
        dt = now - self._at
        if dt > STEP_MAX_S:
            dt = min(dt, max(STEP_MAX_S, self._next_whole_s()))
        self._ceiling.grow(dt, tau=self.silence.tau, creep_per_s=creep_per_s)
        self.limit = self._ceiling.limit

    def _next_whole_s(self) -> float:
        return self._ceiling.next_whole_s(tau=self.silence.tau, creep_per_s=self._probing.creep_per_s(self._at))

    def _probe_if_due(self, now: float) -> None:
        ceiling = self._ceiling
        if not ceiling.rests or self._probing.contended(now):
            return
        # The probe asks anew: its rejection is the first in a row, even if nothing was answered before it.
        self.consecutive = 0
        self._watch.clear()
        self._probed_at = now
        ceiling.probe()
        self.limit = ceiling.limit

    def _survived(self, stamp: Stamp, now: float) -> None:
        if stamp.generation != self.generation:
            return
        self.consecutive = 0
        ceiling = self._ceiling
        if ceiling.mode is FALLING:
            ceiling.mode = Mode.HOLD
        elif ceiling.mode is PROBING and stamp.others >= ceiling.level and stamp.sent_at >= self._probed_at:
            lost = self._probing.lost(ceiling.limit, now)
            if lost is None:
                ceiling.climb()
            else:
                ceiling.recover(lost)
        if self._watch.stamps and ceiling.mode is not PROBING:
            self._watch.clear()

    def _used(self) -> bool:
        return self._in_flight + 2 > self.limit  # within one of its whole part

    def _saturate(self) -> None:
        """The limit moved, or will."""
        self.limit = self._ceiling.limit
        self._saturated = self._demand and self._used()
        self.looks_at = -inf
