"""One replica's part in deciding what becomes of a run: when it writes what, whom it asks, what it is told.

Theory of operation
-------------------
All replicas share one :class:`RunRecord`, in a register that is changed by compare-and-set. This machine has what it
saw last of it. From that and from what it knows itself it derives the record as it should be (:meth:`_wanted`); if
that differs, it is to be written, and if somebody else was quicker, the machine looks and derives it anew. Nothing is
queued: whatever was to be written is still to be written then, or is not any more.

A replica that sees a failure triggers at once, before it has asked the store anything: sources whose analysis is
elsewhere know the cycle by its id and analyse it once. The first to write its trigger leads, with the same write. Only
the leader reads the sources, and starts those whose analysis is in its own process, so each cycle has one analysis
(R2, T57). The others look at the record until the decision stands there.

There is no clock in it that two replicas share. A leader is taken for dead when its lease has not changed for
``lease_s`` by the clock of whoever watches; then anybody who watches may take the lead. If the old one lives after all,
its write is refused, because it is not about the present record.

Prior art: leader election on a compare-and-set register as in Kubernetes' leases (observed time, not written time);
fencing tokens (Kleppmann); the desired-state loop.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final

from ..values import writable
from .effects import Ask, CoreOptions, Effect, Look, SourceFacts, Start, Swap
from .inquiry import Inquiry, is_exhausted
from .record import Action, Basis, Decision, Heard, RunRecord, SourceAnswer, Trigger
from .values import TEXT_MOST, LateVerdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .values import Answer, Failure

__all__ = ["Ask", "CoordinatorCore", "CoreOptions", "Effect", "Look", "SourceFacts", "Start", "Swap"]

CALM: Final = 10
"""How many times rarer the record is looked at while nothing is to be decided."""


class CoordinatorCore:
    """The decisions of one replica. ``replica`` is a name that no other process has or had.

    ``lineage`` is what a record is created with if there is none; ``wall_s`` is the wall clock where ``now`` is 0.
    """

    def __init__(
        self,
        run: str,
        replica: str,
        sources: Sequence[SourceFacts],
        options: CoreOptions,
        *,
        lineage: str,
        wall_s: float = 0.0,
    ) -> None:
        self.replica = replica
        self._sources = tuple(sources)
        self._names = tuple(source.name for source in sources)
        self._elsewhere = tuple(source.name for source in sources if source.elsewhere)
        self._options = options
        self._wall_s = wall_s
        # What is known of the store: the record as it was seen last, and whether a call is under way.
        self.record = RunRecord(run, lineage)
        self._version = -1
        self._busy = False
        self._stale = True
        self._next_call_at = -inf
        self._look_at = -inf
        self._lease_since = -inf
        # What is known of this replica: the cycle in which it lives, and how that ended.
        self.cycle: int | None = None
        self._entering = self._reopening = self._looked = self._leaving = False
        self._failure: Failure | None = None
        self._failed_at = inf
        self._finishing = ""
        self._passed_at = inf
        self._default: Decision | None = None
        # What is known of the sources: about the open cycle, and what came too late for an earlier one.
        self._inquiry = Inquiry(0, sources, options)
        self._late: list[SourceAnswer] = []

    # What this replica is told by its user

    def enter(self, *, reopen: bool = False) -> None:
        """Begin a life: as soon as the open cycle is not about to be decided, this replica lives in it.

        A run that was closed stays so, see ``refusal``, unless it is told to ``reopen`` it.
        """
        self._entering, self._reopening, self._looked = True, reopen, False
        self.cycle = self._failure = self._default = None
        self._failed_at = inf
        self._look_at = -inf

    def failed(self, failure: Failure, now: float) -> None:
        """This life has ended badly. Telling it again changes nothing."""
        assert self.cycle is not None, "a replica enters before it fails"
        if self._failure is not None:
            return
        if self.record.cycle > self.cycle and now - self._passed_at > self._options.recovery_timeout_s:
            self.cycle = self.record.cycle  # it went on without a restart: this is another failure
        self._failure, self._failed_at = failure.bounded(), now
        self._look_at = -inf
        self._notice_failure(now)

    def finished(self, status: str) -> None:
        """The run has finished, whatever anybody thought of it (R5)."""
        self._finishing = status

    def leave(self) -> None:
        """This replica goes: if it leads, it lets others. Calls that were under way are forgotten."""
        self._leaving = self._stale = True
        self._busy = False

    # What this replica is told by the store

    def seen(self, version: int, record: RunRecord | None, now: float) -> None:
        """The store has this. None: nothing."""
        self._busy = False
        self._next_call_at = now
        self._learn(version, record or self.record, now)

    def swapped(self, swap: Swap, now: float, *, done: bool) -> None:
        """The record was written, or else somebody was quicker."""
        self._busy = False
        self._next_call_at = now
        if done:
            self._learn(swap.after + 1, swap.record, now)
        else:
            self._stale = True

    def store_failed(self, now: float) -> None:
        """The store did not do it, or nobody knows. What is done twice is refused by the version."""
        self._busy = False
        self._next_call_at = now + self._options.poll_s
        self._stale = True

    # What this replica is told by its sources

    def answered(self, source: str, cycle: int, answer: Answer, now: float) -> None:
        """``source`` has a verdict on ``cycle``."""
        said = SourceAnswer(source, Heard.IN_TIME, cycle, answer.verdict, answer.tasks, answer.reason, self._wall(now))
        if cycle == self._inquiry.cycle == self.record.cycle and self.record.is_open:
            self._inquiry.hear(said)
        elif self._is_late(said):
            self._late.append(replace(said, heard=Heard.LATE))

    def not_answered(self, source: str, cycle: int, heard: Heard, reason: str, now: float) -> None:
        """``source`` could not be reached, or its answer makes no sense: it will say nothing about ``cycle``."""
        if cycle == self._inquiry.cycle:
            self._inquiry.hear(
                SourceAnswer(source, heard, cycle, reason=writable(reason[:TEXT_MOST]), at=self._wall(now))
            )

    # What is to be done

    def step(self, now: float) -> list[Effect]:
        """What is to be done now. One call of the store is under way at a time."""
        if now >= self._failed_at + self._options.recovery_timeout_s and self.decision is None:
            self._default = self._by_default(now)
        effects = self._questions()
        if not self._busy and now >= self._next_call_at and (call := self._call(now)) is not None:
            self._busy = True
            effects.append(call)
        return effects

    def next_tick(self, now: float) -> float:
        """When ``step`` may have more, if nothing is told before."""
        default_at = inf if self.decision else self._failed_at + self._options.recovery_timeout_s
        if self._busy:
            return default_at
        times = [default_at, -inf if self._stale else self._look_at]
        if self._leaving:
            pass
        elif self.leads:
            times += [self._inquiry.beat_at, self._inquiry.deadline]
        elif self._is_failing:
            times.append(self._lease_since + self._options.lease_s)
        return max(min(times), self._next_call_at, now)

    # What is to be known

    @property
    def is_known(self) -> bool:
        """Whether the record was read."""
        return self._version >= 0

    @property
    def is_leaving(self) -> bool:
        """Whether it takes no more part."""
        return self._leaving

    @property
    def failure(self) -> Failure | None:
        """How the life of this replica ended badly, if it did."""
        return self._failure

    @property
    def decision(self) -> Decision | None:
        """What was decided about the cycle in which this replica lives; None as long as nothing is."""
        if self.cycle is None:
            return None
        return self._recorded(self.cycle) or self._default

    @property
    def refusal(self) -> Decision | None:
        """The decision on account of which this replica cannot enter."""
        return self.closing if self._entering and self._looked and not self._reopening else None

    @property
    def closing(self) -> Decision | None:
        """The decision that closed the run, if it is closed."""
        return self.record.decisions[-1] if self.record.closed else None

    def _recorded(self, cycle: int) -> Decision | None:
        record = self.record
        decision = record.decided(cycle)
        if decision is None and (record.finished or record.cycle > cycle):
            return Decision(cycle, Action.FINISHED, Basis.FINISHED)
        return decision

    # Whom to ask

    @property
    def leads(self) -> bool:
        """Whether this replica leads, as far as it knows."""
        lease = self.record.lease
        return lease is not None and lease.holder == self.replica

    @property
    def _is_failing(self) -> bool:
        """Whether the open cycle is to be decided."""
        return self.record.is_open and bool(self.record.triggers)

    def _about_open_cycle(self) -> Failure | None:
        """The failure of the open cycle: as the record has it, else as this replica saw it."""
        record = self.record
        if not record.is_open:
            return None
        if record.triggers:
            return record.triggers[0].failure
        return self._failure if self.cycle == record.cycle else None

    def _questions(self) -> list[Effect]:
        """A replica starts what is elsewhere as soon as it sees the failure; the leader starts and reads all (T56)."""
        failure = self._about_open_cycle()
        mine = self._failure is not None and self.cycle == self.record.cycle
        if failure is None or not (mine or self.leads) or is_exhausted(self.record, failure, self._options.budget):
            return []
        cycle = self.record.cycle_of(failure)
        if not self.leads:
            return [*self._inquiry.starts(self._elsewhere, cycle)]
        return [*self._inquiry.starts(self._names, cycle), *(Ask(name, cycle) for name in self._inquiry.asks())]

    # What to write

    def _call(self, now: float) -> Effect | None:
        if self._stale:
            return Look()
        if (wanted := self._wanted(now)) != self.record or self._version == 0:
            return Swap(self._version, wanted)
        return Look() if now >= self._look_at else None

    def _wanted(self, now: float) -> RunRecord:
        """The record as it should be, by all that is known here."""
        record = self.record
        if self._leaving:
            return record.unled() if self.leads else record
        for said in self._late:
            record = record.with_late(said, as_evidence=self._options.late_verdict is LateVerdict.NEXT_CYCLE)
        if self._finishing and not record.finished:
            return record.with_end(self._finishing)
        if self._entering and (record.finished or (record.closed and self._reopening)):
            return record.reopened()
        if not record.is_open:
            return record
        if self._failure is not None and self.cycle == record.cycle:
            record = record.triggered(Trigger(self.replica, self._wall(self._failed_at), self._failure))
        return self._led(record, now) if record.triggers else record

    def _led(self, record: RunRecord, now: float) -> RunRecord:
        """The failing record, with what its leader does about it."""
        options = self._options
        if record.lease is None or (not self.leads and now >= self._lease_since + options.lease_s):
            record = record.led_by(self.replica)
        assert record.lease is not None
        if record.lease.holder != self.replica:
            return record
        over = self.leads and now >= self._inquiry.deadline
        decision = self._inquiry.decide(record, self.replica, self._wall(now), over=over)
        if decision is not None:
            return record.with_decision(decision)
        return record.beaten() if self.leads and now >= self._inquiry.beat_at else record

    def _by_default(self, now: float) -> Decision:
        """What this replica does if the store has no decision for it: the safe thing."""
        assert self.cycle is not None
        return Decision(
            self.cycle, Action.RESTART, Basis.STORE, replica=self.replica, at=self._wall(now), recorded=False
        )

    # What is learned

    def _learn(self, version: int, record: RunRecord, now: float) -> None:
        if not self.is_known or record.lease != self.record.lease:
            self._lease_since = now
        if self.cycle is not None and record.cycle > self.cycle >= self.record.cycle:
            self._passed_at = now
        self._version, self.record, self._looked, self._stale = version, record, True, False
        self._late = [said for said in self._late if self._is_late(said)]
        if self._finishing and record.finished:
            self._finishing = ""
        self._notice_failure(now)
        self._notice_entry()
        hurried = self._is_failing or self._entering or (self._failure is not None and self.decision is None)
        self._look_at = now + self._options.poll_s * (1 if hurried else CALM)

    def _notice_failure(self, now: float) -> None:
        """The sources are asked about one cycle at a time; what they say about an older one is late."""
        if self._inquiry.cycle != self.record.cycle:
            self._inquiry = Inquiry(self.record.cycle, self._sources, self._options)
        if self._about_open_cycle() is not None:
            self._inquiry.fails(now)
            if self.leads:
                self._inquiry.leads(self.record, self.replica, now)

    def _notice_entry(self) -> None:
        if self._entering and self.is_known and self._version > 0 and self.record.is_open and not self.record.triggers:
            self.cycle, self._entering, self._reopening = self.record.cycle, False, False
            self._passed_at = inf

    def _is_late(self, said: SourceAnswer) -> bool:
        """Whether it is news, about a cycle that is decided."""
        decision = self._recorded(said.cycle)
        if decision is None or not decision.recorded:
            return False
        used = any(one.source == said.source and one.heard is Heard.IN_TIME for one in decision.answers)
        noted = any((one.answer.source, one.answer.cycle) == (said.source, said.cycle) for one in self.record.late)
        return not used and not noted

    def _wall(self, now: float) -> float:
        return self._wall_s + now
