"""Each baseline does what its published description says, in a small scripted case."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.admission.baselines import Fixed, Gradient, Law, PlainAimd, ScalableMimd, SlowStartAimd
from benchmarks.admission.peers import Peer, backoff_s
from benchmarks.admission.provider import Rule
from benchmarks.admission.simulation import Demand, Simulation, Ticket
from headgate.values import Feedback


def succeed(
    law: Law, count: int, *, now: float = 0.0, rtt_s: float = 5.0, in_use: int = 1, again: bool = False
) -> None:
    for _ in range(count):
        law.answered(now - rtt_s, in_use, again, now)


def test_a_semaphore_learns_nothing() -> None:
    law = Fixed(64)
    law.rejected(0.0, 5.0, 1.0)
    succeed(law, 100)
    assert law.limit == 64
    assert law.may_send(63, 1.0)
    assert not law.may_send(64, 1.0)


def test_aimd_cuts_once_a_burst_pauses_two_seconds_and_adds_one_after_25_successes() -> None:
    law = PlainAimd(64)
    law.rejected(0.0, None, 10.0)
    assert law.limit == 48
    law.rejected(0.0, None, 10.5)
    assert law.limit == 48, "the same burst"
    assert not law.may_send(0, 12.4)
    assert law.next_at(12.4) == 12.5
    assert law.may_send(0, 12.5)
    succeed(law, 24)
    assert law.limit == 48
    succeed(law, 1)
    assert law.limit == 49
    law.rejected(0.0, 7.0, 20.0)
    assert law.limit == 36
    assert law.next_at(20.0) == 27.0, "Retry-After is the pause"
    for now in range(30, 60):
        succeed(law, 1)
        law.rejected(0.0, None, float(now))
    assert law.limit == 1
    for _ in range(100):
        succeed(law, 25)
    assert law.limit == 64, "never above the cap"


def test_slow_start_doubles_a_clean_round_until_the_first_rejection_then_grows_by_5_percent() -> None:
    law = SlowStartAimd(200)
    succeed(law, 19)
    assert law.limit == 20
    succeed(law, 1)
    assert law.limit == 40
    succeed(law, 39)
    succeed(law, 5, again=True)
    assert law.limit == 40, "a success after a refusal is neutral"
    law.rejected(0.0, None, 100.0)
    law.rejected(0.0, None, 114.9)
    assert law.limit == 32, "debounced for 15 s"
    succeed(law, 32)
    assert law.limit == 34
    law.rejected(0.0, 60.0, 115.1)
    law.rejected(0.0, None, 170.0)
    assert law.limit == 27, "Retry-After makes the debounce longer"


def test_the_gradient_follows_the_ratio_of_long_to_short_latency() -> None:
    law = Gradient(200, start=20)
    now = 0.0
    for _ in range(10):
        now += 1.0
        succeed(law, 10, now=now, rtt_s=5.0, in_use=20)
    grown = law.limit
    assert grown == pytest.approx(20 + 10 * 4 * 0.2)
    succeed(law, 10, now=now + 1, rtt_s=7.0, in_use=20)
    assert law.limit > grown, "within the tolerance of 1.5"
    level = law.limit
    succeed(law, 10, now=now + 2, rtt_s=15.0, in_use=20)
    assert law.limit < level
    level = law.limit
    succeed(law, 10, now=now + 3, rtt_s=5.0, in_use=1)
    assert law.limit == level, "unused, it does not grow"
    law.rejected(0.0, None, now + 4)
    succeed(law, 10, now=now + 4, rtt_s=5.0, in_use=20)
    assert law.limit == pytest.approx(level * 0.9)


def test_mimd_grows_by_1_percent_a_round_and_cuts_an_eighth_once_a_round() -> None:
    law = ScalableMimd(256)
    succeed(law, 36)
    assert law.limit == 40, "slow start: one for each success"
    law.rejected(9.0, None, 10.0)
    assert law.limit == 35
    law.rejected(9.9, None, 10.05)
    assert law.limit == 35, "sent before the cut: the same loss event"
    succeed(law, 35)
    assert law.limit == pytest.approx(35.35)
    law.rejected(10.1, None, 11.0)
    assert law.limit == pytest.approx(35.35 * 0.875)
    small = ScalableMimd(256, start=8)
    small.rejected(1.0, None, 2.0)
    succeed(small, 7)
    assert small.limit == pytest.approx(8.0, abs=0.1), "below 16 slots: one a round trip"


def test_the_client_library_waits_as_openai_documents_it() -> None:
    rng = Random(1)
    for refusals, most in ((1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (9, 8.0)):
        waits = [backoff_s(refusals, None, rng) for _ in range(200)]
        assert 0.75 * most <= min(waits) < 0.8 * most
        assert 0.95 * most < max(waits) <= most
    assert backoff_s(1, 7.0, rng) == 7.0
    assert backoff_s(1, 61.0, rng) <= 0.5


def test_a_refused_request_keeps_its_slot_for_two_retries_and_then_comes_back() -> None:
    demand = Demand(1)
    peer = Peer(Fixed(1), demand, seed=1)
    (ticket,) = peer.sends(0.0)
    now = 0.0
    for pause in (0.5, 1.0):
        peer.rejected(ticket, now)
        assert list(peer.sends(now)) == [], "the slot is taken while it sleeps"
        due = peer.next_at(now)
        assert 0.75 * pause <= due - now <= pause
        now = due
        (again,) = peer.sends(now)
        assert again.job is ticket.job
        ticket = again
    peer.rejected(ticket, now)
    (fresh,) = peer.sends(now)
    assert fresh.job is ticket.job
    assert fresh.held == 0
    hinted = Ticket(0, fresh.job, now, 0, refused=True, feedback=Feedback(retry_after_s=3.0))
    peer.rejected(hinted, now)
    assert peer.next_at(now) == now + 3.0


@pytest.mark.parametrize("law", [Fixed(4), PlainAimd(4), SlowStartAimd(4), Gradient(4), ScalableMimd(4)])
def test_no_law_has_more_in_flight_than_its_limit(law: Law) -> None:
    demand = Demand(1)
    simulation = Simulation(Rule(slots=((0.0, 3),)), [Peer(law, demand, seed=1)], seconds=120.0, trace_s=0.25)
    simulation.run()
    (record,) = simulation.records
    assert record.answered > 20
    assert max(look.in_flight for look in record.trace) <= 4
