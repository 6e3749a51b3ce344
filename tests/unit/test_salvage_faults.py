"""What the salvage machine charges to a task, what it excuses, and what releases and restarts may not change."""

from __future__ import annotations

import random
from math import inf

from headgate.salvage.classify import Failure
from headgate.salvage.decisions import Block, Fail, Hold
from headgate.salvage.policy import SalvagePolicy
from headgate.salvage.salvage import Salvage
from tests.unit.salvage_bench import LANE, POLICY_CAP_S, K, fail, machine, release_all, trip, work


def test_v4_not_before_is_honoured_across_a_restart() -> None:
    before = machine()
    fail(before, "t", K.RATE_LIMITED, 0.0, cooldown_until=300.0)
    work(before, 0.0)
    fail(before, "u", K.PROVIDER_ERROR, 1.0)
    after = machine()
    for item in before.held_items():
        after.restore(item.task, item.lane, item.history, 5000.0 + item.not_before, 5000.0)
    after.check()
    assert release_all(after, 5299.9) == ["u"]
    assert release_all(after, 5300.0) == []
    assert release_all(after, 5301.0) == ["t"], "after one more backoff, of one failure"


def test_what_a_task_did_in_an_earlier_cycle_still_counts() -> None:
    salvage = machine()
    now = 0.0
    for _ in range(4):
        work(salvage, now, 5)
        decision = fail(salvage, "t", K.PROVIDER_ERROR, now)
        assert isinstance(decision, Hold)
        now = decision.until + 0.1
        release_all(salvage, now)
    work(salvage, now)
    fail(salvage, "t", K.RATE_LIMITED, now)
    item = salvage.item("t")
    assert item is not None
    assert item.attempts == 4
    after = machine()
    after.restore("t", LANE, item.history, 0.0, 0.0)
    assert release_all(after, POLICY_CAP_S) == ["t"]
    work(after, POLICY_CAP_S, 5)
    assert isinstance(fail(after, "t", K.PROVIDER_ERROR, 1.0), Fail)


def test_one_lane_never_delays_another() -> None:
    salvage = machine()
    trip(salvage, 0.0)
    salvage.failed("b", "anthropic/claude-x", Failure(K.PROVIDER_ERROR), 0.0)
    assert "b" in release_all(salvage, 0.7) + release_all(salvage, 1.01)


def test_held_releases_take_at_most_a_fifth_while_fresh_work_exists() -> None:
    salvage = machine()
    for i in range(500):
        fail(salvage, f"t{i}", K.RATE_LIMITED, 0.0)
    released, sends = 0, 0
    for tenth in range(20, 620):
        now = tenth / 10
        salvage.sent(LANE, now, fresh=True)
        sends += 1
        for task in salvage.due(now, fresh_work={LANE}):
            released += 1
            sends += 1
            salvage.sent(LANE, now, fresh=False, task=task)
    assert 0.15 * sends <= released <= 0.2 * sends
    left = 256 + 60 - released
    assert len(salvage.due(62.0, fresh_work=set())) == left, "no fresh work: the budget alone bounds them"


def test_unknown_and_repeated_drops_change_nothing() -> None:
    salvage = machine()
    salvage.dropped("never seen", 0.0)
    fail(salvage, "t", K.RATE_LIMITED, 0.0)
    salvage.dropped("t", 1.0)
    salvage.dropped("t", 1.0)
    salvage.check()
    assert salvage.statistics().held == 0
    assert salvage.next_tick(1.0) == inf


def test_the_cost_of_an_event_does_not_depend_on_how_many_are_held() -> None:
    """Counted, not timed: one held task of 20,000 is released without looking at the others."""
    looked_at = 0

    class Key(str):
        __slots__ = ()

        def __hash__(self) -> int:
            nonlocal looked_at
            looked_at += 1
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            return str.__eq__(self, str(other))

    salvage: Salvage[Key] = Salvage(rng=random.Random(5))
    for i in range(20_000):
        salvage.failed(Key(i), LANE, Failure(K.RATE_LIMITED), 0.0, cooldown_until=1000.0 + i)
    looked_at = 0
    assert salvage.due(1000.0, fresh_work=False) == ["0"]
    salvage.succeeded(Key("0"), LANE, 1001.0)
    salvage.failed(Key("new"), LANE, Failure(K.PROVIDER_ERROR), 1001.0)
    assert looked_at < 60


def charged(salvage: Salvage[str], task: str, now: float, sent_at: float) -> int:
    """Let the task fail once more and return what is charged to it."""
    failure = Failure(K.PROVIDER_ERROR)
    decision = salvage.failed(task, LANE, failure, now, sent_at=sent_at)
    assert isinstance(decision, Hold)
    item = salvage.item(task)
    assert item is not None
    return item.attempts


