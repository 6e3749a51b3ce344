"""The concurrency law under any order of events: bounds, one decrease a burst, no growth without use."""

from __future__ import annotations

from math import floor
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.admission.concurrency import AdaptiveConcurrency, FixedConcurrency, LawMemory, Mode, Stamp, Verdict
from headgate.admission.memory import restored

STEPS = st.sampled_from([0.0, 0.001, 0.02, 0.08, 0.3, 1.0, 1.01, 4.0, 30.0, 3600.0])
HINTS = st.sampled_from([None, 0.0, 0.5, 20.0, 90000.0])


class LawMachine(RuleBasedStateMachine):
    """A gate and a provider in any mood. The model only knows what a law may never do."""

    def __init__(self) -> None:
        super().__init__()
        self.law = AdaptiveConcurrency(minimum=1, start=4.0, maximum=48, rng=Random(7))
        self.now = 1000.0
        self.flying: list[Stamp] = []
        self.answered: set[int] = set()
        self.used = False

    @property
    def in_flight(self) -> int:
        return len(self.flying)

    @rule(dt=STEPS, demand=st.booleans())
    def time_passes(self, dt: float, demand: bool) -> None:
        before = self.law.limit
        probing = self.law.snapshot(self.now).mode is Mode.PROBE
        self.now += dt
        self.law.advance(self.now, self.in_flight, demand)
        used_now = demand and self.in_flight >= floor(before) - 1
        grew = self.law.limit - before
        if grew > 0:
            # Either it was in use all the while, or this is the one slot of a probe.
            probes = used_now and self.law.snapshot(self.now).mode is Mode.PROBE and not probing
            assert self.used or (probes and grew <= 1.0), "grew without use"
            # However long nobody looked: the next slot, or a tenth of a second of the fastest growth.
            assert self.law.limit <= max(floor(before) + 1.0, before * 2.0**0.1 + 1.0) + 1e-6, "jumped"
        self.used = demand and self.in_flight >= floor(self.law.limit) - 1

    @rule()
    def sends_all(self) -> None:
        self.law.advance(self.now, self.in_flight, True)
        while self.in_flight < floor(self.law.limit):
            self.flying.append(self.law.sent(self.now, self.in_flight))
        self.used = True

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def succeeds(self, data: st.DataObject) -> None:
        stamp = self._answered(data)
        before = self.law.limit
        self.law.succeeded(stamp, self.now)
        assert self.law.limit == before, "a success alone moved the limit"

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), hint=HINTS)
    def is_rejected(self, data: st.DataObject, hint: float | None) -> None:
        stamp = self._answered(data)
        before = self.law.limit
        verdict = self.law.rejected(stamp, self.now, hint)
        assert self.law.limit <= before, "a rejection raised the limit"
        # A6: one generation, one decrease.
        assert (verdict is Verdict.STALE) == (stamp.generation in self.answered)
        if verdict is Verdict.STALE:
            assert self.law.limit == before, "a stale rejection moved the limit"
        self.answered.add(stamp.generation)
        # The last known demand stays; whether it is used now depends on the new limit.
        self.used = True

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def is_abandoned(self, data: st.DataObject) -> None:
        stamp = self._answered(data)
        before = self.law.snapshot(self.now)
        self.law.abandoned(stamp, self.now)
        assert self.law.snapshot(self.now) == before, "no evidence, and yet it learned"

    @rule(age=st.sampled_from([0.0, 0.5, 5.0, 100.0]))
    def is_taken_back(self, age: float) -> None:
        before = self.law.limit
        self.law.retract(self.now, self.now - age)
        assert self.law.limit >= before - 1.0, "taking rejections back lowered the limit by more than a probe"
        assert self.law.generation not in self.answered
        self.used = True

    @rule(minimum=st.integers(1, 6), more=st.integers(0, 60))
    def is_retuned(self, minimum: int, more: int) -> None:
        self.law.set_bounds(minimum, minimum + more, self.now)
        self.used = True

    @invariant()
    def holds(self) -> None:
        self.law.check()
        assert self.law.minimum <= self.law.limit <= self.law.maximum
        assert self.law.next_tick(self.now) > self.now

    def _answered(self, data: st.DataObject) -> Stamp:
        self.law.advance(self.now, self.in_flight, True)
        self.used = self.in_flight >= floor(self.law.limit) - 1
        at = data.draw(st.integers(0, len(self.flying) - 1))
        return self.flying.pop(at)


TestLaw = LawMachine.TestCase


@given(
    start=st.integers(2, 40),
    rejected=st.permutations(range(40)),
    spread=st.floats(0.0, 3.0),
)
def test_one_burst_is_one_decrease(start: int, rejected: list[int], spread: float) -> None:
    """A6: however many of one burst are rejected, in whatever order, the limit falls once."""
    law = AdaptiveConcurrency(minimum=1, start=start, maximum=64, rng=Random(1))
    law.advance(0.0, 0, True)
    stamps = [law.sent(0.0, others) for others in range(start)]
    burst = [stamps[at] for at in rejected if at < start]
    law.rejected(burst[0], 0.1)
    after_first = law.limit
    for number, stamp in enumerate(burst[1:], 1):
        at = 0.1 + spread * number / start
        assert law.rejected(stamp, at) is Verdict.STALE
        assert law.limit == after_first
    assert law.stale == start - 1
    assert law.rejections == start


