"""Traps and single decisions of the salvage machine, one call at a time."""

from __future__ import annotations

from itertools import permutations
from math import inf
from typing import TYPE_CHECKING

import pytest

from headgate.salvage.classify import Failure
from headgate.salvage.decisions import Block, Decision, Fail, Hold, LaneGivenUp, LaneParked, Park, Reopened
from headgate.salvage.policy import SalvagePolicy
from tests.unit.salvage_bench import LANE, POLICY_CAP_S, K, fail, machine, release_all, trip, work

if TYPE_CHECKING:
    from headgate.salvage.kinds import FailureKind


def test_t12_slot_held_while_sleeping() -> None:
    """Elsewhere the retry slept with the slot, and N sleeping rows starved N good ones. (V2)

    A held task is an entry in a timetable: it is not among what the engine has, and one timer serves them
    all.
    """
    salvage = machine(SalvagePolicy(base_s=30.0))
    for i in range(1000):
        assert isinstance(fail(salvage, f"t{i}", K.RATE_LIMITED, 0.0, cooldown_until=20.0), Hold)
    statistics = salvage.statistics()
    assert (statistics.held, statistics.released) == (1000, 0)
    assert release_all(salvage, 19.9) == []
    work(salvage, 19.9, 50)
    assert salvage.next_tick(19.9) == 20.0
    assert release_all(salvage, 20.0) != []


def test_t35_global_barrier() -> None:
    """Elsewhere salvage waited for every open group. Here each task comes at its own time, beside fresh work."""
    salvage = machine()
    early = fail(salvage, "early", K.RATE_LIMITED, 0.0, cooldown_until=5.0)
    late = fail(salvage, "late", K.RATE_LIMITED, 0.0, cooldown_until=500.0)
    assert isinstance(early, Hold)
    assert isinstance(late, Hold)
    salvage.sent(LANE, 5.0, fresh=True)
    assert salvage.due(early.until, fresh_work={LANE}) == ["early"]
    assert salvage.statistics().held == 1


def test_t36_renamed_not_extended() -> None:
    """Elsewhere only rate limits looked at the cooldown: admission timeouts came back after 50 ms."""
    for kind in (K.RATE_LIMITED, K.ADMISSION_TIMEOUT, K.OVERLOADED):
        salvage = machine()
        decision = fail(salvage, "t", kind, 100.0, cooldown_until=160.0)
        assert decision == Hold(160.0, kind)
        assert release_all(salvage, 159.9) == []
        assert release_all(salvage, 160.0) == ["t"]


def test_a_cooldown_without_an_end_is_no_time_to_wait_for() -> None:
    """A pause: admission knows when it ends, salvage would never hear of it."""
    salvage = machine()
    decision = fail(salvage, "t", K.PROVIDER_ERROR, 100.0, cooldown_until=inf)
    assert isinstance(decision, Hold)
    assert 100.0 <= decision.until < 110.0
    salvage.check()
    assert release_all(salvage, decision.until) == ["t"]


def test_the_longer_of_backoff_and_cooldown_counts() -> None:
    salvage = machine(SalvagePolicy(base_s=50.0, cap_s=50.0))
    waits = [fail(salvage, f"t{i}", K.ADMISSION_TIMEOUT, 0.0, cooldown_until=10.0) for i in range(200)]
    untils = [decision.until for decision in waits if isinstance(decision, Hold)]
    assert min(untils) == 10.0
    assert 45.0 < max(untils) <= 50.0
    assert sum(until == 10.0 for until in untils) == pytest.approx(40, abs=20), "a fifth drew less than the cooldown"


def test_t37_last_error_decides() -> None:
    """Elsewhere timeout, timeout, 429 was kept and 429, 429, timeout dropped."""
    seen: set[tuple[str, int, int]] = set()
    for order in set(permutations([K.PROVIDER_TIMEOUT, K.PROVIDER_TIMEOUT, K.RATE_LIMITED, K.RATE_LIMITED])):
        salvage = machine(SalvagePolicy(max_attempts=3))
        now = 0.0
        work(salvage, now)
        for kind in order:
            decision = fail(salvage, "t", kind, now)
            assert isinstance(decision, Hold), order
            now = decision.until + 1.0
            assert release_all(salvage, now) == ["t"]
            work(salvage, now)
        final = fail(salvage, "t", K.PROVIDER_TIMEOUT, now)
        assert isinstance(final, Fail)
        seen.add((final.kind, final.attempts, final.status or 0))
    assert seen == {("poisoned", 5, 500)}


