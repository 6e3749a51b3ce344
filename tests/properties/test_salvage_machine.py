"""The salvage machine against a naive model, under any order of events: nothing is lost, early, or beyond its
bounds.

Whole runs are in test_salvage_simulation.py; here the engine behaves as badly as its contract allows.
"""

from __future__ import annotations

import random
from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.salvage.classify import Failure
from headgate.salvage.decisions import Block, Fail, HeldItem, Hold, LaneGivenUp, LaneParked, Park, Reopened
from headgate.salvage.kinds import TABLE, Action, FailureKind
from headgate.salvage.policy import SalvagePolicy
from headgate.salvage.salvage import Salvage

POLICY = SalvagePolicy(
    outage_min=3, patience_s=200.0, max_tries=12, retry_burst=4.0, retry_reserve_per_s=0.05, probe_cap_s=8.0
)
LANES: tuple[str, ...] = ("a/x", "b/y", "local:c")
PRESSURE = {FailureKind.RATE_LIMITED, FailureKind.OVERLOADED, FailureKind.ADMISSION_TIMEOUT}

lanes = st.sampled_from(LANES)
kinds = st.sampled_from([kind for kind in FailureKind if kind is not FailureKind.POISONED])


class SalvageMachine(RuleBasedStateMachine):
    """``engine_has`` are the tasks that are not held: fresh ones and released ones, with the lane of each."""

    def __init__(self) -> None:
        super().__init__()
        self.salvage: Salvage[int] = Salvage(POLICY, rng=random.Random(7))
        self.now = 1000.0
        self.serial = 0
        self.engine_has: dict[int, str] = {}
        self.held: dict[int, HeldItem[int]] = {}
        self.kinds_of: dict[int, set[FailureKind]] = {}
        self.parked: set[str] = set()
        self.blocked: dict[str, float] = {}
        self.sends: dict[str, list[float]] = {lane: [] for lane in LANES}
        self.releases: dict[str, list[float]] = {lane: [] for lane in LANES}
        self.wasted = dict.fromkeys(LANES, 0)
        self.successes = dict.fromkeys(LANES, 0)
        self.retrying: dict[int, str] = {}
        self.since = self.now
        self.troubled: set[str] = set()

    # The engine's side

    @rule(lane=lanes, named=st.booleans())
    def start(self, lane: str, named: bool) -> None:
        self.serial += 1
        self.engine_has[self.serial] = lane
        self.salvage.sent(lane, self.now, fresh=True, task=self.serial if named else None)
        self.sends[lane].append(self.now)

    @precondition(lambda self: bool(self.engine_has))
    @rule(
        data=st.data(),
        kind=kinds,
        cooldown_s=st.sampled_from([0.0, 0.0, 3.0, 90.0]),
        ago_s=st.none() | st.floats(0, 20),
        elsewhere=st.none() | lanes,
    )
    def fail(
        self,
        data: st.DataObject,
        kind: FailureKind,
        cooldown_s: float,
        ago_s: float | None,
        elsewhere: str | None,
    ) -> None:
        task, lane = self._pick(data)
        self._answered(task, wasted=TABLE[kind].reached)
        lane = elsewhere or lane
        self.kinds_of.setdefault(task, set()).add(kind)
        decision = self.salvage.failed(
            task,
            lane,
            Failure(kind, "text", 500),
            self.now,
            cooldown_until=self.now + cooldown_s,
            sent_at=None if ago_s is None else self.now - ago_s,
        )
        action = TABLE[kind].action
        match decision:
            case Fail():
                assert not self.kinds_of[task] <= PRESSURE, "V1: pressure alone"
                assert action not in (Action.HOLD, Action.PARK)
                assert self.salvage.item(task) is None
                return
            case Hold():
                assert action in (Action.HOLD, Action.RETRY, Action.RETRY_OUTPUT)
                assert decision.until >= self.now + cooldown_s
            case Park():
                assert action is Action.PARK
                self.parked.add(lane)
        item = self.salvage.item(task)
        assert item is not None
        assert item.lane == lane
        self.held[task] = item

    @precondition(lambda self: bool(self.engine_has))
    @rule(data=st.data(), ago_s=st.none() | st.floats(0, 20))
    def succeed(self, data: st.DataObject, ago_s: float | None) -> None:
        task, lane = self._pick(data)
        self._answered(task, wasted=False)
        self.successes[lane] += 1
        self.salvage.succeeded(task, lane, self.now, sent_at=None if ago_s is None else self.now - ago_s)

    @precondition(lambda self: bool(self.engine_has))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        task, _ = self._pick(data)
        self._answered(task, wasted=False)
        self.salvage.dropped(task, self.now)
        self.salvage.dropped(task, self.now)

    @precondition(lambda self: bool(self.held))
    @rule(data=st.data())
    def drop_held(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[task]
        self.salvage.dropped(task, self.now)

    @rule(step_s=st.sampled_from([0.0, 0.01, 0.4, 1.0, 3.0, 30.0, 61.0, 250.0]))
    def wait(self, step_s: float) -> None:
        self.now += step_s

    @rule()
    def wait_for_tick(self) -> None:
        tick = self.salvage.next_tick(self.now)
        if self.now < tick < inf:
            self.now = tick

    @rule(fresh=st.frozensets(lanes) | st.just(frozenset(LANES)))
    def release(self, fresh: frozenset[str]) -> None:
        for task in self.salvage.due(self.now, fresh_work=fresh):
            item = self.held.pop(task)
            assert self.now >= item.not_before, "before its time"
            assert item.lane not in self.parked, "from a parked lane"
            self._pace(item.lane, item.lane in fresh)
            self.engine_has[task] = item.lane
            self.retrying[task] = item.lane
            self.sends[item.lane].append(self.now)
            self.salvage.sent(item.lane, self.now, fresh=False, task=task)
        for item in self.salvage.expired(self.now):
            del self.held[item.task]
        assert self.salvage.next_tick(self.now) > self.now, "a tick that changes nothing"

    @rule()
    def expire(self) -> None:
        for item in self.salvage.expired(self.now):
            held = self.held.pop(item.task)
            assert held.lane == item.lane

    @rule(lane=lanes)
    def unpark(self, lane: str) -> None:
        self.salvage.unpark(lane, self.now)
        self.parked.discard(lane)

    @rule(lane=lanes, wait_s=st.floats(0, 100))
    def restart(self, lane: str, wait_s: float) -> None:
        """V4: what was held comes back held, and no earlier; also what another process persisted."""
        fresh: Salvage[int] = Salvage(POLICY, rng=random.Random(8))
        for item in list(self.salvage.held_items()):
            fresh.restore(item.task, item.lane, item.history, item.not_before, self.now)
            again = fresh.item(item.task)
            assert again is not None
            assert (again.not_before, again.attempts) == (item.not_before, item.attempts)
            assert dict(again.history) == dict(item.history)
            self.held[item.task] = again
        self.serial += 1
        fresh.restore(self.serial, lane, {}, self.now + wait_s, self.now)
        added = fresh.item(self.serial)
        assert added is not None
        self.held[self.serial] = added
        self.salvage = fresh
        self.engine_has.clear()
        self.retrying.clear()
        self.parked.clear()
        self.kinds_of = {task: {FailureKind.BUG} for task in self.held}
        self.releases = {name: [] for name in LANES}
        self.sends = {name: [] for name in LANES}
        self.wasted, self.successes = dict.fromkeys(LANES, 0), dict.fromkeys(LANES, 0)
        self.since = self.now

    @rule()
    def look_at_effects(self) -> None:
        for effect in self.salvage.drain_effects():
            match effect:
                case Block():
                    assert effect.until <= self.now + POLICY.probe_cap_s * 1.25
                case LaneParked():
                    assert effect.lane in self.parked
                case Reopened() | LaneGivenUp():
                    assert effect.lane in LANES

    def _pick(self, data: st.DataObject) -> tuple[int, str]:
        task = data.draw(st.sampled_from(sorted(self.engine_has)))
        return task, self.engine_has.pop(task)

    # What must hold

    def _answered(self, task: int, *, wasted: bool) -> None:
        lane = self.retrying.pop(task, None)
        if lane is not None:
            self.wasted[lane] += wasted

    def _pace(self, lane: str, fresh: bool) -> None:
        """Held releases are at most a fifth of sends in any 60 s while fresh work exists, at least three
        (exactly).
        """
        self.releases[lane].append(self.now)
        if not fresh:
            return
        window = self.now - 60
        released = sum(t > window for t in self.releases[lane])
        sent = sum(t > window for t in self.sends[lane])
        assert released <= max(3, 0.2 * sent) or lane in self.salvage.statistics().outages

    @invariant()
    def one_place_each(self) -> None:
        self.salvage.check()
        statistics = self.salvage.statistics()
        assert statistics.held == len(self.held)
        assert statistics.released <= len(self.engine_has)
        assert {item.task for item in self.salvage.held_items()} == set(self.held)
        assert set(statistics.parked) == self.parked

    @invariant()
    def retries_on_their_way_fit_the_budget(self) -> None:
        """V3: wasted retries and those without an answer yet, against burst, successes and the reserve."""
        self.troubled |= set(self.salvage.statistics().outages)
        for lane in LANES:
            out = sum(name == lane for name in self.retrying.values())
            earned = POLICY.retry_burst + POLICY.retry_ratio * self.successes[lane]
            reserve = POLICY.retry_reserve_per_s * (self.now - self.since)
            probes = self.salvage.statistics().releases if lane in self.troubled else 0
            assert self.wasted[lane] + out <= earned + reserve + probes + 1

    def teardown(self) -> None:
        """V5: let time pass, and everything that is held is released or given up."""
        for lane in LANES:
            self.salvage.unpark(lane, self.now)
        for _ in range(2000):
            released = self.salvage.due(self.now, fresh_work=False)
            for task in released:
                self.salvage.succeeded(task, self.held.pop(task).lane, self.now)
            for item in self.salvage.expired(self.now):
                del self.held[item.task]
            self.salvage.check()
            tick = self.salvage.next_tick(self.now)
            if tick == inf:
                break
            assert tick > self.now or released, "a tick that changes nothing"
            self.now = max(self.now, tick)
        assert not self.held


TestSalvageMachine = SalvageMachine.TestCase
