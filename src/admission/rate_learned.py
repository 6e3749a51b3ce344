"""The rate law for a provider that states nothing: measure at the first rejection, hold, probe.

Decides the rate from rejections of kind "rate" alone. Nothing is limited until the first one. It measures the quota:
what was accepted per second until then. The rate is held there for a while, then raised slowly and ever faster until
the next rejection, which measures again. Held ever longer while the quota repeats, so that a known quota costs next to
no rejections.

A rejection counts once per burst: its request must have been sent under the rate in force (A6). What it measures is
decided in :mod:`.rate_measure`. A quota that comes back all at once (:mod:`.rate_window`) is paced evenly, which fits
into any window wherever it begins, once what is left of the present one is used up.

Pure: ``now`` in seconds (monotonic), units are requests or tokens.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import TYPE_CHECKING

from .rate_counts import IDLE_S, Mark, SendCounts
from .rate_measure import MARGIN, MEASURE_S, SHORTEST_S, RateMeasure
from .rate_values import (
    EXTENDED_S,
    FALL_MOST,
    FALLEN,
    FALLEN_HOLD_S,
    FALLEN_S,
    FIXED_WINDOW_BLOCK_S,
    HOLD_GROWTH,
    HOLD_JITTER,
    HOLD_MAX_S,
    HOLD_MIN_S,
    LATE_S,
    LATE_SHARE,
    MEASURE_LONG_S,
    MEASURE_REQUESTS,
    PAUSE_INTERVALS,
    PROBE,
    PROBE_MAX_S,
    PROBE_SCALE_S,
    PROBE_SLOPE,
    RATE_MIN,
    SLOWEST_S,
    STEP_DOWN,
    WINDOW_HOLD_S,
    WINDOW_MARGIN,
    LearnedSnapshot,
    RateMode,
)
from .rate_window import REPEATS_WITHIN, WINDOW_S, FixedWindow

if TYPE_CHECKING:
    from ..values import Rng

__all__ = ["LearnedRate"]


class LearnedRate:
    """Learns one rate from rejections."""

    __slots__ = (
        "_block",
        "_blocked_until",
        "_counted_at",
        "_fallen_until",
        "_hold_s",
        "_hold_until",
        "_idled",
        "_measure",
        "_open",
        "_probed_s",
        "_promised",
        "_resume",
        "_rng",
        "_settled_base",
        "_then",
        "_unblocked_at",
        "_window",
        "base",
        "counts",
        "generation",
        "mode",
        "rejections",
        "stale",
    )

    def __init__(self, *, rng: Rng) -> None:
        self.counts = SendCounts()
        self._measure = RateMeasure(self.counts)
        self.mode = RateMode.OPEN
        self.base = inf
        self.generation = 0
        self.rejections = 0
        self.stale = 0
        self._rng = rng
        self._hold_s = HOLD_MIN_S
        self._hold_until = inf
        self._fallen_until = -inf
        self._probed_s = 0.0  # seconds of probing in which the rate was used
        self._settled_base = inf  # what was held when the last probe began
        self._counted_at = -inf  # when the last rejected request that was no burst's was sent
        self._promised = -inf  # the end of the block that runs, as it was first said
        self._open: Mark | None = None  # the last unblock, or the start of the busy spell
        self._block: Mark | None = None  # the start of the block that runs
        self._resume: Mark | None = None  # the first send after it
        self._idled = False  # whether nobody sent anything for a while before that
        self._blocked_until = -inf
        self._then: float | None = None  # what will be held once a window is used up
        self._unblocked_at = -inf
        self._window = FixedWindow()

    @property
    def rate(self) -> float:
        """Units a second; ``inf`` while nothing is known."""
        if self.mode is not RateMode.PROBE:
            return self.base
        x = self._probed_s
        return self.base * (1.0 + PROBE_SLOPE * x) * (1.0 + (x / PROBE_SCALE_S) ** 2)

    def advance(self, now: float) -> None:
        """Begin the probe that is due; a quota that repeats is held longer first."""
        if self.mode is not RateMode.HOLD or now < self._hold_until:
            return
        if self._then is not None:
            self._hold(self._then, now)
            return
        if abs(self.base / self._settled_base - 1.0) <= REPEATS_WITHIN:
            most = FALLEN_HOLD_S if now < self._fallen_until else HOLD_MAX_S
            longer = max(self._hold_s, min(most, self._hold_s * HOLD_GROWTH))
            self._hold_until += longer - self._hold_s
            self._hold_s = longer
            self._settled_base = inf
            if now < self._hold_until:
                return
        self.mode = RateMode.PROBE
        self._settled_base = self.base
        self._probed_s = 0.0

    def sent(self, cost: float, now: float, lateness_s: float, pace_s: float) -> None:
        """Count a send that went out ``lateness_s`` seconds after the bucket would have let it go.

        ``pace_s`` is the time in which the bucket refills its cost.

        A probe goes on only through sends that came as fast as the rate allows: it never climbs unused (T4).
        """
        if self.mode is PROBE and lateness_s <= max(LATE_S, LATE_SHARE * pace_s):
            since = max(self.counts.last_sent, self._hold_until)
            self._probed_s = min(PROBE_MAX_S, self._probed_s + max(0.0, now - since))
        counts = self.counts
        if self._block is not None or now - counts.last_sent > IDLE_S:
            self._resumed(now, pace_s)
        opened = self._open
        counts.sent(cost, now, opened is not None and opened.at == now)

    def corrected(self, delta: float, sent_at: float, units_before: float) -> None:
        """A send turned out ``delta`` units larger than it was counted (negative: smaller, or rejected)."""
        marks = (*self._measure.marks, self._open, self._block, self._resume, self._window.first)
        self.counts.corrected(delta, sent_at, units_before, marks)

    def rejected(
        self, cost: float, sent_at: float, units_before: float, generation: int, *, canary: bool, now: float
    ) -> bool:
        """A send was rejected for its rate. Returns whether that was news.

        ``units_before`` is what was sent before it, ``generation`` the law's when it was sent. A canary's rejection
        and one that belongs to a burst already answered are only counted; where nothing was accepted since the last
        one, the rate stays as it is.
        """
        self.rejections += 1
        self.refused(cost, sent_at, units_before)
        measure = self._measure
        measure.heard(cost, self.base, now, blocked=self._block is not None)
        if canary:
            return False
        if generation != self.generation:
            self.stale += 1
            return False
        rejected = (cost, sent_at, units_before, self._span_s(sent_at))
        held = measure.first(*rejected) if self.mode is RateMode.OPEN else inf
        if held == 0.0:
            return False
        explained = self._window.explains(self.counts, sent_at, units_before)
        before, self._counted_at = self._counted_at, sent_at
        self.generation += 1
        if self.mode is not RateMode.OPEN and not self.counts.any_accepted(before, sent_at):
            return True  # all is refused: that measures no rate
        if self._then is not None:
            self.base = self._then
        if self.mode is RateMode.PROBE:
            held = min(measure.after_probe(*rejected, self.base, self.rate), (self.base + self.rate) / 2.0)
            held = self.base if explained else held
        elif self.mode is RateMode.HOLD:
            held = measure.while_holding(*rejected, self.base)
            held = min(max(held, FALL_MOST * self.base), STEP_DOWN * self.base)
            if held < FALLEN * self.base and self._hold_s > HOLD_MIN_S:
                self._hold_s, self._fallen_until = HOLD_MIN_S, now + FALLEN_S
        measure.counted(sent_at, units_before, probed=self.mode is RateMode.PROBE)
        self._hold(max(held, cost / SLOWEST_S, self.counts.mean_cost / SLOWEST_S), now)
        return True

    def exhausted(self, now: float) -> None:
        """A request that was not counted met this limit: nothing was left then."""
        self._measure.exhausted(now)

    def retract(self) -> None:
        """The rejections so far were about something else."""
        self.mode = RateMode.OPEN
        self.base = inf
        self.generation += 1
        self._hold_s = HOLD_MIN_S
        self._hold_until = inf
        self._probed_s = 0.0
        self._settled_base = inf
        self._then = None
        self._measure.forget()
        self._window.quota = None

    def blocked(self, now: float, until: float) -> None:
        """A cooldown begins, or goes on."""
        if self._block is None:
            self._block = Mark(now, self.counts.units)
            self._promised = until
        self._blocked_until = until
        self._resume = None
        self._idled = False

    def refused(self, cost: float, sent_at: float, units_before: float) -> None:
        """A send came back rejected, for whatever limit it is taken to be."""
        self._window.refused(cost, sent_at, units_before)
        if self.mode is RateMode.OPEN:
            self._measure.refused(sent_at)

    def unblocked(self, now: float) -> bool:
        """The cooldown is over: a request that was sent after it got through.

        Returns whether what is over shows a limit where none was known.
        """
        block, opened = self._block, self._open
        if block is None:
            return False
        reopened = self._open = self._resume or Mark(now, self.counts.units)
        self._block = self._resume = None
        known = self.mode is not RateMode.OPEN
        kept = self._blocked_until <= self._promised + EXTENDED_S
        measured, self._unblocked_at = None, now
        if self._window.ended(self.counts, opened, reopened):
            self._use_up(reopened, now)
            return not known
        if known and kept and opened is not None and opened.at < block.at <= self._promised - FIXED_WINDOW_BLOCK_S:
            spent = block.units - opened.units + opened.corrected - block.corrected
            measured = spent / (reopened.at - opened.at)
        if measured is None or measured <= 0.0:
            return False
        self.generation += 1
        self._measure.ended()
        self._hold(MARGIN * measured, now)
        return False

    @property
    def headroom(self) -> float:
        """Units to leave in the provider's bucket after a rejection: requests cost more and less than expected."""
        return self._measure.headroom

    def next_tick(self, now: float) -> float:
        """When the rate changes by itself; ``inf`` for never."""
        return max(now, self._hold_until) if self.mode is RateMode.HOLD else inf

    def snapshot(self) -> LearnedSnapshot:
        """What is worth keeping across a restart."""
        base = self.base if self._then is None else self._then
        return LearnedSnapshot(None if self.mode is RateMode.OPEN else base, self._hold_s)

    def restore(self, kept: LearnedSnapshot, now: float) -> None:
        """Go on from what an earlier process learned: hold its rate, then probe."""
        if kept.base is not None and RATE_MIN <= kept.base < inf:
            self._hold_s = min(WINDOW_HOLD_S, max(HOLD_MIN_S, kept.hold_s))
            self._hold(kept.base, now)

    def check(self) -> None:
        """Assert every invariant."""
        self.counts.check()
        assert (self.base == inf) == (self.mode is RateMode.OPEN)
        assert self.base >= RATE_MIN
        assert HOLD_MIN_S <= self._hold_s <= WINDOW_HOLD_S
        assert 0.0 <= self._probed_s <= PROBE_MAX_S
        assert self.mode is RateMode.OPEN or isfinite(self.rate)

    def _resumed(self, now: float, pace_s: float) -> None:
        """A send comes after a gap, or while a cooldown has not proved to be over."""
        pause_s = PAUSE_INTERVALS * pace_s
        if self._block is not None:
            if self._resume is None and now >= self._blocked_until:
                self._resume = Mark(now, self.counts.units)
                self._idled = now > self._blocked_until + max(EXTENDED_S, pause_s)
            if not self._idled:
                pause_s = max(pause_s, now - self._block.at + LATE_S)
        if now - self._unblocked_at > IDLE_S and self.counts.idle(now, pause_s):
            self._open = Mark(now, self.counts.units)

    def _hold(self, base: float, now: float) -> None:
        self.mode = RateMode.HOLD
        self.base = max(RATE_MIN, base)
        self._then = None
        self._probed_s = 0.0
        self._hold_until = now + self._hold_s * self._rng.uniform(1.0 - HOLD_JITTER, 1.0 + HOLD_JITTER)

    def _use_up(self, reopened: Mark, now: float) -> None:
        """Go on at the pace of the window that has shown itself, once what is left of it now is used up."""
        quota = self._window.quota
        assert quota is not None
        pace = WINDOW_MARGIN * quota / WINDOW_S
        self.generation += 1
        self._measure.ended()
        self._hold_s = WINDOW_HOLD_S
        self._hold(pace, now)
        low, high = self._window.next_edge(now)
        used = self.counts.units - reopened.units + reopened.corrected + self.counts.mean_cost
        left = quota - used - pace * (high - low)
        if low - now >= SHORTEST_S and left > pace * (low - now):
            self._then, self.base, self._hold_until = self.base, left / (low - now), low

    def _span_s(self, sent_at: float) -> float:
        """Over how many seconds until then to measure."""
        busy_s = sent_at - self.counts.busy_since
        steady = self.counts.sends(MEASURE_S, sent_at) >= MEASURE_REQUESTS and not self._blocked_since(
            sent_at - MEASURE_S
        )
        return max(SHORTEST_S, min(busy_s, MEASURE_S if steady else MEASURE_LONG_S))

    def _blocked_since(self, since: float) -> bool:
        return self._block is not None or (
            self._open is not None and self._open.at > max(since, self.counts.busy_since)
        )