def test_v1_pressure_never_uses_an_attempt() -> None:
    salvage = machine(SalvagePolicy(max_attempts=1, patience_s=inf))
    now = 0.0
    for kind in [K.RATE_LIMITED, K.OVERLOADED, K.ADMISSION_TIMEOUT] * 100:
        work(salvage, now)
        decision = fail(salvage, "t", kind, now)
        assert isinstance(decision, Hold)
        now = decision.until
        assert release_all(salvage, now) == ["t"]
    fail(salvage, "t", K.RATE_LIMITED, now)
    item = salvage.item("t")
    assert item is not None
    assert item.attempts == 0


@pytest.mark.parametrize("attempts", [1, 3, 5])
def test_exactly_so_many_attempts_amid_successes(attempts: int) -> None:
    """V3: on a lane that works, the n-th provider fault of a task is its last."""
    salvage = machine(SalvagePolicy(max_attempts=attempts))
    now, count = 0.0, 0
    while True:
        work(salvage, now, 5)
        count += 1
        decision = fail(salvage, "t", K.PROVIDER_ERROR, now)
        if isinstance(decision, Fail):
            break
        assert isinstance(decision, Hold)
        now = decision.until + 0.1
        assert release_all(salvage, now) == ["t"]
    assert count == attempts
    assert decision == Fail(K.POISONED, f"provider_error at {now:g}", attempts, 500, K.PROVIDER_ERROR)
    assert salvage.statistics().failures == {K.POISONED: 1}


def test_useless_answers_have_a_bound_of_their_own() -> None:
    salvage = machine()
    decisions: list[Decision] = []
    now = 0.0
    for kind in (K.INVALID_OUTPUT, K.PROVIDER_ERROR, K.INVALID_OUTPUT, K.RATE_LIMITED, K.INVALID_OUTPUT):
        decisions.append(fail(salvage, "t", kind, now))
        now += 100.0
        release_all(salvage, now)
    assert all(isinstance(decision, Hold) for decision in decisions[:4])
    assert isinstance(decisions[4], Fail)
    assert (decisions[4].kind, decisions[4].attempts) == (K.INVALID_OUTPUT, 5)


@pytest.mark.parametrize("kind", [K.REJECTED, K.ADMISSION_DENIED, K.BUG])
def test_some_failures_are_final_at_once(kind: FailureKind) -> None:
    salvage = machine()
    decision = fail(salvage, "t", kind, 0.0)
    assert isinstance(decision, Fail)
    assert (decision.kind, decision.attempts) == (kind, 1)
    assert salvage.next_tick(0.0) == inf


def test_an_outage_opens_the_breaker_and_is_probed_ever_more_rarely() -> None:
    salvage = machine()
    work(salvage, 0.0, 10)
    block = trip(salvage, 1.0)
    assert block.lane == LANE
    assert 0.75 <= block.until - 1.0 <= 1.25
    pauses: list[float] = []
    now = block.until
    for _ in range(9):
        assert release_all(salvage, now - 1e-6) == []
        now = max(now, salvage.next_tick(now))
        (probe,) = release_all(salvage, now)
        assert release_all(salvage, now + 500) == [], "one probe at a time"
        salvage.sent(LANE, now, fresh=False, task=probe)
        decision = fail(salvage, probe, K.PROVIDER_ERROR, now)
        assert isinstance(decision, Hold)
        (again,) = salvage.drain_effects()
        assert isinstance(again, Block)
        pauses.append(again.until - now)
        now = again.until
    assert pauses[0] < 2.6
    assert pauses[3] > 2 * pauses[0]
    assert max(pauses) <= 75
    assert salvage.statistics().outages == (LANE,)
    now = max(now, salvage.next_tick(now))
    (probe,) = release_all(salvage, now)
    salvage.sent(LANE, now, fresh=False, task=probe)
    salvage.succeeded(probe, LANE, now + 1, sent_at=now)
    assert salvage.drain_effects() == [Reopened(LANE)]
    assert len(release_all(salvage, now + 100)) == 7


def test_eight_failures_of_one_task_are_no_outage() -> None:
    salvage = machine()
    now = 0.0
    for _ in range(30):
        decision = fail(salvage, "t", K.PROVIDER_ERROR, now)
        assert isinstance(decision, Hold)
        now = decision.until
        assert release_all(salvage, now) == ["t"]
    assert salvage.drain_effects() == []


def test_a_late_success_of_a_request_sent_before_does_not_end_an_outage() -> None:
    salvage = machine()
    work(salvage, 0.0, 10)
    block = trip(salvage, 5.0)
    salvage.succeeded("slow", LANE, 5.5, sent_at=1.0)
    salvage.succeeded("slower", LANE, block.until + 1, sent_at=2.0)
    assert salvage.drain_effects() == []
    salvage.succeeded("fresh", LANE, block.until + 2, sent_at=block.until)
    assert salvage.drain_effects() == [Reopened(LANE)]