def test_a_fault_is_charged_only_if_one_sent_no_earlier_went_well() -> None:
    for sent_at, attempts in ((5.0, 0), (10.0, 1), (12.0, 1)):
        salvage = machine()
        salvage.succeeded("early", LANE, 2.0, sent_at=1.0)
        assert charged(salvage, "t", 10.05, 10.0) == 0
        salvage.succeeded("other", LANE, 13.0, sent_at=sent_at)
        assert release_all(salvage, 100.0) == ["t"]
        assert charged(salvage, "t", 100.0, 100.0) == attempts


def test_the_faults_of_an_outage_are_excused() -> None:
    salvage = machine()
    work(salvage, 0.0, 20)
    block = trip(salvage, 1.0)
    salvage.succeeded("fresh", LANE, block.until + 2, sent_at=block.until)
    released = release_all(salvage, 100.0)
    work(salvage, 100.0, 20)
    assert [charged(salvage, task, 101.0, 100.5) for task in released[:3]] == [0, 0, 0]
    assert salvage.statistics().excused == 3


def test_tasks_with_a_record_are_no_outage() -> None:
    """Twelve rows that each failed while others succeeded are left over: that they fail again says nothing
    new.
    """
    salvage = machine()
    tasks = [f"bad {i}" for i in range(12)]
    now = 0.0
    for task in tasks:
        assert charged(salvage, task, now, now) == 0
        now += 1.0
        work(salvage, now, 3)
    now += 100.0
    assert sorted(release_all(salvage, now)) == sorted(tasks)
    assert [charged(salvage, task, now, now) for task in tasks] == [1] * 12
    assert salvage.drain_effects() == []


def test_a_success_sent_before_does_not_interrupt_a_row_of_faults() -> None:
    salvage = machine()
    for i in range(8):
        assert salvage.drain_effects() == []
        salvage.failed(f"t{i}", LANE, Failure(K.PROVIDER_ERROR), 10.0 + i, sent_at=10.0 + i)
        salvage.succeeded(f"slow {i}", LANE, 10.5 + i, sent_at=5.0)
    assert len(salvage.drain_effects()) == 1


def test_the_last_attempt_waits_when_others_begin_to_fail() -> None:
    """Four faults are charged, and the fifth comes while two others fail as well: perhaps an outage begins."""
    salvage = machine()
    now = 0.0
    for count in range(4):
        assert charged(salvage, "t", now, now) == count
        now += 100.0
        work(salvage, now, 20)
        assert release_all(salvage, now) == ["t"]
    assert isinstance(fail(salvage, "u", K.PROVIDER_ERROR, now), Hold)
    assert isinstance(fail(salvage, "v", K.PROVIDER_ERROR, now), Hold)
    assert charged(salvage, "t", now, now) == 4
    work(salvage, now + 1, 20)
    assert "t" in release_all(salvage, now + 100)
    assert isinstance(fail(salvage, "t", K.PROVIDER_ERROR, now + 100), Fail)


def test_what_failed_in_an_overturned_outage_was_the_tasks_own() -> None:
    salvage = machine()
    for i in range(8):
        salvage.failed(f"t{i}", LANE, Failure(K.PROVIDER_ERROR), 0.05, sent_at=0.0)
    (probe,) = release_all(salvage, 2.0)
    assert charged(salvage, probe, 2.1, 2.0) == 0, "nobody can tell yet"
    for i in range(20):
        salvage.succeeded(f"good {i}", LANE, 2.5, sent_at=0.0)
    assert probe in release_all(salvage, 100.0)
    assert charged(salvage, probe, 100.0, 100.0) == 1
    assert salvage.statistics().excused == 0


def test_a_probe_that_meets_pressure_proves_neither() -> None:
    salvage = machine()
    block = trip(salvage, 0.0)
    now = block.until + 5
    (probe,) = release_all(salvage, now)
    assert isinstance(fail(salvage, probe, K.OVERLOADED, now), Hold)
    (again,) = salvage.drain_effects()
    assert isinstance(again, Block)
    assert 0.75 <= again.until - now <= 1.25, "the same pause once more"


def test_a_retry_that_works_or_never_went_out_costs_no_budget() -> None:
    salvage = machine(SalvagePolicy(retry_burst=1.0, retry_reserve_per_s=1e-6, retry_ratio=0.0))
    for i in range(4):
        fail(salvage, f"t{i}", K.RATE_LIMITED, 0.0)
    (first,) = release_all(salvage, 10.0)
    salvage.succeeded(first, LANE, 10.0)
    (second,) = release_all(salvage, 10.0)
    fail(salvage, second, K.ADMISSION_TIMEOUT, 10.0, cooldown_until=1000.0)
    (third,) = release_all(salvage, 10.0)
    salvage.dropped(third, 10.0)
    (fourth,) = release_all(salvage, 10.0)
    fail(salvage, fourth, K.RATE_LIMITED, 10.0)
    assert release_all(salvage, 2000.0) == [], "this one was wasted"
