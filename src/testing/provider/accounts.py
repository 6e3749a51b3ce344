"""The exact account of one model: counts, tokens, and integrals over time. It counts and decides nothing.

Every request ends in exactly one place: rejected by a limit, or accepted and then finished with a status.
What is remembered per content is bounded; the oldest content is forgotten first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

from .timeline import Timeline
from .values import ContentCount, Fault, ModelStats, ProviderLimit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Account", "Contents"]


class Contents:
    """How often each content was asked for, for the ``remember`` newest contents."""

    def __init__(self, remember: int) -> None:
        assert remember >= 1
        self.remember = remember
        self._counts: OrderedDict[bytes, ContentCount] = OrderedDict()
        self.forgotten = 0

    def of(self, digest: bytes) -> ContentCount:
        """Return the count of a content, a new one if it is not known."""
        count = self._counts.get(digest)
        if count is None:
            count = self._counts[digest] = ContentCount()
            if len(self._counts) > self.remember:
                self._counts.popitem(last=False)
                self.forgotten += 1
        return count

    def all(self) -> Mapping[bytes, ContentCount]:
        """Return all remembered counts by digest."""
        return self._counts

    def __len__(self) -> int:
        return len(self._counts)


class Account:
    """Counts of one model since ``now``; ``in_flight`` requests are already under way."""

    def __init__(self, now: float, in_flight: int = 0) -> None:
        self.in_flight = in_flight
        self._requests = self._accepted = in_flight
        self._in_flight_max = in_flight
        self._rejected: Counter[ProviderLimit] = Counter()
        self._statuses: Counter[str] = Counter()
        self._faults: Counter[Fault] = Counter()
        self._input_tokens = self._output_tokens = 0
        self._accepted_again = self._answered_again = 0
        self._busy_s = self._served_s = 0.0
        self._capacity_s: float | None = 0.0
        self._at = now
        self.timeline = Timeline(now)

    def advance(self, now: float, concurrency: int | None) -> None:
        """Carry the integrals on to ``now`` under the limit that held until then."""
        assert now >= self._at, "time went back"
        self.timeline.advance(now, self.in_flight, concurrency)
        passed = now - self._at
        self._at = now
        self._busy_s += self.in_flight * passed
        if concurrency is None:
            self._capacity_s = None if passed > 0 else self._capacity_s
        elif self._capacity_s is not None:
            self._capacity_s += concurrency * passed

    def reject(self, limit: ProviderLimit, status: int, count: ContentCount) -> None:
        """Count a request that was refused at the door."""
        self._requests += 1
        self._rejected[limit] += 1
        self._statuses[str(status)] += 1
        self.timeline.count(accepted=False)
        count.requests += 1

    def accept(self, fault: Fault | None, count: ContentCount) -> None:
        """Count a request that took a slot."""
        self._requests += 1
        self._accepted += 1
        self.in_flight += 1
        self._in_flight_max = max(self._in_flight_max, self.in_flight)
        self.timeline.count(accepted=True)
        count.requests += 1
        count.accepted += 1
        self._accepted_again += count.accepted > 1
        if fault is not None:
            self._faults[fault] += 1

    def finish(self, status: str) -> None:
        """Count the end of an accepted request: its status, ``"reset"`` or ``"left"``."""
        self.in_flight -= 1
        self._statuses[status] += 1

    def answer(self, input_tokens: int, output_tokens: int, served_s: float, count: ContentCount) -> None:
        """Count what an answer of status 200 cost."""
        self._input_tokens += input_tokens
        self._output_tokens += output_tokens
        self._served_s += served_s
        count.answered += 1
        self._answered_again += count.answered > 1

    def stats(self, contents: Contents) -> ModelStats:
        """Return the account as a value, with what is known of the contents."""
        return ModelStats(
            requests=self._requests,
            accepted=self._accepted,
            rejected={limit.value: count for limit, count in self._rejected.items()},
            statuses=dict(self._statuses),
            faults={fault.value: count for fault, count in self._faults.items()},
            in_flight=self.in_flight,
            in_flight_max=self._in_flight_max,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            busy_s=self._busy_s,
            capacity_s=self._capacity_s,
            served_s=self._served_s,
            contents=len(contents),
            accepted_again=self._accepted_again,
            answered_again=self._answered_again,
            forgotten=contents.forgotten,
        )

    def check(self) -> None:
        """Assert that the account adds up."""
        assert self.in_flight >= 0
        assert self._requests == self._accepted + self._rejected.total()
        assert self._requests == self.in_flight + self._statuses.total()
        assert self.in_flight <= self._in_flight_max
