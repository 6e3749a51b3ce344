"""The concurrency law case by case, and the traps that it must not fall into."""

from __future__ import annotations

from itertools import pairwise
from math import floor
from random import Random

import pytest

from headgate.admission.concurrency import AdaptiveConcurrency, FixedConcurrency, Mode, Stamp, Verdict
from headgate.admission.growth import Recovery, climbed, climbing_s, doubled, doubling_s
from headgate.admission.law_values import PROBE_CAP_S, PROBE_MIN_S
from headgate.admission.probing import Probing
from headgate.admission.survival import Silence
from headgate.admission.throughput import Throughput


class Bench:
    """A law, a clock, and requests in flight that nobody answers unless told."""

    def __init__(self, start: float, *, settled: bool = True, maximum: int = 1024, seed: int = 1) -> None:
        self.law = AdaptiveConcurrency(minimum=1, start=start, maximum=maximum, rng=Random(seed), settled=settled)
        self.now = 0.0
        self.flying: list[Stamp] = []

    @property
    def mode(self) -> Mode:
        return self.law.snapshot(self.now).mode

    def fill(self) -> None:
        self.law.advance(self.now, len(self.flying), True)
        while len(self.flying) < floor(self.law.limit):
            self.flying.append(self.law.sent(self.now, len(self.flying)))

    def wait(self, seconds: float) -> None:
        """Time passes as a gate would let it: asking at every tick."""
        end = self.now + seconds
        self.fill()
        while (tick := self.law.next_tick(self.now)) < end:
            self.now = tick
            self.fill()
        self.now = end
        self.fill()

    def reject(self, at: int = -1, hint: float | None = None, after: float = 0.08) -> Verdict:
        self.now += after
        self.law.advance(self.now, len(self.flying), True)
        return self.law.rejected(self.flying.pop(at), self.now, hint)

    def succeed(self, at: int = 0) -> None:
        self.law.advance(self.now, len(self.flying), True)
        self.law.succeeded(self.flying.pop(at), self.now)


def test_a_ramp_doubles_each_second() -> None:
    bench = Bench(4, settled=False)
    bench.wait(3.0)
    assert bench.law.limit == pytest.approx(32, abs=0.5)


def test_a_the_first_rejection_measures() -> None:
    bench = Bench(4, settled=False)
    bench.wait(3.5)
    rejected = bench.flying[32]
    assert rejected.others == 32
    assert bench.reject(32) is Verdict.MEASURED
    assert bench.law.limit == 32
    assert bench.mode is Mode.HOLD


def test_a_failed_probes_double_their_distance_up_to_what_they_may_cost() -> None:
    bench = Bench(32)
    distances: list[float] = []
    for _ in range(12):
        while bench.mode is not Mode.PROBE:
            bench.wait(1.0)
            bench.succeed()  # about one completion a second
            bench.fill()
        assert bench.law.limit == 33
        assert bench.reject() is Verdict.MEASURED
        assert bench.law.limit == 32
        distances.append(bench.law.snapshot(bench.now).probe_every_s)
    assert distances[:6] == [4, 8, 16, 32, 64, 128]
    assert distances[-1] == PROBE_CAP_S


def test_a_surviving_probe_climbs_ever_faster() -> None:
    bench = Bench(32)
    bench.wait(1.5)
    assert bench.mode is Mode.CLIMB
    limits: list[float] = []
    for _ in range(4):
        bench.wait(1.0)
        limits.append(bench.law.limit)
    gains = [after - before for before, after in pairwise(limits)]
    assert gains == sorted(gains)
    assert gains[-1] > 3 * gains[0]
    assert all(after <= 2.01 * before for before, after in pairwise(limits))


def test_a_climb_that_gained_makes_the_next_probe_soon() -> None:
    bench = Bench(32)
    bench.wait(0.01)
    for _ in range(3):
        bench.reject()
        while bench.mode is not Mode.PROBE:
            bench.wait(1.0)
    assert bench.law.snapshot(bench.now).probe_every_s == 16
    bench.wait(5.0)
    assert bench.mode is Mode.CLIMB
    assert bench.law.limit > 40
    assert bench.reject() is Verdict.MEASURED
    assert bench.law.snapshot(bench.now).probe_every_s == PROBE_MIN_S