@given(
    gaps=st.lists(st.floats(0.0, 5000.0), min_size=1, max_size=30),
    in_flight=st.integers(0, 13),
    settled=st.booleans(),
)
def test_no_growth_without_use(gaps: list[float], in_flight: int, settled: bool) -> None:
    """A6: with free slots, or with nobody waiting, no time and no number of successes raises the limit."""
    law = AdaptiveConcurrency(minimum=1, start=16, maximum=64, rng=Random(1), settled=settled)
    now = 0.0
    law.advance(now, in_flight, True)
    for gap in gaps:
        stamp = law.sent(now, in_flight)
        now += gap
        law.advance(now, in_flight, True)
        law.succeeded(stamp, now)
        law.advance(now, 16, False)
    assert law.limit == 16


@given(
    start=st.integers(4, 200),
    settled=st.booleans(),
    ramp_s=st.floats(0.0, 3.0),
    gaps=st.lists(st.floats(0.01, 20.0), min_size=1, max_size=20),
    which=st.randoms(use_true_random=False),
)
def test_what_is_taken_back_was_never_learned(
    start: int, settled: bool, ramp_s: float, gaps: list[float], which: Random
) -> None:
    """Rejections that were reported and taken back leave the same law as rejections that were abandoned."""
    law, twin = (
        AdaptiveConcurrency(minimum=1, start=start, maximum=1024, rng=Random(1), settled=settled) for _ in range(2)
    )
    end = 0.0
    for tick in range(int(ramp_s * 20)):  # saturated, so that a ramp is somewhere up, and a hold probes
        end = tick / 20
        for each in (law, twin):
            each.advance(end, floor(each.limit), True)
            # Whose fate is never known, so that none of them survives in one law only.
            each.abandoned(each.sent(end, floor(each.limit) - 1), end)
    begun = now = end + 0.01
    for gap in gaps:
        others = which.randint(0, floor(law.limit) - 1)
        for each in (law, twin):
            each.advance(now, floor(law.limit) - 3, False)  # a rate limit binds: slots are free
        stamp, same = (each.sent(now, others) for each in (law, twin))
        law.rejected(stamp, now + 0.005)
        twin.abandoned(same, now + 0.005)
        now += gap
    law.advance(now, 0, False)
    twin.advance(now, 0, False)
    assert law.retract(now, begun)
    law.check()
    got, expected = law.snapshot(now), twin.snapshot(now)
    if expected.mode is Mode.PROBE:
        assert got.mode is Mode.HOLD
        assert got.limit == expected.limit - 1
        assert got.next_probe <= now
    else:
        assert (got.mode, got.limit) == (expected.mode, expected.limit)
    assert (got.probe_every_s, got.next_probe) == (expected.probe_every_s, expected.next_probe)
    assert got.contended == expected.contended
    assert got.consecutive == expected.consecutive
    assert not law.retract(now, now), "taken back twice"


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    limit=NUMBERS,
    every_s=NUMBERS,
    tau=NUMBERS,
    age_s=st.floats(),
    minimum=st.integers(1, 50),
    more=st.integers(0, 2000),
    steps=st.lists(st.floats(0.0, 10.0), max_size=20),
)
def test_any_memory_makes_a_sound_law(
    limit: float, every_s: float, tau: float, age_s: float, minimum: int, more: int, steps: list[float]
) -> None:
    """Whatever was written down, however old it says to be: within the bounds, at most what was remembered before
    anything was asked, and it grows on."""
    memory = LawMemory(limit, every_s, tau)
    law = restored(memory, age_s, minimum=minimum, maximum=minimum + more, rng=Random(3))
    law.check()
    assert law.limit <= max(minimum, 0.9 * limit)
    now = 0.0
    for step in steps:
        law.advance(now, floor(law.limit), True)
        assert law.next_tick(now) > now
        law.check()
        now += step
    snapshot = law.snapshot(now)
    assert 1.0 <= snapshot.tau <= 30.0
    assert 2.0 <= snapshot.probe_every_s <= 300.0


@given(start=st.integers(10, 500), age_s=st.sampled_from([0.0, 10.0, 3599.0, 3601.0, 1e9, -30.0, float("nan")]))
def test_what_is_written_down_is_where_the_next_process_begins(start: int, age_s: float) -> None:
    law = AdaptiveConcurrency(minimum=1, start=start, maximum=1024, rng=Random(1), settled=True)
    law.advance(0.0, start, True)  # probes: the slot more is not what held
    memory = law.memory()
    assert memory.limit == start
    later = restored(memory, age_s, minimum=1, maximum=1024, rng=Random(2))
    fresh = age_s <= 3600.0
    assert later.snapshot(0.0).mode is (Mode.HOLD if fresh else Mode.RAMP)
    assert abs(later.limit - (0.9 if fresh else 0.25) * start) < 1e-6
    now = 5.0
    later.advance(now, floor(later.limit), True)
    for _ in range(1000):
        if now > 8.2 or later.snapshot(now).mode is Mode.PROBE:
            break
        now = min(later.next_tick(now), now + 0.1)
        later.advance(now, floor(later.limit), True)
    if fresh:  # back within three seconds, and a probe at once
        assert (later.snapshot(now).mode, later.limit) == (Mode.PROBE, start + 1)
        assert later.snapshot(now).probe_every_s == memory.probe_every_s
    else:
        assert start <= later.limit


