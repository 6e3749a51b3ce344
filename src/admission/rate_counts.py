"""How much went out, when: what the learned rate law measures a quota with.

Counts units (requests or tokens) by the time at which they were *sent*, in bins over the last two minutes. A request
counts as accepted from the moment it is sent and is taken out again when it comes back rejected: whatever was sent
before the first rejected request was accepted, and that is known one round trip after it happened, not one answer
later. Bounded: 1200 bins, whatever the traffic.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BINS", "BIN_S", "Mark", "SendCounts"]

BIN_S: Final = 0.1
"""Fine enough that ten seconds are measured within one per cent."""

BINS: Final = 1200
"""Two minutes: the law measures over at most one, which may have ended before a block."""

SURE: Final = 0.999
"""So much of a bin is certainly within it, however its bounds are rounded."""

MOST_S: Final = BINS * BIN_S
"""What lies further back is forgotten."""

HALF: Final = 0.5
"""Units that are not there but for rounding."""

RECORD_BINS: Final = 5
RECORD_SPANS: Final = (4, 10, 20, 40, 80)
"""Records are looked for over 2, 5, 10, 20 and 40 seconds, in steps of half a second."""

RECORD_WITHIN: Final = 0.02
"""What comes this close to a record is one."""

IDLE_S: Final = 5.0
"""A gap longer than this, and longer than the pace explains, ends a busy spell: a rate is measured within one."""


@dataclass(slots=True)
class Mark:
    """A point in the sequence of sends, to count from. Mutable: it gathers the corrections of what came after it."""

    at: float
    units: float
    corrected: float = 0.0


class SendCounts:
    """Units by time of sending, over the last two minutes. Times are in seconds, monotonic."""

    __slots__ = (
        "_bin",
        "_net",
        "_opened",
        "_requests_opened",
        "_slot",
        "_within",
        "busy_since",
        "last_sent",
        "net",
        "requests",
        "units",
    )

    def __init__(self) -> None:
        self.units = 0.0
        self.net = 0.0  # units less what came back
        self.requests = 0
        self.busy_since = inf
        self.last_sent = -inf
        self._bin: int = -1
        self._slot = 0  # of the present bin in the ring
        self._within = -inf  # a send before this moment is certainly in the present bin
        self._net = array("d", bytes(8 * BINS))  # units less what came back, by bin
        self._opened = array("d", bytes(8 * BINS))  # `units` when the bin began
        self._requests_opened = array("q", bytes(8 * BINS))  # the same of `requests`

    @property
    def mean_cost(self) -> float:
        """Units per request so far."""
        return self.units / self.requests if self.requests else 0.0

    def idle(self, now: float, pause_s: float) -> bool:
        """Whether a send at ``now`` begins a busy spell; a gap of ``pause_s`` is a pause within one."""
        gap_s = now - self.last_sent
        return gap_s > IDLE_S and gap_s > pause_s

    def sent(self, cost: float, now: float, idle: bool) -> None:
        """Count ``cost`` units sent at ``now``; ``idle``: it begins a busy spell, as the first send always does."""
        if idle or not self.requests:
            self.busy_since = now
        self.last_sent = now
        if now >= self._within:
            self._advance(int(now / BIN_S))
        self._net[self._slot] += cost
        self.units += cost
        self.net += cost
        self.requests += 1

    def corrected(self, delta: float, sent_at: float, units_before: float, marks: Iterable[Mark | None]) -> None:
        """A send turned out ``delta`` units larger than it was counted (negative: smaller, or not spent at all)."""
        self.net += delta
        number = int(sent_at / BIN_S)
        if self._bin - BINS < number <= self._bin:
            self._net[number % BINS] += delta
        for mark in marks:
            if mark is not None and units_before >= mark.units:
                mark.corrected += delta

    def accepted(self, span_s: float, end: float, units_before: float) -> float:
        """Units accepted in the ``span_s`` seconds until the send at ``end``, which ``units_before`` units preceded."""
        last = int(end / BIN_S)
        oldest = self._bin - BINS + 1
        if last < oldest:
            return 0.0
        begin = max(0.0, end - span_s) / BIN_S
        first = max(int(begin), oldest)
        slot = last % BINS
        total = max(0.0, min(units_before - self._opened[slot], self._net[slot]))
        total += sum([self._net[number % BINS] for number in range(first + 1, last)])
        if first < last:
            # The first bin counts in part, unless the busy spell began in it.
            share = 1.0 if self.busy_since >= first * BIN_S else first + 1 - max(begin, first)
            total += self._net[first % BINS] * share
        return max(0.0, total)

    def least(self, holds_s: float, end: float, units_before: float, *, span_min_s: float) -> float:
        """What the quota of a bucket that holds ``holds_s`` seconds of it is at least, per second.

        In any span until the send at ``end`` it lets through no more than it held and what was refilled.
        """
        spans = self._spans(end, units_before, span_min_s)
        return max([units / (span_s + holds_s) for units, span_s in spans])

    def _spans(self, end: float, units_before: float, least_s: float) -> list[tuple[float, float]]:
        """Units accepted until the send at ``end``, and in how many seconds, from each bin on."""
        last = int(end / BIN_S)
        oldest = max(self._bin - BINS + 1, 0)
        slot = last % BINS
        total = max(0.0, min(units_before - self._opened[slot], self._net[slot]))
        spans: list[tuple[float, float]] = []
        for number in range(last - 1, oldest - 1, -1):
            total += self._net[number % BINS]
            span_s = end - number * BIN_S
            if span_s >= least_s:
                spans.append((total, span_s))
        return spans or [(0.0, MOST_S)]

    def record(self, cost: float, end: float, units_before: float, since: float) -> bool:
        """Whether no more was ever accepted, over some span, than in the one until the send of ``cost`` at ``end``.

        Looks back to ``since``, at most two minutes, and not at overlaps of more than half.
        """
        last = int(end / BIN_S)
        first = max(int(max(0.0, since) / BIN_S), self._bin - BINS + 1, 0)
        steps = (last - first) // RECORD_BINS
        if steps < 2 * RECORD_SPANS[0] or self._bin - last > BINS // 2:
            return True
        opened = last + 1 - steps * RECORD_BINS
        sums = [0.0]
        total = 0.0
        for step in range(steps):
            begin = opened + step * RECORD_BINS
            total += sum([self._net[number % BINS] for number in range(begin, begin + RECORD_BINS)])
            sums.append(total)
        slot = last % BINS
        sums[-1] -= self._net[slot] - max(0.0, min(units_before - self._opened[slot], self._net[slot]))
        short = max(cost, self.mean_cost)  # a rejection shows only that less than its cost was left
        for span in RECORD_SPANS:
            if 2 * span > steps:
                return False
            latest = sums[-1] - sums[-1 - span]
            best = max([sums[at + span] - sums[at] for at in range(steps - span - span // 2 + 1)])
            if latest >= (1.0 - RECORD_WITHIN) * best - short and latest > 0.0:
                return True
        return False

    def any_accepted(self, since: float, until: float) -> bool:
        """Whether anything was accepted that was sent between the two moments, as far as is known already.

        What was sent in the same tenth of a second as either is not looked at: its fate may not be known.
        """
        first = max(int(max(0.0, since) / BIN_S) + 1, self._bin - BINS + 1, 0)
        return any(self._net[number % BINS] > HALF for number in range(first, min(int(until / BIN_S), self._bin + 1)))

    def sends(self, span_s: float, end: float) -> int:
        """About how many requests went out in the ``span_s`` seconds until ``end``: to judge a measurement by."""
        last = int(end / BIN_S)
        first = max(int((end - span_s) / BIN_S), self._bin - BINS + 1, 0)
        if first > last:
            return 0
        until_end = self.requests if last >= self._bin else self._requests_opened[(last + 1) % BINS]
        return until_end - self._requests_opened[first % BINS]

    def check(self) -> None:
        """Assert every invariant."""
        assert len(self._net) == len(self._opened) == BINS
        assert self.units >= 0.0
        assert self.last_sent == -inf or self.busy_since <= self.last_sent

    def _advance(self, number: int) -> None:
        """Open the bins up to ``number``; at most one turn of the ring however long it was quiet."""
        number = max(number, self._bin, 0)
        if number - self._bin >= BINS:
            self._net = array("d", bytes(8 * BINS))
            self._opened = array("d", [self.units]) * BINS
            self._requests_opened = array("q", [self.requests]) * BINS
        else:
            for fresh in range(self._bin + 1, number + 1):
                slot = fresh % BINS
                self._net[slot] = 0.0
                self._opened[slot] = self.units
                self._requests_opened[slot] = self.requests
        self._bin = number
        self._slot = number % BINS
        self._within = (number + SURE) * BIN_S
