"""What a rejection says about a quota: how much was accepted, and how much the provider's bucket had refilled.

Decides what rate a rejection measures, not what is done with it. A bucket is known by two numbers, its quota and what
it holds, and a rejection shows that it is empty. So what was accepted since an earlier rejection was refilled in
between: the quota is at least that, however much the bucket holds. And it is exactly that unless the bucket was full
meanwhile, as a *shallow* one soon is. One that holds a second of its quota lets through little more than the quota
within tens of seconds: there the latest seconds measure it. A *deep* one, such as a minute's worth, hides the quota
behind what it had saved: a rate that those seconds measured is rejected again at once. From then on only what was
refilled counts.

Prior art: arrival and service curves (Cruz 1991). Pure: ``now`` in seconds (monotonic), units are requests or tokens.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from .rate_counts import MOST_S, Mark

if TYPE_CHECKING:
    from .rate_counts import SendCounts

__all__ = ["DEEP_MARGIN", "MARGIN", "MEASURE_S", "SHORTEST_S", "RateMeasure"]

MARGIN: Final = 0.995
"""Held below the measured quota: what one probe every so often loses is less than what rejections cost."""

DEEP_MARGIN: Final = 0.98
"""The same for a deep bucket: what it saves meanwhile is not lost, and it evens out requests that cost more."""

MEASURE_S: Final = 10.0
"""The span of a measurement, if it holds enough requests."""

SHORTEST_S: Final = 1.0
"""No rate is measured over less than this."""

EPISODE_QUIET_S: Final = 10.0
EPISODE_QUIET_REQUESTS: Final = 10.0
"""An episode ends after so long, or so many requests, without a rejection."""

EPISODE_REQUESTS: Final = 10.0
"""What was let through between two rejections is a measure once it is so many requests: each end is off by one."""

FIRST_REQUESTS: Final = 20.0
FIRST_ABOVE: Final = 1.05
"""The first measurement is at most this much above what was let through, so many requests at least, since one of the
rejections before it: they may have been about this limit, too, and taken for another's."""

REFUSED_APART_S: Final = 5.0
REFUSED_KEPT: Final = 12
"""So many of those are kept, this far apart: the last minute."""

SHALLOW_S: Final = 1.0
DEEP_S: Final = 60.0
"""A shallow bucket is taken to hold so many seconds of its quota, a deep one so many at most: what a rate reached that
rose for longer than that was no saving."""

DEEP_BELOW: Final = 0.93
"""A bucket is deep if it refilled less than this share of the rate that was measured at the end of a probe."""

DEEP_RISE: Final = 4.0
"""A probe that raised the rate to so much of itself has used up a minute's worth, and more: that was another quota."""

DEEP_DOUBT: Final = 1.5
"""Where a minute's worth is too few requests to tell, this is enough: a shallow one is tried, once."""

DEEP_REQUESTS: Final = 3.0
"""So many requests' worth is left in a deep bucket after a rejection: what goes on then may cost more than expected."""


