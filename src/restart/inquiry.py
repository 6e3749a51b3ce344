"""What one replica knows about the failure of one cycle: whom it has asked, what it has heard, how long it waits."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from .aggregation import judge
from .effects import CoreOptions, SourceFacts, Start
from .record import Action, Basis, Decision, RunRecord, SourceAnswer
from .values import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .aggregation import Judgement
    from .record import Lease
    from .values import Cycle, Failure

__all__ = ["BEATS", "Inquiry", "is_exhausted"]

BEATS: Final = 3
"""How often a leader says within the time of its lease that it lives."""

_ACTIONS: Final = {
    Verdict.RESTART: Action.RESTART,
    Verdict.STOP: Action.STOP,
    Verdict.QUARANTINE: Action.QUARANTINE,
}


def is_exhausted(record: RunRecord, failure: Failure, budget: int) -> bool:
    """Whether there have been enough cycles without progress. Then nobody is asked."""
    return not record.progress(failure) and record.fruitless >= budget


class Inquiry:
    """One replica's inquiry into one cycle."""

    __slots__ = (
        "_asked",
        "_heard",
        "_lease",
        "_names",
        "_options",
        "_started",
        "beat_at",
        "cycle",
        "deadline",
        "since",
    )

    def __init__(self, cycle: int, sources: Sequence[SourceFacts], options: CoreOptions) -> None:
        self.cycle = cycle
        self._names = tuple(source.name for source in sources)
        self._options = options
        self._started: set[str] = set()
        self._asked: set[str] = set()
        self._heard: dict[str, SourceAnswer] = {}
        self._lease: Lease | None = None
        self.since = inf
        """When this replica heard first that the cycle has failed."""
        self.deadline = self.beat_at = inf
        """For a leader: when there is no more time, and when it has to say that it lives."""

    def fails(self, now: float) -> None:
        """The cycle has failed."""
        self.since = min(self.since, now)

    def leads(self, record: RunRecord, replica: str, now: float) -> None:
        """``replica`` leads. A new leader has what is left of the time, but that of a lease to hear what is known.

        So has one who leads again: it did not live, or was not heard, while the others did.
        """
        lease, options = record.lease, self._options
        assert lease is not None
        if lease != self._lease:  # however often it is looked at, only a beat puts off the next one
            self.beat_at = now + options.lease_s / BEATS
        before, self._lease = self._lease, lease
        if before is None or before.token != lease.token:
            is_first = before is None and record.triggers[0].replica == replica
            least_s = 0.0 if is_first else min(options.lease_s, options.timeout_s)
            self.deadline = max(self.since + options.timeout_s, now + least_s)

    def starts(self, names: Sequence[str], cycle: Cycle) -> list[Start]:
        """The analyses that have not begun yet, as far as this replica knows."""
        new = [name for name in names if name not in self._started]
        self._started.update(new)
        return [Start(name, cycle) for name in new]

    def asks(self) -> list[str]:
        """The sources that are not being read yet."""
        new = [name for name in self._names if name not in self._asked]
        self._asked.update(new)
        return new

    def hear(self, said: SourceAnswer) -> None:
        """A source has answered, or will not. What it says first counts."""
        self._heard.setdefault(said.source, said)

    def decide(self, record: RunRecord, replica: str, wall: float, *, over: bool) -> Decision | None:
        """What becomes of the open cycle; None while it is worth waiting. ``wall`` is in wall-clock seconds."""
        options = self._options
        failure = record.triggers[0].failure
        if is_exhausted(record, failure, options.budget):
            return self._decision(record, replica, wall, None)
        judgement = judge(options.aggregation, record.cycle, self._names, self._heard, record.evidence, over=over)
        return None if judgement is None else self._decision(record, replica, wall, judgement)

    def _decision(self, record: RunRecord, replica: str, wall: float, judgement: Judgement | None) -> Decision:
        failure = record.triggers[0].failure
        progress = record.progress(failure)
        if judgement is None:
            action = Action.EXHAUSTED
        else:
            action = Action.RESTART if self._options.dry_run else _ACTIONS[judgement.verdict]
        return Decision(
            record.cycle,
            action,
            judgement.basis if judgement else Basis.BUDGET,
            judgement.verdict if judgement else None,
            judgement.tasks if judgement else (),
            dry_run=self._options.dry_run,
            replica=replica,
            at=wall,
            cause=failure.cause,
            progress=progress,
            fruitless=0 if progress else record.fruitless + 1,
            answers=judgement.answers if judgement else (),
            triggers=tuple(trigger.brief() for trigger in record.triggers),
        )
