"""What is kept of a run between its lives: one record in one register, each change of it one compare-and-set.

Everything that replicas must agree on stands here together: which cycle is open, who saw it fail, who leads, what was
decided, whether the run is closed. So a stop is one write that all replicas see or none does (T58, T60), it outlives
its leader (T61), and whoever led before cannot write any more: his version of the record is not the present one.

Pure: each method returns another record. Times are wall-clock seconds, for people only; nothing is decided by them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

# At run time too: the record is read with pydantic, which needs the types of its fields.
from .values import TASKS_MOST, Cause, Cycle, Failure, Ledger, PastCycle, Suspect, TaskId, Verdict

__all__ = [
    "DECISIONS_KEPT",
    "LATE_KEPT",
    "TRIGGERS_KEPT",
    "Action",
    "Basis",
    "Decision",
    "Heard",
    "Late",
    "Lease",
    "RunRecord",
    "SourceAnswer",
    "Trigger",
]

DECISIONS_KEPT: Final = 50
TRIGGERS_KEPT: Final = 64
LATE_KEPT: Final = 50
QUARANTINED_MOST: Final = 10_000


class Action(StrEnum):
    """What all replicas do."""

    RESTART = "restart"
    QUARANTINE = "quarantine"
    """Set the tasks of the decision aside, then restart."""
    STOP = "told_to_stop"
    EXHAUSTED = "budget_exhausted"
    """No more restarts without progress: not a verdict of anybody."""
    FINISHED = "finished"
    """The run has finished meanwhile; there is nothing to be decided."""

    @property
    def goes_on(self) -> bool:
        """Whether another cycle begins."""
        return self in (Action.RESTART, Action.QUARANTINE)


class Basis(StrEnum):
    """On what a decision rests. Everything but answers and evidence leads to a restart by default, or to the end."""

    ANSWERS = "answers"
    EVIDENCE = "evidence"
    """A verdict on an earlier cycle that came late was needed for it."""
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    INVALID = "invalid"
    NO_SOURCES = "no_sources"
    STORE = "store"
    """The store did not answer in time: this replica goes on by default, until it hears what was decided."""
    BUDGET = "budget"
    FINISHED = "finished"


class Heard(StrEnum):
    """How a source answered."""

    IN_TIME = "in_time"
    LATE = "late"
    """It said nothing in time; this is its verdict on an earlier cycle."""
    NOTHING = "nothing"
    UNREACHABLE = "unreachable"
    INVALID = "invalid"
    NOT_AWAITED = "not_awaited"
    """Others had already settled it."""


@dataclass(frozen=True, slots=True)
class SourceAnswer:
    """What a source said about ``cycle``, or why it said nothing."""

    source: str
    heard: Heard
    cycle: int
    verdict: Verdict | None = None
    tasks: tuple[TaskId, ...] = ()
    reason: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Trigger:
    """Who saw the cycle fail, and when."""

    replica: str
    at: float
    failure: Failure

    def brief(self) -> Trigger:
        """The same without its ledger."""
        return replace(self, failure=replace(self.failure, ledger=Ledger()))


@dataclass(frozen=True, slots=True)
class Lease:
    """Who leads. The token grows with each leader; as long as ``beat`` grows too, he lives."""

    holder: str
    token: int
    beat: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a cycle, by whom, on what basis. Immutable once it is on record.

    ``verdict`` is what the sources amount to, whether it is acted upon or not; None if they were not asked. It is a
    ``dry_run`` that makes ``action`` differ from it. ``recorded`` is False for what a replica does while the store
    does not answer.
    """

    cycle: int
    action: Action
    basis: Basis
    verdict: Verdict | None = None
    tasks: tuple[TaskId, ...] = ()
    dry_run: bool = False
    replica: str = ""
    at: float = 0.0
    cause: Cause | None = None
    progress: int = 0
    fruitless: int = 0
    answers: tuple[SourceAnswer, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    recorded: bool = True

    @property
    def would_be(self) -> Verdict | None:
        """What would have been done without ``dry_run``; None if that is what is done, or nobody was asked."""
        return self.verdict if self.dry_run and self.verdict is not Verdict.RESTART else None


@dataclass(frozen=True, slots=True)
class Late:
    """A verdict that came when its cycle was decided. ``evidence_for`` is the cycle whose decision may use it."""

    answer: SourceAnswer
    evidence_for: int | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run between its lives. ``lineage`` is drawn once, so that cycle ids are unique over all stores.

    ``committed`` are the outcomes on record at the last decision, ``fruitless`` the cycles without progress since the
    last one with some. ``closed`` is set from a stop until somebody reopens the run. ``suspects`` are the tasks that
    were in flight at the end of the last cycle that is decided.
    """

    run: str
    lineage: str
    cycle: int = 1
    closed: bool = False
    finished: str = ""
    committed: int = 0
    fruitless: int = 0
    fence: int = 0
    lease: Lease | None = None
    triggers: tuple[Trigger, ...] = ()
    evidence: tuple[SourceAnswer, ...] = ()
    quarantined: tuple[TaskId, ...] = ()
    decisions: tuple[Decision, ...] = ()
    late: tuple[Late, ...] = ()
    suspects: tuple[Suspect, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether a failure of the present cycle would be decided."""
        return not self.closed and not self.finished

    def cycle_id(self, number: int) -> str:
        """The id of a cycle, by which a service knows it again."""
        return f"{self.run}-{self.lineage}-{number}"

    def decided(self, cycle: int) -> Decision | None:
        """What was decided about ``cycle``, if anything was; the last decision if it is too long ago to be kept."""
        if self.decisions and cycle < self.decisions[0].cycle:
            return self.decisions[-1]
        return next((one for one in self.decisions if one.cycle == cycle), None)

    def progress(self, failure: Failure) -> int:
        """How many outcomes were committed in the open cycle, as far as anybody knows."""
        known = [trigger.failure for trigger in self.triggers] or [failure]
        return max(sum(one.progress for one in known), max(one.committed for one in known) - self.committed, 0)

    def cycle_of(self, failure: Failure) -> Cycle:
        """The open cycle as sources are told of it."""
        before = tuple(
            PastCycle(one.cycle, one.cause, one.progress, len(one.tasks) if one.action is Action.QUARANTINE else 0)
            for one in self.decisions
            if one.cause is not None
        )
        again = [one for one in self._suspects_of(failure) if one.cycles > 1]
        suspects = tuple(sorted(again, key=lambda one: (-one.cycles, one.task))[:TASKS_MOST])
        progress = self.progress(failure)
        return Cycle(self.cycle_id(self.cycle), self.run, self.cycle, failure, progress, before, suspects)

    def _suspects_of(self, failure: Failure) -> tuple[Suspect, ...]:
        """The tasks that were in flight when the open cycle failed, each with how many cycles in a row it was."""
        before = {one.task: one.cycles for one in self.suspects}
        return tuple(Suspect(task, before.get(task, 0) + 1) for task in failure.ledger.in_flight)

    # Changes

    def triggered(self, trigger: Trigger) -> RunRecord:
        """``trigger.replica`` saw the open cycle fail. Only the first one's ledger is kept."""
        if any(one.replica == trigger.replica for one in self.triggers) or len(self.triggers) >= TRIGGERS_KEPT:
            return self
        return replace(self, triggers=(*self.triggers, trigger.brief() if self.triggers else trigger))

    def led_by(self, replica: str) -> RunRecord:
        """``replica`` leads from now on, and nobody who did before."""
        return replace(self, lease=Lease(replica, self.fence + 1), fence=self.fence + 1)

    def unled(self) -> RunRecord:
        """The leader leaves: whoever sees it may lead at once."""
        return replace(self, lease=None)

    def beaten(self) -> RunRecord:
        """The leader lives."""
        assert self.lease is not None
        return replace(self, lease=replace(self.lease, beat=self.lease.beat + 1))

    def with_decision(self, decision: Decision) -> RunRecord:
        """The open cycle is decided: the next one is open, or the run is closed, in the same step."""
        assert self.is_open
        assert decision.cycle == self.cycle
        goes_on = decision.action.goes_on
        quarantined = self.quarantined
        if decision.action is Action.QUARANTINE:
            quarantined = tuple(sorted({*quarantined, *decision.tasks}))[:QUARANTINED_MOST]
        return replace(
            self,
            cycle=self.cycle + 1 if goes_on else self.cycle,
            closed=not goes_on,
            committed=max([self.committed, *(trigger.failure.committed for trigger in self.triggers)]),
            fruitless=decision.fruitless,
            lease=None,
            triggers=(),
            evidence=(),
            quarantined=quarantined,
            decisions=(*self.decisions, decision)[-DECISIONS_KEPT:],
            suspects=self._suspects_of(self.triggers[0].failure) if self.triggers else (),
        )

    def with_late(self, answer: SourceAnswer, *, as_evidence: bool) -> RunRecord:
        """``answer`` came after its cycle was decided. It changes nothing about that one."""
        said = (answer.source, answer.cycle)
        if any((one.answer.source, one.answer.cycle) == said for one in self.late):
            return self
        as_evidence = as_evidence and self.is_open and answer.verdict is not Verdict.RESTART
        late = (*self.late, Late(answer, self.cycle if as_evidence else None))[-LATE_KEPT:]
        others = tuple(one for one in self.evidence if one.source != answer.source)
        return replace(self, late=late, evidence=(*others, answer) if as_evidence else self.evidence)

    def with_end(self, status: str) -> RunRecord:
        """The run has finished: nobody stops it any more (R5)."""
        return replace(self, finished=status, closed=False, lease=None, triggers=())

    def reopened(self) -> RunRecord:
        """Somebody starts a run again that was stopped or had finished."""
        return replace(self, cycle=self.cycle + 1, closed=False, finished="", fruitless=0, evidence=(), suspects=())
