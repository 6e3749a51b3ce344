"""The cooldown under any order of events: never shorter, one canary, never all at once."""

from __future__ import annotations

from math import ceil, floor, inf
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.admission.cooldown import Cooldown

LIMIT = 64
STEPS = st.sampled_from([0.0, 0.001, 0.1, 0.25, 1.0, 3.0, 30.0, 700.0])


class CooldownMachine(RuleBasedStateMachine):
    """A gate that keeps the protocol, and a provider in any mood."""

    def __init__(self) -> None:
        super().__init__()
        self.cooldown = Cooldown(rng=Random(3))
        self.now = 50.0
        self.flying: list[tuple[float, bool]] = []
        self.before = -inf
        self.canary_at: float | None = None

    @rule(dt=STEPS)
    def time_passes(self, dt: float) -> None:
        self.now += dt
        self._look()

    @rule(count=st.integers(1, 20))
    def sends(self, count: int) -> None:
        for _ in range(count):
            allowed = self._look()
            in_flight = len(self.flying)
            if in_flight >= allowed or in_flight >= LIMIT:
                return
            assert self.now >= self.cooldown.blocked_until, "sent while blocked"
            canary = self.cooldown.sent(self.now, 1.0)
            if canary:
                assert self.canary_at is None, "two canaries at once"
                self.canary_at = self.now
            elif self.canary_at is not None:
                assert self.now >= self.canary_at + 1.0, "company for a canary that has not survived yet"
                self.canary_at = None
            self.flying.append((self.now, canary))

    @precondition(lambda self: self.flying)
    @rule(
        data=st.data(),
        fate=st.sampled_from(["answered", "rejected", "hinted", "abandoned"]),
        rate=st.booleans(),
    )
    def ends(self, data: st.DataObject, fate: str, rate: bool) -> None:
        self._look()
        sent_at, canary = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        if canary and sent_at == self.canary_at:
            self.canary_at = None
        if fate == "answered":
            if canary:
                self.cooldown.survived(self.now, sent_at)
        elif fate == "abandoned":
            if canary:
                self.cooldown.abandoned(self.now, sent_at)
        elif canary:
            hint = 2.0 if fate == "hinted" else None
            self.cooldown.rejected(self.now, sent_at, rate=rate, retry_after_s=hint)
        elif fate == "hinted":
            self.cooldown.hint(self.now, 2.0)
        elif rate:
            self.cooldown.rate_rejected(self.now, sent_at)
        else:
            self.cooldown.backoff(self.now, data.draw(st.integers(3, 40)), rate=False)

    @rule(seconds=st.sampled_from([-1.0, 0.0, 0.5, 60.0, 601.0, 1e9, inf, float("nan")]))
    def is_hinted(self, seconds: float) -> None:
        exceeded = self.cooldown.hint(self.now, seconds)
        assert exceeded == (seconds > 600.0)
        assert self.cooldown.blocked_until <= max(self.before, self.now + 601.0)

    @rule(seconds=st.sampled_from([-1.0, 0.0, 5.0, inf]))
    def is_blocked(self, seconds: float) -> None:
        self.cooldown.block(self.now + seconds, self.now)
        assert self.cooldown.blocked_until >= self.now + seconds or seconds <= 0

    @rule()
    def is_unblocked(self) -> None:
        self.cooldown.unblock(self.now)
        assert self.cooldown.blocked_until < inf
        self.before = self.cooldown.blocked_until

    @invariant()
    def never_gets_shorter(self) -> None:
        """A5, T1."""
        self.cooldown.check()
        assert self.cooldown.blocked_until >= self.before
        self.before = self.cooldown.blocked_until

    @invariant()
    def a_new_block_asks_for_a_new_canary(self) -> None:
        if self.now < self.cooldown.blocked_until:
            self.canary_at = None

    @invariant()
    def time_is_worth_waiting_for(self) -> None:
        assert self.cooldown.next_tick(self.now, len(self.flying), LIMIT) > self.now

    def _look(self) -> float:
        """What the gate asks before each decision."""
        allowed = self.cooldown.allowance(self.now, len(self.flying), LIMIT)
        if self.now < self.cooldown.blocked_until:
            assert allowed == 0
        return allowed


TestCooldown = CooldownMachine.TestCase


@given(
    limit=st.integers(1, 2000),
    running=st.integers(0, 300),
    hint_s=st.floats(0.1, 600.0),
    late_s=st.floats(0.0, 5000.0),
    canary=st.booleans(),
)
def test_reopening_is_gradual(limit: int, running: int, hint_s: float, late_s: float, canary: bool) -> None:
    """A5, T21: t seconds after the reopening at most 2^(t / 0.25 s) more are in flight, and in the end
    all."""
    cooldown = Cooldown(rng=Random(1))
    now = 10.0
    if canary:
        cooldown.backoff(now, 4, rate=False)
    else:
        cooldown.hint(now, hint_s)
    now = cooldown.blocked_until + late_s
    in_flight = running
    if canary:
        assert cooldown.allowance(now, in_flight, limit) == running + 1
        assert cooldown.sent(now, 1.0)
        in_flight += 1
        assert cooldown.allowance(now, in_flight, limit) == 0
        now = cooldown.next_tick(now, in_flight, limit)
    opened, at_opening = now, in_flight
    while in_flight < limit:
        allowed = min(limit, cooldown.allowance(now, in_flight, limit))
        assert allowed - at_opening <= 2.0 ** ((now - opened) / 0.25) + 1e-6 or allowed == limit
        while in_flight < floor(allowed):
            cooldown.sent(now, 1.0)
            in_flight += 1
        tick = cooldown.next_tick(now, in_flight, limit)
        if tick == inf:
            break
        now = tick
    assert in_flight >= limit
    extra = max(1, limit - at_opening)
    assert now - opened <= 0.25 * ceil(extra).bit_length() + 0.01


@given(st.lists(st.sampled_from(["rejected", "abandoned"]), max_size=40))
def test_canaries_one_by_one_until_one_survives(fates: list[str]) -> None:
    """Each rejection at most doubles the pause, up to half as much again as 20 s; an abandoned one costs
    none."""
    cooldown = Cooldown(rng=Random(5))
    now = 0.0
    cooldown.backoff(now, 3, rate=False)
    pause_s = 0.5
    for fate in fates:
        now = max(now, cooldown.blocked_until)
        assert cooldown.allowance(now, 0, 32) == 1
        assert cooldown.sent(now, 1.0)
        assert cooldown.allowance(now, 1, 32) == 0
        sent_at, now = now, now + 0.1
        if fate == "abandoned":
            cooldown.abandoned(now, sent_at)
            assert cooldown.blocked_until <= now
        else:
            cooldown.rejected(now, sent_at, rate=False)
            pause_s = min(20.0, 2 * pause_s)
            assert 0.5 * pause_s <= cooldown.blocked_until - now <= 1.5 * pause_s
    now = max(now, cooldown.blocked_until)
    cooldown.allowance(now, 0, 32)
    assert cooldown.sent(now, 1.0)
    cooldown.survived(now + 0.2, now)
    assert cooldown.allowance(now + 0.2, 0, 32) == 1
    assert cooldown.allowance(now + 10.0, 0, 32) == inf