def test_a_probe_without_any_answer_yet_is_not_a_fall() -> None:
    """Requests that take a minute: nothing is answered between two probes, and that is no sign of trouble."""
    bench = Bench(32)
    for _ in range(6):
        while bench.mode is not Mode.PROBE:
            bench.wait(1.0)
        assert bench.reject() is Verdict.MEASURED
    assert bench.law.limit == 32


def test_b_transit_noise_corrects_a_measurement() -> None:
    bench = Bench(4, settled=False)
    bench.wait(3.1)
    del bench.flying[34:]
    assert bench.reject(33) is Verdict.MEASURED
    assert bench.law.limit == 33
    bench.flying.pop()
    bench.fill()
    assert bench.reject() is Verdict.NOISE
    assert bench.law.limit == 32
    assert bench.mode is Mode.HOLD


def test_c_an_unexpected_rejection_cuts_and_grows_back() -> None:
    bench = Bench(100, maximum=100)
    bench.fill()
    bench.now = 20.0
    assert bench.reject(50) is Verdict.CUT
    stamp_others = 50
    assert bench.law.limit == floor(0.9 * stamp_others)
    del bench.flying[40:]
    bench.wait(25.0)
    assert bench.law.limit >= floor(0.95 * stamp_others)


def test_c_two_surprises_mean_others_are_about() -> None:
    bench = Bench(100, maximum=100)
    for _ in range(2):
        bench.wait(30.0)
        del bench.flying[40:]
        bench.fill()
        bench.succeed()
        bench.fill()
        while bench.law.limit < 40 or bench.mode is not Mode.HOLD:
            bench.wait(1.0)
        bench.law.set_bounds(1, floor(bench.law.limit), bench.now)  # no probe, so that it stays a surprise
        bench.wait(30.0)
        assert bench.reject() is Verdict.CUT
        bench.flying.clear()
    snapshot = bench.law.snapshot(bench.now)
    assert snapshot.contended
    assert not bench.law.snapshot(bench.now + 301.0).contended


def contended(start: float) -> Bench:
    """A law that was surprised twice, at ``start`` in flight."""
    bench = Bench(start)
    bench.law.advance(bench.now, floor(start), False)
    for _ in range(2):
        bench.now += 30.0
        bench.law.advance(bench.now, 0, False)
        bench.law.rejected(bench.law.sent(bench.now, floor(start)), bench.now)
        bench.law.set_bounds(1, 1, bench.now)  # nothing to grow back, and the limit as it was
        bench.law.set_bounds(1, 1024, bench.now)
        bench.law.succeeded(bench.law.sent(bench.now, 0), bench.now)
    assert bench.law.snapshot(bench.now).contended
    return bench


def test_d_without_a_survivor_it_searches_downwards() -> None:
    bench = Bench(100)
    bench.fill()
    bench.law.set_bounds(1, 100, bench.now)
    verdicts = [bench.reject()]
    limits = [bench.law.limit]
    while bench.law.limit > 30:
        del bench.flying[floor(bench.law.limit) - 1 :]
        bench.fill()
        verdicts.append(bench.reject())
        limits.append(bench.law.limit)
    assert verdicts[0] is Verdict.CUT
    assert set(verdicts[1:]) == {Verdict.FALLING}
    assert all(after <= 0.81 * before for before, after in pairwise(limits[1:]))
    assert bench.law.wants_canary
    assert bench.mode is Mode.FALL


def test_d_a_survivor_ends_the_fall() -> None:
    bench = Bench(40, maximum=40)
    bench.fill()
    bench.reject()
    del bench.flying[20:]
    bench.fill()
    assert bench.reject() is Verdict.FALLING
    fell_to = bench.law.limit
    del bench.flying[10:]
    bench.fill()
    modes: list[Mode] = []
    for seconds in (0.0, 0.9, 0.2):
        bench.wait(seconds)
        modes.append(bench.mode)
    assert modes == [Mode.FALL, Mode.FALL, Mode.HOLD]
    assert bench.law.consecutive == 0
    bench.wait(25.0)
    assert bench.law.limit > fell_to


