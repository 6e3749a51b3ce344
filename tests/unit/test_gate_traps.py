"""Traps of admission that the gate as a whole must avoid; those of single laws are tested beside the laws."""

from __future__ import annotations

import random
import time
from math import inf

import pytest

from headgate.admission.fair_queue import FairQueue
from headgate.admission.gate import Gate
from headgate.admission.inference import Inference, Judgement, Rejection, Suspect
from headgate.admission.lane import Lane, Waiter
from headgate.admission.scope import Scope
from headgate.admission.scope_limits import ScopeLimits
from headgate.admission.values import Denied, DenyReason, Expire, Grant, Lease, ReleaseResult, Request
from headgate.values import Feedback, LimitKind, Outcome, ResourceKey, Usage

MODEL = ResourceKey.parse("openai/gpt-x")
OTHER = ResourceKey.parse("openai/other")
ELSEWHERE = ResourceKey.parse("anthropic/claude-x")


def gate_with(**limits: ScopeLimits) -> Gate:
    gate = Gate(rng=random.Random(1))
    named = {name.replace("__", "/").replace("_", "-"): one for name, one in limits.items()}
    for resource in (MODEL, OTHER, ELSEWHERE):
        gate.register(resource, named, 0.0)
    return gate


def held(answer: Lease | Denied | int) -> Lease:
    assert isinstance(answer, Lease)
    return answer


def grants(gate: Gate) -> list[Lease]:
    return [effect.lease for effect in gate.take_effects() if isinstance(effect, Grant)]


def test_t01_shrinking_cooldown() -> None:
    """Elsewhere a second 429 of the same burst with a shorter Retry-After made a 60 s block one of 1 s."""
    gate = gate_with(openai__gpt_x=ScopeLimits(maximum=4))
    burst = [held(gate.submit(Request(MODEL), 0.0)) for _ in range(2)]
    gate.release(burst[0], Outcome.RATE_LIMITED, 1.0, feedback=Feedback(retry_after_s=60.0))
    gate.release(burst[1], Outcome.RATE_LIMITED, 1.1, feedback=Feedback(retry_after_s=1.0))
    assert gate.blocked_until(MODEL) >= 61.0
    answer = gate.try_acquire(Request(MODEL), 30.0)
    assert isinstance(answer, Denied)
    assert answer.reason is DenyReason.COOLDOWN
    assert answer.retry_after_s is not None
    assert 31.0 <= answer.retry_after_s <= 32.0


def test_t02_cut_storm() -> None:
    """Elsewhere eight 429s of one burst cut the limit eight times."""
    gate = gate_with(openai__gpt_x=ScopeLimits(adaptive=True, start=20, maximum=64))
    burst = [held(gate.submit(Request(MODEL), 0.0)) for _ in range(20)]
    concurrency = Feedback(kind=LimitKind.CONCURRENCY)
    gate.release(burst[-1], Outcome.RATE_LIMITED, 0.1, feedback=concurrency)
    once = gate.capacity(MODEL)
    for lease in burst[-8:-1]:
        gate.release(lease, Outcome.RATE_LIMITED, 0.1, feedback=concurrency)
    assert gate.capacity(MODEL) == once


def test_t04_growth_without_use() -> None:
    """Elsewhere any success raised the limit, even with a single request in flight."""
    gate = gate_with(openai__gpt_x=ScopeLimits(adaptive=True, start=8, maximum=64))
    now = 0.0
    for _ in range(500):
        lease = held(gate.submit(Request(MODEL), now))
        now += 0.5
        gate.release(lease, Outcome.SUCCESS, now)
    assert gate.capacity(MODEL) == 8


def test_t05_polling_waiters() -> None:
    """Elsewhere every waiter woke each 50 ms. Here the gate has nothing to do until a slot or a deadline comes."""
    gate = gate_with(openai__gpt_x=ScopeLimits(maximum=1))
    held(gate.submit(Request(MODEL), 0.0))
    for _ in range(1000):
        gate.submit(Request(MODEL), 0.0, timeout_s=30.0)
    assert gate.next_tick(0.0) == 30.0
    gate.tick(29.9)
    assert not gate.take_effects()


def test_t06_history_cost() -> None:
    """Elsewhere a heap kept every request ever made: 230 ms an acquire after 100,000. Here nothing grows."""
    gate = gate_with(openai__gpt_x=ScopeLimits(maximum=8))

    sizes: list[int] = []
    for cycle in range(4_000):
        now = cycle * 0.01
        leases = [held(gate.submit(Request(MODEL, flow=str(cycle % 64)), now)) for _ in range(8)]
        waiter = gate.submit(Request(MODEL, flow="w"), now, timeout_s=5.0)
        assert isinstance(waiter, int)
        for lease in leases:
            gate.release(lease, Outcome.SUCCESS, now + 0.005)
        for lease in grants(gate):
            gate.release(lease, Outcome.SUCCESS, now + 0.006)
        if cycle % 1_000 == 999:
            sizes.append(gate.footprint())
    assert max(sizes) <= 4096 + 500
    assert sizes[-1] <= sizes[0] + 100, "grows with history"