class RateMeasure:
    """What was accepted, and between which rejections. The caller counts sends and says what became of them."""

    __slots__ = ("_counts", "_doubted", "_empty", "_episode", "_heard_at", "_probed", "_proven", "_refused", "deep")

    def __init__(self, counts: SendCounts) -> None:
        self.deep = False  # the provider's bucket has hidden its quota after a probe
        self._counts = counts
        self._episode: Mark | None = None  # its first rejected send
        self._empty: Mark | None = None  # the last rejected send that counted
        self._heard_at = -inf
        self._probed = False  # that one ended a probe
        self._doubted = False  # whether the bucket is deep, once, since a probe rose by far
        self._proven = False  # it was so all the same
        self._refused: deque[float] = deque(maxlen=REFUSED_KEPT)  # when, while nothing was known

    @property
    def marks(self) -> tuple[Mark | None, Mark | None]:
        """Where counting began: corrections are to reach them."""
        return self._episode, self._empty

    @property
    def headroom(self) -> float:
        """Units to leave in the provider's bucket after a rejection."""
        return DEEP_REQUESTS * self._counts.mean_cost if self.deep else 0.0

    def refused(self, sent_at: float) -> None:
        """A send was rejected while no rate is known."""
        if not self._refused or sent_at - self._refused[-1] >= REFUSED_APART_S:
            self._refused.append(sent_at)

    def exhausted(self, now: float) -> None:
        """Counting begins with an empty bucket, which may be a deep one."""
        if self._empty is None:
            self._empty, self.deep, self._proven = Mark(now, self._counts.units), True, True

    def heard(self, cost: float, base: float, now: float, *, blocked: bool) -> None:
        """A rejection came, under the rate ``base``. After a quiet spell it begins another episode."""
        quiet_s = max(EPISODE_QUIET_S, EPISODE_QUIET_REQUESTS * cost / base)
        if not blocked and now - self._heard_at > quiet_s:
            self._episode = None
        self._heard_at = now

    def counted(self, sent_at: float, units_before: float, *, probed: bool) -> None:
        """The rejection was measured, and nothing was left then. ``probed``: it ended a probe."""
        self._empty = Mark(sent_at, units_before)
        self._episode = self._episode or Mark(sent_at, units_before)  # marks gather corrections each for itself
        self._probed = probed

    def ended(self) -> None:
        """The quota was measured in another way."""
        self._episode = None

    def forget(self) -> None:
        """The rejections were about something else."""
        self._episode = self._empty = None
        self._probed = self.deep = self._doubted = self._proven = False

    def first(self, cost: float, sent_at: float, units_before: float, span_s: float) -> float:
        """What to hold after the first rejection; 0 if too little is known."""
        if self._empty is not None:
            return DEEP_MARGIN * self._refilled(cost, sent_at, units_before)
        most = self._latest(cost, sent_at, units_before, span_s)
        least = max([self._since(at, cost, sent_at, units_before) for at in self._refused], default=0.0)
        return MARGIN * (min(most, FIRST_ABOVE * least) if least else most)

    def after_probe(
        self, cost: float, sent_at: float, units_before: float, span_s: float, base: float, reached: float
    ) -> float:
        """What to hold after a rejection in a probe of the rate ``base``: that at least, if as much was refilled."""
        thin = not self._proven and DEEP_S * base < self._enough(cost, EPISODE_REQUESTS)
        if self.deep and reached >= (DEEP_DOUBT if thin else DEEP_RISE) * base:
            self._doubted, self.deep, self._proven = not self._proven, False, False
        held = self._margin * self._measured(cost, sent_at, units_before, span_s, base)
        return max(held, min(base, self._refilled(cost, sent_at, units_before)))

    def while_holding(self, cost: float, sent_at: float, units_before: float, span_s: float, base: float) -> float:
        """What to hold after a rejection of the rate ``base``."""
        held = self._margin * self._measured(cost, sent_at, units_before, span_s, base)
        refilled, empty = self._refilled(cost, sent_at, units_before), self._empty
        if self._probed and (refilled < DEEP_BELOW * base if refilled else self._episode is not None):
            self._proven, self.deep = self._doubted or refilled > 0.0, True
        if self.deep and refilled and empty is not None:  # of what it may have been, the most
            held = max(held, DEEP_MARGIN * (refilled + cost / (sent_at - empty.at)))
        return held

    @property
    def _margin(self) -> float:
        return DEEP_MARGIN if self.deep else MARGIN

    def _measured(self, cost: float, sent_at: float, units_before: float, span_s: float, base: float) -> float:
        """Units accepted per second until the send that was rejected."""
        episode = self._episode
        if episode is not None and sent_at > episode.at:
            # Both ends found the provider's bucket short of one cost: what was refilled is known to within one.
            refilled = units_before - episode.units + episode.corrected + cost
            return base if refilled < self._enough(cost, EPISODE_REQUESTS) else refilled / (sent_at - episode.at)
        most = self._latest(cost, sent_at, units_before, span_s)
        per_s = self._refilled(cost, sent_at, units_before)
        holds_s = DEEP_S if self.deep and per_s else SHALLOW_S
        return min(most, max(per_s, self._counts.least(holds_s, sent_at, units_before, span_min_s=MEASURE_S)))

    def _latest(self, cost: float, sent_at: float, units_before: float, span_s: float) -> float:
        """What the last seconds let through: no less than what was just tried, once in the span."""
        return max(cost, self._counts.accepted(span_s, sent_at, units_before)) / span_s

    def _since(self, at: float, cost: float, sent_at: float, units_before: float) -> float:
        """Units accepted per second since a send that was rejected at ``at``; 0 if they are too few to tell."""
        if not at < sent_at <= at + MOST_S:
            return 0.0
        units = self._counts.accepted(sent_at - at, sent_at, units_before)
        return units / (sent_at - at) if units >= self._enough(cost, FIRST_REQUESTS) else 0.0

    def _refilled(self, cost: float, sent_at: float, units_before: float) -> float:
        """Units per second that the provider's bucket has refilled, at least, since it was last empty; 0: unknown."""
        empty = self._empty
        if empty is None or sent_at - empty.at < SHORTEST_S:
            return 0.0
        units = units_before - empty.units + empty.corrected
        return units / (sent_at - empty.at) if units >= self._enough(cost, EPISODE_REQUESTS) else 0.0

    def _enough(self, cost: float, requests: float) -> float:
        return requests * max(cost, self._counts.mean_cost)
