"""The loop that brings failed tasks back, as a machine: what a failure means, and when to try again.

It decides for each failed attempt whether the task is held, parked or failed (see :mod:`.kinds` for the
table), says when held tasks may go, and opens and closes a breaker for each lane. It does not admit requests,
persist, or wait: the engine performs its decisions and effects. A lane is a resource by name; a local column
uses one of its own.

Theory of operation. A task is known here from its first failure until it succeeds, fails, expires or is
dropped, and meanwhile it is either *held* (it has a place in its lane's timetable and nothing else: no slot,
no lease, no worker) or *released* (the engine has it). There is no barrier and no retry round.

A provider fault is not judged when it happens but when its task is next looked at, because only what happened
to the others in between tells whose fault it was. It is *charged* to the task if a request that was sent no
earlier was then answered well, on a lane that answers most; it is *excused* if it was part of an outage (see
:mod:`.breaker`). So an outage charges nobody, from its first moment on. ``max_attempts`` make a task poison.
One case soon has no witness: a few tasks are all that is left on a lane, and they fail for ever. Those that
were charged before are poison after ``lone_span_s``; the others stay held until patience ends, because
nothing tells them from victims of an outage.

Prior art: Finagle's retry budgets, the circuit breaker, Temporal's split of decisions from their execution.
Unlike all of these it judges a task by what happened to the others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar, assert_never

from .backoff import full_jitter_s
from .custody import Custody
from .decisions import Decision, Effect, Fail, HeldItem, Hold, Park, SalvageStatistics
from .effects import PendingEffects
from .entry import Attempt, Entry
from .history import History
from .kinds import TABLE, Action, FailureKind
from .lanes import Lanes
from .poison import is_alone_and_failing, is_used_up
from .policy import SalvagePolicy

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from ..values import Rng
    from .classify import Failure
    from .lane import Lane

    K = TypeVar("K", bound=Hashable)
else:
    K = TypeVar("K")

__all__ = ["Salvage"]


class Salvage(Generic[K]):
    """Salvage for tasks named by any hashable key. All times are machine seconds and never go backwards."""

    def __init__(self, policy: SalvagePolicy | None = None, *, rng: Rng) -> None:
        self._policy = policy or SalvagePolicy()
        self._rng = rng
        self._lanes: Lanes[K] = Lanes(self._policy, rng)
        self._custody: Custody[K] = Custody(self._lanes, patience_s=self._policy.patience_s)
        self.known = self._custody.known
        """The tasks that failed and are not finished. To be read only: while there are none, nothing is to be done."""
        self._effects = PendingEffects()
        self._holds: Counter[FailureKind] = Counter()
        self._failures: Counter[FailureKind] = Counter()
        self._counts: Counter[str] = Counter()
        self._excused = 0

    # What happened to a task

    def failed(
        self,
        task: K,
        lane: str,
        failure: Failure,
        now: float,
        *,
        cooldown_until: float = -inf,
        sent_at: float | None = None,
    ) -> Decision:
        """Judge one failed attempt.

        ``cooldown_until``: when the lane's cooldown in admission ends, inf if that is not known; ``sent_at``: when the
        request went out.
        """
        attempt = Attempt(failure, TABLE[failure.kind], now, cooldown_until, sent_at)
        place = self._lanes.at(lane, now)
        entry = self.known.get(task) or self._custody.begin(task, lane)
        assert not entry.held, f"{task!r} failed while it was held"
        self._settle_token(entry, now, refund=not attempt.rule.reached)
        entry.lane = lane
        self._learn(place, task, entry.history, attempt)
        entry.history.record(failure, now)
        decision = self._decide(task, entry, attempt)
        self._lanes.touch(place, now)
        return decision

    def succeeded(self, task: K, lane: str, now: float, sent_at: float | None = None) -> int:
        """The task is done. Return how often it had failed. ``sent_at``: when its request was let out, where known."""
        place = self._lanes.known.get(lane) or self._lanes.at(lane, now)
        place.budget.deposit(now)
        if place.breaker.worked(task, now, sent_at):
            self._effects.reopened(place.name)
        tries = 0
        if self.known and (entry := self.known.get(task)) is not None:
            assert not entry.held, f"{task!r} succeeded while it was held"
            tries = entry.history.tries
            self._settle_token(entry, now, refund=True)
            self._custody.forget(task)
            self._counts["recovered"] += 1
        if self.known and self._custody.held:  # the agenda is about held tasks only: while there are none, it is empty
            self._lanes.touch(place, now)
        return tries

    def dropped(self, task: K, now: float) -> None:
        """Nobody wants the task any more, whether it is held, released or unknown here."""
        entry = self.known.get(task)
        if entry is not None:
            self._settle_token(entry, now, refund=True)
            self._custody.forget(task)
            self._lanes.touch(self._lanes[entry.lane], now)
        for place in self._lanes:
            if place.breaker.probing:  # a first try may be the probe, and its lane is not known here
                place.breaker.probe_lost(task)
                self._lanes.touch(place, now)

    def sent(self, lane: str, now: float, fresh: bool, task: K | None = None) -> None:
        """One request was let out. ``fresh``: its task never failed. Naming the task makes probing exact."""
        place = self._lanes.known.get(lane) or self._lanes.at(lane, now)
        place.pace.sent(now, fresh)
        if place.breaker.is_open:
            place.breaker.probe_sent(task, now)
        if self.known and self._custody.held:
            self._lanes.touch(place, now)

    # When to try again

    def due(self, now: float, *, fresh_work: bool | AbstractSet[str], limit: int = 1000) -> list[K]:
        """Let go of the held tasks whose time has come, the longest due first, at most ``limit`` at once.

        ``fresh_work``: the lanes on which tasks wait that never failed. True says "some lane, unknown which",
        and then every lane on which one was sent within the last minute keeps to the pace.
        """
        self._lanes.expect_fresh(fresh_work, now)
        released: list[K] = []
        while len(released) < limit and (place := self._lanes.ready(now)) is not None:
            released.append(self._custody.release(place, now))
            self._counts["releases"] += 1
            self._lanes.touch(place, now)
        return released

    def expired(self, now: float, *, limit: int = 1000) -> list[HeldItem[K]]:
        """Give up and forget the tasks that were held longer than patience, or are out of tries. At most ``limit`` are
        looked at, so that there may be more.
        """
        gone: list[HeldItem[K]] = []
        for task in self._custody.overdue(now, limit):
            entry = self.known[task]
            gone.append(self._item(task, entry))
            if not self._lanes[entry.lane].well:
                self._effects.given_up(entry.lane)
            self._custody.forget(task)
            self._lanes.touch(self._lanes[entry.lane], now)
            self._counts["expired"] += 1
        return gone

    def next_tick(self, now: float) -> float:
        """When time alone changes anything again; inf for never, and not after ``now`` if it already has."""
        if not self.known:
            return inf
        return min(self._lanes.next_tick(), self._custody.next_expiry())

    # Lanes

    def unpark(self, lane: str, now: float) -> None:
        """Somebody repaired the lane: one of its tasks may try, and the others follow if that works."""
        place = self._lanes.at(lane, now)
        if place.parked is None:
            return
        place.parked = None
        self._effects.unparked(lane)
        place.breaker.ask_probe(now)
        self._lanes.touch(place, now)

    def drain_effects(self) -> list[Effect]:
        """Return what the engine has to do to lanes since the last call, the latest per lane and kind."""
        return self._effects.drain()

    # Persistence

    def held_items(self) -> Iterator[HeldItem[K]]:
        """Return all held tasks, for the journal."""
        return (self._item(task, entry) for task, entry in self.known.items() if entry.held)

    def item(self, task: K) -> HeldItem[K] | None:
        """Return one held task, for the commit that holds it; None if it is not held."""
        return self._item(task, entry) if (entry := self.known.get(task)) is not None and entry.held else None

    def restore(self, task: K, lane: str, history: Mapping[str, object], not_before: float, now: float) -> None:
        """Hold a task of an earlier cycle again, with what :class:`HeldItem` said. Patience starts anew.

        It is let go one more backoff after ``not_before``, or after ``now`` if it is overdue, as most are then: they
        would come back in one moment. What is on record is ``not_before`` still, so that restarts do not add up.
        """
        assert task not in self.known, f"{task!r} is already known"
        place = self._lanes.at(lane, now)
        entry = self._custody.begin(task, lane)
        entry.history = History.from_dict(history)
        self._custody.place(task, entry, not_before, now)
        place.held.set(task, max(not_before, now) + self._backoff_s(max(1, entry.history.tries)))
        self._lanes.touch(place, now)

    # Views

    @property
    def held(self) -> int:
        """How many tasks are held."""
        return self._custody.held

    @property
    def waiting(self) -> int:
        """How many held tasks will be let go without anybody's help: those whose lane is not parked."""
        return self._custody.held - self._lanes.parked_tasks()

    def waiting_tasks(self) -> Iterator[K]:
        """Those that ``waiting`` counts."""
        return (task for lane in self._lanes if lane.parked is None for task in lane.held)

    def held_on(self, lane: str) -> int:
        """How many tasks are held on ``lane``."""
        place = self._lanes.known.get(lane)
        return 0 if place is None else len(place.held)

    def statistics(self) -> SalvageStatistics:
        """Return counters and what is held now."""
        return SalvageStatistics(
            held=self._custody.held,
            released=len(self.known) - self._custody.held,
            outages=tuple(place.name for place in self._lanes if place.breaker.is_open),
            parked=tuple(place.name for place in self._lanes if place.parked is not None),
            holds=MappingProxyType(dict(self._holds)),
            failures=MappingProxyType(dict(self._failures)),
            releases=self._counts["releases"],
            recovered=self._counts["recovered"],
            excused=self._excused,
            expired=self._counts["expired"],
            outages_begun=sum(place.breaker.trips for place in self._lanes),
        )

    def check(self) -> None:
        """Assert the invariants."""
        self._lanes.check()
        self._custody.check()

    # Judging

    def _learn(self, place: Lane[K], task: K, history: History, attempt: Attempt) -> None:
        """Take the failure as evidence about the lane, and the lane as evidence about the task's last one."""
        breaker, rule, now = place.breaker, attempt.rule, attempt.now
        blocked_until = None
        if rule.breaker:
            self._excused += history.settle() is False
            results = breaker.results
            blocked_until = breaker.fault(
                task,
                now,
                sent_at=attempt.began_at,
                last_fault_at=history.last_fault_at,
                has_record=history.attempts > 0,
            )
            if breaker.results > results:
                history.weighed(breaker)
        elif rule.pressure and rule.reached:
            blocked_until = breaker.pressed(task, now)
        if blocked_until is not None:
            self._effects.block(place.name, blocked_until)
        if rule.answered and breaker.worked(task, now, attempt.sent_at):
            self._effects.reopened(place.name)
        breaker.probe_lost(task)

    def _decide(self, task: K, entry: Entry, attempt: Attempt) -> Decision:
        action = attempt.rule.action
        match action:
            case Action.HOLD:
                return self._hold(task, entry, attempt)
            case Action.RETRY:
                return self._retry(task, entry, attempt)
            case Action.RETRY_OUTPUT:
                entry.history.output_attempts += attempt.rule.consumes_attempt
                if entry.history.output_attempts >= self._policy.max_output_attempts:
                    return self._fail(task, entry, attempt.failure.kind)
                return self._hold(task, entry, attempt)
            case Action.FAIL:
                return self._fail(task, entry, attempt.failure.kind)
            case Action.PARK:
                return self._park(task, entry, attempt)
            case _:
                assert_never(action)

    def _retry(self, task: K, entry: Entry, attempt: Attempt) -> Decision:
        history, breaker, policy = entry.history, self._lanes[entry.lane].breaker, self._policy
        history.fault(attempt.now)
        if attempt.rule.consumes_attempt:
            if is_used_up(history, breaker, policy) or is_alone_and_failing(history, breaker, policy, attempt.now):
                return self._fail(task, entry, FailureKind.POISONED)
            history.suspect(breaker, attempt.began_at)
        if history.faults < policy.max_tries:
            return self._hold(task, entry, attempt)
        self._custody.out_of_tries(task, entry, attempt.now)
        return replace(self._hold(task, entry, attempt), until=inf)

    def _fail(self, task: K, entry: Entry, kind: FailureKind) -> Fail:
        history = entry.history
        self._custody.forget(task)
        self._failures[kind] += 1
        return Fail(kind, history.last_message, history.tries, history.last_status, history.last_kind or kind)

    def _park(self, task: K, entry: Entry, attempt: Attempt) -> Park:
        place, failure = self._lanes[entry.lane], attempt.failure
        if place.parked is None:
            place.parked = failure.kind
            self._effects.parked(place.name, failure.kind, failure.message)
        self._holds[failure.kind] += 1
        self._custody.place(task, entry, attempt.now, attempt.now)
        return Park(place.name, failure.kind)

    def _hold(self, task: K, entry: Entry, attempt: Attempt) -> Hold:
        kind, now = attempt.failure.kind, attempt.now
        backoff_s = self._backoff_s(entry.history.tries)
        self._holds[kind] += 1
        cooldown = attempt.cooldown_until if attempt.cooldown_until < inf else -inf  # a pause: admission knows its end
        self._custody.place(task, entry, max(now + backoff_s, cooldown), now)
        breaker = self._lanes[entry.lane].breaker
        return Hold(max(entry.not_before, breaker.opens_at) if breaker.is_open else entry.not_before, kind)

    def _backoff_s(self, tries: int) -> float:
        return full_jitter_s(tries, base_s=self._policy.base_s, cap_s=self._policy.cap_s, rng=self._rng)

    def _settle_token(self, entry: Entry, now: float, *, refund: bool) -> None:
        if entry.token and refund:
            self._lanes[entry.lane].budget.refund(now)
        entry.token = False

    def _item(self, task: K, entry: Entry) -> HeldItem[K]:
        history = entry.history
        self._excused += history.settle() is False
        reason = history.last_kind or FailureKind.PROVIDER_ERROR
        return HeldItem(task, entry.lane, reason, entry.not_before, history.attempts, history.to_dict())
