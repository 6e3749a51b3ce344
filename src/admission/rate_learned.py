"""The rate law for a provider that states nothing: measure at the first rejection, hold, probe.

Decides the rate from rejections of kind "rate" alone. Nothing is limited until the first one. It measures the quota:
what was accepted per second until then. The rate is held there for a while, then raised slowly and ever faster until
the next rejection, which measures again. Held ever longer while the quota repeats, so that a known quota costs next to
no rejections.

A rejection counts once per burst: its request must have been sent under the rate in force (A6). Rejections that
follow one another belong to one *episode*, in which the provider's bucket is empty: then what was accepted since its
start is the quota itself, without the burst that hid it before.

Pure: ``now`` in seconds (monotonic), units are requests or tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite
from typing import TYPE_CHECKING, Final

from .rate_counts import Mark, SendCounts
from .rate_window import PROOF, REPEATS_WITHIN, WINDOW_S, FixedWindow

if TYPE_CHECKING:
    from ..values import Rng

__all__ = ["LearnedRate", "LearnedSnapshot", "RateMode"]

MARGIN: Final = 0.98
"""Held below the measured quota: what one probe every so often loses is less than what rejections cost."""

MEASURE_S: Final = 10.0
MEASURE_LONG_S: Final = 60.0
MEASURE_REQUESTS: Final = 20
"""The span of a measurement, and the longer one when it holds too few requests, or a block."""

SHORTEST_S: Final = 1.0
"""No rate is measured over less than this."""

HOLD_MIN_S: Final = 10.0
HOLD_MAX_S: Final = 600.0
HOLD_GROWTH: Final = 4.0
HOLD_JITTER: Final = 0.25
"""How long a rate is held before the next probe, and how that grows while the quota repeats."""

STEP_DOWN: Final = 0.97
"""A rejection while holding lowers the rate at least so much."""

FALL_MOST: Final = 0.5
"""One rejection while holding at most halves the rate: when a provider refuses everything for a while, what little it
accepts says nothing about its rate, and the way back up is slow."""

FALLEN: Final = 0.8
FALLEN_S: Final = 900.0
FALLEN_HOLD_S: Final = 120.0
"""What fell below this share of itself, after it had repeated, is likely to come back: for so long it is held no longer
than the last of these."""

PROBE_SLOPE: Final = 0.002
PROBE_SCALE_S: Final = 120.0
"""A probe of x seconds runs at (1 + 0.002 x)(1 + (x/120)^2) times the held rate: by 5 % in 20 s, doubled in 100 s."""

PROBE_MAX_S: Final = 3600.0
"""A probe that ran this long has multiplied the rate by thousands: it stops there."""

EPISODE_QUIET_S: Final = 10.0
EPISODE_QUIET_REQUESTS: Final = 10.0
"""An episode ends after so long, or so many requests, without a rejection."""

EPISODE_REQUESTS: Final = 10.0
"""An episode measures the quota once it has let through so many requests: each end is off by one."""

EXTENDED_S: Final = 1.5
"""A block that went on for longer than this after the promised moment was no wait for a window."""

FIXED_WINDOW_BLOCK_S: Final = 5.0
"""A block at least this long was the wait for the provider's next window."""

WINDOW_HOLD_S: Final = 1200.0
"""A window whose quota repeats is held for this long: a probe into it costs a chain of canaries until its end."""

LATE_S: Final = 0.1
LATE_SHARE: Final = 0.5
"""A send later than this, and than this share of the interval between sends, was not held up by the rate."""

PAUSE_INTERVALS: Final = 3.0
"""So many intervals between sends without one are still the pace, not idleness."""

SLOWEST_S: Final = 60.0
"""No rejection leads below one request in this time: only a send can show that a guess was too low."""

RATE_MIN: Final = 1e-4
"""No measurement leads below this rate (units a second)."""


class RateMode(StrEnum):
    """What the learned law is doing."""

    OPEN = "open"
    """No rejection yet: nothing is limited."""
    HOLD = "hold"
    PROBE = "probe"


_PROBE: Final = RateMode.PROBE  # asked for every request, and looking up an enum's member is slow


