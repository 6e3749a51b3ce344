"""One rate limit of one scope: a bucket whose rate is configured, stated by the provider, or learned.

Decides when a cost may go and what each answer teaches. The rate is the least of what is configured (an upper bound
that nothing lifts), what the provider's headers allow (:mod:`.rate_stated`) and what rejections taught
(:mod:`.rate_learned`). Does not decide which limit a rejection was about, nor the cooldown after it: the gate does,
and says so through ``rejected``, ``blocked`` and ``unblocked``.

What a failed attempt spent is the caller's decision, made in one place, ``settle``: every stamp is settled once,
with what the attempt really used. A rejected request spent nothing and is settled with 0 (T9); for a provider that
counts rejected requests against the quota it is settled with its cost, and both the bucket and the learned law then
count it as used.

Pure; O(1) for each send and answer (a measurement, at most once per burst of rejections, sums up to 1200 bins).
"""

from __future__ import annotations

from math import inf, nan
from typing import TYPE_CHECKING, Final

from .bucket import BURST_S, OWED_MAX_S, Bucket
from .rate_learned import LearnedRate
from .rate_measure import MEASURE_S
from .rate_stated import StatedRate
from .rate_values import PROBE, LearnedSnapshot, RateMode, RateOrigin, RateSnapshot, RateStamp

if TYPE_CHECKING:
    from ..values import RateWindow, Rng

__all__ = ["LearnedSnapshot", "RateLimiter", "RateMode", "RateOrigin", "RateSnapshot", "RateStamp"]

REVIEW_S: Final = 1.0
REVIEW_SHARE: Final = 1 / 16
REVIEW_MAX_S: Final = 30.0
"""A rate that climbs by itself is looked at again after this time, or this share of a longer wait, but not much later:
what was stated may lapse meanwhile."""

CONTRADICTED: Final = 0.05
"""A rejection while the provider stated more than this share of its limit as left is not explained by the statement."""

EXPLAINED: Final = 4
EXPLAINED_S: Final = 60.0
"""More bursts of rejections than this in so many seconds are not explained by a statement that nothing was left: what
it says of the refill must be wrong, such as the length of its window, which is often a guess."""


