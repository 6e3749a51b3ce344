"""The gate against the promises A1 to A4, A7, A9 and A10, under every order of events that hypothesis finds."""

from __future__ import annotations

import random
from math import inf

import hypothesis.strategies as st
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.admission.gate import Gate
from headgate.admission.scope_limits import ScopeLimits
from headgate.admission.values import Denied, DenyReason, Expire, Grant, Lease, Refuse, ReleaseResult, Request
from headgate.values import Feedback, LimitKind, Outcome, ResourceKey, Usage

RESOURCES = [
    ResourceKey.parse(name) for name in ("one/a", "one/b", "one/b:embedding", "two/a", "free/any", "tokens/big")
]
LIMITS = {
    "one": ScopeLimits(maximum=4),
    "one/a": ScopeLimits(maximum=3),
    "one/b": ScopeLimits(maximum=8, adaptive=True, start=2),
    "one/b:embedding": ScopeLimits(requests_per_minute=120),
    "two/a": ScopeLimits(adaptive=True, start=3, maximum=6),
    "tokens/big": ScopeLimits(tokens_per_minute=6000, maximum=5),
}
ROUNDING = 1e-9  # seconds
BAD = [Outcome.PROVIDER_ERROR, Outcome.CONNECTION_ERROR, Outcome.CANCELLED, Outcome.LOCAL_TIMEOUT, Outcome.REJECTED]