@given(gap=st.floats(1.0, 100000.0), start=st.integers(4, 500))
def test_an_idle_hour_earns_one_slot_at_most(gap: float, start: int) -> None:
    """Saturated at the last look, then silence: nobody waited, or they would have asked at ``next_tick``."""
    law = AdaptiveConcurrency(minimum=1, start=start, maximum=1024, rng=Random(1))
    law.advance(0.0, start, True)
    tick = law.next_tick(0.0)
    law.advance(max(tick, gap), start, True)
    assert law.limit <= max(start + 1, start * 2**0.1) + 1e-6


@given(start=st.floats(1.0, 700.0), seed=st.integers(0, 1000))
def test_whoever_asks_at_next_tick_gets_a_slot(start: float, seed: int) -> None:
    """The tick is neither early (it would spin) nor late (A10): each one of a ramp lets one more in."""
    law = AdaptiveConcurrency(minimum=1, start=start, maximum=1024, rng=Random(seed))
    now = float(seed)
    law.advance(now, floor(law.limit), True)
    for _ in range(5):
        slots = floor(law.limit)
        now = law.next_tick(now)
        law.advance(now, slots, True)
        # Ticks are a millisecond apart at least; up there a millisecond is worth more than one slot.
        assert slots + 1 <= floor(law.limit) <= slots + 2


@given(
    limit=st.integers(1, 50),
    fates=st.lists(st.sampled_from(["succeeded", "rejected", "abandoned", "wait"]), max_size=60),
)
def test_a_fixed_limit_stays(limit: int, fates: list[str]) -> None:
    law = FixedConcurrency(limit)
    now = 0.0
    for fate in fates:
        law.advance(now, 0, True)
        stamp = law.sent(now, 0)
        now += 0.1
        if fate == "succeeded":
            law.succeeded(stamp, now)
            assert law.consecutive == 0
        elif fate == "rejected":
            before = law.consecutive
            law.rejected(stamp, now)
            assert law.consecutive == before + 1
        elif fate == "abandoned":
            law.abandoned(stamp, now)
        else:
            now += 2.0
        law.check()
        assert law.limit == limit
        assert law.next_tick(now) > now


@pytest.mark.parametrize("seed", range(60))
def test_before_it_looks_time_means_nothing(seed: int) -> None:
    """A law that is told of time, demand and use only when it says so decides as one that is told of everything.

    At each step time passes, some answers come, and some requests go out to a provider that rejects beyond so many; now
    and then one is lost, the provider's limit changes, or the bounds do.
    """
    draw = Random(seed)
    start, maximum = draw.choice(((4.0, 8), (8.0, 8), (4.0, 1024), (8.0, 1024)))
    settled, room = draw.random() < 0.5, 9
    told, spared = (
        AdaptiveConcurrency(minimum=1, start=start, maximum=maximum, rng=Random(5), settled=settled) for _ in range(2)
    )
    now, waits, flying = 0.0, False, list[tuple[Stamp, Stamp, bool]]()

    def advance(*, always: bool = False) -> None:
        told.advance(now, len(flying), waits)
        if always or now >= spared.looks_at:
            spared.advance(now, len(flying), waits)
        assert told.limit == spared.limit

    for _ in range(400):
        now += draw.choice((0.0, 0.05, 0.05, 0.3, 0.3, 1.01, 6.0, 40.0))
        other = draw.randrange(100)
        if other > 97:
            room = draw.choice((2, 6, 9, 40))
        for one, twin, rejected in flying[: draw.randint(0, 12)]:
            advance(always=rejected)
            del flying[0]
            if rejected:
                assert told.rejected(one, now) is spared.rejected(twin, now)
            else:
                told.succeeded(one, now)
                spared.succeeded(twin, now)
        if other == 0 and flying:
            advance(always=True)
            one, twin, _ = flying.pop(0)
            told.abandoned(one, now)
            spared.abandoned(twin, now)
        elif other == 1:
            advance(always=True)
            for law in (told, spared):
                law.set_bounds(1, 8 if law.maximum > 8 else 64, now)
        waits = False
        for _ in range(draw.choice((0, 2, 12))):
            advance()
            waits = len(flying) + 1 > told.limit
            if waits:
                advance()  # somebody waits from now on
                assert spared.next_tick(now) == told.next_tick(now)
                break
            others = len(flying)
            flying.append((told.sent(now, others), spared.sent(now, others), others >= room))
        assert told.snapshot(now) == spared.snapshot(now)
        told.check()
        spared.check()
