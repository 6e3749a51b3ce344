"""The concurrency law case by case, and the traps that it must not fall into."""

from __future__ import annotations

from itertools import pairwise
from math import floor
from random import Random

import pytest

from headgate.admission.concurrency import AdaptiveConcurrency, FixedConcurrency, Mode, Verdict
from headgate.admission.law_values import PROBE_CAP_S, PROBE_MIN_S
from headgate.admission.probing import Probing
from tests.unit.concurrency_bench import Bench


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