@pytest.mark.parametrize("company", [0, 1, 3])
def test_t06_flows_that_come_but_once(company: int) -> None:
    """The debts of flows that never come again are forgotten, also where virtual time stands still because of them."""
    queue = FairQueue[int]()
    for flow in range(company):
        queue.add(flow)
    for flow in range(company, 3_000):
        queue.add(flow)
        served = queue.head()
        assert served is not None
        queue.remove(served, 1.0)
        queue.check()
        assert queue.footprint() < 200, "grows with history"


def test_t07_hang_on_a_large_request() -> None:
    """Elsewhere an estimate above the bucket waited for ever. Here it waits for a full bucket, or is too large."""
    gate = gate_with(openai__gpt_x=ScopeLimits(tokens_per_minute=6000))
    held(gate.submit(Request(MODEL, input_tokens=100), 0.0))
    waiter = gate.submit(Request(MODEL, input_tokens=5000), 0.0, timeout_s=inf)
    assert isinstance(waiter, int)
    gate.tick(gate.next_tick(0.0))
    assert len(grants(gate)) == 1
    answer = gate.submit(Request(MODEL, input_tokens=6001), 10.0, timeout_s=inf)
    assert isinstance(answer, Denied)
    assert answer.reason is DenyReason.TOO_LARGE


def test_t08_smallest_first() -> None:
    """Elsewhere a waiter for many tokens was overtaken by small ones for ever."""
    gate = gate_with(openai__gpt_x=ScopeLimits(tokens_per_minute=6000))
    held(gate.submit(Request(MODEL, input_tokens=1000), 0.0))
    large = gate.submit(Request(MODEL, input_tokens=3000), 0.0, timeout_s=inf)
    assert isinstance(large, int)
    small = gate.try_acquire(Request(MODEL, input_tokens=1), 9.9)
    assert isinstance(small, Denied)
    assert small.reason is DenyReason.WAITERS_AHEAD
    assert isinstance(gate.submit(Request(MODEL, input_tokens=1), 9.9, timeout_s=inf), int)
    gate.tick(gate.next_tick(9.9))
    (first, *_) = gate.take_effects()
    assert isinstance(first, Grant)
    assert first.waiter == large


def test_t09_lost_tokens() -> None:
    """Elsewhere a failed attempt kept its whole token reservation."""
    gate = gate_with(openai__gpt_x=ScopeLimits(tokens_per_minute=6000))
    for _ in range(50):
        lease = held(gate.submit(Request(MODEL, input_tokens=1500), 0.0))
        gate.release(lease, Outcome.CONNECTION_ERROR, 0.0)
    lease = held(gate.submit(Request(MODEL, input_tokens=1500), 0.0))
    gate.release(lease, Outcome.SUCCESS, 0.0, usage=Usage(100, 20))
    assert isinstance(gate.try_acquire(Request(MODEL, input_tokens=1500), 1.3), Lease), "120 tokens take 1.2 s"


def test_t11_denial_dressed_as_timeout() -> None:
    """Elsewhere an unregistered model surfaced as a timeout, and was retried."""
    answer = gate_with().submit(Request(ResourceKey.parse("nobody/nothing")), 0.0, timeout_s=5.0)
    assert isinstance(answer, Denied)
    assert answer.reason is DenyReason.UNKNOWN_RESOURCE
    assert answer.reason.final


def test_t17_expired_yet_served() -> None:
    """Elsewhere a deadline passed while the loop was busy, and the waiter still got a lease."""
    gate = gate_with(openai__gpt_x=ScopeLimits(maximum=1))
    lease = held(gate.submit(Request(MODEL), 0.0))
    late = gate.submit(Request(MODEL), 0.0, timeout_s=1.0)
    gate.release(lease, Outcome.SUCCESS, 5.0)  # nobody ticked in the meantime
    (effect,) = gate.take_effects()
    assert isinstance(effect, Expire)
    assert effect.waiter == late
    assert gate.leases() == 0


def test_t21_all_at_once() -> None:
    """Elsewhere the whole limit reopened in one tick after a cooldown, and earned the next burst."""
    gate = gate_with(openai__gpt_x=ScopeLimits(maximum=64))
    leases = [held(gate.submit(Request(MODEL), 0.0)) for _ in range(64)]
    for lease in leases:
        hint = Feedback(retry_after_s=10.0, kind=LimitKind.CONCURRENCY)
        gate.release(lease, Outcome.RATE_LIMITED, 0.1, feedback=hint)
    for _ in range(64):
        gate.submit(Request(MODEL), 0.2, timeout_s=inf)
    reopening = gate.next_tick(0.2)
    assert reopening >= 10.1
    gate.tick(reopening)
    assert len(grants(gate)) == 1
    now = reopening
    open_after: list[float] = []
    while gate.leases() < 64:
        now = gate.next_tick(now)
        gate.tick(now)
        gate.take_effects()
        open_after.append(now - reopening)
    assert 1.0 <= open_after[-1] <= 3.0


