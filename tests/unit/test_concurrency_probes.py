"""The concurrency law case by case: what probes cost, what is taken back, and what others who are about change."""

from __future__ import annotations

from itertools import pairwise
from math import floor
from random import Random

import pytest

from headgate.admission.concurrency import FixedConcurrency, Mode, Verdict
from headgate.admission.growth import Recovery, climbed, climbing_s, doubled, doubling_s
from headgate.admission.probing import Probing
from headgate.admission.survival import Silence
from headgate.admission.throughput import Throughput
from tests.unit.concurrency_bench import Bench


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