def test_d_the_level_that_made_it_fall_is_probed_when_it_gets_back_there() -> None:
    """Else the end of each recovery is a surprise, two of them are company, and the limit is cut for ever."""
    bench = Bench(40, maximum=40)
    bench.fill()
    bench.reject()
    del bench.flying[32:]
    assert bench.law.limit == 35
    bench.fill()
    assert bench.reject() is Verdict.FALLING
    del bench.flying[20:]
    while bench.law.limit < 34:
        bench.wait(0.1)
    assert bench.mode is Mode.PROBE
    assert bench.reject() is Verdict.MEASURED
    assert bench.law.limit == 34
    assert not bench.law.snapshot(bench.now).contended


def test_a_ramp_goes_on_when_its_rejection_proves_to_be_about_a_rate() -> None:
    bench = Bench(4, settled=False)
    bench.wait(3.5)
    before = bench.law.limit
    begun = bench.now
    assert bench.reject(20) is Verdict.MEASURED
    assert bench.law.limit == 20
    bench.now += 6.0
    assert bench.law.retract(bench.now, begun)
    assert bench.law.limit == pytest.approx(before, rel=0.06)  # it had grown until the rejection came
    assert bench.mode is Mode.RAMP
    bench.wait(1.0)
    assert bench.law.limit > 1.5 * before


def test_only_what_came_since_is_taken_back() -> None:
    bench = Bench(64, maximum=64)
    bench.wait(1.0)
    bench.reject(50)
    first = bench.law.limit
    bench.now += 100.0
    later = bench.now
    del bench.flying[30:]
    bench.fill()
    bench.reject(30)
    assert bench.law.limit < first
    assert bench.law.retract(bench.now, later)
    assert first <= bench.law.limit < 50
    assert not bench.law.retract(bench.now, later)
    assert bench.law.retract(bench.now, 0.0)
    assert bench.law.limit == 64


def test_what_is_taken_back_is_no_company_and_no_price_of_a_probe() -> None:
    bench = Bench(64)
    while bench.mode is not Mode.PROBE:
        bench.wait(1.0)
    bench.reject()
    every_s = bench.law.snapshot(bench.now).probe_every_s
    begun = bench.now + 0.001
    for _ in range(6):
        bench.now += 7.0
        bench.law.advance(bench.now, 10, False)
        bench.law.rejected(bench.law.sent(bench.now, 10), bench.now)
    assert bench.law.limit < 10
    assert bench.law.retract(bench.now, begun)
    snapshot = bench.law.snapshot(bench.now)
    assert (snapshot.mode, snapshot.probe_every_s, snapshot.limit) == (Mode.HOLD, every_s, 64)

    probing = Probing(rng=Random(1))
    state = probing.state()
    probing.surprised(0.0)
    probing.surprised(10.0)
    assert probing.contended(10.0)
    probing.restore(state, 2)
    assert not probing.contended(10.0)
    probing.failed(3)
    assert probing.state().cost == 1.0


def test_a_fixed_limit_forgets_its_row_of_rejections() -> None:
    law = FixedConcurrency(8)
    for at in range(3):
        law.rejected(law.sent(float(at), 0), at + 0.1)
    assert law.wants_canary
    assert law.retract(4.0, 0.0)
    assert not law.wants_canary
    assert law.limit == 8


def completing(probing: Probing, per_s: int, until: int) -> Probing:
    for second in range(until):
        for _ in range(per_s):
            probing.throughput.add(float(second))
    return probing


def longest(probing: Probing, limit: float, now: float, cost: int) -> float:
    """The distance of probes that fail for ever at a price of ``cost`` rejections each."""
    for number in range(1, 40):
        probing.failed(number * cost)
        probing.plan(limit, now)
    return probing.every_s