def test_t26_blocked_by_a_neighbour_in_admission() -> None:
    """One resource in cooldown for ever is in nobody's way, waiters and all."""
    gate = gate_with(openai__gpt_x=ScopeLimits(maximum=4), openai=ScopeLimits(maximum=8))
    gate.block("openai/gpt-x", inf, 0.0)
    for _ in range(100):
        gate.submit(Request(MODEL), 0.0, timeout_s=inf)
    for step in range(200):
        lease = held(gate.submit(Request(OTHER), float(step)))
        gate.release(lease, Outcome.SUCCESS, step + 0.5)
    assert not gate.take_effects()


def test_a_queue_deadline_counts_open_time_only() -> None:
    """A cooldown of a minute does not turn waiters with a timeout of two seconds into failures."""
    gate = gate_with(openai__gpt_x=ScopeLimits(maximum=1))
    lease = held(gate.submit(Request(MODEL), 0.0))
    gate.submit(Request(MODEL), 0.0, timeout_s=2.0)
    gate.block("openai/gpt-x", 61.0, 1.0)
    gate.tick(60.0)
    assert not gate.take_effects()
    gate.tick(61.9)
    assert not gate.take_effects()
    gate.tick(62.0)
    assert isinstance(gate.take_effects()[0], Expire)
    assert gate.release(lease, Outcome.SUCCESS, 63.0) is ReleaseResult.RELEASED


def test_a_deadline_is_not_waited_for_when_its_rest_is_lost_in_rounding() -> None:
    """Else the timer of a lane is due at once, for ever, and the gate never comes back from its tick."""
    rng = random.Random(0)
    scope = Scope(str(MODEL), ScopeLimits(maximum=1), rng=rng, leaf=True)
    for _ in range(2_000):
        lane = Lane(str(MODEL), (scope,), rng.uniform(0.0, 1000.0))
        now = rng.uniform(1000.0, 2000.0)
        waiter = Waiter()
        waiter.id, waiter.request, waiter.lane, waiter.since = 1, Request(MODEL), lane, now
        waiter.expires, waiter.bid, waiter.queued = lane.open_time(now) + rng.choice([0.1, 5.0, 30.0]), False, True
        lane.push(waiter)
        due = lane.next_deadline(now)
        assert lane.overdue(due) is not None or lane.next_deadline(due) > due


def test_requests_of_running_tasks_go_before_bids() -> None:
    """A scheduler's standing bid has a lower priority than a request that a running task makes."""
    gate = gate_with(openai__gpt_x=ScopeLimits(maximum=1))
    lease = held(gate.submit(Request(MODEL), 0.0))
    bid = gate.submit(Request(MODEL, priority=0), 0.0, bid=True)
    inner = gate.submit(Request(MODEL, priority=1), 1.0, timeout_s=5.0)
    gate.release(lease, Outcome.SUCCESS, 2.0)
    (first,) = gate.take_effects()
    assert isinstance(first, Grant)
    assert first.waiter == inner
    gate.release(first.lease, Outcome.SUCCESS, 3.0)
    (second,) = gate.take_effects()
    assert isinstance(second, Grant)
    assert second.waiter == bid


def test_a_due_probe_goes_out_with_the_arrival_that_needs_it() -> None:
    """A10: the limit may be raised the moment somebody waits for it, and then that somebody goes at once."""
    gate = gate_with(openai__gpt_x=ScopeLimits(adaptive=True, start=2, maximum=6))
    rejected = held(gate.submit(Request(MODEL), 0.0))
    gate.release(rejected, Outcome.RATE_LIMITED, 0.1, feedback=Feedback(kind=LimitKind.CONCURRENCY))
    assert gate.capacity(MODEL) == 1
    held(gate.submit(Request(MODEL), 100.0))
    waiter = gate.submit(Request(MODEL), 100.0)  # a probe has been due for a while
    gate.check_conserving(100.0)
    (grant,) = gate.take_effects()
    assert grant.waiter == waiter


def test_a_small_request_passes_a_scope_that_refused_another_lane() -> None:
    """A10: whose turn it is at a shared scope is asked for, also when a larger request of another model waits there."""
    gate = gate_with(openai=ScopeLimits(tokens_per_minute=6000))
    held(gate.submit(Request(MODEL, input_tokens=100), 0.0))
    for _ in range(2):  # the first is served in a second, and its lane has had its turn
        gate.submit(Request(MODEL, input_tokens=50), 0.0)
    gate.tick(gate.next_tick(0.0))
    assert len(grants(gate)) == 1
    now = gate.next_tick(0.0) - 1e-3
    small = gate.submit(Request(OTHER, input_tokens=0), now)
    gate.check_conserving(now)
    assert [effect.waiter for effect in gate.take_effects()] == [small]