class GateMachine(RuleBasedStateMachine):
    """Random requests, releases, withdrawals, rejections and retunings against a plain book of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.gate = Gate(rng=random.Random(7))
        for resource in RESOURCES:
            self.gate.register(resource, LIMITS, self.now)
        self.held: dict[int, Lease] = {}
        self.waiting: dict[int, tuple[Request, float]] = {}
        self.gone: list[Lease] = []
        self.closed = False

    # What the shell would do with effects

    def perform(self) -> None:
        for effect in self.gate.take_effects():
            request, left_s = self.waiting.pop(effect.waiter)
            match effect:
                case Grant(lease=lease):
                    assert (lease.request.stated or lease.request) is request
                    assert left_s > -ROUNDING, "A3: a waiter past its deadline got a lease"
                    self.held[lease.id] = lease
                case Expire(waited_s=waited_s):
                    assert waited_s >= 0.0
                    assert left_s < ROUNDING, "a waiter expired before its deadline"
                case Refuse(denied=denied):
                    assert denied.reason.final

    def request(self, resource: ResourceKey, tokens: int, flow: str, priority: int) -> Request:
        return Request(resource, input_tokens=tokens, flow=flow, priority=priority)

    @rule(
        resource=st.sampled_from(RESOURCES),
        tokens=st.integers(0, 3000),
        flow=st.sampled_from("xyz"),
        priority=st.integers(0, 1),
        timeout=st.sampled_from([0.0, 0.5, 5.0, inf]),
        bid=st.booleans(),
    )
    def submit(self, resource: ResourceKey, tokens: int, flow: str, priority: int, timeout: float, bid: bool) -> None:
        request = self.request(resource, tokens, flow, priority)
        answer = self.gate.submit(request, self.now, timeout_s=timeout, bid=bid)
        if isinstance(answer, Lease):
            self.held[answer.id] = answer
        elif isinstance(answer, int):
            assert bid or timeout > 0, "A3: timeout 0 must answer at once"
            self.waiting[answer] = (request, inf if bid else timeout)
        else:
            assert answer.reason.final or answer.reason is DenyReason.QUEUE_TIMEOUT
        self.perform()

    @rule(resource=st.sampled_from(RESOURCES), tokens=st.integers(0, 9000))
    def try_acquire(self, resource: ResourceKey, tokens: int) -> None:
        """A4: whoever only tries never overtakes a waiter of the same resource."""
        self.gate.tick(self.now)
        self.perform()
        ahead = any(request.resource == resource for request, _ in self.waiting.values())
        answer = self.gate.try_acquire(self.request(resource, tokens, "try", 9), self.now)
        if isinstance(answer, Lease):
            assert not ahead, "A4: try_acquire overtook a waiter"
            self.held[answer.id] = answer
        else:
            assert isinstance(answer, Denied)
        self.perform()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), outcome=st.sampled_from([Outcome.SUCCESS, *BAD]), usage=st.integers(0, 4000))
    def release(self, data: st.DataObject, outcome: Outcome, usage: int) -> None:
        lease = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        sent = outcome is not Outcome.CANCELLED
        done = self.gate.release(lease, outcome, self.now, usage=Usage(usage, 0), sent=sent)
        assert done is ReleaseResult.RELEASED
        self.gone.append(lease)
        self.perform()

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        retry_after=st.sampled_from([None, 0.0, 0.2, 3.0, 1e6]),
        kind=st.sampled_from([None, *LimitKind]),
        account=st.booleans(),
    )
    def reject(self, data: st.DataObject, retry_after: float | None, kind: LimitKind | None, account: bool) -> None:
        lease = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        before = {name: scope.cooldown.blocked_until for name, scope in self.gate.scopes().items()}
        feedback = Feedback(retry_after_s=retry_after, kind=kind, account_wide=account)
        self.gate.release(lease, Outcome.RATE_LIMITED, self.now, feedback=feedback)
        for name, scope in self.gate.scopes().items():
            assert scope.cooldown.blocked_until >= before[name], "A5: a cooldown got shorter"
        self.gone.append(lease)
        self.perform()

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        """A2: a second release changes nothing and never raises."""
        lease = data.draw(st.sampled_from(self.gone))
        leases = self.gate.leases()
        assert self.gate.release(lease, Outcome.SUCCESS, self.now) is ReleaseResult.DUPLICATE
        assert self.gate.leases() == leases
        assert not self.gate.take_effects()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.gate.withdraw(waiter, self.now)
        del self.waiting[waiter]
        assert not self.gate.withdraw(waiter, self.now)
        self.perform()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 2.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        """Time passes the way a shell lets it: from tick to tick, so nothing due is ever late."""
        end = self.now + seconds
        steps = 0
        while (at := self.gate.next_tick(self.now)) <= end:
            assert at >= self.now or steps == 0 or at >= self.now - 1e-9
            self.move(at)
            self.gate.tick(self.now)
            self.perform()
            steps += 1
            assert steps < 20_000, "the gate never comes to rest"
        self.move(end)

    def move(self, to: float) -> None:
        """A queue deadline counts only time in which the resource is open."""
        for waiter, (request, left_s) in self.waiting.items():
            open_s = to - max(self.now, self.gate.blocked_until(request.resource))
            self.waiting[waiter] = (request, left_s - max(0.0, open_s))
        self.now = max(self.now, to)

    @rule(maximum=st.integers(1, 6), scope=st.sampled_from(["one", "one/a"]))
    def retune(self, maximum: int, scope: str) -> None:
        self.gate.set_limits(scope, ScopeLimits(maximum=maximum), self.now)
        self.perform()

    @rule(scope=st.sampled_from(["one/a", "two", "one"]), seconds=st.sampled_from([0.5, 30.0, inf]))
    def block(self, scope: str, seconds: float) -> None:
        self.gate.block(scope, self.now + seconds, self.now)
        self.perform()

    @rule(scope=st.sampled_from(["one/a", "two", "one"]))
    def unblock(self, scope: str) -> None:
        self.gate.unblock(scope, self.now)
        self.perform()

    @invariant()
    def books_agree(self) -> None:
        """A1: the sum of the leases is what is in flight, in every scope; nothing leaks."""
        self.gate.check()
        assert self.gate.leases() == len(self.held)
        for name, scope in self.gate.scopes().items():
            under = [lease for lease in self.held.values() if name in lease.request.resource.scopes()]
            assert scope.in_flight == len(under)

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """A10: whoever stands first at a scope really has no room there or at another one."""
        self.gate.tick(self.now)
        self.perform()
        self.gate.check_conserving(self.now)

    def teardown(self) -> None:
        """A1: after everything is released every book is zero; the same after a shutdown."""
        self.gate.shutdown(self.now)
        self.perform()
        assert not self.waiting
        for lease in list(self.held.values()):
            assert self.gate.release(lease, Outcome.SUCCESS, self.now) is ReleaseResult.RELEASED
        assert self.gate.leases() == 0
        assert all(scope.in_flight == 0 for scope in self.gate.scopes().values())
        self.gate.check()


TestGate = GateMachine.TestCase


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), min_size=30, max_size=120), st.integers(1, 4))
def test_a4_flows_share_by_weight(arrivals: list[tuple[str, int]], cap: int) -> None:
    """A4: while two flows both wait, their service divided by weight differs by at most one request each."""
    resource = ResourceKey.parse("p/m")
    gate = Gate(rng=random.Random(0))
    gate.register(resource, {"p/m": ScopeLimits(maximum=cap)}, 0.0)
    weights = {"a": 1.0, "b": 2.0, "c": 4.0}
    running = [gate.submit(Request(resource, flow="first"), 0.0) for _ in range(cap)]
    waiting = dict.fromkeys(weights, 0)
    for flow, count in arrivals:
        for _ in range(count):
            gate.submit(Request(resource, flow=flow, weight=weights[flow]), 0.0, timeout_s=inf)
            waiting[flow] += 1
    served = dict.fromkeys(weights, 0.0)
    now = 0.0
    while all(waiting.values()):
        lease = running.pop(0)
        assert isinstance(lease, Lease)
        now += 1.0
        gate.release(lease, Outcome.SUCCESS, now)
        (grant,) = gate.take_effects()
        assert isinstance(grant, Grant)
        running.append(grant.lease)
        flow = grant.lease.request.flow
        waiting[flow] -= 1
        served[flow] += 1.0 / weights[flow]
        for one in weights:
            for other in weights:
                bound = 1.0 / weights[one] + 1.0 / weights[other]
                assert abs(served[one] - served[other]) <= bound + 1e-9


@given(st.integers(1, 5), st.integers(1, 50))
def test_a9_aliases_share_the_smaller_cap(cap: int, other: int) -> None:
    """A9: two names of one endpoint are one resource at the minimum of their caps."""
    one, two = ResourceKey.parse("p/m"), ResourceKey.parse("q/n")
    gate = Gate(rng=random.Random(0))
    gate.register(one, {"p/m": ScopeLimits(maximum=cap)}, 0.0)
    gate.alias(two, one, ScopeLimits(maximum=other), 0.0)
    taken = 0
    while isinstance(gate.try_acquire(Request((one, two)[taken % 2]), 0.0), Lease):
        taken += 1
    assert taken == min(cap, other)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=40), st.floats(600, 60_000))
def test_a7_reservations_never_exceed_the_bucket(costs: list[int], per_minute: float) -> None:
    """A7: within any span what went out is at most the rate over that span plus one burst."""
    resource = ResourceKey.parse("p/m")
    gate = Gate(rng=random.Random(0))
    gate.register(resource, {"p/m": ScopeLimits(tokens_per_minute=per_minute, maximum=1000)}, 0.0)
    now = 0.0
    sent: list[tuple[float, float]] = []
    for cost in costs:
        answer = gate.submit(Request(resource, input_tokens=cost), now, timeout_s=inf)
        while isinstance(answer, int):
            now = max(now, gate.next_tick(now))
            gate.tick(now)
            for effect in gate.take_effects():
                assert isinstance(effect, Grant)
                answer = effect.lease
        assert isinstance(answer, Lease)
        sent.append((now, float(cost)))
    rate = per_minute / 60.0
    for i, (start, _) in enumerate(sent):
        for end, last in sent[i:]:
            total = sum(c for at, c in sent[i:] if at <= end)
            assert total <= rate * (end - start) + 2 * max(0.25 * rate, max(c for _, c in sent)) + last + 1e-6
