"""All that is remembered of a task that failed: counts, never a list, so its size is bounded.

Decisions look at these counts and not at the last error, so the order of the same failures does not matter
(timeout, timeout, 429 and 429, 429, timeout are one history).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, cast

from .kinds import TABLE, FailureKind

if TYPE_CHECKING:
    from .classify import Failure

__all__ = ["MESSAGE_CHARS", "History", "LaneEvidence", "PendingFault"]

MESSAGE_CHARS: Final = 500
"""Length to which messages are kept."""
_MAX_COUNT: Final = 1_000_000_000
_KINDS: Final = {str(kind): kind for kind in FailureKind}


class LaneEvidence(Protocol):
    """What a pending fault must know of its lane; :class:`.breaker.Breaker` is one."""

    spell: int
    results: int
    good_at: float

    def blame(self, own: float) -> float:
        """How much of a fault is the task's own, 0 to 1, if its own faults weigh that much."""
        ...

    def faded(self, weight: float, since: int) -> float:
        """Return what is left of a weight that was noted when ``results`` was ``since``."""
        ...

    def was_outage(self, spell: int) -> bool:
        """Whether faults of that spell were an outage."""
        ...


@dataclass(frozen=True, slots=True)
class PendingFault:
    """A fault that nobody has judged yet, and the lane's ``good_at`` when it happened."""

    lane: LaneEvidence
    spell: int
    sent_at: float
    good_at: float


@dataclass(slots=True)
class History:
    """Mutable: the machine's own record of one task; what leaves the machine is :meth:`to_dict`.

    ``faults`` are the provider faults of this cycle, ``attempts`` those (of all cycles) that were charged to
    the task, and ``charged`` what they weigh together (see :attr:`.breaker.Breaker.blame`).
    """

    counts: dict[FailureKind, int] = field(default_factory=dict[FailureKind, int])
    attempts: int = 0
    charged: float = 0.0
    output_attempts: int = 0
    last_kind: FailureKind | None = None
    last_status: int | None = None
    last_message: str = ""
    held_before_s: float = 0.0
    """Seconds between the first and the last failure in earlier cycles."""

    faults: int = 0
    first_failed_at: float = inf
    last_failed_at: float = -inf
    first_fault_at: float = inf
    last_fault_at: float = -inf
    pending: PendingFault | None = None
    weight: tuple[LaneEvidence, float, int] | None = None
    """What the task's own faults weigh among the results of its lane."""

    @property
    def tries(self) -> int:
        """Failures of any kind, in all cycles."""
        return sum(self.counts.values())

    def record(self, failure: Failure, now: float) -> None:
        """Count one failure."""
        self.counts[failure.kind] = self.counts.get(failure.kind, 0) + 1
        self.last_kind = failure.kind
        self.last_message = failure.message[:MESSAGE_CHARS]
        self.last_status = failure.status
        self.first_failed_at = min(self.first_failed_at, now)
        self.last_failed_at = now

    def settle(self) -> bool | None:
        """Judge the pending fault: True if it is now charged, False if excused, None if nobody can tell yet.

        It is charged once a request that was sent no earlier was answered well afterwards, on a lane that
        answers most. It is excused if it was part of an outage.
        """
        fault = self.pending
        if fault is None:
            return None
        if fault.lane.was_outage(fault.spell):
            self.pending = None
            return False
        contradicted = fault.lane.good_at >= fault.sent_at and fault.lane.good_at > fault.good_at
        blame = self.blame(fault.lane)
        if not contradicted or blame <= 0:
            return None
        self.pending = None
        self.attempts += 1
        self.charged += blame
        return True

    def blame(self, lane: LaneEvidence) -> float:
        """How much of a fault on the lane is the task's own, judged by the other tasks."""
        return lane.blame(self._own_weight(lane))

    def weighed(self, lane: LaneEvidence) -> None:
        """Note that the last fault counts among the results of the lane."""
        self.weight = (lane, self._own_weight(lane) + 1.0, lane.results)

    def fault(self, now: float) -> None:
        """Count one provider fault, whatever is held against the task."""
        self.faults += 1
        self.first_fault_at = min(self.first_fault_at, now)
        self.last_fault_at = now

    def suspect(self, lane: LaneEvidence, sent_at: float) -> None:
        """Keep the last fault for later judgement, unless an older one is still waiting for it."""
        if self.pending is None:
            self.pending = PendingFault(lane, lane.spell, sent_at, lane.good_at)

    def to_dict(self) -> dict[str, object]:
        """Return a plain dict of bounded size that :meth:`from_dict` reads: for the journal."""
        return {
            "counts": {str(kind): count for kind, count in self.counts.items()},
            "attempts": self.attempts,
            "charged": self.charged,
            "output_attempts": self.output_attempts,
            "last_kind": None if self.last_kind is None else str(self.last_kind),
            "last_status": self.last_status,
            "last_message": self.last_message,
            "held_s": self.held_before_s
            + max(0.0, self.last_failed_at - min(self.first_failed_at, self.last_failed_at)),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> History:
        """Read what :meth:`to_dict` wrote. What makes no sense counts as absent: no row is lost by it."""
        given = data.get("counts")
        counts = cast("Mapping[object, object]", given if isinstance(given, Mapping) else {})
        status = data.get("last_status")
        message = data.get("last_message")
        return cls(
            counts={kind: n for kind in TABLE if (n := _count(counts.get(str(kind))))},
            attempts=_count(data.get("attempts")),
            charged=_amount(data.get("charged")),
            output_attempts=_count(data.get("output_attempts")),
            last_kind=_kind(data.get("last_kind")),
            last_status=status if isinstance(status, int) and not isinstance(status, bool) else None,
            last_message=message[:MESSAGE_CHARS] if isinstance(message, str) else "",
            held_before_s=_amount(data.get("held_s")),
        )

    def _own_weight(self, lane: LaneEvidence) -> float:
        if self.weight is None or self.weight[0] is not lane:
            return 0.0
        return lane.faded(self.weight[1], self.weight[2])

    def check(self) -> None:
        """Assert the invariants."""
        assert self.attempts >= 0
        assert self.charged >= 0
        assert self.output_attempts >= 0
        assert self.last_fault_at <= self.last_failed_at


def _count(value: object) -> int:
    return min(value, _MAX_COUNT) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _amount(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and 0 <= value < inf else 0.0


def _kind(value: object) -> FailureKind | None:
    return _KINDS.get(value) if isinstance(value, str) else None