@dataclass(frozen=True, slots=True)
class LearnedSnapshot:
    """What is worth keeping across a restart: the held rate (units a second, None: none) and the hold (seconds)."""

    base: float | None = None
    hold_s: float = HOLD_MIN_S


class LearnedRate:
    """Learns one rate from rejections."""

    __slots__ = (
        "_block",
        "_blocked_until",
        "_counted_at",
        "_episode",
        "_fallen_until",
        "_hold_s",
        "_hold_until",
        "_last_rejected",
        "_last_rejection",
        "_open",
        "_probed_s",
        "_promised",
        "_resume",
        "_rng",
        "_settled_base",
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
        self._last_rejection = -inf
        self._counted_at = -inf  # when the last rejected request that was no burst's was sent
        self._promised = -inf  # the end of the block that runs, as it was first said
        self._episode: Mark | None = None  # its first rejected send
        self._open: Mark | None = None  # the last unblock, or the start of the busy spell
        self._block: Mark | None = None  # the start of the block that runs
        self._resume: Mark | None = None  # the first send after it
        self._blocked_until = -inf
        self._last_rejected: Mark | None = None  # when it was sent, and its cost
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

    def sent(self, cost: float, now: float, *, lateness_s: float, pace_s: float) -> None:
        """Count a send that went out ``lateness_s`` seconds after the bucket would have let it go.

        ``pace_s`` is the time in which the bucket refills its cost.

        A probe goes on only through sends that came as fast as the rate allows: it never climbs unused (T4).
        """
        if self.mode is _PROBE and lateness_s <= max(LATE_S, LATE_SHARE * pace_s):
            since = max(self.counts.last_sent, self._hold_until)
            self._probed_s = min(PROBE_MAX_S, self._probed_s + max(0.0, now - since))
        pause_s = PAUSE_INTERVALS * pace_s
        if self._block is not None:
            pause_s = max(pause_s, now - self._block.at + LATE_S)
            if self._resume is None and now >= self._blocked_until:
                self._resume = Mark(now, self.counts.units)
        counts, opened = self.counts, self._open
        if counts.idle(now, pause_s):
            opened = self._open = Mark(now, counts.units)
        counts.sent(cost, now, idle=opened is not None and opened.at == now)

    def corrected(self, delta: float, sent_at: float, units_before: float) -> None:
        """A send turned out ``delta`` units larger than it was counted (negative: smaller, or rejected)."""
        self.counts.corrected(delta, sent_at, units_before, self._episode, self._open, self._block, self._resume)

    def rejected(
        self, cost: float, sent_at: float, units_before: float, generation: int, *, canary: bool, now: float
    ) -> bool:
        """A send was rejected for its rate. Returns whether that was news.

        ``units_before`` is what was sent before it, ``generation`` the law's when it was sent. A canary's rejection
        and one that belongs to a burst already answered are only counted; where nothing was accepted since the last
        one, the rate stays as it is.
        """
        self.rejections += 1
        if self._last_rejected is None or sent_at >= self._last_rejected.at:
            self._last_rejected = Mark(sent_at, cost)
        quiet_s = max(EPISODE_QUIET_S, EPISODE_QUIET_REQUESTS * cost / self.base)
        if self._block is None and now - self._last_rejection > quiet_s:
            self._episode = None
        self._last_rejection = now
        if canary:
            return False
        if generation != self.generation:
            self.stale += 1
            return False
        before, self._counted_at = self._counted_at, sent_at
        self.generation += 1
        if self.mode is not RateMode.OPEN and not self.counts.any_accepted(before, sent_at):
            return True  # all is refused: that measures no rate
        held = MARGIN * self._measured(cost, sent_at, units_before)
        if self.mode is RateMode.PROBE:
            held = min(held, (self.base + self.rate) / 2.0)
        elif self.mode is RateMode.HOLD:
            held = min(max(held, FALL_MOST * self.base), STEP_DOWN * self.base)
            if held < FALLEN * self.base and self._hold_s > HOLD_MIN_S:
                self._hold_s, self._fallen_until = HOLD_MIN_S, now + FALLEN_S
        if self._episode is None:
            self._episode = Mark(sent_at, units_before)
        self._hold(max(held, cost / SLOWEST_S, self.counts.mean_cost / SLOWEST_S), now)
        return True

    def retract(self) -> None:
        """The rejections so far were about something else."""
        self.mode = RateMode.OPEN
        self.base = inf
        self.generation += 1
        self._hold_s = HOLD_MIN_S
        self._hold_until = inf
        self._probed_s = 0.0
        self._settled_base = inf
        self._episode = None

    def blocked(self, now: float, until: float) -> None:
        """A cooldown begins, or goes on."""
        if self._block is None:
            self._block = Mark(now, self.counts.units)
            self._promised = until
        self._blocked_until = until
        self._resume = None

    def unblocked(self, now: float) -> None:
        """The cooldown is over: a request that was sent after it got through."""
        block, opened = self._block, self._open
        if block is None:
            return
        reopened = self._open = self._resume or Mark(now, self.counts.units)
        self._block = self._resume = None
        if self.mode is RateMode.OPEN or opened is None:
            return
        measured = self._window_quota(reopened)
        kept = self._blocked_until <= self._promised + EXTENDED_S
        if measured is None and kept and opened.at < block.at <= self._promised - FIXED_WINDOW_BLOCK_S:
            spent = block.units - opened.units + opened.corrected - block.corrected
            measured = spent / (reopened.at - opened.at)
        if measured is not None and measured > 0.0:
            self.generation += 1
            self._episode = None
            self._hold(MARGIN * measured, now)

    def next_tick(self, now: float) -> float:
        """When the rate changes by itself; ``inf`` for never."""
        return max(now, self._hold_until) if self.mode is RateMode.HOLD else inf

    def snapshot(self) -> LearnedSnapshot:
        """What is worth keeping across a restart."""
        return LearnedSnapshot(None if self.mode is RateMode.OPEN else self.base, self._hold_s)

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

    def _hold(self, base: float, now: float) -> None:
        self.mode = RateMode.HOLD
        self.base = max(RATE_MIN, base)
        self._probed_s = 0.0
        self._hold_until = now + self._hold_s * self._rng.uniform(1.0 - HOLD_JITTER, 1.0 + HOLD_JITTER)

    def _measured(self, cost: float, sent_at: float, units_before: float) -> float:
        """Units accepted per second until the send that was rejected."""
        episode = self._episode
        if episode is not None and sent_at > episode.at:
            # Both ends found the provider's bucket short of one cost: what was refilled is known to within one.
            refilled = units_before - episode.units + episode.corrected + cost
            if refilled < EPISODE_REQUESTS * max(cost, self.counts.mean_cost):
                return self.base
            return refilled / (sent_at - episode.at)
        # A rate is not measured as less than what was just tried, once in the span.
        busy_s = sent_at - self.counts.busy_since
        steady = self.counts.sends(MEASURE_S, sent_at) >= MEASURE_REQUESTS and not self._blocked_since(
            sent_at - MEASURE_S
        )
        span_s = max(SHORTEST_S, min(busy_s, MEASURE_S if steady else MEASURE_LONG_S))
        return max(cost, self.counts.accepted(span_s, sent_at, units_before)) / span_s

    def _window_quota(self, reopened: Mark) -> float | None:
        """Units a second of a fixed window that just ended; None unless the rejections prove that there is one."""
        episode, rejected = self._episode, self._last_rejected
        if episode is None or rejected is None:
            return None
        accepted = reopened.units - episode.units + episode.corrected - reopened.corrected
        if self.base * (rejected.at - episode.at) - accepted < PROOF * rejected.units:
            return None
        began = max(self._window.began(rejected.at, reopened.at), self.counts.busy_since)
        if began > episode.at:
            return None
        spent = self.counts.accepted(episode.at - began, episode.at, episode.units) + accepted
        if not self._window.repeats(spent):
            return None  # one such block may have been an outage
        self._hold_s = WINDOW_HOLD_S
        return spent / WINDOW_S

    def _blocked_since(self, since: float) -> bool:
        return self._block is not None or (
            self._open is not None and self._open.at > max(since, self.counts.busy_since)
        )
