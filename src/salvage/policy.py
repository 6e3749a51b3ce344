"""The numbers of salvage, each with its reason. Frozen: a run keeps the numbers it began with."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SalvagePolicy"]


@dataclass(frozen=True, slots=True)
class SalvagePolicy:
    """How patient, how persistent, how quick to suspect. All times in seconds.

    Raises ValueError for numbers that cannot be meant.
    """

    max_attempts: int = 5
    """Provider faults charged to one task before it is poison. By chance alone, where a tenth of all requests
    fail, that happens to one row in 100,000. Where more fail, each counts for less, so that it stays one in
    100,000.
    """
    max_output_attempts: int = 3
    """Useless answers before the cell fails. Each one was paid for; past three, the prompt is the cause."""
    max_tries: int = 200
    """Hard bound on faults of one task in one cycle, charged or not. It then waits for the next cycle: no
    number of faults during an outage makes a row failed, and no row is tried a thousand times."""
    base_s: float = 1.0
    """Ceiling of the first backoff: about one round trip of a quick model."""
    cap_s: float = 60.0
    """Ceiling of every backoff: the window of the usual per-minute limits."""
    patience_s: float = 3600.0
    """Age since first held at which waiting is no longer reasonable: the run then ends as held and is
    resumable."""
    outage_min: int = 8
    """Distinct tasks that must fail in a row to call it an outage: chance does it once in 65,000 positions on
    a lane that fails a quarter of its requests."""
    probe_base_s: float = 1.0
    """First pause of an outage. Short, since half a second of 500s is the commonest outage."""
    probe_cap_s: float = 60.0
    """Longest pause between probes: what is lost at most after the provider is back."""
    probe_grace_s: float = 1.0
    """Time that fresh work has to provide the probe before a held task is used: it cannot be poison
    already."""
    lone_span_s: float = 300.0
    """How long a task that failed while others succeeded must go on failing when nothing else is left on the
    lane to compare with. Five minutes outlast most outages; ``inf`` holds such tasks until patience ends.
    """
    lone_share: float = 0.1
    """That holds only while other failing tasks are at most this share of the successes: more look like an
    outage.
    """
    release_share: float = 0.2
    """Held releases per send within 60 s while fresh work exists."""
    release_min: int = 3
    """Held releases per 60 s that are always allowed."""
    retry_ratio: float = 0.2
    """Wasted retries that each success pays for."""
    retry_reserve_per_s: float = 1.0
    """Retries per second that need no success: without them a lane that only has retries left could never
    recover."""
    retry_burst: float = 256.0
    """Retries that may be out without an answer: the usual concurrency of one model."""

    def __post_init__(self) -> None:
        counts = (
            self.max_attempts,
            self.max_output_attempts,
            self.outage_min,
            self.release_min,
            self.max_tries,
        )
        if min(counts) < 1:
            raise ValueError("attempts, tries, outage_min and release_min must be at least 1")
        if not 0 < self.base_s <= self.cap_s or not 0 < self.probe_base_s <= self.probe_cap_s:
            raise ValueError("each base must be positive and at most its cap")
        if min(self.patience_s, self.probe_grace_s, self.lone_span_s, self.retry_ratio, self.lone_share) < 0:
            raise ValueError("times and ratios cannot be negative")
        if not 0 < self.release_share <= 1 or self.retry_burst < 1 or self.retry_reserve_per_s <= 0:
            raise ValueError("release_share must be in (0, 1], retry_burst at least 1, the reserve positive")
