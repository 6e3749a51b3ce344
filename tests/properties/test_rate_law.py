"""What the rate law promises, whatever happens to it (A5-A8; traps T2, T4, T7)."""

from __future__ import annotations

import random
from math import inf, isfinite, nan

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.admission.rate import RateLimiter, RateOrigin, RateStamp
from headgate.values import RateWindow

costs = st.one_of(st.floats(0.5, 5000.0), st.just(0.0))  # nobody knew the tokens of the last
garbage = st.one_of(
    st.builds(RateWindow, limit=st.sampled_from([0.0, -1.0, nan, inf, 1e300]), remaining=st.just(0.0)),
    st.builds(RateWindow, limit=st.just(100.0), remaining=st.sampled_from([-1.0, 101.0, nan, inf, -inf])),
    st.builds(
        RateWindow, limit=st.just(100.0), remaining=st.just(50.0), reset_s=st.sampled_from([-1.0, nan, inf, 1e12])
    ),
    st.builds(
        RateWindow,
        limit=st.just(100.0),
        remaining=st.just(50.0),
        reset_s=st.none(),
        window_s=st.sampled_from([0.0, -60.0, nan, inf, 1e300]),
    ),
)


class AnyHistory(RuleBasedStateMachine):
    """Sends, answers, statements (true, false or nonsense), blocks and reconfiguration in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.configured = inf
        self.limiter = RateLimiter(configured_per_minute=None, rng=random.Random(1))
        self.open: list[RateStamp] = []
        self.blocked = False

    @rule(seconds=st.one_of(st.floats(0.0, 2.0), st.floats(0.0, 2000.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(cost=costs)
    def sends(self, cost: float) -> None:
        if not self.limiter.fits(cost, self.now):
            assert cost > min(self.configured, self.limiter.snapshot(self.now).stated or inf) * (1 - 1e-9)
            return
        for _ in range(5000):
            ready = self.limiter.ready_at(cost, self.now)
            assert isfinite(ready)
            if ready <= self.now:
                break
            self.now = ready
        else:
            raise AssertionError("nothing goes out any more")
        self.open.append(self.limiter.take(cost, self.now))

    @precondition(lambda self: self.open)
    @rule(share=st.floats(0.0, 2.0), pick=st.integers(0, 1_000_000))
    def is_answered(self, share: float, pick: int) -> None:
        stamp = self.open.pop(pick % len(self.open))
        self.limiter.settle(stamp, stamp.cost * share, self.now)

    @precondition(lambda self: self.open)
    @rule(canary=st.booleans(), pick=st.integers(0, 1_000_000), refunded=st.booleans())
    def is_rejected(self, canary: bool, pick: int, refunded: bool) -> None:
        stamp = self.open.pop(pick % len(self.open))
        rate = self.limiter.rate_per_minute
        self.limiter.settle(stamp, 0.0 if refunded else stamp.cost, self.now)
        before = self.limiter.snapshot(self.now)
        self.limiter.rejected(stamp, self.now, canary=canary)
        if canary and before.stated is None:
            assert self.limiter.snapshot(self.now).learned.base == before.learned.base
            assert self.limiter.rate_per_minute >= rate * (1 - 1e-9)

    @precondition(lambda self: self.open)
    @rule(
        limit=st.floats(1.0, 1e6), left=st.floats(0.0, 1.0), window_s=st.sampled_from([1.0, 60.0, 86400.0]),
        reset=st.one_of(st.none(), st.floats(0.0, 100.0)), pick=st.integers(0, 1_000_000),
    )  # fmt: skip
    def hears_a_limit(self, limit: float, left: float, window_s: float, reset: float | None, pick: int) -> None:
        stamp = self.open[pick % len(self.open)]
        self.limiter.observed(RateWindow(limit, limit * left, reset, window_s), stamp, self.now)

    @precondition(lambda self: self.open)
    @rule(window=garbage, pick=st.integers(0, 1_000_000))
    def hears_nonsense(self, window: RateWindow, pick: int) -> None:
        """A8: garbage is counted and changes nothing."""
        stamp = self.open[pick % len(self.open)]
        self.limiter.ready_at(1.0, self.now)
        before = self.limiter.snapshot(self.now)
        self.limiter.observed(window, stamp, self.now)
        after = self.limiter.snapshot(self.now)
        assert after.ignored == before.ignored + 1
        assert (after.stated, after.learned) == (before.stated, before.learned)

    @rule(seconds=st.floats(0.0, 60.0))
    def is_blocked(self, seconds: float) -> None:
        self.limiter.blocked(self.now, self.now + seconds)
        self.blocked = True

    @precondition(lambda self: self.blocked)
    @rule()
    def is_unblocked(self) -> None:
        self.limiter.unblocked(self.now)
        self.blocked = False

    @rule(per_minute=st.one_of(st.none(), st.floats(0.5, 1e6)))
    def is_reconfigured(self, per_minute: float | None) -> None:
        self.limiter.configure(per_minute, self.now)
        self.configured = inf if per_minute is None else per_minute

    @invariant()
    def holds(self) -> None:
        self.limiter.check()
        assert 0.0 < self.limiter.rate_per_minute <= self.configured * (1 + 1e-9)
        assert self.limiter.next_tick(self.now) >= self.now


TestAnyHistory = AnyHistory.TestCase


def pace(limiter: RateLimiter, start: float, seconds: float, per_second: float = inf) -> tuple[list[RateStamp], float]:
    """Send costs of 1 as fast as the limiter and ``per_second`` allow."""
    stamps: list[RateStamp] = []
    now = start
    while now < start + seconds:
        ready = limiter.ready_at(1.0, now)
        if ready > now:
            now = ready
            continue
        stamps.append(limiter.take(1.0, now))
        now += 1.0 / per_second
    return stamps, now


@given(burst=st.integers(2, 60), rate=st.floats(2.0, 50.0))
def test_t02_cut_storm(burst: int, rate: float) -> None:
    """Elsewhere eight 429s of one burst cut the limit eight times. A6: one burst is one decrease."""
    limiter = RateLimiter(configured_per_minute=None, rng=random.Random(0))
    stamps, now = pace(limiter, 0.0, 30.0, rate)
    hit = [limiter.take(1.0, now) for _ in range(burst)]
    assert limiter.rejected(hit[0], now + 0.1, canary=False)
    learned = limiter.rate_per_minute
    assert limiter.origin is RateOrigin.LEARNED
    for stamp in hit[1:]:
        assert not limiter.rejected(stamp, now + 0.2, canary=False)
    assert limiter.rate_per_minute == learned
    assert learned <= 60.0 * (len(stamps) / 30.0) * 1.02


@given(rate=st.floats(2.5, 50.0), seconds=st.floats(20.0, 100.0))
def test_the_first_rejection_measures_the_quota(rate: float, seconds: float) -> None:
    """Section 9: r0 is 0.98 of what was accepted per second over the last ten seconds."""
    limiter = RateLimiter(configured_per_minute=None, rng=random.Random(0))
    _, now = pace(limiter, 0.0, seconds, rate)
    hit = limiter.take(1.0, now)
    limiter.settle(hit, 0.0, now + 0.1)
    limiter.rejected(hit, now + 0.1, canary=False)
    assert abs(limiter.rate_per_minute / 60.0 / (0.98 * rate) - 1.0) <= 0.02 + 1.0 / (10.0 * rate)


@given(configured=st.floats(10.0, 1000.0), limit=st.floats(10.0, 10_000.0), left=st.floats(0.0, 1.0))
def test_what_is_configured_is_an_upper_bound(configured: float, limit: float, left: float) -> None:
    """Headers and learning may only go below it."""
    limiter = RateLimiter(configured_per_minute=configured, rng=random.Random(0))
    stamp = limiter.take(1.0, 0.0)
    limiter.observed(RateWindow(limit, limit * left), stamp, 1.0)
    assert limiter.rate_per_minute <= configured * (1 + 1e-9)
    nominal = limit / 60.0
    stated = max(0.05 * nominal, nominal + (min(limit, limit * left + nominal) - 0.01 * limit) / 10.0)
    assert abs(limiter.rate_per_minute / 60.0 - min(configured / 60.0, stated)) <= 1e-6 * stated


@given(
    limit=st.floats(100.0, 10_000.0),
    first_left=st.floats(0.3, 0.5),
    sends=st.lists(st.floats(0.01, 0.5), min_size=1, max_size=20),
    which=st.integers(0, 100),
    second_left=st.floats(0.1, 0.4),
)
def test_the_mirror_is_the_formula_of_the_design(
    limit: float, first_left: float, sends: list[float], which: int, second_left: float
) -> None:
    """A8, section 9: left = min(Q, remaining + Q/w (now - t0)) - own sends since, for the freshest by send time."""
    limiter = RateLimiter(configured_per_minute=None, rng=random.Random(0))
    stamp = limiter.take(1.0, 0.0)
    limiter.observed(RateWindow(limit, limit * first_left), stamp, 0.0)
    now = 0.0
    stamps: list[RateStamp] = []
    for pause in sends:
        now += pause
        stamps.append(limiter.take(1.0, now))
    chosen = stamps[which % len(stamps)]
    now += 0.1
    limiter.observed(RateWindow(limit, limit * second_left), chosen, now)
    since = sum(stamp.seq > chosen.seq for stamp in stamps)
    nominal = limit / 60.0
    left = min(limit, limit * second_left + nominal * (now - chosen.sent_at)) - since
    expected = max(0.05 * nominal, nominal + (left - 0.01 * limit) / 10.0)
    assert abs(limiter.rate_per_minute / 60.0 / expected - 1.0) <= 1e-6
    older = limiter.rate_per_minute
    limiter.observed(RateWindow(limit, 0.0), stamp, now)  # an older answer says nothing new
    assert limiter.rate_per_minute == older


@given(idle_s=st.floats(1.0, 5000.0))
def test_t04_growth_without_use(idle_s: float) -> None:
    """Elsewhere any success raised the limit. A6: a probe climbs only through sends that the rate held up."""
    limiter = RateLimiter(configured_per_minute=None, rng=random.Random(0))
    _, now = pace(limiter, 0.0, 30.0, 10.0)
    hit = limiter.take(1.0, now)
    limiter.rejected(hit, now, canary=False)
    held = limiter.rate_per_minute
    for _ in range(20):
        now += 20.0 + idle_s  # far slower than allowed
        limiter.ready_at(1.0, now)
        limiter.take(1.0, now)
    assert limiter.rate_per_minute == held
    _, now = pace(limiter, now, 60.0)
    assert limiter.rate_per_minute > held * 1.2