@pytest.mark.parametrize("cost", [1, 3])
def test_probes_that_cost_more_are_rarer(cost: int) -> None:
    probing = completing(Probing(rng=Random(1)), 10, 60)
    assert longest(probing, 32, 60.0, cost) == pytest.approx(43.5 * cost, rel=0.1)


def test_what_fell_is_asked_for_more_often_for_a_quarter_of_an_hour() -> None:
    probing = completing(Probing(rng=Random(1)), 10, 60)
    probing.fell(64.0, 60.0)
    probing.fell(40.0, 61.0)
    assert longest(probing, 32, 60.0, 1) == pytest.approx(1 / 0.073, rel=0.1)
    assert longest(probing, 60, 60.0, 1) == pytest.approx(43.5, rel=0.1)
    assert longest(completing(probing, 10, 1000), 32, 1000.0, 1) == pytest.approx(43.5, rel=0.1)


def test_one_burst_of_surprises_is_no_company() -> None:
    probing = Probing(rng=Random(1))
    for now in (0.0, 1.0, 4.9):
        probing.surprised(now)
    assert not probing.contended(5.0)
    probing.surprised(10.0)
    assert probing.contended(10.0)


def test_a_slow_rejection_makes_silence_mean_less() -> None:
    silence = Silence()
    assert silence.tau == 1.0
    silence.observe(4.0, 100.0)
    assert silence.tau == 10.0
    silence.observe(0.1, 160.0)
    assert silence.tau == pytest.approx(5.0)
    silence.observe(500.0, 161.0)
    assert silence.tau == 30.0


def test_bounds_may_go_below_what_is_in_flight() -> None:
    bench = Bench(64)
    bench.fill()
    bench.law.set_bounds(1, 10, bench.now)
    assert bench.law.limit == 10
    assert bench.reject(50) is Verdict.CUT
    assert bench.law.limit == 10
    bench.law.check()


def test_a_measurement_never_raises_a_limit_that_was_retuned() -> None:
    bench = Bench(32, settled=False)
    bench.fill()
    bench.law.set_bounds(1, 10, bench.now)
    bench.law.set_bounds(1, 64, bench.now)
    assert bench.reject(25) is Verdict.MEASURED
    assert bench.law.limit < 11


def test_a_retuned_limit_does_not_jump_back_to_where_a_recovery_was() -> None:
    bench = Bench(40, maximum=40)
    bench.fill()
    assert bench.reject() is Verdict.CUT
    bench.wait(1.0)
    bench.law.set_bounds(1, 5, bench.now)
    bench.law.set_bounds(1, 40, bench.now)
    bench.wait(0.05)
    assert bench.law.limit <= 6


def test_a_limit_that_was_never_rejected_goes_on_growing_when_allowed() -> None:
    bench = Bench(4, settled=False, maximum=8)
    bench.wait(10.0)
    assert bench.law.limit == 8
    assert bench.mode is Mode.HOLD
    bench.law.set_bounds(1, 64, bench.now)
    bench.wait(4.0)
    assert bench.law.limit == 64


def test_t02_cut_storm() -> None:
    """Eight rejections of one burst cut a limit eight times elsewhere, or four once it had grown in
    between."""
    bench = Bench(20, maximum=20)
    bench.fill()
    burst = bench.flying[-8:]
    bench.now = 0.08
    verdicts: list[Verdict] = []
    for stamp in burst:
        bench.law.advance(bench.now, 20, True)
        verdicts.append(bench.law.rejected(stamp, bench.now))
        bench.now += 1.5  # the limit grows back in between, and the burst still counts once
    assert verdicts == [Verdict.CUT] + 7 * [Verdict.STALE]
    assert bench.law.limit >= floor(0.9 * burst[0].others)


@pytest.mark.parametrize("hint", [None, 1.0, 30.0])
def test_t03_frozen_by_the_hint(hint: float | None) -> None:
    """A stream of 429s that all carried Retry-After froze a controller after one cut: 50 against a capacity
    of 15."""
    bench = Bench(50)
    by_round: list[int] = []
    for _ in range(16):
        bench.fill()
        before = bench.law.rejections
        while len(bench.flying) > 15:
            bench.reject(hint=hint, after=0.001)
        by_round.append(bench.law.rejections - before)
        bench.now += 0.1
    assert bench.law.limit <= 15
    assert by_round[-4:] == [0, 0, 0, 0]