class RateLimiter:
    """Paces one kind of unit (requests or tokens) in one scope. Times are seconds (monotonic), costs are units.

    ``configured_per_minute`` is an upper bound in units a minute, None for none; learning and headers only ever go
    below it. ``share`` is the part of the provider's stated limit that this process may use (0 to 1); the configured
    number is taken as it is. A cost above a configured minute never fits, nor does one above a limit that the
    provider stated several times alike; one unit always does. ``free``, to be read only, says that no limit is known
    at all: every cost may go now, until something is configured, stated or taught.
    """

    __slots__ = (
        "_bucket",
        "_changes_at",
        "_configured",
        "_explained",
        "_explained_at",
        "_learned",
        "_reviewed_at",
        "_share",
        "_stated",
        "free",
    )

    def __init__(
        self, *, configured_per_minute: float | None, rng: Rng, burst_s: float = BURST_S, share: float = 1.0
    ) -> None:
        assert 0.0 < share <= 1.0
        self._bucket = Bucket(burst_s=burst_s)
        self._learned = LearnedRate(rng=rng)
        self._stated = StatedRate()
        self._share = share
        self._reviewed_at = -inf
        self._changes_at = inf  # when the learned rate does so by itself
        self._explained: list[float] = []  # when the last few bursts that a statement explains came
        self._explained_at = -inf
        self._configured = inf
        self.free = False
        self.configure(configured_per_minute, 0.0)

    def configure(self, per_minute: float | None, now: float) -> None:
        """Work under another configured bound from now on (units a minute, None for none)."""
        assert per_minute is None or per_minute > 0.0
        self._configured = inf if per_minute is None else per_minute / 60.0
        self._apply(now)

    def take_share(self, share: float, now: float) -> None:
        """Use this part of the provider's stated limit from now on."""
        assert 0.0 < share <= 1.0
        self._share = share
        self._apply(now)

    @property
    def rate_per_minute(self) -> float:
        """The rate in force, in units a minute; ``inf`` when no limit is known."""
        return self._bucket.rate * 60.0

    @property
    def origin(self) -> RateOrigin:
        """Where the rate in force comes from."""
        rate = self._bucket.rate
        if rate == inf:
            return RateOrigin.UNKNOWN
        if rate == self._configured:
            return RateOrigin.CONFIGURED
        return RateOrigin.LEARNED if rate == self._learned.rate else RateOrigin.STATED

    @property
    def last_sent(self) -> float:
        """When something was last sent (seconds, monotonic; -inf for never)."""
        return self._learned.counts.last_sent

    @property
    def capacity(self) -> float:
        """The largest cost that can ever go; ``inf`` when no limit is known."""
        capacity = self._bucket.capacity
        return inf if capacity is None else capacity

    def fits(self, cost: float, now: float) -> bool:
        """Whether ``cost`` can ever go; if not, it is too large. A statement that has lapsed forbids nothing."""
        if now - self._reviewed_at >= REVIEW_S:
            self._apply(now)
        capacity = self._bucket.capacity
        return capacity is None or cost <= capacity

    def ready_at(self, cost: float, now: float) -> float:
        """The earliest time at which to ask again for ``cost``; not after ``now`` means that it may go now."""
        stated = self._stated
        says = stated.left is not None  # whether there is a statement: most providers make none
        if now - self._reviewed_at >= REVIEW_S or now >= self._changes_at or (says and stated.lapsed(now)):
            self._apply(now)
        at = max(self._bucket.ready_at(cost, now), stated.room_at(cost, now) if says else now)
        if at > now and self._climbs():
            return min(at, self._stated.lapses_at, now + min(REVIEW_MAX_S, max(REVIEW_S, REVIEW_SHARE * (at - now))))
        return at

    def take(self, cost: float, now: float) -> RateStamp:
        """Take ``cost``; the caller has seen ``ready_at``. Keep the stamp for ``settle`` and the rest."""
        learned, counts = self._learned, self._learned.counts
        before, seq = counts.units, counts.requests
        if self.free:  # what follows, for a rate without end
            learned.sent(cost, now, 0.0, 0.0)
            expected = nan
        else:
            bucket = self._bucket
            late_s = now - bucket.ready_at(cost, now) if learned.mode is PROBE else 0.0  # nobody asks else
            learned.sent(cost, now, late_s, cost / bucket.rate)
            bucket.take(cost, now)
            expected = self._stated.sent(cost, now) - self._stated.corrected
            if learned.mode is PROBE:
                self._apply(now)
        stamp = RateStamp()
        stamp.cost = cost
        stamp.sent_at = now
        stamp.seq = seq
        stamp.units_before = before
        stamp.generation = learned.generation
        stamp.expected = expected
        return stamp

    def settle(self, stamp: RateStamp, actual: float, now: float) -> None:
        """Replace the reservation by what the attempt really used; once per stamp. 0 gives all of it back.

        One attempt never owes more than ``OWED_MAX_S`` of the rate: no provider lets a request use more than a minute
        of its limit, and an answer that claims so must not stop everything for a day.
        """
        actual = min(actual, stamp.cost + OWED_MAX_S * self._bucket.rate)
        delta = actual - stamp.cost
        if delta == 0.0:
            return
        self._bucket.settle(stamp.cost, actual, now)
        self._learned.corrected(delta, stamp.sent_at, stamp.units_before)
        self._stated.settled(delta)

    def rejected(self, stamp: RateStamp, now: float, *, canary: bool) -> bool:
        """The provider rejected the request because of this limit. ``canary``: it was sent to test a cooldown.

        Returns whether it was news: False for one more of a burst that was already answered.
        """
        if self._stated.active and not self._contradicts(stamp, now):
            self._stated.rejected(now)
            self._apply(now)
            self._bucket.drain(stamp.cost, now)
            return True
        fresh = self._learned.rejected(
            stamp.cost, stamp.sent_at, stamp.units_before, stamp.generation, canary=canary, now=now
        )
        self._apply(now)
        if fresh:
            self._bucket.drain(stamp.cost + self._learned.headroom, now)
        return fresh

    def exhausted(self, now: float) -> None:
        """The provider rejected a request because of this limit, of which nothing had been counted yet."""
        self._learned.exhausted(now)

    def record(self, stamp: RateStamp, since: float) -> bool:
        """Whether no more was ever accepted, since ``since``, than until ``stamp`` was sent."""
        return self._learned.counts.record(stamp.cost, stamp.sent_at, stamp.units_before, since)

    @property
    def mode(self) -> RateMode:
        """What the law that learns from rejections is doing."""
        return self._learned.mode

    def per_s(self, stamp: RateStamp) -> float:
        """Units accepted a second, lately, until ``stamp`` was sent."""
        return self._learned.counts.accepted(MEASURE_S, stamp.sent_at, stamp.units_before) / MEASURE_S

    def spent(self, stamp: RateStamp) -> float:
        """Units ever accepted until the rejected ``stamp`` was sent, as far as is known."""
        counts = self._learned.counts
        return counts.net - (counts.units - stamp.units_before - stamp.cost)

    def grain(self, stamp: RateStamp) -> float:
        """The cost of a request of about the size of ``stamp``'s: the larger of that and the mean."""
        return max(stamp.cost, self._learned.counts.mean_cost)

    def accepted_since(self, since: float, stamp: RateStamp) -> bool:
        """Whether anything that was sent after ``since``, and before ``stamp``, was accepted."""
        return self._learned.counts.any_accepted(since, stamp.sent_at)

    def retract(self, now: float) -> None:
        """What rejections taught was about another limit: nothing is known of this one."""
        self._learned.retract()
        self._apply(now)

    def observed(self, window: RateWindow, stamp: RateStamp, now: float) -> None:
        """The answer to ``stamp`` stated this limit. Call it after ``settle`` if the attempt is over."""
        stated = self._stated
        own_since = max(0.0, self._learned.counts.units - stamp.units_before - stamp.cost)
        stated.observed(
            window,
            seq=stamp.seq,
            sent_at=stamp.sent_at,
            expected=stamp.expected + stated.corrected,
            own_since=own_since,
            now=now,
        )
        self._apply(now)

    def unstated(self, stamp: RateStamp, now: float) -> None:
        """The answer to ``stamp`` had statements, or none at all, but not of this limit."""
        if self._stated.active:
            self._stated.unstated(stamp.seq, now)
            if not self._stated.active:
                self._apply(now)

    def blocked(self, now: float, until: float) -> None:
        """A cooldown runs until ``until``; may be repeated while it is extended."""
        if until > now:
            self._learned.blocked(now, until)
            self._bucket.block(now)

    def refused(self, stamp: RateStamp) -> None:
        """The provider rejected the request, for a limit that is taken to be another one."""
        self._learned.refused(stamp.cost, stamp.sent_at, stamp.units_before)

    def unblocked(self, now: float) -> bool:
        """The cooldown is over and a request got through. Without a cooldown nothing happens.

        Returns whether what is over shows a limit where none was known.
        """
        proven = self._learned.unblocked(now)
        self._bucket.unblock(now)
        self._apply(now)
        return proven

    def next_tick(self, now: float) -> float:
        """When the rate changes by itself; ``inf`` for never."""
        return self._learned.next_tick(now)

    def learned(self) -> LearnedSnapshot:
        """What is worth keeping across a restart."""
        return self._learned.snapshot()

    def restore(self, kept: LearnedSnapshot, now: float) -> None:
        """Go on from what an earlier process learned."""
        self._learned.restore(kept, now)
        self._apply(now)

    def snapshot(self, now: float) -> RateSnapshot:
        """One look at the limiter."""
        return RateSnapshot(
            per_minute=self.rate_per_minute,
            origin=self.origin,
            mode=self._learned.mode,
            configured=None if self._configured == inf else self._configured * 60.0,
            stated=self._stated.limit if self._stated.active else None,
            learned=self._learned.snapshot(),
            owed=self._bucket.owed(now),
            rejections=self._learned.rejections,
            ignored=self._stated.ignored,
        )

    def check(self) -> None:
        """Assert every invariant."""
        self._bucket.check()
        self._learned.check()
        self._stated.check()
        assert self._bucket.rate <= self._configured
        assert not self.free or (self._bucket.rate == inf and self._bucket.capacity is None)

    def _apply(self, now: float) -> None:
        """Bring the bucket to the least of the known rates."""
        self._reviewed_at = now
        self._learned.advance(now)
        self._changes_at = self._learned.next_tick(now)
        stated = self._share * self._stated.rate(now)
        self._bucket.set_rate(min(self._configured, self._learned.rate, stated), now)
        limits = [60.0 * self._configured, self._stated.capacity(now) or inf]
        # A request is one unit: slower than one a minute is still a rate, and no request is too large for it.
        self._bucket.capacity = None if min(limits) == inf else max(1.0, min(limits))
        self.free = self._bucket.rate == inf and not self._stated.active and self._learned.mode is RateMode.OPEN

    def _climbs(self) -> bool:
        """Whether waiting alone may raise the rate in force."""
        return self._bucket.rate < self._configured and self._stated.active

    def _contradicts(self, stamp: RateStamp, now: float) -> bool:
        """Whether the statement said otherwise, or is wrong too often."""
        expected = stamp.expected + self._stated.corrected
        if expected > CONTRADICTED * self._stated.limit:
            return True
        if stamp.sent_at > self._explained_at:  # not of the same burst
            self._explained_at = now
            self._explained = [at for at in self._explained if now - at < EXPLAINED_S][-EXPLAINED:]
            self._explained.append(now)
        return len(self._explained) > EXPLAINED
