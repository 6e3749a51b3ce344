"""The bounds that the benchmarks hold a client against are right where they can be worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.oracle import oracle_s, seconds_at_concurrency, seconds_at_rate
from benchmarks.scenarios.unknown_limit import to_95_s
from headgate.testing.provider import Change, Faults, Latency, ModelSpec, ProviderSpec, Slice

SECOND = Latency(mean_s=1.0)


def contents(rows: int) -> list[str]:
    return [f"row {row}" for row in range(rows)]


def oracle(rows: int, model: ModelSpec) -> float:
    return oracle_s(contents(rows), "m", ProviderSpec(models={"m": model}, seed=1))


def test_work_over_capacity_through_every_change() -> None:
    script = (Change(at_s=10, concurrency=4), Change(at_s=20, concurrency=16))
    model = ModelSpec(concurrency=8, script=script)
    assert seconds_at_concurrency(40, model) == 5
    assert seconds_at_concurrency(80, model) == 10
    assert seconds_at_concurrency(100, model) == 15
    assert seconds_at_concurrency(80 + 40 + 32, model) == 22


def test_a_rate_gives_its_burst_at_once() -> None:
    model = ModelSpec(requests_per_minute=600, request_burst=20)
    assert seconds_at_rate(20, model) == 0
    assert seconds_at_rate(120, model) == 10
    assert seconds_at_rate(660, ModelSpec(requests_per_minute=600)) == pytest.approx(6)


def test_the_oracle_fills_every_slot_and_waits_for_the_last_answer() -> None:
    assert oracle(8, ModelSpec(concurrency=4, latency=SECOND)) == 2
    assert oracle(9, ModelSpec(concurrency=4, latency=SECOND)) == 3


def test_the_oracle_takes_a_rate_as_it_comes() -> None:
    model = ModelSpec(requests_per_minute=600, request_burst=10, latency=SECOND)
    assert oracle(110, model) == pytest.approx(10 + 1, abs=0.05)


def test_the_oracle_sees_a_limit_rise() -> None:
    model = ModelSpec(concurrency=1, latency=SECOND, script=(Change(at_s=2.5, concurrency=4),))
    assert oracle(8, model) == pytest.approx(4.5, abs=0.01), "three done at 3 s, three more at 3.5, two after them"


def test_the_oracle_repeats_what_failed() -> None:
    faults = Faults(error_500=0.2, reset=0.2, malformed=0.1)
    plain, faulty = ModelSpec(concurrency=4, latency=SECOND), ModelSpec(concurrency=4, latency=SECOND, faults=faults)
    assert oracle(400, plain) == 100
    assert oracle(400, faulty) == pytest.approx(200, rel=0.1)


def slices(*in_flight: float) -> list[Slice]:
    """Quarters of a second under a limit of ten."""
    return [
        Slice(at_s=number / 4, seconds=0.25, busy_s=busy / 4, capacity_s=2.5, accepted=0, rejected=0)
        for number, busy in enumerate(in_flight)
    ]


def test_at_the_limit_is_95_percent_for_a_while() -> None:
    ramp = slices(2, 5, 10, 5, 9, 10, 10, 10, 10, 10)
    assert to_95_s(ramp, 0.0, 1.0, never_s=99) == 1.0, "9.75 in the mean from there; the 10 before was a moment's"
    assert to_95_s(ramp, 1.25, 1.0, never_s=99) == 0.0
    assert to_95_s(ramp, 2.0, 1.0, never_s=99) == 99, "too little is left to say"
    assert to_95_s(slices(9, 9, 9, 9, 9, 9), 0.0, 1.0, never_s=99) == 99


def test_more_than_the_limit_is_not_at_the_limit() -> None:
    assert to_95_s(slices(20, 20, 15, 10, 10, 10, 10, 10), 0.0, 1.0, never_s=99) == 0.75