def test_release_of_a_foreign_or_ancient_lease_changes_nothing() -> None:
    """Every way to give back a lease that is not out has its own answer, and none raises (A2)."""
    gate = gate_with(openai__gpt_x=ScopeLimits(maximum=10_000))
    ancient = held(gate.submit(Request(MODEL), 0.0))
    gate.release(ancient, Outcome.SUCCESS, 0.0)
    assert gate.release(ancient, Outcome.SUCCESS, 0.0) is ReleaseResult.DUPLICATE
    for _ in range(5000):
        gate.release(held(gate.submit(Request(MODEL), 0.0)), Outcome.SUCCESS, 0.0)
    assert gate.release(ancient, Outcome.SUCCESS, 0.0) is ReleaseResult.STALE
    foreign = Gate(rng=random.Random(1), generation=2)
    foreign.register(MODEL, {}, 0.0)
    lease = held(foreign.submit(Request(MODEL), 0.0))
    assert gate.release(lease, Outcome.SUCCESS, 0.0) is ReleaseResult.WRONG_GENERATION
    lease.generation, lease.id = 1, 10**9
    assert gate.release(lease, Outcome.SUCCESS, 0.0) is ReleaseResult.UNKNOWN
    assert gate.leases() == 0


@pytest.mark.parametrize("outcome", [Outcome.LOCAL_TIMEOUT, Outcome.CANCELLED, Outcome.PROVIDER_ERROR])
def test_only_capacity_rejections_move_the_limit(outcome: Outcome) -> None:
    """Local timeouts, cancellations and 5xx never lower a concurrency limit (section 9)."""
    gate = gate_with(openai__gpt_x=ScopeLimits(adaptive=True, start=16, maximum=16))
    for step in range(50):
        gate.release(held(gate.submit(Request(MODEL), float(step))), outcome, step + 0.5)
    assert gate.capacity(MODEL) == 16


def test_nothing_in_the_gate_reads_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """T14: elsewhere time.time() in the bucket made it untestable and jump with NTP."""

    def forbidden() -> float:
        raise AssertionError("the gate read a clock")

    for name in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, forbidden)
    gate = gate_with(openai__gpt_x=ScopeLimits(requests_per_minute=60, adaptive=True))
    lease = held(gate.submit(Request(MODEL), 5.0))
    gate.release(lease, Outcome.RATE_LIMITED, 6.0)


def test_a5_a_scope_without_limits_reopens_with_one_canary_too() -> None:
    """Nothing limits the account, so nothing but its cooldown may say how many go out after a block."""
    gate = gate_with(openai__gpt_x=ScopeLimits(maximum=8))
    gate.block("openai", inf, 1.0)
    for _ in range(4):
        assert isinstance(gate.submit(Request(MODEL), 2.0), int)
    gate.unblock("openai", 3.0)
    (canary,) = grants(gate)
    assert isinstance(gate.try_acquire(Request(MODEL), 3.0), Denied)
    gate.release(canary, Outcome.SUCCESS, 3.5)
    assert grants(gate)


def test_a_rate_that_is_given_up_is_forgotten_by_its_law() -> None:
    """A trial that failed must not go on pacing requests."""
    gate = gate_with(openai__gpt_x=ScopeLimits(adaptive=True))
    scope = gate.scopes()["openai/gpt-x"]
    lease = held(gate.submit(Request(MODEL), 1.0))
    gate.release(lease, Outcome.RATE_LIMITED, 1.1, feedback=Feedback(kind=LimitKind.REQUESTS))
    limiter = scope.limiter(LimitKind.REQUESTS)
    lease = held(gate.submit(Request(MODEL), 100.0))
    gate.release(lease, Outcome.RATE_LIMITED, 100.1, feedback=Feedback(kind=LimitKind.REQUESTS))
    assert limiter.rate_per_minute < inf
    dropped = Judgement(LimitKind.CONCURRENCY, dropped=LimitKind.REQUESTS)
    scope.inference = SureInference(dropped)
    lease = held(gate.submit(Request(MODEL), 300.0))
    gate.release(lease, Outcome.RATE_LIMITED, 300.1)
    assert limiter.rate_per_minute == inf


class SureInference(Inference):
    """Always of the same opinion."""

    def __init__(self, judgement: Judgement) -> None:
        super().__init__()
        self._judgement = judgement

    def judge(self, rejection: Rejection, suspects: list[Suspect], now: float) -> Judgement:
        return self._judgement