def test_t03_the_hint_makes_probes_rarer_only() -> None:
    bench = Bench(32)
    for _ in range(8):
        while bench.mode is not Mode.PROBE:
            bench.wait(1.0)
            for _ in range(6):
                bench.succeed()
            bench.fill()
        bench.reject(hint=2.0)
    assert bench.law.snapshot(bench.now).probe_every_s == 100.0


def test_t04_growth_without_use() -> None:
    """Any success raised the limit elsewhere, even with one request in flight."""
    law = AdaptiveConcurrency(minimum=1, start=10, maximum=100, rng=Random(1))
    for second in range(200):
        law.advance(float(second), 0, False)
        stamp = law.sent(float(second), 0)
        law.advance(second + 0.5, 1, True)
        law.succeeded(stamp, second + 0.5)
    assert law.limit == 10


def test_a_fixed_limit_asks_for_a_canary_when_nothing_gets_through() -> None:
    law = FixedConcurrency(8)
    verdicts = [law.rejected(law.sent(float(at), 0), at + 0.1) for at in range(3)]
    assert verdicts == [Verdict.COUNTED, Verdict.COUNTED, Verdict.FALLING]
    law.sent(10.0, 0)
    law.advance(10.5, 1, True)
    assert law.wants_canary
    law.advance(11.0, 1, True)
    assert not law.wants_canary
    assert law.limit == 8


def test_growth_and_its_inverse_agree() -> None:
    assert doubled(5.0, doubling_s(5.0, 17.0)) == pytest.approx(17.0)
    for since in (0.0, 0.7, 5.0):
        took = climbing_s(30.0, since, 33.0, tau=1.0)
        assert climbed(30.0, since, took, tau=1.0) == pytest.approx(33.0)
    recovery = Recovery(20.0, 40.0, 10.0)
    for level in (20.0, 30.0, 39.0, 40.0):
        assert recovery.level(recovery.reaches_s(level)) == pytest.approx(level)


def test_throughput_is_of_the_last_half_minute() -> None:
    throughput = Throughput()
    assert throughput.per_s(0.0) == 0.0
    for tick in range(600):
        throughput.add(tick * 0.1)
    assert throughput.per_s(60.0) == pytest.approx(10.0, rel=0.02)
    for tick in range(60, 120):
        throughput.add(float(tick))
    throughput.check()
    assert throughput.per_s(120.0) == pytest.approx(1.0, rel=0.05)
    assert throughput.per_s(5000.0) == 0.0
    throughput.check()


def test_with_others_about_a_hold_creeps_up_without_a_probe() -> None:
    bench = contended(40)
    bench.wait(60.0)  # what the last cut took is grown back
    limits = [bench.law.limit]
    for _ in range(100):
        bench.wait(1.0)
        assert bench.mode is Mode.HOLD
        limits.append(bench.law.limit)
    assert all(before < after < before + 0.5 for before, after in pairwise(limits))


def test_with_others_about_a_rejection_takes_a_share() -> None:
    bench = contended(40)
    bench.wait(120.0)
    others = bench.flying[-1].others
    assert bench.reject() is Verdict.CUT
    assert 0.9 * others <= bench.law.limit <= others - 2


def test_after_a_fall_a_probe_that_survives_leads_straight_back() -> None:
    """Without the memory of what was lost it would climb, which takes longer the more was lost."""
    bench = Bench(64, maximum=64)
    bench.fill()
    assert bench.reject() is Verdict.CUT
    del bench.flying[20:]
    bench.fill()
    assert bench.reject(20) is Verdict.FALLING
    del bench.flying[10:]
    modes: set[Mode] = set()
    for _ in range(400):
        bench.fill()
        bench.succeed()
        bench.wait(0.5)
        modes.add(bench.mode)
    assert bench.law.limit == 64
    assert Mode.PROBE in modes
    assert Mode.CLIMB not in modes