def test_an_outage_is_overturned_by_its_contemporaries() -> None:
    """Eight quick failures, then as many successes of requests sent at the same moment: it never was one."""
    salvage = machine()
    for i in range(8):
        salvage.failed(f"t{i}", LANE, Failure(K.PROVIDER_ERROR), 0.05, sent_at=0.0)
    assert [type(effect) for effect in salvage.drain_effects()] == [Block]
    for i in range(8):
        salvage.succeeded(f"good {i}", LANE, 0.5, sent_at=0.0)
    assert salvage.drain_effects() == [Reopened(LANE)]


def test_the_probe_is_left_to_fresh_work_for_a_moment() -> None:
    """Held tasks may all be poison; what never failed cannot be."""
    salvage = machine()
    block = trip(salvage, 0.0)
    soon = block.until + 0.9
    assert salvage.due(soon, fresh_work={LANE}) == []
    salvage.sent(LANE, soon, fresh=True, task="new")
    assert salvage.due(soon + 100, fresh_work={LANE}) == [], "the fresh one is the probe"
    salvage.dropped("new", soon + 100)
    assert len(salvage.due(soon + 100, fresh_work={LANE})) == 1, "a cancelled probe is replaced"


def test_a_probe_that_nobody_named_cannot_stall_the_lane() -> None:
    salvage = machine()
    block = trip(salvage, 0.0)
    now = block.until + 100
    salvage.sent(LANE, now, fresh=True)
    assert release_all(salvage, now) == []
    fail(salvage, "new", K.BUG, now)
    assert len(release_all(salvage, now)) == 1


def test_unauthorized_parks_the_lane_and_says_so_once() -> None:
    salvage = machine()
    assert fail(salvage, "a", K.UNAUTHORIZED, 0.0) == Park(LANE, K.UNAUTHORIZED)
    assert fail(salvage, "b", K.QUOTA_EXHAUSTED, 1.0) == Park(LANE, K.QUOTA_EXHAUSTED)
    fail(salvage, "c", K.RATE_LIMITED, 1.0)
    assert salvage.drain_effects() == [LaneParked(LANE, K.UNAUTHORIZED, "unauthorized at 0")]
    assert release_all(salvage, 3000.0) == []
    salvage.unpark(LANE, 3000.0)
    assert len(release_all(salvage, 3000.0)) == 1, "one tries the new key first"


def test_patience_ends_and_a_lane_in_trouble_is_given_up() -> None:
    salvage = machine(SalvagePolicy(patience_s=100.0))
    fail(salvage, "a", K.UNAUTHORIZED, 0.0)
    fail(salvage, "b", K.UNAUTHORIZED, 50.0)
    salvage.drain_effects()
    assert salvage.next_tick(50.0) == 100.0
    assert salvage.expired(99.9) == []
    (item,) = salvage.expired(100.0)
    assert (item.task, item.lane, item.reason) == ("a", LANE, K.UNAUTHORIZED)
    assert salvage.drain_effects() == [LaneGivenUp(LANE)]
    assert [item.task for item in salvage.expired(150.0)] == ["b"]
    assert salvage.next_tick(150.0) == inf


def test_patience_counts_from_the_first_hold_of_the_cycle() -> None:
    salvage = machine(SalvagePolicy(patience_s=100.0))
    fail(salvage, "t", K.RATE_LIMITED, 0.0)
    assert release_all(salvage, 90.0) == ["t"]
    assert salvage.expired(101.0) == [], "it is being tried"
    fail(salvage, "t", K.RATE_LIMITED, 101.0, cooldown_until=130.0)
    assert [item.task for item in salvage.expired(101.0)] == ["t"]


def test_a_task_that_only_waits_for_its_turn_gets_it() -> None:
    """Patience is with a provider, not with our own pacing."""
    salvage = machine(SalvagePolicy(patience_s=100.0))
    for i in range(5):
        fail(salvage, f"t{i}", K.RATE_LIMITED, 0.0)
    salvage.sent(LANE, 50.0, fresh=True)
    assert len(salvage.due(50.0, fresh_work={LANE})) == 3
    assert salvage.expired(100.0) == []
    assert len(salvage.due(115.0, fresh_work={LANE})) == 2


def test_a_task_out_of_tries_waits_for_the_next_cycle() -> None:
    """V1 and V3 together: no number of faults without a witness fails a row, and none is tried for ever."""
    salvage = machine(SalvagePolicy(max_tries=10, patience_s=inf))
    now = 0.0
    for step in range(10):
        decision = fail(salvage, "t", K.PROVIDER_ERROR, now)
        assert isinstance(decision, Hold)
        assert (decision.until == inf) == (step == 9)
        if step < 9:
            now = decision.until
            assert release_all(salvage, now) == ["t"]
    (item,) = salvage.expired(now)
    assert item.not_before < inf
    again = machine()
    again.restore(item.task, item.lane, item.history, item.not_before, 0.0)
    assert release_all(again, item.not_before + POLICY_CAP_S) == ["t"]
