"""Where slots are short, flows and resources share the time for which slots are taken, not the number of turns (A4)."""

from __future__ import annotations

import random
from heapq import heappop, heappush
from math import inf

import hypothesis.strategies as st
from hypothesis import given

from headgate.admission.gate import Gate
from headgate.admission.scope_limits import ScopeLimits
from headgate.admission.slot_time import SlotTime
from headgate.admission.values import Grant, Lease, Request
from headgate.values import Outcome, ResourceKey

ONE, TWO = ResourceKey.parse("p/one"), ResourceKey.parse("p/two")
durations = st.sampled_from([0.1, 0.2, 0.5, 1.0, 2.0])


def taken_s(gate: Gate, sharers: list[tuple[Request, float]], cap: int, until: float) -> list[float]:
    """Seconds of slots that each of ``sharers``, who all wait at all times, was given from a fifth of ``until`` on."""
    ends: list[tuple[float, int, int, Lease]] = []
    taken = [0.0] * len(sharers)
    waiting: dict[int, int] = {}
    now, number = 0.0, 0

    def ask(who: int) -> None:
        answer = gate.submit(sharers[who][0], now, timeout_s=inf)
        if isinstance(answer, Lease):
            begin(who, answer)
            ask(who)
        else:
            assert isinstance(answer, int)
            waiting[answer] = who

    def begin(who: int, lease: Lease) -> None:
        nonlocal number
        number += 1
        heappush(ends, (now + sharers[who][1], number, who, lease))

    for who in range(len(sharers)):
        ask(who)
    while now < until:
        now, _, who, lease = heappop(ends)
        if lease.acquired_at >= until / 5:
            taken[who] += now - lease.acquired_at
        gate.release(lease, Outcome.SUCCESS, now)
        assert len(ends) <= cap
        while grants := [effect for effect in gate.take_effects() if isinstance(effect, Grant)]:
            for grant in grants:
                served = waiting.pop(grant.waiter)
                begin(served, grant.lease)
                ask(served)
    return taken


@given(st.lists(st.tuples(durations, st.sampled_from([1.0, 2.0])), min_size=2, max_size=3), st.integers(1, 6))
def test_a4_flows_share_slot_time_by_weight(flows: list[tuple[float, float]], cap: int) -> None:
    """Flows that all wait get slot time in proportion to their weights, however long their requests last."""
    gate = Gate(rng=random.Random(0))
    gate.register(ONE, {"p/one": ScopeLimits(maximum=cap)}, 0.0)
    sharers = [
        (Request(ONE, flow=f"flow {place}", weight=weight), lasts_s) for place, (lasts_s, weight) in enumerate(flows)
    ]
    taken = taken_s(gate, sharers, cap, until=120.0)
    shares = [one / weight for one, (_, weight) in zip(taken, flows, strict=True)]
    assert max(shares) <= 1.05 * min(shares) + 4.0 * cap
    gate.check()


@given(durations, durations, st.integers(1, 6))
def test_a4_resources_share_the_slots_of_their_account(one_s: float, two_s: float, cap: int) -> None:
    """A fast and a slow model under one limit of the account: each has its slots for half of the time."""
    gate = Gate(rng=random.Random(0))
    for resource in (ONE, TWO):
        gate.register(resource, {"p": ScopeLimits(maximum=cap)}, 0.0)
    taken = taken_s(gate, [(Request(ONE), one_s), (Request(TWO), two_s)], cap, until=120.0)
    assert max(taken) <= 1.05 * min(taken) + 4.0 * cap
    gate.check()


def test_a_rate_is_shared_by_requests_not_by_seconds() -> None:
    """Where a rate is what is short, a slow request costs no more than a fast one."""
    gate = Gate(rng=random.Random(0))
    limits = ScopeLimits(maximum=500, requests_per_minute=600)
    gate.register(ONE, {"p/one": limits}, 0.0)
    waiting: dict[int, str] = {}
    served = {"slow": 0, "fast": 0}
    leases: list[tuple[float, Lease]] = []
    for flow in served:
        for _ in range(2000):
            answer = gate.submit(Request(ONE, flow=flow), 0.0, timeout_s=inf)
            if isinstance(answer, int):
                waiting[answer] = flow
    for tick in range(1, 600):
        now = tick / 10
        gate.tick(now)
        for at, lease in list(leases):
            if at <= now:
                leases.remove((at, lease))
                gate.release(lease, Outcome.SUCCESS, now)
        for effect in gate.take_effects():
            if isinstance(effect, Grant):
                flow = waiting.pop(effect.waiter)
                served[flow] += 1
                leases.append((now + (10.0 if flow == "slow" else 0.1), effect.lease))
    assert sum(served.values()) > 500
    assert abs(served["slow"] - served["fast"]) <= 2


@given(st.lists(st.tuples(st.integers(0, 400), st.floats(0.0, 1e4)), max_size=600))
def test_what_a_turn_costs_is_bounded(held: list[tuple[int, float]]) -> None:
    """Whatever was seen, a turn costs a bounded share or multiple of an average one, and few sharers are remembered."""
    known: SlotTime[int] = SlotTime()
    for key, held_s in held:
        known.learn(key, held_s)
        assert 1 / 64 <= known.turn(key) <= 64
    assert known.turn(-1) == 1.0
    assert len(known) <= 256
